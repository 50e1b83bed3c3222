package main

import (
	"context"
	"encoding/json"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/audit"
)

// auditAdmin records the calls of commands.
func auditAdmin(l *audit.Log) func(context.Context, admin.Record) {
	return func(_ context.Context, r admin.Record) {
		if r.Err == nil && slices.Contains(steps, r.Verb) {
			return
		}
		if r.Verb == "verify/step" && r.Err == nil {
			return // of a run that is on its line already, one every two seconds
		}
		e := audit.Event{Time: r.At, Request: r.ID, Action: audit.AdminPrefix + strings.ReplaceAll(r.Verb, "/", "."), Result: audit.OK, User: userName(r.UID)}
		e.Claims = inputOf(r.Input)
		// What one looks for has a field of its own.
		for key, field := range map[string]*string{"cache": &e.Cache, "policy": &e.Policy, "id": &e.Token, "ids": &e.Token, "jti": &e.Token} {
			if v := e.Claims[key]; v != "" {
				*field = v
			}
		}
		if name := e.Claims["name"]; name != "" && strings.HasPrefix(r.Verb, "trust/") {
			e.Policy = name
		}
		if r.Err != nil {
			e.Result, e.Reason = audit.Refused, r.Err.Error()
			if strings.HasPrefix(e.Reason, "panic:") {
				e.Result = audit.Failed
			}
		}
		if out, ok := r.Output.(tokenRevokeOutput); ok {
			auditRevoked(l, e, out.Revoked)
			return
		}
		l.Write(e)
	}
}

// steps are verbs that a command calls thousands of times, and that change nothing.
var steps = []string{"import/have", "export/list", "export/describe", "export/nar"}

// idsOfLine is how many ids of tokens fit into the field of a line.
const idsOfLine = 12

// auditRevoked names each token that a command took back, on as many lines as that
// needs: what was asked for may be a policy, of which nobody knows later what it gave.
func auditRevoked(l *audit.Log, e audit.Event, rows []tokenRow) {
	e.Objects = int64(len(rows))
	if len(rows) == 0 {
		l.Write(e)
	}
	for some := range slices.Chunk(rows, idsOfLine) {
		ids := make([]string, len(some))
		for i, t := range some {
			ids[i] = t.ID
		}
		e.Token = strings.Join(ids, ",")
		l.Write(e)
	}
}

// userName says who gave a command: the number that the system vouches for, and its name
// if it has one.
func userName(uid int) string {
	if uid == admin.Nobody {
		return ""
	}
	number := strconv.Itoa(uid)
	if u, err := user.LookupId(number); err == nil {
		return number + " (" + u.Username + ")"
	}
	return number
}

// inputOf lists what a command asked for, as words. Members whose names say that they
// hold a secret stay out, whatever they hold; the record itself cuts tokens and keys out
// of the rest.
func inputOf(in any) map[string]string {
	text, err := json.Marshal(in)
	if err != nil {
		return nil
	}
	var tree any
	if json.Unmarshal(text, &tree) != nil {
		return nil
	}
	out := map[string]string{}
	flatten(out, "", tree)
	return out
}

func flatten(out map[string]string, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, member := range v {
			key = strings.ToLower(key)
			if strings.Contains(key, "token") || strings.Contains(key, "secret") || strings.Contains(key, "private") || strings.Contains(key, "claims") {
				continue
			}
			if at != "" && at != "policy" { // the policy to add is what a command is about
				key = at + "." + key
			}
			flatten(out, key, member)
		}
	case []any:
		var words []string
		for _, it := range v {
			if s, ok := it.(string); ok {
				words = append(words, s)
			}
		}
		if len(words) > 0 {
			out[at] = strings.Join(words, ",")
		}
	case string:
		if v != "" {
			out[at] = v
		}
	case float64:
		if v != 0 {
			out[at] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	case bool:
		if v {
			out[at] = "true"
		}
	}
}

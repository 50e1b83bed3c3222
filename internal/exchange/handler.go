package exchange

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/peer"
)

const (
	grantType = "urn:ietf:params:oauth:grant-type:token-exchange"
	maxBody   = 16 << 10
)

// ConfigHandler answers GET /_api/v1/oidc/config: what a client must know to get a token.
func (e *Exchange) ConfigHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, api.TrustConfig{
			Issuers: e.Verifier.Issuers(), Audience: e.Verifier.Audience(),
			TokenEndpoint: e.Endpoint, RevocationEndpoint: e.RevocationEndpoint,
		})
	})
}

// TokenHandler answers POST /_api/v1/oidc/token.
func (e *Exchange) TokenHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, from := e.requestID(r), e.address(r)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Pragma", "no-cache")
		resp, refusal := e.serve(w, r, id, peer.Key(from))
		if refusal != nil {
			e.record(refusal.audited(), id, from)
			e.answerRefusal(r.Context(), w, id, refusal)
			return
		}
		e.record(resp.event, id, from)
		writeJSON(w, http.StatusOK, api.TokenResponse{
			AccessToken: resp.AccessToken, IssuedTokenType: typeAccess, TokenType: "Bearer",
			ExpiresIn: int64(resp.TTL / time.Second), Scope: resp.Scope,
		})
	})
}

func (e *Exchange) serve(w http.ResponseWriter, r *http.Request, id, who string) (Response, *Refusal) {
	if wait := e.Limits.Refused.Wait(who, e.now()); wait > 0 {
		return Response{}, slowDown(wait, "too many refused tokens from "+who)
	}
	if wait := e.Limits.Asked.Take(who, e.now()); wait > 0 {
		return Response{}, slowDown(wait, "too many requests from "+who)
	}
	req, refusal := readRequest(w, r)
	req.ID = id
	var resp Response
	if refusal == nil {
		resp, refusal = e.Do(r.Context(), req)
	}
	if refusal != nil && refusal.Status == http.StatusBadRequest {
		e.Limits.Refused.Count(who, e.now())
	}
	return resp, refusal
}

// readRequest takes the form apart. It comes in the body only: URLs end up in logs.
func readRequest(w http.ResponseWriter, r *http.Request) (Request, *Refusal) {
	bad := func(text string) (Request, *Refusal) { return Request{}, refuse(codeRequest, text, nil) }
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		return Request{}, &Refusal{Status: http.StatusMethodNotAllowed, Code: codeRequest, Description: "use POST", Reason: errors.New("method is not POST")}
	case r.URL.RawQuery != "" || r.URL.ForceQuery:
		return bad("parameters belong into the body, not into the URL")
	case len(r.Header.Values("Authorization")) > 0:
		// Two credentials in one request: which one counts should not be a question.
		return bad("an Authorization header is not accepted here")
	}
	if len(r.Header.Values("Content-Type")) > 1 || len(r.Header.Values("Content-Encoding")) > 0 {
		return bad("the body must be of one type, and not be encoded")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return bad("the body must be application/x-www-form-urlencoded")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return bad(fmt.Sprintf("the body cannot be read or is larger than %d bytes", maxBody))
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return bad("the body is not a form") // the error would quote the body, and the token with it
	}
	for name, values := range form {
		if len(values) > 1 {
			return Request{}, refuse(codeRequest, "a parameter is given twice", fmt.Errorf("parameter %s is given %d times", quote(name), len(values)))
		}
	}
	return fromForm(form)
}

func fromForm(form url.Values) (Request, *Refusal) {
	switch {
	case form.Get("grant_type") == "":
		return Request{}, refuse(codeRequest, "grant_type is required", nil)
	case form.Get("grant_type") != grantType:
		return Request{}, refuse(codeGrantType, "grant_type must be "+grantType, nil)
	case form.Has("actor_token") || form.Has("actor_token_type"):
		return Request{}, refuse(codeRequest, "actor tokens are not supported", nil)
	}
	return Request{
		SubjectToken:     form.Get("subject_token"),
		SubjectTokenType: form.Get("subject_token_type"),
		RequestedType:    form.Get("requested_token_type"),
		Audience:         form.Get("audience"),
		Resource:         form.Get("resource"),
		Scope:            form.Get("scope"),
	}, nil
}

func (e *Exchange) answerRefusal(ctx context.Context, w http.ResponseWriter, id string, f *Refusal) {
	level := slog.LevelWarn
	if f.Status >= 500 {
		level = slog.LevelError
	}
	e.log().LogAttrs(ctx, level, "refused ID token", append([]slog.Attr{
		slog.String("request_id", id),
		slog.Int("status", f.Status),
		slog.String("code", f.Code),
		slog.String("reason", f.Reason.Error()),
	}, attrs(f.claims)...)...)
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}
	writeJSON(w, f.Status, api.TokenError{Code: f.Code, Description: f.Description, RequestID: id})
}

func (e *Exchange) requestID(r *http.Request) string {
	if e.RequestID == nil {
		return rand.Text()
	}
	return e.RequestID(r)
}

func (e *Exchange) address(r *http.Request) netip.Addr {
	if e.Address != nil {
		return e.Address(r)
	}
	return peer.Finder{}.Address(r)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that has gone away has gone away
}

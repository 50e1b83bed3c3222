package config

import (
	"reflect"
	"strings"
)

// keys looks for keys that nobody reads. At the top level, and wherever one could
// widen what somebody is granted, that is an error, as in all tables of
// ours; in Attic's tables, where Attic says nothing, a warning.
func (b *builder) keys(*Server) error {
	unknown := map[string]bool{}
	for _, k := range b.keysAt {
		parent, name := split(k.key)
		if unknown[parent] || known(k.key) {
			unknown[k.key] = unknown[parent]
			continue
		}
		unknown[k.key] = true
		table, _, _ := strings.Cut(stripIndices(k.key), ".")
		hint, spelling := suggest(parent, name)
		if hint == "" && parent != "" {
			hint = "; [" + stripIndices(parent) + "] has " + strings.Join(fields(typeOf(parent)), ", ")
		}
		if parent == "" || table == "trust" || table == "oidc" || table == "cache-rules" || table == "limits" || table == "audit" || table == "pins" || table == "verify" ||
			strings.HasPrefix(parent, "garbage-collection.cache") || spelling {
			return b.wrong(k.key, "there is no such key%s", hint)
		}
		b.warn(k.key, "there is no such key%s; it is ignored", hint)
	}
	return nil
}

// split cuts off the last part of a key.
func split(key string) (parent, name string) {
	i := strings.LastIndexByte(key, '.')
	return key[:max(i, 0)], key[i+1:]
}

// stripIndices removes the numbers of array elements from a key.
func stripIndices(key string) string {
	for {
		i := strings.IndexByte(key, '[')
		j := strings.IndexByte(key, ']')
		if i < 0 || j < i {
			return key
		}
		key = key[:i] + key[j+1:]
	}
}

// typeOf returns the type of a key's value, nil for an unknown key. Unlike
// the TOML reader it minds case.
func typeOf(key string) reflect.Type {
	t := reflect.TypeFor[file]()
	if key == "" {
		return t
	}
	for part := range strings.SplitSeq(stripIndices(key), ".") {
		if t = table(t); t == nil {
			return nil
		}
		var next reflect.Type
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("toml") == part {
				next = t.Field(i).Type
			}
		}
		if t = next; t == nil {
			return nil
		}
	}
	return t
}

// table returns the struct of a table or of an array of tables, or nil.
func table(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	return t
}

func known(key string) bool { return typeOf(key) != nil }

// wanted describes the value of a key, "" for an unknown one.
func wanted(key string) string {
	t := typeOf(key)
	if t == nil {
		return ""
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t.Kind() == reflect.Slice && table(t) != nil:
		return "tables, each under [[" + key + "]]"
	case t.Kind() == reflect.Slice:
		return "an array of strings"
	case t.Kind() == reflect.Struct:
		return "a table, [" + key + "]"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int64:
		return "an integer"
	}
	if parent, name := split(key); parent == "garbage-collection" || parent == "verify" && name == "interval" {
		return `a duration in quotes, such as "12 hours"`
	}
	return "a string, in quotes"
}

// suggest returns the key that was probably meant, as the end of a message.
// spelling means that it differs in case alone, so that the TOML reader took it.
func suggest(parent, name string) (hint string, spelling bool) {
	best, distance := "", 1+max(2, len(name)/3)
	for _, sibling := range fields(typeOf(parent)) {
		if d := edits(strings.ToLower(name), sibling); d < distance {
			best, distance = sibling, d
		}
	}
	if best != "" {
		return "; did you mean " + best + "?", distance == 0
	}
	for _, t := range fields(typeOf("")) {
		for _, below := range []string{t, "jwt.signing"} {
			if known(below + "." + name) {
				return "; it belongs under [" + below + "]", false
			}
		}
	}
	return "", false
}

// fields lists the keys of a table.
func fields(t reflect.Type) []string {
	if t == nil || table(t) == nil {
		return nil
	}
	t = table(t)
	var names []string
	for i := range t.NumField() {
		names = append(names, t.Field(i).Tag.Get("toml"))
	}
	return names
}

// edits is the Levenshtein distance of two keys, cut to what a key can have.
func edits(a, b string) int {
	const limit = 64
	a, b = a[:min(len(a), limit)], b[:min(len(b), limit)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

package trust

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// TOML writes the policy as a [[trust]] table, without the keys that are not given.
func (p Policy) TOML() string {
	var b strings.Builder
	b.WriteString("[[trust]]\n")
	v := reflect.ValueOf(p)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			fmt.Fprintf(&b, "%s = %s\n", v.Type().Field(i).Tag.Get("toml"), tomlValue(f))
		}
	}
	return b.String()
}

// Keys lists the keys of a [[trust]] table in the order of TOML.
func Keys() []string {
	t := reflect.TypeFor[Policy]()
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i] = t.Field(i).Tag.Get("toml")
	}
	return keys
}

func tomlValue(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = tomlValue(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.String:
		return tomlString(v.String())
	}
	return fmt.Sprint(v.Interface()) // an integer or a boolean
}

// tomlString quotes a text. Go's escapes are TOML's but for \x, \a and \v, which are
// spelled by their number.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "\\U%08X", r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

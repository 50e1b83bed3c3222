package trust

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is one condition on one claim, or on what is made of several.
type rule struct {
	key  string // of the policy
	from value
	want string // in words, such as `wants "x"`
	ok   func(s string) bool
}

// compiled is a policy after all its checks.
type compiled struct {
	issuer  string
	profile *profile
	rules   []rule
	grant   Grant
	source  Policy
}

// mismatch returns the first failing rule in words, "" if there is none.
func (p compiled) mismatch(issuer string, claims map[string]any) string {
	if issuer != p.issuer {
		return fmt.Sprintf("iss is %s, the policy wants %q", quote(issuer), p.issuer)
	}
	for _, r := range p.rules {
		if problem := r.mismatch(claims); problem != "" {
			return problem
		}
	}
	return ""
}

func (r rule) mismatch(claims map[string]any) string {
	v, ok := r.from.get(claims)
	if !ok {
		return fmt.Sprintf("claim %s is absent, the policy %s", r.from.name, r.want)
	}
	// CI services write every claim that we look at as a string, ids and booleans too.
	// Another type comes from another implementation, and may mean another thing.
	s, ok := v.(string)
	if !ok {
		return fmt.Sprintf("claim %s is a %s, not a string", r.from.name, typeName(v))
	}
	if s == "" || !r.ok(s) {
		return fmt.Sprintf("claim %s is %s, the policy %s", r.from.name, quote(s), r.want)
	}
	return ""
}

// equal wants exactly this value, byte for byte: no folding of case, no trimming, no
// Unicode normalisation, so that a look-alike stays another name. An id is "74"; "074",
// "+74" and "74.0" are not.
func equal(key string, from value, want string) rule {
	return rule{key, from, fmt.Sprintf("wants %q", want), func(s string) bool { return s == want }}
}

func oneOf(key string, from value, values []string) rule {
	values = slices.Clone(values)
	return rule{key, from, "admits " + strings.Join(values, ", "), func(s string) bool { return has(values, s) }}
}

func matches(key string, from value, pattern string) rule {
	return rule{key, from, fmt.Sprintf("wants %q", pattern), func(s string) bool { return matchGlob(pattern, s) }}
}

// quote makes outside text fit for a log line: escaped and bounded.
func quote(s string) string {
	const most = 200
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	default: // json.Number, float64 and the integers
		return "number"
	}
}

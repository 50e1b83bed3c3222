package trust

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// rule is one condition on one claim. It returns "" when the claim's value satisfies
// it, otherwise what was wanted.
type rule struct {
	claim string
	want  func(value string) string
}

// compiled is a policy after all its checks.
type compiled struct {
	issuer string
	rules  []rule
	grant  Grant
}

// mismatch returns the first failing rule in words, "" if there is none.
func (p compiled) mismatch(issuer string, claims map[string]any) string {
	if issuer != p.issuer {
		return fmt.Sprintf("iss is %s, the policy wants %q", quote(issuer), p.issuer)
	}
	for _, r := range p.rules {
		v, ok := claims[r.claim]
		if !ok {
			return fmt.Sprintf("claim %s is absent, the policy %s", r.claim, r.want(""))
		}
		// GitHub writes every claim as a string, ids and booleans too. Another type
		// comes from another implementation, and may mean another thing.
		s, ok := v.(string)
		if !ok {
			return fmt.Sprintf("claim %s is a %s, not a string", r.claim, typeName(v))
		}
		if want := r.want(s); want != "" {
			return fmt.Sprintf("claim %s is %s, the policy %s", r.claim, quote(s), want)
		}
	}
	return ""
}

// equal wants exactly this value, byte for byte: no folding of case, no trimming, no
// Unicode normalisation, so that a look-alike stays another name.
func equal(claim, value string) rule {
	return rule{claim, func(s string) string {
		if s == value && s != "" {
			return ""
		}
		return fmt.Sprintf("wants %q", value)
	}}
}

// id wants the canonical decimal of n: "074", "+74" and "74.0" are not 74.
func id(claim string, n int64) rule { return equal(claim, strconv.FormatInt(n, 10)) }

func oneOf(claim string, values []string) rule {
	values = slices.Clone(values)
	return rule{claim, func(s string) string {
		if s != "" && slices.Contains(values, s) {
			return ""
		}
		return fmt.Sprintf("admits %s", strings.Join(values, ", "))
	}}
}

func matches(claim, pattern string) rule {
	return rule{claim, func(s string) string {
		if s != "" && matchGlob(pattern, s) {
			return ""
		}
		return fmt.Sprintf("wants %q", pattern)
	}}
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

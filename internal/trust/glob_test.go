package trust

import (
	"regexp"
	"strings"
	"testing"
)

// FuzzGlobMeansTheSameAsARegexp compares with the plain translation, anchored and quoted.
func FuzzGlobMeansTheSameAsARegexp(f *testing.F) {
	f.Add("refs/heads/*", "refs/heads/a/b")
	f.Add("refs/heads/**", "refs/heads/a/b")
	f.Add("a*b**c*", "aab/cc")
	f.Add("***", "/")
	f.Add("a.c*|d", "abcd")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if len(pattern) > 64 || len(s) > 256 {
			return
		}
		// Byte by byte, as the matcher works: regexp looks at code points.
		pattern, s = latin1(pattern), latin1(s)
		expr := strings.NewReplacer(`\*\*`, `(?s:.*)`, `\*`, `[^/]*`).Replace(regexp.QuoteMeta(pattern))
		want := regexp.MustCompile(`^(?:` + expr + `)$`).MatchString(s)
		if got := matchGlob(pattern, s); got != want {
			t.Errorf("matchGlob(%q, %q) = %v, want %v", pattern, s, got, want)
		}
	})
}

func latin1(s string) string {
	b := []byte(s)
	for i := range b {
		b[i] &= 0x7f
	}
	return string(b)
}

func TestGlobOfManyStarsIsNotSlow(t *testing.T) {
	// A backtracking matcher would not come back from this one.
	pattern := strings.Repeat("**a", 100)
	if matchGlob(pattern, strings.Repeat("a", 99)+strings.Repeat("b", 900)) {
		t.Error("matched")
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("infra", "", "acme/infra", "refs/heads/main", "", "push", "production", "system", "push", "acme/infra/*", "15m")
	f.Add("x", "https://[::1", "a/b", "", "refs/heads/**", "", "", "*", "pull", "", "6h")
	f.Fuzz(func(t *testing.T, name, issuer, repo, ref, glob, event, env, cache, grant, pin, ttl string) {
		p := Policy{Name: name, Issuer: issuer, RepositoryID: 1, Repository: repo, Ref: ref, RefGlob: glob, Events: []string{event},
			Environment: env, Caches: []string{cache}, Grant: []string{grant}, Pins: []string{pin}, TTL: ttl}
		s, err := Compile([]Policy{p})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r\x1b") {
				t.Errorf("error %q is more than a line", err)
			}
			return
		}
		if grants, _ := s.Match(GitHub, map[string]any{}); len(grants) != 0 {
			t.Errorf("a policy was matched by no claims at all: %+v", p)
		}
	})
}

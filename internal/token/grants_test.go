package token

import (
	"strings"
	"testing"
)

func TestCacheNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "0": true, "Main": true, "user+cache": true, "a-b_c": true, strings.Repeat("x", 50): true,
		"": false, "_a": false, "-a": false, "+a": false, "a.b": false, "a/b": false, "a*": false, "ä": false, "a\n": false, strings.Repeat("x", 51): false,
	} {
		if got := ValidCacheName(name); got != want {
			t.Errorf("ValidCacheName(%q) = %v", name, got)
		}
	}
	for pattern, want := range map[string]bool{"*": true, "**": true, "a*b": true, "*-x": true, "": false, "_*": false, "a?": false, strings.Repeat("*", 51): false} {
		if got := ParsePattern(pattern) == nil; got != want {
			t.Errorf("ParsePattern(%q) ok = %v", pattern, got)
		}
	}
}

func TestPatternsMatchWholeNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "x", true}, {"**", "x", true}, {"a", "a", true}, {"a", "A", false}, {"a", "ab", false},
		{"a*", "a", true}, {"a*", "abc", true}, {"a*", "ba", false}, {"*a", "ba", true}, {"*a", "ab", false},
		{"a*b*c", "a-b-c", true}, {"a*b*c", "abbc", true}, {"a*b*c", "acb", false}, {"*ab*", "xaab", true},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"ab*ba", "aba", false}, {"*aab", "aaab", true}, {"a***b", "ab", true},
	} {
		if got := match(c.pattern, c.name); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func TestExactNameComesFirstThenDocumentOrder(t *testing.T) {
	var g Grants
	for _, e := range []grant{{"*", Pull}, {"team-*", Push}, {"team-x", Delete}} {
		if err := g.Add(e.pattern, e.perm); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]Perm{"team-x": Delete, "team-y": Pull, "other": Pull} {
		if got := g.For(name); got != want {
			t.Errorf("For(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestAddNeverWritesIntoACopy(t *testing.T) {
	var g Grants
	_ = g.Add("a", Pull)
	low := g
	_ = g.Add("a", Push)
	_ = g.Add("b", Push)
	if low.For("a") != Pull || low.Len() != 1 {
		t.Errorf("the copy became %v", low)
	}
}

func TestGrantsFromFlagsAreInOrderOfKind(t *testing.T) {
	g, err := GrantsFromFlags(Flags{Push: []string{"dev-*", "x"}, Pull: []string{"*", "dev-*"}, DestroyCache: []string{"x"}})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := Claims{Caches: g}.Dump()
	want := `{"https://jwt.attic.rs/v1":{"caches":{"*":{"r":1},"dev-*":{"r":1,"w":1},"x":{"w":1,"cd":1}}}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// The trap that this order is: --pull '*' --push 'dev-*' can't push.
	g, _ = GrantsFromFlags(Flags{Push: []string{"dev-*"}, Pull: []string{"*"}})
	if p := g.For("dev-x"); p != Pull {
		t.Errorf("dev-x: %v", p)
	}
	if _, err := GrantsFromFlags(Flags{Push: []string{"a b"}}); err == nil || !strings.Contains(err.Error(), "--push") {
		t.Errorf("bad pattern: %v", err)
	}
}

func TestPermNames(t *testing.T) {
	for _, x := range perms {
		if p, err := ParsePerm(x.name); err != nil || p != x.perm || p.String() != x.name {
			t.Errorf("%s: %v, %v", x.name, p, err)
		}
	}
	if _, err := ParsePerm("Pull"); err == nil {
		t.Error("Pull is accepted")
	}
	if s := (Pull | DestroyCache).String(); s != "pull,destroy-cache" {
		t.Error(s)
	}
}

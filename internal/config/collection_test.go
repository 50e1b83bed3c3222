package config

import (
	"strings"
	"testing"
)

func TestCollectionRules(t *testing.T) {
	s, err := load(t, `[garbage-collection]
[[garbage-collection.cache]]
name = "system"
keep-last = 20
[[garbage-collection.cache]]
name = "s*"
quota = "1.5 GiB"
keep-last = 3
`, inHome)
	if err != nil {
		t.Fatal(err)
	}
	for cache, want := range map[string]GCRule{
		"system": {"system", 20, 0}, "system2": {"s*", 3, 3 << 29}, "other": {},
	} {
		if got := s.GC.Of(cache); got != want {
			t.Errorf("%s: %+v, want %+v", cache, got, want)
		}
	}
	for _, w := range s.Warnings {
		if strings.Contains(w, "garbage") {
			t.Errorf("warning: %s", w)
		}
	}
}

// A slip in what decides about deletion must not be ignored.
func TestWrongCollectionRulesAreRefused(t *testing.T) {
	const head = "[[garbage-collection.cache]]\n"
	for text, want := range map[string]string{
		head + `keep-last = 3`:                                          "server.toml:1: key garbage-collection.cache[0]: no name",
		head + `name = "a"`:                                             "neither keep-last nor quota",
		head + "name = \"a b\"\nkeep-last = 3":                          "server.toml:2: key garbage-collection.cache[0].name: \"a b\" is neither",
		head + "name = \"a\"\nkeep-last = 0":                            "server.toml:3: key garbage-collection.cache[0].keep-last: 0: want",
		head + "name = \"a\"\nkeep-last = -1":                           "keep-last: -1: want",
		head + "name = \"a\"\nkeep_last = 3":                            "there is no such key; did you mean keep-last?",
		head + "name = \"a\"\nquota = \"50\"":                           "is no size",
		head + "name = \"a\"\nquota = \"50 giga\"":                      "is no size",
		head + "name = \"a\"\nquota = \"-1 GiB\"":                       "is no size",
		head + "name = \"a\"\nquota = \"99999999999 TiB\"":              "is no size",
		head + "name = \"a\"\nquota = \"0 GiB\"":                        "a quota of nothing",
		head + "name = \"a\"\nquota = 5":                                "want a string, in quotes",
		head + "name = \"a\"\nkeep-last = \"3\"":                        "want an integer",
		strings.Repeat(head+"name = \"a\"\nkeep-last = 3\n", 2):         "a has a rule already",
		"[garbage-collection]\ncache = \"a\"":                           "want tables, each under [[garbage-collection.cache]]",
		head + "name = \"a\"\nkeep-last = 3\nretention-period = \"1d\"": "there is no such key",
	} {
		if _, err := load(t, text, inHome); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %s", text, err, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"50 GiB", "1.5GB", "", "1", "NaN B", "1e9 B", ". B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && n < 1 {
			t.Errorf("%q is %d", s, n)
		}
	})
}

func inHome(name string) string {
	if name == "HOME" {
		return "/home/a"
	}
	return ""
}

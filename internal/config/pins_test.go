package config

import (
	"strings"
	"testing"
)

func TestPinRules(t *testing.T) {
	s, err := loadText(t, `
[[pins]]
name = "acme/infra/main/*"
keep = 20
[[pins]]
name = "acme/*/pr-*/*"
keep = 1
[[pins]]
name = "acme/*"
keep = 10
[[pins]]
name = "exact"
keep = 100
[[pins]]
name = "**/web"
keep = 7
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		"acme/infra/main/web": 20, "acme/infra/main/web/more": 20, "acme/infra/pr-7/web": 1, "acme/x": 10, "acme/a/b/c": 10,
		"exact": 100, "exact/more": 0, "acmeother/x": 0, "acme": 0, "other": 0, "some/where/web": 7,
	} {
		if got := s.Pins.Keep(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	if s, err = loadText(t, "[[pins]]\nname = \"*\"\nkeep = 3\n"); err != nil || s.Pins.Keep("any/thing") != 3 {
		t.Errorf("all: %v", err)
	}
	for text, want := range map[string]string{
		"keep = 3":                     "no name",
		"name = \"a/*\"":               "no keep",
		"name = \"a/*\"\nkeep = 0":     "1 to 100",
		"name = \"a/*\"\nkeep = 101":   "1 to 100",
		"name = \"a/*\"\nkeep = \"3\"": "an integer",
		"name = \"a/[bc]*\"\nkeep = 3": "only * and **",
		"name = \"/a\"\nkeep = 3":      "must be a name",
		"name = \"a/\"\nkeep = 3":      "must be a name",
		"name = \"\"\nkeep = 3":        "must be a name",
		"name = \"***\"\nkeep = 3":     "***",
		"nam = \"a\"\nkeep = 3":        "did you mean name",
		"name = \"a\"\nkeep = 3\n[[pins]]\nname = \"a\"\nkeep = 4": "already",
	} {
		if _, err := loadText(t, "[[pins]]\n"+text+"\n"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "server.toml:") {
			t.Errorf("%s\ngot %v, want it to say %q and where", text, err, want)
		}
	}
}

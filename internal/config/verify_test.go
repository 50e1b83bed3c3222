package config

import (
	"strings"
	"testing"
	"time"
)

func TestVerifyIsReadStrictly(t *testing.T) {
	read := func(text string) (*Server, error) { return load(t, typical+text, env()) }
	for text, want := range map[string]Verify{
		"":                             {7 * 24 * time.Hour, 256 << 20},
		"[verify]\ninterval = \"0\"\n": {0, 256 << 20},
		"[verify]\ninterval = \"1 day\"\nread = \"2 GiB\"\n": {24 * time.Hour, 2 << 30},
	} {
		s, err := read(text)
		if err != nil || s.Verify != want {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		"[verify]\ninterval = \"1 minute\"\n": "verify.interval",
		"[verify]\ninterval = 7\n":            "duration in quotes",
		"[verify]\nread = \"9 B\"\n":          "1 MiB or more",
		"[verify]\nread = \"lots\"\n":         "1 MiB or more",
		"[verify]\nevery = \"1 day\"\n":       "no such key",
	} {
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

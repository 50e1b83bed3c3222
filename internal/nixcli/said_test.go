package nixcli

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"
)

func TestCommandErrorSaysWhatNixSaid(t *testing.T) {
	for name, row := range map[string]struct{ stderr, want string }{
		"nothing": {"", "nix eval: exit status 1"},
		"old":     {"warning: Git tree is dirty\nerror: this throws\n(use '--show-trace' to show detailed location information)\n", "nix eval: error: this throws"},
		"trace":   {"error:\n       … while calling\n\n         at x.nix:1:2\n\n       error: this throws\n       Did you mean that?\n", "nix eval: error: this throws Did you mean that?"},
		"colours": {"\x1b[31;1merror:\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x1b\\ is\x07 red\r\n", "nix eval: error: link is red"},
		// A token in a flake's URL would otherwise be in a public job log.
		"password": {"error: unable to download 'https://user:t0ken@host/x': 404\n", "nix eval: error: unable to download 'https://[redacted]@host/x': 404"},
	} {
		t.Run(name, func(t *testing.T) {
			var said tail
			_, _ = said.Write([]byte(row.stderr))
			err := &CommandError{Command: "nix eval", Err: errors.New("exit status 1"), Stderr: said.lines()}
			if err.Error() != row.want {
				t.Errorf("got  %q\nwant %q", err, row.want)
			}
		})
	}
}

func TestTailRemembersTheEnd(t *testing.T) {
	var all strings.Builder
	var end tail
	for i := range 3000 {
		piece := strings.Repeat(string(rune('a'+i%26)), i%200)
		all.WriteString(piece)
		_, _ = end.Write([]byte(piece))
		if want := all.String()[max(0, all.Len()-maxTail):]; string(end.b) != want {
			t.Fatalf("after %d writes: %d bytes are not the last of %d", i+1, len(end.b), all.Len())
		}
	}
	_, _ = end.Write([]byte(all.String()))
	if string(end.b) != all.String()[all.Len()-maxTail:] {
		t.Error("one write longer than the tail is not cut to its end")
	}
}

func TestLinesAreBounded(t *testing.T) {
	var end tail
	for range 100 {
		_, _ = end.Write([]byte(strings.Repeat("ä", 1000) + "\n\n"))
	}
	lines := end.lines()
	if len(lines) != maxLines || slices.ContainsFunc(lines, func(l string) bool { return len(l) > maxLineLen+len("…") }) {
		t.Errorf("%d lines", len(lines))
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m\x1b]0;title\x07\xff\x1b")
	f.Fuzz(func(t *testing.T, s string) {
		if got := plain(s); strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) {
			t.Errorf("%q has control characters left", got)
		}
	})
}

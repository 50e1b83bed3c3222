package nixcli

import (
	"regexp"
	"strings"
	"unicode"
)

const (
	maxTail     = 64 << 10 // bytes of standard error that are remembered
	maxLines    = 25       // lines of it in an error or a log
	maxLineLen  = 500      // bytes of one such line
	maxErrorLen = 1000     // bytes of nix's words in the text of an error
)

// tail remembers the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if n > maxTail {
		p = p[n-maxTail:]
	}
	if keep := maxTail - len(p); len(t.b) > keep {
		t.b = append(t.b[:0], t.b[len(t.b)-keep:]...)
	}
	t.b = append(t.b, p...)
	return n, nil
}

// text is the end as plain text.
func (t *tail) text() string { return plain(string(t.b)) }

// lines are the last lines, at most maxLines.
func (t *tail) lines() []string { return lastLines(t.text(), maxLines) }

// lastLines are the last lines of a text that are not blank.
func lastLines(text string, most int) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRightFunc(line, unicode.IsSpace); line != "" {
			lines = append(lines, clip(line, maxLineLen))
		}
	}
	return lines[max(0, len(lines)-most):]
}

// lastError is what nix says is wrong: its last "error:" that says something, and what follows it. Above it stands
// the trace of how it got there, which is for a log.
func lastError(lines []string) []string {
	from := 0
	for i, line := range lines {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "error:"); ok && strings.TrimSpace(text) != "" {
			from = i
		}
	}
	var said []string
	for _, line := range lines[from:] {
		line = strings.TrimSpace(line)
		if !isHint(line) {
			said = append(said, line)
		}
	}
	return said
}

// isHint knows the lines that tell how to run nix, which is not what the user did.
func isHint(line string) bool {
	return strings.HasPrefix(line, "(use '--show-trace'") || strings.HasPrefix(line, "Try '") ||
		strings.HasPrefix(line, "warning:")
}

var (
	// Escape sequences: CSI (colours, cursor), OSC (titles, links) up to BEL or ST, and two-character ones.
	escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])`)
	// User and password in a URL.
	credentials = regexp.MustCompile(`(://)[^/@\s'"]+@`)
)

// plain is a text without colours, control characters and passwords in URLs.
func plain(s string) string {
	s = escapes.ReplaceAllString(s, "")
	s = credentials.ReplaceAllString(s, "${1}[redacted]@")
	s = strings.ToValidUTF8(s, "\uFFFD")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, s)
}

// clip shortens a line, at the boundary of a character.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

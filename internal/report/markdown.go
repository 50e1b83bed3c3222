package report

import (
	"fmt"
	"strings"
	"unicode"
)

// Markdown is the report as a job's summary.
func (r Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", Escape(r.title()))
	if len(r.Hosts) > 0 {
		b.WriteString("| " + strings.Join(columns, " | ") + " |\n| --- | --- | --- | ---: | ---: | ---: | ---: |\n")
	}
	for _, h := range r.Hosts {
		for _, cell := range h.cells() {
			b.WriteString("| " + Escape(cell) + " ")
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "\n%s\n", Escape(r.total()))
	for _, h := range r.Hosts {
		if h.Reason != "" {
			fmt.Fprintf(&b, "\n* **%s** %s: %s\n", Escape(h.Name), h.Result, Escape(h.Reason))
		}
	}
	for _, h := range r.Hosts {
		if h.Log != "" {
			fmt.Fprintf(&b, "\n<details><summary>last log lines of %s</summary>\n\n%s\n</details>\n", Escape(h.Name), Fence(h.Log))
		}
	}
	for _, note := range r.Notes {
		b.WriteString("\n" + quote(note))
	}
	return b.String()
}

func (r Report) title() string {
	if r.Cache == "" {
		return "attic-action"
	}
	return "attic-action: cache " + r.Cache
}

// Escape returns Markdown that shows s and does nothing else, within a table's cell too: letters, digits and a few signs as
// they are, everything that Markdown or HTML gives a meaning as a character reference. Line breaks become blanks,
// and what would hide or turn text around (controls, bidirectional overrides) becomes U+FFFD.
func Escape(s string) string {
	var b strings.Builder
	for _, c := range strings.ToValidUTF8(s, "\uFFFD") {
		switch {
		case c == '\n' || c == '\r' || c == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == 0x2028 || c == 0x2029:
			b.WriteRune('\uFFFD')
		case c < 0x80 && !strings.ContainsRune(" .,;?=+/%", c) && !isWord(c):
			fmt.Fprintf(&b, "&#%d;", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// isWord is true for what is never markup within a line. A dash is one of them: a cell always begins behind "| ".
func isWord(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

// Fence returns text as a block of code. The fence is longer than any run of backticks in it, so nothing in it ends it.
func Fence(text string) string {
	longest, run := 2, 0
	for _, c := range text {
		if c != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	fence := strings.Repeat("`", longest+1)
	return fence + "text\n" + strings.TrimRight(clean(text), "\n") + "\n" + fence
}

// quote returns a note as a quotation; what is indented in it by four blanks stays a block of code.
func quote(note string) string {
	var b strings.Builder
	code := false
	for line := range strings.Lines(note) {
		line = strings.TrimRight(line, "\r\n")
		text, indented := strings.CutPrefix(line, "    ")
		if indented && !code {
			b.WriteString(">\n")
		}
		code = indented
		if indented {
			b.WriteString(">     " + clean(text) + "\n")
		} else {
			b.WriteString("> " + Escape(line) + "\n")
		}
	}
	return b.String()
}

package report

import (
	"fmt"
	"strings"
	"unicode"
)

// Markdown is the report as a job's summary or a comment, in at most limit bytes. What does not fit is left out in whole
// parts, and a line says so: half a table or half a fold would take the rest of the page with it.
func (r Report) Markdown(limit int) string {
	p := page{left: limit - tailRoom}
	p.add("### " + Escape(r.title()) + "\n\n")
	if len(r.Hosts) > 0 {
		p.add("| " + strings.Join(columns, " | ") + " |\n" + strings.Repeat("| --- ", textColumns) + strings.Repeat("| ---: ", len(columns)-textColumns) + "|\n")
	}
	for _, h := range r.Hosts {
		p.add(tableRow(h.cells()))
	}
	p.add("\n" + Escape(r.total()) + "\n")
	for _, note := range r.Notes {
		p.add("\n" + quote(note))
	}
	for _, h := range r.Hosts {
		if h.Reason != "" {
			p.add(fmt.Sprintf("\n* **%s** %s: %s\n", Escape(short(h.Name)), h.Result, Escape(h.Reason)))
		}
	}
	for _, c := range r.changes() {
		p.add(c)
	}
	for _, h := range r.Hosts {
		if h.Log != "" {
			p.add(folded("last log lines of "+short(h.Name), Fence(h.Log)))
		}
	}
	if p.lost > 0 {
		fmt.Fprintf(&p.text, "\nLeft out, for this page was full: %s. The job's log has all but what changed in the closures.\n", plural(p.lost, "part"))
	}
	return p.text.String()
}

// page is Markdown that has so many bytes left.
type page struct {
	text strings.Builder
	left int
	lost int // parts that did not fit
}

// tailRoom is kept for the line about what was lost.
const tailRoom = 140

func (p *page) add(part string) {
	if len(part) > p.left {
		p.lost++
		return
	}
	p.left -= len(part)
	p.text.WriteString(part)
}

// tableRow is a row of a table, with a line break.
func tableRow(cells []string) string {
	var b strings.Builder
	for _, cell := range cells {
		b.WriteString("| " + Escape(short(cell)) + " ")
	}
	return b.String() + "|\n"
}

// folded is Markdown that is shown by a click on the title.
func folded(title, markdown string) string {
	return "\n<details><summary>" + Escape(title) + "</summary>\n\n" + markdown + "\n</details>\n"
}

// cellMax bounds what a name takes of a row, in bytes.
const cellMax = 300

// short cuts what is too long for a row.
func short(s string) string {
	if len(s) <= cellMax {
		return s
	}
	return strings.ToValidUTF8(s[:cellMax], "") + "…"
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
//
// GitHub looks for more in what is shown: @name tells somebody, #12 and GH-12 write into another issue, and www. is a
// link. There a blank without width parts the sign from the name.
func Escape(s string) string {
	var b strings.Builder
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i, c := range s {
		switch {
		case c == '\n' || c == '\r' || c == '\t':
			b.WriteByte(' ')
		case unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == 0x2028 || c == 0x2029:
			b.WriteRune('\uFFFD')
		case c == '@' || c == '#':
			fmt.Fprintf(&b, "&#%d;%s", c, noWidth)
		case c == '-' && endsIn(s[:i], "gh"), c == '.' && endsIn(s[:i], "www"):
			b.WriteString(noWidth + string(c))
		case c < 0x80 && !strings.ContainsRune(" .,;?=+/%", c) && !isWord(c):
			fmt.Fprintf(&b, "&#%d;", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// endsIn is strings.HasSuffix for ASCII in any case.
func endsIn(s, end string) bool {
	return len(s) >= len(end) && strings.EqualFold(s[len(s)-len(end):], end)
}

// noWidth is a character that is not seen, and parts what is around it.
const noWidth = "&#8203;"

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

package report

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is the report as a table in plain text.
func (r Report) Text() string {
	var b strings.Builder
	if len(r.Hosts) > 0 {
		rows := make([][]string, len(r.Hosts))
		for i, h := range r.Hosts {
			rows[i] = h.cells()
		}
		b.WriteString(Table(columns, rows))
	}
	b.WriteString(r.total() + "\n")
	for _, h := range r.Hosts {
		if h.Reason != "" {
			b.WriteString(line(h.Name) + " " + string(h.Result) + ": " + line(h.Reason) + "\n")
		}
	}
	for _, note := range r.Notes {
		b.WriteString(clean(note) + "\n")
	}
	return b.String()
}

// Table sets rows in columns that are as wide as they must be. The last column is not filled up.
func Table(head []string, rows [][]string) string {
	width := make([]int, len(head))
	all := append([][]string{head}, rows...)
	for _, row := range all {
		for i := range head {
			width[i] = max(width[i], utf8.RuneCountInString(line(row[i])))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var text strings.Builder
		for i := range head {
			cell := line(row[i])
			text.WriteString(cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
		}
		b.WriteString(strings.TrimRight(text.String(), " ") + "\n")
	}
	return b.String()
}

// line is clean, on one line.
func line(s string) string {
	return clean(strings.NewReplacer("\r\n", " ", "\n", " ", "\t", " ").Replace(s))
}

// clean returns s without what a terminal or a browser obeys: controls but line breaks and tabs, and characters that hide or turn
// text around.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c != '\n' && c != '\t' && (unicode.IsControl(c) || unicode.Is(unicode.Cf, c) || c == 0x2028 || c == 0x2029) {
			return '\uFFFD'
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

package action

import (
	"fmt"
	"path"
	"strings"
)

// Patterns choose names. The zero value chooses all.
type Patterns struct{ lines []string }

// ParsePatterns reads globs (* ? [a-z]), one a line. A line behind ! excludes. The last line that matches decides; a
// name that none matches is in if there is no line, or if the first one excludes.
func ParsePatterns(text string) (Patterns, error) {
	var p Patterns
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		glob := strings.TrimSpace(strings.TrimPrefix(line, "!"))
		if !validGlob(glob) {
			return Patterns{}, fmt.Errorf("%q is not a pattern: * and ? stand for characters, [a-z] for one of them, ! in front excludes", line)
		}
		p.lines = append(p.lines, line)
	}
	return p, nil
}

// Match reports whether name is chosen.
func (p Patterns) Match(name string) bool {
	in := len(p.lines) == 0 || strings.HasPrefix(p.lines[0], "!")
	for _, line := range p.lines {
		glob, out := strings.CutPrefix(line, "!")
		if match(strings.TrimSpace(glob), name) {
			in = !out
		}
	}
	return in
}

// none reports whether the patterns choose nothing by their words: "!*".
func (p Patterns) none() bool { return len(p.lines) == 1 && p.lines[0] == "!*" }

func validGlob(glob string) bool {
	_, err := path.Match(glob, "")
	return err == nil && glob != ""
}

// match is path.Match, but a slash is a character like others: these are names, not paths.
func match(glob, name string) bool {
	noSlash := strings.NewReplacer("/", "\x01").Replace
	ok, _ := path.Match(noSlash(glob), noSlash(name)) // parsed before, so no error
	return ok
}

// isGlob reports whether glob matches more than one name.
func isGlob(glob string) bool { return strings.ContainsAny(glob, `*?[`) }

// literal is the pattern that matches name alone. Blanks at its ends survive being trimmed.
func literal(name string) string {
	var b strings.Builder
	for i, c := range name {
		switch {
		case strings.ContainsRune(`*?[]\`, c), i == 0 && c == '!':
			b.WriteString(`\` + string(c))
		case c == ' ' || c == '\t':
			b.WriteString("[" + string(c) + "]")
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

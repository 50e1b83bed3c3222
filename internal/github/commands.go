package github

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/sethvargo/go-githubactions"
)

// Mask makes the runner print *** for a secret from here on. It comes before anything else is done with the secret.
// Outside Actions it does nothing, for there the command itself would be what shows it.
func (r *Runner) Mask(secret string) {
	for line := range strings.Lines(secret) { // the runner masks what it finds within one line
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			r.command("add-mask", line, nil)
		}
	}
}

// Group folds what is printed until EndGroup. Groups do not nest.
func (r *Runner) Group(title string) {
	if !r.InActions() {
		r.Print(title)
		return
	}
	r.command("group", oneLine(title), nil)
}

// EndGroup ends the group.
func (r *Runner) EndGroup() { r.command("endgroup", "", nil) }

// Error, Warning and Notice put an annotation on the run. The title may be empty.
func (r *Runner) Error(title, message string)   { r.annotate("error", Line{}, title, message) }
func (r *Runner) Warning(title, message string) { r.annotate("warning", Line{}, title, message) }
func (r *Runner) Notice(title, message string)  { r.annotate("notice", Line{}, title, message) }

// Line is a line of a file of the repository.
type Line struct {
	File string // path from the repository's root; empty: nowhere
	Line int    // from 1; 0: the file as a whole
	Col  int    // from 1; 0: the line as a whole
}

// ErrorAt is an Error that is shown at a line.
func (r *Runner) ErrorAt(at Line, title, message string) { r.annotate("error", at, title, message) }

func (r *Runner) annotate(level string, at Line, title, message string) {
	if !r.InActions() {
		if title != "" {
			message = title + ": " + message
		}
		r.Print(level + ": " + message)
		return
	}
	properties := githubactions.CommandProperties{}
	set := func(name, value string) {
		if value != "" && value != "0" {
			properties[name] = oneLine(value)
		}
	}
	set("title", title)
	if at.File != "" {
		set("file", at.File)
		set("line", strconv.Itoa(at.Line))
		set("col", strconv.Itoa(at.Col))
	}
	r.command(level, message, properties)
}

// command prints one workflow command. Command.String escapes %, line breaks, and in properties : and ",", so a
// message or a title is never a second command.
func (r *Runner) command(name, message string, properties githubactions.CommandProperties) {
	if !r.InActions() {
		return
	}
	c := githubactions.Command{Name: name, Message: strings.ToValidUTF8(message, "\uFFFD"), Properties: properties}
	r.write(strings.ReplaceAll(c.String(), "##[", "## [") + "\n")
}

// Print prints lines of text that are text: a line that the runner would take for a command is printed so that it
// doesn't.
func (r *Runner) Print(text string) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(harmless(strings.TrimRight(line, "\r\n")))
		b.WriteByte('\n')
	}
	r.write(b.String())
}

// Printf is Print of a formatted text.
func (r *Runner) Printf(format string, args ...any) { r.Print(fmt.Sprintf(format, args...)) }

// Verbatim prints a foreign text, such as the log of a build, unchanged: while it is printed the runner obeys no
// command but the random one that ends this. Nothing else is printed meanwhile, for a mask would go unheard.
func (r *Runner) Verbatim(text string) error {
	token, err := r.random()
	if err != nil {
		return err
	}
	if !r.InActions() {
		r.Print(text)
		return nil
	}
	if strings.Contains(text, token) {
		return fmt.Errorf("print a foreign text: %w: it holds the token that ends it", ErrUnsafe)
	}
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	r.write("::stop-commands::" + token + "\n" + text + "::" + token + "::\n")
	return nil
}

// Lines returns a writer for a foreign text that arrives bit by bit while other things are printed: it prints whole
// lines, each behind the prefix and harmless. Close prints what is left. It never returns an error, because a build must
// not die of its log.
func (r *Runner) Lines(prefix string) io.WriteCloser { return &lines{r: r, prefix: oneLine(prefix)} }

const lineMax = 16 << 10 // a line without an end is printed in pieces

type lines struct {
	r      *Runner
	prefix string
	rest   []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 && len(l.rest) < lineMax {
			return len(p), nil
		}
		if i < 0 {
			i = lineMax - 1
		}
		l.r.Print(l.prefix + string(l.rest[:i+1]))
		l.rest = append(l.rest[:0], l.rest[i+1:]...)
	}
}

func (l *lines) Close() error {
	if len(l.rest) > 0 {
		l.r.Print(l.prefix + string(l.rest))
		l.rest = nil
	}
	return nil
}

// harmless returns a line in which the runner sees no command. It knows two forms: "::name::" at the start of a
// line, blanks aside, and the older "##[name]" anywhere in it. A carriage return starts a line too.
func harmless(line string) string {
	line = strings.Map(func(c rune) rune {
		if c == '\r' || c == '\v' || c == '\f' || c == 0x85 || c == 0x2028 || c == 0x2029 {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(line, "\uFFFD"))
	line = strings.ReplaceAll(line, "##[", "## [")
	if strings.HasPrefix(strings.TrimLeftFunc(line, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsGraphic(c) }), "::") {
		line = strings.Replace(line, "::", ": :", 1)
	}
	return line
}

// oneLine returns s without characters that break a line or hide in it.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == 0x2028 || c == 0x2029 {
			return '\uFFFD'
		}
		return c
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// write prints s whole. A failing stdout is not reported: there is nobody left to tell.
func (r *Runner) write(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = io.WriteString(r.Stdout, s)
}

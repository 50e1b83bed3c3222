package github

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// SummaryMax is the size in bytes above which GitHub drops the whole summary of a step.
const SummaryMax = 1 << 20

// ErrUnsafe is what a value gets that would be read as something else than a value.
var ErrUnsafe = errors.New("value can't be written safely")

// SetOutput sets an output of the step.
func (r *Runner) SetOutput(name, value string) error { return r.setValue("GITHUB_OUTPUT", name, value) }

// SetEnv sets an environment variable for the later steps of the job.
func (r *Runner) SetEnv(name, value string) error { return r.setValue("GITHUB_ENV", name, value) }

// SaveState keeps a value for the post phase of this step. It is not a place for secrets: the file is on disk.
func (r *Runner) SaveState(name, value string) error { return r.setValue("GITHUB_STATE", name, value) }

// AddPath puts a folder in front of the PATH of the later steps of the job.
func (r *Runner) AddPath(dir string) error {
	if dir == "" || strings.ContainsAny(dir, "\r\n") { // a line is a folder: a second line would be a second folder
		return fmt.Errorf("add %q to the path: %w", dir, ErrUnsafe)
	}
	return r.appendFile("GITHUB_PATH", dir+"\n")
}

// AddSummary appends Markdown to the summary of the step. What is longer than SummaryMax is cut at a line.
func (r *Runner) AddSummary(markdown string) error {
	const cut = "\n\n_The rest was too long for a summary; see the log._\n"
	if len(markdown) > SummaryMax {
		markdown = markdown[:SummaryMax-len(cut)]
		markdown = markdown[:strings.LastIndexByte(markdown, '\n')+1] + cut
	}
	return r.appendFile("GITHUB_STEP_SUMMARY", strings.ToValidUTF8(markdown, "\uFFFD")+"\n")
}

// setValue writes name<<DELIMITER, the value, DELIMITER. The delimiter is random: a fixed one, in a host name or a
// store path, ends the value early, and what follows is read as more outputs.
func (r *Runner) setValue(file, name, value string) error {
	if !validName(name) {
		return fmt.Errorf("set %q: %w", name, ErrUnsafe)
	}
	id, err := r.random()
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	delimiter := "attic_" + id
	value = strings.ToValidUTF8(value, "\uFFFD")
	if strings.Contains(value, delimiter) {
		return fmt.Errorf("set %s: %w: it holds the delimiter", name, ErrUnsafe)
	}
	return r.appendFile(file, name+"<<"+delimiter+"\n"+value+"\n"+delimiter+"\n")
}

// appendFile adds text to the file that a variable names. The runner made the file, and other writers may have
// written to it, so it is never truncated. Without the variable there is no runner and nothing to tell.
func (r *Runner) appendFile(variable, text string) (err error) {
	name := r.Getenv(variable)
	if name == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write $%s: %w", variable, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.WriteString(f, text); err != nil {
		return fmt.Errorf("write $%s: %w", variable, err)
	}
	return nil
}

// validName accepts what names an output or a variable: no "=", no "<<", no line break.
func validName(s string) bool {
	for i, c := range []byte(s) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

// random returns 32 characters that nobody can guess.
func (r *Runner) random() (string, error) {
	source := r.Rand
	if source == nil {
		source = rand.Reader
	}
	var b [16]byte
	if _, err := io.ReadFull(source, b[:]); err != nil {
		return "", fmt.Errorf("read random bytes: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

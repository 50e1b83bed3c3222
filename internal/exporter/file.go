package exporter

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
)

// write writes a file as a whole: under its name there is all of it, or what was there before.
func (r *run) write(name string, fill func(io.Writer) error) error {
	_, err := r.writeNamed("", func(w io.Writer) (string, error) { return name, fill(w) })
	return err
}

// writeNamed is write of a file in the folder at, whose name follows from what was written.
func (r *run) writeNamed(at string, fill func(io.Writer) (name string, err error)) (string, error) {
	tmp := at + begun + rand.Text()
	f, err := r.dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", err
	}
	name, err := fill(f)
	if err == nil {
		err = f.Sync() // a narinfo must not outlive its NAR
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = r.dir.Rename(tmp, at+name)
	}
	if err != nil {
		_ = r.dir.Remove(tmp) // the error before is the one to tell
		return "", err
	}
	return at + name, nil
}

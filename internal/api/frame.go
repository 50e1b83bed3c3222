package api

import (
	"errors"
	"io"
	"iter"
)

// AppendPath appends one path in the framing of POST paths.
func AppendPath(dst []byte, h PathHeader, pieces []byte) ([]byte, error) {
	return nil, errors.New("not yet")
}

// ReadPaths reads framed paths.
func ReadPaths(r io.Reader, max int64) iter.Seq2[PathItem, error] {
	return func(yield func(PathItem, error) bool) { yield(PathItem{}, errors.New("not yet")) }
}

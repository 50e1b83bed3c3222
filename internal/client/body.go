package client

import (
	"bytes"
	"io"
)

// preamble returns text followed by the NAR.
func preamble(text []byte, nar func() (io.Reader, error)) (io.Reader, error) {
	r, err := nar()
	if err != nil {
		return nil, err
	}
	joined := io.MultiReader(bytes.NewReader(text), r)
	if closer, ok := r.(io.Closer); ok {
		return struct {
			io.Reader
			io.Closer
		}{joined, closer}, nil
	}
	return joined, nil
}

// section is a body of known length that is read from a file again for each
// attempt. Len makes it a Content-Length.
type section struct{ *io.SectionReader }

func (s section) Len() int {
	at, err := s.Seek(0, io.SeekCurrent)
	if err != nil { // a SectionReader seeks to where it is without error
		return 0
	}
	return int(s.Size() - at)
}

package server

import (
	"io"
	"net/http"
)

// A lateHeader holds the status back until the first byte of the body, so that
// a NAR whose first read fails can still be answered with an error.
type lateHeader struct {
	http.ResponseWriter
	status int
	sent   bool
}

func (l *lateHeader) WriteHeader(status int) {
	if l.status == 0 {
		l.status = status
	}
}

func (l *lateHeader) Write(p []byte) (int, error) {
	l.flush()
	return l.ResponseWriter.Write(p)
}

// ReadFrom copies with a pooled buffer; io.Copy would make one for each NAR.
func (l *lateHeader) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{l}, r, *buf)
}

type onlyWriter struct{ io.Writer }

// flush sends the status, if there is one that was not sent.
func (l *lateHeader) flush() {
	if !l.sent && l.status != 0 {
		l.ResponseWriter.WriteHeader(l.status)
	}
	l.sent = true
}

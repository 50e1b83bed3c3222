package api

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"

	"github.com/org/attic-action/internal/jsonscan"
	"github.com/org/attic-action/internal/nix"
)

const (
	// MaxPathHeader is the longest header of a path, in bytes.
	MaxPathHeader = 3 << 20
	// MaxListing is the longest listing of a path, in bytes, as it is sent: that of some 50,000 files. Of a larger
	// tree there is none.
	MaxListing = 1 << 20
)

// PathItem is a header with its (part of a) piece list.
type PathItem struct {
	Header PathHeader
	Pieces []byte
}

// AppendPath appends one path in the framing of POST paths:
//
//	uvarint n │ n bytes of JSON, a PathHeader │ uvarint m │ m bytes of a piece list
func AppendPath(dst []byte, h PathHeader, pieces []byte) ([]byte, error) {
	h.References = notNil(h.References)
	header, err := json.Marshal(h)
	if err != nil {
		return dst, fmt.Errorf("encode header of %s: %w", h.StorePath, err)
	}
	if len(header) > MaxPathHeader {
		return dst, fmt.Errorf("encode header of %s: %d bytes are more than %d", h.StorePath, len(header), MaxPathHeader)
	}
	dst = append(binary.AppendUvarint(dst, uint64(len(header))), header...)
	return append(binary.AppendUvarint(dst, uint64(len(pieces))), pieces...), nil
}

// ReadPaths reads the framing of POST paths, at most max bytes of it. An *Error
// says what is wrong with the framing or with a header; any other error comes from
// r. An error is the last value. Headers are checked one by one: store path, hash
// and base names are well-formed, and no text has control characters.
func ReadPaths(r io.Reader, max int64) iter.Seq2[PathItem, error] {
	return func(yield func(PathItem, error) bool) {
		// One byte more than allowed tells a body that is too long from one that ends.
		limited := &io.LimitedReader{R: r, N: max + 1}
		f := &frames{limited: limited, r: bufio.NewReader(limited), max: max}
		for i := 0; ; i++ {
			item, err := f.next()
			if err == io.EOF && limited.N > 0 {
				return
			}
			if err != nil {
				yield(PathItem{}, f.explain(i, err))
				return
			}
			if !yield(item, nil) {
				return
			}
		}
	}
}

// errFraming is a fault in the framing.
var errFraming = errors.New("malformed framing")

type frames struct {
	limited *io.LimitedReader
	r       *bufio.Reader
	max     int64
}

// next returns io.EOF only where an item may begin.
func (f *frames) next() (PathItem, error) {
	if _, err := f.r.Peek(1); err != nil {
		return PathItem{}, err
	}
	header, err := f.block(MaxPathHeader)
	if err != nil {
		return PathItem{}, within(err)
	}
	h, err := decodePathHeader(header)
	if err != nil {
		return PathItem{}, err
	}
	pieces, err := f.block(f.max)
	return PathItem{h, pieces}, within(err)
}

// within makes an end inside an item an error.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// explain chooses the answer to err in item i.
func (f *frames) explain(i int, err error) error {
	var answer *Error
	switch {
	case errors.As(err, &answer):
		answer.Message = fmt.Sprintf("path %d: %s", i, answer.Message)
		return answer
	case f.limited.N <= 0:
		return &Error{Code: http.StatusRequestEntityTooLarge, Name: RequestError,
			Message: fmt.Sprintf("the paths have more than %d bytes: send them in several requests", f.max)}
	case errors.Is(err, errFraming), errors.Is(err, io.ErrUnexpectedEOF):
		return badRequest("path %d: %v", i, err)
	}
	return fmt.Errorf("read paths: %w", err)
}

// block reads a length and as many bytes. Memory grows with what arrives, not
// with what the length promises.
func (f *frames) block(max int64) ([]byte, error) {
	n, err := f.uvarint()
	if err != nil {
		return nil, err
	}
	if n > uint64(max) {
		return nil, fmt.Errorf("%w: a length of %d is more than %d", errFraming, n, max)
	}
	if n == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	if _, err := io.CopyN(&b, f.r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// uvarint reads a number in its shortest form.
func (f *frames) uvarint() (uint64, error) {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		c, err := f.r.ReadByte()
		if err != nil {
			return 0, err
		}
		if c == 0 && shift > 0 || shift == 63 && c > 1 {
			break
		}
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: not a shortest varint", errFraming)
}

func decodePathHeader(text []byte) (PathHeader, error) {
	var h PathHeader
	s := jsonscan.New(text, 0)
	lines := func(name string, to *[]string) jsonscan.Field {
		return jsonscan.Field{Name: name, Optional: true, Read: func() error {
			texts, err := readLines(s)
			if len(texts) > 0 { // none is the same as not given
				*to = texts
			}
			return err
		}}
	}
	err := s.Members([]jsonscan.Field{
		{Name: "store_path", Read: func() (err error) { h.StorePath, err = s.Text(); return }},
		{Name: "nar_hash", Read: func() (err error) {
			hash, err := readNARHash(s)
			h.NARHash = hash.String()
			return err
		}},
		{Name: "nar_size", Read: func() (err error) { h.NARSize, err = s.Uint(); return }},
		{Name: "references", Read: func() (err error) { h.References, err = readLines(s); return }},
		lines("upstream", &h.Upstream),
		lines("sigs", &h.Sigs),
		optionalLine(s, "deriver", &h.Deriver),
		optionalLine(s, "system", &h.System),
		optionalLine(s, "ca", &h.CA),
		{Name: "listing", Optional: true, Read: func() error {
			text, err := s.Text()
			if err == nil && len(text) > base64.StdEncoding.EncodedLen(MaxListing) {
				err = s.Wrong("longer than %d bytes", MaxListing)
			}
			if err == nil {
				if h.Listing, err = base64.StdEncoding.DecodeString(text); err != nil {
					err = s.Wrong("it is not base64")
				}
			}
			return err
		}},
		{Name: "offset", Optional: true, Read: func() (err error) { h.Offset, err = s.Integer(0, 1<<62); return }},
		{Name: "more", Optional: true, Read: func() (err error) { h.More, err = s.Bool(); return }},
	})
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return h, badRequest("header: %v", err)
	}
	path, err := nix.ParseStorePath(h.StorePath)
	if err != nil {
		return h, badRequest("header: %v", err)
	}
	if err := checkReferences(path.Dir(), h.References); err != nil {
		return h, err
	}
	return h, checkReferences(path.Dir(), h.Upstream)
}

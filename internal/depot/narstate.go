package depot

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"errors"
	"fmt"
	"hash"

	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
)

// narState hashes the bytes of own packs as they arrive, and goes on from one pack to the next: the
// NAR, and, as long as they are the NAR of one file, the file as flat content addresses hash it.
type narState struct {
	sum  hash.Hash // of the NAR
	file nar.Contents
	sums fileSums // of the file
}

// fileSums are the hashes of a file that a content address can be held to.
type fileSums struct{ sha256, sha512 hash.Hash }

func (s fileSums) Write(b []byte) (int, error) {
	s.sha256.Write(b)
	s.sha512.Write(b)
	return len(b), nil
}

func newNARState() *narState {
	s := &narState{sum: sha256.New(), sums: fileSums{sha256.New(), sha512.New()}}
	s.file.To = s.sums
	return s
}

// Write never fails.
func (s *narState) Write(b []byte) (int, error) {
	s.sum.Write(b)
	return s.file.Write(b)
}

// digest is the file's by an algorithm's name; nil when the NAR is not that of a single file, or that
// of a program. known is false when nothing here hashes so.
func (s *narState) digest(algorithm string) (digest []byte, known bool) {
	h := map[string]hash.Hash{"sha256": s.sums.sha256, "sha512": s.sums.sha512}[algorithm]
	if h == nil {
		return nil, false
	}
	if !s.file.Whole() {
		return nil, true
	}
	return h.Sum(nil), true
}

func (s *narState) nar() nix.Hash { return nix.Hash(s.sum.Sum(nil)) }

// sizes of what the standard library marshals, which its tests hold fixed.
const (
	state256 = 108
	state512 = 204
)

var errState = errors.New("it is none")

// MarshalBinary gives what UnmarshalBinary goes on from: three hashes, then the file's state.
func (s *narState) MarshalBinary() ([]byte, error) {
	if s.sums == (fileSums{}) {
		return s.sum.(encoding.BinaryMarshaler).MarshalBinary()
	}
	var out []byte
	for _, h := range []hash.Hash{s.sum, s.sums.sha256, s.sums.sha512} {
		b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("marshal hash: %w", err)
		}
		out = append(out, b...)
	}
	return s.file.AppendState(out), nil
}

// UnmarshalBinary reads a state. After one of the NAR's hash alone, as rows had it once, nothing is known
// of a file.
func (s *narState) UnmarshalBinary(b []byte) error {
	if len(b) == state256 {
		s.file.Spoil()
		s.sums = fileSums{}
		return unmarshal(s.sum, b)
	}
	if len(b) < 2*state256+state512 {
		return errState
	}
	err := errors.Join(unmarshal(s.sum, b[:state256]), unmarshal(s.sums.sha256, b[state256:2*state256]),
		unmarshal(s.sums.sha512, b[2*state256:2*state256+state512]))
	if err != nil {
		return err
	}
	return s.file.RestoreState(b[2*state256+state512:])
}

func unmarshal(h hash.Hash, b []byte) error { return h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b) }

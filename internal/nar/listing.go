package nar

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// A skeleton is a NAR without the contents of its files and their padding: names, kinds, targets and
// lengths stay. All that a listing says follows from it, the place of each file in the NAR included.

const (
	skeletonBlock = 256 << 10 // raw bytes that are compressed together
	maxBuildIDs   = 4096
	buildIDDir    = "lib/debug/.build-id/"
	maxSkeleton   = 64 << 20 // raw bytes, of some 300,000 files
)

// Skeleton takes a NAR and keeps its skeleton, compressed. Writing never fails: of what is no NAR, and of
// one whose skeleton is larger than Limit, there is none in the end.
type Skeleton struct {
	Compress func(dst, raw []byte) []byte // appends raw, at most 256 KiB, in a form of its own
	Limit    int                          // compressed bytes

	kept int // raw bytes
	walk *Walker
	raw  []byte
	out  []byte
	none bool
}

func (s *Skeleton) Write(p []byte) (int, error) {
	if s.none {
		return len(p), nil
	}
	if s.walk == nil {
		s.walk = &Walker{Keep: s.keep}
	}
	if _, err := s.walk.Write(p); err != nil || len(s.out) > s.Limit || s.kept > maxSkeleton {
		s.none, s.raw, s.out = true, nil, nil
	}
	return len(p), nil
}

func (s *Skeleton) keep(b []byte) {
	s.kept += len(b)
	if s.raw = append(s.raw, b...); len(s.raw) >= skeletonBlock-4096-8 {
		s.flush()
	}
}

func (s *Skeleton) flush() {
	s.out = s.Compress(s.out, s.raw)
	s.raw = s.raw[:0]
}

// Bytes are the skeleton; nil when there is none.
func (s *Skeleton) Bytes() []byte {
	if s.none || s.walk == nil || s.walk.Close() != nil {
		return nil
	}
	if len(s.raw) > 0 {
		s.flush()
	}
	if len(s.out) > s.Limit {
		return nil
	}
	return s.out
}

// ReadSkeleton reads a skeleton and says how many bytes its NAR has, and which build IDs it has debug
// information for: those of the files in lib/debug/.build-id, as hexadecimal digits. Of a skeleton of a NAR
// with more than size bytes no more is read.
func ReadSkeleton(r io.Reader, size uint64) (buildIDs []string, err error) {
	var path pathOf
	w := &Walker{Bare: true}
	w.Visit = func(e Entry) error {
		if w.Size() > size {
			return formatErrorf("it has more than %d bytes", size)
		}
		if id, ok := BuildID(path.visit(e)); ok && e.Kind == Regular && len(buildIDs) < maxBuildIDs {
			buildIDs = append(buildIDs, id)
		}
		return nil
	}
	n, err := io.Copy(w, io.LimitReader(r, maxSkeleton+1))
	if n > maxSkeleton {
		err = formatErrorf("longer than %d bytes", maxSkeleton)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil && w.Size() != size {
		err = formatErrorf("it has %d bytes in place of %d", w.Size(), size)
	}
	if err != nil {
		return nil, fmt.Errorf("read skeleton: %w", err)
	}
	return buildIDs, nil
}

// pathOf follows a walk.
type pathOf struct{ dirs []string }

// visit is the path of e, without a slash at its beginning.
func (p *pathOf) visit(e Entry) string {
	if e.Kind == Leave {
		p.dirs = p.dirs[:len(p.dirs)-1]
		return ""
	}
	path := strings.Join(append(p.dirs, e.Name), "/")
	if e.Kind == Directory {
		p.dirs = append(p.dirs, e.Name)
	}
	return strings.TrimPrefix(path, "/") // the root has no name
}

// BuildID is the build ID that a file has debug information for, by the file's path in its store path.
func BuildID(path string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(path, buildIDDir)
	if !ok || len(rest) < 4 || rest[2] != '/' {
		return "", false
	}
	id, ok = strings.CutSuffix(rest[:2]+rest[3:], ".debug")
	return id, ok && ValidBuildID(id)
}

// DebugFile is the path of the debug information for a valid build ID in its store path.
func DebugFile(buildID string) string {
	return buildIDDir + buildID[:2] + "/" + buildID[2:] + ".debug"
}

// ValidBuildID reports whether s is what linkers write: 8 to 64 bytes, as lower-case hexadecimal digits.
func ValidBuildID(s string) bool {
	return len(s) >= 16 && len(s) <= 128 && len(s)%2 == 0 && strings.Trim(s, "0123456789abcdef") == ""
}

// WriteListing writes the listing of a skeleton's NAR as Nix writes a .ls file.
func WriteListing(w io.Writer, skeleton io.Reader) error {
	l := &listing{w: bufio.NewWriter(w)}
	walk := &Walker{Bare: true, Visit: l.visit}
	l.put(`{"version":1,"root":`)
	_, err := io.Copy(walk, skeleton)
	if err == nil {
		err = walk.Close()
	}
	l.put("}")
	if err == nil {
		err = l.w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write listing: %w", err)
	}
	return nil
}

type listing struct {
	w     *bufio.Writer // keeps its first error for Flush
	inner bool          // something stands in front in the same directory
	depth int
}

func (l *listing) put(texts ...string) {
	for _, s := range texts {
		_, _ = l.w.WriteString(s) // Flush tells
	}
}

func (l *listing) visit(e Entry) error {
	if e.Kind == Leave {
		l.put("}}")
		l.depth--
		l.inner = true
		return nil
	}
	if l.depth > 0 {
		if l.inner {
			l.put(",")
		}
		l.put(quoted(e.Name), ":")
	}
	l.inner = true
	switch e.Kind {
	case Directory:
		l.put(`{"type":"directory","entries":{`)
		l.depth++
		l.inner = false
	case Symlink:
		l.put(`{"type":"symlink","target":`, quoted(e.Target), "}")
	case Regular:
		l.put(fmt.Sprintf(`{"type":"regular","size":%d`, e.Size))
		if e.Executable {
			l.put(`,"executable":true`)
		}
		l.put(fmt.Sprintf(`,"narOffset":%d}`, e.Offset))
	}
	return nil
}

// quoted is s in JSON. What is not UTF-8 in it is replaced: JSON has no way to say it.
func quoted(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

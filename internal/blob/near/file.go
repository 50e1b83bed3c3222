package near

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// sumSize is that of a slice's checksum.
const sumSize = sha256.Size

func slicesOf(size int64) int { return int((size + slice - 1) / slice) }

// length is that of slice i, in bytes: the last one may be shorter.
func (o Object) length(i int) int64 { return min(slice, o.Size-int64(i)*slice) }

// place is where slice i lies in the file.
func (o Object) place(i int) int64 { return int64(slicesOf(o.Size))*sumSize + int64(i)*slice }

// sum binds bytes to their pack and their place in it: another file under this name is no match.
func (o Object) sum(i int, b []byte) (sum [sumSize]byte) {
	h := sha256.New()
	fmt.Fprintf(h, "near 1\n%s\n", o.Key)
	var place [16]byte
	binary.BigEndian.PutUint64(place[:8], uint64(o.Size))
	binary.BigEndian.PutUint64(place[8:], uint64(i))
	h.Write(place[:])
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// create opens the file for writing, and makes it and its folder. What else has the name goes.
func create(path string) (*os.File, error) {
	f, err := open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.MkdirAll(filepath.Dir(path), 0o700)
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.EISDIR):
		err = os.RemoveAll(path) // of a link, the link
	default:
		return f, err
	}
	if err != nil {
		return nil, err
	}
	return open(path)
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
}

// openRead waits for nobody, even if the file is now a pipe.
func openRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

// writeSlice writes slice i and, when that is done, its sum.
func writeSlice(f *os.File, o Object, i int, b []byte) error {
	if _, err := f.WriteAt(b, o.place(i)); err != nil {
		return err
	}
	sum := o.sum(i, b)
	_, err := f.WriteAt(sum[:], int64(i)*sumSize)
	return err
}

var errDamaged = errors.New("a slice of the cache does not fit its sum")

// readSlice reads slice i into b and checks it. The file is opened for each, for it may be another one by now.
func readSlice(path string, o Object, i int, b []byte) ([]byte, error) {
	f, err := openRead(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var sum [sumSize]byte
	if _, err := f.ReadAt(sum[:], int64(i)*sumSize); err != nil {
		return nil, err
	}
	b = b[:o.length(i)]
	if _, err := f.ReadAt(b, o.place(i)); err != nil {
		return nil, err
	}
	if o.sum(i, b) != sum {
		return nil, errDamaged
	}
	return b, nil
}

// readTable says which slices have a sum. Whether it fits shows when one is read.
func readTable(path string, have []bool) {
	f, err := openRead(path)
	if err != nil {
		return
	}
	defer f.Close()
	table := make([]byte, len(have)*sumSize)
	n, err := f.ReadAt(table, 0)
	if err != nil && err != io.EOF {
		return
	}
	for i := range have {
		if end := (i + 1) * sumSize; end <= n {
			have[i] = [sumSize]byte(table[end-sumSize:end]) != [sumSize]byte{}
		}
	}
}

// allocated is what a file with holes takes of the volume.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

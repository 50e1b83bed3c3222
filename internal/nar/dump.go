package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dump writes the NAR of the file system object at path to w, in writes of up to 256 KiB. It follows no
// symlink, not even path itself. Beside the entries of the directories on the way down it
// holds only its buffer. A file whose size changes meanwhile is an error that names it.
func Dump(w io.Writer, path string) error { return new(Dumper).Dump(w, path) }

// Dumper is Dump with a buffer that lives from one call to the next. The zero value is ready; one goroutine
// uses it at a time.
type Dumper struct {
	w      io.Writer
	buf    []byte
	unhack bool // strip the case hack's suffix, as Nix does on macOS
}

// Dump is the function Dump.
func (d *Dumper) Dump(w io.Writer, path string) error {
	if d.buf == nil {
		d.buf, d.unhack = make([]byte, 0, bufferSize), runtime.GOOS == "darwin"
	}
	d.w, d.buf = w, d.buf[:0]
	defer func() { d.w = nil }()
	if err := d.archive(path); err != nil {
		return fmt.Errorf("dump %s: %w", path, err)
	}
	return nil
}

func (d *Dumper) archive(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := d.strings(magic); err != nil {
		return err
	}
	if err := d.node(path, info.Mode().Type()); err != nil {
		return err
	}
	return d.flush()
}

func (d *Dumper) node(path string, kind fs.FileMode) error {
	switch kind {
	case 0:
		return d.regular(path)
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return d.strings("(", "type", "symlink", "target", target, ")")
	case fs.ModeDir:
		return d.directory(path)
	}
	return fmt.Errorf("%s is a %v: a NAR holds only files, directories and symlinks", path, kind)
}

func (d *Dumper) directory(path string) error {
	entries, err := d.entries(path)
	if err != nil {
		return err
	}
	if err := d.strings("(", "type", "directory"); err != nil {
		return err
	}
	for _, e := range entries {
		if err := d.strings("entry", "(", "name", e.name, "node"); err != nil {
			return err
		}
		if err := d.node(path+"/"+e.file, e.kind); err != nil {
			return err
		}
		if err := d.strings(")"); err != nil {
			return err
		}
	}
	return d.strings(")")
}

type entry struct {
	name string // in the NAR
	file string // on disk
	kind fs.FileMode
}

// entries lists a directory in the NAR's order.
func (d *Dumper) entries(path string) ([]entry, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, len(list))
	for i, e := range list {
		entries[i] = entry{e.Name(), e.Name(), e.Type()}
		if d.unhack {
			entries[i].name, _, _ = strings.Cut(e.Name(), caseHackSuffix)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i-1].name == entries[i].name {
			return nil, fmt.Errorf("%s: %q and %q are one name without the case hack's suffix",
				path, entries[i-1].file, entries[i].file)
		}
	}
	return entries, nil
}

// regular opens by system call: os.Open would add two of its own to each of a closure's many small files.
func (d *Dumper) regular(path string) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if _, err := retry(func() (int, error) { return 0, unix.Fstat(fd, &st) }); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s was a file when its directory was listed, and is none now", path)
	}
	head := []string{"(", "type", "regular", "contents"}
	if st.Mode&unix.S_IXUSR != 0 {
		head = []string{"(", "type", "regular", "executable", "", "contents"}
	}
	if err := d.strings(head...); err != nil {
		return err
	}
	if err := d.contents(fd, path, uint64(st.Size)); err != nil {
		return err
	}
	return d.strings(")")
}

// contents writes size bytes of fd as a string. Each read asks for one byte more than should be
// there, when the buffer has room for it: so the end of a small file costs no read of its own.
func (d *Dumper) contents(fd int, path string, size uint64) error {
	if err := d.room(8); err != nil {
		return err
	}
	d.buf = binary.LittleEndian.AppendUint64(d.buf, size)
	// A file that fits into an empty buffer is read in one piece.
	if size < bufferSize && size >= uint64(cap(d.buf)-len(d.buf)) {
		if err := d.flush(); err != nil {
			return err
		}
	}
	for left := size; ; {
		if err := d.room(1); err != nil {
			return err
		}
		free := d.buf[len(d.buf):cap(d.buf)]
		want := min(uint64(len(free)), left+1)
		n, err := retry(func() (int, error) { return unix.Read(fd, free[:want]) })
		switch {
		case err != nil:
			return &fs.PathError{Op: "read", Path: path, Err: err}
		case uint64(n) > left, n == 0 && left > 0:
			return fmt.Errorf("%s changed its size while it was read: it had %d bytes", path, size)
		}
		d.buf = d.buf[:len(d.buf)+n]
		left -= uint64(n)
		// A read that gave less than it was asked for met the end.
		if left == 0 && uint64(n) < want {
			return d.pad(size)
		}
	}
}

// strings writes strings other than contents.
func (d *Dumper) strings(all ...string) error {
	for _, s := range all {
		if err := d.room(8 + len(s) + 7); err != nil {
			return err
		}
		d.buf = binary.LittleEndian.AppendUint64(d.buf, uint64(len(s)))
		d.buf = append(d.buf, s...)
		d.buf = append(d.buf, zeros[:padding(uint64(len(s)))]...)
	}
	return nil
}

func (d *Dumper) pad(n uint64) error {
	if err := d.room(7); err != nil {
		return err
	}
	d.buf = append(d.buf, zeros[:padding(n)]...)
	return nil
}

// room makes place for n bytes, far fewer than the buffer holds.
func (d *Dumper) room(n int) error {
	if cap(d.buf)-len(d.buf) >= n {
		return nil
	}
	return d.flush()
}

func (d *Dumper) flush() error {
	n, err := d.w.Write(d.buf)
	if err == nil && n < len(d.buf) {
		err = io.ErrShortWrite
	}
	d.buf = d.buf[:0]
	return err
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Log writes events to a file. Fill in the fields, then Open; a nil *Log takes
// events and does nothing.
type Log struct {
	Path    string           // of the file that is written now
	MaxSize int64            // bytes of a file before the next is begun; 0 means 16 MiB
	Keep    int              // older files that stay; 0 means 8
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // told of trouble, once a minute; nil means slog.Default()

	queue   chan Event
	done    chan struct{}
	closing chan struct{}
	once    sync.Once

	mu         sync.Mutex // of what follows
	strangers  *rate.Limiter
	suppressed int64 // events of strangers over their quota
	dropped    int64 // events that found the queue full

	file  *os.File // the rest is the writer's own
	size  int64
	dirty bool      // written and not synced
	told  time.Time // when trouble was last told
	lost  int64     // lines that could not be written since
}

const (
	defaultSize = 16 << 20
	defaultKeep = 8

	// queued is how many events may wait for the disk.
	queued = 4096
	// patience is how long a request waits for a place in the queue.
	patience = 250 * time.Millisecond

	// Lines that those who do not authenticate may cause together: some hundreds at
	// once, one a second for ever, which the files of default size hold for days.
	strangersBurst = 300
	strangersEvery = time.Second

	// syncEvery is what a power cut may take. Each line for itself would be a disk's whole work.
	syncEvery = 5 * time.Second
	tellEvery = time.Minute
)

// Open opens the file and starts to write. It must be closed.
func (l *Log) Open() error {
	if l.MaxSize <= 0 {
		l.MaxSize = defaultSize
	}
	if l.Keep <= 0 {
		l.Keep = defaultKeep
	}
	if l.Now == nil {
		l.Now = time.Now
	}
	if l.Log == nil {
		l.Log = slog.Default()
	}
	l.strangers = rate.NewLimiter(rate.Every(strangersEvery), strangersBurst)
	if err := l.open(); err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	l.queue, l.done, l.closing = make(chan Event, queued), make(chan struct{}), make(chan struct{})
	go l.run()
	return nil
}

// Write records an event. It sets the time if there is none. It does not wait for
// the disk, and for a place in the queue a moment at most: a full disk must not
// stop the server. What is lost is counted, and told in the file.
func (l *Log) Write(e Event) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = l.Now()
	}
	if e.Unverified && !l.admit(e.Time) {
		return
	}
	select {
	case l.queue <- e:
		return
	default:
	}
	wait := time.NewTimer(patience)
	defer wait.Stop()
	select {
	case l.queue <- e:
	case <-l.closing:
		l.count(&l.dropped)
	case <-wait.C:
		l.count(&l.dropped)
	}
}

// admit tells whether strangers have a line left.
func (l *Log) admit(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.strangers.AllowN(now, 1) {
		return true
	}
	l.suppressed++
	return false
}

func (l *Log) count(n *int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n++
}

// Close writes what is queued and closes the file.
func (l *Log) Close() error {
	if l == nil || l.queue == nil {
		return nil
	}
	l.once.Do(func() { close(l.closing) })
	<-l.done
	return nil
}

// run is the one writer. It takes all that is queued into one write.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	sync := time.NewTicker(syncEvery)
	defer sync.Stop()
	var buf bytes.Buffer
	for {
		select {
		case e := <-l.queue:
			buf.Reset()
			l.encode(&buf, e)
			l.gather(&buf)
			l.put(buf.Bytes())
		case <-tick.C:
			buf.Reset()
			l.summary(&buf)
			l.put(buf.Bytes())
		case <-sync.C:
			l.sync()
		case <-l.closing:
			for buf.Reset(); len(l.queue) > 0; buf.Reset() {
				l.gather(&buf)
				l.put(buf.Bytes())
			}
			l.summary(&buf)
			l.put(buf.Bytes())
			l.shut()
			return
		}
	}
}

// gather adds what else is queued, up to a size that memory does not notice.
func (l *Log) gather(buf *bytes.Buffer) {
	for buf.Len() < 256<<10 {
		select {
		case e := <-l.queue:
			l.encode(buf, e)
		default:
			return
		}
	}
}

func (l *Log) encode(buf *bytes.Buffer, e Event) {
	enc := json.NewEncoder(buf) // which ends the line
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.clean()); err != nil { // strings and numbers: cannot fail
		l.lost++
		l.tell(err)
	}
}

// summary adds a line for what was left out since the last one.
func (l *Log) summary(buf *bytes.Buffer) {
	l.mu.Lock()
	suppressed, dropped := l.suppressed, l.dropped
	l.suppressed, l.dropped = 0, 0
	l.mu.Unlock()
	if suppressed > 0 {
		l.encode(buf, Event{Time: l.Now(), Action: Suppressed, Result: Limited, Objects: suppressed,
			Reason: "events of callers who did not authenticate, over their quota of lines"})
	}
	if dropped > 0 {
		l.encode(buf, Event{Time: l.Now(), Action: Suppressed, Result: Failed, Objects: dropped,
			Reason: "events that the disk did not take in time"})
	}
}

// put appends whole lines.
func (l *Log) put(lines []byte) {
	if len(lines) == 0 {
		return
	}
	err := l.ready(int64(len(lines)))
	if err == nil {
		var n int
		n, err = l.file.Write(lines)
		l.size += int64(n)
		l.dirty = true
		if err != nil {
			l.shut() // what is torn is mended by the next open
		}
	}
	if err != nil {
		l.lost += int64(bytes.Count(lines, []byte("\n")))
		l.tell(err)
	}
}

// tell logs trouble, once a minute: a full disk fails every line.
func (l *Log) tell(err error) {
	if now := l.Now(); l.told.IsZero() || now.Sub(l.told) >= tellEvery {
		l.Log.Error("write audit log", "file", l.Path, "lines_lost", l.lost, "error", err)
		l.told, l.lost = now, 0
	}
}

// ready makes sure that the file is open, is the one at Path, and has room.
func (l *Log) ready(n int64) error {
	if l.file != nil && !l.inPlace() {
		l.shut() // somebody moved it, or another server on this directory began the next
	}
	if l.file != nil && l.size > 0 && l.size+n > l.MaxSize {
		l.shut()
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.file == nil {
		return l.open()
	}
	return nil
}

func (l *Log) inPlace() bool {
	ours, err1 := l.file.Stat()
	there, err2 := os.Stat(l.Path)
	return err1 == nil && err2 == nil && os.SameFile(ours, there)
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.Path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", l.Path)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return err
	}
	l.file, l.size = f, fi.Size()
	// A line that a crash tore must not swallow the next one.
	var last [1]byte
	if l.size > 0 {
		if _, err := f.ReadAt(last[:], l.size-1); err == nil && last[0] != '\n' {
			n, _ := f.Write([]byte("\n")) // the next write tells
			l.size += int64(n)
		}
	}
	return nil
}

func (l *Log) shut() {
	if l.file == nil {
		return
	}
	l.sync()
	if err := l.file.Close(); err != nil {
		l.tell(err)
	}
	l.file = nil
}

func (l *Log) sync() {
	if l.file == nil || !l.dirty {
		return
	}
	if err := l.file.Sync(); err != nil {
		l.tell(err)
	}
	l.dirty = false
}

// rotate makes room for a new file: .1 becomes .2, and so on.
func (l *Log) rotate() error {
	for i := l.Keep; i > 0; i-- {
		err := os.Rename(rotated(l.Path, i-1), rotated(l.Path, i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate: %w", err)
		}
	}
	return nil
}

// rotated is the name of the i-th older file; the 0th is the present one.
func rotated(path string, i int) string {
	if i == 0 {
		return path
	}
	return path + "." + strconv.Itoa(i)
}

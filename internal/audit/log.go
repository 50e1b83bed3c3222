package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Log writes events to a file. Fill in the fields, then Open; a nil *Log takes
// events and does nothing.
type Log struct {
	Path    string           // of the file that is written now; the other is beside it
	MaxSize int64            // bytes of either file before the next is begun; 0 means 16 MiB
	Keep    int              // older files that stay, and half as many of the pushes; 0 means 8
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // told of trouble, once a minute; nil means slog.Default()

	queue   chan Event
	done    chan struct{}
	closing chan struct{}
	once    sync.Once

	mu         sync.Mutex // of what follows
	strangers  *rate.Limiter
	flood      *rate.Limiter
	suppressed int64 // events of strangers over their quota
	dropped    int64 // events that found the queue full

	kept, pushed file      // the rest is the writer's own
	told         time.Time // when trouble was last told
	lost         int64     // lines that could not be written since
}

const (
	defaultSize = 16 << 20
	defaultKeep = 8

	// queued is how many events may wait for the disk.
	queued = 4096
	// patience is how long a request waits for a place in the queue.
	patience = 250 * time.Millisecond

	// Lines that those who do not authenticate may cause together: some hundreds at
	// once, one in four seconds for ever, which the files of default size hold for a week.
	strangersBurst = 300
	strangersEvery = 4 * time.Second
	// And those who do, beyond what they push: a job that a policy fits can trade ID
	// tokens all day. What goes over it is written to the other file.
	floodBurst = 2000
	floodEvery = 4 * time.Second

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
	l.flood = rate.NewLimiter(rate.Every(floodEvery), floodBurst)
	l.kept = file{path: l.Path, maxSize: l.MaxSize, keep: l.Keep}
	l.pushed = file{path: pushes(l.Path), maxSize: l.MaxSize, keep: (l.Keep + 1) / 2}
	if err := errors.Join(l.kept.open(), l.pushed.open()); err != nil {
		return errors.Join(fmt.Errorf("open audit log: %w", err), l.kept.shut(), l.pushed.shut())
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
	if !l.route(&e) {
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

// route chooses the event's file, or tells that it is left out.
func (l *Log) route(e *Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case strings.HasPrefix(e.Action, AdminPrefix):
	case e.Unverified:
		if !l.strangers.AllowN(e.Time, 1) {
			l.suppressed++
			return false
		}
	case e.Result != Refused && (e.Action == Upload || e.Action == Pack || e.Action == Commit):
		e.push = true
	default:
		e.push = !l.flood.AllowN(e.Time, 1)
	}
	return true
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

// run is the one writer. It takes all that is queued into one write a file.
func (l *Log) run() {
	defer close(l.done)
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	sync := time.NewTicker(syncEvery)
	defer sync.Stop()
	var b batch
	for {
		select {
		case e := <-l.queue:
			l.encode(&b, e)
			l.gather(&b)
			l.put(&b)
		case <-tick.C:
			l.summary(&b)
			l.put(&b)
		case <-sync.C:
			l.trouble(l.kept.sync())
			l.trouble(l.pushed.sync())
		case <-l.closing:
			for len(l.queue) > 0 {
				l.gather(&b)
				l.put(&b)
			}
			l.summary(&b)
			l.put(&b)
			l.trouble(l.kept.shut())
			l.trouble(l.pushed.shut())
			return
		}
	}
}

// batch is lines on their way to the two files.
type batch struct{ kept, pushed bytes.Buffer }

// gather adds what else is queued, up to a size that memory does not notice.
func (l *Log) gather(b *batch) {
	for b.kept.Len()+b.pushed.Len() < 256<<10 {
		select {
		case e := <-l.queue:
			l.encode(b, e)
		default:
			return
		}
	}
}

func (l *Log) encode(b *batch, e Event) {
	buf := &b.kept
	if e.push {
		buf = &b.pushed
	}
	enc := json.NewEncoder(buf) // which ends the line
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e.clean()); err != nil { // strings and numbers: cannot fail
		l.lost++
		l.trouble(err)
	}
}

// summary adds a line for what was left out since the last one.
func (l *Log) summary(b *batch) {
	l.mu.Lock()
	suppressed, dropped := l.suppressed, l.dropped
	l.suppressed, l.dropped = 0, 0
	l.mu.Unlock()
	if suppressed > 0 {
		l.encode(b, Event{Time: l.Now(), Action: Suppressed, Result: Limited, Objects: suppressed,
			Reason: "events of callers who did not authenticate, over their quota of lines"})
	}
	if dropped > 0 {
		l.encode(b, Event{Time: l.Now(), Action: Suppressed, Result: Failed, Objects: dropped,
			Reason: "events that the disk did not take in time"})
	}
}

// put appends the lines and empties the batch.
func (l *Log) put(b *batch) {
	for _, to := range []struct {
		file  *file
		lines *bytes.Buffer
	}{{&l.kept, &b.kept}, {&l.pushed, &b.pushed}} {
		if err := to.file.put(to.lines.Bytes()); err != nil {
			l.lost += int64(bytes.Count(to.lines.Bytes(), []byte("\n")))
			l.trouble(err)
		}
		to.lines.Reset()
	}
}

// trouble logs an error, if there is one, once a minute: a full disk fails every line.
func (l *Log) trouble(err error) {
	if now := l.Now(); err != nil && (l.told.IsZero() || now.Sub(l.told) >= tellEvery) {
		l.Log.Error("write audit log", "file", l.Path, "lines_lost", l.lost, "error", err)
		l.told, l.lost = now, 0
	}
}

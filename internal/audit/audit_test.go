package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var epoch = time.Unix(1_790_000_000, 0).UTC()

func open(t *testing.T, l *Log) *Log {
	t.Helper()
	if l.Path == "" {
		l.Path = filepath.Join(t.TempDir(), "audit.log")
	}
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func closed(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string, f Filter) []Event {
	t.Helper()
	var events []Event
	r := &Reader{Path: path, Filter: f}
	if err := r.Read(t.Context(), func(e Event, _ []byte) error { events = append(events, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	l := open(t, &Log{})
	want := Event{Time: epoch, Request: "r1", Action: Exchange, Result: OK, Status: 200, Subject: "repo:a/b:ref:refs/heads/main",
		Token: "J", Policy: "infra", Cache: "system", Object: "cache:system:push", Objects: 2, Bytes: 3, Address: "2001:db8::1",
		Claims: map[string]string{"repository_id": "5"}}
	l.Write(want)
	closed(t, l)
	got := read(t, l.Path, Filter{})
	if len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if fi, err := os.Stat(l.Path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v", fi.Mode(), err)
	}
}

// The attack: a branch, a subject or a path that looks like the end of a line and
// another line, or that tells the terminal of whoever reads to hide it.
func TestNoTextForgesALineOrCommandsATerminal(t *testing.T) {
	l := open(t, &Log{Now: func() time.Time { return epoch }})
	evil := "x\"}\n{\"time\":\"2026-01-01T00:00:00Z\",\"action\":\"exchange\",\"result\":\"ok\"}\r\n\x1b[2K\u202e\u2028\x00\x7f\xff"
	l.Write(Event{Action: Upload, Result: Refused, Reason: evil, Subject: evil, Cache: evil, Object: evil, Policy: evil,
		Address: evil, Request: evil, Token: evil, Claims: map[string]string{evil: evil}})
	closed(t, l)
	text, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(text, []byte("\n")) != 1 || bytes.ContainsAny(text, "\r\x1b\x00\x7f\u202e\u2028") {
		t.Errorf("the file is %q", text)
	}
	if got := read(t, l.Path, Filter{}); len(got) != 1 || got[0].Action != Upload {
		t.Errorf("got %v", got)
	}
}

// The attack: who can read the log takes a token out of it.
func TestTokensAreCutOut(t *testing.T) {
	l := open(t, &Log{})
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJlLWlzLWhlcmU"
	for _, s := range []string{jwt, "parse " + jwt + ": bad", "Authorization: Bearer c2VjcmV0LXNlY3JldA==", "basic dXNlcjpwYXNzd29yZA==",
		jwt[:20], strings.Repeat("x", maxText-30) + jwt, strings.Repeat("x", maxReason-30) + jwt} {
		l.Write(Event{Action: Auth, Result: Refused, Reason: s, Subject: s, Object: s, Claims: map[string]string{"sub": s}})
	}
	closed(t, l)
	text, err := os.ReadFile(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"eyJ", "c2lnbmF0", "YWRtaW4", "c2VjcmV0", "dXNlcjpw"} {
		if bytes.Contains(text, []byte(leak)) {
			t.Errorf("the file holds %s:\n%s", leak, text)
		}
	}
}

func TestTextIsBounded(t *testing.T) {
	l := open(t, &Log{})
	long := strings.Repeat("ü", 1<<20)
	claims := map[string]string{}
	for i := range 1000 {
		claims[fmt.Sprint(i)] = long
	}
	l.Write(Event{Action: Auth, Reason: long, Subject: long, Claims: claims})
	closed(t, l)
	if fi, err := os.Stat(l.Path); err != nil || fi.Size() > 32<<10 {
		t.Errorf("the line has %d bytes (%v)", fi.Size(), err)
	}
	if len(read(t, l.Path, Filter{})) != 1 {
		t.Error("it cannot be read")
	}
}

func TestFilesRotateBySizeAndTheOldestGo(t *testing.T) {
	l := open(t, &Log{MaxSize: 2000, Keep: 6})
	for i := range 200 {
		l.Write(Event{Time: epoch.Add(time.Duration(i) * time.Second), Action: Pack, Result: OK, Objects: int64(i)})
		if i%5 == 0 {
			waitEmpty(l)
		}
	}
	closed(t, l)
	files, err := filepath.Glob(pushes(l.Path) + "*")
	if err != nil || len(files) != 4 {
		t.Fatalf("there are %v (%v)", files, err)
	}
	for _, f := range files {
		if fi, err := os.Stat(f); err != nil || fi.Size() > 3000 {
			t.Errorf("%s has %d bytes (%v)", f, fi.Size(), err)
		}
	}
	got := read(t, l.Path, Filter{})
	if len(got) == 0 || got[len(got)-1].Objects != 199 {
		t.Fatalf("the newest of %d events is missing", len(got))
	}
	for i := 1; i < len(got); i++ {
		if got[i].Objects != got[i-1].Objects+1 {
			t.Fatalf("after %d comes %d", got[i-1].Objects, got[i].Objects)
		}
	}
}

// waitEmpty lets the writer catch up; events that are queued together are one write.
func waitEmpty(l *Log) {
	for len(l.queue) > 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestTornLineIsSkippedAndDoesNotSwallowTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	torn := "not json\n{}\n" + strings.Repeat("x", maxLine+5) + "\n" + `{"time":"2026-01-01T00:00:00Z","action":"pa`
	if err := os.WriteFile(path, []byte(torn), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, &Log{Path: path})
	l.Write(Event{Action: Pack, Result: OK})
	closed(t, l)
	n := 0
	r := &Reader{Path: path}
	if err := r.Read(t.Context(), func(e Event, _ []byte) error { n++; return nil }); err != nil || n != 1 || r.Skipped != 4 {
		t.Errorf("got %d events, %d skipped, %v", n, r.Skipped, err)
	}
}

func TestFileThatWasMovedIsBegunAnew(t *testing.T) {
	l := open(t, &Log{})
	l.Write(Event{Action: Exchange})
	waitEmpty(l)
	for read(t, l.Path, Filter{}) == nil { // taken from the queue is not yet in the file
		time.Sleep(time.Millisecond)
	}
	if err := os.Rename(l.Path, l.Path+".moved"); err != nil {
		t.Fatal(err)
	}
	l.Write(Event{Action: CacheCreate})
	closed(t, l)
	if got := read(t, l.Path, Filter{}); len(got) != 1 || got[0].Action != CacheCreate {
		t.Errorf("got %v", got)
	}
}

// The attack: after a break-in, a million anonymous requests push its lines out.
func TestStrangersCannotFlushTheRecord(t *testing.T) {
	l := open(t, &Log{MaxSize: 200 << 10, Keep: 1, Now: func() time.Time { return epoch }})
	l.Write(Event{Action: Exchange, Result: OK, Subject: "the break-in"})
	for range 100_000 {
		l.Write(Event{Action: Auth, Result: Refused, Unverified: true})
	}
	l.Write(Event{Action: CacheCreate, Result: OK})
	closed(t, l)
	got := read(t, l.Path, Filter{})
	if got[0].Subject != "the break-in" {
		t.Error("the record of the break-in is gone")
	}
	if len(got) != strangersBurst+3 {
		t.Errorf("there are %d lines", len(got))
	}
	if last := got[len(got)-1]; last.Action != Suppressed || last.Objects != 100_000-strangersBurst {
		t.Errorf("what was left out is told as %+v", last)
	}
}

// The attack: after a break-in, the stolen token pushes for hours, makes and destroys caches, and
// a job trades ID tokens, until the record of how it was got is rotated away.
func TestPushersCannotFlushTheRecord(t *testing.T) {
	now := epoch
	l := open(t, &Log{MaxSize: 300 << 10, Keep: 1, Now: func() time.Time { return now }})
	l.Write(Event{Action: Exchange, Result: OK, Subject: "the break-in"})
	for i := range 1_200 {
		l.Write(Event{Action: Upload, Result: OK, Subject: "thief", Object: strings.Repeat("x", 200)})
		l.Write(Event{Action: Pack, Result: Failed, Subject: "thief"})
		l.Write(Event{Action: Commit, Result: Refused, Subject: "thief"})
		l.Write(Event{Action: CacheCreate, Result: OK, Subject: "thief"})
		l.Write(Event{Action: Exchange, Result: Limited, Policy: "infra"})
		if i%100 == 0 {
			waitEmpty(l)
		}
	}
	now = now.Add(time.Minute)
	l.Write(Event{Action: AdminPrefix + "token.revoke", Result: OK})
	now = now.Add(time.Minute)
	l.Write(Event{Action: Upload, Result: OK, Subject: "the last"})
	closed(t, l)
	got := read(t, l.Path, Filter{})
	n := len(got)
	if got[0].Subject != "the break-in" || got[n-2].Action != "admin.token.revoke" || got[n-1].Subject != "the last" {
		t.Errorf("first %+v, then %+v and %+v", got[0], got[n-2], got[n-1])
	}
	if files, _ := filepath.Glob(l.Path + "*"); len(files) != 1 {
		t.Errorf("%d lines filled %v", n, files)
	}
	// What was refused is of the record, as far as there is room.
	if refused := read(t, l.Path, Filter{Result: Refused}); len(refused) < 500 {
		t.Errorf("%d refusals are recorded", len(refused))
	}
}

// What pushes send has files of its own, and is read as if it were one.
func TestBothFilesAreReadAsOne(t *testing.T) {
	l := open(t, &Log{MaxSize: 1500, Keep: 16})
	actions := []string{Exchange, Upload, Pack, CacheCreate, Commit, AdminPrefix + "x"}
	for i := range 60 {
		l.Write(Event{Time: epoch.Add(time.Duration(i) * time.Second), Action: actions[i%len(actions)], Result: OK, Objects: int64(i)})
		if i%5 == 0 {
			waitEmpty(l)
		}
	}
	closed(t, l)
	for i, e := range read(t, l.Path, Filter{}) {
		if e.Objects != int64(i) || e.Action != actions[i%len(actions)] {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	if got := read(t, l.Path, Filter{Action: Commit}); len(got) != 10 {
		t.Errorf("%d commits", len(got))
	}
	for _, name := range []string{l.Path, pushes(l.Path)} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, fi, err)
		}
	}
}

// lines counts log lines of trouble.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func TestTroubleIsToldOnceAMinuteAndStopsNobody(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var told lines
	l := open(t, &Log{Path: filepath.Join(dir, "audit.log"), Log: slog.New(slog.NewTextHandler(&told, nil)), Now: func() time.Time { return epoch }})
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 * queued { // more than the queue holds
		l.Write(Event{Action: Pack})
	}
	closed(t, l)
	if n := strings.Count(told.buf.String(), "write audit log"); n != 1 {
		t.Errorf("told %d times:\n%s", n, told.buf.String())
	}
}

func TestNilLogTakesEvents(t *testing.T) {
	var l *Log
	l.Write(Event{Action: Pack})
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestFilters(t *testing.T) {
	l := open(t, &Log{})
	for i, e := range []Event{
		{Action: Exchange, Result: OK, Subject: "repo:acme/infra:ref:refs/heads/main", Policy: "infra,reader", Cache: "system", Token: "j1", Request: "r1"},
		{Action: Exchange, Result: Refused, Subject: "repo:evil/x:pull_request", Reason: "no policy matches"},
		{Action: Upload, Result: OK, Subject: "ci", Cache: "system"},
		{Action: "admin.trust.add", Result: OK, Policy: "infra"},
	} {
		e.Time = epoch.Add(time.Duration(i) * time.Hour)
		l.Write(e)
	}
	closed(t, l)
	for _, c := range []struct {
		name string
		f    Filter
		want string
	}{
		{"all", Filter{}, "0123"},
		{"since", Filter{Since: epoch.Add(time.Hour)}, "123"},
		{"until", Filter{Until: epoch.Add(time.Hour)}, "0"},
		{"subject", Filter{Subject: "ci"}, "2"},
		{"subject by pattern", Filter{Subject: "repo:acme/*:ref:*"}, "0"},
		{"pattern is anchored", Filter{Subject: "acme*"}, ""},
		{"cache", Filter{Cache: "system"}, "02"},
		{"one of several policies", Filter{Policy: "reader"}, "0"},
		{"policy", Filter{Policy: "infra"}, "03"},
		{"action", Filter{Action: "admin.*"}, "3"},
		{"result", Filter{Result: Refused}, "1"},
		{"token", Filter{Token: "j1"}, "0"},
		{"request", Filter{Request: "r1"}, "0"},
		{"text", Filter{Holds: "evil"}, "1"},
		{"both", Filter{Cache: "system", Action: Upload}, "2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got string
			for _, e := range read(t, l.Path, c.f) {
				got += fmt.Sprint(int(e.Time.Sub(epoch).Hours()))
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestFollowSeesWhatComesAcrossRotations(t *testing.T) {
	l := open(t, &Log{MaxSize: 1500, Keep: 16})
	l.Write(Event{Action: Pack, Objects: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan int64)
	ended := make(chan error, 1)
	go func() {
		r := &Reader{Path: l.Path, Follow: true, poll: 2 * time.Millisecond}
		ended <- r.Read(ctx, func(e Event, _ []byte) error { got <- e.Objects; return nil })
	}()
	for i := int64(1); i <= 60; i++ {
		if n := <-got; n != i {
			t.Fatalf("got event %d, want %d", n, i)
		}
		l.Write(Event{Action: Pack, Objects: i + 1})
		if i%20 != 0 { // now and then the reader has to wait, the other times it finds more than one
			l.Write(Event{Action: Pack, Objects: i + 2})
			i++
			if n := <-got; n != i {
				t.Fatalf("got event %d, want %d", n, i)
			}
		}
	}
	<-got
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if files, _ := filepath.Glob(pushes(l.Path) + ".*"); len(files) < 2 {
		t.Errorf("nothing was rotated: %v", files)
	}
}

func TestNoLogIsNoEvents(t *testing.T) {
	if got := read(t, filepath.Join(t.TempDir(), "audit.log"), Filter{}); got != nil {
		t.Errorf("got %v", got)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"time\":\"2026-01-01T00:00:00Z\",\"action\":\"pack\",\"result\":\"ok\"}\n\n{"), "pa*k")
	f.Add([]byte("\xff\n\x00{}\n"), "**")
	f.Fuzz(func(t *testing.T, text []byte, pattern string) {
		path := filepath.Join(t.TempDir(), "audit.log")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r := &Reader{Path: path, Filter: Filter{Action: pattern}}
		err := r.Read(t.Context(), func(e Event, line []byte) error {
			out, err := json.Marshal(e)
			if err != nil || bytes.ContainsAny(out, "\n\x1b\x7f") {
				t.Errorf("%q is shown as %q, %v", line, out, err)
			}
			return nil
		})
		if err != nil && err != io.EOF {
			t.Error(err)
		}
	})
}

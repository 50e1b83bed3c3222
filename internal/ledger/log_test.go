package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

func deleted(name string) Record { return Record{CacheDeleted: &CacheDeleted{Name: name}} }

// replayed lists what comes back as "epoch/seq name".
func replayed(t *testing.T, l *Log) (list []string, err error) {
	t.Helper()
	_, err = l.Replay(t.Context(), nil, func(p Pos, _ string, recs []Record) error {
		for _, r := range recs {
			list = append(list, fmt.Sprintf("%d/%d %s", p.Epoch, p.Seq, r.CacheDeleted.Name))
		}
		return nil
	})
	return list, err
}

// add appends without knowing what came before.
func add(l *Log, seq uint64, recs ...Record) error {
	_, err := l.Append(context.Background(), seq, nil, recs)
	return err
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReplayFollowsEpochAndSequence(t *testing.T) {
	mem := blobtest.NewMem()
	add := func(epoch, seq uint64, names ...string) {
		t.Helper()
		var recs []Record
		for _, n := range names {
			recs = append(recs, deleted(n))
		}
		if _, err := (&Log{Blobs: mem, Epoch: epoch}).Append(t.Context(), seq, nil, recs); err != nil {
			t.Fatal(err)
		}
	}
	add(2, 1, "d")
	add(1, 10, "c")
	add(1, 9, "b", "a", "b") // order and repeats within a batch stay
	add(1, 9, "late")        // the same number again, which no writer of ours does
	add(1, 11)               // nothing is no object
	got, err := replayed(t, &Log{Blobs: mem})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 6 || got[4] != "1/10 c" || got[5] != "2/1 d" {
		t.Errorf("got %q", got)
	}
	if all := strings.Join(got[:4], " "); !strings.Contains(all, "1/9 b 1/9 a 1/9 b") || !strings.Contains(all, "late") {
		t.Errorf("got %q", got)
	}
}

func TestAppendingTheSameAgainIsRefused(t *testing.T) {
	l := &Log{Blobs: blobtest.NewMem()}
	if err := add(l, 1, deleted("a")); err != nil {
		t.Fatal(err)
	}
	if err := add(l, 1, deleted("a")); !errors.Is(err, blob.ErrExists) {
		t.Errorf("got %v", err)
	}
}

func TestRecordsComeBackWhole(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	days := uint32(7)
	recs := []Record{
		{Cache: &Cache{Name: "a", PublicKey: "k", SealedKey: []byte{0, 255}, Public: true, StoreDir: "/nix/store", Priority: -1, UpstreamKeys: []string{"u"}, Retention: &days, CreatedAt: at, DeletedAt: &at}},
		{CacheDeleted: &CacheDeleted{Name: "a", At: at}},
		{NAR: &NAR{Form: Hex{1}, Hash: [32]byte{2}, Size: 1 << 60, FileSize: 5, Verified: true, Pieces: []byte{0, 1}, Layout: []Span{{Pack: "p", First: 1, Count: 2, Trailer: true}, {Literal: []byte("x")}}, CreatedAt: at}},
		{Path: &Path{Cache: "a", StorePath: "/s", NARHash: [32]byte{3}, Form: Hex{4}, References: []string{"r"}, Upstream: []string{"u"}, Deriver: "d", System: "s", CA: "c", Sigs: []string{"g"}, CreatedBy: "b", CreatedAt: at}},
		{PathDeleted: &PathDeleted{Cache: "a", Hash: "h", At: at}},
		{TokenIssued: &TokenIssued{ID: "i", Subject: "s", Policies: []string{"p"}, Caches: []string{"c:pull"}, At: at, Expires: at}},
		{TokenRevoked: &TokenRevoked{ID: "i", At: at, Expires: at}},
		{Policy: &Policy{Name: "infra", Policy: json.RawMessage(`{"name":"infra","repository-id":1}`), By: "ops", At: at}},
		{PolicyDeleted: &PolicyDeleted{Name: "infra", At: at}},
		{Pin: &Pin{Cache: "c", Name: "acme/infra/main/web", Keep: 5, Expires: at,
			Revisions: []Revision{{StorePath: "/s", By: "b", Policies: []string{"p"}, At: at, Paths: 2, Size: 1 << 40}}}},
		{PinDeleted: &PinDeleted{Cache: "c", Name: "n", At: at}},
		{KeyRotated: &KeyRotated{Cache: "c", PublicKey: "c.2:k", At: at,
			Old: []OldKey{{PublicKey: "c:k", SealedKey: []byte{1}, RotatedAt: at, Until: at}}}},
		{Quarantine: &Quarantine{Pack: "p", Entries: []byte{1}, NAR: "n", Why: "w", At: at}},
		{Healed: &Healed{Pack: "p", At: at}},
		{Verified: &Verified{NAR: "n", At: at}},
		{Listing: &Listing{NAR: "n", Skeleton: []byte{1}, BuildIDs: []string{"b"}}},
		{BuildLog: &BuildLog{Cache: "c", Name: "x.drv", Size: 3, Data: []byte{2}, CreatedBy: "b", CreatedAt: at}},
		{BuildLogDeleted: &BuildLogDeleted{Cache: "c", Name: "x.drv", At: at}},
		{Realisation: &Realisation{Cache: "c", Name: "sha256:0!out", OutPath: "h-x", Text: "{}", CreatedBy: "b", CreatedAt: at}},
	}
	l := &Log{Blobs: blobtest.NewMem(), Epoch: 3}
	if err := add(l, 7, recs...); err != nil {
		t.Fatal(err)
	}
	var got []Record
	_, err := l.Replay(t.Context(), nil, func(_ Pos, _ string, recs []Record) error { got = append(got, recs...); return nil })
	if err != nil || !reflect.DeepEqual(got, recs) {
		t.Errorf("got %+v, %v, want %+v", got, err, recs)
	}
}

func TestAppendRefusesRecordsWithoutOneMember(t *testing.T) {
	l := &Log{Blobs: blobtest.NewMem()}
	for _, r := range []Record{{}, {Cache: &Cache{}, CacheDeleted: &CacheDeleted{}}} {
		if err := add(l, 1, r); err == nil {
			t.Errorf("%+v was appended", r)
		}
	}
}

func big(name string, size int) Record {
	return Record{NAR: &NAR{Pieces: bytes.Repeat([]byte{7}, size), Layout: []Span{{Pack: name}}}}
}

func TestLargeBatchKeepsItsOrderInSeveralObjects(t *testing.T) {
	mem := blobtest.NewMem()
	l := &Log{Blobs: mem}
	var recs []Record
	for i := range 8 {
		recs = append(recs, big(fmt.Sprint(i), 5<<20)) // 7 MiB as JSON
	}
	if err := add(l, 1, recs...); err != nil {
		t.Fatal(err)
	}
	var keys []string
	_ = mem.List(t.Context(), "", func(i blob.Info) error { keys = append(keys, i.Key); return nil })
	if len(keys) != 4 {
		t.Errorf("%d objects, want 4", len(keys))
	}
	replay := func() (got string, rep *Report) {
		t.Helper()
		rep, err := l.Replay(t.Context(), nil, func(_ Pos, _ string, recs []Record) error {
			for _, r := range recs {
				got += r.NAR.Layout[0].Pack
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got, rep
	}
	if got, rep := replay(); rep.LostCount != 0 || got != "01234567" {
		t.Errorf("got %q, %+v", got, rep)
	}
	if err := mem.Delete(t.Context(), keys[0]); err != nil {
		t.Fatal(err)
	}
	if got, rep := replay(); rep.LostCount != 1 || len(got) != 6 {
		t.Errorf("a part is missing: got %q, %+v", got, rep)
	}
}

func compress(s string) []byte {
	enc, _ := zstd.NewWriter(nil)
	return enc.EncodeAll([]byte(s), nil)
}

// A bucket can hold anything; a replay names what it cannot use, reads the rest,
// and neither dies nor fills the memory.
func TestReplaySurvivesWhatItCannotUse(t *testing.T) {
	good := compress(`{"cache_deleted":{"name":"good"}}` + "\n")
	for name, tt := range map[string]struct {
		key  string // empty means the right one for data
		data []byte
	}{
		"wrong sum":       {objectKey(LogPrefix, Pos{1, 2}, [32]byte{}), good},
		"not zstd":        {"", []byte("plain")},
		"empty":           {"", nil},
		"no record":       {"", compress("\n")},
		"cut off":         {"", good[:len(good)-4]},
		"bomb":            {"", compress(strings.Repeat(" ", maxObject+1))},
		"not JSON":        {"", compress("{")},
		"unknown member":  {"", compress(`{"future":{}}`)},
		"two members":     {"", compress(`{"cache":{},"nar":{}}`)},
		"second is wrong": {"", compress(`{"cache_deleted":{"name":"x"}}{"form":1}`)},
		"late part":       {"", compress(`{"cache_deleted":{"name":"x"}}{"part":{"n":1,"of":1}}`)},
		"short number":    {"log/1/2-" + strings.Repeat("0", 64), good},
		"wide epoch":      {"log/00000000001/00000000000000000002-" + strings.Repeat("0", 64), good},
		"upper case sum":  {"log/0000000001/00000000000000000002-" + strings.Repeat("A", 64), good},
		"deeper":          {"log/a/b/c", good},
		"huge number":     {"log/9999999999/99999999999999999999-" + strings.Repeat("0", 64), good},
	} {
		t.Run(name, func(t *testing.T) {
			mem := blobtest.NewMem()
			key := tt.key
			if key == "" {
				key = objectKey(LogPrefix, Pos{1, 2}, sha256.Sum256(tt.data))
			}
			l := &Log{Blobs: mem, Epoch: 1}
			err := errors.Join(add(l, 1, deleted("before")), mem.Put(t.Context(), key, blob.Bytes(tt.data)), add(l, 3, deleted("after")))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			rep, err := l.Replay(t.Context(), nil, func(_ Pos, _ string, recs []Record) error {
				got = append(got, recs[0].CacheDeleted.Name)
				return nil
			})
			want(t, got, "before", "after")
			if named := len(rep.Lost) == 1 && rep.Lost[0].Key == key || len(rep.Foreign) == 1 && rep.Foreign[0] == key; err != nil || !named {
				t.Errorf("got %v, %+v, want one that names %s", err, rep, key)
			}
		})
	}
}

// failing is a bucket that cannot be reached.
type failing struct{ *blobtest.Mem }

func (failing) Get(context.Context, string, int64, int64) (io.ReadCloser, error) {
	return nil, errors.New("no route")
}

func TestReplayEndsWhenTheBucketFails(t *testing.T) {
	mem := blobtest.NewMem()
	if err := add(&Log{Blobs: mem}, 1, deleted("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := replayed(t, &Log{Blobs: failing{mem}}); err == nil {
		t.Error("an unreachable bucket is not an empty one")
	}
	stop := errors.New("stop")
	_, err := (&Log{Blobs: mem}).Replay(t.Context(), nil, func(Pos, string, []Record) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseObject(f *testing.F) {
	for _, s := range []string{`{"cache_deleted":{"name":"a"}}`, `{"nar":{"form":"00"}}`, `{"part":{"n":1,"of":2}}{"cache":{}}`, "", "{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, lines []byte) {
		h, recs, err := decode(lines)
		if err != nil {
			return
		}
		again, err := encode(recs, objectSize)
		if err != nil {
			t.Fatal(err)
		}
		h2, back, err := decode(append(h.lines(), bytes.Join(again, nil)...))
		if err != nil || !reflect.DeepEqual(back, recs) && len(recs) > 0 || !reflect.DeepEqual(h, h2) {
			t.Errorf("%q: got back %+v, %v, want %+v", lines, back, err, recs)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(objectKey(LogPrefix, Pos{1, 2}, [32]byte{3}))
	f.Add("log/1/2-3")
	f.Fuzz(func(t *testing.T, key string) {
		if o, err := parseKey(key); err == nil && objectKey(o.prefix, o.pos, o.sum) != key {
			t.Errorf("%q parses as %+v", key, o)
		}
	})
}

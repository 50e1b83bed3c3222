package ledger

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

// written appends a batch of one record that has the position's name, behind another.
func written(t *testing.T, mem *blobtest.Mem, epoch, seq, afterEpoch, afterSeq uint64) string {
	t.Helper()
	l := &Log{Blobs: mem, Epoch: epoch}
	keys, err := l.Append(t.Context(), seq, &Pos{afterEpoch, afterSeq}, []Record{deleted(Pos{epoch, seq}.String())})
	if err != nil {
		t.Fatal(err)
	}
	return keys[0]
}

func played(t *testing.T, mem *blobtest.Mem, base *Manifest) (string, *Report) {
	t.Helper()
	var got []string
	rep, err := (&Log{Blobs: mem}).Replay(t.Context(), base, func(_ Pos, _ string, recs []Record) error {
		got = append(got, recs[0].CacheDeleted.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(got, " "), rep
}

// A batch whose records reached the bucket and whose transaction failed was refused to
// whoever sent it. If it was a deletion, replaying it would lose what was promised.
func TestReplayPassesOverWhatWasNeverAcknowledged(t *testing.T) {
	for name, tt := range map[string]struct {
		batches [][4]uint64 // epoch, seq, and those of the batch before
		want    string
		void    int
	}{
		"none failed":        {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {1, 3, 1, 2}}, "1/1 1/2 1/3", 0},
		"one failed":         {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {1, 3, 1, 1}}, "1/1 1/3", 1},
		"some failed":        {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {1, 3, 1, 1}, {1, 4, 1, 1}, {1, 9, 1, 4}}, "1/1 1/4 1/9", 2},
		"the first failed":   {[][4]uint64{{1, 1, 0, 0}, {1, 2, 0, 0}}, "1/2", 1},
		"the last may have":  {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}}, "1/1 1/2", 0},
		"in doubt, and true": {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {1, 3, 1, 1}, {1, 1025, 1, 2}}, "1/1 1/2 1/1025", 1},
		"an old server":      {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {1, 3, 1, 2}, {1, 4, 1, 3}, {2, 1, 1, 2}, {2, 2, 2, 1}}, "1/1 1/2 2/1 2/2", 2},
		"two old servers":    {[][4]uint64{{1, 1, 0, 0}, {1, 2, 1, 1}, {2, 1, 1, 1}, {2, 2, 2, 1}, {3, 1, 2, 1}}, "1/1 2/1 3/1", 2},
	} {
		t.Run(name, func(t *testing.T) {
			mem := blobtest.NewMem()
			for _, b := range tt.batches {
				written(t, mem, b[0], b[1], b[2], b[3])
			}
			got, rep := played(t, mem, nil)
			if got != tt.want || rep.UnacknowledgedCount != tt.void || rep.LostCount != 0 {
				t.Errorf("got %q, %+v; want %q and %d that failed", got, rep, tt.want, tt.void)
			}
		})
	}
}

// Whoever takes an object out of the log, or damages it, is found out: the next one
// names it.
func TestReplayNamesWhatIsLost(t *testing.T) {
	for name, hurt := range map[string]func(t *testing.T, mem *blobtest.Mem, key string){
		"deleted": func(t *testing.T, mem *blobtest.Mem, key string) { _ = mem.Delete(t.Context(), key) },
		"damaged": func(t *testing.T, mem *blobtest.Mem, key string) {
			_ = mem.Delete(t.Context(), key)
			_ = mem.Put(t.Context(), key, blob.Bytes([]byte("something else")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := blobtest.NewMem()
			written(t, mem, 1, 1, 0, 0)
			victim := written(t, mem, 1, 2, 1, 1)
			written(t, mem, 1, 3, 1, 2)
			written(t, mem, 1, 4, 1, 3)
			hurt(t, mem, victim)
			got, rep := played(t, mem, nil)
			if got != "1/1 1/3 1/4" || rep.LostCount != 1 || !strings.HasPrefix(victim, rep.Lost[0].Key) || rep.UnacknowledgedCount != 0 {
				t.Errorf("got %q, %+v", got, rep)
			}
		})
	}
}

// What a checkpoint was made without was never acknowledged; what it replaces may be
// left over.
func TestReplayBehindACheckpoint(t *testing.T) {
	mem := blobtest.NewMem()
	covered := written(t, mem, 1, 1, 0, 0)
	written(t, mem, 1, 2, 1, 1) // failed
	written(t, mem, 1, 4, 1, 3)
	got, rep := played(t, mem, &Manifest{Position: Pos{1, 3}, Replaces: []string{covered}})
	if got != "1/4" || rep.UnacknowledgedCount != 1 || rep.LostCount != 0 {
		t.Errorf("got %q, %+v", got, rep)
	}
}

func TestNewestWholeCheckpointIsUsed(t *testing.T) {
	mem := blobtest.NewMem()
	put := func(pos Pos, name string, missing bool) string {
		t.Helper()
		var file strings.Builder
		w := NewShardWriter(&file)
		if err := w.Add(deleted(name)); err != nil {
			t.Fatal(err)
		}
		s, err := w.Finish(pos)
		if err != nil {
			t.Fatal(err)
		}
		if !missing {
			_ = mem.Put(t.Context(), s.Key, blob.Bytes([]byte(file.String())))
		}
		key, object, err := (&Manifest{Position: pos, Shards: []Shard{s}}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		_ = mem.Put(t.Context(), key, blob.Bytes(object))
		return key
	}
	old := put(Pos{1, 1}, "old", false)
	cut := put(Pos{1, 2}, "new", true)
	key, m, passed, err := NewestCheckpoint(t.Context(), mem)
	if err != nil || key != old || len(passed) != 0 {
		t.Errorf("got %s, %v, %v; want the one that is whole", key, passed, err)
	}
	var names []string
	for _, s := range m.Shards {
		if err := CheckShard(t.Context(), mem, s); err != nil {
			t.Error(err)
		}
		err := ReadShard(t.Context(), mem, s, 0, func(_ int, r Record) error { names = append(names, r.CacheDeleted.Name); return nil })
		if err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(names, []string{"old"}) {
		t.Errorf("got %q", names)
	}
	_ = mem.Delete(t.Context(), old)
	if key, _, _, err := NewestCheckpoint(t.Context(), mem); err != nil || key != cut {
		t.Errorf("got %s, %v; want what there is", key, err)
	}
}

func FuzzManifest(f *testing.F) {
	_, good, _ := (&Manifest{Position: Pos{1, 2}}).Encode()
	f.Add(good)
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The sum of its name is right, as it is for whoever may write to the bucket.
		o := object{prefix: ManifestPrefix, pos: Pos{1, 2}, sum: sha256.Sum256(data)}
		if m, err := decodeManifest(data, o); err == nil && m.Position != o.pos {
			t.Errorf("%+v", m)
		}
	})
}

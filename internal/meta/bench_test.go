package meta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
)

func benchID(i int) (id chunk.ID) {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

// benchHash is a path hash that is as scattered as real ones.
func benchHash(i int) string {
	id := benchID(i)
	return nix.EncodeBase32(id[:20])
}

// benchDB is a file with the given numbers of paths and chunks in one cache.
func benchDB(b *testing.B, paths, chunks int) (*DB, *Cache) {
	b.Helper()
	db, err := Open(b.Context(), b.TempDir()+"/meta.db", Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	c := newCache(b, db, "bench")
	fillChunks(b, db, c, chunks)
	for start := 0; start < paths; start += 1000 {
		update(b, db, func(tx *Tx) error { return putBatch(tx, c, start, 1000) })
	}
	return db, c
}

// fillChunks makes packs of 1,000 chunks. The rows go in sorted, which is a
// hundred times faster and ends in the same tree.
func fillChunks(b *testing.B, db *DB, c *Cache, chunks int) {
	b.Helper()
	ids := make([]chunk.ID, chunks)
	for i := range ids {
		ids[i] = benchID(i)
	}
	order := sorted(chunks, func(a, b int) int { return bytes.Compare(ids[a][:], ids[b][:]) })
	packs := make([]int64, (chunks+999)/1000)
	update(b, db, func(tx *Tx) error {
		for i := range packs {
			p := &Pack{Key: fmt.Sprint(i)}
			if err := errors.Join(tx.InsertPack(p, nil), tx.Show(c.ID, p.ID, nil, nil, time.Time{})); err != nil {
				return err
			}
			packs[i] = p.ID
		}
		for _, i := range order {
			if _, err := tx.exec("INSERT INTO places (cache_id, hash, pack_id, entry) VALUES ($1, $2, $3, $4)", c.ID, ids[i][:], packs[i/1000], i%1000); err != nil {
				return err
			}
		}
		return nil
	})
}

func putBatch(tx *Tx, c *Cache, start, n int) error {
	refs := make([]string, 10)
	for i := range refs {
		refs[i] = benchHash(i) + "-some-package-1.2.3"
	}
	for i := start; i < start+n; i++ {
		nar := &NAR{Form: benchID(i), Hash: nix.Hash(benchID(i + 1)), Size: 1, FileSize: 1, Layout: make([]byte, 200)}
		if err := tx.InsertNAR(nar, ledger.NAR{Form: nar.Form, Hash: nar.Hash}); err != nil {
			return err
		}
		p := &Path{CacheID: c.ID, Hash: benchHash(i), NAR: nar.ID, References: refs, Sigs: []string{"cache.nixos.org-1:aaaa"}}
		p.StorePath = "/nix/store/" + p.Hash + "-some-package-1.2.3"
		if err := tx.PutPath(p, ledger.Path{Cache: c.Name, StorePath: p.StorePath}); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkLocate100k(b *testing.B) {
	db, c := benchDB(b, 0, 1_000_000)
	other := newCache(b, db, "other")
	for name, first := range map[string]int{"found": 0, "unknown": 2_000_000} {
		ids := make([]chunk.ID, 100_000)
		for i := range ids {
			ids[i] = benchID(first + i*7)
		}
		locateAll(b, db, name, []int64{c.ID}, ids)
		if name == "found" {
			locateAll(b, db, "invisible", []int64{other.ID}, ids)
			locateAll(b, db, "found through the second of 2 caches", []int64{other.ID, c.ID}, ids)
		}
	}
}

func locateAll(b *testing.B, db *DB, name string, caches []int64, ids []chunk.ID) {
	b.Run(name, func(b *testing.B) {
		for b.Loop() {
			view(b, db, func(tx *Tx) error { _, err := tx.Locate(caches, ids); return err })
		}
	})
}

func BenchmarkMissingPaths60k(b *testing.B) {
	db, c := benchDB(b, 200_000, 0)
	for name, first := range map[string]int{"present": 0, "missing": 1_000_000} {
		hashes := make([]string, 60_000)
		for i := range hashes {
			hashes[i] = benchHash(first + i*3)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				view(b, db, func(tx *Tx) error { _, err := tx.MissingPaths(c.ID, hashes); return err })
			}
		})
	}
}

func BenchmarkPutPath1000(b *testing.B) {
	db, c := benchDB(b, 100_000, 0)
	n := 1_000_000
	for b.Loop() {
		update(b, db, func(tx *Tx) error { return putBatch(tx, c, n, 1000) })
		n += 1000
	}
}

func BenchmarkPathRead(b *testing.B) {
	db, c := benchDB(b, 200_000, 0)
	hashes := make([]string, 10_000)
	for i := range hashes {
		hashes[i] = benchHash(i * 20)
	}
	read := func(i int) {
		if err := db.View(context.Background(), func(tx *Tx) error {
			_, _, err := tx.Path(c.ID, hashes[i%len(hashes)])
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			read(i)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				read(i)
			}
		})
	})
}

func BenchmarkLoneUpdate(b *testing.B) {
	db, c := benchDB(b, 1000, 0)
	hash := []string{benchHash(1)}
	at := time.Unix(3_000_000_000, 0)
	for b.Loop() {
		at = at.Add(time.Second)
		update(b, db, func(tx *Tx) error { return tx.TouchPaths(c.ID, hash, at) })
	}
}

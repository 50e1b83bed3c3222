package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
)

// maxEntry bounds the bitmaps: a pack has fewer entries.
const maxEntry = 1 << 24

// locate looks, for every id and cache, into the places of that cache alone: a pack
// that it was never shown has none there. So a chunk that is in a hundred packs of
// others is looked for like one that is nowhere, and a clock would not tell who else
// has it (design §4). Of the places that a cache has in several packs, the first that
// it may see at present: whoever puts a chunk into a thousand packs gets one row.
const locate = `WITH k AS MATERIALIZED (SELECT key AS rank, value AS id FROM json_each($3))
	SELECT o.i, k.rank, k.id, c.pack_id, c.entry
	FROM ` + batchFrom + ` CROSS JOIN k CROSS JOIN places c
	WHERE o.i < $2 AND c.cache_id = k.id AND c.hash = ` + batchBlob + ` AND c.pack_id = (
		SELECT d.pack_id FROM places d CROSS JOIN visible v
		WHERE d.cache_id = k.id AND d.hash = ` + batchBlob + ` AND v.cache_id = k.id AND v.pack_id = d.pack_id AND (v.until IS NULL OR v.until > $4)
		ORDER BY d.pack_id LIMIT 1)`

// Locate finds for each id, in order, a place that one of the caches may see at
// present; of several the one through the earliest cache of the list. An id without one has the zero Place, be it unknown or invisible.
func (tx *Tx) Locate(caches []int64, ids []chunk.ID) ([]Place, error) {
	places := make([]Place, len(ids))
	ranks := make([]int, len(ids))
	keys := make([]byte, 0, min(batchKeys, len(ids))*len(chunk.ID{}))
	list, now := idList(caches), stamp(tx.now)
	order := sorted(len(ids), func(a, b int) int { return bytes.Compare(ids[a][:], ids[b][:]) })
	// Each once: a question that is repeated ten thousand times would make any difference large.
	once := slices.CompactFunc(slices.Clone(order), func(a, b int) bool { return ids[a] == ids[b] })
	for part := range slices.Chunk(once, batchKeys) {
		keys = keys[:0]
		for _, i := range part {
			keys = append(keys, ids[i][:]...)
		}
		err := tx.each(locate, []any{keys, len(part), list, now}, func(scan func(...any) error) error {
			var i, rank int
			p := Place{Found: true}
			if err := scan(&i, &rank, &p.Cache, &p.Pack, &p.Entry); err != nil {
				return err
			}
			if old, best := &places[part[i]], &ranks[part[i]]; !old.Found || rank < *best {
				*old, *best = p, rank
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("locate %d chunks: %w", len(ids), err)
		}
	}
	first := -1
	for _, i := range order {
		if first >= 0 && ids[i] == ids[first] {
			places[i] = places[first]
			continue
		}
		first = i
	}
	return places, nil
}

// sees reads bit entry of a bitmap.
func sees(bits []byte, entry int32) bool {
	return int(entry>>3) < len(bits) && bits[entry>>3]&(1<<(entry&7)) != 0
}

// Show lets a live cache see entries of a pack until a time; all are the pack's
// entries. Nil entries mean the whole pack, an empty list changes nothing; the zero
// time means for good. It adds to what the cache sees and never takes away: bitmaps
// are united, the later time counts, for good stays for good. What has expired
// counts as never shown. What is for good follows from the paths that are logged, so
// there is no record of its own.
func (tx *Tx) Show(cacheID, packID int64, all []pack.Entry, entries []int32, until time.Time) error {
	if err := tx.show(cacheID, packID, all, entries, until); err != nil {
		return fmt.Errorf("show pack %d to cache %d: %w", packID, cacheID, err)
	}
	return nil
}

func (tx *Tx) show(cacheID, packID int64, all []pack.Entry, entries []int32, until time.Time) error {
	if _, err := tx.liveCache(cacheID); err != nil {
		return err
	}
	if entries != nil && len(entries) == 0 {
		return nil
	}
	asked, err := bitmap(entries)
	if err != nil {
		return err
	}
	var old []byte
	var oldUntil *int64
	bits, end := asked, later(until)
	news := func(entry int32) bool { return asked == nil || sees(asked, entry) }
	err = tx.one("SELECT bits, until FROM visible WHERE cache_id = $1 AND pack_id = $2", []any{cacheID, packID}, &old, &oldUntil)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	case oldUntil != nil && *oldUntil <= stamp(tx.now):
		if err := tx.dropPlaces(cacheID, packID, all); err != nil {
			return err
		}
	default:
		news = func(entry int32) bool { return old != nil && !sees(old, entry) && (asked == nil || sees(asked, entry)) }
		bits = unite(asked, old)
		if oldUntil == nil || end != nil && *oldUntil > stamp(until) {
			end = oldUntil
		}
	}
	if err := tx.setVisible(cacheID, packID, bits, end); err != nil {
		return err
	}
	return tx.addPlaces(cacheID, packID, all, news)
}

// setVisible writes what a cache sees of a pack. A nil bitmap is the whole.
func (tx *Tx) setVisible(cacheID, packID int64, bits []byte, until any) error {
	n, err := tx.exec(`INSERT INTO visible (cache_id, pack_id, bits, until, sha256) SELECT $1, id, $3, $4, sha256 FROM packs WHERE id = $2
		ON CONFLICT (cache_id, pack_id) DO UPDATE SET bits = excluded.bits, until = excluded.until`, cacheID, packID, bits, until)
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return err
	}
	return tx.revive(packID)
}

// bitmap sets a bit for each entry. The result is nil, the whole pack, only when
// entries is nil, and never empty.
func bitmap(entries []int32) ([]byte, error) {
	if entries == nil {
		return nil, nil
	}
	bits := []byte{}
	for _, e := range entries {
		if e < 0 || e >= maxEntry {
			return nil, fmt.Errorf("entry %d is out of range", e)
		}
		if missing := int(e>>3) + 1 - len(bits); missing > 0 {
			bits = append(bits, make([]byte, missing)...)
		}
		bits[e>>3] |= 1 << (e & 7)
	}
	return bits, nil
}

// unite joins two bitmaps, where nil is all bits.
func unite(a, b []byte) []byte {
	if a == nil || b == nil {
		return nil
	}
	if len(a) < len(b) {
		a, b = b, a
	}
	a = bytes.Clone(a)
	for i := range b {
		a[i] |= b[i]
	}
	return a
}

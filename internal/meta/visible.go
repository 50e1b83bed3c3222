package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
)

// maxEntry bounds the bitmaps: a pack has fewer entries.
const maxEntry = 1 << 24

// locate does the same work for every id and cache, in three steps:
//
//	the chunk's row                 in chunks, 0 or 1
//	the copy that the cache uses    in shown_copies, 0 or 1
//	what the cache sees of each     in visible
//
// What is nowhere is asked for in pack 0, which never exists, so that it costs as
// many look-ups as what lies where the asker may not see, be it in one pack or in a
// hundred. With an inner join, or with a row for each pack that has the chunk, a
// clock would tell who else has it (design §4). coalesce(…, -1) keeps the planner
// from making inner joins of these.
const (
	locateJoin = ` FROM ` + batchFrom + `
	LEFT JOIN chunks c ON c.hash = ` + batchBlob + `
	CROSS JOIN k
	LEFT JOIN shown_copies d ON d.cache_id = k.id AND d.hash = ` + batchBlob + `
	LEFT JOIN visible v ON v.cache_id = k.id AND v.pack_id = coalesce(c.pack_id, 0) AND (v.until IS NULL OR v.until > $4)
	LEFT JOIN visible w ON w.cache_id = k.id AND w.pack_id = coalesce(d.pack_id, 0) AND (w.until IS NULL OR w.until > $4)
	WHERE o.i < $2`
	locateCaches = `WITH k AS MATERIALIZED (SELECT key AS rank, value AS id FROM json_each($3)) `
	locate       = locateCaches + `SELECT o.i, k.rank, k.id,
	coalesce(v.cache_id, 0), c.pack_id, c.entry, c.size, c.raw, v.bits IS NULL, v.bits,
	coalesce(w.cache_id, 0), d.pack_id, d.entry, d.size, d.raw, w.bits IS NULL, w.bits` + locateJoin + `
	AND (coalesce(v.cache_id, -1) >= 0 OR coalesce(w.cache_id, -1) >= 0)`
)

// offer is a place as a row of locate has it; without a cache there is none.
type offer struct {
	cache            int64
	pack             *int64
	entry, size, raw *int64
	whole            bool // asked for on its own: the driver reads an empty bitmap as nil
	bits             []byte
}

func (o *offer) dest() []any {
	return []any{&o.cache, &o.pack, &o.entry, &o.size, &o.raw, &o.whole, &o.bits}
}

// place is the zero Place when the cache does not see it.
func (o *offer) place() Place {
	if o.cache == 0 || !o.whole && !sees(o.bits, int32(*o.entry)) {
		return Place{}
	}
	return Place{Found: true, Cache: o.cache, Pack: *o.pack, Entry: int32(*o.entry), Size: uint32(*o.size), Raw: uint32(*o.raw)}
}

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
			var id int64
			var first, other offer
			if err := scan(slices.Concat([]any{&i, &rank, &id}, first.dest(), other.dest())...); err != nil {
				return err
			}
			old, best := &places[part[i]], &ranks[part[i]]
			for _, p := range []Place{first.place(), other.place()} {
				if p.Found && (!old.Found || rank < *best) {
					*old, *best = p, rank
				}
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

// Show lets a live cache see entries of a pack until a time. Nil entries mean
// the whole pack, an empty list changes nothing; the zero time means for good.
// It adds to what the cache sees and never takes away: bitmaps are united, the
// later time counts, for good stays for good. What has expired counts as never
// shown. What is for good follows from the paths that are logged, so there is no
// record of its own.
func (tx *Tx) Show(cacheID, packID int64, entries []int32, until time.Time) error {
	if err := tx.show(cacheID, packID, entries, until); err != nil {
		return fmt.Errorf("show pack %d to cache %d: %w", packID, cacheID, err)
	}
	return nil
}

func (tx *Tx) show(cacheID, packID int64, entries []int32, until time.Time) error {
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
	err = tx.one("SELECT bits, until FROM visible WHERE cache_id = $1 AND pack_id = $2 AND (until IS NULL OR until > $3)",
		[]any{cacheID, packID, stamp(tx.now)}, &old, &oldUntil)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	default:
		news = func(entry int32) bool { return old != nil && !sees(old, entry) && (asked == nil || sees(asked, entry)) }
		bits = unite(asked, old)
		if oldUntil == nil || end != nil && *oldUntil > stamp(until) {
			end = oldUntil
		}
	}
	_, err = tx.exec(`INSERT INTO visible (cache_id, pack_id, bits, until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (cache_id, pack_id) DO UPDATE SET bits = excluded.bits, until = excluded.until`,
		cacheID, packID, bits, end)
	if err != nil {
		return err
	}
	return tx.useCopies(cacheID, packID, news)
}

// useCopies has a cache find the chunks that a pack has copies of, in the entries
// that are news to it. A copy that it sees elsewhere stays the one that it uses.
func (tx *Tx) useCopies(cacheID, packID int64, news func(entry int32) bool) error {
	type row struct {
		hash             []byte
		entry, size, raw int64
	}
	var copies []row
	err := tx.each("SELECT hash, entry, size, raw FROM copies WHERE pack_id = $1", []any{packID}, func(scan func(...any) error) error {
		var c row
		err := scan(&c.hash, &c.entry, &c.size, &c.raw)
		if err == nil && news(int32(c.entry)) {
			copies = append(copies, c)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range copies {
		var used offer
		err := tx.one(`SELECT v.cache_id, d.pack_id, d.entry, d.size, d.raw, v.bits IS NULL, v.bits FROM shown_copies d
			JOIN visible v ON v.cache_id = d.cache_id AND v.pack_id = d.pack_id AND (v.until IS NULL OR v.until > $3)
			WHERE d.cache_id = $1 AND d.hash = $2`, []any{cacheID, c.hash, stamp(tx.now)}, used.dest()...)
		if err != nil && !isNotFound(err) {
			return err
		}
		if used.place().Found {
			continue
		}
		_, err = tx.exec(`INSERT INTO shown_copies (cache_id, hash, pack_id, entry, size, raw) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (cache_id, hash) DO UPDATE SET pack_id = excluded.pack_id, entry = excluded.entry, size = excluded.size, raw = excluded.raw`,
			cacheID, c.hash, packID, c.entry, c.size, c.raw)
		if err != nil {
			return err
		}
	}
	return nil
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

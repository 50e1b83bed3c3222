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

// locate asks for every id the same: its places, and for each place what each
// cache sees of the pack. An unknown chunk is asked for in pack 0, which never
// exists, so that it costs as many look-ups as one that lies where the asker may
// not see. With an inner join the unknown one would be answered sooner, and a
// clock would tell who else has a chunk (design §4). coalesce(v.cache_id, -1)
// keeps the planner from making an inner join of it.
const locate = `WITH k AS MATERIALIZED (SELECT key AS rank, value AS id FROM json_each($3))
	SELECT o.i, k.rank, k.id, c.pack_id, c.entry, c.size, c.raw, v.bits IS NULL, v.bits
	FROM ` + batchFrom + `
	LEFT JOIN chunks c ON c.hash = ` + batchBlob + `
	CROSS JOIN k
	LEFT JOIN visible v ON v.cache_id = k.id AND v.pack_id = coalesce(c.pack_id, 0) AND (v.until IS NULL OR v.until > $4)
	WHERE o.i < $2 AND coalesce(v.cache_id, -1) >= 0`

// Locate finds for each id, in order, a place that one of the caches may see at
// present; of several the one through the earliest cache of the list, then the
// oldest pack. An id without one has the zero Place, be it unknown or invisible.
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
			p := Place{Found: true}
			var i, rank int
			var whole bool // asked for on its own: the driver reads an empty bitmap as nil
			var bits []byte
			if err := scan(&i, &rank, &p.Cache, &p.Pack, &p.Entry, &p.Size, &p.Raw, &whole, &bits); err != nil {
				return err
			}
			old, best := &places[part[i]], &ranks[part[i]]
			if (whole || sees(bits, p.Entry)) && (!old.Found || rank < *best || rank == *best && p.Pack < old.Pack) {
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
	bits, err := bitmap(entries)
	if err != nil {
		return err
	}
	var oldBits []byte
	var oldUntil *int64
	end := later(until)
	err = tx.one("SELECT bits, until FROM visible WHERE cache_id = $1 AND pack_id = $2 AND (until IS NULL OR until > $3)",
		[]any{cacheID, packID, stamp(tx.now)}, &oldBits, &oldUntil)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	default:
		bits = unite(bits, oldBits)
		if oldUntil == nil || end != nil && *oldUntil > stamp(until) {
			end = oldUntil
		}
	}
	_, err = tx.exec(`INSERT INTO visible (cache_id, pack_id, bits, until) VALUES ($1, $2, $3, $4)
		ON CONFLICT (cache_id, pack_id) DO UPDATE SET bits = excluded.bits, until = excluded.until`,
		cacheID, packID, bits, end)
	return err
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

// unite joins two bitmaps into one of them, where nil is all bits.
func unite(a, b []byte) []byte {
	if a == nil || b == nil {
		return nil
	}
	if len(a) < len(b) {
		a, b = b, a
	}
	for i := range b {
		a[i] |= b[i]
	}
	return a
}

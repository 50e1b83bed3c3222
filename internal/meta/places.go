package meta

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/pack"
)

// A cache has a place for each chunk and pack where it sees the chunk: places are
// written with what is visible, entry by entry, and expire with it.
//
// What is written follows from the pack and from what this cache saw of it before,
// statements and rows both, whatever other caches have. Were there one row for each
// chunk, and others beside it for who may not see that one, a pusher would learn from
// the time that sixty thousand rows take whether somebody had his chunks before him
// (design §4).

// A key of a batch is a chunk's hash and its entry in eight decimal digits. The
// number of statements grows with the pack by the batchKeys, not by the chunk.
const (
	placeKey  = 40
	placeHash = `substr($1, o.i * 40 + 1, 32)`
	addPlaces = `INSERT INTO places (cache_id, hash, pack_id, entry)
	SELECT $3, ` + placeHash + `, $4, CAST(substr($1, o.i * 40 + 33, 8) AS INTEGER) FROM ` + batchFrom + ` WHERE o.i < $2
	ON CONFLICT (cache_id, hash, pack_id) DO NOTHING`
	dropPlaces = `DELETE FROM places WHERE cache_id = $3 AND pack_id = $4 AND hash IN (
	SELECT ` + placeHash + ` FROM ` + batchFrom + ` WHERE o.i < $2)`
)

// addPlaces has a cache find chunks in a pack: of one that repeats, the first. Those
// in quarantine nobody finds.
func (tx *Tx) addPlaces(cacheID, packID int64, all []pack.Entry, which func(entry int32) bool) error {
	q, err := tx.Quarantined(packID)
	if err != nil {
		return err
	}
	return tx.eachPlace(addPlaces, cacheID, packID, all, func(i int32) bool { return which(i) && !q.Has(int(i)) })
}

// dropPlaces undoes it for the whole pack.
func (tx *Tx) dropPlaces(cacheID, packID int64, all []pack.Entry) error {
	return tx.eachPlace(dropPlaces, cacheID, packID, all, func(int32) bool { return true })
}

// eachPlace runs a query with those entries of a pack that are chunks, each once. They
// are sorted: neighbours in the tree are written together.
func (tx *Tx) eachPlace(query string, cacheID, packID int64, all []pack.Entry, which func(entry int32) bool) error {
	var list []int32
	for i := range all {
		if all[i].Kind == chunk.Chunk && which(int32(i)) {
			list = append(list, int32(i))
		}
	}
	slices.SortFunc(list, func(a, b int32) int {
		return cmp.Or(bytes.Compare(all[a].ID[:], all[b].ID[:]), cmp.Compare(a, b))
	})
	list = slices.CompactFunc(list, func(a, b int32) bool { return all[a].ID == all[b].ID })
	keys := make([]byte, 0, min(batchKeys, len(list))*placeKey)
	for part := range slices.Chunk(list, batchKeys) {
		keys = keys[:0]
		for _, i := range part {
			keys = append(keys, all[i].ID[:]...)
			keys = fmt.Appendf(keys, "%08d", i)
		}
		if _, err := tx.exec(query, keys, len(part), cacheID, packID); err != nil {
			return err
		}
	}
	return nil
}

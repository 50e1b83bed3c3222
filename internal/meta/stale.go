package meta

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const staleHashes = `SELECT coalesce(group_concat(o.i), '') FROM ` + batchFrom + ` WHERE o.i < $2 AND EXISTS (
	SELECT 1 FROM paths p WHERE p.cache_id = $3 AND p.hash = ` + batchText + ` AND p.last_used < $4)`

// UsedBefore gives those of the hashes that are paths of a cache and were last used
// before a time.
func (tx *Tx) UsedBefore(cacheID int64, hashes []string, before time.Time) (stale []string, err error) {
	err = batches(hashes, func(order []int, keys []byte) error {
		var list string
		if err := tx.one(staleHashes, []any{keys, len(order), cacheID, stamp(before)}, &list); err != nil || list == "" {
			return err
		}
		for s := range strings.SplitSeq(list, ",") {
			i, err := strconv.Atoi(s)
			if err != nil {
				return err
			}
			stale = append(stale, hashes[order[i]])
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find paths that were not used of late: %w", err)
	}
	return stale, nil
}

package meta

import (
	"fmt"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// ListedPath is a path in a list of all.
type ListedPath struct {
	Hash     string
	Upstream []string // hashes of references that upstream caches serve
}

const listPaths = "SELECT hash, upstream FROM paths WHERE cache_id = $1 AND hash > $2 ORDER BY hash LIMIT $3"

// ListPaths lists the paths of a cache by hash: those behind after, at most limit.
func (tx *Tx) ListPaths(cacheID int64, after string, limit int) ([]ListedPath, error) {
	var list []ListedPath
	err := tx.each(listPaths, []any{cacheID, after, limit}, func(scan func(...any) error) error {
		var p ListedPath
		var upstream string
		if err := scan(&p.Hash, &upstream); err != nil {
			return err
		}
		for base := range strings.SplitSeq(upstream, "\n") {
			if len(base) > nix.PathHashLen {
				p.Upstream = append(p.Upstream, base[:nix.PathHashLen])
			}
		}
		list = append(list, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list paths: %w", err)
	}
	return list, nil
}

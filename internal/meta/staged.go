package meta

import (
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/nix"
)

const (
	// MaxStaged bounds one piece list that spans requests. At 33 bytes for a
	// chunk of 128 KiB this is a NAR of 260 GB.
	MaxStaged = 64 << 20

	// maxStagedParts and maxStagedBytes bound what waits in one cache: it lies in the database, where
	// whoever may push could otherwise fill the volume.
	maxStagedParts = 4096
	maxStagedBytes = 256 << 20

	// stagedTime is how long a piece list waits for its next part.
	stagedTime = 24 * time.Hour
)

var (
	// ErrGap says that a part begins after the end of what is staged.
	ErrGap = errors.New("a part before this one is missing")
	// ErrTooMany says that too much waits for its last part in this cache.
	ErrTooMany = errors.New("too many piece lists are unfinished")
	// ErrTooLarge says that a piece list is longer than MaxStaged.
	ErrTooLarge = errors.New("the piece list is too long")
)

// StagePieces keeps a part of a piece list until the last one comes. offset is
// the number of bytes sent before it; what was staged from there on is dropped,
// so that a request can be repeated. The total is what is staged afterwards, or,
// with ErrGap, where to go on. Lists that nobody went on with for a day go.
func (tx *Tx) StagePieces(cacheID int64, hash string, nar nix.Hash, offset int64, data []byte) (total int64, err error) {
	if total, err = tx.stage(cacheID, hash, nar, offset, data); err != nil {
		return total, fmt.Errorf("stage pieces of %s: %w", hash, err)
	}
	return total, nil
}

func (tx *Tx) stage(cacheID int64, hash string, nar nix.Hash, offset int64, data []byte) (int64, error) {
	if _, err := tx.liveCache(cacheID); err != nil {
		return 0, err
	}
	if offset < 0 || offset > MaxStaged || int64(len(data)) > MaxStaged-offset {
		return 0, ErrTooLarge
	}
	if _, err := tx.exec("DELETE FROM staged WHERE staged_at <= $1", stamp(tx.now.Add(-stagedTime))); err != nil {
		return 0, err
	}
	have, err := tx.stagedSize(cacheID, hash, nar)
	if err != nil || offset > have {
		return have, errors.Join(err, gap(offset > have))
	}
	if offset < have {
		if err := tx.truncate(cacheID, hash, nar, offset); err != nil {
			return 0, err
		}
	}
	if len(data) == 0 {
		return offset, nil
	}
	var parts, size int64
	if err := tx.one("SELECT count(*), coalesce(sum(length), 0) FROM staged WHERE cache_id = $1", []any{cacheID}, &parts, &size); err != nil {
		return 0, err
	}
	if parts >= maxStagedParts || size+int64(len(data)) > maxStagedBytes {
		return 0, ErrTooMany
	}
	_, err = tx.exec("INSERT INTO staged (cache_id, hash, nar, start, length, staged_at, data) VALUES ($1, $2, $3, $4, $5, $6, $7)",
		cacheID, hash, nar[:], offset, len(data), stamp(tx.now), data)
	return offset + int64(len(data)), err
}

// stagedSize is the length of what is staged. A list that lost its first part to
// age is none.
func (tx *Tx) stagedSize(cacheID int64, hash string, nar nix.Hash) (int64, error) {
	var first, end int64
	err := tx.one("SELECT coalesce(min(start), 0), coalesce(max(start + length), 0) FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3",
		[]any{cacheID, hash, nar[:]}, &first, &end)
	if err != nil || first == 0 {
		return end, err
	}
	return 0, tx.DropStaged(cacheID, hash, nar)
}

func gap(is bool) error {
	if is {
		return ErrGap
	}
	return nil
}

func (tx *Tx) truncate(cacheID int64, hash string, nar nix.Hash, offset int64) error {
	_, err := tx.exec("DELETE FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3 AND start >= $4", cacheID, hash, nar[:], offset)
	if err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE staged SET data = substr(data, 1, $4 - start), length = $4 - start
		WHERE cache_id = $1 AND hash = $2 AND nar = $3 AND start + length > $4`, cacheID, hash, nar[:], offset)
	return err
}

// StagedPieces gives what is staged of a piece list; ErrNotFound when nothing is.
func (tx *Tx) StagedPieces(cacheID int64, hash string, nar nix.Hash) ([]byte, error) {
	var pieces []byte
	err := tx.each("SELECT start, data FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3 AND staged_at > $4 ORDER BY start",
		[]any{cacheID, hash, nar[:], stamp(tx.now.Add(-stagedTime))}, func(scan func(...any) error) error {
			var start int
			var data []byte
			if err := scan(&start, &data); err != nil {
				return err
			}
			if start != len(pieces) {
				return ErrNotFound // its first part is too old
			}
			pieces = append(pieces, data...)
			return nil
		})
	if err == nil && pieces == nil {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read staged pieces of %s: %w", hash, err)
	}
	return pieces, nil
}

// DropStaged forgets a staged piece list; one that is not there is no error.
func (tx *Tx) DropStaged(cacheID int64, hash string, nar nix.Hash) error {
	_, err := tx.exec("DELETE FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3", cacheID, hash, nar[:])
	if err != nil {
		return fmt.Errorf("drop staged pieces of %s: %w", hash, err)
	}
	return nil
}

package meta

import (
	"fmt"

	"github.com/org/attic-action/internal/ledger"
)

// PutListing keeps the skeleton of a NAR that is in the database, and the build IDs
// that it has debug information for, and logs it. What was kept before is replaced.
func (tx *Tx) PutListing(nar *NAR, skeleton []byte, buildIDs []string) error {
	if err := tx.putListing(nar.ID, skeleton, buildIDs); err != nil {
		return fmt.Errorf("keep listing of NAR %d: %w", nar.ID, err)
	}
	tx.records = append(tx.records, ledger.Record{Listing: &ledger.Listing{NAR: nar.UID, Skeleton: skeleton, BuildIDs: buildIDs}})
	return nil
}

func (tx *Tx) putListing(nar int64, skeleton []byte, buildIDs []string) error {
	if _, err := tx.exec("DELETE FROM build_ids WHERE nar_id = $1", nar); err != nil {
		return err
	}
	_, err := tx.exec("INSERT INTO listings (nar_id, skeleton) VALUES ($1, $2) ON CONFLICT (nar_id) DO UPDATE SET skeleton = excluded.skeleton",
		nar, notNil(skeleton))
	for i := 0; i < len(buildIDs) && err == nil; i++ {
		_, err = tx.exec("INSERT INTO build_ids (build_id, nar_id) VALUES ($1, $2) ON CONFLICT (build_id, nar_id) DO NOTHING", buildIDs[i], nar)
	}
	return err
}

// HasListing reports whether there is a listing of a NAR.
func (tx *Tx) HasListing(nar int64) (has bool, err error) {
	if err := tx.one("SELECT EXISTS (SELECT 1 FROM listings WHERE nar_id = $1)", []any{nar}, &has); err != nil {
		return false, fmt.Errorf("look for listing of NAR %d: %w", nar, err)
	}
	return has, nil
}

// Listing reads the skeleton of a NAR: ErrNotFound if none was kept.
func (tx *Tx) Listing(nar int64) (skeleton []byte, err error) {
	if err := tx.one("SELECT skeleton FROM listings WHERE nar_id = $1", []any{nar}, &skeleton); err != nil {
		return nil, fmt.Errorf("read listing of NAR %d: %w", nar, err)
	}
	return skeleton, nil
}

const readBuildID = `SELECT p.hash FROM build_ids b JOIN paths p ON p.nar_id = b.nar_id AND p.cache_id = $1
	WHERE b.build_id = $2 AND NOT EXISTS (SELECT 1 FROM damaged d WHERE d.nar_id = b.nar_id) ORDER BY p.id DESC LIMIT 1`

// DebugPath is the hash of a path of the cache that has debug information for a
// build ID, the newest one: ErrNotFound if there is none.
func (tx *Tx) DebugPath(cacheID int64, buildID string) (hash string, err error) {
	if err := tx.one(readBuildID, []any{cacheID, buildID}, &hash); err != nil {
		return "", fmt.Errorf("look for build ID: %w", err)
	}
	return hash, nil
}

// applyListing passes over that of an unknown NAR: a checkpoint may have it where
// only the log behind has the NAR, and there it comes again.
func (tx *Tx) applyListing(l *ledger.Listing) error {
	var nar int64
	if err := tx.one("SELECT id FROM nars WHERE uid = $1", []any{l.NAR}, &nar); isNotFound(err) {
		return nil
	} else if err != nil {
		return err
	}
	return tx.putListing(nar, l.Skeleton, l.BuildIDs)
}

func (tx *Tx) snapshotListings(c Cursor) ([]snapshotRow, error) {
	const query = "SELECT l.nar_id, n.uid FROM listings l JOIN nars n ON n.id = l.nar_id WHERE l.nar_id > $1 ORDER BY l.nar_id LIMIT $2"
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var l ledger.Listing
		err := scan(&row.id, &l.NAR)
		row.record = func() (ledger.Record, error) { // one by one, for they may be large
			if err := tx.one("SELECT skeleton FROM listings WHERE nar_id = $1", []any{row.id}, &l.Skeleton); err != nil {
				return ledger.Record{}, err
			}
			err := tx.each("SELECT build_id FROM build_ids WHERE nar_id = $1 ORDER BY build_id", []any{row.id}, func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				l.BuildIDs = append(l.BuildIDs, id)
				return err
			})
			return ledger.Record{Listing: &l}, err
		}
		return row, err
	})
}

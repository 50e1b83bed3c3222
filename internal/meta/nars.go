package meta

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
)

// maxSameNAR bounds FindNARs. One NAR has a second form only when it was
// uploaded where the first was not visible, or was repacked.
const maxSameNAR = 16

const narColumns = `n.id, n.uid, n.form, n.hash, n.size, n.file_size, n.verified, n.created_at,
	EXISTS (SELECT 1 FROM damaged d WHERE d.nar_id = n.id)`

// narRow scans narColumns.
type narRow struct {
	NAR
	form, hash           []byte
	size, fileSize, made int64
}

func (r *narRow) dest() []any {
	return []any{&r.ID, &r.UID, &r.form, &r.hash, &r.size, &r.fileSize, &r.Verified, &r.made, &r.Damaged}
}

func (r *narRow) nar() (*NAR, error) {
	err := errors.Join(scanHash(r.Form[:], r.form), scanHash(r.Hash[:], r.hash))
	r.Size, r.FileSize, r.CreatedAt = uint64(r.size), uint64(r.fileSize), unstamp(r.made)
	return &r.NAR, err
}

// NARLayout reads the layout that Path leaves out.
func (tx *Tx) NARLayout(id int64) ([]byte, error) {
	var layout []byte
	if err := tx.one("SELECT layout FROM nars WHERE id = $1", []any{id}, &layout); err != nil {
		return nil, fmt.Errorf("read layout of NAR %d: %w", id, err)
	}
	return layout, nil
}

// NAR reads a NAR with its layout, whatever points to it.
func (tx *Tx) NAR(id int64) (*NAR, error) {
	var r narRow
	err := tx.one("SELECT "+narColumns+", n.layout FROM nars n WHERE n.id = $1", []any{id}, append(r.dest(), &r.Layout)...)
	if err != nil {
		return nil, fmt.Errorf("read NAR %d: %w", id, err)
	}
	return r.nar()
}

// NARsToRead lists up to limit NARs behind an id that paths point to, by id: those that
// were verified, or those that were not. Damaged ones are left out.
func (tx *Tx) NARsToRead(after int64, verified bool, limit int) (ids []int64, err error) {
	query := unverifiedNARs
	if verified {
		query = verifiedNARs
	}
	err = tx.each(query, []any{after, limit}, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list NARs: %w", err)
	}
	return ids, nil
}

const (
	narsToRead = ` AND n.id > $1 AND EXISTS (SELECT 1 FROM paths p WHERE p.nar_id = n.id)
	AND NOT EXISTS (SELECT 1 FROM damaged x WHERE x.nar_id = n.id) ORDER BY n.id LIMIT $2`
	unverifiedNARs = "SELECT n.id FROM nars n WHERE n.verified = 0" + narsToRead
	verifiedNARs   = "SELECT n.id FROM nars n WHERE n.verified = 1" + narsToRead
)

// InsertNAR adds a NAR, sets its ID and UID, and logs rec, which must be of the
// same form.
func (tx *Tx) InsertNAR(n *NAR, rec ledger.NAR) error {
	size, err := signed("size", n.Size)
	fileSize, err2 := signed("file size", n.FileSize)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("insert NAR %s: %w", n.Hash, err)
	}
	if rec.Form != ledger.Hex(n.Form) || rec.Hash != n.Hash {
		return fmt.Errorf("insert NAR %s: its record is of another NAR", n.Hash)
	}
	if n.CreatedAt.IsZero() {
		n.CreatedAt = tx.now
	}
	var uid [16]byte
	rand.Read(uid[:]) // never fails: crypto/rand ends the program instead
	n.UID = hex.EncodeToString(uid[:])
	rec.ID = n.UID
	n.ID, err = tx.insert(`INSERT INTO nars (uid, form, hash, size, file_size, verified, created_at, layout) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		n.UID, n.Form[:], n.Hash[:], size, fileSize, n.Verified, stamp(n.CreatedAt), notNil(n.Layout))
	if err != nil {
		return fmt.Errorf("insert NAR %s: %w", n.Hash, err)
	}
	tx.records = append(tx.records, ledger.Record{NAR: &rec})
	return nil
}

// FindNARs finds the NARs with this hash that a path of one of these caches
// points to, verified ones first, with their layouts. What is damaged is not found.
func (tx *Tx) FindNARs(hash nix.Hash, caches []int64) ([]NAR, error) {
	var list []NAR
	err := tx.each(findNARs, []any{hash[:], idList(caches), maxSameNAR}, func(scan func(...any) error) error {
		var r narRow
		if err := scan(append(r.dest(), &r.Layout)...); err != nil {
			return err
		}
		n, err := r.nar()
		list = append(list, *n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find NARs %s: %w", hash, err)
	}
	return list, nil
}

// findNARs looks for paths of an unknown NAR, too, as those of NAR 0, so that it
// takes as long as one that only other caches have (see locate).
const findNARs = `SELECT ` + narColumns + `, n.layout FROM json_each($2) k
	LEFT JOIN nars n ON n.hash = $1 AND NOT EXISTS (SELECT 1 FROM damaged x WHERE x.nar_id = n.id)
	LEFT JOIN paths p ON p.nar_id = coalesce(n.id, 0) AND p.cache_id = k.value
	WHERE coalesce(p.cache_id, -1) >= 0
	GROUP BY n.id ORDER BY n.verified DESC, n.id LIMIT $3`

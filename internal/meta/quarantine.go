package meta

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/pack"
)

// Quarantine is about entries of packs: the bucket no longer has what was stored
// there. Nothing is taken away, so that paths can be put on other copies later:
//
//	quarantine   a pack, or some entries of it      no cache has a place in them
//	    │ Spread: every layout is looked at, once
//	    ▼
//	damaged      a NAR that needs one of them       its paths are served and counted as absent
//
// What is damaged follows from what is in quarantine, except for NARs that are wrong
// in themselves; so only those and the quarantine have records.

// Quarantined is what is known of a pack in quarantine.
type Quarantined struct {
	Pack  int64
	Key   string
	Bits  []byte // bit i is entry i; nil: all of the pack
	Why   string
	Found time.Time
}

// Has says whether an entry is in quarantine.
func (q *Quarantined) Has(entry int) bool {
	return q != nil && (q.Bits == nil || sees(q.Bits, int32(entry)))
}

// Overlaps says whether one of count entries from first on is.
func (q *Quarantined) Overlaps(first, count int) bool {
	for i := first; i < first+count; i++ {
		if q.Has(i) {
			return true
		}
	}
	return false
}

const quarantineColumns = `SELECT q.pack_id, p.key, q.bits, q.bits IS NULL, q.why, q.found_at FROM quarantine q JOIN packs p ON p.id = q.pack_id `

func scanQuarantined(scan func(...any) error) (*Quarantined, error) {
	var q Quarantined
	var whole bool
	var found int64
	err := scan(&q.Pack, &q.Key, &q.Bits, &whole, &q.Why, &found)
	if q.Found = unstamp(found); whole {
		q.Bits = nil
	} else {
		q.Bits = notNil(q.Bits)
	}
	return &q, err
}

// Quarantined is what of a pack is in quarantine; nil when nothing is.
func (tx *Tx) Quarantined(packID int64) (*Quarantined, error) {
	q, err := scanQuarantined(func(dest ...any) error {
		return tx.one(quarantineColumns+"WHERE q.pack_id = $1", []any{packID}, dest...)
	})
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for pack %d in quarantine: %w", packID, err)
	}
	return q, nil
}

// InQuarantine lists the packs behind an id that are in quarantine, at most limit.
func (tx *Tx) InQuarantine(after int64, limit int) (list []Quarantined, err error) {
	err = tx.each(quarantineColumns+"WHERE q.pack_id > $1 ORDER BY q.pack_id LIMIT $2", []any{after, limit}, func(scan func(...any) error) error {
		q, err := scanQuarantined(scan)
		list = append(list, *q)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the quarantine: %w", err)
	}
	return list, nil
}

// Quarantine says that entries of a pack are not in the bucket as they were stored;
// nil is all of it. all are the pack's entries. It adds to what is known, takes the
// places of the entries from every cache, and says whether it was news. The paths
// that need them are found by Spread.
func (tx *Tx) Quarantine(packID int64, all []pack.Entry, entries []int32, why string) (news bool, err error) {
	if news, err = tx.quarantine(packID, all, entries, why); err != nil {
		return false, fmt.Errorf("put pack %d into quarantine: %w", packID, err)
	}
	return news, nil
}

func (tx *Tx) quarantine(packID int64, all []pack.Entry, entries []int32, why string) (bool, error) {
	bits, err := bitmap(entries)
	if err != nil || bits != nil && len(bits) == 0 {
		return false, err
	}
	known, err := tx.Quarantined(packID)
	if err != nil {
		return false, err
	}
	if known != nil {
		bits = unite(bits, known.Bits)
		if known.Bits == nil || bits != nil && slices.Equal(trimmed(bits), trimmed(known.Bits)) {
			return false, nil
		}
	}
	key, err := tx.PackKey(packID)
	if err != nil {
		return false, err
	}
	if err := tx.setQuarantine(packID, bits, why, tx.now); err != nil {
		return false, err
	}
	if err := tx.hide(packID, all, bits); err != nil {
		return false, err
	}
	tx.records = append(tx.records, ledger.Record{Quarantine: &ledger.Quarantine{Pack: key, Entries: bits, Why: why, At: tx.now}})
	return true, nil
}

// trimmed is a bitmap without zeros at its end.
func trimmed(bits []byte) []byte {
	for len(bits) > 0 && bits[len(bits)-1] == 0 {
		bits = bits[:len(bits)-1]
	}
	return bits
}

func (tx *Tx) setQuarantine(packID int64, bits []byte, why string, at time.Time) error {
	_, err := tx.exec(`INSERT INTO quarantine (pack_id, bits, why, found_at, scan) VALUES ($1, $2, $3, $4, 0)
		ON CONFLICT (pack_id) DO UPDATE SET bits = excluded.bits, why = excluded.why, found_at = excluded.found_at, scan = 0`,
		packID, bits, why, stamp(at))
	return err
}

// hide takes from every cache the places that are in quarantine. Of a chunk that is in
// the pack twice the other one does.
func (tx *Tx) hide(packID int64, all []pack.Entry, bits []byte) error {
	q := &Quarantined{Bits: bits}
	bad := map[chunk.ID]bool{}
	for i, e := range all {
		if q.Has(i) && e.Kind == chunk.Chunk {
			bad[e.ID] = true
		}
	}
	return tx.eachView(packID, func(cache int64, seen []byte, whole bool) error {
		if err := tx.eachPlace(dropPlaces, cache, packID, all, func(i int32) bool { return q.Has(int(i)) }); err != nil {
			return err
		}
		return tx.addPlaces(cache, packID, all, func(i int32) bool {
			return bad[all[i].ID] && !q.Has(int(i)) && (whole || sees(seen, i))
		})
	})
}

// eachView calls do with what each cache sees of a pack.
func (tx *Tx) eachView(packID int64, do func(cache int64, seen []byte, whole bool) error) error {
	type view struct {
		cache int64
		bits  []byte
		whole bool
	}
	var views []view
	err := tx.each("SELECT cache_id, bits, bits IS NULL FROM visible WHERE pack_id = $1", []any{packID}, func(scan func(...any) error) error {
		var v view
		err := scan(&v.cache, &v.bits, &v.whole)
		views = append(views, v)
		return err
	})
	for _, v := range views {
		if err == nil {
			err = do(v.cache, v.bits, v.whole)
		}
	}
	return err
}

// Release ends the quarantine of a pack whose object is as it was stored: somebody has
// brought it back. Its NARs are served again, and what caches saw of it they see.
func (tx *Tx) Release(packID int64, all []pack.Entry) error {
	err := tx.release(packID, all)
	if err != nil {
		return fmt.Errorf("end the quarantine of pack %d: %w", packID, err)
	}
	return nil
}

func (tx *Tx) release(packID int64, all []pack.Entry) error {
	key, err := tx.PackKey(packID)
	if err != nil {
		return err
	}
	n, err := tx.exec("DELETE FROM quarantine WHERE pack_id = $1", packID)
	if err != nil || n == 0 {
		return err
	}
	err = tx.eachView(packID, func(cache int64, seen []byte, whole bool) error {
		return tx.addPlaces(cache, packID, all, func(i int32) bool { return whole || sees(seen, i) })
	})
	tx.records = append(tx.records, ledger.Record{Healed: &ledger.Healed{Pack: key, At: tx.now}})
	return err
}

// MarkWrong says that what a NAR is put together of is not what its hash says, whatever
// is in its packs. It says whether that was news.
func (tx *Tx) MarkWrong(narID int64, why string) (news bool, err error) {
	var uid string
	if err := tx.one("SELECT uid FROM nars WHERE id = $1", []any{narID}, &uid); err != nil {
		return false, fmt.Errorf("read NAR %d: %w", narID, err)
	}
	n, err := tx.exec(`INSERT INTO damaged (nar_id, wrong, why, found_at) VALUES ($1, 1, $2, $3)
		ON CONFLICT (nar_id) DO UPDATE SET wrong = 1, why = excluded.why WHERE wrong = 0`, narID, why, stamp(tx.now))
	if err != nil || n == 0 {
		return false, err
	}
	tx.records = append(tx.records, ledger.Record{Quarantine: &ledger.Quarantine{NAR: uid, Why: why, At: tx.now}})
	return true, nil
}

// MarkDamaged says that a NAR needs what is in quarantine. It follows from the
// quarantine, so it has no record.
func (tx *Tx) MarkDamaged(narID int64, why string) error {
	_, err := tx.exec("INSERT INTO damaged (nar_id, wrong, why, found_at) VALUES ($1, 0, $2, $3) ON CONFLICT (nar_id) DO NOTHING",
		narID, why, stamp(tx.now))
	if err != nil {
		return fmt.Errorf("mark NAR %d: %w", narID, err)
	}
	return nil
}

// Undamage says that a NAR can be served after all: nothing of it is in quarantine any
// more. One that is wrong in itself stays so.
func (tx *Tx) Undamage(narID int64) error {
	if _, err := tx.exec("DELETE FROM damaged WHERE nar_id = $1 AND wrong = 0", narID); err != nil {
		return fmt.Errorf("unmark NAR %d: %w", narID, err)
	}
	return nil
}

// AnyDamaged says whether any NAR cannot be served.
func (tx *Tx) AnyDamaged() (any bool, err error) {
	if err := tx.one("SELECT EXISTS (SELECT 1 FROM damaged)", nil, &any); err != nil {
		return false, fmt.Errorf("look for damaged NARs: %w", err)
	}
	return any, nil
}

// DamagedNAR is a NAR that cannot be served.
type DamagedNAR struct {
	NAR
	Wrong bool // in itself
	Why   string
}

// DamagedNARs lists those behind an id that paths point to, at most limit, by id, with
// their layouts.
func (tx *Tx) DamagedNARs(after int64, limit int) (list []DamagedNAR, err error) {
	err = tx.each("SELECT "+narColumns+`, n.layout, x.wrong, x.why FROM damaged x JOIN nars n ON n.id = x.nar_id
		WHERE x.nar_id > $1 AND EXISTS (SELECT 1 FROM paths p WHERE p.nar_id = x.nar_id) ORDER BY x.nar_id LIMIT $2`,
		[]any{after, limit}, func(scan func(...any) error) error {
			var r narRow
			var d DamagedNAR
			if err := scan(append(r.dest(), &r.Layout, &d.Wrong, &d.Why)...); err != nil {
				return err
			}
			n, err := r.nar()
			d.NAR = *n
			list = append(list, d)
			return err
		})
	if err != nil {
		return nil, fmt.Errorf("list damaged NARs: %w", err)
	}
	return list, nil
}

// WaitingPath is a path that nobody can pull until somebody pushes it again.
type WaitingPath struct {
	Cache     string
	StorePath string
	Why       string
}

// WaitingPaths lists paths of live caches whose NAR is damaged, at most limit, and
// counts all.
func (tx *Tx) WaitingPaths(limit int) (list []WaitingPath, count int64, err error) {
	const from = "FROM damaged x JOIN paths p ON p.nar_id = x.nar_id JOIN caches c ON c.id = p.cache_id AND c.deleted_at IS NULL"
	err = tx.one("SELECT count(*) "+from, nil, &count)
	if err == nil && count > 0 {
		err = tx.each("SELECT c.name, p.store_path, x.why "+from+" ORDER BY x.nar_id, p.id LIMIT $1", []any{limit}, func(scan func(...any) error) error {
			var w WaitingPath
			err := scan(&w.Cache, &w.StorePath, &w.Why)
			list = append(list, w)
			return err
		})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list paths that wait for a push: %w", err)
	}
	return list, count, nil
}

// PathsOf lists the hashes of a NAR's paths by cache.
func (tx *Tx) PathsOf(narID int64) (map[int64][]string, error) {
	list := map[int64][]string{}
	err := tx.each("SELECT cache_id, hash FROM paths WHERE nar_id = $1 ORDER BY id", []any{narID}, func(scan func(...any) error) error {
		var cache int64
		var hash string
		err := scan(&cache, &hash)
		list[cache] = append(list[cache], hash)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list paths of NAR %d: %w", narID, err)
	}
	return list, nil
}

// spreadNARs is how many layouts one step of Spread reads.
const spreadNARs = 2000

// Spread looks at some NARs for what they have in quarantine, and marks them: one step,
// until more is false. uses tells which entries of which packs a layout needs.
func (tx *Tx) Spread(uses func(layout []byte, each func(pack int64, first, count int)) error) (more bool, err error) {
	var begin *int64
	if err := tx.one("SELECT min(scan) FROM quarantine", nil, &begin); err != nil || begin == nil {
		return false, err
	}
	bad := map[int64]*Quarantined{}
	for after := int64(0); ; {
		page, err := tx.InQuarantine(after, batchKeys)
		if err != nil {
			return false, err
		}
		if len(page) == 0 {
			break
		}
		for i := range page {
			bad[page[i].Pack] = &page[i]
		}
		after = page[len(page)-1].Pack
	}
	last, n := *begin, 0
	hit := map[int64]string{}
	err = tx.each("SELECT id, layout FROM nars WHERE id > $1 ORDER BY id LIMIT $2", []any{*begin, spreadNARs}, func(scan func(...any) error) error {
		var layout []byte
		if err := scan(&last, &layout); err != nil {
			return err
		}
		n++
		return uses(layout, func(pack int64, first, count int) {
			if q := bad[pack]; q != nil && q.Overlaps(first, count) {
				hit[last] = q.Key + ": " + q.Why
			}
		})
	})
	for nar, why := range hit {
		err = errors.Join(err, tx.MarkDamaged(nar, why))
	}
	if err == nil && n < spreadNARs {
		_, err = tx.exec("UPDATE quarantine SET scan = NULL WHERE scan <= $1", last)
		return false, err
	}
	if err == nil {
		_, err = tx.exec("UPDATE quarantine SET scan = $2 WHERE scan <= $1", last, last)
	}
	return true, err
}

// SpreadDue says whether Spread has anything to do.
func (tx *Tx) SpreadDue() (due bool, err error) {
	err = tx.one("SELECT EXISTS (SELECT 1 FROM quarantine WHERE scan IS NOT NULL)", nil, &due)
	return due, err
}

// SetVerified says that a NAR was read and has the hash that was claimed.
func (tx *Tx) SetVerified(narID int64) error {
	var uid string
	if err := tx.one("SELECT uid FROM nars WHERE id = $1", []any{narID}, &uid); err != nil {
		return fmt.Errorf("read NAR %d: %w", narID, err)
	}
	n, err := tx.exec("UPDATE nars SET verified = 1 WHERE id = $1 AND NOT verified", narID)
	if err != nil {
		return fmt.Errorf("note that NAR %d is verified: %w", narID, err)
	}
	if n > 0 {
		tx.records = append(tx.records, ledger.Record{Verified: &ledger.Verified{NAR: uid, At: tx.now}})
	}
	return nil
}

// Mark writes a record that changes nothing, so that there is a log for a checkpoint to
// stand at the end of.
func (tx *Tx) Mark() {
	tx.records = append(tx.records, ledger.Record{Healed: &ledger.Healed{At: tx.now}})
}

// What a recovery does with the records. A pack that is gone, and a NAR that is, need
// none.

func (tx *Tx) applyQuarantine(r *ledger.Quarantine) error {
	if r.NAR != "" {
		_, err := tx.exec(`INSERT INTO damaged (nar_id, wrong, why, found_at) SELECT id, 1, $2, $3 FROM nars WHERE uid = $1
			ON CONFLICT (nar_id) DO UPDATE SET wrong = 1, why = excluded.why`, r.NAR, r.Why, stamp(r.At))
		return err
	}
	id, err := tx.PackID(r.Pack)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	bits := r.Entries
	if len(bits) == 0 {
		bits = nil
	}
	return tx.setQuarantine(id, bits, r.Why, r.At)
}

func (tx *Tx) applyHealed(r *ledger.Healed) error {
	_, err := tx.exec("DELETE FROM quarantine WHERE pack_id = (SELECT id FROM packs WHERE key = $1)", r.Pack)
	return err
}

func (tx *Tx) applyVerified(r *ledger.Verified) error {
	_, err := tx.exec("UPDATE nars SET verified = 1 WHERE uid = $1", r.NAR)
	return err
}

// snapshotQuarantine and snapshotWrong are what of it is in checkpoints.
func (tx *Tx) snapshotQuarantine(c Cursor) ([]snapshotRow, error) {
	return tx.page(quarantineColumns+"WHERE q.pack_id > $1 ORDER BY q.pack_id LIMIT $2", c.ID, func(scan func(...any) error) (snapshotRow, error) {
		q, err := scanQuarantined(scan)
		return snapshotRow{id: q.Pack, record: ready(ledger.Record{
			Quarantine: &ledger.Quarantine{Pack: q.Key, Entries: q.Bits, Why: q.Why, At: q.Found}})}, err
	})
}

func (tx *Tx) snapshotWrong(c Cursor) ([]snapshotRow, error) {
	const query = `SELECT x.nar_id, n.uid, x.why, x.found_at FROM damaged x JOIN nars n ON n.id = x.nar_id
		WHERE x.nar_id > $1 AND x.wrong ORDER BY x.nar_id LIMIT $2`
	return tx.page(query, c.ID, func(scan func(...any) error) (snapshotRow, error) {
		var row snapshotRow
		var q ledger.Quarantine
		var at int64
		err := scan(&row.id, &q.NAR, &q.Why, &at)
		q.At = unstamp(at)
		row.record = ready(ledger.Record{Quarantine: &q})
		return row, err
	})
}

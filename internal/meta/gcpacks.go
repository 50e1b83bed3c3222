package meta

import (
	"fmt"
	"time"
)

// revive notes that some of a pack was shown to a cache: whatever else a collection
// has found, it is needed.
func (tx *Tx) revive(packID int64) error {
	_, err := tx.exec(`INSERT INTO pack_states (pack_id, shown) SELECT $1, value FROM counters WHERE name = 'collections'
		ON CONFLICT (pack_id) DO UPDATE SET shown = excluded.shown, condemned = NULL WHERE shown <> excluded.shown OR condemned IS NOT NULL`, packID)
	return err
}

// Condemn condemns a pack of which a collection of this number has seen, since it
// began, that no layout needs it; unless any of it was shown to a cache since then, or
// is shown to one for the time of a push. done is false for one that stays as it is.
func (tx *Tx) Condemn(packID, number int64) (done bool, err error) {
	n, err := tx.exec(`INSERT INTO pack_states (pack_id, shown, condemned)
		SELECT p.id, 0, $3 FROM packs p WHERE p.id = $1 AND NOT EXISTS (SELECT 1 FROM visible v WHERE v.pack_id = $1 AND v.until > $3)
		ON CONFLICT (pack_id) DO UPDATE SET condemned = excluded.condemned WHERE condemned IS NULL AND shown < $2`,
		packID, number, stamp(tx.now))
	if err != nil {
		return false, fmt.Errorf("condemn pack %d: %w", packID, err)
	}
	return n > 0, nil
}

// Doomed is a pack on its way out.
type Doomed struct {
	ID   int64 // 0: its row is gone
	Key  string
	Size int64 // bytes
}

// Condemned lists at most limit packs that were condemned before a time, and have been
// since.
func (tx *Tx) Condemned(before time.Time, limit int) (list []Doomed, err error) {
	err = tx.each(`SELECT p.id, p.key, p.size FROM pack_states s JOIN packs p ON p.id = s.pack_id
		WHERE s.condemned <= $1 ORDER BY s.condemned, p.id LIMIT $2`, []any{stamp(before), limit}, func(scan func(...any) error) error {
		var d Doomed
		err := scan(&d.ID, &d.Key, &d.Size)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list condemned packs: %w", err)
	}
	return list, nil
}

// CondemnedPacks is the set of them, whenever that was; nearly always it is empty.
func (tx *Tx) CondemnedPacks() (map[int64]bool, error) {
	packs := map[int64]bool{}
	err := tx.each("SELECT pack_id FROM pack_states WHERE condemned IS NOT NULL", nil, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		packs[id] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list condemned packs: %w", err)
	}
	return packs, nil
}

// CountCondemned sums up the packs that are condemned, whenever that was; next is when
// the first of them was.
func (tx *Tx) CountCondemned() (n, size int64, next time.Time, err error) {
	var first int64
	err = tx.one("SELECT count(*), coalesce(sum(p.size), 0), coalesce(min(s.condemned), 0) FROM pack_states s JOIN packs p ON p.id = s.pack_id WHERE s.condemned IS NOT NULL",
		nil, &n, &size, &first)
	if err != nil {
		return 0, 0, next, fmt.Errorf("count condemned packs: %w", err)
	}
	if n > 0 {
		next = unstamp(first)
	}
	return n, size, next, nil
}

// Doom takes away a condemned pack's row and all that caches see of it, and notes that
// its object is to go. From here on its chunks are unknown. One that is live again by
// now stays: done is false.
func (tx *Tx) Doom(d Doomed, before time.Time) (done bool, err error) {
	var one int
	err = tx.one("SELECT 1 FROM pack_states WHERE pack_id = $1 AND condemned <= $2", []any{d.ID, stamp(before)}, &one)
	if isNotFound(err) {
		return false, nil
	}
	if err == nil {
		_, err = tx.exec("INSERT INTO doomed (key, size) SELECT key, size FROM packs WHERE id = $1 ON CONFLICT (key) DO NOTHING", d.ID)
	}
	if err == nil {
		err = tx.dropPack(d.ID)
	}
	if err != nil {
		return false, fmt.Errorf("doom pack %d: %w", d.ID, err)
	}
	return true, nil
}

// DoomedObjects lists at most limit packs whose objects are to go.
func (tx *Tx) DoomedObjects(limit int) (list []Doomed, err error) {
	err = tx.each("SELECT key, size FROM doomed ORDER BY key LIMIT $1", []any{limit}, func(scan func(...any) error) error {
		var d Doomed
		err := scan(&d.Key, &d.Size)
		list = append(list, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list doomed packs: %w", err)
	}
	return list, nil
}

// Gone notes that the object of a doomed pack is gone.
func (tx *Tx) Gone(key string) error {
	if _, err := tx.exec("DELETE FROM doomed WHERE key = $1", key); err != nil {
		return fmt.Errorf("forget pack %s: %w", key, err)
	}
	return nil
}

// HasLogObject tells whether an object of the log is in the database and in no
// checkpoint.
func (tx *Tx) HasLogObject(key string) (has bool, err error) {
	if err := tx.one("SELECT EXISTS (SELECT 1 FROM log_objects WHERE key = $1)", []any{key}, &has); err != nil {
		return false, fmt.Errorf("find log object %s: %w", key, err)
	}
	return has, nil
}

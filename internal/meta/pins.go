package meta

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/nix"
)

// Pin is a name that holds paths and all that they need: what machines run stays
// while somebody names it.
type Pin struct {
	CacheID   int64
	Name      string
	Keep      int       // revisions that it holds at most
	Expires   time.Time // zero: never; after it the pin holds nothing
	Revisions []Revision
}

// Revision is one path that a pin holds. Paths and Size are of its closure.
type Revision struct {
	Hash      string // 32 characters
	StorePath string // whole
	By        string
	Policies  []string
	At        time.Time
	Paths     int64
	Size      uint64 // of the NARs, bytes
}

const (
	// DefaultKeep is how many revisions a pin holds when nobody says.
	DefaultKeep = 5
	// MaxKeep bounds the revisions of a pin: each is in every record of it.
	MaxKeep = 100
	// MaxPins bounds the pins of a cache: a hundred hosts on a hundred branches.
	MaxPins = 10_000
	// MaxPinName is the longest name, in bytes: owner, repository, branch and host
	// as GitHub and DNS allow them.
	MaxPinName = 512
)

// ValidPinName is nil for the name of a pin: parts between slashes, printable and
// without spaces, none of them empty, "." or "..". It has no '*' and no '\',
// which would be read as a pattern, or as an escape.
func ValidPinName(name string) error {
	switch {
	case name == "" || len(name) > MaxPinName:
		return fmt.Errorf("a name has 1 to %d bytes, not %d", MaxPinName, len(name))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == utf8.RuneError }):
		return errors.New("a name has no spaces and no characters that cannot be printed")
	case strings.ContainsAny(name, `*\`):
		return errors.New(`a name has no * and no \`)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return errors.New(`a name has no part that is empty, "." or ".."`)
		}
	}
	return nil
}

const (
	pinColumns = `p.name, p.keep, p.expires_at, r.hash, r.store_path, r.set_by, r.policies, r.set_at, r.paths, r.size`
	// livePin is the condition on pins that hold something; $2 is now.
	livePin = `p.cache_id = $1 AND (p.expires_at IS NULL OR p.expires_at > $2)`

	readPin = `SELECT ` + pinColumns + ` FROM pins p JOIN pin_revisions r ON r.pin_id = p.id
	WHERE ` + livePin + ` AND p.name = $3 ORDER BY r.n`
	readPins = `SELECT ` + pinColumns + `
	FROM (SELECT * FROM pins p WHERE ` + livePin + ` AND p.name > $3 ORDER BY p.name LIMIT $4) p
	JOIN pin_revisions r ON r.pin_id = p.id ORDER BY p.name, r.n`
)

// Pin finds a pin that has not expired.
func (tx *Tx) Pin(cacheID int64, name string) (*Pin, error) {
	list, err := tx.pins(cacheID, readPin, cacheID, stamp(tx.now), name)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read pin %q: %w", name, err)
	}
	return &list[0], nil
}

// Pins lists pins that have not expired, by name: those behind after, at most
// limit.
func (tx *Tx) Pins(cacheID int64, after string, limit int) ([]Pin, error) {
	list, err := tx.pins(cacheID, readPins, cacheID, stamp(tx.now), after, limit)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	return list, nil
}

func (tx *Tx) pins(cacheID int64, query string, args ...any) ([]Pin, error) {
	var list []Pin
	err := tx.each(query, args, func(scan func(...any) error) error {
		p := Pin{CacheID: cacheID}
		var r Revision
		var expires *int64
		var policies string
		var at, size int64
		if err := scan(&p.Name, &p.Keep, &expires, &r.Hash, &r.StorePath, &r.By, &policies, &at, &r.Paths, &size); err != nil {
			return err
		}
		if expires != nil {
			p.Expires = unstamp(*expires)
		}
		r.Policies, r.At, r.Size = splitLines(policies), unstamp(at), uint64(size)
		if n := len(list); n == 0 || list[n-1].Name != p.Name {
			list = append(list, p)
		}
		last := &list[len(list)-1]
		last.Revisions = append(last.Revisions, r)
		return nil
	})
	return list, err
}

// PinnedPaths calls each for every path that a pin of the cache holds at present,
// by pin, the newest first. A path comes once for each pin that holds it.
func (tx *Tx) PinnedPaths(cacheID int64, each func(pin, hash string) error) error {
	err := tx.each(`SELECT p.name, r.hash FROM pins p JOIN pin_revisions r ON r.pin_id = p.id WHERE `+livePin+` ORDER BY p.name, r.n`,
		[]any{cacheID, stamp(tx.now)}, func(scan func(...any) error) error {
			var pin, hash string
			if err := scan(&pin, &hash); err != nil {
				return err
			}
			return each(pin, hash)
		})
	if err != nil {
		return fmt.Errorf("list pinned paths: %w", err)
	}
	return nil
}

// SetPin makes r the newest revision of the pin called p.Name, and sets all of p
// to what the pin is then. Of the revisions before it, those of other paths stay,
// as many as p.Keep says; 0 leaves that number as it is. p.Expires counts from now
// on, whatever it was. A cache that was deleted is ErrNotFound, one that has its
// MaxPins is ErrTooMany.
func (tx *Tx) SetPin(p *Pin, r Revision) error {
	if err := tx.setPin(p, r); err != nil {
		return fmt.Errorf("set pin %q: %w", p.Name, err)
	}
	return nil
}

func (tx *Tx) setPin(p *Pin, r Revision) error {
	cache, err := tx.liveCache(p.CacheID)
	if err != nil {
		return err
	}
	if err := ValidPinName(p.Name); err != nil {
		return err
	}
	if err := tx.dropExpiredPins(); err != nil {
		return err
	}
	old, err := tx.Pin(p.CacheID, p.Name)
	if isNotFound(err) {
		old, err = &Pin{Keep: DefaultKeep}, tx.roomForPin(p.CacheID)
	}
	if err != nil {
		return err
	}
	if p.Keep == 0 {
		p.Keep = old.Keep
	}
	if p.Keep < 1 || p.Keep > MaxKeep {
		return fmt.Errorf("a pin keeps 1 to %d revisions, not %d", MaxKeep, p.Keep)
	}
	if r.At.IsZero() {
		r.At = tx.now
	}
	p.Revisions = []Revision{r}
	for _, o := range old.Revisions {
		if o.Hash != r.Hash && len(p.Revisions) < p.Keep {
			p.Revisions = append(p.Revisions, o)
		}
	}
	if err := tx.writePin(p); err != nil {
		return err
	}
	tx.records = append(tx.records, ledger.Record{Pin: p.record(cache)})
	for _, r := range p.Revisions {
		tx.touch(p.CacheID, r.Hash)
	}
	return nil
}

func (tx *Tx) roomForPin(cacheID int64) error {
	var n int
	if err := tx.one("SELECT count(*) FROM pins WHERE cache_id = $1", []any{cacheID}, &n); err != nil {
		return err
	}
	if n >= MaxPins {
		return ErrTooMany
	}
	return nil
}

// dropExpiredPins needs no record: that of the pin says when it ends.
func (tx *Tx) dropExpiredPins() error {
	now := stamp(tx.now)
	_, err := tx.exec("DELETE FROM pin_revisions WHERE pin_id IN (SELECT id FROM pins WHERE expires_at <= $1)", now)
	if err == nil {
		_, err = tx.exec("DELETE FROM pins WHERE expires_at <= $1", now)
	}
	return err
}

// writePin makes the rows of a pin say what p says.
func (tx *Tx) writePin(p *Pin) error {
	if _, err := tx.exec(`INSERT INTO pins (cache_id, name, keep, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (cache_id, name) DO UPDATE SET keep = excluded.keep, expires_at = excluded.expires_at`,
		p.CacheID, p.Name, p.Keep, later(p.Expires)); err != nil {
		return err
	}
	var id int64
	if err := tx.one("SELECT id FROM pins WHERE cache_id = $1 AND name = $2", []any{p.CacheID, p.Name}, &id); err != nil {
		return err
	}
	if _, err := tx.exec("DELETE FROM pin_revisions WHERE pin_id = $1", id); err != nil {
		return err
	}
	for n, r := range p.Revisions {
		if len(r.Hash) != nix.PathHashLen {
			return fmt.Errorf("hash %q has not %d characters", r.Hash, nix.PathHashLen)
		}
		policies, err := joinLines("policies", r.Policies)
		if err != nil {
			return err
		}
		size, err := signed("size", r.Size)
		if err != nil {
			return err
		}
		if _, err := tx.exec(`INSERT INTO pin_revisions (pin_id, n, hash, store_path, set_by, policies, set_at, paths, size)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			id, n, r.Hash, r.StorePath, r.By, policies, stamp(r.At), r.Paths, size); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pin) record(cache string) *ledger.Pin {
	rec := &ledger.Pin{Cache: cache, Name: p.Name, Keep: p.Keep, Expires: p.Expires}
	for _, r := range p.Revisions {
		rec.Revisions = append(rec.Revisions, ledger.Revision{
			StorePath: r.StorePath, By: r.By, Policies: r.Policies, At: r.At, Paths: r.Paths, Size: r.Size})
	}
	return rec
}

// DeletePin takes a pin away, with all its revisions; ErrNotFound if there is none.
func (tx *Tx) DeletePin(cacheID int64, name string) error {
	cache, err := tx.liveCache(cacheID)
	if err == nil {
		_, err = tx.Pin(cacheID, name)
	}
	if err == nil {
		err = tx.dropPin(cacheID, name)
	}
	if err != nil {
		return fmt.Errorf("delete pin %q: %w", name, err)
	}
	tx.records = append(tx.records, ledger.Record{PinDeleted: &ledger.PinDeleted{Cache: cache, Name: name, At: tx.now}})
	return nil
}

func (tx *Tx) dropPin(cacheID int64, name string) error {
	_, err := tx.exec("DELETE FROM pin_revisions WHERE pin_id IN (SELECT id FROM pins WHERE cache_id = $1 AND name = $2)", cacheID, name)
	if err == nil {
		_, err = tx.exec("DELETE FROM pins WHERE cache_id = $1 AND name = $2", cacheID, name)
	}
	return err
}

// dropPins takes all pins of a cache away, with the cache.
func (tx *Tx) dropPins(cacheID int64) error {
	_, err := tx.exec("DELETE FROM pin_revisions WHERE pin_id IN (SELECT id FROM pins WHERE cache_id = $1)", cacheID)
	if err == nil {
		_, err = tx.exec("DELETE FROM pins WHERE cache_id = $1", cacheID)
	}
	return err
}

// applyPin makes a pin what its record says. A cache that is not there yet gets its
// pins from the log behind it.
func (tx *Tx) applyPin(rec *ledger.Pin) error {
	cache, err := tx.cacheID(rec.Cache)
	if cache == 0 || err != nil {
		return err
	}
	p := &Pin{CacheID: cache, Name: rec.Name, Keep: rec.Keep, Expires: rec.Expires}
	for _, r := range rec.Revisions {
		path, err := nix.ParseStorePath(r.StorePath)
		if err != nil {
			return fmt.Errorf("pin %q: %w", rec.Name, err)
		}
		p.Revisions = append(p.Revisions, Revision{Hash: path.Hash(), StorePath: r.StorePath,
			By: r.By, Policies: r.Policies, At: r.At, Paths: r.Paths, Size: r.Size})
	}
	return tx.writePin(p)
}

func (tx *Tx) applyPinDeleted(rec *ledger.PinDeleted) error {
	cache, err := tx.cacheID(rec.Cache)
	if cache == 0 || err != nil {
		return err
	}
	return tx.dropPin(cache, rec.Name)
}

package roots

import (
	"context"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/meta"
)

// Stats is what a server holds. Sizes are in bytes.
type Stats struct {
	Caches []CacheStats `json:"caches"`
	Total  Totals       `json:"total"`
	// Deduplication is Size over Raw, Compression is Raw over Stored; 0 where nothing
	// is stored. NARs of at most 4 KiB lie in the database, and count in Size alone.
	Deduplication float64 `json:"deduplication"`
	Compression   float64 `json:"compression"`
}

// Totals are sums. In those of all caches, packs count once that several use.
type Totals struct {
	Paths  int64  `json:"paths"`
	Size   uint64 `json:"size"`   // of the NARs, as Nix counts
	Packs  int64  `json:"packs"`  // that hold their contents
	Raw    uint64 `json:"raw"`    // contents of the packs, each once
	Stored uint64 `json:"stored"` // the packs themselves
}

// CacheStats is what a cache holds.
type CacheStats struct {
	Name   string `json:"name"`
	Public bool   `json:"public"`
	Pins   int64  `json:"pins"`
	Totals
	Growth  []Day     `json:"growth"`  // of the last days, the first one first; days without are left out
	Largest []Closure `json:"largest"` // of the newest pinned revisions
}

// Day is what came on a day and is there still.
type Day struct {
	Day   string `json:"day"` // 2006-01-02, UTC
	Paths int64  `json:"paths"`
	Size  uint64 `json:"size"`
}

// Closure is a pinned path with all it needs.
type Closure struct {
	Pin       string `json:"pin"`
	StorePath string `json:"store_path"`
	Paths     int64  `json:"paths"`
	Size      uint64 `json:"size"`
}

const (
	growthDays  = 90
	mostLargest = 10
)

// Stats sums up. It reads sums that the database keeps, never all paths.
func (k *Keeper) Stats(ctx context.Context) (*Stats, error) {
	out := &Stats{Caches: []CacheStats{}}
	if err := k.DB.CountPaths(ctx); err != nil {
		return nil, fmt.Errorf("sum up: %w", err)
	}
	err := k.DB.View(ctx, func(tx *meta.Tx) error {
		caches, err := tx.Caches()
		if err != nil {
			return err
		}
		for _, c := range caches {
			s, err := cacheStats(tx, c)
			if err != nil {
				return err
			}
			out.Caches = append(out.Caches, s)
			out.Total.Paths += s.Paths
			out.Total.Size += s.Size
		}
		all, err := tx.AllPacks()
		out.Total.Packs, out.Total.Raw, out.Total.Stored = all.Packs, all.Raw, all.Size
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sum up: %w", err)
	}
	if out.Total.Raw > 0 && out.Total.Stored > 0 {
		out.Deduplication = float64(out.Total.Size) / float64(out.Total.Raw)
		out.Compression = float64(out.Total.Raw) / float64(out.Total.Stored)
	}
	return out, nil
}

func cacheStats(tx *meta.Tx, c meta.Cache) (CacheStats, error) {
	s := CacheStats{Name: c.Name, Public: c.Public, Growth: []Day{}, Largest: []Closure{}}
	days, err := tx.PathDays(c.ID)
	if err != nil {
		return s, err
	}
	since := tx.Now().Add(-growthDays * 24 * time.Hour)
	for _, d := range days {
		s.Paths += d.Paths
		s.Size += d.Size
		if d.Day.After(since) {
			s.Growth = append(s.Growth, Day{Day: d.Day.Format(time.DateOnly), Paths: d.Paths, Size: d.Size})
		}
	}
	packs, err := tx.PacksOf(c.ID)
	if err != nil {
		return s, err
	}
	s.Packs, s.Raw, s.Stored = packs.Packs, packs.Raw, packs.Size
	if s.Pins, err = tx.CountPins(c.ID); err != nil {
		return s, err
	}
	largest, err := tx.LargestPinned(c.ID, mostLargest)
	for _, p := range largest {
		r := p.Revisions[0]
		s.Largest = append(s.Largest, Closure{Pin: p.Name, StorePath: r.StorePath, Paths: r.Paths, Size: r.Size})
	}
	return s, err
}

package config

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/org/attic-action/internal/token"
)

// GC says when to collect garbage, and what stays.
type GC struct {
	Interval  time.Duration // 0: never by itself
	Retention time.Duration // of caches that have none of their own; 0: for ever
	Caches    []GCRule      // the first that matches counts
}

// GCRule is one [[garbage-collection.cache]]: what some caches keep beside their pins.
type GCRule struct {
	Name     string // of a cache; * stands for any characters
	KeepLast int    // toplevels; 0: no such rule
	Quota    int64  // bytes; 0: none
}

// Of is the rule of a cache; the zero GCRule if there is none.
func (g GC) Of(cache string) GCRule {
	for _, r := range g.Caches {
		if ok, _ := path.Match(r.Name, cache); ok { // the pattern was checked
			return r
		}
	}
	return GCRule{}
}

// String says it as the file does; a rule that says nothing is empty.
func (r GCRule) String() string {
	var says []string
	if r.KeepLast > 0 {
		says = append(says, fmt.Sprintf("keep-last = %d", r.KeepLast))
	}
	if r.Quota > 0 {
		says = append(says, fmt.Sprintf("quota = %d bytes", r.Quota))
	}
	return strings.Join(says, " and ")
}

type fileGC struct {
	Interval  *string      `toml:"interval"`
	Retention *string      `toml:"default-retention-period"`
	Caches    []fileGCRule `toml:"cache"` // ours
}

type fileGCRule struct {
	Name     *string `toml:"name"`
	KeepLast *int64  `toml:"keep-last"`
	Quota    *string `toml:"quota"`
}

func (b *builder) gc(s *Server) (err error) {
	f := b.file.GC
	if f == nil {
		f = new(fileGC)
	}
	if s.GC.Interval, err = b.duration("garbage-collection.interval", f.Interval, defaultInterval); err != nil {
		return err
	}
	if s.GC.Retention, err = b.duration("garbage-collection.default-retention-period", f.Retention, defaultRetention); err != nil {
		return err
	}
	seen := map[string]bool{}
	for i, r := range f.Caches {
		at := fmt.Sprintf("garbage-collection.cache[%d]", i)
		rule, err := b.gcRule(at, r)
		if err != nil {
			return err
		}
		if seen[rule.Name] {
			return b.wrong(at+".name", "%s has a rule already; of several that match a cache the first counts", rule.Name)
		}
		seen[rule.Name] = true
		s.GC.Caches = append(s.GC.Caches, rule)
	}
	return nil
}

// maxKeepLast is more toplevels than anybody wants to keep without pins.
const maxKeepLast = 1_000_000

func (b *builder) gcRule(at string, f fileGCRule) (r GCRule, err error) {
	switch {
	case f.Name == nil:
		return r, b.wrong(at, "no name: want that of a cache, or a pattern such as \"system*\"")
	case token.ParsePattern(*f.Name) != nil:
		return r, b.wrong(at+".name", "%q is neither the name of a cache nor a pattern", *f.Name)
	case f.KeepLast == nil && f.Quota == nil:
		return r, b.wrong(at, "neither keep-last nor quota: it would change nothing")
	}
	r.Name = *f.Name
	if f.KeepLast != nil {
		if *f.KeepLast < 1 || *f.KeepLast > maxKeepLast {
			return r, b.wrong(at+".keep-last", "%d: want a number of toplevels from 1 to %d", *f.KeepLast, maxKeepLast)
		}
		r.KeepLast = int(*f.KeepLast)
	}
	if f.Quota != nil {
		if r.Quota, err = parseSize(*f.Quota); err != nil {
			return r, b.wrong(at+".quota", "%w", err)
		}
	}
	return r, nil
}

var sizeUnits = map[string]float64{
	"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

// parseSize reads a size such as "50 GiB".
func parseSize(s string) (int64, error) {
	end := strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	wrong := fmt.Errorf("%.40q is no size: want one such as \"50 GiB\" or \"500 MB\"", s)
	if end < 0 {
		return 0, wrong
	}
	n, err := strconv.ParseFloat(s[:end], 64)
	unit, known := sizeUnits[strings.ToUpper(strings.TrimSpace(s[end:]))]
	if err != nil || !known {
		return 0, wrong
	}
	if n *= unit; n >= math.MaxInt64/2 {
		return 0, wrong
	}
	if n < 1 {
		return 0, errors.New("a quota of nothing would keep nothing but what is pinned")
	}
	return int64(n), nil
}

package near

import (
	"container/list"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// entry is what is known of one pack's file. Cache.mu guards all of it but once.
type entry struct {
	name    string
	object  Object // zero until somebody asked for it
	once    sync.Once
	have    []bool // slices that should be in the file; a reader who finds otherwise says so
	flights []*flight
	bytes   int64 // of the volume, with what flights are about to write
	place   *list.Element
	touched time.Time // when the file's time was last set
}

// enter finds the entry of an object, or makes one, and makes it the most recent one.
func (c *Cache) enter(o Object) *entry {
	name := fileName(o.Key)
	c.mu.Lock()
	e := c.entries[name]
	if e == nil {
		e = c.add(name, 0)
	}
	if e.object.Key == "" {
		e.object = o
	}
	c.recent.MoveToFront(e.place)
	now := c.now()
	touch := e.bytes > 0 && now.Sub(e.touched) > time.Minute
	if touch {
		e.touched = now
	}
	c.mu.Unlock()
	if touch {
		_ = os.Chtimes(c.path(e), now, now) // the order after a restart; the file may be gone
	}
	e.once.Do(func() { c.load(e) })
	return e
}

// add makes an entry that is older than all others; c.mu is held, or nobody else is there.
func (c *Cache) add(name string, bytes int64) *entry {
	e := &entry{name: name, bytes: bytes}
	e.place = c.recent.PushBack(e)
	c.entries[name] = e
	c.total += bytes
	return e
}

// load reads which slices a file of an earlier run holds.
func (c *Cache) load(e *entry) {
	have := make([]bool, slicesOf(e.object.Size))
	c.mu.Lock()
	old := e.bytes > 0
	c.mu.Unlock()
	if old {
		readTable(c.path(e), have) // without one, all is fetched anew, over what is there
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.have = have
}

// scan finds the files of earlier runs. What is not one of ours is left alone.
func (c *Cache) scan() {
	list, err := os.ReadDir(c.Dir)
	if err != nil {
		return // there is no such folder yet; or there is no cache, which a flight will find out
	}
	type file struct {
		name  string
		bytes int64
		used  time.Time
	}
	var files []file
	for _, d := range list {
		info, err := d.Info()
		if err == nil && info.Mode().IsRegular() && strings.HasSuffix(d.Name(), suffix) && len(d.Name()) == len(fileName("")) {
			files = append(files, file{d.Name(), allocated(info), info.ModTime()})
		}
	}
	slices.SortFunc(files, func(a, b file) int { return b.used.Compare(a.used) })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range files {
		c.add(f.name, f.bytes)
	}
	c.evict(c.Limit)
}

func (c *Cache) path(e *entry) string { return filepath.Join(c.Dir, e.name) }

// room makes room for n more bytes, and says whether there is; c.mu is held.
func (c *Cache) room(n int64) bool {
	if c.closed || n > c.Limit/2 || c.now().Before(c.shunned) {
		return false
	}
	c.evict(c.Limit - n)
	free, err := c.free(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		free, err = c.free(filepath.Dir(c.Dir)) // nothing was kept yet, or somebody removed it
	}
	if err != nil {
		return false
	}
	if lacks := c.Reserve + n - free; lacks > 0 {
		free += c.evict(c.total - lacks)
	}
	return c.total+n <= c.Limit && free-n >= c.Reserve
}

// evict deletes files that were not used for the longest time, until no more than most bytes are left, and
// returns how many went. Files that are being filled stay. c.mu is held.
func (c *Cache) evict(most int64) (gone int64) {
	for p := c.recent.Back(); p != nil && c.total > most; {
		e := p.Value.(*entry)
		p = p.Prev()
		if len(e.flights) > 0 {
			continue
		}
		_ = os.Remove(c.path(e)) // somebody else may have done that; what stays counts again after a restart
		gone += e.bytes
		c.forget(e)
	}
	return gone
}

// forget drops an entry. Readers that hold on to it find nothing in it. c.mu is held.
func (c *Cache) forget(e *entry) {
	c.recent.Remove(e.place)
	delete(c.entries, e.name)
	c.total -= e.bytes
	e.bytes = 0
	clear(e.have)
}

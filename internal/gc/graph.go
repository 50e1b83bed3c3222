package gc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// graph is all paths of all caches, and what each refers to. It is made of numbers in a few long slices: a million
// paths with ten references each take about a hundred megabytes, where maps of strings would take a thousand.
//
// A path is its number, from 0. What is referred to and is nowhere has a number too, and is not there.
type graph struct {
	caches []meta.Cache // those that paths are of, by the graph's own number

	hash  []hash160
	cache []uint16
	used  []uint32 // seconds since 1970, rounded up; 0: not there
	nar   []uint32 // row
	size  []uint64 // bytes of the NAR as it is served
	first []uint32 // of its edges: the chunk times edgeChunk, and the place in it
	count []uint32

	edges [][]uint32 // in chunks, so that they never have to be copied as they grow
	slots []uint32   // a hash table: number + 1; 0: free
	byID  map[int64]uint16
	last  int64 // the row that was read last
}

const (
	edgeBits  = 20
	edgeChunk = 1 << edgeBits
	// pathPage is read in one transaction, a short one: a long one would keep the WAL from being reset.
	pathPage = 4096
)

// hash160 is the hash in a store path, 32 characters of 5 bits.
type hash160 [20]byte

const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

var digits = func() (d [256]int8) {
	for i := range d {
		d[i] = -1
	}
	for i := range len(alphabet) {
		d[alphabet[i]] = int8(i)
	}
	return d
}()

// pack160 reads the hash that a base name begins with.
func pack160[T string | []byte](name T) (h hash160, ok bool) {
	if len(name) < nix.PathHashLen {
		return h, false
	}
	for i := range 4 { // 8 characters are 5 bytes
		var v uint64
		for j := range 8 {
			d := digits[name[8*i+j]]
			if d < 0 {
				return h, false
			}
			v = v<<5 | uint64(d)
		}
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], v<<24)
		copy(h[5*i:], b[:5])
	}
	return h, true
}

func (h hash160) String() string {
	var s [nix.PathHashLen]byte
	for i := range 4 {
		var b [8]byte
		copy(b[:], h[5*i:5*i+5])
		v := binary.BigEndian.Uint64(b[:]) >> 24
		for j := range 8 {
			s[8*i+7-j] = alphabet[v>>(5*j)&31]
		}
	}
	return string(s[:])
}

// newGraph makes room for about so many paths.
func newGraph(caches []meta.Cache, paths int) (*graph, error) {
	if len(caches) > math.MaxUint16 {
		return nil, fmt.Errorf("%d caches are more than a collection can tell apart", len(caches))
	}
	n := paths + paths/16 + 64
	g := &graph{
		caches: caches, byID: map[int64]uint16{},
		hash: make([]hash160, 0, n), cache: make([]uint16, 0, n), used: make([]uint32, 0, n), nar: make([]uint32, 0, n),
		size: make([]uint64, 0, n), first: make([]uint32, 0, n), count: make([]uint32, 0, n),
	}
	for i, c := range caches {
		g.byID[c.ID] = uint16(i)
	}
	slots := 1024
	for slots < n+n/3 {
		slots *= 2
	}
	g.slots = make([]uint32, slots)
	return g, nil
}

// read takes in a page of paths; done says that it was the last.
func (g *graph) read(tx *meta.Tx) (done bool, err error) {
	last, read, err := tx.PathsAfter(g.last, pathPage, g.put)
	if err != nil {
		return false, err
	}
	if read > 0 {
		g.last = last
	}
	return read < pathPage, tx.Shrink()
}

func (g *graph) put(k meta.Kept) error {
	c, known := g.byID[k.CacheID]
	if !known {
		return nil // it came with a cache that was made meanwhile
	}
	h, ok := pack160([]byte(k.Hash))
	if !ok || k.NAR <= 0 || k.NAR > math.MaxUint32 {
		return fmt.Errorf("path %.40q of cache %d with NAR %d cannot be collected", k.Hash, k.CacheID, k.NAR)
	}
	id := g.add(c, h)
	g.used[id], g.nar[id], g.size[id] = seconds(k.LastUsed), uint32(k.NAR), uint64(k.FileSize)
	g.refer(id, c, k.Refs)
	return nil
}

// seconds rounds up, so that a use is never taken to be earlier than it was; 1 at least, as 0 is what is not there.
func seconds(us int64) uint32 {
	s := us / 1e6
	if us%1e6 > 0 {
		s++
	}
	return uint32(min(max(s, 1), math.MaxUint32))
}

// refer adds the edges of a path. What upstream caches serve counts too where it is here: who pushed it said that it
// is there as well, and nobody has looked.
func (g *graph) refer(id uint32, c uint16, refs []byte) {
	most := bytes.Count(refs, []byte{'\n'}) + 1
	n := len(g.edges) - 1
	if n < 0 || len(g.edges[n])+most > cap(g.edges[n]) || len(g.edges[n]) >= edgeChunk {
		g.edges = append(g.edges, make([]uint32, 0, max(edgeChunk, most)))
		n++
	}
	chunk := g.edges[n]
	g.first[id] = uint32(n)<<edgeBits | uint32(len(chunk))
	for line := range bytes.Lines(refs) {
		h, ok := pack160(line)
		if !ok {
			continue
		}
		if to := g.add(c, h); to != id {
			chunk = append(chunk, to)
		}
	}
	g.count[id] = uint32(len(chunk)) - g.first[id]&(edgeChunk-1)
	g.edges[n] = chunk
}

// refs are what a path refers to.
func (g *graph) refs(id uint32) []uint32 {
	if g.count[id] == 0 {
		return nil
	}
	at := g.first[id] & (edgeChunk - 1)
	return g.edges[g.first[id]>>edgeBits][at : at+g.count[id]]
}

// there tells whether a path is one.
func (g *graph) there(id uint32) bool { return g.used[id] != 0 }

func (g *graph) len() int { return len(g.hash) }

// add finds a path's number, or gives it one.
func (g *graph) add(c uint16, h hash160) uint32 {
	slot, id, found := g.find(c, h)
	if found {
		return id
	}
	id = uint32(len(g.hash))
	g.hash, g.cache, g.used = append(g.hash, h), append(g.cache, c), append(g.used, 0)
	g.nar, g.size = append(g.nar, 0), append(g.size, 0)
	g.first, g.count = append(g.first, 0), append(g.count, 0)
	if g.slots[slot] = id + 1; len(g.hash) > len(g.slots)/4*3 {
		g.grow()
	}
	return id
}

// find looks for a path; slot is where it belongs if it is not found.
func (g *graph) find(c uint16, h hash160) (slot, id uint32, found bool) {
	mask := uint32(len(g.slots) - 1)
	// The hash is a hash; whoever makes paths up whose first bits are alike makes his own collection slow, so the
	// bits are stirred.
	at := binary.LittleEndian.Uint64(h[:]) ^ binary.LittleEndian.Uint64(h[12:])>>7 ^ uint64(c)*0x9e3779b97f4a7c15
	at *= 0xff51afd7ed558ccd
	for slot = uint32(at>>32) & mask; g.slots[slot] != 0; slot = (slot + 1) & mask {
		if id = g.slots[slot] - 1; g.hash[id] == h && g.cache[id] == c {
			return slot, id, true
		}
	}
	return slot, 0, false
}

func (g *graph) grow() {
	g.slots = make([]uint32, 2*len(g.slots))
	for id := range g.hash {
		slot, _, _ := g.find(g.cache[id], g.hash[id])
		g.slots[slot] = uint32(id) + 1
	}
}

// lookUp finds a path by cache and name.
func (g *graph) lookUp(cacheID int64, name string) (id uint32, found bool) {
	c, known := g.byID[cacheID]
	h, ok := pack160(name)
	if !known || !ok {
		return 0, false
	}
	_, id, found = g.find(c, h)
	return id, found
}

// bits is a set of paths.
type bits []uint64

func (g *graph) bits() bits { return make(bits, (g.len()+63)/64) }

func (b bits) has(id uint32) bool { return b[id/64]&(1<<(id%64)) != 0 }
func (b bits) add(id uint32)      { b[id/64] |= 1 << (id % 64) }

// reach calls each for whatever is there of the closures of from, once, and puts it into seen; what is in it already
// is passed over, with what it needs.
func (g *graph) reach(seen bits, queue []uint32, from uint32, each func(id uint32)) []uint32 {
	queue = queue[:0]
	see := func(id uint32) {
		if g.there(id) && !seen.has(id) {
			seen.add(id)
			queue = append(queue, id)
		}
	}
	see(from)
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		each(id)
		for _, ref := range g.refs(id) {
			see(ref)
		}
	}
	return queue
}

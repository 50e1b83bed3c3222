// Package foresight tells which NAR of a closure a client will ask for next, so that it is on its way from a
// bucket before.
//
// `nix copy` asks for the narinfo of every path first, and then for the NARs, dependencies before dependants, in
// one of two orders that follow from the narinfos alone:
//
//	depth first    each path behind the last of its references, as Nix did until 2.9: one NAR after the other
//	breadth first  paths without references, and then what becomes possible, since then: a few at once
//
// both by the hash in the path where there is a choice. Which one a client follows shows in what it does; one
// that follows none, as a build does that substitutes, is not predicted.
package foresight

import (
	"cmp"
	"slices"
)

// Closure is what a client has read narinfos of. The zero value is empty; it is not for several goroutines.
type Closure struct {
	number map[string]int32 // by hash; also of references that were not read yet
	paths  []path
	read   int
}

type path struct {
	hash string
	refs []int32
	read bool
}

// Len is how many paths and references it knows.
func (c *Closure) Len() int { return len(c.paths) }

// Read is how many paths were added.
func (c *Closure) Read() int { return c.read }

// Add notes the hash of a path, 32 characters, and those of its references.
func (c *Closure) Add(hash string, refs []string) {
	n := c.numberOf(hash)
	if c.paths[n].read {
		return
	}
	list := make([]int32, 0, len(refs))
	for _, ref := range refs {
		if ref != hash {
			list = append(list, c.numberOf(ref))
		}
	}
	c.paths[n].refs, c.paths[n].read = list, true
	c.read++
}

func (c *Closure) numberOf(hash string) int32 {
	n, ok := c.number[hash]
	if !ok {
		if c.number == nil {
			c.number = map[string]int32{}
		}
		n = int32(len(c.paths))
		c.number[hash] = n
		c.paths = append(c.paths, path{hash: hash})
	}
	return n
}

// Walk follows a client through a closure. Paths that are added later are not part of it.
type Walk struct {
	closure *Closure
	size    int // paths that were read when it began
	orders  []order
	taken   []bool
}

// order is one in which a client may ask.
type order struct {
	list  []int32 // of paths
	place []int32 // of each path in list, and -1
	at    int     // the place of the path asked for last
	trust int     // how well it foretold what was asked for lately
}

const (
	// near is how far from the foretold place a client may be: several downloads at once overtake each other.
	near = 48
	// behind is how far back something may still be asked for. What was passed over longer ago, the client has.
	behind = 8
	// An order is followed that was right so many times more often than wrong, lately.
	trusted, mostTrusted = 2, 8
)

// Walk begins where nothing was asked for yet.
func (c *Closure) Walk() *Walk {
	w := &Walk{closure: c, size: c.read, taken: make([]bool, len(c.paths))}
	byHash := make([]int32, 0, c.read)
	for i := range c.paths {
		if c.paths[i].read {
			byHash = append(byHash, int32(i))
		}
	}
	slices.SortFunc(byHash, func(a, b int32) int { return cmp.Compare(c.paths[a].hash, c.paths[b].hash) })
	rank := make([]int32, len(c.paths))
	for i := range rank {
		rank[i] = -1
	}
	for i, n := range byHash {
		rank[n] = int32(i)
	}
	edges := make([][]int32, len(byHash)) // by rank, sorted
	for i, n := range byHash {
		for _, ref := range c.paths[n].refs {
			if rank[ref] >= 0 {
				edges[i] = append(edges[i], rank[ref])
			}
		}
		slices.Sort(edges[i])
	}
	for _, list := range [][]int32{depthFirst(edges), breadthFirst(edges)} {
		o := order{list: make([]int32, len(list)), place: slices.Repeat([]int32{-1}, len(c.paths)), at: -1}
		for i, r := range list {
			o.list[i] = byHash[r]
			o.place[byHash[r]] = int32(i)
		}
		w.orders = append(w.orders, o)
	}
	return w
}

// Size is how many paths the walk knows of.
func (w *Walk) Size() int { return w.size }

// Took notes that the client asks for a NAR.
func (w *Walk) Took(hash string) {
	n, ok := w.closure.number[hash]
	if !ok || int(n) >= len(w.taken) {
		return
	}
	w.taken[n] = true
	for i := range w.orders {
		o := &w.orders[i]
		place := int(o.place[n])
		switch {
		case place < 0:
			continue
		case place > o.at-near && place <= o.at+near:
			o.trust = min(o.trust+1, mostTrusted)
			o.at = max(o.at, place)
		default:
			o.trust = max(o.trust-2, 0)
			o.at = place
		}
	}
}

// Next lists hashes of up to n paths that will be asked for, the next one first. It is empty as long as the client
// follows no order.
func (w *Walk) Next(n int) []string {
	best := &w.orders[0]
	for i := range w.orders[1:] {
		if w.orders[i+1].trust > best.trust {
			best = &w.orders[i+1]
		}
	}
	if best.trust < trusted {
		return nil
	}
	var next []string
	for i := max(0, best.at-behind); i < len(best.list) && len(next) < n; i++ {
		if p := best.list[i]; !w.taken[p] {
			next = append(next, w.closure.paths[p].hash)
		}
	}
	return next
}

// depthFirst lists each node behind those that it refers to, which are taken in their order. Closures are deep
// and come from outside, so the way back is a list and not the stack.
func depthFirst(edges [][]int32) []int32 {
	type step struct {
		node int32
		next int // edge
	}
	list := make([]int32, 0, len(edges))
	seen := make([]bool, len(edges))
	var way []step
	for root := range edges {
		if seen[root] {
			continue
		}
		seen[root] = true
		for way = append(way[:0], step{node: int32(root)}); len(way) > 0; {
			s := &way[len(way)-1]
			if s.next == len(edges[s.node]) {
				list = append(list, s.node)
				way = way[:len(way)-1]
				continue
			}
			ref := edges[s.node][s.next]
			s.next++
			if !seen[ref] {
				seen[ref] = true
				way = append(way, step{node: ref})
			}
		}
	}
	return list
}

// breadthFirst lists nodes that refer to nothing, and then what refers to listed ones alone, as it becomes so.
// What refers to itself by way of others is not listed.
func breadthFirst(edges [][]int32) []int32 {
	left := make([]int, len(edges))
	back := make([][]int32, len(edges))
	list := make([]int32, 0, len(edges))
	for n, refs := range edges {
		left[n] = len(refs)
		for _, ref := range refs {
			back[ref] = append(back[ref], int32(n)) // in order, for n rises
		}
		if len(refs) == 0 {
			list = append(list, int32(n))
		}
	}
	for i := 0; i < len(list); i++ {
		for _, n := range back[list[i]] {
			if left[n]--; left[n] == 0 {
				list = append(list, n)
			}
		}
	}
	return list
}

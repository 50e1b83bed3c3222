package roots

import (
	"context"
	"fmt"
	"strings"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// maxNodes bounds the paths of one walk, which takes about 150 bytes for each: the
// closures of hundreds of hosts share most of their paths.
const maxNodes = 200_000

// ErrTooLarge says that a walk would need more memory than it may have.
var ErrTooLarge = fmt.Errorf("more than %d paths", maxNodes)

// hash is the 32 characters that name a store path.
type hash [nix.PathHashLen]byte

// graph is the closures of some paths of one cache: what was read of each path,
// and which paths it refers to. References that an upstream cache serves are left
// out, as is a path's reference to itself. What clients claim may have circles.
type graph struct {
	limit int
	ids   map[hash]int32
	nodes []node
	edges []int32 // of each node one after another
	names map[int32]string

	elsewhere map[string]bool // not nil: all names are kept, here those of references that are left out
}

func newGraph(limit int) *graph {
	return &graph{limit: limit, ids: map[hash]int32{}, names: map[int32]string{}}
}

// node is a path; it is absent where there is none in the cache.
type node struct {
	hash        hash
	absent      bool
	damaged     bool  // it is there and cannot be pulled
	first, last int32 // its edges
	size, file  uint64
	used        int64 // microseconds since 1970
}

// load reads the closures of tops, which are hashes, level by level: the database
// is asked a dozen times and not once for each path.
func load(ctx context.Context, tx *meta.Tx, cacheID int64, tops []string, limit int) (*graph, error) {
	g := newGraph(limit)
	if err := g.load(ctx, tx, cacheID, tops); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *graph) load(ctx context.Context, tx *meta.Tx, cacheID int64, tops []string) error {
	var level []int32
	for _, top := range tops {
		if id, fresh, err := g.add(top); err != nil {
			return err
		} else if fresh {
			level = append(level, id)
		}
	}
	for len(level) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if level, err = g.read(ctx, tx, cacheID, level); err != nil {
			return err
		}
	}
	return nil
}

// read reads one level and returns the next.
func (g *graph) read(ctx context.Context, tx *meta.Tx, cacheID int64, level []int32) (next []int32, err error) {
	hashes := make([]string, len(level))
	for i, id := range level {
		hashes[i] = string(g.nodes[id].hash[:])
		g.nodes[id].absent = true
	}
	err = tx.Nodes(cacheID, hashes, func(i int, n meta.Node) error {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		more, err := g.put(level[i], n)
		next = append(next, more...)
		return err
	})
	for _, id := range level {
		if n := &g.nodes[id]; !n.absent && !n.damaged && g.elsewhere == nil {
			delete(g.names, id) // which only what is absent is named by
		}
	}
	return next, err
}

func (g *graph) put(id int32, n meta.Node) (next []int32, err error) {
	first := int32(len(g.edges))
	upstream := map[string]bool{} // a path may have a hundred thousand
	if n.Upstream != "" {
		for base := range strings.SplitSeq(n.Upstream, "\n") {
			upstream[base] = true
		}
	}
	for base := range strings.SplitSeq(n.Refs, "\n") {
		if len(base) < nix.PathHashLen {
			continue
		}
		if upstream[base] {
			if g.elsewhere != nil {
				g.elsewhere[strings.Clone(base)] = true
			}
			if len(g.elsewhere) > g.limit {
				return nil, ErrTooLarge
			}
			continue
		}
		ref, fresh, err := g.add(base)
		if err != nil {
			return nil, err
		}
		if fresh {
			next = append(next, ref)
		}
		if ref != id {
			g.edges = append(g.edges, ref)
		}
	}
	to := &g.nodes[id]
	to.absent, to.damaged, to.first, to.last = false, n.Damaged, first, int32(len(g.edges))
	to.size, to.file, to.used = n.Size, n.FileSize, n.LastUsed.UnixMicro()
	return next, nil
}

// add returns the node of a hash or base name, and whether it is new.
func (g *graph) add(name string) (id int32, fresh bool, err error) {
	h := key(name)
	if id, ok := g.ids[h]; ok {
		return id, false, nil
	}
	if len(g.nodes) >= g.limit {
		return 0, false, ErrTooLarge
	}
	id = int32(len(g.nodes))
	g.nodes = append(g.nodes, node{hash: h})
	g.ids[h], g.names[id] = id, strings.Clone(name)
	return id, true, nil
}

// key is the hash that a base name begins with.
func key(name string) (h hash) {
	copy(h[:], name)
	return h
}

// id is the node of a path that was loaded.
func (g *graph) id(name string) int32 { return g.ids[key(name)] }

func (g *graph) idsOf(names []string) []int32 {
	ids := make([]int32, len(names))
	for i, name := range names {
		ids[i] = g.id(name)
	}
	return ids
}

func (g *graph) refs(id int32) []int32 { return g.edges[g.nodes[id].first:g.nodes[id].last] }

// absent lists the paths that are not there, or cannot be pulled.
func (g *graph) absent() []int32 {
	var list []int32
	for id := range g.nodes {
		if n := &g.nodes[id]; n.absent || n.damaged {
			list = append(list, int32(id))
		}
	}
	return list
}

// incomplete says of each node whether something of its closure is absent.
func (g *graph) incomplete() []bool {
	lacks := make([]bool, len(g.nodes))
	queue := g.absent()
	if len(queue) == 0 {
		return lacks
	}
	for _, id := range queue {
		lacks[id] = true
	}
	referrers := g.reversed()
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, from := range referrers.refs(id) {
			if !lacks[from] {
				lacks[from] = true
				queue = append(queue, from)
			}
		}
	}
	return lacks
}

// reversed is the graph with its edges turned around.
func (g *graph) reversed() *graph {
	r := &graph{nodes: make([]node, len(g.nodes)), edges: make([]int32, len(g.edges))}
	count := make([]int32, len(g.nodes))
	for _, to := range g.edges {
		count[to]++
	}
	at := int32(0)
	for id, n := range count {
		r.nodes[id].first, r.nodes[id].last = at, at // grows below
		at += n
	}
	for id := range g.nodes {
		for _, to := range g.refs(int32(id)) {
			n := &r.nodes[to]
			r.edges[n.last] = int32(id)
			n.last++
		}
	}
	return r
}

// marks remembers which nodes a walk has seen; a new walk costs nothing.
type marks struct {
	seen []int32
	walk int32
}

func (g *graph) marks() *marks { return &marks{seen: make([]int32, len(g.nodes))} }

// reach calls each for every node of the closures of tops that is there, once.
func (g *graph) reach(m *marks, tops []int32, each func(id int32)) {
	m.walk++
	var queue []int32
	see := func(id int32) {
		if m.seen[id] != m.walk && !g.nodes[id].absent {
			m.seen[id] = m.walk
			queue = append(queue, id)
		}
	}
	for _, id := range tops {
		see(id)
	}
	for len(queue) > 0 {
		id := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		each(id)
		for _, ref := range g.refs(id) {
			see(ref)
		}
	}
}

// saw says whether the last walk came by a node.
func (m *marks) saw(id int32) bool { return m.seen[id] == m.walk }

// nearest is a shortest way along edges from one of goals back to from, both
// included, in a graph that was turned around; nil if there is none.
func (g *graph) nearest(from int32, goals []int32) []int32 {
	goal := make([]bool, len(g.nodes))
	for _, id := range goals {
		goal[id] = true
	}
	came := map[int32]int32{from: from}
	for queue := []int32{from}; len(queue) > 0; queue = queue[1:] {
		id := queue[0]
		if goal[id] {
			way := []int32{id}
			for ; id != from; id = came[id] {
				way = append(way, came[id])
			}
			return way
		}
		for _, ref := range g.refs(id) {
			if _, seen := came[ref]; !seen {
				came[ref] = id
				queue = append(queue, ref)
			}
		}
	}
	return nil
}

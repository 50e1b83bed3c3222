package importer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/nix"
)

const (
	// maxPaths and maxEdges bound a walk's memory: some hundred megabytes where all is used.
	maxPaths = 1 << 20
	maxEdges = 1 << 25
	// askAtOnce is how many paths the cache is asked for at a time.
	askAtOnce = 1000
	// lookups is how many narinfos are asked for at a time: they are small, and the way is long.
	lookups = 16
)

type hash [nix.PathHashLen]byte

type state uint8

const (
	unknown   state = iota
	present         // in the cache
	wanted          // not there, and to be taken
	elsewhere       // neither there nor at the source
	upstream        // as elsewhere, and an upstream has it
	broken          // the source could not say
)

// walk is the closure of what an import is about.
type walk struct {
	ids    map[hash]int32
	upThen map[hash]bool // that the source itself leaves to upstreams
	hashes []hash
	states []state
	first  []int32 // of each path's references in edges
	count  []int32
	edges  []int32
}

var errTooMany = fmt.Errorf("there are more than %d paths; import them in parts, with --paths-from", maxPaths)

func (w *walk) add(h string) (id int32, fresh bool, err error) {
	var key hash
	copy(key[:], h)
	if id, ok := w.ids[key]; ok {
		return id, false, nil
	}
	if len(w.hashes) >= maxPaths {
		return 0, false, errTooMany
	}
	id = int32(len(w.hashes))
	w.ids[key] = id
	w.hashes, w.states = append(w.hashes, key), append(w.states, unknown)
	w.first, w.count = append(w.first, 0), append(w.count, 0)
	return id, true, nil
}

// declare notes a reference that the source leaves to upstreams.
func (w *walk) declare(h string) {
	var key hash
	if copy(key[:], h); len(w.upThen) < maxPaths {
		w.upThen[key] = true
	}
}

func (w *walk) hash(id int32) string { return string(w.hashes[id][:]) }

func (w *walk) refs(id int32) []int32 { return w.edges[w.first[id] : w.first[id]+w.count[id]] }

// found notes what a path refers to, and returns what of that is new.
func (w *walk) found(id int32, s state, refs []string) (next []int32, err error) {
	w.states[id], w.first[id] = s, int32(len(w.edges))
	if len(w.edges)+len(refs) > maxEdges {
		return nil, errTooMany
	}
	for _, ref := range refs {
		to, fresh, err := w.add(ref)
		if err != nil {
			return nil, err
		}
		if fresh {
			next = append(next, to)
		}
		if to != id {
			w.edges = append(w.edges, to)
		}
	}
	w.count[id] = int32(len(w.edges)) - w.first[id]
	return next, nil
}

// orderFor is what the cache is to be told of a path.
func (w *walk) orderFor(id int32) Order {
	o := Order{Hash: w.hash(id)}
	for _, ref := range w.refs(id) {
		switch w.states[ref] {
		case elsewhere:
			o.Elsewhere = append(o.Elsewhere, w.hash(ref))
		case upstream:
			o.Elsewhere, o.Upstream = append(o.Elsewhere, w.hash(ref)), append(o.Upstream, w.hash(ref))
		}
	}
	return o
}

// walk goes along references from the tops, level by level.
func (r *run) walk(ctx context.Context) (*walk, error) {
	w := &walk{ids: map[hash]int32{}, upThen: map[hash]bool{}}
	level, err := r.begin(ctx, w)
	if err != nil {
		return nil, err
	}
	r.tops = len(level)
	for len(level) > 0 {
		var next []int32
		for some := range slices.Chunk(level, askAtOnce) {
			more, err := r.step(ctx, w, some)
			if err != nil {
				return nil, err
			}
			next = append(next, more...)
			r.note(func(res *Result) { res.Paths = len(w.hashes) })
		}
		level = next
	}
	if err := r.lookUpstream(ctx, w); err != nil {
		return nil, err
	}
	r.note(func(res *Result) {
		for id, s := range w.states {
			switch {
			case s == present:
				res.Present++
			case s == elsewhere && id >= r.tops:
				res.Elsewhere++
			case s == upstream:
				res.Upstream++
			}
		}
		res.Paths = len(w.hashes) - res.Elsewhere - res.Upstream
	})
	return w, nil
}

// begin finds the tops.
func (r *run) begin(ctx context.Context, w *walk) (level []int32, err error) {
	add := func(h string) error {
		id, fresh, err := w.add(h)
		if fresh {
			level = append(level, id)
		}
		return err
	}
	if r.Tops == nil {
		err := r.From.List(ctx, func(l Listed) error {
			for _, ref := range l.Upstream {
				w.declare(ref)
			}
			return add(l.Hash)
		})
		return level, err
	}
	for _, h := range r.Tops {
		if err := add(h); err != nil {
			return nil, err
		}
	}
	return level, nil
}

// step asks the cache for some paths, and the source for those that the cache lacks.
func (r *run) step(ctx context.Context, w *walk, some []int32) (next []int32, err error) {
	hashes := make([]string, len(some))
	for i, id := range some {
		hashes[i] = w.hash(id)
	}
	have, err := r.to.Have(ctx, hashes)
	if err != nil {
		return nil, err
	}
	var missing []int32
	for i, id := range some {
		refs, ok := have[hashes[i]]
		if !ok {
			missing = append(missing, id)
			continue
		}
		more, err := w.found(id, present, refs)
		if err != nil {
			return nil, err
		}
		next = append(next, more...)
	}
	var mu sync.Mutex // of w and next
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, id := range missing {
		h := w.hash(id)
		g.Go(func() error {
			info, err := r.ask(within, h)
			mu.Lock()
			defer mu.Unlock()
			more, err := r.answered(within, w, id, info, err)
			next = append(next, more...)
			return err
		})
	}
	err = g.Wait()
	return next, err
}

// ask asks the source for a narinfo, again if that may help.
func (r *run) ask(ctx context.Context, h string) (info *nix.NarInfo, err error) {
	for try := 0; ; try++ {
		info, err = r.From.NarInfo(ctx, h)
		if err == nil || !mayPass(err) || try >= len(r.Pause) || ctx.Err() != nil {
			return info, err
		}
		if err := sleep(ctx, r.Pause[try]); err != nil {
			return nil, err
		}
	}
}

func (r *run) answered(ctx context.Context, w *walk, id int32, info *nix.NarInfo, err error) ([]int32, error) {
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, ErrUnauthorized), errors.Is(err, ErrRefused):
		return nil, err // the next one will not do better
	case errors.Is(err, ErrAbsent):
		if w.states[id] = elsewhere; w.upThen[w.hashes[id]] {
			w.states[id] = upstream
		}
		if r.Tops != nil && int(id) < r.tops {
			r.fail(w.hash(id), err.Error())
		}
		return nil, nil
	case err != nil:
		w.states[id] = broken
		r.fail(w.hash(id), err.Error())
		return nil, nil
	}
	refs := make([]string, len(info.References))
	for i, ref := range info.References {
		refs[i] = ref.Hash()
	}
	return w.found(id, wanted, refs)
}

// lookUpstream looks for references that the source does not have at the upstreams. Signatures are not
// checked, as with a push: who serves the path checks them, and here only what is missing would be noticed later.
func (r *run) lookUpstream(ctx context.Context, w *walk) error {
	if len(r.Upstreams) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i := range w.states {
		id := int32(i)
		if w.states[id] != elsewhere || i < r.tops {
			continue
		}
		g.Go(func() error { // each writes a state of its own
			for _, up := range r.Upstreams {
				info, err := up.NarInfo(ctx, w.hash(id))
				switch {
				case err == nil && signedByOneOf(info, r.KeyNames):
					w.states[id] = upstream
					return nil
				case err != nil && !errors.Is(err, ErrAbsent):
					return fmt.Errorf("look for %s upstream: %w", w.hash(id), err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func signedByOneOf(info *nix.NarInfo, names []string) bool {
	return slices.ContainsFunc(info.Sigs, func(sig string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return len(sig) > len(name) && sig[:len(name)+1] == name+":" })
	})
}

// queue hands out what is wanted, each path after all that it refers to.
type queue struct {
	walk     *walk
	circular []int32 // never come: they wait for each other
	kept     []int32 // never come: they need what the source could not tell of
	ready    chan int32

	mu       sync.Mutex
	waits    []int32 // for how many
	backRef  []int32 // referrers, of each path one after another
	backAt   []int32
	finished []bool
	left     int
}

func newQueue(w *walk) *queue {
	n := len(w.hashes)
	q := &queue{walk: w, waits: make([]int32, n), finished: make([]bool, n), backAt: make([]int32, n+1), backRef: make([]int32, len(w.edges))}
	for id := range n {
		for _, ref := range w.refs(int32(id)) {
			q.backAt[ref+1]++
		}
	}
	for id := range n {
		q.backAt[id+1] += q.backAt[id]
	}
	at := slices.Clone(q.backAt)
	var begin []int32
	for id := range n {
		for _, ref := range w.refs(int32(id)) {
			q.backRef[at[ref]] = int32(id)
			at[ref]++
			if s := w.states[ref]; s == wanted || s == broken {
				q.waits[id]++
			}
		}
		if w.states[id] == wanted && q.waits[id] == 0 {
			begin = append(begin, int32(id))
		}
	}
	q.left = q.count(begin)
	q.ready = make(chan int32, len(begin)+q.left)
	for _, id := range begin {
		q.ready <- id
	}
	if q.left == 0 {
		close(q.ready)
	}
	return q
}

// count goes through all in order, as it will be, and finds what is never reached.
func (q *queue) count(begin []int32) (left int) {
	waits, reached := slices.Clone(q.waits), make([]bool, len(q.waits))
	for todo := slices.Clone(begin); len(todo) > 0; left++ {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		reached[id] = true
		for _, back := range q.back(id) {
			if waits[back]--; waits[back] == 0 && q.walk.states[back] == wanted {
				todo = append(todo, back)
			}
		}
	}
	cut := q.needBroken()
	for id, s := range q.walk.states {
		switch {
		case s != wanted || reached[id]:
		case cut[id]:
			q.kept = append(q.kept, int32(id))
		default:
			q.circular = append(q.circular, int32(id))
		}
	}
	return left
}

// needBroken says of each path whether it needs one that the source could not tell of.
func (q *queue) needBroken() []bool {
	cut := make([]bool, len(q.waits))
	var todo []int32
	for id, s := range q.walk.states {
		if s == broken {
			todo = append(todo, int32(id))
		}
	}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, back := range q.back(id) {
			if !cut[back] {
				cut[back] = true
				todo = append(todo, back)
			}
		}
	}
	return cut
}

func (q *queue) back(id int32) []int32 { return q.backRef[q.backAt[id]:q.backAt[id+1]] }

// each gives what can be taken now, and waits for more, until all is done or ctx ends.
func (q *queue) each(ctx context.Context) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for {
			select {
			case <-ctx.Done():
				return
			case id, ok := <-q.ready:
				if !ok || !yield(id) {
					return
				}
			}
		}
	}
}

// done says that a path was taken, or that it was not: then back are those that need it, which will
// not be taken either.
func (q *queue) done(id int32, good bool) (back []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finished[id] = true
	q.left--
	for todo := []int32{id}; !good && len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, b := range q.back(at) {
			if q.walk.states[b] == wanted && !q.finished[b] {
				q.finished[b] = true
				q.left--
				back, todo = append(back, b), append(todo, b)
			}
		}
	}
	if good {
		for _, b := range q.back(id) {
			if q.waits[b]--; q.waits[b] == 0 && q.walk.states[b] == wanted && !q.finished[b] {
				q.ready <- b // it has room for all
			}
		}
	}
	if q.left == 0 {
		close(q.ready)
	}
	return back
}

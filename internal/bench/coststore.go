package main

import "slices"

// tally is what a scheme did in a month.
type tally struct {
	stored   float64 // bytes, on average
	classA   int64   // PUT, LIST
	classB   int64   // GET
	sent     int64   // bytes of pushes
	pulled   int64   // bytes of pulls
	streamed float64 // of these, bytes that went through the machine
	busy     float64 // seconds that the machine worked
}

// pushed is a path with its chunks.
type pushed struct {
	nar  int64
	node int
	ids  []uint64
	size []int64
}

// single has an object for each chunk.
type single struct {
	chunks map[uint64]*lone
	bytes  int64
	t      tally
}

type lone struct {
	size int64
	last int // day
}

func newSingle() *single { return &single{chunks: map[uint64]*lone{}} }

func (s *single) push(day int, paths []pushed) {
	for _, p := range paths {
		for i, id := range p.ids {
			o := s.chunks[id]
			if o == nil {
				o = &lone{size: p.size[i]}
				s.chunks[id] = o
				s.bytes += o.size
				s.t.classA++
			}
			o.last = day
		}
		s.t.sent += p.nar // the stock client sends the NAR of each path that is missing
		s.t.busy += float64(p.nar) / stockRate
	}
}

func (s *single) pull(paths []pushed) {
	for _, p := range paths {
		s.t.classB += int64(len(p.ids))
		for _, n := range p.size {
			s.t.pulled += n
			s.t.streamed += float64(n)
		}
		s.t.busy += float64(len(p.ids)) / stockGets
	}
}

func (s *single) collect(since int) {
	for id, o := range s.chunks {
		if o.last < since {
			delete(s.chunks, id) // deletions cost nothing
			s.bytes -= o.size
		}
	}
}

func (s *single) month() tally { t := s.t; s.t = tally{}; return t }
func (s *single) total() int64 { return s.bytes }

// What Attic was measured to do with a bucket 50 ms away: docs/cost.md.
const (
	stockRate = 12.8e6 // bytes of NARs pushed in a second
	stockGets = 68.0   // chunks read in a second
)

// packed is our bucket.
type packed struct {
	chunks map[uint64]*placed
	packs  map[int]*file
	next   int
	open   *file // shared pack that is being filled by the present push
	bytes  int64
	state  int64 // bytes of log and checkpoint

	dropped int64 // packs, since the last collection
	t       tally
}

type placed struct {
	pack *file
	size int64
	last int
}

type file struct {
	id          int
	size, alive int64
	own         bool
}

const (
	sharedPack = 16 << 20
	ownPack    = 64 << 20
	ownFrom    = 4 << 20
	smallPack  = 4 << 20
	readPart   = 4 << 20
	shardBytes = 12 << 20

	indexBytes  = 41.0  // of each chunk, in its pack and in a checkpoint
	recordBytes = 350.0 // of each path in the log and in a checkpoint, compressed

	// Measured with a bucket 50 ms away (docs/benchmarks.md).
	ourRate   = 40e6  // bytes sent in a second
	ourPaths  = 400.0 // paths committed in a second
	ourCommit = 2.0   // log objects a second of a push
	pullRate  = 30e6  // bytes in a second
)

func newPacked() *packed { return &packed{chunks: map[uint64]*placed{}, packs: map[int]*file{}} }

func (s *packed) push(day int, paths []pushed) {
	if len(paths) == 0 {
		return
	}
	sent := int64(0)
	for _, p := range paths {
		fresh := !slices.ContainsFunc(p.ids, func(id uint64) bool { return s.chunks[id] != nil })
		own := fresh && p.nar >= ownFrom
		if own {
			s.close()
		}
		for i, id := range p.ids {
			c := s.chunks[id]
			if c == nil {
				c = &placed{size: p.size[i], pack: s.room(p.size[i], own)}
				c.pack.size += c.size + indexBytes
				c.pack.alive += c.size
				s.bytes += c.size + indexBytes
				s.chunks[id] = c
				sent += c.size
			}
			c.last = day
		}
		if own {
			s.close()
		}
	}
	s.close()
	seconds := 0.5 + float64(sent)/ourRate + float64(len(paths))/ourPaths
	s.t.sent += sent + int64(len(paths))*200
	s.t.classA += int64(seconds*ourCommit) + 1 // log objects
	s.t.classA += int64(seconds/60) + 1        // LIST: is this server still the one?
	s.t.busy += seconds
}

// room is the pack that takes the next chunk.
func (s *packed) room(n int64, own bool) *file {
	limit := int64(sharedPack)
	if own {
		limit = ownPack
	}
	if s.open != nil && s.open.size+n > limit {
		s.close()
	}
	if s.open == nil {
		s.next++
		s.open = &file{id: s.next, own: own}
		s.packs[s.next] = s.open
		s.t.classA++
	}
	return s.open
}

func (s *packed) close() { s.open = nil }

func (s *packed) pull(paths []pushed) {
	touched := map[*file]int64{}
	for _, p := range paths {
		for i, id := range p.ids {
			c := s.chunks[id]
			touched[c.pack] += p.size[i]
			s.t.pulled += p.size[i]
			if !c.pack.own {
				s.t.streamed += float64(p.size[i]) // own packs are redirects
			}
		}
	}
	for _, n := range touched {
		s.t.classB += (n + readPart - 1) / readPart
		s.t.busy += float64(n) / pullRate
	}
	s.t.busy += 1
}

// collect drops dead packs, rewrites sparse ones and merges small ones.
func (s *packed) collect(since int) {
	for id, c := range s.chunks {
		if c.last < since {
			c.pack.alive -= c.size
			delete(s.chunks, id)
		}
	}
	var sparse, small []*file
	for id, p := range s.packs {
		switch {
		case p.alive == 0:
			s.drop(id)
		case p.alive < p.size/3:
			sparse = append(sparse, p)
		case p.size < smallPack:
			small = append(small, p)
		}
	}
	var bytes int64
	for _, p := range small {
		bytes += p.alive
	}
	if bytes >= smallPack || len(small) >= 32 {
		sparse = append(sparse, small...)
	}
	s.rewrite(sparse)
	s.t.classA += s.dropped/16*2 + 2 // LIST: is this server still the one that may delete?
	s.dropped = 0
}

func (s *packed) rewrite(packs []*file) {
	slices.SortFunc(packs, func(a, b *file) int { return a.id - b.id })
	old := map[*file]bool{}
	for _, p := range packs {
		old[p] = true
		s.t.classB += (p.alive+readPart-1)/readPart + 1
		s.t.busy += float64(p.alive) / pullRate
	}
	if len(old) == 0 {
		return
	}
	for _, c := range s.chunks {
		if old[c.pack] {
			c.pack = s.room(c.size, false)
			c.pack.size += c.size + indexBytes
			c.pack.alive += c.size
			s.bytes += c.size + indexBytes
		}
	}
	s.close()
	for p := range old {
		s.drop(p.id)
	}
	s.t.classA++ // log
}

func (s *packed) drop(id int) {
	s.dropped++
	s.bytes -= s.packs[id].size
	delete(s.packs, id)
}

// checkpoint writes the state anew and searches the bucket for orphans, as a server does once a day.
func (s *packed) checkpoint(paths int) {
	s.state = int64(float64(len(s.chunks))*indexBytes + float64(paths)*recordBytes)
	shards := s.state/shardBytes + 1
	s.t.classA += shards + 1 + 2 // shards, manifest, two listings
	s.t.classB += shards         // which are read back
	s.t.classA += 17 + int64(len(s.packs))/1000
}

func (s *packed) month() tally { t := s.t; s.t = tally{}; return t }
func (s *packed) total() int64 { return s.bytes + s.state }

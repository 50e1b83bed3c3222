package main

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
)

// year is what the hosts do: which paths exist on which day, and which chunks they are made of. Nothing is built;
// a path that changes gets new chunks of the sizes that its old ones had.
type year struct {
	cost
	r     *rand.Rand
	nodes []node
	units []int    // small paths that a host's configuration is made of
	world int      // times that everything was rebuilt
	base  []int    // version of each node, of all hosts
	own   [][]int  // of each host and unit, in the order of units; 0: as all have it
	ident []uint64 // of each node of the host that is played
}

// unitMax is the largest path that counts as configuration: a unit, a script, a file in /etc.
const unitMax = 16 << 10

func newYear(c cost, nodes []node) *year {
	y := &year{cost: c, r: rand.New(rand.NewPCG(uint64(c.seed), 0)), nodes: nodes, base: make([]int, len(nodes)), ident: make([]uint64, len(nodes))}
	for i, n := range nodes {
		if n.nar <= unitMax && i < len(nodes)-1 {
			y.units = append(y.units, i)
		}
	}
	for range c.hosts {
		versions := make([]int, len(y.units))
		for i := range versions { // a third of the configuration is the host's own
			if y.r.IntN(3) == 0 {
				versions[i] = y.r.IntN(1<<30) + 1
			}
		}
		y.own = append(y.own, versions)
	}
	return y
}

// day lets a day's changes happen.
func (y *year) day(d int) {
	for range y.daily {
		host, unit := y.r.IntN(y.hosts), y.r.IntN(len(y.units))
		if y.r.IntN(2) == 0 {
			y.base[y.units[unit]]++ // for all hosts
		}
		y.own[host][unit] = y.r.IntN(1<<30) + 1
	}
	if d%7 == 6 {
		y.update(y.weekly)
	}
	if d%30 == 29 {
		y.world++
		y.update(y.monthly)
	}
}

// update gives a share of the paths new contents.
func (y *year) update(share float64) {
	for i := range y.nodes {
		if y.r.Float64() < share {
			y.base[i]++
		}
	}
}

// play names the paths of a host on this day: as in Nix, a name follows from what the path is made of.
func (y *year) play(host int) {
	unit := 0
	for i := range y.nodes {
		version := uint64(y.base[i]) << 32
		if unit < len(y.units) && y.units[unit] == i {
			version |= uint64(y.own[host][unit])
			unit++
		}
		h := fnv.New64a()
		add(h, uint64(i), version, uint64(y.world))
		for _, ref := range y.nodes[i].refs {
			add(h, y.ident[ref])
		}
		y.ident[i] = h.Sum64()
	}
}

type hash64 interface{ Write([]byte) (int, error) }

func add(h hash64, numbers ...uint64) {
	var b [8]byte
	for _, n := range numbers {
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:]) // never fails
	}
}

// parts gives the chunks of a node as they are now: those that hold references have another name with each name of
// the path; of the others, a share with each version.
func (y *year) parts(host, i int, list []part, each func(id uint64, size int64)) {
	version := y.version(host, i)
	for k, p := range list {
		id := p.id
		switch {
		case p.refs:
			id = mix(p.id, y.ident[i])
		case version != 0 && float64(mix(p.id, uint64(k))%1000) < y.changed*1000:
			id = mix(p.id, version)
		}
		each(id, int64(p.size))
	}
}

func (y *year) version(host, i int) uint64 {
	v := uint64(y.base[i]) << 32
	for u, unit := range y.units {
		if unit == i {
			v |= uint64(y.own[host][u])
			break
		}
		if unit > i {
			break
		}
	}
	return v
}

func mix(a, b uint64) uint64 {
	h := fnv.New64a()
	add(h, a, b)
	return h.Sum64()
}

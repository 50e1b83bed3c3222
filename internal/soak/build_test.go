package soak

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/org/attic-action/internal/nix"
)

// product is a store path that somebody built.
type product struct {
	path nix.StorePath
	refs []string // hashes, itself among them at times; sorted
	base []string // the same as base names
	nar  []byte
	sum  nix.Hash
}

// recipe says how to build a product: blocks of contents, with the store paths of
// what it depends on between them.
type recipe struct {
	name   string
	blocks []block
	deps   []int // of recipes before it
	self   bool
	small  bool // a symlink or a script: a literal
}

// block is bytes that come out of a seed, so that recipes can share them.
type block struct {
	seed uint64
	size int
}

// forge builds. What is rebuilt because something below it changed has the same
// contents with other references in them.
type forge struct {
	recipes []recipe
	pool    []block
	present []string            // hash of each recipe's product
	all     map[string]*product // ever built, by hash
}

const recipes = 36

func newForge(r *rand.Rand) *forge {
	f := &forge{all: map[string]*product{}}
	for i := range recipes {
		rc := recipe{name: fmt.Sprintf("thing-%d", i), self: r.IntN(3) == 0, small: r.IntN(4) == 0}
		if i > 0 {
			for range r.IntN(4) {
				rc.deps = append(rc.deps, r.IntN(i))
			}
			slices.Sort(rc.deps)
			rc.deps = slices.Compact(rc.deps)
		}
		f.recipes = append(f.recipes, rc)
		f.change(r, i)
	}
	f.present = make([]string, recipes)
	f.build(0)
	return f
}

// change gives a recipe other contents, some of them another's.
func (f *forge) change(r *rand.Rand, i int) {
	rc := &f.recipes[i]
	n := 1 + r.IntN(4)
	if len(rc.blocks) == 0 || r.IntN(3) == 0 {
		rc.blocks = make([]block, n)
		for k := range rc.blocks {
			rc.blocks[k] = f.block(r, rc.small)
		}
		return
	}
	rc.blocks = slices.Clone(rc.blocks)
	rc.blocks[r.IntN(len(rc.blocks))] = f.block(r, rc.small)
}

func (f *forge) block(r *rand.Rand, small bool) block {
	if len(f.pool) > 0 && r.IntN(4) == 0 {
		return f.pool[r.IntN(len(f.pool))]
	}
	b := block{seed: r.Uint64(), size: 500 + r.IntN(12_000)}
	if small {
		b.size = 1 + r.IntN(600)
	}
	f.pool = append(f.pool, b)
	return b
}

// rebuild changes a recipe and builds what is above it.
func (f *forge) rebuild(r *rand.Rand, i int) {
	f.change(r, i)
	f.build(i)
}

func (f *forge) build(from int) {
	for i := from; i < len(f.recipes); i++ {
		p := f.product(i)
		f.present[i] = p.path.Hash()
		if f.all[p.path.Hash()] == nil {
			f.all[p.path.Hash()] = p
		}
	}
}

// product makes the store path's name out of all that it is built of, as Nix does,
// and then its NAR.
func (f *forge) product(i int) *product {
	rc := f.recipes[i]
	h := sha256.New()
	fmt.Fprintln(h, rc.name, rc.self, rc.blocks)
	for _, d := range rc.deps {
		fmt.Fprintln(h, f.present[d])
	}
	base := nix.EncodeBase32(h.Sum(nil)[:20]) + "-" + rc.name
	path, err := nix.ParseBaseName(nix.StoreDir, base)
	if err != nil {
		panic(err)
	}
	p := &product{path: path}
	for _, d := range rc.deps {
		p.refs = append(p.refs, f.present[d])
	}
	if rc.self {
		p.refs = append(p.refs, path.Hash())
	}
	slices.Sort(p.refs)
	var text bytes.Buffer
	for k, b := range rc.blocks {
		text.Write(b.bytes())
		if k < len(rc.deps) {
			text.WriteString(f.all[f.present[rc.deps[k]]].path.String())
		} else if rc.self {
			text.WriteString(path.String())
		}
	}
	for k := len(rc.blocks); k < len(rc.deps); k++ {
		text.WriteString(f.all[f.present[rc.deps[k]]].path.String() + "\n")
	}
	p.nar = archive(text.Bytes())
	p.sum = sha256.Sum256(p.nar)
	for _, ref := range p.refs {
		if ref == path.Hash() {
			p.base = append(p.base, path.Base())
		} else {
			p.base = append(p.base, f.all[ref].path.Base())
		}
	}
	return p
}

// bytes are letters that compress to about half.
func (b block) bytes() []byte {
	r := rand.New(rand.NewPCG(b.seed, 1))
	out := make([]byte, b.size)
	for i := 0; i < len(out); {
		for bits, k := r.Uint64(), 0; k < 16 && i < len(out); k++ {
			out[i] = "0123456789abcdef"[bits&15]
			bits >>= 4
			i++
		}
	}
	return out
}

// archive is the NAR of a file.
func archive(contents []byte) []byte {
	var b []byte
	str := func(s []byte) {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	for _, s := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		str([]byte(s))
	}
	str(contents)
	str([]byte(")"))
	return b
}

// closure lists a product and what it needs, what is needed first.
func (f *forge) closure(hash string) []*product {
	var list []*product
	seen := map[string]bool{}
	var walk func(string)
	walk = func(h string) {
		if seen[h] {
			return
		}
		seen[h] = true
		p := f.all[h]
		for _, ref := range p.refs {
			walk(ref)
		}
		list = append(list, p)
	}
	walk(hash)
	return list
}

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/pack"
)

// part is a chunk of a NAR as it was measured.
type part struct {
	id   uint64 // the beginning of its hash
	size uint32 // compressed
	refs bool   // it holds the hash of a store path, so it changes when that does
}

// node is a path of the closure.
type node struct {
	name     string
	nar      int64
	refs     []int // below it
	ours     []part
	plain    []part // the NAR cut at about 64 KiB, wherever references lie
	literals int64  // bytes of its literals
}

// plainCut are the sizes that Attic's documentation recommends.
var plainCut = chunk.Params{Min: 16 << 10, Avg: 64 << 10, Max: 256 << 10}

// readClosure cuts and compresses all NARs of a closure, both ways.
func readClosure(ctx context.Context, paths []nixcli.PathInfo) ([]node, error) {
	index := map[string]int{}
	for i, p := range paths {
		index[p.Path.Hash()] = i
	}
	nodes := make([]node, len(paths))
	enc := pack.NewEncoder()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0)) // bound by the CPU
	for i, p := range paths {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := &nodes[i]
			n.name, n.nar = p.Path.Base(), int64(p.NarSize)
			var hashes []string
			for _, ref := range p.References {
				hashes = append(hashes, ref.Hash())
				if k, ok := index[ref.Hash()]; ok && k != i {
					n.refs = append(n.refs, k)
				}
			}
			if err := n.read(p, hashes, enc); err != nil {
				return fmt.Errorf("read %s: %w", p.Path, err)
			}
			return nil
		})
	}
	return nodes, g.Wait()
}

// read cuts one NAR. Whether a chunk holds a reference is found as the cut finds it: the cut that knows
// references makes literals of them.
func (n *node) read(p nixcli.PathInfo, hashes []string, enc *pack.Encoder) error {
	var frame []byte
	measure := func(list *[]part, refs []string) func(chunk.Kind, []byte) error {
		return func(k chunk.Kind, data []byte) error {
			if k == chunk.Literal {
				n.literals += int64(len(data))
				return nil
			}
			id := chunk.Sum(data)
			frame = enc.Frame(frame[:0], data)
			*list = append(*list, part{id: binary.LittleEndian.Uint64(id[:]), size: uint32(len(frame)), refs: holds(data, refs)})
			return nil
		}
	}
	all := append([]string{p.Path.Hash()}, hashes...)
	ours := chunk.NewCutter(chunk.DefaultParams, all, measure(&n.ours, all))
	// A NAR of at most 4 KiB is a literal whatever is known of it; to the other scheme it is a chunk.
	small := n.nar <= chunk.LiteralMax
	plain := chunk.NewCutter(plainCut, nil, measure(&n.plain, all))
	to := io.Writer(ours)
	if !small {
		to = io.MultiWriter(ours, plain)
	}
	if err := nar.Dump(to, p.Path.String()); err != nil {
		return err
	}
	if small {
		sum := chunk.Sum([]byte(n.name))
		n.plain = []part{{id: binary.LittleEndian.Uint64(sum[:]), size: uint32(min(n.nar, n.nar/3+64)), refs: len(hashes) > 0}}
	} else if err := plain.Close(); err != nil {
		return err
	}
	return ours.Close()
}

// holds tells whether data has one of the hashes.
func holds(data []byte, hashes []string) bool {
	return slices.ContainsFunc(hashes, func(h string) bool { return bytes.Contains(data, []byte(h)) })
}

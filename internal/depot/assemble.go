package depot

import (
	"fmt"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// assembly is a NAR put together from pieces: where its bytes lie and what could be checked.
type assembly struct {
	layout   layout
	packs    map[int64]*packInfo // of the layout
	used     map[int64][]int32   // entries of each pack, ascending by first use
	size     uint64              // raw bytes of all pieces
	verified bool                // the pieces were hashed on their way in, and are the NAR
	arrived  *narState           // of a verified NAR: its hashes
}

// assembler puts NARs of one scope together inside one transaction.
type assembler struct {
	depot  *Depot
	tx     *meta.Tx
	places map[chunk.ID]meta.Place
}

// assemble finds the spans of a NAR's pieces. Where the pieces are just what an own pack holds, the
// whole pack becomes part of the stream, its index frame included, so that the NAR can be redirected
// to; the client need not say so and can't claim it wrongly.
func (a *assembler) assemble(pieces []chunk.Piece, hash nix.Hash, size uint64) (*assembly, error) {
	out := &assembly{packs: map[int64]*packInfo{}, used: map[int64][]int32{}}
	for i := 0; i < len(pieces); {
		n, err := a.ownPack(out, pieces[i:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			if err := a.single(out, pieces[i]); err != nil {
				return nil, err
			}
			n = 1
		}
		i += n
	}
	if out.size != size {
		return nil, badRequest("the pieces of %s are %d bytes together, not %d", hash, out.size, size)
	}
	return out, a.check(out, hash)
}

// ownPack adds a whole own pack, if the pieces begin with exactly its entries, and returns how many
// pieces that were.
func (a *assembler) ownPack(out *assembly, pieces []chunk.Piece) (int, error) {
	first := 0
	for first < len(pieces) && pieces[first].Kind == chunk.Literal {
		first++
	}
	if first == len(pieces) {
		return 0, nil
	}
	place := a.places[pieces[first].ID]
	if int(place.Entry) != first {
		return 0, nil
	}
	p, err := a.depot.packInfo(a.tx, place.Pack)
	if err != nil {
		return 0, err
	}
	n := len(p.index.Entries)
	if !p.Own || n > len(pieces) {
		return 0, nil
	}
	for i, e := range p.index.Entries {
		if pieces[i].Kind != e.Kind || pieceID(pieces[i]) != e.ID {
			return 0, nil
		}
	}
	if q, err := a.tx.Quarantined(p.ID); q != nil || err != nil {
		return 0, err // a literal of it may be what is damaged, and that is in no place
	}
	for i, e := range p.index.Entries {
		out.size += uint64(e.Raw)
		out.used[p.ID] = append(out.used[p.ID], int32(i))
	}
	out.packs[p.ID] = p
	out.layout.add(p.run(0, n))
	out.layout.add(p.trailer())
	return n, nil
}

func pieceID(p chunk.Piece) chunk.ID {
	if p.Kind == chunk.Literal {
		return chunk.Sum(p.Literal)
	}
	return p.ID
}

// single adds one piece where it lies.
func (a *assembler) single(out *assembly, piece chunk.Piece) error {
	if piece.Kind == chunk.Literal {
		out.size += uint64(len(piece.Literal))
		out.layout.add(span{kind: literalSpan, literal: piece.Literal})
		return nil
	}
	place := a.places[piece.ID]
	p, err := a.depot.packInfo(a.tx, place.Pack)
	if err != nil {
		return err
	}
	if int(place.Entry) >= len(p.index.Entries) || p.index.Entries[place.Entry].ID != piece.ID {
		return fmt.Errorf("pack %d does not hold chunk %s at entry %d", place.Pack, piece.ID, place.Entry)
	}
	out.size += uint64(p.index.Entries[place.Entry].Raw)
	out.packs[p.ID] = p
	out.used[p.ID] = append(out.used[p.ID], place.Entry)
	out.layout.add(p.run(int(place.Entry), 1))
	return nil
}

// check compares the NAR hash with what was hashed on arrival: literals at once, own packs by the
// state that was carried from one to the next. Anything else stays unverified (design §2).
func (a *assembler) check(out *assembly, want nix.Hash) error {
	arrived, err := a.arrivedHashes(out)
	if err != nil || arrived == nil {
		return err
	}
	if got := arrived.nar(); got != want {
		return badRequest("the NAR's SHA-256 is sha256:%x, not %s", got, want)
	}
	out.verified, out.arrived = true, arrived
	return nil
}

// arrivedHashes is nil when they are not known.
func (a *assembler) arrivedHashes(out *assembly) (*narState, error) {
	state := newNARState()
	literals := true
	for _, s := range out.layout {
		literals = literals && s.kind == literalSpan
		_, _ = state.Write(s.literal) // never fails
	}
	if literals {
		return state, nil
	}
	var last *packInfo
	for i, s := range out.layout {
		whole := s.kind == runSpan && s.first == 0 && s.count == len(out.packs[s.pack].index.Entries) &&
			i+1 < len(out.layout) && out.layout[i+1].kind == trailerSpan
		if s.kind == trailerSpan {
			continue
		}
		if !whole {
			return nil, nil
		}
		p := out.packs[s.pack]
		if len(p.NARState) == 0 { // its row was made from the bucket, where the state is not
			return nil, nil
		}
		if follows, err := a.follows(p, last); err != nil || !follows {
			return nil, err
		}
		last = p
	}
	state = newNARState() // literals between own packs are in the packs as well
	if err := state.UnmarshalBinary(last.NARState); err != nil {
		return nil, fmt.Errorf("read NAR state of pack %d: %w", last.ID, err)
	}
	return state, nil
}

// follows tells whether p's NAR state was carried on from last's, or from the beginning if last is
// nil. Another copy of the same file will do: the state depends on contents alone.
func (a *assembler) follows(p, last *packInfo) (bool, error) {
	if p.Prev == 0 || last == nil {
		return p.Prev == 0 && last == nil, nil
	}
	prev, err := a.depot.packInfo(a.tx, p.Prev)
	if err != nil {
		return false, err
	}
	return prev.SHA256 == last.SHA256 && prev.Prev == last.Prev, nil
}

package push

import (
	"sync"

	"github.com/org/attic-action/internal/chunk"
)

// book says where each chunk is. Chunks that are not in it are unknown.
type book struct {
	turn chan struct{} // full while a push is at work

	mu sync.Mutex
	at map[chunk.ID]*packFile
}

// Places that are no pack of this push.
var (
	atServer = &packFile{} // visible to the cache
	nowhere  = &packFile{} // the server lacks it and nobody has sent it
	onItsWay = &packFile{} // handed to a compressor, not yet in a pack
)

func newBook() *book { return &book{turn: make(chan struct{}, 1), at: map[chunk.ID]*packFile{}} }

// unknown returns those of the items' chunks that nobody has asked for, once each.
func (b *book) unknown(items []*item) []chunk.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []chunk.ID
	asked := map[chunk.ID]bool{}
	for _, it := range items {
		for id := range it.chunks() {
			if b.at[id] == nil && !asked[id] {
				asked[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// answer notes what the server said of ids.
func (b *book) answer(ids []chunk.ID, missing []bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, id := range ids {
		switch {
		case b.at[id] != nil: // another push of this Pusher was faster
		case missing[i]:
			b.at[id] = nowhere
		default:
			b.at[id] = atServer
		}
	}
}

// allNew reports whether none of the item's chunks is stored or on its way.
func (b *book) allNew(it *item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range it.chunks() {
		if at := b.at[id]; at != nil && at != nowhere {
			return false
		}
	}
	return true
}

// claim reports whether id has to be sent, and notes that it will be.
func (b *book) claim(id chunk.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.at[id]; at != nil && at != nowhere {
		return false
	}
	b.at[id] = onItsWay
	return true
}

// place notes that id is in p, and reports whether it is there for the first
// time: an own pack holds repeats.
func (b *book) place(id chunk.ID, p *packFile) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.at[id]; at != nil && at != nowhere && at != onItsWay {
		return false
	}
	b.at[id] = p
	return true
}

// forget makes ids unknown again; p limits that to chunks that are in p.
func (b *book) forget(ids []chunk.ID, p *packFile) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if p == nil || b.at[id] == p {
			delete(b.at, id)
		}
	}
}

// stored notes that p is at the server, and counts its chunks.
func (b *book) stored(p *packFile) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, id := range p.ids {
		if b.at[id] == p {
			b.at[id] = atServer
			n++
		}
	}
	p.ids = nil
	return n
}

// packsOf returns the packs that have to be stored before the item can be
// committed. ok is false when some chunk is in none.
func (b *book) packsOf(it *item) (packs map[*packFile]bool, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	packs = map[*packFile]bool{}
	for id := range it.chunks() {
		switch at := b.at[id]; at {
		case atServer:
		case nil, nowhere, onItsWay:
			return nil, false
		default:
			packs[at] = true
		}
	}
	return packs, true
}

// bookMax is how many chunks are remembered from one push to the next: those of some 64 GiB, in 50 MB. A job that
// pushes for hours learns of more, and asks for them again.
const bookMax = 1 << 19

// reset drops what belongs to a push that has ended: only what is at the server
// is known to the next one.
func (b *book) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.at) > bookMax {
		b.at = map[chunk.ID]*packFile{} // a map that was emptied keeps its memory
		return
	}
	for id, at := range b.at {
		if at != atServer {
			delete(b.at, id)
		}
	}
}

// wants reports whether id would be claimed.
func (b *book) wants(id chunk.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.at[id]
	return at == nil || at == nowhere
}

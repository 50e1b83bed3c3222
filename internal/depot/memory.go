package depot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
)

// What requests cost in bytes of memory. Each is acquired once, before it is allocated: a request that held
// some and waited for more could wait for another one that does the same.
const (
	ingestCost = 7 << 20 // window, cutter, frame, listing and copy buffers of a raw upload
	verifyCost = 5 << 19 // a span, what it decodes to, copy buffers
	entryCost  = 256     // a pack's entry: decoded, encoded and compressed for its row
	chunkCost  = 512     // a raw upload's chunk: piece list, pack entry, place, span, record
	pieceCost  = 12      // a byte of a piece list: decoded piece, place, span, record (33 bytes each, 44 in the record)
	pathCost   = 4 << 10 // a path of a commit, beside its pieces
)

// How long requests wait for memory. The stock client repeats nothing, so it rather waits than fails; ours comes
// back, and gives up on a connection that says nothing for two minutes.
const (
	stockWait = 10 * time.Minute
	packWait  = 90 * time.Second
)

// acquire takes n bytes of the budget. Who waits for too long gets context.DeadlineExceeded, for which a
// server says when to come again; ctx may be shorter.
func (d *Depot) acquire(ctx context.Context, n int64, wait time.Duration) (release func(), err error) {
	within, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	release, err = d.Memory.Acquire(within, n)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("wait for memory: %w", err)
	}
	return release, err
}

// uploadCost is what a raw NAR of size bytes takes while it is cut and packed.
func uploadCost(size uint64, cut chunk.Params) int64 {
	chunks := size / uint64(max(cut.Avg, 1))
	return ingestCost + int64(min(chunks, 1<<32))*chunkCost
}

// commitCost is what a commit's transaction takes beside the lists that were read, those that were staged
// before included.
func commitCost(batch []*item) int64 {
	n := int64(0)
	for _, it := range batch {
		n += pathCost + int64(len(it.list))*pieceCost
		if !it.header.More {
			n += min(max(it.header.Offset, 0), meta.MaxStaged) * (pieceCost + 2)
		}
	}
	return n
}

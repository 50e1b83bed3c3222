package push

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/org/attic-action/internal/chunk"
)

func number(i int) (id chunk.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(i)*0x9E3779B97F4A7C15)
	return id
}

// A job that pushes while it builds may push for hours; what it learned must not fill the runner's memory.
func TestWhatIsRememberedBetweenPushesIsBounded(t *testing.T) {
	b := newBook()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for round := range 4 {
		for i := range bookMax/2 + 1 {
			b.answer([]chunk.ID{number(round<<32 + i)}, []bool{false})
		}
		b.reset()
	}
	if n := len(b.at); n > bookMax {
		t.Errorf("%d chunks are remembered", n)
	}
	for i := range bookMax {
		b.answer([]chunk.ID{number(i)}, []bool{false})
	}
	if got := heap() - before; got > 64<<20 {
		t.Errorf("%d bytes", got)
	}
	t.Logf("%d chunks, %d bytes", len(b.at), heap()-before)
	b.reset()
	runtime.KeepAlive(b)
}

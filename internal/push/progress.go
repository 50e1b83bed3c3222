package push

import "sync/atomic"

// Progress counts what a push has done. It may be read while the push runs, and
// serve several pushes one after another: it only grows.
type Progress struct {
	Paths     atomic.Int64 // to be pushed
	PathsDone atomic.Int64 // committed or failed
	NARBytes  atomic.Int64 // of the paths to be pushed
	Scanned   atomic.Int64 // bytes of NARs read and cut
	Packed    atomic.Int64 // bytes of packs that are to be sent
	Sent      atomic.Int64 // bytes of packs that are stored
}

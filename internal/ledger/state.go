package ledger

import "time"

// Pack is a pack that the checkpoint's NARs lie in, so that a recovery need not
// read every pack's end. The log has none: there the packs speak for themselves.
type Pack struct {
	Key       string    `json:"key"`
	Size      int64     `json:"size"`  // bytes of the whole file
	Index     []byte    `json:"index"` // its index frame, one zstd frame
	Own       bool      `json:"own,omitempty"`
	Prev      string    `json:"prev,omitempty"`      // key of the own pack before it, of the same NAR
	NARState  []byte    `json:"nar_state,omitempty"` // SHA-256 state after it, as Go marshals one; a hint
	CreatedAt time.Time `json:"created_at"`
}

// Recovered begins an epoch: a database was rebuilt from what comes before. ID
// tokens from before it are worth nothing, since which of them were used is not
// known any more.
type Recovered struct {
	At time.Time `json:"at"`
}

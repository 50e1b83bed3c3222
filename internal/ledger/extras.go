package ledger

import "time"

// Listing is what a NAR holds, without the contents of its files.
type Listing struct {
	NAR      string   `json:"nar"`      // NAR.ID
	Skeleton []byte   `json:"skeleton"` // package nar's, as zstd frames
	BuildIDs []string `json:"build_ids,omitempty"`
}

// BuildLog is what a builder wrote while it built. The last one of a cache and a
// name counts.
type BuildLog struct {
	Cache     string    `json:"cache"`
	Name      string    `json:"name"` // base name of the derivation
	Size      int64     `json:"size"` // of the text, bytes
	Data      []byte    `json:"data"` // the text as zstd frames
	CreatedBy string    `json:"created_by,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// BuildLogDeleted takes a log away.
type BuildLogDeleted struct {
	Cache string    `json:"cache"`
	Name  string    `json:"name"`
	At    time.Time `json:"at"`
}

// Realisation says which path an output of a content-addressed derivation is. It
// is gone when a path_deleted takes that path. The last one of a cache and a name
// counts.
type Realisation struct {
	Cache     string    `json:"cache"`
	Name      string    `json:"name"`     // "sha256:<hex>!<output>"
	OutPath   string    `json:"out_path"` // base name
	Text      string    `json:"text"`     // JSON, as Nix writes it
	CreatedBy string    `json:"created_by,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

package api

// Headers of PUT upload-path.
const (
	NarInfoHeader             = "X-Attic-Nar-Info"
	NarInfoPreambleSizeHeader = "X-Attic-Nar-Info-Preamble-Size"
	// VisibilityHeader says "public" on answers of public caches.
	VisibilityHeader = "X-Attic-Cache-Visibility"
)

// MissingPathsRequest is the body of POST get-missing-paths.
type MissingPathsRequest struct {
	Cache           string   `json:"cache"`
	StorePathHashes []string `json:"store_path_hashes"`
}

// MissingPaths answers get-missing-paths.
type MissingPaths struct {
	MissingPaths []string `json:"missing_paths"` // never nil: null is no answer
}

// UploadInfo describes the NAR of an upload. References are base names.
type UploadInfo struct {
	Cache         string
	StorePathHash string
	StorePath     string
	References    []string
	System        string // empty: not given; as are Deriver and CA
	Deriver       string
	Sigs          []string
	CA            string
	NARHash       [32]byte // SHA-256 of the NAR
	NARSize       uint64   // bytes
}

// Kinds of UploadResult.
const (
	Uploaded     = "Uploaded"
	Deduplicated = "Deduplicated"
)

// UploadResult answers upload-path.
type UploadResult struct {
	Kind             string   `json:"kind"`
	FileSize         *int64   `json:"file_size,omitempty"` // bytes stored, nil when unknown
	FracDeduplicated *float64 `json:"frac_deduplicated"`   // 0..1, null when not cut
}

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

package depot

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nar"
)

// A listing is the skeleton of a NAR (package nar) as zstd frames. Of a raw NAR it is made here as the bytes
// pass by. Where only chunks come, the client has made it, and what can be checked of it is that it is one
// of a NAR with so many bytes: who lies about names lies to those who look at files one by one, while what
// is unpacked is the NAR.

// newListing takes a NAR for its listing.
func (d *Depot) newListing() *nar.Skeleton {
	return &nar.Skeleton{Compress: d.encoder.Frame, Limit: api.MaxListing}
}

// openListing decodes a listing to the skeleton. A frame of ours has at most 256 KiB.
func openListing(listing []byte) (io.ReadCloser, error) {
	z, err := zstd.NewReader(bytes.NewReader(listing), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return nil, fmt.Errorf("read listing: %w", err)
	}
	return z.IOReadCloser(), nil
}

// readListing checks up's listing and finds its build IDs.
func readListing(up *Upload) error {
	if len(up.Listing) == 0 {
		return nil
	}
	if len(up.Listing) > api.MaxListing {
		return badRequest("%s: a listing of %d bytes is longer than %d", up.Path, len(up.Listing), api.MaxListing)
	}
	r, err := openListing(up.Listing)
	if err != nil {
		return badRequest("%s: %v", up.Path, err)
	}
	defer r.Close()
	if up.buildIDs, err = nar.ReadSkeleton(r, up.NARSize); err != nil {
		return badRequest("%s: its listing: %v", up.Path, err)
	}
	return nil
}

// keepListing keeps up's listing with its NAR, unless there is one: the first one stays.
func keepListing(tx *meta.Tx, up Upload, n *meta.NAR) error {
	if len(up.Listing) == 0 || n.Hash != up.NARHash {
		return nil
	}
	has, err := tx.HasListing(n.ID)
	if err != nil || has {
		return err
	}
	return tx.PutListing(n, up.Listing, up.buildIDs)
}

// WriteListing writes what a listing says as Nix writes a .ls file.
func WriteListing(w io.Writer, listing []byte) error {
	r, err := openListing(listing)
	if err != nil {
		return err
	}
	defer r.Close()
	return nar.WriteListing(w, r)
}

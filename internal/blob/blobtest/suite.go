package blobtest

import (
	"testing"

	"github.com/org/attic-action/internal/blob"
)

// Suite checks that a store keeps blob's contract. open returns an empty one.
func Suite(t *testing.T, open func(t *testing.T) blob.Store) {}

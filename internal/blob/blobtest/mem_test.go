package blobtest

import (
	"testing"

	"github.com/org/attic-action/internal/blob"
)

func TestMemKeepsTheContract(t *testing.T) {
	Suite(t, func(*testing.T) blob.Store { return NewMem() })
}

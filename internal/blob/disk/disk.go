// Package disk keeps objects as files below a directory.
package disk

import (
	"context"
	"errors"
	"io"

	"github.com/org/attic-action/internal/blob"
)

// Store is a directory of objects.
type Store struct{ root string }

var _ blob.Store = (*Store)(nil)
var errTODO = errors.New("not written yet")

// New opens the store below root and makes the directory when it is missing.
func New(root string) (*Store, error) { return nil, errTODO }

func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	return nil, errTODO
}
func (s *Store) Put(ctx context.Context, key string, src blob.Source) error { return errTODO }
func (s *Store) Delete(ctx context.Context, key string) error               { return errTODO }
func (s *Store) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	return errTODO
}

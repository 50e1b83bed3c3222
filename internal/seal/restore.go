package seal

import (
	"context"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/blob"
)

// Restore looks whether the bucket still has the root key under each of the secrets,
// and stores it where it is gone. damaged are objects that open to nothing, or to
// another key: nobody replaces an object, so those are for people to delete.
func Restore(ctx context.Context, blobs Blobs, root RootKey, secrets [][]byte) (restored, damaged []string, err error) {
	for _, s := range secrets {
		k, err := read(ctx, blobs, s)
		switch {
		case errors.Is(err, blob.ErrNotFound):
			if err := wrap(ctx, blobs, root, s); err != nil && !errors.Is(err, blob.ErrExists) {
				return restored, damaged, fmt.Errorf("restore %s: %w", name(s), err)
			}
			restored = append(restored, name(s))
		case errors.Is(err, ErrOpen), err == nil && k != root:
			damaged = append(damaged, name(s))
		case err != nil:
			return restored, damaged, err
		}
	}
	return restored, damaged, nil
}

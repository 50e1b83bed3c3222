package seal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/blob"
)

// Wrap is the root key as it lies in the bucket under one secret.
type Wrap struct {
	ID    string    // of the secret: 32 hex digits that tell nothing of it
	Known bool      // the secret is one of those given
	At    time.Time // when it was wrapped
}

var (
	// ErrKnown says that the secret of a wrap is still configured.
	ErrKnown = errors.New("its secret is still configured: take it out of the configuration and restart first")
	// ErrNoWrap says that the bucket has no such wrap.
	ErrNoWrap = errors.New("the bucket has no root key wrapped under this id")
)

// Wraps lists the wraps of a bucket, oldest first. Load has made those of the secrets.
func Wraps(ctx context.Context, blobs blob.Lister, secrets [][]byte) ([]Wrap, error) {
	var list []Wrap
	err := blobs.List(ctx, keyPrefix, func(i blob.Info) error {
		if len(list) >= maxWraps {
			return fmt.Errorf("more than %d wrapped keys", maxWraps)
		}
		known := slices.ContainsFunc(secrets, func(s []byte) bool { return name(s) == i.Key })
		list = append(list, Wrap{ID: strings.TrimPrefix(i.Key, keyPrefix), Known: known, At: i.Modified})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list wrapped root keys: %w", err)
	}
	slices.SortStableFunc(list, func(a, b Wrap) int { return a.At.Compare(b.At) })
	return list, nil
}

// Forget deletes wraps by their ids: from then on their secrets open nothing in this
// bucket. That of a secret which is given is ErrKnown, one that is not there ErrNoWrap,
// and then nothing is deleted. It never deletes the last way to the root key: unless a
// given secret has a wrap it deletes nothing.
func Forget(ctx context.Context, blobs interface {
	blob.Lister
	blob.Deleter
}, secrets [][]byte, ids []string) error {
	list, err := Wraps(ctx, blobs, secrets)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(w Wrap) bool { return w.Known }) {
		return fmt.Errorf("forget wrapped root keys: %w", ErrWrongSecret)
	}
	for _, id := range ids {
		i := slices.IndexFunc(list, func(w Wrap) bool { return w.ID == id })
		switch {
		case i < 0:
			return fmt.Errorf("forget %.64q: %w", id, ErrNoWrap)
		case list[i].Known:
			return fmt.Errorf("forget %s: %w", id, ErrKnown)
		}
	}
	for _, id := range ids {
		if err := blobs.Delete(ctx, keyPrefix+id); err != nil {
			return fmt.Errorf("forget wrapped root key: %w", err)
		}
	}
	return nil
}

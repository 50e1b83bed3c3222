package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/seal"
)

// rootKey opens the root key. With a bucket there is a copy in the database, so that a server which wakes up for a
// narinfo asks the bucket for nothing first; whether the bucket can be used is then found out while it serves.
func (st *stack) rootKey(ctx context.Context, cfg *config.Server, store blob.Store, log *slog.Logger) (seal.RootKey, error) {
	secrets := cfg.Secrets()
	far := cfg.Storage.Type == config.S3
	var copied []byte
	if far {
		err := st.db.View(ctx, func(tx *meta.Tx) (err error) {
			copied, err = tx.Fact(meta.FactRootKeys)
			return err
		})
		if err != nil {
			return seal.RootKey{}, err
		}
		if root, ok := seal.Open(copied, secrets); ok {
			return root, nil
		}
	}
	root, err := seal.Load(ctx, store, secrets, rand.Reader)
	if errors.Is(err, seal.ErrWrongSecret) {
		return root, configError{hintError{err, "the token secret changed: give the old one as [[jwt.previous]] of server.toml, or in ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64_PREVIOUS"}}
	}
	if err != nil {
		return root, fmt.Errorf("load root key: %w", err)
	}
	if !far {
		return root, nil
	}
	err = st.db.Update(ctx, func(tx *meta.Tx) error { return tx.SetFact(meta.FactRootKeys, seal.Copy(root, secrets)) })
	if err != nil {
		log.Warn("keep a copy of the root key", "error", err) // the next start asks the bucket again
	}
	return root, nil
}

// startLater does what a start need not wait for, until the function it returns is called.
func (st *stack) startLater(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if st.later != nil {
			st.later(ctx)
		}
	}()
	return func() { cancel(); <-done }
}

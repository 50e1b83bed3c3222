package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

// lister tells before each listing.
type lister struct {
	blob.Store
	before func()
}

func (l *lister) List(ctx context.Context, prefix string, each func(blob.Info) error) error {
	l.before()
	return l.Store.List(ctx, prefix, each)
}

// Of two servers on one bucket only the one that recovered last goes on: the other sees it while it writes, and asks
// for nothing while it does not.
func TestServerEndsWhenAnotherRecoveredFromItsBucket(t *testing.T) {
	var wrote atomic.Bool
	bucket := &lister{blobtest.NewMem(), func() {
		if !wrote.Load() {
			t.Error("it asked, and had written nothing")
		}
	}}
	put := func(b blob.Store, key string) {
		t.Helper()
		if err := b.Put(t.Context(), key, blob.Bytes([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	st := &stack{end: func(err error) { ended <- err }}
	w := &written{Store: bucket}
	go st.watchEpoch(t.Context(), w, 1, time.Microsecond)
	put(bucket, "log/0000000002/00000000000000000001-of-the-other")
	wrote.Store(true)
	put(w, "log/0000000001/00000000000000000009-of-its-own")
	err := <-ended
	var config configError
	if !errors.Is(err, errStale) || !errors.As(err, &config) {
		t.Errorf("got %v", err)
	}
}

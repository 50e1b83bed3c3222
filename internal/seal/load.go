package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/org/attic-action/internal/blob"
)

const (
	keyPrefix = "keys/root-"
	// maxWrapped bounds a wrapped key; it has 61 bytes.
	maxWrapped = 1024
	// maxWraps bounds how many secrets a bucket may have seen.
	maxWraps = 1000
)

// ErrWrongSecret says that the bucket has a root key and none of the configured
// secrets opens it.
var ErrWrongSecret = errors.New("no configured token secret opens the bucket's root key")

// Blobs is what Load needs of a bucket: it never deletes.
type Blobs interface {
	blob.Getter
	blob.Putter
	blob.Lister
}

// Load reads the bucket's root key with any of the secrets, and wraps it again
// for those of them that have no wrapped key yet. Only a bucket without any
// wrapped key gets a new root key, from rand: a second one would make all that
// is sealed unreadable. So an error of the bucket is an error here, and secrets
// that open none of its keys are ErrWrongSecret.
func Load(ctx context.Context, blobs Blobs, secrets [][]byte, rand io.Reader) (RootKey, error) {
	k, err := load(ctx, blobs, secrets, rand)
	if err != nil {
		return RootKey{}, fmt.Errorf("load root key: %w", err)
	}
	return k, nil
}

func load(ctx context.Context, blobs Blobs, secrets [][]byte, rand io.Reader) (RootKey, error) {
	if len(secrets) == 0 {
		return RootKey{}, errors.New("there is no token secret to open it with")
	}
	for i, s := range secrets {
		if len(s) == 0 {
			return RootKey{}, fmt.Errorf("token secret %d is empty", i+1)
		}
	}
	wrapped, err := list(ctx, blobs)
	if err != nil {
		return RootKey{}, err
	}
	var root RootKey
	if len(wrapped) > 0 {
		root, err = unwrap(ctx, blobs, wrapped, secrets)
	} else {
		root, err = generate(ctx, blobs, secrets[0], rand)
		wrapped[name(secrets[0])] = true
	}
	if err != nil {
		return RootKey{}, err
	}
	for _, s := range secrets {
		if !wrapped[name(s)] {
			if err := wrap(ctx, blobs, root, s); err != nil && !errors.Is(err, blob.ErrExists) {
				return RootKey{}, err
			}
		}
	}
	return root, nil
}

func list(ctx context.Context, blobs Blobs) (map[string]bool, error) {
	wrapped := map[string]bool{}
	err := blobs.List(ctx, keyPrefix, func(i blob.Info) error {
		if len(wrapped) >= maxWraps {
			return fmt.Errorf("more than %d wrapped keys", maxWraps)
		}
		wrapped[i.Key] = true
		return nil
	})
	return wrapped, err
}

// unwrap opens the key with every secret that has one: two that disagree are a
// bucket that two servers began at once, and to choose would lose the caches of
// one of them.
func unwrap(ctx context.Context, blobs Blobs, wrapped map[string]bool, secrets [][]byte) (RootKey, error) {
	var root RootKey
	found := false
	for _, s := range secrets {
		if !wrapped[name(s)] {
			continue
		}
		k, err := read(ctx, blobs, s)
		if err != nil {
			return RootKey{}, err
		}
		if found && k != root {
			return RootKey{}, errors.New("the token secrets open different root keys: configure those of one server")
		}
		root, found = k, true
	}
	if !found {
		return RootKey{}, fmt.Errorf("%w (it has %d wrapped keys)", ErrWrongSecret, len(wrapped))
	}
	return root, nil
}

func read(ctx context.Context, blobs Blobs, secret []byte) (RootKey, error) {
	key := name(secret)
	r, err := blobs.Get(ctx, key, 0, -1)
	if err != nil {
		return RootKey{}, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxWrapped))
	if err != nil {
		return RootKey{}, fmt.Errorf("read %s: %w", key, err)
	}
	plain, err := opened(derive(secret, infoWrap), data, []byte(key))
	if err != nil || len(plain) != len(RootKey{}) {
		return RootKey{}, fmt.Errorf("open %s: %w", key, ErrOpen)
	}
	return RootKey(plain), nil
}

// generate makes a root key. If another server with the same secret was faster,
// its key is the one.
func generate(ctx context.Context, blobs Blobs, secret []byte, rand io.Reader) (RootKey, error) {
	var root RootKey
	if _, err := io.ReadFull(rand, root[:]); err != nil {
		return RootKey{}, fmt.Errorf("generate: %w", err)
	}
	err := wrap(ctx, blobs, root, secret)
	if errors.Is(err, blob.ErrExists) {
		return read(ctx, blobs, secret)
	}
	return root, err
}

// wrap stores the root key under a secret. The object's name is sealed in.
func wrap(ctx context.Context, blobs Blobs, root RootKey, secret []byte) error {
	key := name(secret)
	return blobs.Put(ctx, key, blob.Bytes(sealed(derive(secret, infoWrap), root[:], []byte(key), nonce())))
}

// name is the key of a secret's object.
func name(secret []byte) string {
	return keyPrefix + hex.EncodeToString(derive(secret, infoID)[:16])
}

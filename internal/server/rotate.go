package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
)

// signers are the keypairs that sign for a cache now, the present one first.
func (s *Server) signers(ctx context.Context, c *meta.Cache) ([]nix.Keypair, error) {
	present, err := s.keys.of(c)
	if err != nil {
		return nil, err
	}
	pairs := []nix.Keypair{present}
	old, err := s.oldKeys(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, k := range old {
		pair, err := s.keys.unseal(c, k.PublicKey, k.SealedKey)
		if err != nil {
			// Not fatal: whoever trusts the present key is served all the same.
			s.Log.Error("open old signing key", "cache", c.Name, "error", err)
			continue
		}
		pairs = append(pairs, pair)
	}
	return pairs, nil
}

// oldKeys are the keys before the present one that sign along now, newest first.
func (s *Server) oldKeys(ctx context.Context, c *meta.Cache) ([]meta.OldKey, error) {
	all, err := s.caches.get(ctx)
	if err != nil {
		return nil, err
	}
	old, now := all.old[c.ID], s.Now()
	if !slices.ContainsFunc(old, func(k meta.OldKey) bool { return !now.Before(k.Until) }) {
		return old, nil
	}
	return slices.DeleteFunc(slices.Clone(old), func(k meta.OldKey) bool { return !now.Before(k.Until) }), nil
}

// oldPublicKeys is oldKeys for everybody.
func (s *Server) oldPublicKeys(ctx context.Context, c *meta.Cache) ([]api.OldKey, error) {
	old, err := s.oldKeys(ctx, c)
	var public []api.OldKey
	for _, k := range old {
		public = append(public, api.OldKey{PublicKey: k.PublicKey, Until: k.Until})
	}
	return public, err
}

// Bounds of a rotation. Each old key is a signature more in every narinfo.
const (
	maxOldKeys = 4
	MaxKeep    = 10 * 31557600 * time.Second // ten years, for an old key
)

// Rotation is how a cache's key is to be replaced.
type Rotation struct {
	Cache  string
	Keep   time.Duration // how long the present key signs along; 0: not at all
	EndOld bool          // keys from earlier rotations sign no more
}

// Rotated is what a rotation came to.
type Rotated struct {
	PublicKey string       // that signs from now on
	Replaced  string       // the public key before
	Old       []api.OldKey // all that sign along, newest first
}

// ErrRotation says that a rotation is not possible as asked for.
var ErrRotation = errors.New("the key cannot be rotated so")

// RotateKey gives a cache a new signing key. The private half is made here, goes
// sealed into the database, and nowhere else. A missing cache is meta.ErrNotFound.
func (s *Server) RotateKey(ctx context.Context, in Rotation) (*Rotated, error) {
	s.init()
	if in.Keep < 0 || in.Keep > MaxKeep {
		return nil, fmt.Errorf("%w: an old key can be kept for at most ten years", ErrRotation)
	}
	out := &Rotated{}
	err := s.DB.Update(ctx, func(tx *meta.Tx) error {
		cache, err := tx.Cache(in.Cache)
		if err != nil {
			return err
		}
		if in.EndOld {
			if err := tx.EndOldKeys(cache); err != nil {
				return err
			}
		}
		return s.rotate(tx, cache, in, out)
	})
	s.caches.forget()
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Server) rotate(tx *meta.Tx, cache *meta.Cache, in Rotation, out *Rotated) error {
	had, err := tx.OldKeys(cache.ID)
	if err != nil {
		return err
	}
	pair, err := nextKey(cache, had)
	if err != nil {
		return err
	}
	until := tx.Now().Add(in.Keep)
	out.PublicKey, out.Replaced = pair.Public().String(), cache.PublicKey
	if in.Keep > 0 {
		out.Old = append(out.Old, api.OldKey{PublicKey: cache.PublicKey, Until: until})
	}
	for _, k := range had {
		if k.Until.After(tx.Now()) {
			out.Old = append(out.Old, api.OldKey{PublicKey: k.PublicKey, Until: k.Until})
		}
	}
	if in.Keep > 0 && len(out.Old) > maxOldKeys {
		return fmt.Errorf("%w: %d old keys of the cache sign along already; keep none of them, or not the present one", ErrRotation, len(out.Old)-1)
	}
	return tx.RotateKey(cache, out.PublicKey, s.keys.seal(cache.Name, pair), until)
}

// nextKey makes the key that follows c's present one. It has a name that no key of
// the cache had: Nix keeps trusted keys by name, and of two with one name it knows
// the first only. The dot keeps it from being another cache's, since no cache's
// name has one.
func nextKey(c *meta.Cache, had []meta.OldKey) (nix.Keypair, error) {
	used := map[string]bool{keyNameOf(c.PublicKey): true}
	for _, old := range had {
		used[keyNameOf(old.PublicKey)] = true
	}
	n := len(had) + 2
	for used[fmt.Sprintf("%s.%d", c.Name, n)] {
		n++
	}
	pair, err := nix.GenerateKeypair(fmt.Sprintf("%s.%d", c.Name, n), rand.Reader)
	if err != nil {
		return nix.Keypair{}, fmt.Errorf("make signing key: %w", err)
	}
	return pair, nil
}

func keyNameOf(publicKey string) string {
	name, _, _ := strings.Cut(publicKey, ":")
	return name
}

package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
)

// rotor is a house whose keys can be rotated and whose clock can be set forward.
type rotor struct {
	*house
	server *server.Server
	mu     sync.Mutex
	ahead  time.Duration
}

func newRotor(t *testing.T, change ...func(*server.Server)) *rotor {
	t.Helper()
	r := &rotor{house: newHouse(t)}
	r.Stop(t)
	r.Server = servertest.StartIn(t, r.Dir, append(change, func(s *server.Server) {
		r.server = s
		s.Now = func() time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			return time.Now().Add(r.ahead)
		}
	})...)
	return r
}

func (r *rotor) rotate(t *testing.T, in server.Rotation) *server.Rotated {
	t.Helper()
	out, err := r.server.RotateKey(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// signedBy checks that the narinfo has exactly the signatures of these keys, in order.
func (r *rotor) signedBy(t *testing.T, cache string, keys ...nix.PublicKey) {
	t.Helper()
	info := r.narinfo(t, cache, r.nar)
	if len(info.Sigs) != len(keys) {
		t.Errorf("%d signatures, want %d: %q", len(info.Sigs), len(keys), info.Sigs)
		return
	}
	for i, key := range keys {
		if !key.Verify(info.Fingerprint(), info.Sigs[i]) {
			t.Errorf("signature %d, %s, is not of %s", i, info.Sigs[i], key)
		}
	}
}

func (r *rotor) oldKeys(t *testing.T, cache string) (keys []string) {
	t.Helper()
	_, body := r.Do(t, "GET", config+cache, r.Root, "")
	var c struct {
		Ext struct {
			Old []struct {
				PublicKey string    `json:"public_key"`
				Until     time.Time `json:"until"`
			} `json:"old_public_keys"`
		} `json:"attic_action"`
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		t.Fatal(err)
	}
	for _, k := range c.Ext.Old {
		keys = append(keys, k.PublicKey)
	}
	return keys
}

func TestRotatedKeysSignTogether(t *testing.T) {
	r := newRotor(t)
	first, other := r.publicKey(t, "pub"), r.publicKey(t, "priv")
	r.signedBy(t, "pub", first)

	out := r.rotate(t, server.Rotation{Cache: "pub", Keep: time.Hour})
	second := r.publicKey(t, "pub")
	if second.Name != "pub.2" || out.PublicKey != second.String() || out.Replaced != first.String() {
		t.Errorf("second key %s, answer %+v", second, out)
	}
	r.signedBy(t, "pub", second, first)
	if old := r.oldKeys(t, "pub"); len(old) != 1 || old[0] != first.String() {
		t.Errorf("cache-config names %q", old)
	}

	r.rotate(t, server.Rotation{Cache: "pub", Keep: 2 * time.Hour})
	third := r.publicKey(t, "pub")
	r.signedBy(t, "pub", third, second, first)

	r.mu.Lock()
	r.ahead = time.Hour + time.Second
	r.mu.Unlock()
	r.signedBy(t, "pub", third, second) // to the second, not when the cache list is read anew
	if old := r.oldKeys(t, "pub"); len(old) != 1 || old[0] != second.String() {
		t.Errorf("after the first one's end cache-config names %q", old)
	}

	r.rotate(t, server.Rotation{Cache: "pub", EndOld: true})
	r.signedBy(t, "pub", r.publicKey(t, "pub"))
	if r.oldKeys(t, "pub") != nil {
		t.Error("an old key is named after the end of all")
	}
	r.signedBy(t, "priv", other)

	r.Stop(t) // and across a restart
	r.Server = servertest.StartIn(t, r.Dir)
	if got := r.publicKey(t, "pub").Name; got != "pub.4" {
		t.Errorf("after a restart: %s", got)
	}
}

// Nix keeps trusted keys by name: two of one name, and it believes one of them.
func TestNoKeyNameIsUsedTwice(t *testing.T) {
	r := newRotor(t)
	pair, err := nix.GenerateKeypair("pub.3", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{r.publicKey(t, "pub").Name: true}
	for i := range 6 {
		if i == 1 { // an imported key takes the next name
			resp, body := r.Do(t, "PATCH", config+"pub", r.Root, `{"keypair":{"Keypair":"`+pair.Secret()+`"}}`)
			if resp.StatusCode != 200 {
				t.Fatalf("import: %s: %s", resp.Status, body)
			}
			seen["pub.3"] = true
		}
		r.rotate(t, server.Rotation{Cache: "pub"})
		name := r.publicKey(t, "pub").Name
		if seen[name] {
			t.Errorf("rotation %d gave the name %s again", i, name)
		}
		seen[name] = true
	}
}

func TestRotationsThatCannotBe(t *testing.T) {
	r := newRotor(t)
	for i := range 4 {
		r.rotate(t, server.Rotation{Cache: "pub", Keep: time.Duration(i+1) * time.Hour})
	}
	before := r.publicKey(t, "pub")
	for name, c := range map[string]struct {
		in   server.Rotation
		want error
	}{
		"a cache that is not": {server.Rotation{Cache: "nix"}, meta.ErrNotFound},
		"for ever":            {server.Rotation{Cache: "pub", Keep: server.MaxKeep + 1}, server.ErrRotation},
		"backwards":           {server.Rotation{Cache: "pub", Keep: -1}, server.ErrRotation},
		"a fifth old key":     {server.Rotation{Cache: "pub", Keep: time.Hour}, server.ErrRotation},
	} {
		if _, err := r.server.RotateKey(t.Context(), c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if got := r.publicKey(t, "pub"); got.String() != before.String() {
		t.Error("a refused rotation changed the key")
	}
	r.rotate(t, server.Rotation{Cache: "pub"}) // without keeping it: in an emergency nothing is in the way
}

// The attack: whoever can read what the server says, writes or stores, with or without rights to the
// cache, learns the key that every machine believes.
func TestPrivateKeysNeverLeaveTheServer(t *testing.T) {
	var said syncBuffer
	r := newRotor(t, func(s *server.Server) {
		s.Log = slog.New(slog.NewJSONHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
		s.Audit = func(e audit.Event) { _ = json.NewEncoder(&said).Encode(e) }
	})
	pair, err := nix.GenerateKeypair("imported", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) {
		for _, tok := range []string{r.Root, r.tokens["pull"], ""} {
			resp, text := r.Do(t, method, path, tok, body)
			for name, values := range resp.Header {
				text += name + strings.Join(values, " ")
			}
			said.Write([]byte(text))
		}
	}
	key := pair.Secret()
	ask("POST", config+"mine", strings.Replace(`{"keypair":{"Keypair":"KEY"},"is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`, "KEY", key, 1))
	ask("PATCH", config+"mine", `{"keypair":{"Keypair":"`+key+`x"}}`)             // errors about a key
	ask("PATCH", config+"mine", `{"keypair":{"Keypair":"`+key[:len(key)-9]+`"}}`) // must not quote it
	ask("PATCH", config+"mine", `{"keypair":"`+key+`"}`)
	ask("PATCH", config+"mine", `{"keypair":{"keypair":"`+key+`"},"`+key+`":1}`)
	rotated, err := json.Marshal([]any{r.rotate(t, server.Rotation{Cache: "mine", Keep: time.Hour}), r.rotate(t, server.Rotation{Cache: "pub", Keep: time.Hour})})
	if err != nil {
		t.Fatal(err)
	}
	said.Write(rotated)
	_, err = r.server.RotateKey(t.Context(), server.Rotation{Cache: "mine", Keep: -1})
	said.Write([]byte(err.Error()))
	for _, path := range []string{"/", config + "mine", config + "pub", "/mine/nix-cache-info", "/pub/attic-cache-info", "/pub/" + r.nar.Path.Hash() + ".narinfo", "/pub/nar/" + r.nar.Path.Hash() + ".nar"} {
		ask("GET", path, "")
	}
	if resp, _ := r.Do(t, "GET", config+"mine", r.Root, ""); resp.StatusCode != 200 {
		t.Fatalf("the cache was not made: %s", resp.Status)
	}

	secrets := append(r.secrets(t), key)
	if len(secrets) != 6 { // three caches, two rotations, and the import
		t.Fatalf("%d keys", len(secrets))
	}
	r.Stop(t)
	places := map[string][]byte{"what was said": said.Bytes()}
	err = filepath.WalkDir(r.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			places[path], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(places) < 4 || len(places["what was said"]) < 10_000 {
		t.Fatalf("looked at %d places, %d bytes were said", len(places), len(places["what was said"]))
	}
	for place, text := range places {
		for _, secret := range secrets {
			_, payload, _ := strings.Cut(secret, ":")
			raw, err := base64.StdEncoding.DecodeString(payload)
			if err != nil {
				t.Fatal(err)
			}
			seed := raw[:32]
			for form, needle := range map[string]string{"text": payload[:40], "bytes": string(seed), "hex": hex.EncodeToString(seed),
				"base64url": base64.RawURLEncoding.EncodeToString(seed)[:40]} {
				if bytes.Contains(text, []byte(needle)) {
					t.Errorf("%s holds a private key as %s", place, form)
				}
			}
		}
	}
}

// secrets opens all keys that the database has.
func (r *rotor) secrets(t *testing.T) (secrets []string) {
	t.Helper()
	store, err := disk.New(filepath.Join(r.Dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := seal.Load(t.Context(), store, [][]byte{servertest.Secret}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	err = r.DB.View(context.Background(), func(tx *meta.Tx) error {
		caches, err := tx.Caches()
		if err != nil {
			return err
		}
		for _, c := range caches {
			old, err := tx.OldKeys(c.ID)
			if err != nil {
				return err
			}
			for _, sealed := range append(old, meta.OldKey{SealedKey: c.SealedKey}) {
				text, err := root.Open(sealed.SealedKey, []byte(c.Name))
				if err != nil {
					return err
				}
				secrets = append(secrets, string(text))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}

// syncBuffer is a buffer that requests may write to at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

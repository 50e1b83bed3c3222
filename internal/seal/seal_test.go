package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
)

func loaded(t *testing.T, s Blobs, secrets ...string) RootKey {
	t.Helper()
	k, err := Load(t.Context(), s, bytesOf(secrets...), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func bytesOf(secrets ...string) (b [][]byte) {
	for _, s := range secrets {
		b = append(b, []byte(s))
	}
	return b
}

// Whoever can write to the database must not make one cache sign with the key of
// another by copying its sealed key.
func TestSealedKeyOpensForItsCacheOnly(t *testing.T) {
	k := RootKey{1}
	sealed := k.Seal([]byte("private"), []byte("cache a"))
	if got, err := k.Open(sealed, []byte("cache a")); err != nil || string(got) != "private" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := k.Open(sealed, []byte("cache b")); !errors.Is(err, ErrOpen) {
		t.Errorf("another cache: got %v", err)
	}
	if _, err := (RootKey{2}).Open(sealed, []byte("cache a")); !errors.Is(err, ErrOpen) {
		t.Errorf("another key: got %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := k.Open(bad, []byte("cache a")); !errors.Is(err, ErrOpen) {
			t.Errorf("byte %d changed: got %v", i, err)
		}
		if _, err := k.Open(sealed[:i], []byte("cache a")); !errors.Is(err, ErrOpen) {
			t.Errorf("cut at %d: got %v", i, err)
		}
	}
	if bytes.Equal(sealed, k.Seal([]byte("private"), []byte("cache a"))) {
		t.Error("two seals are alike")
	}
}

func TestSealedBytesOfVersion1StillOpen(t *testing.T) {
	nonce := []byte("0123456789ab")
	got := fmt.Sprintf("%x", sealed(derive(bytes.Repeat([]byte{7}, 32), infoSeal), []byte("hi"), []byte("c"), nonce))
	if want := "01303132333435363738396162a8ab87efb71d78b9e7225cfee80c62c937f6"; got != want {
		t.Errorf("got %s, want %s: what is sealed in buckets would not open", got, want)
	}
	if got, want := name([]byte("secret")), "keys/root-96c180045e7c0c70344260ef55486b36"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRootKeyIsNeverPrinted(t *testing.T) {
	k := RootKey(bytes.Repeat([]byte{0xab}, 32))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "in", struct{ K RootKey }{k})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "in", struct{ K RootKey }{k})
	js, _ := json.Marshal(k)
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%x %X %d %v %+v %#v %s %q %o %b", k, k, k, k, k, k, k, k, k, k), fmt.Sprintf("%v", &k), string(js), log.String()} {
		for _, leak := range []string{"ab", "AB", "171", "253", "10101011"} {
			if strings.Contains(s, leak) {
				t.Errorf("%q shows the key", s)
			}
		}
	}
}

func TestRootKeyStaysThroughRotation(t *testing.T) {
	mem := blobtest.NewMem()
	first := loaded(t, mem, "old")
	if loaded(t, mem, "old") != first {
		t.Error("the second start made another key")
	}
	if loaded(t, mem, "new", "old") != first {
		t.Error("a new secret beside the old one made another key")
	}
	if loaded(t, mem, "new") != first {
		t.Error("the new secret alone does not open the key")
	}
	if _, err := Load(t.Context(), mem, bytesOf("other", "else"), rand.Reader); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("got %v", err)
	}
	n := 0
	_ = mem.List(t.Context(), "", func(blob.Info) error { n++; return nil })
	if n != 2 {
		t.Errorf("%d objects, want one per secret that was right", n)
	}
}

func TestFreshBucketIsWrappedForEverySecret(t *testing.T) {
	mem := blobtest.NewMem()
	k := loaded(t, mem, "a", "b", "a")
	if loaded(t, mem, "a") != k || loaded(t, mem, "b") != k {
		t.Error("the secrets open different keys")
	}
	if loaded(t, blobtest.NewMem(), "a") == k {
		t.Error("two buckets have the same key")
	}
}

func TestLoadRefusesNoSecretAndEmptyOnes(t *testing.T) {
	for _, secrets := range [][][]byte{nil, bytesOf(""), bytesOf("a", "")} {
		if _, err := Load(t.Context(), blobtest.NewMem(), secrets, rand.Reader); err == nil {
			t.Errorf("secrets %q: no error", secrets)
		}
	}
}

// An object that was moved, or written by somebody without the secret, must not
// become the key that private keys are sealed with.
func TestForgedAndMovedKeysAreRefused(t *testing.T) {
	mem := blobtest.NewMem()
	loaded(t, mem, "a")
	r, err := mem.Get(t.Context(), name([]byte("a")), 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var buf bytes.Buffer
	_, _ = buf.ReadFrom(r)
	for what, data := range map[string][]byte{"moved": buf.Bytes(), "empty": nil, "forged": bytes.Repeat([]byte{1}, 61), "long": make([]byte, 1<<20)} {
		other := blobtest.NewMem()
		if err := other.Put(t.Context(), name([]byte("b")), blob.Bytes(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(t.Context(), other, bytesOf("b"), rand.Reader); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// unlistable is a bucket that cannot be listed at the moment.
type unlistable struct{ *blobtest.Mem }

func (unlistable) List(context.Context, string, func(blob.Info) error) error {
	return errors.New("no route")
}

// A bucket that is down must not look like a new one.
func TestNoKeyIsMadeWhenTheBucketFails(t *testing.T) {
	mem := blobtest.NewMem()
	if _, err := Load(t.Context(), unlistable{mem}, bytesOf("a"), rand.Reader); err == nil {
		t.Error("no error")
	}
	_ = mem.List(t.Context(), "", func(i blob.Info) error { t.Errorf("%s was written", i.Key); return nil })
}

// blind lists nothing the first time: another server is just making the key.
type blind struct{ *blobtest.Mem }

func (blind) List(context.Context, string, func(blob.Info) error) error { return nil }

func TestTwoFirstStartsAgreeOnOneKey(t *testing.T) {
	mem := blobtest.NewMem()
	first := loaded(t, mem, "a")
	if loaded(t, blind{mem}, "a") != first {
		t.Error("the slower server took its own key")
	}
}

// A mistake in the arguments must not take the last way to the root key.
func TestForgetLeavesAWayToTheRootKey(t *testing.T) {
	s := blobtest.NewMem()
	loaded(t, s, "old", "new")
	list, err := Wraps(t.Context(), s, bytesOf("new"))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	old, current := list[0], list[1]
	if old.Known {
		old, current = current, old
	}
	for name, c := range map[string]struct {
		secrets [][]byte
		ids     []string
		want    error
	}{
		"a secret that is given":        {bytesOf("new"), []string{old.ID, current.ID}, ErrKnown},
		"a secret that never was":       {bytesOf("new"), []string{old.ID, "00"}, ErrNoWrap},
		"another object":                {bytesOf("new"), []string{"../packs/x"}, ErrNoWrap},
		"all, with a stranger's secret": {bytesOf("stranger"), []string{old.ID, current.ID}, ErrWrongSecret},
		"one, with no secret":           {nil, []string{old.ID}, ErrWrongSecret},
	} {
		if err := Forget(t.Context(), s, c.secrets, c.ids); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if list, err := Wraps(t.Context(), s, nil); err != nil || len(list) != 2 {
		t.Fatalf("a refusal deleted something: %+v, %v", list, err)
	}
	if err := Forget(t.Context(), s, bytesOf("new"), []string{old.ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), s, bytesOf("old"), rand.Reader); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("the forgotten secret: %v", err)
	}
	loaded(t, s, "new")
}

package depot

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
)

// addressed is a file as Nix would add it to its store by a content address.
func addressed(t *testing.T, method nix.Method, content string, refs ...string) testNAR {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	var dump bytes.Buffer
	if err := nar.Dump(&dump, file); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	if method == nix.Recursive {
		sum = sha256.Sum256(dump.Bytes())
	}
	return withAddress(t, fmt.Sprintf("%s:sha256:%s", method, nix.EncodeBase32(sum[:])), dump.Bytes(), refs...)
}

func withAddress(t *testing.T, ca string, data []byte, refs ...string) testNAR {
	t.Helper()
	parsed, err := nix.ParseContentAddress(ca)
	if err != nil {
		t.Fatal(err)
	}
	n := testNAR{data: data, refs: refs, ca: ca}
	if n.path, err = parsed.StorePath(nix.StoreDir, "f", refs, false); err != nil {
		t.Fatal(err)
	}
	return n
}

func (h *house) ingest(s Scope, n testNAR) error {
	h.t.Helper()
	_, err := h.Ingest(h.t.Context(), s, n.upload(), bytes.NewReader(n.data), true)
	return err
}

func (h *house) commitErr(s Scope, n testNAR) error {
	h.t.Helper()
	pieces, raws, list := h.cut(n)
	if slices.ContainsFunc(pieces, func(p chunk.Piece) bool { return p.Kind == chunk.Chunk }) {
		name, file := h.packed(0, pieces, raws)
		if err := h.put(s, nil, name, file); err != nil {
			h.t.Fatal(err)
		}
	}
	_, err := h.CommitPaths(h.t.Context(), s, items(api.PathItem{Header: n.header(), Pieces: list}))
	return err
}

func wantBad(t *testing.T, what string, err error) {
	t.Helper()
	var bad *BadRequest
	if !errors.As(err, &bad) {
		t.Errorf("%s: got %v, want a BadRequest", what, err)
	}
}

func TestContentAddressedPathsAreTaken(t *testing.T) {
	ref := randomHash() + "-dep"
	for _, n := range []testNAR{
		addressed(t, nix.Text, "text"), addressed(t, nix.Text, "text "+ref, ref), addressed(t, nix.Flat, "flat"),
		addressed(t, nix.Recursive, "nar"), addressed(t, nix.Flat, strings.Repeat("long ", 10_000)),
	} {
		h := newHouse(t)
		if err := h.ingest(h.a, n); err != nil {
			t.Errorf("%s: stock: %v", n.ca, err)
		}
		if err := h.commitErr(h.b, n); err != nil {
			t.Errorf("%s: ours: %v", n.ca, err)
		}
	}
}

// A client takes a path that has a content address without any signature, so nobody may put one on a
// path that it does not derive, nor on contents that it does not hash.
func TestForgedContentAddressIsRefused(t *testing.T) {
	forge := func(method nix.Method, change func(*testNAR)) testNAR {
		n := addressed(t, method, "good")
		change(&n)
		return n
	}
	evil := addressed(t, nix.Flat, "evil").data
	for name, n := range map[string]testNAR{
		"of another path":          forge(nix.Recursive, func(n *testNAR) { n.path = newNAR(t, "f", 1, 0).path }),
		"of another name":          forge(nix.Recursive, func(n *testNAR) { n.path = rename(t, n.path, "g") }),
		"other contents, NAR":      forge(nix.Recursive, func(n *testNAR) { n.data = evil }),
		"other contents, flat":     forge(nix.Flat, func(n *testNAR) { n.data = evil }),
		"other contents, text":     forge(nix.Text, func(n *testNAR) { n.data = evil }),
		"not a file":               forge(nix.Flat, func(n *testNAR) { n.data = []byte("no NAR") }),
		"with other references":    forge(nix.Recursive, func(n *testNAR) { n.refs = []string{randomHash() + "-x"} }),
		"flat with references":     forge(nix.Flat, func(n *testNAR) { n.refs = []string{randomHash() + "-x"} }),
		"with a line in it":        forge(nix.Flat, func(n *testNAR) { n.ca += "\nSig: evil:AAAA" }),
		"of no hash that there is": forge(nix.Flat, func(n *testNAR) { n.ca = "fixed:sha3:" + n.path.Hash() }),
	} {
		h := newHouse(t)
		wantBad(t, name+", stock", h.ingest(h.a, n))
		wantBad(t, name+", ours", h.commitErr(h.a, n))
	}
}

// The same for a file that arrives in own packs, one or several: they are hashed on arrival, and the address is
// held to it at the commit.
func TestForgedContentAddressIsRefusedForOwnPacks(t *testing.T) {
	random := mathrand.NewChaCha8([32]byte{3})
	content := make([]byte, 400_001)
	_, _ = random.Read(content)
	good := addressed(t, nix.Flat, string(content))
	program := bytes.Clone(good.data) // the same file, which may be executed: its flat hash is another thing to Nix
	program = bytes.Replace(program, []byte("\x08\x00\x00\x00\x00\x00\x00\x00contents"), []byte("\x0a\x00\x00\x00\x00\x00\x00\x00executable\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00contents"), 1)
	other := bytes.Clone(good.data)
	other[300_000] ^= 1
	long := sha512.Sum512(content)
	sha512CA := "fixed:sha512:" + nix.EncodeBase32(long[:])
	wrong512 := "fixed:sha512:" + nix.EncodeBase32(append([]byte{long[0] ^ 1}, long[1:]...))
	for name, c := range map[string]struct {
		n   testNAR
		bad bool
	}{
		"flat":             {good, false},
		"text":             {addressed(t, nix.Text, string(content)), false},
		"sha512":           {withAddress(t, sha512CA, good.data), false},
		"other contents":   {withAddress(t, good.ca, other), true},
		"text of others":   {withAddress(t, "text:"+strings.TrimPrefix(good.ca, "fixed:"), other), true},
		"a program":        {withAddress(t, good.ca, program), true},
		"another sha512":   {withAddress(t, wrong512, good.data), true},
		"not a file's NAR": {withAddress(t, good.ca, newNAR(t, "x", 400_000, 0).data), true},
	} {
		for _, packs := range []int{1, 3} {
			h := newHouse(t)
			pieces, raws, list := h.cut(c.n)
			var after *[32]byte
			for i := range packs {
				from, to := i*len(pieces)/packs, (i+1)*len(pieces)/packs
				name, file := h.packed(pack.FlagOwn, pieces[from:to], raws[from:to])
				if err := h.put(h.a, after, name, file); err != nil {
					t.Fatal(err)
				}
				after = &name
			}
			_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: c.n.header(), Pieces: list}))
			if c.bad {
				wantBad(t, fmt.Sprintf("%s, %d packs", name, packs), err)
			} else if err != nil || h.path(h.a, c.n).CA != c.n.ca || !h.narRow(h.a, c.n).Verified {
				t.Errorf("%s, %d packs: %v, %+v", name, packs, err, h.path(h.a, c.n))
			}
		}
	}
}

// What passes by is hashed, whatever the algorithm: an old one is no reason to pass another file for it.
func TestForgedContentAddressOfEveryAlgorithmIsRefused(t *testing.T) {
	file, evil := addressed(t, nix.Flat, "good"), addressed(t, nix.Flat, "evil")
	for prefix, h := range map[string]hash.Hash{
		"fixed:md5:": md5.New(), "fixed:sha1:": sha1.New(), "fixed:sha512:": sha512.New(),
		"fixed:r:md5:": md5.New(), "fixed:r:sha1:": sha1.New(), "fixed:r:sha512:": sha512.New(),
	} {
		if strings.HasPrefix(prefix, "fixed:r:") {
			h.Write(file.data)
		} else {
			h.Write([]byte("good"))
		}
		house := newHouse(t)
		ca := prefix + nix.EncodeBase32(h.Sum(nil))
		if err := house.ingest(house.a, withAddress(t, ca, file.data)); err != nil {
			t.Errorf("%s: %v", ca, err)
		}
		wantBad(t, ca, house.ingest(house.b, withAddress(t, ca, evil.data)))
	}
}

// Without a proof of possession nobody has seen the bytes that a flat address hashes.
func TestContentAddressWithoutProofIsLeftOut(t *testing.T) {
	h := newHouse(t)
	evil := addressed(t, nix.Flat, "evil")
	if err := h.ingest(h.a, evil); err != nil {
		t.Fatal(err)
	}
	forged := addressed(t, nix.Flat, "good")
	forged.data = evil.data
	if _, err := h.Ingest(t.Context(), h.a, forged.upload(), strings.NewReader(""), false); err != nil {
		t.Fatal(err)
	}
	if p := h.path(h.a, forged); p.CA != "" {
		t.Errorf("the path has the address %s of other contents", p.CA)
	}
	recursive := addressed(t, nix.Recursive, "evil") // its digest is the NAR hash by which the NAR was found
	if _, err := h.Ingest(t.Context(), h.a, recursive.upload(), strings.NewReader(""), false); err != nil {
		t.Fatal(err)
	}
	if p := h.path(h.a, recursive); p.CA != recursive.ca {
		t.Errorf("the address %s was left out", recursive.ca)
	}
}

// A deduplicated upload is held to the same contents.
func TestForgedContentAddressIsRefusedForAKnownNAR(t *testing.T) {
	h := newHouse(t)
	evil := newNAR(t, "evil", 9000, 0)
	if err := h.ingest(h.a, evil); err != nil {
		t.Fatal(err)
	}
	n := addressed(t, nix.Flat, "good")
	n.data = evil.data
	wantBad(t, "flat", h.ingest(h.a, n))
}

func rename(t *testing.T, p nix.StorePath, name string) nix.StorePath {
	t.Helper()
	out, err := nix.ParseBaseName(p.Dir(), p.Hash()+"-"+name)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (h *house) path(s Scope, n testNAR) (p *meta.Path) {
	h.t.Helper()
	err := h.DB.View(h.t.Context(), func(tx *meta.Tx) (err error) {
		p, _, err = tx.Path(s.Cache.ID, n.path.Hash())
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// Who pushes the same NAR again could otherwise take its references away, and every client's closure
// with them, or add one, or stand as the uploader of what somebody else brought.
func TestSameNARAgainKeepsWhatThePathWas(t *testing.T) {
	for _, road := range []string{"ours", "stock"} {
		h := newHouse(t)
		push := func(s Scope, n testNAR) error {
			if road == "ours" {
				return h.commitErr(s, n)
			}
			return h.ingest(s, n)
		}
		n := newNAR(t, "x", 50_000, 2)
		if err := push(h.a, n); err != nil {
			t.Fatal(err)
		}
		before := h.path(h.a, n)
		mallory := h.a
		mallory.User = "mallory"
		evil := n
		evil.refs = nil
		if err := push(mallory, evil); err != nil {
			t.Fatal(err)
		}
		evil.refs = append(slices.Clone(n.refs), randomHash()+"-evil")
		if err := push(mallory, evil); err != nil {
			t.Fatal(err)
		}
		got := h.path(h.a, n)
		if !slices.Equal(got.References, before.References) || got.CreatedBy != "tester" || !got.CreatedAt.Equal(before.CreatedAt) {
			t.Errorf("%s: the path became %+v, was %+v", road, got, before)
		}
	}
}

// The 32 characters decide in every look-up, so a second name for them would rename the path.
func TestAnotherNameForTheSameHashIsKept(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 50_000, 1)
	h.push(h.a, 0, n)
	evil := n
	evil.path = rename(t, n.path, "evil")
	if got := h.push(h.a, 0, evil); got != api.Kept {
		t.Errorf("ours: %q, want kept", got)
	}
	if err := h.ingest(h.a, evil); err != nil {
		t.Fatal(err)
	}
	if got := h.path(h.a, n).StorePath; got != n.path.String() {
		t.Errorf("the path is %s now, was %s", got, n.path)
	}
}

// Signatures gather from many pushes; a path's row must not grow for ever.
func TestSignaturesOfAPathAreBounded(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 3000, 0)
	up := n.upload()
	for i := range maxSigs + 10 {
		up.Sigs = []string{newKey(t, fmt.Sprintf("k-%d", i)).Sign("x")}
		if _, err := h.Ingest(t.Context(), h.a, up, bytes.NewReader(n.data), true); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(h.path(h.a, n).Sigs); got != maxSigs {
		t.Errorf("%d signatures, want %d", got, maxSigs)
	}
	up.Sigs = slices.Repeat([]string{"k:" + strings.Repeat("A", 86) + "=="}, maxSigs+1)
	_, err := h.Ingest(t.Context(), h.a, up, bytes.NewReader(n.data), true)
	wantBad(t, "too many at once", err)
}

// A NAR that was put together from chunks is what its pusher says it is. In a cache that others read,
// he could name the hash of a NAR that they are about to push, and they would serve his bytes.
func TestAnUnverifiedNARStandsForNothingElse(t *testing.T) {
	for _, proof := range []bool{true, false} {
		h := newHouse(t)
		good, evil := newNAR(t, "x", 50_000, 1), newNAR(t, "evil", 60_000, 0)
		pieces, raws, list := h.cut(evil)
		name, file := h.packed(0, pieces, raws)
		if err := h.put(h.b, nil, name, file); err != nil {
			t.Fatal(err)
		}
		header := evil.header()
		header.NARHash = good.hash().String()
		if _, err := h.CommitPaths(t.Context(), h.b, items(api.PathItem{Header: header, Pieces: list})); err != nil {
			t.Fatal(err)
		}
		reader := h.a
		reader.Sees = append(reader.Sees, h.b.Cache.ID)
		if _, err := h.Ingest(t.Context(), reader, good.upload(), bytes.NewReader(good.data), proof); err != nil {
			t.Fatal(err)
		}
		h.wantNAR(h.a, good)
	}
}

// The same within a cache: the bytes that a path had claimed to be are replaced once they come, also
// when another cache has them already.
func TestVerifiedNARFromAnotherCacheReplacesAnUnverifiedOne(t *testing.T) {
	h := newHouse(t)
	good, evil := newNAR(t, "x", 50_000, 1), newNAR(t, "x", 60_000, 1)
	evil.path = good.path
	pieces, raws, list := h.cut(evil)
	name, file := h.packed(0, pieces, raws)
	if err := h.put(h.a, nil, name, file); err != nil {
		t.Fatal(err)
	}
	header := evil.header()
	header.NARHash = good.hash().String()
	if _, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list})); err != nil {
		t.Fatal(err)
	}
	if err := h.ingest(h.b, good); err != nil {
		t.Fatal(err)
	}
	reader := h.a
	reader.Sees = append(reader.Sees, h.b.Cache.ID)
	if err := h.ingest(reader, good); err != nil {
		t.Fatal(err)
	}
	h.wantNAR(h.a, good)
}

func newKey(t *testing.T, name string) nix.Keypair {
	t.Helper()
	k, err := nix.GenerateKeypair(name, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Where a cache names keys, the right to push is not enough: a stolen token alone brings nothing in.
func TestCacheTakesOnlyPathsSignedByListedKeys(t *testing.T) {
	h := newHouse(t)
	listed, other := newKey(t, "builder-1"), newKey(t, "builder-1")
	s := h.a
	s.SignedBy = []nix.PublicKey{newKey(t, "unused").Public(), listed.Public()}
	sign := func(k nix.Keypair, n testNAR, change func(*nix.NarInfo)) testNAR {
		info := nix.NarInfo{StorePath: n.path, NarHash: n.hash(), NarSize: uint64(len(n.data))}
		for _, base := range n.refs {
			ref, err := nix.ParseBaseName(nix.StoreDir, base)
			if err != nil {
				t.Fatal(err)
			}
			info.References = append(info.References, ref)
		}
		if change != nil {
			change(&info)
		}
		n.sigs = []string{other.Sign(info.Fingerprint()), k.Sign(info.Fingerprint())}
		return n
	}
	n := newNAR(t, "x", 3000, 2)
	for name, forged := range map[string]testNAR{
		"no signature":            n,
		"another key, same name":  sign(other, n, nil),
		"of another path":         sign(listed, n, func(i *nix.NarInfo) { i.StorePath = rename(t, n.path, "y") }),
		"of other contents":       sign(listed, n, func(i *nix.NarInfo) { i.NarHash[0] ^= 1 }),
		"of other references":     sign(listed, n, func(i *nix.NarInfo) { i.References = i.References[1:] }),
		"of the contents' length": sign(listed, n, func(i *nix.NarInfo) { i.NarSize++ }),
	} {
		wantBad(t, name+", stock", h.ingest(s, forged))
		wantBad(t, name+", ours", h.commitErr(s, forged))
	}
	if err := h.ingest(s, sign(listed, n, nil)); err != nil {
		t.Errorf("stock: %v", err)
	}
	if err := h.commitErr(s, sign(listed, newNAR(t, "y", 3000, 0), nil)); err != nil {
		t.Errorf("ours: %v", err)
	}
}

// Parts of a list that leave a gap are the client's mistake, not the server's.
func TestStagedPartAfterAGapIsRefused(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 1)
	_, _, list := h.cut(n)
	header := n.header()
	header.Offset, header.More = 10, true
	_, err := h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list}))
	wantBad(t, "gap", err)
	header.Offset = meta.MaxStaged
	_, err = h.CommitPaths(t.Context(), h.a, items(api.PathItem{Header: header, Pieces: list}))
	wantBad(t, "too long", err)
}

// Verification of a pack that unfolds to much ends with its request.
func TestVerifyingEndsWithItsRequest(t *testing.T) {
	h := newHouse(t)
	n := newNAR(t, "x", 100_000, 0)
	pieces, raws, _ := h.cut(n)
	name, file := h.packed(0, pieces, raws)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := h.PutPack(ctx, h.a, name, nil, int64(len(file)), &lastRead{bytes.NewReader(file), cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("of a client that is gone: %v", err)
	}
	if got := h.packCount(); got != 0 {
		t.Errorf("%d packs are stored", got)
	}
}

// lastRead calls done once all was read.
type lastRead struct {
	*bytes.Reader
	done func()
}

func (r *lastRead) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if r.Len() == 0 {
		r.done()
	}
	return n, err
}

package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/chunk"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/pack"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/server/servertest"
	"github.com/org/attic-action/internal/token"
)

// What a token for cache b learns of the private cache a is what differs, in all that he can see,
// between a server where a has what he looks for and one where it has not. So the attacker plays
// the same game in several worlds, and every answer has to be the same: status, headers, body, and
// the statements that the database ran for it (a clock would show those).

// A world is a server in which b is the same and a is not.
type world struct {
	*house
	name     string
	attacker map[string]string // his tokens
	log      []move
}

// A move is something that the attacker did, and all that came of it.
type move struct {
	what, answer string
	work         []string
}

// target is what the attacker wants to know about: all its bytes are known to him, for the question
// "does somebody here have this?" is the one that deduplication answers.
type target struct {
	small, large, own servertest.NAR // of a literal, of chunks in a shared pack, of an own pack
	largePack         packed
	ownPack           packed
}

// attackerKey is invented, and the same in all worlds.
const attackerKey = "b-1:bB1s7fJ26j/XSGohL9YrMvu57KpN6nBUVIZzcZndJO1aWBclVF1TPIz/sLZYx2L9jKohYSLq/OOt9IbEHp43ow=="

func newTarget(t *testing.T) target {
	t.Helper()
	x := target{
		small: servertest.NewNAR(t, "small", []byte("a NAR of one literal")),
		large: servertest.NewNAR(t, "large", pattern(1, 300_000)),
		own:   servertest.NewNAR(t, "own", pattern(2, 5<<20)),
	}
	x.largePack = packOf(t, 0, x.large.Bytes, 100_000)
	x.ownPack = packOf(t, pack.FlagOwn, x.own.Bytes, 512<<10)
	return x
}

// pattern is bytes that do not compress away, the same in each run.
func pattern(seed byte, n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256([]byte{seed}); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func packOf(t *testing.T, flags uint16, nar []byte, size int) packed {
	t.Helper()
	var p packed
	var file bytes.Buffer
	w, enc := pack.NewWriter(&file, flags), pack.NewEncoder()
	for raw := range slices.Chunk(nar, size) {
		id := chunk.Sum(raw)
		if err := w.Add(chunk.Chunk, id, enc.Frame(nil, raw), len(raw)); err != nil {
			t.Fatal(err)
		}
		p.ids, p.pieces = append(p.ids, id), chunk.AppendChunk(p.pieces, id)
	}
	var err error
	if p.sum, _, err = w.Finish(); err != nil {
		t.Fatal(err)
	}
	p.file = file.Bytes()
	return p
}

func newWorld(t *testing.T, name string, fill func(w *world), change ...func(*server.Server)) *world {
	t.Helper()
	w := &world{house: &house{Server: servertest.Start(t, change...)}, name: name}
	body := fmt.Sprintf(`{"keypair":{"Keypair":%q},"is_public":false,"store_dir":"/nix/store","priority":41,"upstream_cache_key_names":[]}`, attackerKey)
	if resp, text := w.Do(t, "POST", "/_api/v1/cache-config/b", w.Root, body); resp.StatusCode != 200 {
		t.Fatalf("create b: %s: %s", resp.Status, text)
	}
	fill(w)
	w.attacker = map[string]string{
		"nobody":       "",
		"forger":       "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
		"b":            w.Token(t, servertest.Grant{Caches: "b", Perm: token.All}),
		"b, push only": w.Token(t, servertest.Grant{Caches: "b", Perm: token.Push}),
		"b and more":   w.Token(t, servertest.Grant{Caches: "b*", Perm: token.All}),
		"b and pins":   w.PinToken(t, []string{"*"}, servertest.Grant{Caches: "b", Perm: token.All}),
	}
	return w
}

// worlds differ in what a has, from nothing at all to all that the attacker asks for.
func worlds(t *testing.T, x target) []*world {
	t.Helper()
	return []*world{
		newWorld(t, "no cache a", func(*world) {}),
		newWorld(t, "a is empty", func(w *world) { w.CreateCache(t, "a", false) }),
		newWorld(t, "a has it all", func(w *world) {
			w.CreateCache(t, "a", false)
			w.fill(t, x)
		}),
	}
}

// fill puts the target into a by both roads, and a part of a piece list that is still to be completed.
func (w *world) fill(t *testing.T, x target) {
	t.Helper()
	good := func(what string) func(*http.Response, string) {
		return func(resp *http.Response, body string) {
			t.Helper()
			if resp.StatusCode != 200 {
				t.Fatalf("%s: %s: %s", what, resp.Status, body)
			}
		}
	}
	good("small")(w.Upload(t, w.Root, "a", x.small))
	for _, p := range []packed{x.largePack, x.ownPack} {
		good("pack")(w.put(t, w.Root, "PUT", fmt.Sprintf("/_api/v1/cache/a/packs/%x", p.sum), p.file))
	}
	good("large")(w.commit(t, w.Root, "a", header(x.large), x.largePack.pieces))
	good("own")(w.commit(t, w.Root, "a", header(x.own), x.ownPack.pieces))
	staged := header(x.own)
	staged.More = true
	good("part of a list")(w.commit(t, w.Root, "a", staged, x.ownPack.pieces[:66]))
	pinner := w.PinToken(t, []string{"*"}, servertest.Grant{Caches: "a", Perm: token.Push})
	good("pin")(w.pin(t, pinner, "a", "main/large", x.large.Path))
}

// move sends a request and writes down all that the attacker can see.
func (w *world) move(t *testing.T, who, method, path string, body []byte, header ...string) {
	t.Helper()
	var answer strings.Builder
	work := w.Statements(func() {
		resp, text := w.put(t, w.attacker[who], method, path, body, header...)
		fmt.Fprintln(&answer, resp.Status, resp.ContentLength)
		for _, name := range slices.Sorted(mapKeys(resp.Header)) {
			switch name {
			case "Date":
			case "X-Request-Id":
				if b, err := hex.DecodeString(resp.Header.Get(name)); err != nil || len(b) != 8 {
					t.Errorf("request id %q is not 8 random bytes", resp.Header.Get(name))
				}
			default:
				fmt.Fprintf(&answer, "%s: %q\n", name, resp.Header[name])
			}
		}
		answer.WriteString(text)
	})
	work = ownWork(work)
	what := fmt.Sprintf("%s: %s %s %.60q %q", who, method, path, body, header)
	w.log = append(w.log, move{what: what, answer: strings.ReplaceAll(answer.String(), w.URL, "http://server"), work: work})
}

// ownWork leaves out what does not follow from what is asked: the list of caches is read again when it is
// old, and numbers of the log are taken by the thousand.
func ownWork(work []string) (own []string) {
	for i := 0; i < len(work); i++ {
		if work[i] == "BEGIN" && i+1 < len(work) && strings.Contains(work[i+1], "FROM caches WHERE deleted_at IS NULL ORDER BY") {
			for work[i] != "ROLLBACK" {
				i++
			}
			continue
		}
		if !strings.HasPrefix(work[i], "UPDATE counters") {
			own = append(own, work[i])
		}
	}
	return own
}

func mapKeys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range h {
			if !yield(k) {
				return
			}
		}
	}
}

// same compares what was seen in two worlds.
func same(t *testing.T, a, b *world) {
	t.Helper()
	for i, m := range a.log {
		n := b.log[i]
		if m.what != n.what {
			t.Fatalf("move %d is %s in one world and %s in another: the game is not the same", i, m.what, n.what)
		}
		if m.answer != n.answer {
			t.Errorf("%s\n── %s:\n%.2000s\n── %s:\n%.2000s", m.what, a.name, m.answer, b.name, n.answer)
		}
		if !slices.Equal(m.work, n.work) {
			t.Errorf("%s: the work differs\n── %s, %d statements:\n%s\n── %s, %d statements:\n%s", m.what,
				a.name, len(m.work), strings.Join(m.work, "\n"), b.name, len(n.work), strings.Join(n.work, "\n"))
		}
	}
}

// play runs the same moves in every world and compares what was seen.
func play(t *testing.T, game func(t *testing.T, w *world, x target)) {
	t.Helper()
	x := newTarget(t)
	all := worlds(t, x)
	for _, w := range all {
		game(t, w, x)
		same(t, all[0], w)
	}
	if len(all[0].log) == 0 {
		t.Error("no moves were made")
	}
}

func (w *world) json(t *testing.T, who, method, path, body string) {
	t.Helper()
	w.move(t, who, method, path, []byte(body), "Content-Type", "application/json")
}

func (w *world) paths(t *testing.T, who, cache string, hdr api.PathHeader, pieces []byte) {
	t.Helper()
	body, err := api.AppendPath(nil, hdr, pieces)
	if err != nil {
		t.Fatal(err)
	}
	w.move(t, who, "POST", "/_api/v1/cache/"+cache+"/paths", body, "Content-Type", api.PathsType)
}

func (w *world) upload(t *testing.T, who, cache string, n servertest.NAR, change map[string]any, body []byte) {
	t.Helper()
	w.move(t, who, "PUT", api.UploadPathRoute, body, api.NarInfoHeader, n.Info(t, cache, change))
}

// Whether a private cache exists, by every route that names it.
func TestIsolationOfNames(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		for _, who := range []string{"nobody", "forger", "b", "b, push only", "b and more"} {
			for _, path := range []string{"/a/nix-cache-info", "/a/attic-cache-info", "/_api/v1/cache-config/a"} {
				w.move(t, who, "GET", path, nil)
				w.move(t, who, "HEAD", path, nil)
			}
			w.json(t, who, "POST", "/_api/v1/cache-config/a", `{"keypair":"Generate","is_public":true,"store_dir":"/nix/store","priority":1,"upstream_cache_key_names":[]}`)
			w.json(t, who, "PATCH", "/_api/v1/cache-config/a", `{"is_public":true}`)
			w.json(t, who, "PATCH", "/_api/v1/cache-config/a", `{"keypair":"Generate"}`)
			w.json(t, who, "PATCH", "/_api/v1/cache-config/a", `{"retention_period":{"Period":1}}`)
			w.json(t, who, "PATCH", "/_api/v1/cache-config/a", `{}`)
			w.move(t, who, "DELETE", "/_api/v1/cache-config/a", nil)
			w.move(t, who, "PUT", "/a/nix-cache-info", nil)
			w.json(t, who, "POST", "/_api/v1/get-missing-paths", fmt.Sprintf(`{"cache":"a","store_path_hashes":[%q]}`, x.large.Path.Hash()))
			w.json(t, who, "POST", "/_api/v1/cache/a/closure", fmt.Sprintf(`{"store_path_hashes":[%q]}`, x.large.Path.Hash()))
			w.json(t, who, "POST", "/_api/v1/cache/a/closure", fmt.Sprintf(`{"store_path_hashes":[%q],"list":true}`, x.large.Path.Hash()))
			w.move(t, who, "POST", "/_api/v1/cache/a/chunks/missing", hashes(x.largePack.ids...))
			w.move(t, who, "PUT", fmt.Sprintf("/_api/v1/cache/a/packs/%x", x.largePack.sum), x.largePack.file)
			w.paths(t, who, "a", header(x.large), x.largePack.pieces)
			w.upload(t, who, "a", x.large, nil, x.large.Bytes)
			w.upload(t, who, "a", x.large, map[string]any{"nar_size": 0}, nil)
		}
	})
}

// Whether a private cache has a path, and whether a guess at its NAR's form is right.
func TestIsolationOfPaths(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		for _, who := range []string{"nobody", "forger", "b", "b, push only"} {
			for _, n := range []servertest.NAR{x.small, x.large, x.own} {
				for _, method := range []string{"GET", "HEAD"} {
					w.move(t, who, method, "/a/"+n.Path.Hash()+".narinfo", nil)
					w.move(t, who, method, "/a/nar/"+n.Path.Hash()+".nar", nil)
					w.move(t, who, method, "/a/nar/"+n.Path.Hash()+".nar?f=0000000000000000", nil, "Range", "bytes=1-2")
					w.move(t, who, method, "/a/nar/"+n.Path.Hash()+".nar", nil, "If-None-Match", "*")
					w.move(t, who, method, "/b/"+n.Path.Hash()+".narinfo", nil)
					w.move(t, who, method, "/b/nar/"+n.Path.Hash()+".nar", nil)
				}
			}
		}
		list := fmt.Sprintf("[%q,%q,%q]", x.small.Path.Hash(), x.large.Path.Hash(), x.own.Path.Hash())
		for _, who := range []string{"b", "b, push only"} {
			w.json(t, who, "POST", "/_api/v1/get-missing-paths", `{"cache":"b","store_path_hashes":`+list+`}`)
			w.json(t, who, "POST", "/_api/v1/cache/b/closure", `{"store_path_hashes":`+list+`}`)
			// A reference to it: complete, or missing?
			top := servertest.NewNAR(t, fmt.Sprintf("top-%d", len(who)), []byte("top"), x.large.Path.Base())
			w.paths(t, who, "b", header(top), chunk.AppendLiteral(nil, top.Bytes))
			w.upload(t, who, "b", top, nil, top.Bytes)
			w.json(t, who, "POST", "/_api/v1/cache/b/closure", fmt.Sprintf(`{"store_path_hashes":[%q]}`, top.Path.Hash()))
			w.json(t, who, "POST", "/_api/v1/cache/b/closure", fmt.Sprintf(`{"store_path_hashes":[%q],"list":true}`, top.Path.Hash()))
		}
	})
}

// Whether anybody has a chunk or a pack: the question that shared storage would answer.
func TestIsolationOfChunksAndPacks(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		unknown := chunk.Sum([]byte("nobody has this"))
		for _, who := range []string{"b", "b, push only"} {
			for _, ids := range [][]chunk.ID{
				x.largePack.ids, x.ownPack.ids, {x.largePack.ids[0]}, {unknown},
				slices.Repeat(x.largePack.ids[:1], 5000), // one question asked often would make a small difference large
				slices.Concat(x.ownPack.ids, []chunk.ID{unknown}, x.largePack.ids),
			} {
				w.move(t, who, "POST", "/_api/v1/cache/b/chunks/missing", hashes(ids...))
			}
			w.paths(t, who, "b", header(x.large), x.largePack.pieces)
			w.paths(t, who, "b", header(x.own), x.ownPack.pieces)
			// A pack that goes on from one that only a has, or that nobody has.
			tail := packOf(t, pack.FlagOwn, pattern(3, 1000), 1000)
			w.move(t, who, "PUT", fmt.Sprintf("/_api/v1/cache/b/packs/%x?after=%x", tail.sum, x.ownPack.sum), tail.file)
			w.move(t, who, "PUT", fmt.Sprintf("/_api/v1/cache/b/packs/%x", x.largePack.sum), x.largePack.file[:1000])
		}
		// He has the bytes himself and sends them: new to him, so they are taken as new.
		for _, p := range []packed{x.largePack, x.ownPack} {
			w.move(t, "b", "PUT", fmt.Sprintf("/_api/v1/cache/b/packs/%x", p.sum), p.file)
			w.move(t, "b", "PUT", fmt.Sprintf("/_api/v1/cache/b/packs/%x", p.sum), p.file)
			w.move(t, "b", "POST", "/_api/v1/cache/b/chunks/missing", hashes(p.ids...))
		}
		w.paths(t, "b", "b", header(x.large), x.largePack.pieces)
		w.paths(t, "b", "b", header(x.own), x.ownPack.pieces)
		// Form, sizes and ETag of what he pushed follow from what he pushed.
		for _, n := range []servertest.NAR{x.large, x.own} {
			w.move(t, "b", "GET", "/b/"+n.Path.Hash()+".narinfo", nil)
			w.move(t, "b", "GET", "/b/nar/"+n.Path.Hash()+".nar", nil)
		}
	})
}

// Whether a private cache has pins, of which names, and whether what is pinned there is in b for that.
func TestIsolationOfPins(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		body := fmt.Sprintf(`{"store_path":%q}`, x.large.Path)
		for _, who := range []string{"nobody", "forger", "b", "b, push only", "b and more", "b and pins"} {
			for _, name := range []string{"main%2Flarge", "main%2Fother", "main/large", "..", "a*"} {
				w.json(t, who, "PUT", "/_api/v1/cache/a/pins/"+name, body)
				w.json(t, who, "PUT", "/_api/v1/cache/a/pins/"+name, "{")
				w.move(t, who, "GET", "/_api/v1/cache/a/pins/"+name, nil)
				w.move(t, who, "GET", "/_api/v1/cache/a/pins/"+name+"?sizes=1", nil)
				w.move(t, who, "DELETE", "/_api/v1/cache/a/pins/"+name, nil)
				w.json(t, who, "PUT", "/_api/v1/cache/b/pins/"+name, body)
				w.move(t, who, "GET", "/_api/v1/cache/b/pins/"+name, nil)
				w.move(t, who, "DELETE", "/_api/v1/cache/b/pins/"+name, nil)
			}
			for _, query := range []string{"", "?sizes=1", "?after=main", "?limit=x"} {
				w.move(t, who, "GET", "/_api/v1/cache/a/pins"+query, nil)
				w.move(t, who, "GET", "/_api/v1/cache/b/pins"+query, nil)
			}
		}
		// What he pushed to b himself he pins there; sizes are of b.
		w.upload(t, "b", "b", x.small, nil, x.small.Bytes)
		small := fmt.Sprintf(`{"store_path":%q}`, x.small.Path)
		w.json(t, "b", "PUT", "/_api/v1/cache/b/pins/main%2Flarge", small)
	})
}

// Part of a list that a push to a left behind.
func TestIsolationOfStagedPieces(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		for _, offset := range []int64{0, 33, 66, 67} {
			hdr := header(x.own)
			hdr.Offset, hdr.More = offset, true
			w.paths(t, "b", "b", hdr, x.ownPack.pieces[66:99])
			hdr.More = false
			w.paths(t, "b", "b", hdr, x.ownPack.pieces[66:])
		}
	})
}

// Kind, fraction and file size of a stock upload: Attic tells by them what others have.
func TestIsolationOfUploads(t *testing.T) {
	play(t, func(t *testing.T, w *world, x target) {
		edited := x.own // the same chunks but one
		edited.Path = servertest.NewNAR(t, "edited", nil).Path
		edited.Bytes = append(bytes.Clone(x.own.Bytes[:4<<20]), pattern(9, 1<<20)...)
		for _, who := range []string{"b", "b, push only"} {
			for _, n := range []servertest.NAR{x.small, x.large, x.own} {
				// By the hash alone, without the bytes or with others: proof of possession.
				w.upload(t, who, "b", n, nil, nil)
				w.upload(t, who, "b", n, nil, n.Bytes[:len(n.Bytes)-1])
				w.upload(t, who, "b", n, nil, pattern(5, len(n.Bytes)))
				w.upload(t, who, "b", n, map[string]any{"nar_size": len(n.Bytes) + 1}, n.Bytes)
				w.upload(t, who, "b", n, map[string]any{"nar_size": 1}, n.Bytes[:1])
			}
		}
		for _, n := range []servertest.NAR{x.small, x.large, x.own, edited, x.own} {
			w.upload(t, "b", "b", n, nil, n.Bytes)
			w.move(t, "b", "GET", "/b/"+n.Path.Hash()+".narinfo", nil)
		}
	})
}

// Without proof of possession a server believes hashes, of what the caller may see and of nothing else.
func TestIsolationOfUploadsWithoutProof(t *testing.T) {
	x := newTarget(t)
	fill := func(w *world) {
		w.CreateCache(t, "a", false)
		w.fill(t, x)
	}
	w := newWorld(t, "a has it all", fill, func(s *server.Server) { s.WaivePossession = true })
	w.upload(t, "b", "b", x.large, nil, nil)
	if got := w.log[0].answer; !strings.HasPrefix(got, "400") {
		t.Errorf("a hash alone gave %s", got)
	}
}

// What b does must not change what a serves, nor what is known of its use.
func TestPushesToAnotherCacheChangeNothing(t *testing.T) {
	x := newTarget(t)
	w := newWorld(t, "a has it all", func(w *world) {
		w.CreateCache(t, "a", false)
		w.fill(t, x)
	})
	before := w.seenByVictim(t, x)
	evil := pattern(7, 4<<20)
	for _, n := range []servertest.NAR{x.small, x.large, x.own} {
		forged := n
		forged.Bytes = evil
		w.upload(t, "b", "b", forged, nil, evil)                                    // other contents for the same path
		w.upload(t, "b", "b", n, map[string]any{"references": []string{}}, n.Bytes) // the same contents
		w.paths(t, "b", "b", header(n), chunk.AppendLiteral(nil, n.Bytes[:20]))
	}
	// A NAR hash that is a's, claimed for other chunks.
	p := packOf(t, 0, pattern(8, 300_000), 100_000)
	w.move(t, "b", "PUT", fmt.Sprintf("/_api/v1/cache/b/packs/%x", p.sum), p.file)
	claimed := header(x.large)
	claimed.StorePath = servertest.NewNAR(t, "claimed", nil).Path.String()
	w.paths(t, "b", "b", claimed, p.pieces)
	w.json(t, "b", "POST", "/_api/v1/cache/b/closure", fmt.Sprintf(`{"store_path_hashes":[%q]}`, x.own.Path.Hash()))
	w.json(t, "b", "PATCH", "/_api/v1/cache-config/b", `{"priority":1,"is_public":true}`)
	w.move(t, "b", "DELETE", "/_api/v1/cache-config/b", nil)
	if after := w.seenByVictim(t, x); after != before {
		t.Errorf("a was changed from outside\n── before:\n%s\n── after:\n%s", before, after)
	}
}

// seenByVictim is all that a's users can see, and what garbage collection will go by.
func (w *world) seenByVictim(t *testing.T, x target) string {
	t.Helper()
	var out strings.Builder
	for _, n := range []servertest.NAR{x.small, x.large, x.own} {
		for _, path := range []string{"/a/" + n.Path.Hash() + ".narinfo", "/a/nar/" + n.Path.Hash() + ".nar"} {
			resp, body := w.Do(t, "GET", path, w.Root, "")
			fmt.Fprintf(&out, "%s %s %s %x\n", path, resp.Status, resp.Header.Get("ETag"), sha256.Sum256([]byte(body)))
		}
		err := w.DB.View(t.Context(), func(tx *meta.Tx) error {
			cache, err := tx.Cache("a")
			if err != nil {
				return err
			}
			p, nar, err := tx.Path(cache.ID, n.Path.Hash())
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%+v %+v\n", *p, *nar)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// The right to configure a cache is none to know which paths it has.
func TestConfiguringTokenLearnsNothingOfPaths(t *testing.T) {
	h := newHouse(t)
	absent := servertest.NewNAR(t, "absent", nil).Path.Hash()
	for _, path := range []string{"/priv/%s.narinfo", "/priv/nar/%s.nar"} {
		there, body := h.Do(t, "GET", fmt.Sprintf(path, h.nar.Path.Hash()), h.tokens["config"], "")
		gone, want := h.Do(t, "GET", fmt.Sprintf(path, absent), h.tokens["config"], "")
		if there.StatusCode != gone.StatusCode || body != want {
			t.Errorf("%s: %s %s when it is there, %s %s when not", path, there.Status, body, gone.Status, want)
		}
	}
}

// Every cache signs with its own key, what it serves as well as what another one serves.
func TestTwoCachesSignTheSamePathByTheirOwnKeys(t *testing.T) {
	h := newHouse(t)
	pub, priv := h.narinfo(t, "pub", h.nar), h.narinfo(t, "priv", h.nar)
	keys := map[string]nix.PublicKey{"pub": h.publicKey(t, "pub"), "priv": h.publicKey(t, "priv")}
	if pub.Fingerprint() != priv.Fingerprint() {
		t.Fatalf("fingerprints differ: %s and %s", pub.Fingerprint(), priv.Fingerprint())
	}
	for cache, info := range map[string]*nix.NarInfo{"pub": pub, "priv": priv} {
		for name, key := range keys {
			if got := key.Verify(info.Fingerprint(), info.Sigs[0]); got != (name == cache) {
				t.Errorf("%s's signature verifies with %s's key: %v", cache, name, got)
			}
		}
	}
}

// A cache that was public and is private now is so for the next request.
func TestPrivateAgainAtOnce(t *testing.T) {
	h := newHouse(t)
	path := "/pub/" + h.nar.Path.Hash() + ".narinfo"
	if resp, _ := h.Do(t, "GET", path, "", ""); resp.StatusCode != 200 {
		t.Fatalf("public: %s", resp.Status)
	}
	if resp, body := h.Do(t, "PATCH", "/_api/v1/cache-config/pub", h.Root, `{"is_public":false}`); resp.StatusCode != 200 {
		t.Fatalf("configure: %s: %s", resp.Status, body)
	}
	if resp, _ := h.Do(t, "GET", path, "", ""); resp.StatusCode != 404 {
		t.Errorf("private: %s, want 404", resp.Status)
	}
}

// Every field that a client may fill, by both roads, and the subject of his token: none may add a line to
// what is signed and served.
func TestNoFieldAddsALineToANarinfo(t *testing.T) {
	h := newHouse(t)
	const line = "\nSig: evil-1:AAAA"
	n := servertest.NewNAR(t, "lines", []byte("lines"))
	exp := time.Now().Add(time.Hour)
	claims := token.Claims{Subject: "me" + line, Expires: &exp}
	if err := claims.Caches.Add("pub", token.All); err != nil {
		t.Fatal(err)
	}
	evil, err := h.Authority.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, sep := range []string{"\n", "\r", "\r\n", "\u2028", "\u0085", "\x00"} {
		inject := strings.ReplaceAll(line, "\n", sep)
		for field, value := range map[string]any{
			"store_path": n.Path.String() + inject, "deriver": n.Path.Base() + inject, "system": "x86_64-linux" + inject,
			"ca": "fixed:r:sha256:" + strings.Repeat("0", 52) + inject, "references": []string{n.Path.Base() + inject},
			"sigs": []string{"k:" + strings.Repeat("A", 86) + "==" + inject}, "store_path_hash": n.Path.Hash() + inject,
			"cache": "pub" + inject, "nar_hash": fmt.Sprintf("sha256:%x", sha256.Sum256(n.Bytes)) + inject,
		} {
			h.UploadInfo(t, evil, n.Info(t, "pub", map[string]any{field: value}), n.Bytes)
		}
		hdr := header(n)
		for _, change := range []func(*api.PathHeader){
			func(p *api.PathHeader) { p.StorePath += inject },
			func(p *api.PathHeader) { p.NARHash += inject },
			func(p *api.PathHeader) { p.Deriver = n.Path.Base() + inject },
			func(p *api.PathHeader) { p.System = "x" + inject },
			func(p *api.PathHeader) { p.CA = "text:sha256:" + strings.Repeat("0", 52) + inject },
			func(p *api.PathHeader) { p.References = []string{n.Path.Base() + inject} },
			func(p *api.PathHeader) { p.Upstream = []string{n.Path.Base() + inject} },
			func(p *api.PathHeader) { p.Sigs = []string{"k:" + strings.Repeat("A", 86) + "==" + inject} },
		} {
			forged := hdr
			change(&forged)
			h.commit(t, evil, "pub", forged, chunk.AppendLiteral(nil, n.Bytes))
		}
	}
	// With the subject alone, the path goes in; its narinfo is what it would be for anybody.
	if resp, body := h.Upload(t, evil, "pub", n); resp.StatusCode != 200 {
		t.Fatalf("upload: %s: %s", resp.Status, body)
	}
	_, text := h.Do(t, "GET", "/pub/"+n.Path.Hash()+".narinfo", "", "")
	seen := map[string]int{}
	for l := range strings.Lines(text) {
		key, _, _ := strings.Cut(l, ": ")
		seen[key]++
	}
	for key, times := range seen {
		if times != 1 {
			t.Errorf("%d lines of %q:\n%s", times, key, text)
		}
	}
	if strings.Contains(text, "evil") {
		t.Errorf("the narinfo holds what was injected:\n%s", text)
	}
}

// An error text that quotes a stranger's URL, and a NAR that somebody pushed, are no pages of this site.
func TestAnswersAreNotTakenForPages(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/<script>alert(1)<%2Fscript>/nix-cache-info", "/pub/nar/" + h.nar.Path.Hash() + ".nar", "/nowhere"} {
		resp, _ := h.Do(t, "GET", path, "", "")
		if got := resp.Header.Get("X-Content-Type-Options"); got != "nosniff" || strings.Contains(resp.Header.Get("Content-Type"), "html") {
			t.Errorf("%s: %q, %q", path, got, resp.Header.Get("Content-Type"))
		}
	}
}

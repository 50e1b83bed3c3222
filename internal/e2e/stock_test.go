package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// stockInfo is what attic says of a path it uploads, key by key.
type stockInfo struct {
	Cache         string   `json:"cache"`
	StorePathHash string   `json:"store_path_hash"`
	StorePath     string   `json:"store_path"`
	References    []string `json:"references"`
	System        *string  `json:"system"`
	Deriver       *string  `json:"deriver"`
	Sigs          []string `json:"sigs"`
	CA            *string  `json:"ca"`
	NARHash       string   `json:"nar_hash"`
	NARSize       int      `json:"nar_size"`
}

// stockPaths holds what stockPath has read: a process for each path and time would be most of the tests.
var stockPaths sync.Map

type stockNAR struct {
	info stockInfo
	nar  []byte
}

// stockPath is a path as attic reads it: the whole NAR, by nix-store --dump.
func stockPath(t testing.TB, cache, path string) (stockInfo, []byte) {
	t.Helper()
	known, ok := stockPaths.Load(path)
	if !ok {
		known, _ = stockPaths.LoadOrStore(path, readStockPath(t, path))
	}
	info := known.(stockNAR).info
	info.Cache = cache
	return info, known.(stockNAR).nar
}

func readStockPath(t testing.TB, path string) stockNAR {
	t.Helper()
	env := environment(t.TempDir())
	dump := exec.Command("nix-store", "--dump", path)
	dump.Env = env
	nar := must(dump.Output())(t)
	refs := []string{}
	for _, ref := range strings.Fields(run(t, env, "nix-store", "--query", "--references", path)) {
		refs = append(refs, filepath.Base(ref))
	}
	slices.Sort(refs)
	return stockNAR{stockInfo{
		StorePathHash: hashOf(path), StorePath: path, References: refs, Sigs: []string{},
		NARHash: fmt.Sprintf("sha256:%x", sha256.Sum256(nar)), NARSize: len(nar),
	}, nar}
}

// stockRequest is an upload as attic's HTTP stack makes it: the scheme in lower case, a body of unknown
// length. The description is in a header while it is short, else in front of the NAR.
func stockRequest(t testing.TB, url, tok string, info stockInfo, nar io.Reader, preamble bool) *http.Request {
	t.Helper()
	text := must(json.Marshal(info))(t)
	body := nar
	if preamble = preamble || len(text) >= 4096; preamble {
		body = io.MultiReader(bytes.NewReader(text), nar)
	}
	req := must(http.NewRequest(http.MethodPut, url+"/_api/v1/upload-path", struct{ io.Reader }{body}))(t)
	req.Header.Set("Authorization", "bearer "+tok)
	req.Header.Set("User-Agent", "Attic/attic-client (nixpkgs)")
	req.Header.Set("Accept", "*/*")
	if preamble {
		req.Header.Set("X-Attic-Nar-Info-Preamble-Size", fmt.Sprint(len(text)))
	} else {
		req.Header.Set("X-Attic-Nar-Info", string(text))
	}
	return req
}

// stockMissing asks as attic does which of the paths a cache lacks, and returns their hashes.
func (s *server) stockMissing(cache, tok string, paths []string) map[string]bool {
	s.t.Helper()
	return must(s.askMissing(cache, tok, paths))(s.t)
}

func (s *server) askMissing(cache, tok string, paths []string) (map[string]bool, error) {
	hashes := make([]string, len(paths))
	for i, path := range paths {
		hashes[i] = hashOf(path)
	}
	body, err := json.Marshal(map[string]any{"cache": cache, "store_path_hashes": hashes})
	if err != nil {
		return nil, err
	}
	req := s.request(http.MethodPost, "/_api/v1/get-missing-paths", tok, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var out struct {
		MissingPaths []string `json:"missing_paths"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.MissingPaths == nil {
		return nil, fmt.Errorf("missing paths: %s: %w", resp.Status, err)
	}
	missing := map[string]bool{}
	for _, hash := range out.MissingPaths {
		missing[hash] = true
	}
	return missing, nil
}

// stockPush uploads paths as attic does, five at a time, dependants before what they need. It returns
// how many answers were of each kind.
func (s *server) stockPush(cache, tok string, paths []string, preamble bool) map[string]int {
	s.t.Helper()
	missing := s.stockMissing(cache, tok, paths)
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return !missing[hashOf(path)] })
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b[44:], a[44:]) }) // by name, backwards
	var mu sync.Mutex
	kinds := map[string]int{}
	var wg sync.WaitGroup
	work := make(chan string)
	for range 5 {
		wg.Go(func() {
			for path := range work {
				kind := s.stockUpload(cache, tok, path, preamble)
				mu.Lock()
				kinds[kind]++
				mu.Unlock()
			}
		})
	}
	for _, path := range paths {
		work <- path
	}
	close(work)
	wg.Wait()
	return kinds
}

func (s *server) stockUpload(cache, tok, path string, preamble bool) (kind string) {
	info, nar := stockPath(s.t, cache, path)
	resp, err := http.DefaultTransport.RoundTrip(stockRequest(s.t, s.url, tok, info, bytes.NewReader(nar), preamble))
	if err != nil {
		s.t.Errorf("upload %s: %v", path, err)
		return "error"
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // a torn answer does not decode
	var out struct{ Kind string }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(text, &out) != nil {
		s.t.Errorf("upload %s: %s: %s", path, resp.Status, tail(string(text)))
	}
	return out.Kind
}

func TestStockClientsUploadsArePulled(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	for _, preamble := range []bool{false, true} {
		name := map[bool]string{false: "header", true: "preamble"}[preamble]
		t.Run(name, func(t *testing.T) {
			tok, key := s.cache(name, true)
			if kinds := s.stockPush(name, tok, paths, preamble); kinds["Uploaded"]+kinds["Deduplicated"] != len(paths) {
				t.Fatalf("answers: %v", kinds)
			}
			if missing := s.stockMissing(name, tok, paths); len(missing) > 0 {
				t.Errorf("still missing: %v", missing)
			}
			eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/"+name, key, top) })
		})
	}
}

// Many references make a description that does not fit a header of 4 KiB.
func TestLongDescriptionGoesInFrontOfTheNAR(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", true)
	top := build(t, "", `let leaf = i: make "a-leaf-with-a-name-that-is-rather-long-${toString i}" "echo ${toString i} >$out";
		in make "many" "echo ${toString (map leaf (range 60))} >$out"`)[0]
	info, _ := stockPath(t, "main", top)
	if text := must(json.Marshal(info))(t); len(text) < 4096 {
		t.Fatalf("the description has only %d bytes", len(text))
	}
	s.stockPush("main", tok, closure(t, top), false)
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
}

func TestBothClientsDeduplicateAgainstEachOther(t *testing.T) {
	t.Parallel()
	top := build(t, "", network)[0]
	paths := closure(t, top)
	ours := func(s *server, tok, cache string) { mustPush(t, s.url, tok, cache, top) }
	stock := func(s *server, tok, cache string) { s.stockPush(cache, tok, paths, false) }
	for _, c := range []struct {
		name          string
		first, second func(s *server, tok, cache string)
	}{
		{"ours after attic's", stock, ours},
		{"attic's after ours", ours, stock},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startServer(t)
			tok, _ := s.cache("first", true)
			c.first(s, tok, "first")
			before := s.stored()
			if before < 25<<20 {
				t.Fatalf("only %d bytes are stored", before)
			}
			tok, key := s.cache("second", true)
			c.second(s, tok, "second")
			if added := s.stored() - before; added != 0 {
				t.Errorf("the same paths by the other client added %d bytes to %d", added, before)
			}
			pull(t, rig.nixes[0], s.url+"/second", key, top)
		})
	}
}

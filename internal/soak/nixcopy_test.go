package soak

import (
	"crypto/sha256"
	"math/rand/v2"
	"net/http"

	"github.com/klauspost/compress/zstd"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nix"
)

var zstdEncoder, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)) // it is valid or nothing passes

// copy brings a closure as nix copy does: of each path that is missing the NAR, and then the narinfo that names it,
// what is needed first.
func (w *world) copy(r *rand.Rand, s *shelf, top string, between func()) outcome {
	for range 8 {
		missing, end := w.missingPaths(s, w.forge.closure(top))
		for i := 0; i < len(missing) && end == done; i++ {
			between()
			end = w.copyPath(r, s, missing[i], between)
		}
		if _, there := w.m.caches[s.name]; end != refused || !there {
			return end
		}
	}
	w.wrong("a copy of %s to %s comes to no end", top, s.name)
	return gone
}

// copyPath sends one path. refused means that a reference or the NAR went meanwhile, or the cache did.
func (w *world) copyPath(r *rand.Rand, s *shelf, p *product, between func()) outcome {
	file, ext, compression := p.nar, ".nar", "none"
	if r.IntN(2) == 0 {
		file, ext, compression = zstdEncoder.EncodeAll(p.nar, nil), ".nar.zst", "zstd"
	}
	sum := nix.Hash(sha256.Sum256(file))
	name := "nar/" + sum.Base32() + ext
	if end := w.copyPart(s, name, file); end != done {
		return end
	}
	between()
	w.brings(s, p)
	info := nix.NarInfo{StorePath: p.path, URL: name, Compression: compression, FileHash: sum, FileSize: uint64(len(file)), NarHash: p.sum, NarSize: uint64(len(p.nar))}
	for _, base := range p.base {
		ref, err := nix.ParseBaseName(nix.StoreDir, base)
		w.must(err)
		info.References = append(info.References, ref)
	}
	end := w.copyPart(s, p.path.Hash()+".narinfo", info.Format())
	if end == done {
		w.acknowledged(s, p, true)
	}
	return end
}

func (w *world) copyPart(s *shelf, name string, body []byte) outcome {
	rec, ok := w.ask("PUT", "/"+s.name+"/"+name, w.token(s.name), nil, body)
	if w.failed(rec, ok, "put "+name) {
		return gone
	}
	_, there := w.m.caches[s.name]
	switch {
	case rec.Code == http.StatusOK:
		return done
	case !there, named(rec, api.MissingReferences), rec.Code == http.StatusConflict: // it went, or the process that had the NAR
		return refused
	}
	w.wrong("put %s to %s: %d %s", name, s.name, rec.Code, rec.Body)
	return refused
}

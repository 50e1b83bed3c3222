package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/unpack"
	"github.com/org/attic-action/internal/waiting"
)

// What follows takes what nix copy sends to a binary cache over HTTP:
//
//	PUT nar/<hash of the file>.nar.xz   waits (package waiting): its references are not known
//	PUT <path hash>.narinfo             names it; now it is cut and packed as any upload is
//
// The hash in the URL of the NAR is of the compressed file, in 52 digits of Nix's base-32; that of a NAR to
// be read is of a path, in 32. So the two cannot be confused.

const (
	// A NAR may unfold to unfoldFree bytes, or unfoldMost times its own. Beyond, it is sooner a bomb than a store
	// path; the size that its narinfo claims is the tighter bound, but a lie costs nothing.
	unfoldFree = 16 << 30
	unfoldMost = 1000
)

// extensions are those of NAR files, and the compressions that they are of.
var extensions = map[string]string{"nar": "none", "nar.xz": "xz", "nar.zst": "zstd", "nar.bz2": "bzip2"}

// A narFile is the name of an uploaded NAR: nar/<hash>.nar.xz.
type narFile struct {
	hash        [32]byte // SHA-256 of the compressed bytes
	compression string
}

// parseNARFile reads the last segment of a NAR's URL. ok is false for what is no hash of a file.
func parseNARFile(name string) (f narFile, ok bool, err error) {
	digits, ext, _ := strings.Cut(name, ".")
	if len(digits) != 52 {
		return f, false, nil
	}
	b, err := nix.DecodeBase32(digits)
	if err != nil || len(b) != len(f.hash) {
		return f, false, nil
	}
	f.hash = [32]byte(b)
	if f.compression = extensions[ext]; f.compression == "" {
		return f, true, &statusError{status: http.StatusUnsupportedMediaType, name: api.RequestError,
			msg: fmt.Sprintf("NARs are taken as .nar, .nar.xz, .nar.zst and .nar.bz2, not .%.40s: add ?compression=zstd to the URL of the cache.", ext)}
	}
	return f, true, nil
}

func (s *Server) waitingKey(r *http.Request, cache *meta.Cache, f narFile) waiting.Key {
	return waiting.Key{Cache: cache.ID, Holder: holderOf(r), File: f.hash}
}

// pushing is what every upload of Nix begins with. Whoever may push and not pull is told what is wrong: Nix asks
// for what is there all the time.
func (s *Server) pushing(r *http.Request, object string) (*meta.Cache, error) {
	name, err := cacheParam(r)
	if err != nil {
		return nil, err
	}
	audited(r, audit.Upload, name).Object = object
	cache, err := s.permit(r, name, token.Push, "push to this cache")
	if err != nil {
		return nil, err
	}
	return cache, s.pace(r)
}

func (s *Server) putNAR(w http.ResponseWriter, r *http.Request) error {
	name, err := param(r, "name")
	if err != nil {
		return err
	}
	f, ok, err := parseNARFile(name)
	if err != nil {
		return err
	}
	if !ok {
		return requestError("nar/%.100s: not the SHA-256 of a file in 52 digits, and .nar", name)
	}
	cache, err := s.pushing(r, name)
	if err != nil {
		return err
	}
	size := r.ContentLength
	switch {
	case s.Waiting == nil:
		return &statusError{status: http.StatusMethodNotAllowed, name: api.RequestError, msg: "This server takes no uploads from Nix."}
	case size < 0:
		return &statusError{status: http.StatusLengthRequired, name: api.RequestError, msg: "The upload of a NAR needs a Content-Length."}
	case size > s.Limits.Waiting:
		return &statusError{status: http.StatusRequestEntityTooLarge, name: api.RequestError, msg: fmt.Sprintf(
			"A NAR of %d bytes is more than the %d that may wait for their narinfos here; attic-action push and attic push send it piece by piece.",
			size, s.Limits.Waiting)}
	}
	leave, err := s.heavy.enter(r, s.heavy.waiting, size)
	if err != nil {
		return err
	}
	if b, ok := r.Body.(body); ok {
		defer b.meter.retire() // its place outlives the request
	}
	leaveUploads, err := s.heavy.enter(r, s.heavy.uploads, 1)
	if err != nil {
		leave()
		return err
	}
	defer leaveUploads()
	err = s.Waiting.Put(r.Context(), s.waitingKey(r, cache, f), size, r.Body, leave)
	if errors.Is(err, waiting.ErrHash) || errors.Is(err, waiting.ErrShort) {
		return requestError("nar/%s: %v", name, err)
	}
	if err != nil {
		return err
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

func (s *Server) putNarInfo(w http.ResponseWriter, r *http.Request) error {
	_, hash, err := nameParam(r, "narinfo")
	if err != nil {
		return err
	}
	cache, err := s.pushing(r, hash+".narinfo")
	if err != nil {
		return err
	}
	info, err := s.readNarInfo(r)
	if err != nil {
		return err
	}
	recordOf(r).event.Object = info.StorePath.Base()
	if info.StorePath.Hash() != hash {
		return requestError("narinfo: %s is not what %s.narinfo is about", info.StorePath, hash)
	}
	if info.StorePath.Dir() != cache.StoreDir {
		return requestError("narinfo: %s is not in the cache's store %s", info.StorePath, cache.StoreDir)
	}
	f, err := fileOf(info)
	if err != nil {
		return err
	}
	leave, err := s.heavy.enter(r, s.heavy.uploads, 1)
	if err != nil {
		return err
	}
	defer leave()
	scope, err := s.scope(r.Context(), callerOf(r), cache)
	if err != nil {
		return err
	}
	if err := s.takeNAR(r.Context(), scope, uploadOf(info), s.waitingKey(r, cache, f), f); err != nil {
		return err
	}
	err = s.DB.Update(r.Context(), func(tx *meta.Tx) error { return tx.PutUploadedFile(cache.ID, f.hash, hash) })
	if err != nil {
		return err
	}
	recordOf(r).event.Objects = 1
	s.Waiting.Stir() // somebody may wait for this path
	send(w, http.StatusOK, "", nil)
	return nil
}

// readNarInfo reads the body, whatever it is encoded in, up to the longest narinfo.
func (s *Server) readNarInfo(r *http.Request) (*nix.NarInfo, error) {
	if s.Waiting == nil {
		return nil, &statusError{status: http.StatusMethodNotAllowed, name: api.RequestError, msg: "This server takes no uploads from Nix."}
	}
	text, err := decodedBody(r, int64(s.MaxNarInfoSize))
	if err != nil {
		return nil, err
	}
	info, err := nix.ParseNarInfo(strings.NewReader(string(text)))
	if err != nil {
		return nil, requestError("%v", err)
	}
	if info.NarSize > maxNARSize {
		return nil, requestError("narinfo: NarSize: %d is more than a NAR can have", info.NarSize)
	}
	if len(info.References) > maxReferences {
		return nil, requestError("narinfo: more than %d references", maxReferences)
	}
	return info, nil
}

// fileOf is the file that a narinfo names: one that was uploaded beside it, and nothing else.
func fileOf(info *nix.NarInfo) (narFile, error) {
	name, _ := strings.CutPrefix(info.URL, "nar/")
	f, ok, err := parseNARFile(name)
	switch {
	case err != nil:
		return f, err
	case !ok || name == info.URL:
		return f, requestError("narinfo: URL: %.100q is not nar/, the SHA-256 of a file in 52 digits, and .nar", info.URL)
	case f.compression != info.Compression:
		return f, requestError("narinfo: %.100q is no file of compression %.40q", info.URL, info.Compression)
	case !info.FileHash.IsZero() && info.FileHash != f.hash:
		return f, requestError("narinfo: FileHash is not the hash in the URL")
	}
	return f, nil
}

func uploadOf(info *nix.NarInfo) depot.Upload {
	up := depot.Upload{Path: info.StorePath, NARHash: info.NarHash, NARSize: info.NarSize,
		Deriver: info.Deriver, System: info.System, CA: info.CA, Sigs: info.Sigs}
	for _, ref := range info.References {
		up.References = append(up.References, ref.Base())
	}
	up.DropUnfounded()
	return up
}

// takeNAR stores the path with the NAR that waits for it. A path that is here with this NAR needs no other:
// the answer to the same narinfo may have been lost.
func (s *Server) takeNAR(ctx context.Context, scope depot.Scope, up depot.Upload, key waiting.Key, f narFile) error {
	within, cancel := context.WithTimeout(ctx, s.Limits.Early)
	defer cancel()
	if err := s.awaitReferences(within, ctx, scope, up); err != nil {
		return err
	}
	nar, err := s.awaitNAR(within, ctx, scope, up, key)
	if err != nil || nar == nil {
		return err
	}
	used := false
	defer func() { nar.Done(used) }()
	var head [unpack.HeadSize]byte
	n, err := nar.ReadAt(head[:], 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read NAR that waits: %w", err)
	}
	up.Overhead = unpack.Memory(f.compression, head[:n])
	z, err := unpack.NewReaderWithin(f.compression, nar, up.Overhead)
	if err != nil {
		return requestError("nar: %v", err)
	}
	defer z.Close()
	_, err = s.Depot.Ingest(ctx, scope, up, &unfolded{r: z, size: int64(up.NARSize), most: max(unfoldFree, unfoldMost*nar.Size())}, true)
	used = err == nil
	return err
}

// awaitReferences waits until all references of up are here.
func (s *Server) awaitReferences(within, ctx context.Context, scope depot.Scope, up depot.Upload) error {
	for {
		changed := s.Waiting.Changed()
		missing, err := s.Depot.MissingReferences(ctx, scope, up)
		if err != nil || len(missing) == 0 {
			return err
		}
		select {
		case <-changed:
		case <-within.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &depot.MissingReferencesError{Refs: missing}
		}
	}
}

// awaitNAR waits for the NAR. It is nil when the path is here with that NAR.
func (s *Server) awaitNAR(within, ctx context.Context, scope depot.Scope, up depot.Upload, key waiting.Key) (*waiting.NAR, error) {
	for {
		changed := s.Waiting.Changed()
		if nar, ok := s.Waiting.Take(key); ok {
			return nar, nil
		}
		if here, err := s.hasNAR(ctx, scope, up); err != nil || here {
			return nil, err
		}
		select {
		case <-changed:
		case <-within.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &statusError{status: http.StatusConflict, name: api.RequestError,
				msg: "The NAR that the narinfo names is not here: send it before the narinfo, and as the same user."}
		}
	}
}

func (s *Server) hasNAR(ctx context.Context, scope depot.Scope, up depot.Upload) (here bool, err error) {
	err = s.DB.View(ctx, func(tx *meta.Tx) error {
		path, nar, err := tx.Path(scope.Cache.ID, up.Path.Hash())
		if errors.Is(err, meta.ErrNotFound) {
			return nil
		}
		here = err == nil && !nar.Damaged && path.StorePath == up.Path.String() && nar.Hash == up.NARHash && nar.Size == up.NARSize
		return err
	})
	return here, err
}

// unfolded is what a decoder makes of a file: as much as was claimed and not more than there may be. Its
// faults are the client's.
type unfolded struct {
	r    io.Reader
	size int64 // bytes that were claimed, and are still to come
	most int64 // bytes that there may be yet
}

func (u *unfolded) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	u.size -= int64(n)
	if u.size == 0 && err == nil { // who reads stops here, and would not see that it goes on
		var more [1]byte
		var m int
		m, err = io.ReadFull(u.r, more[:])
		u.size -= int64(m)
	}
	if u.size < 0 {
		return n, requestError("the NAR is longer than its narinfo says")
	}
	if u.most -= int64(n); u.most < 0 {
		return n, requestError("the NAR unfolds to more than %d times its size; attic-action push sends it", unfoldMost)
	}
	if err != nil && err != io.EOF {
		err = requestError("the NAR cannot be decompressed: %v", err)
	}
	return n, err
}

// encodings are the values of Content-Encoding that are taken, and their compressions.
var encodings = map[string]string{"": "none", "identity": "none", "xz": "xz", "zstd": "zstd", "bzip2": "bzip2", "gzip": "gzip"}

// encodedBody is the request's body, decoded as its Content-Encoding says, and the memory that this takes.
func encodedBody(r *http.Request) (body io.ReadCloser, memory int64, err error) {
	compression, ok := encodings[r.Header.Get("Content-Encoding")]
	if !ok {
		return nil, 0, &statusError{status: http.StatusUnsupportedMediaType, name: api.RequestError,
			msg: "Content-Encoding is none of xz, zstd, bzip2 and gzip."}
	}
	if compression == "none" {
		return io.NopCloser(r.Body), 0, nil
	}
	const memoryOfTexts = 16 << 20
	z, err := unpack.NewReaderWithin(compression, r.Body, memoryOfTexts)
	if err != nil {
		return nil, 0, requestError("the body cannot be decompressed: %v", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{&unpacked{z}, z}, memoryOfTexts, nil
}

// unpacked tells the faults of what was sent from those of the sending.
type unpacked struct{ r io.Reader }

func (d *unpacked) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, errBody) {
		err = requestError("the body cannot be decompressed: %v", err)
	}
	return n, err
}

// decodedBody reads all of the body, decoded, up to limit bytes.
func decodedBody(r *http.Request, limit int64) ([]byte, error) {
	b, _, err := encodedBody(r)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return readAtMost(b, limit, -1)
}

package importer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/unpack"
)

// Where is a source, as it goes from the command to the process that has the database.
type Where struct {
	URL string // http://, https:// or file://, without a slash at the end
	// AuthToken is the header Authorization, for URL's scheme, host and port alone; empty: none.
	AuthToken string
	// Private says that the source itself is at an address that is not public, so that it may send us to
	// others that are not.
	Private bool
}

// Source is a binary cache to read from: a folder, or a server over HTTP.
type Source struct {
	Where

	base   *url.URL
	client *http.Client
	folder *os.Root // nil: over HTTP
	stall  time.Duration
}

// What callers tell apart.
var (
	ErrUnauthorized = errors.New("it wants a token: --netrc FILE or --token-file FILE")
	// ErrRefused says that the source, or what it sends us to, is one that we do not go to.
	ErrRefused = errors.New("refused")
)

// passing is an error that may be gone with the next try.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

func mayPass(err error) bool { return errors.As(err, new(passing)) }

// Parse reads a source's URL; the name of a folder is one too.
func Parse(s string) (*url.URL, error) {
	if path.IsAbs(s) {
		s = (&url.URL{Scheme: "file", Path: s}).String()
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%.200q is not a URL", s)
	case u.User != nil:
		return nil, errors.New("a URL with a password in it shows the password to everybody: put it into a file, for --netrc")
	case u.Scheme == "file" && (u.Host != "" || !path.IsAbs(u.Path) || strings.Trim(u.Path, "/") == ""):
		return nil, fmt.Errorf("%.200q: want file:// and the whole path of a folder", s)
	case u.Scheme != "file" && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == ""):
		return nil, fmt.Errorf("%.200q: want https://HOST/CACHE, http://HOST/CACHE, or a folder", s)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%.200q: the URL of a cache has no query", s)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// Open opens a source; Close it in the end.
func Open(w Where) (*Source, error) {
	u, err := Parse(w.URL)
	if err != nil {
		return nil, err
	}
	w.URL = u.String()
	s := &Source{Where: w, base: u, stall: stallTime}
	if u.Scheme == "file" {
		if s.folder, err = os.OpenRoot(u.Path); err != nil {
			return nil, fmt.Errorf("open source: %w", err)
		}
		return s, nil
	}
	s.client = newClient(u, w.Private)
	return s, nil
}

// Close ends connections that are kept.
func (s *Source) Close() error {
	if s.folder != nil {
		return s.folder.Close()
	}
	s.client.CloseIdleConnections()
	return nil
}

// maxText bounds what is read whole, beside lists.
const maxText = 1 << 20

// StoreDir is the store of the source's paths, and proves that it is a binary cache.
func (s *Source) StoreDir(ctx context.Context) (string, error) {
	text, err := s.text(ctx, "nix-cache-info", maxText)
	if errors.Is(err, ErrAbsent) {
		return "", fmt.Errorf("%s has no nix-cache-info, so it is no binary cache", s.URL)
	}
	if err != nil {
		return "", fmt.Errorf("read %s/nix-cache-info: %w", s.URL, err)
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok {
			return strings.TrimSpace(dir), nil
		}
	}
	if !bytes.Contains(text, []byte("WantMassQuery")) && !bytes.Contains(text, []byte("Priority")) {
		return "", fmt.Errorf("%s/nix-cache-info is not what a binary cache has there", s.URL)
	}
	return nix.StoreDir, nil
}

// NarInfo reads what the source says of a path; ErrAbsent if it has none of the hash.
func (s *Source) NarInfo(ctx context.Context, hash string) (*nix.NarInfo, error) {
	text, err := s.text(ctx, hash+".narinfo", maxText)
	if err != nil {
		return nil, err
	}
	info, err := nix.ParseNarInfo(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s.narinfo: %w", hash, err)
	}
	if info.StorePath.Hash() != hash {
		return nil, fmt.Errorf("%s.narinfo is of another path, %s", hash, info.StorePath)
	}
	return info, nil
}

func (s *Source) text(ctx context.Context, name string, limit int64) ([]byte, error) {
	return s.textAt(ctx, s.base.JoinPath(name), limit)
}

// textAt reads what lies at a URL whole.
func (s *Source) textAt(ctx context.Context, u *url.URL, limit int64) ([]byte, error) {
	body, err := s.open(ctx, u)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, limit+1))
	if err == nil && int64(len(text)) > limit {
		return nil, fmt.Errorf("%.200s is longer than %d bytes", u, limit)
	}
	return text, err
}

// open opens what lies at a URL. Its body is a problem once it does not go on.
func (s *Source) open(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	if s.folder != nil {
		return s.openFile(u)
	}
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("ask the source: %w", err)
	}
	req.Header.Set("User-Agent", "attic-server import")
	req.Header.Set("Accept-Encoding", "identity")
	if s.AuthToken != "" && sameOrigin(u, s.base) {
		req.Header.Set("Authorization", s.AuthToken)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, asProblem(outer, err)
	}
	if err := status(resp); err != nil {
		_ = resp.Body.Close() // of an answer that is not used
		cancel(nil)
		return nil, err
	}
	return &pacedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, stall: s.stall}, nil
}

func asProblem(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, ErrRefused) {
		return err
	}
	return passing{fmt.Errorf("ask the source: %w", err)}
}

func status(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusNotFound, code == http.StatusForbidden, code == http.StatusGone: // a bucket says 403 where it lists nothing
		return ErrAbsent
	case code == http.StatusUnauthorized:
		return ErrUnauthorized
	case code == http.StatusTooManyRequests, code >= 500:
		return passing{fmt.Errorf("the source answered %s", resp.Status)}
	default:
		return fmt.Errorf("the source answered %s", resp.Status)
	}
}

func (s *Source) openFile(u *url.URL) (io.ReadCloser, error) {
	name, ok := strings.CutPrefix(u.Path, s.base.Path+"/")
	if !ok || u.Scheme != "file" || u.Host != "" {
		return nil, fmt.Errorf("%w: %.200q is not in the folder", ErrRefused, u)
	}
	f, err := s.folder.Open(name) // links that lead out of the folder are an error
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		_ = f.Close() // nothing was read
		return nil, fmt.Errorf("read source: %s is no file", name)
	}
	return f, nil
}

// NAR reads a path's NAR, decoded. It ends with an error rather than short or long of info.NarSize, and never
// reads more from the source than a NAR of that size can need. Its decoder has so much memory, in bytes. fetched counts
// what came.
func (s *Source) NAR(ctx context.Context, info *nix.NarInfo, memory int64, fetched *int64) (io.ReadCloser, error) {
	if !unpack.Known(info.Compression) {
		return nil, fmt.Errorf("%s: %w", info.StorePath.Base(), unknownCompression(info.Compression))
	}
	ref, err := url.Parse(info.URL)
	if err != nil {
		return nil, fmt.Errorf("%s: its URL %.200q is none", info.StorePath.Base(), info.URL)
	}
	at := (&url.URL{Scheme: s.base.Scheme, Host: s.base.Host, Path: s.base.Path + "/"}).ResolveReference(ref)
	if s.folder == nil && at.Scheme != "https" && at.Scheme != s.base.Scheme || at.User != nil {
		return nil, fmt.Errorf("%w: %s lies at %.200q", ErrRefused, info.StorePath.Base(), info.URL)
	}
	body, err := s.open(ctx, at)
	if errors.Is(err, ErrAbsent) {
		return nil, fmt.Errorf("the source lacks the NAR of %s, %.200s", info.StorePath.Base(), info.URL)
	}
	if err != nil {
		return nil, err
	}
	most := int64(info.NarSize) + int64(info.NarSize)/8 + 1<<20 // what compresses badly grows by less
	raw := &limited{r: body, left: most, count: fetched}
	nar, err := unpack.NewReaderWithin(info.Compression, raw, memory)
	if err != nil {
		_ = body.Close() // the error before is the one to tell
		return nil, err
	}
	return &narBody{ReadCloser: nar, body: body}, nil
}

func unknownCompression(name string) error {
	_, err := unpack.NewReader(name, nil)
	return err
}

// limited ends with an error where more comes than there can be.
type limited struct {
	r     io.Reader
	left  int64
	count *int64
}

var errLonger = errors.New("the source sends more than the NAR can need")

func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errLonger
	}
	n, err := l.r.Read(b[:min(int64(len(b)), l.left)])
	l.left -= int64(n)
	*l.count += int64(n)
	return n, err
}

type narBody struct {
	io.ReadCloser // decodes
	body          io.Closer
}

func (b *narBody) Close() error { return errors.Join(b.ReadCloser.Close(), b.body.Close()) }

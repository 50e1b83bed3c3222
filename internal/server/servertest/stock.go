package servertest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/nix"
)

// A NAR is bytes to upload with their description, as the stock client sends
// both. Servers do not parse NARs, so any bytes will do.
type NAR struct {
	Path       nix.StorePath
	References []string // base names
	Bytes      []byte
}

// NewNAR makes up a store path from a name. Equal names are equal paths.
func NewNAR(t testing.TB, name string, content []byte, references ...string) NAR {
	t.Helper()
	sum := sha256.Sum256([]byte(name))
	base := nix.EncodeBase32(sum[:20]) + "-" + name
	return NAR{Path: must(nix.ParseBaseName(nix.StoreDir, base))(t), References: references, Bytes: content}
}

// Info is the description as the stock client writes it; change may alter it.
func (n NAR) Info(t testing.TB, cache string, change map[string]any) string {
	t.Helper()
	refs := n.References
	if refs == nil {
		refs = []string{}
	}
	info := map[string]any{
		"cache": cache, "store_path_hash": n.Path.Hash(), "store_path": n.Path.String(), "references": refs,
		"system": nil, "deriver": nil, "sigs": []string{}, "ca": nil,
		"nar_hash": fmt.Sprintf("sha256:%x", sha256.Sum256(n.Bytes)), "nar_size": len(n.Bytes),
	}
	for k, v := range change {
		info[k] = v
	}
	return string(must(json.Marshal(info))(t))
}

// Upload sends n as the stock client does: chunked, the scheme in lower case,
// the description in a header.
func (s *Server) Upload(t testing.TB, tok, cache string, n NAR) (*http.Response, string) {
	t.Helper()
	return s.UploadInfo(t, tok, n.Info(t, cache, nil), n.Bytes)
}

// UploadInfo sends any description and any body.
func (s *Server) UploadInfo(t testing.TB, tok, info string, body []byte) (*http.Response, string) {
	t.Helper()
	req := must(http.NewRequest(http.MethodPut, s.URL+api.UploadPathRoute, struct{ io.Reader }{bytes.NewReader(body)}))(t)
	req.Header.Set(api.NarInfoHeader, info)
	return s.send(t, req, tok)
}

func (s *Server) send(t testing.TB, req *http.Request, tok string) (*http.Response, string) {
	t.Helper()
	if tok != "" {
		req.Header.Set("Authorization", "bearer "+tok)
	}
	req.Header.Set("User-Agent", "Attic/attic-client (test)")
	resp := must(http.DefaultTransport.RoundTrip(req))(t)
	defer resp.Body.Close()
	return resp, string(must(io.ReadAll(resp.Body))(t))
}

package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nix"
)

// pinServer lacks some paths of every closure, and takes the client's word for what upstream has.
func pinServer(t *testing.T, s *testStore, lacks ...nix.StorePath) (*Pusher, *[]string) {
	t.Helper()
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "GET" {
			fmt.Fprintf(w, `{"store_dir":%q,"upstream_cache_key_names":["up-1"],"attic_action":{"routes":{"pin":%q}}}`, s.dir, api.PinRoute)
			return
		}
		var in api.PinRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		asked = append(asked, fmt.Sprint(r.URL.EscapedPath(), " ", in.Keep, " ", in.ExpiresIn))
		e := api.Error{Code: 409, Name: api.MissingReferences, Message: "missing"}
		for _, p := range lacks {
			if !slices.Contains(in.Upstream, p.Base()) {
				e.References = append(e.References, p.Base())
			}
		}
		if len(e.References) > 0 {
			w.WriteHeader(409)
			w.Write(e.JSON())
			return
		}
		json.NewEncoder(w).Encode(api.Pin{Name: "n", Revisions: []api.Revision{{StorePath: in.StorePath}}})
	}))
	t.Cleanup(srv.Close)
	c, err := client.New(client.Options{Endpoint: srv.URL, Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	return &Pusher{Client: c, Nix: s}, &asked
}

func TestPinDeclaresWhatUpstreamsSigned(t *testing.T) {
	s := newStore(t)
	up := s.add("up", nil)
	s.sign(up, "up-1")
	own := s.add("own", nil)
	top := s.add("top", nil, up, own)
	in := Pin{Cache: "c", Name: "acme/infra/main/web", Path: top, Keep: 3, Life: time.Hour}

	p, asked := pinServer(t, s, up)
	if pin, err := p.Pin(t.Context(), in); err != nil || pin.Revisions[0].StorePath != top.String() {
		t.Errorf("got %+v, %v", pin, err)
	}
	want := "/_api/v1/cache/c/pins/acme%2Finfra%2Fmain%2Fweb 3 3600"
	if !slices.Equal(*asked, []string{want, want}) {
		t.Errorf("asked %q", *asked)
	}
	// What nobody signed must not be declared: then it is really missing.
	p, _ = pinServer(t, s, up, own)
	_, err := p.Pin(t.Context(), in)
	if e := client.APIError(err); e == nil || !slices.Equal(e.References, []string{own.Base()}) {
		t.Errorf("got %v", err)
	}
	p, asked = pinServer(t, s, own)
	if _, err := p.Pin(t.Context(), in); client.Status(err) != 409 || len(*asked) != 1 {
		t.Errorf("got %v after %d requests", err, len(*asked))
	}
}

func TestStockServerHasNoPins(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{}`) }))
	defer srv.Close()
	c, err := client.New(client.Options{Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Pusher{Client: c}).Pin(t.Context(), Pin{Cache: "c", Name: "n"}); !errors.Is(err, ErrNoPins) {
		t.Errorf("got %v", err)
	}
}

package s3

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
)

// openFake is a store whose service answers as the test wishes.
func openFake(t *testing.T, answer http.HandlerFunc) *Store {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	o := options(server.URL, "b")
	o.Patience = 200 * time.Millisecond
	s := open(t, o)
	s.pause = time.Millisecond
	return s
}

func listing(truncated bool, keys ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<ListBucketResult><IsTruncated>%v</IsTruncated>", truncated)
	if truncated {
		b.WriteString("<NextContinuationToken>more</NextContinuationToken>")
	}
	for _, k := range keys {
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>", k)
	}
	return b.String() + "</ListBucketResult>"
}

func TestListingsThatLieEnd(t *testing.T) {
	for name, c := range map[string]struct{ page, want string }{
		"the same page for ever": {listing(true, "a", "b"), "does not sort"},
		"not sorted":             {listing(false, "b", "a"), "does not sort"},
		"a key twice":            {listing(false, "a", "a"), "does not sort"},
		"empty pages for ever":   {listing(true), "pages without a key"},
		"more, but not where":    {"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", "not where"},
		"no XML":                 {"<html><p>login", "read answer of"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openFake(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.page) })
			err := s.List(t.Context(), "", func(blob.Info) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestForeignObjectsAreNotListed(t *testing.T) {
	s := openFake(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, listing(false, "../up", ".hidden", "a/", "a//c", "a/b", "a/b c", "z"))
	})
	var got []string
	if err := s.List(t.Context(), "", func(i blob.Info) error { got = append(got, i.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"a/b", "z"}) {
		t.Errorf("got %q", got)
	}
}

func TestAnswersToRangesAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		status      int
		rng, body   string
		want, wants string // an error, or bytes
	}{
		"as asked":           {206, "bytes 2-5/10", "2345", "", "2345"},
		"size not known":     {206, "bytes 2-5/*", "2345", "", "2345"},
		"range ignored":      {200, "", "0123456789", "ignored the range", ""},
		"another range":      {206, "bytes 3-6/10", "3456", "another range", ""},
		"more than asked":    {206, "bytes 2-6/10", "23456", "another range", ""},
		"object too short":   {206, "bytes 2-3/4", "23", "range outside", ""},
		"nonsense":           {206, "bytes 5-2/10", "2345", "another range", ""},
		"numbers too large":  {206, "bytes 2-99999999999999999999/10", "2345", "another range", ""},
		"always less at all": {206, "bytes 2-2/10", "2", "another range", ""}, // the second answer begins elsewhere
	} {
		t.Run(name, func(t *testing.T) {
			s := openFake(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Range", c.rng)
				if c.rng == "" {
					w.Header().Del("Content-Range")
				}
				w.WriteHeader(c.status)
				fmt.Fprint(w, c.body)
			})
			r, err := s.Get(t.Context(), "k", 2, 4)
			var got []byte
			if err == nil {
				defer r.Close()
				got, err = io.ReadAll(r)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %q, %v; want %s", got, err, c.want)
				}
			} else if err != nil || string(got) != c.wants {
				t.Errorf("got %q, %v; want %q", got, err, c.wants)
			}
		})
	}
}

// A service's words go into a log: they stay on one line, and short.
func TestWordsOfTheServiceStayOnOneLine(t *testing.T) {
	s := openFake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "<Error><Code>a\nlevel=ERROR</Code><Message>one\ntwo\x7f\r\n%s</Message></Error>", strings.Repeat("x", 5000))
	})
	err := s.Delete(t.Context(), "k")
	if err == nil || strings.ContainsAny(err.Error(), "\r\n\x7f") || len(err.Error()) > 500 || strings.Contains(err.Error(), "level=") {
		t.Errorf("got %q", err)
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 0-9/*", "bytes */10", "bytes 9-0/1", "bytes -1-2/3", "bytes 0-18446744073709551615/1", "items 0-1/2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, ok := parseContentRange(s)
		if ok && (first < 0 || last < first || size >= 0 && last >= size || size < -1) {
			t.Errorf("%q: %d-%d/%d", s, first, last, size)
		}
	})
}

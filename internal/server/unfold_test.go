package server

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestUnfoldedNARIsBounded(t *testing.T) {
	for _, c := range []struct {
		has        string
		size, most int64
		want       string
	}{
		{"12345", 5, 5, ""}, {"12345", 5, 100, ""}, {"12345", 6, 100, ""}, // the depot sees that it is short
		{"12345", 4, 100, "longer than its narinfo says"}, {"12345", 5, 4, "unfolds to more"},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.has), io.MultiReader(strings.NewReader(c.has[:3]), strings.NewReader(c.has[3:]))} {
			_, err := io.ReadAll(io.LimitReader(&unfolded{r: r, size: c.size, most: c.most}, c.size))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d of %d bytes: %v", c.size, c.most, err)
			}
		}
	}
}

// A narinfo comes from outside, and so does the name in its URL.
func FuzzNARFile(f *testing.F) {
	f.Add("0j96k21mqmzhhl5ygsmqqblfd8904rnnj45xq6j127bikq8w1g7n.nar.zst")
	f.Add("../../x.nar")
	f.Fuzz(func(t *testing.T, name string) {
		file, ok, err := parseNARFile(name)
		if ok && err == nil && (file.compression == "" || strings.ContainsAny(name, "/%\\") || len(name) > 60) {
			t.Errorf("%q is taken as %+v", name, file)
		}
	})
}

func FuzzEncodedBody(f *testing.F) {
	f.Add("zstd", []byte("\x28\xb5\x2f\xfd"))
	f.Add("xz", []byte("\xfd7zXZ\x00"))
	f.Add("gzip", []byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, encoding string, body []byte) {
		r, err := http.NewRequest(http.MethodPut, "http://x/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Encoding", encoding)
		if b, err := decodedBody(r, 1<<16); err == nil && len(b) > 1<<16 {
			t.Errorf("%d bytes", len(b))
		}
	})
}

package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/s3test"
)

// far is a bucket behind a proxy.
type far struct {
	*Store
	gw     *s3test.Gateway
	proxy  *s3test.Proxy
	bucket string
}

func openFar(t *testing.T, change ...func(*Options)) *far {
	t.Helper()
	f := &far{gw: gateway, proxy: s3test.StartProxy(t, gateway.Endpoint), bucket: gateway.Bucket(t)}
	o := options(f.proxy.URL, f.bucket)
	for _, c := range change {
		c(&o)
	}
	f.Store = open(t, o)
	f.pause = time.Millisecond
	return f
}

func impatient(o *Options) { o.Stall = 300 * time.Millisecond }

// random bytes that no two offsets have alike.
func payload(n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func put(t *testing.T, s *Store, key string, data []byte) {
	t.Helper()
	if err := s.Put(t.Context(), key, blob.Bytes(data)); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *Store, key string) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (f *far) wantStored(t *testing.T, key string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(f.gw.Root, f.bucket, filepath.FromSlash(key)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes, %v; want the %d that were put", key, len(got), err, len(want))
	}
}

// R2, and older versions of nearly everything, refuse checksums and trailers that
// were not asked for.
func TestRequestsHoldNothingThatServicesRefuse(t *testing.T) {
	f := openFar(t)
	data := payload(100)
	put(t, f.Store, "a/b", data)
	get(t, f.Store, "a/b")
	if err := f.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := f.proxy.Seen()
	if len(seen) != 3 {
		t.Fatalf("%d requests, want 3", len(seen))
	}
	for _, r := range seen {
		for name := range r.Header {
			if low := strings.ToLower(name); strings.Contains(low, "checksum") || low == "trailer" || low == "x-amz-decoded-content-length" || low == "x-amz-trailer" {
				t.Errorf("%s has %s: %s", r.Method, name, r.Header.Get(name))
			}
		}
		if r.TransferEncoding != nil || strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") || r.ProtoMajor != 1 {
			t.Errorf("%s %s: encoding %v %s", r.Method, r.Proto, r.TransferEncoding, r.Header.Get("Content-Encoding"))
		}
	}
	sum := sha256.Sum256(data)
	if r := seen[0]; r.Method != http.MethodPut || r.ContentLength != 100 || r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) ||
		r.Header.Get("If-None-Match") != "*" || r.URL.Path != "/"+f.bucket+"/a/b" {
		t.Errorf("put: %s %s %v", r.Method, r.URL, r.Header)
	}
}

func TestClockOfTheServiceIsUsedForSigning(t *testing.T) {
	for _, skew := range []time.Duration{time.Hour, -26 * time.Hour} {
		for name, first := range map[string]func(t *testing.T, s *Store) error{
			"put": func(t *testing.T, s *Store) error { return s.Put(t.Context(), "first", blob.Bytes([]byte("x"))) },
			"list": func(t *testing.T, s *Store) error {
				return s.List(t.Context(), "", func(blob.Info) error { return nil })
			},
			"delete": func(t *testing.T, s *Store) error { return s.Delete(t.Context(), "none") },
			"check":  func(t *testing.T, s *Store) error { return s.Check(t.Context()) },
			// An answer to HEAD says 403 and nothing of clocks.
			"head": func(t *testing.T, s *Store) error { _, err := s.size(t.Context(), "none"); return err },
		} {
			t.Run(fmt.Sprint(name, " ", skew), func(t *testing.T) {
				f := openFar(t)
				f.proxy.Set(s3test.Faults{Skew: skew})
				if err := first(t, f.Store); err != nil && !errors.Is(err, blob.ErrNotFound) {
					t.Fatal(err)
				}
				if n := f.proxy.Counts().Total(); n != 2 {
					t.Errorf("%d requests, want one that is refused and one that is not", n)
				}
				put(t, f.Store, "k", []byte("v"))
				url, err := f.Presign(t.Context(), "k", time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				if status, body := fetch(t, http.MethodGet, url, ""); status != http.StatusOK || body != "v" {
					t.Errorf("presigned URL: %d %s", status, body)
				}
			})
		}
	}
}

func fetch(t *testing.T, method, url, ranged string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranged != "" {
		req.Header.Set("Range", ranged)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestPresignedURLAnswersGetAndRefusesHead(t *testing.T) {
	f := openFar(t)
	put(t, f.Store, "a/b", []byte("0123456789"))
	url, err := f.Presign(t.Context(), "a/b", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if status, body := fetch(t, http.MethodGet, url, ""); status != http.StatusOK || body != "0123456789" {
		t.Errorf("GET: %d %s", status, body)
	}
	if status, body := fetch(t, http.MethodGet, url, "bytes=3-5"); status != http.StatusPartialContent || body != "345" {
		t.Errorf("GET of a range: %d %s", status, body)
	}
	if status, _ := fetch(t, http.MethodHead, url, ""); status != http.StatusForbidden {
		t.Errorf("HEAD: %d, want 403: then callers need not avoid it any more", status)
	}
	if status, _ := fetch(t, http.MethodGet, strings.Replace(url, "a/b", "a/c", 1), ""); status != http.StatusForbidden {
		t.Errorf("GET of another key: %d, want 403", status)
	}
	for _, life := range []time.Duration{0, time.Millisecond, -time.Hour, 8 * 24 * time.Hour} {
		if _, err := f.Presign(t.Context(), "a/b", life); err == nil {
			t.Errorf("a life of %v was taken", life)
		}
	}
	if _, err := f.Presign(t.Context(), "../b", time.Hour); !errors.Is(err, blob.ErrKey) {
		t.Errorf("a path out of the bucket: %v", err)
	}
}

func TestOutageIsOutlived(t *testing.T) {
	f := openFar(t)
	put(t, f.Store, "old", []byte("x"))
	f.proxy.Set(s3test.Faults{Down: true})
	var all sync.WaitGroup
	all.Go(func() { put(t, f.Store, "new", []byte("y")) })
	all.Go(func() {
		if string(get(t, f.Store, "old")) != "x" {
			t.Error("wrong bytes")
		}
	})
	for f.proxy.Counts().Failed < 12 { // each has failed many times
		time.Sleep(time.Millisecond)
	}
	f.proxy.Set(s3test.Faults{})
	all.Wait()
	f.wantStored(t, "new", []byte("y"))
}

func TestPatienceEnds(t *testing.T) {
	f := openFar(t, func(o *Options) { o.Patience = 100 * time.Millisecond })
	f.proxy.Set(s3test.Faults{Down: true})
	err := f.Put(t.Context(), "k", blob.Bytes(nil))
	if err == nil || !strings.Contains(err.Error(), "put k: the storage does not answer: the service answered 503 SlowDown: by order of the proxy (attempt ") ||
		errors.Is(err, ErrSetup) || !errors.Is(err, blob.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestWaitingForAnotherAttemptEndsWithTheContext(t *testing.T) {
	f := openFar(t, func(o *Options) { o.Patience = 24 * time.Hour })
	f.pause = time.Hour
	f.proxy.Set(s3test.Faults{Down: true})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Put(ctx, "k", blob.Bytes(nil)) }()
	for f.proxy.Counts().Failed == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestStalledConnectionsAreGivenUp(t *testing.T) {
	data := payload(8 << 20)
	for name, c := range map[string]struct {
		faults s3test.Faults
		act    func(t *testing.T, f *far)
	}{
		"before the answer to a put": {s3test.Faults{StallHead: 2}, func(t *testing.T, f *far) {
			put(t, f.Store, "new", data)
			f.wantStored(t, "new", data)
		}},
		"in the body of a put": {s3test.Faults{StallPut: 2}, func(t *testing.T, f *far) {
			put(t, f.Store, "new", data)
			f.wantStored(t, "new", data)
		}},
		"before the answer to a get": {s3test.Faults{StallHead: 2}, func(t *testing.T, f *far) {
			if !bytes.Equal(get(t, f.Store, "old"), data) {
				t.Error("wrong bytes")
			}
		}},
		"in the body of a get": {s3test.Faults{StallGet: 2}, func(t *testing.T, f *far) {
			if !bytes.Equal(get(t, f.Store, "old"), data) {
				t.Error("wrong bytes")
			}
		}},
		"before the answer to a list": {s3test.Faults{StallHead: 2}, func(t *testing.T, f *far) {
			n := 0
			if err := f.List(t.Context(), "", func(blob.Info) error { n++; return nil }); err != nil || n != 1 {
				t.Errorf("%d keys, %v", n, err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := openFar(t, impatient)
			put(t, f.Store, "old", data)
			f.proxy.Reset()
			f.proxy.Set(c.faults)
			c.act(t, f)
			if n := f.proxy.Counts(); n.Failed != 2 || n.Total() < 3 { // a machine may be so busy that one more is given up
				t.Errorf("%d requests, %d of them stalled; want 3 or more, and 2", n.Total(), n.Failed)
			}
		})
	}
}

func TestBrokenBodiesAreContinuedWhereTheyBroke(t *testing.T) {
	f := openFar(t)
	data := payload(4 << 20)
	put(t, f.Store, "k", data)
	f.proxy.Reset()
	f.proxy.Set(s3test.Faults{CutGet: 3})
	r, err := f.Get(t.Context(), "k", 1000, 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data[1000:1000+3<<20]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	seen := f.proxy.Seen()
	if len(seen) != 4 {
		t.Fatalf("%d requests, want 4", len(seen))
	}
	from := int64(-1)
	for i, r := range seen {
		var first, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil || first <= from || last != 1000+3<<20-1 {
			t.Errorf("range %q after byte %d, %v", r.Header.Get("Range"), from, err)
		}
		if from = first; i > 0 && r.Header.Get("If-Match") == "" {
			t.Error("the rest of another object would be taken")
		}
	}
	if out := f.proxy.Counts().Out; out > 4<<20 {
		t.Errorf("%d bytes were read for 3 MiB", out)
	}
}

func TestBodiesThatAlwaysBreakEnd(t *testing.T) {
	f := openFar(t)
	put(t, f.Store, "k", payload(1<<20))
	f.proxy.Set(s3test.Faults{CutGet: 1 << 30})
	r, err := f.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "times in a row") {
		t.Errorf("got %v", err)
	}
}

func TestCutPutLeavesNothingAndIsRepeated(t *testing.T) {
	f := openFar(t)
	data := payload(4 << 20)
	f.proxy.Set(s3test.Faults{CutPut: 3})
	put(t, f.Store, "k", data)
	f.wantStored(t, "k", data)
}

// The first attempt stored the object and its answer was lost; the second meets it.
func TestPutWhoseAnswerWasLostSucceeds(t *testing.T) {
	for name, unconditional := range map[string]bool{"conditional": false, "old service": true} {
		t.Run(name, func(t *testing.T) {
			f := openFar(t)
			f.proxy.Set(s3test.Faults{LosePut: 1, Unconditional: unconditional})
			put(t, f.Store, "k", []byte("mine"))
			f.wantStored(t, "k", []byte("mine"))
			if err := f.Put(t.Context(), "k", blob.Bytes([]byte("mine"))); !errors.Is(err, blob.ErrExists) {
				t.Errorf("second put: %v, want ErrExists: what was there before is nobody's own", err)
			}
		})
	}
}

func TestPutThatFailedFirstDoesNotTakeAnothersObjectForItsOwn(t *testing.T) {
	f := openFar(t)
	other := open(t, options(f.gw.Endpoint, f.bucket))
	put(t, other, "k", []byte("same"))
	f.proxy.Set(s3test.Faults{CutPut: 1})
	if err := f.Put(t.Context(), "k", blob.Bytes([]byte("same"))); !errors.Is(err, blob.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
}

func TestServiceWithoutConditionalPutIsAskedFirst(t *testing.T) {
	f := openFar(t)
	f.proxy.Set(s3test.Faults{Unconditional: true})
	for i := range 3 {
		put(t, f.Store, fmt.Sprint("k", i), []byte("first"))
	}
	if err := f.Put(t.Context(), "k1", blob.Bytes([]byte("second"))); !errors.Is(err, blob.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	f.wantStored(t, "k1", []byte("first"))
	asked := 0
	for _, r := range f.proxy.Seen() {
		if r.Header.Get("If-None-Match") != "" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("%d conditional puts, want the one from which it was learned", asked)
	}
}

// watchful is a source that may not be read any more at some point.
type watchful struct {
	*bytes.Reader
	closed, late atomic.Bool
}

func (w *watchful) ReadAt(p []byte, off int64) (int, error) {
	if w.closed.Load() {
		w.late.Store(true)
	}
	return w.Reader.ReadAt(p, off)
}

func TestSourceIsTheCallersAgainAfterPut(t *testing.T) {
	f := openFar(t)
	for range 20 {
		src := &watchful{Reader: bytes.NewReader(payload(2 << 20))}
		ctx, cancel := context.WithCancel(t.Context())
		f.proxy.Set(s3test.Faults{StallPut: 1})
		in := f.proxy.Counts().In
		done := make(chan error, 1)
		go func() {
			err := f.Put(ctx, "k", src)
			src.closed.Store(true)
			done <- err
		}()
		for f.proxy.Counts().In == in {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if src.late.Load() {
			t.Fatal("the source was read after Put had returned")
		}
	}
}

func TestVirtualHostStyle(t *testing.T) {
	f := openFar(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(f.proxy.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	virtual := false
	o := options("http://"+s3test.Domain+":"+port, f.bucket)
	o.PathStyle = &virtual
	o.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
	}
	s := open(t, o)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b", []byte("x"))
	if string(get(t, s, "a/b")) != "x" {
		t.Error("wrong bytes")
	}
	f.wantStored(t, "a/b", []byte("x"))
	for _, r := range f.proxy.Seen() {
		if r.Host != f.bucket+"."+s3test.Domain+":"+port || strings.HasPrefix(r.URL.Path, "/"+f.bucket) {
			t.Errorf("%s to %s", r.URL.Path, r.Host)
		}
	}
	if url, err := s.Presign(t.Context(), "a/b", time.Minute); err != nil || !strings.HasPrefix(url, "http://"+f.bucket+"."+s3test.Domain) {
		t.Errorf("presigned %s, %v", url, err)
	}
}

func TestStyleOfURLs(t *testing.T) {
	yes, no := true, false
	for _, c := range []struct {
		endpoint, bucket string
		asked            *bool
		path             bool
	}{
		{"", "b", nil, false},
		{"", "b", &yes, true},
		{"", "a.b", nil, true}, // the certificate is for one name before the host
		{"https://x.r2.cloudflarestorage.com", "b", nil, true},
		{"https://x.r2.cloudflarestorage.com", "b", &no, false},
		{"https://fly.storage.tigris.dev", "b", nil, false},
		{"https://t3.storage.dev/", "b", nil, false},
		{"https://s3.eu-west-1.amazonaws.com", "b", nil, false},
		{"https://minio.example.org:9000", "b", nil, true},
		{"http://minio:9000", "b", nil, true},
		{"http://localhost:9000", "b", &no, false},
		{"http://127.0.0.1:9000", "b", &no, true},
		{"http://[::1]:9000", "b", nil, true},
		{"https://amazonaws.com.example.org", "b", nil, true},
	} {
		got, err := pathStyle(Options{Endpoint: c.endpoint, Bucket: c.bucket, PathStyle: c.asked})
		if err != nil || got != c.path {
			t.Errorf("%q, %q: path %v, %v; want %v", c.endpoint, c.bucket, got, err, c.path)
		}
	}
	for _, endpoint := range []string{"minio:9000", "ftp://x", "https://u:hunter2@x", "://", "https://x/?a=b"} {
		if _, err := Open(t.Context(), Options{Endpoint: endpoint, Bucket: "b", AccessKeyID: "a"}); !errors.Is(err, ErrSetup) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

// What a human has to mend is told from what passes, in one line that says what to
// do, and holds no secret.
func TestSetupErrorsSayWhatToDo(t *testing.T) {
	f := openFar(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Amz-Bucket-Region", "eu-north-1")
		w.WriteHeader(http.StatusMovedPermanently)
		fmt.Fprint(w, "<Error><Code>PermanentRedirect</Code><Message>The bucket\nis elsewhere</Message></Error>")
	}))
	defer elsewhere.Close()
	website := httptest.NewServer(http.NotFoundHandler())
	defer website.Close()
	denied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>")
	}))
	defer denied.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshakes
	secure.StartTLS()
	defer secure.Close()
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"access key":       {func(o *Options) { o.AccessKeyID = "someone-else" }, "correct AWS_ACCESS_KEY_ID"},
		"secret":           {func(o *Options) { o.SecretAccessKey = "hunter2hunter2" }, "correct AWS_SECRET_ACCESS_KEY"},
		"bucket":           {func(o *Options) { o.Bucket = "not-there" }, `there is no bucket "not-there": make it, or correct storage.bucket (BUCKET_NAME)`},
		"bucket's name":    {func(o *Options) { o.Bucket = "b1" }, `"b1" cannot be the name of a bucket: correct storage.bucket (BUCKET_NAME)`},
		"region":           {func(o *Options) { o.Region = "eu-west-1" }, "correct storage.region (AWS_REGION)"},
		"redirect":         {func(o *Options) { o.Endpoint = elsewhere.URL }, "is in region eu-north-1: correct storage.region (AWS_REGION)"},
		"denied":           {func(o *Options) { o.Endpoint = denied.URL }, "let them list, get, put and delete"},
		"not S3":           {func(o *Options) { o.Endpoint = website.URL }, "does not answer like S3"},
		"http, not https":  {func(o *Options) { o.Endpoint = strings.Replace(f.gw.Endpoint, "http:", "https:", 1) }, "does not speak TLS"},
		"own certificates": {func(o *Options) { o.Endpoint = secure.URL }, "is not trusted"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(f.proxy.URL, f.bucket)
			c.change(&o)
			err := open(t, o).Check(t.Context())
			if !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if err != nil {
				t.Log(err)
				checkText(t, err)
			}
		})
	}
	o := options("http://127.0.0.1:1", "b")
	o.Patience = time.Millisecond
	err := open(t, o).Check(t.Context())
	if err == nil || errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "check storage.endpoint") {
		t.Errorf("nobody there: %v; it may be there soon", err)
	}
}

func TestCheckOfAServiceThatSaysNothingEnds(t *testing.T) {
	f := openFar(t, func(o *Options) { o.Patience = 50 * time.Millisecond })
	f.proxy.Set(s3test.Faults{StallHead: 1 << 30})
	err := f.Check(t.Context())
	if !errors.Is(err, blob.ErrUnavailable) || !strings.Contains(err.Error(), "no word from "+f.proxy.URL+"; check storage.endpoint") {
		t.Errorf("got %v", err)
	}
}

func checkText(t *testing.T, err error) {
	t.Helper()
	for _, bad := range []string{"\n", "hunter2", s3test.SecretAccessKey, "X-Amz-", "Signature=", "RequestID", "operation error"} {
		if strings.Contains(err.Error(), bad) {
			t.Errorf("%q holds %q", err, bad)
		}
	}
}

func TestMachineWithoutCredentialsSaysSo(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	o := options("http://127.0.0.1:1", "b")
	o.AccessKeyID = ""
	err := open(t, o).Check(t.Context())
	if !errors.Is(err, ErrSetup) || !strings.Contains(err.Error(), "set AWS_ACCESS_KEY_ID") {
		t.Errorf("got %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretAccessKey)
	o.Endpoint, o.Bucket = gateway.Endpoint, gateway.Bucket(t)
	if err := open(t, o).Check(t.Context()); err != nil {
		t.Errorf("with credentials of the environment: %v", err)
	}
}

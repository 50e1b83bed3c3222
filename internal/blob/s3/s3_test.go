package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/blob/s3test"
)

// gateway is the S3 server of all tests of the package; each has buckets of its own.
var gateway *s3test.Gateway

func TestMain(m *testing.M) {
	os.Exit(withGateway(m.Run))
}

func withGateway(run func() int) int {
	dir, err := os.MkdirTemp("", "attic-s3-")
	if err == nil {
		defer os.RemoveAll(dir)
		gateway, err = s3test.Run(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "s3:", err)
		return 1
	}
	defer gateway.Close()
	return run()
}

// options of a bucket of the tests' server.
func options(endpoint, bucket string) Options {
	return Options{Endpoint: endpoint, Region: s3test.Region, Bucket: bucket,
		AccessKeyID: s3test.AccessKeyID, SecretAccessKey: s3test.SecretAccessKey, Stall: 5 * time.Second}
}

func open(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The suite runs on a service of yours too, in a bucket that it empties again and again:
//
//	ATTIC_TEST_BUCKET=attic-test-1 AWS_ENDPOINT_URL_S3=… AWS_REGION=… AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… \
//	go test ./internal/blob/s3 -run 'TestS3KeepsTheContract$'
func TestS3KeepsTheContract(t *testing.T) {
	if bucket := os.Getenv("ATTIC_TEST_BUCKET"); bucket != "" {
		blobtest.Suite(t, func(t *testing.T) blob.Store { return emptied(t, bucket) })
		return
	}
	blobtest.Suite(t, func(t *testing.T) blob.Store { return open(t, options(gateway.Endpoint, gateway.Bucket(t))) })
}

// emptied is a bucket of an outside service, without its objects.
func emptied(t *testing.T, bucket string) *Store {
	t.Helper()
	if !strings.HasPrefix(bucket, "attic-test-") {
		t.Fatalf("the bucket %q is emptied by this test, so its name has to begin with attic-test-", bucket)
	}
	s := open(t, Options{Endpoint: os.Getenv("AWS_ENDPOINT_URL_S3"), Region: os.Getenv("AWS_REGION"), Bucket: bucket})
	err := s.List(t.Context(), "", func(i blob.Info) error { return s.Delete(t.Context(), i.Key) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestS3KeepsTheContractWhenTenPercentFail(t *testing.T) {
	proxy := s3test.StartProxy(t, gateway.Endpoint)
	proxy.Set(s3test.Faults{Fail: 0.1})
	blobtest.Suite(t, func(t *testing.T) blob.Store { return open(t, options(proxy.URL, gateway.Bucket(t))) })
	if proxy.Counts().Failed == 0 {
		t.Error("nothing failed")
	}
}

func TestLargeObjectsStream(t *testing.T) {
	blobtest.Streams(t, open(t, options(gateway.Endpoint, gateway.Bucket(t))))
}

// A pack was hashed on its way in. The service compares what comes with what was signed, so a file that has changed
// since is not stored under the name of what it was.
func TestKnownSumIsSignedAndCompared(t *testing.T) {
	store := open(t, options(gateway.Endpoint, gateway.Bucket(t)))
	data := []byte("a pack")
	if err := store.Put(t.Context(), "packs/aa/good", blob.Summed{Source: blob.Bytes(data), SHA256: sha256.Sum256(data)}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, store, "packs/aa/good"); string(got) != "a pack" {
		t.Errorf("got %q", got)
	}
	err := store.Put(t.Context(), "packs/aa/changed", blob.Summed{Source: blob.Bytes([]byte("a hack")), SHA256: sha256.Sum256(data)})
	if err == nil {
		t.Error("a body that is not what was signed was taken")
	}
	if r, err := store.Get(t.Context(), "packs/aa/changed", 0, -1); !errors.Is(err, blob.ErrNotFound) {
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("it is there: %v", err)
		}
	}
}

func read(t *testing.T, store blob.Store, key string) []byte {
	t.Helper()
	r, err := store.Get(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

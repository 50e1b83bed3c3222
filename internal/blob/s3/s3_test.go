package s3

import (
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/blob/blobtest"
	"github.com/org/attic-action/internal/blob/s3test"
)

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

func TestS3KeepsTheContract(t *testing.T) {
	gw := s3test.Start(t)
	blobtest.Suite(t, func(t *testing.T) blob.Store { return open(t, options(gw.Endpoint, gw.Bucket(t))) })
}

func TestS3KeepsTheContractWhenTenPercentFail(t *testing.T) {
	gw := s3test.Start(t)
	proxy := s3test.StartProxy(t, gw.Endpoint)
	proxy.Set(s3test.Faults{Fail: 0.1})
	blobtest.Suite(t, func(t *testing.T) blob.Store { return open(t, options(proxy.URL, gw.Bucket(t))) })
	if proxy.Counts().Failed == 0 {
		t.Error("nothing failed")
	}
}

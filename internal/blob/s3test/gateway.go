// Package s3test has a real S3 server for tests and benchmarks, and a proxy that
// puts it far away or breaks it.
//
//	gw := s3test.Start(t)                       versitygw on a free port; a bucket is a folder
//	bucket := gw.Bucket(t)
//	proxy := s3test.StartProxy(t, gw.Endpoint)  counts what passes
//	proxy.Set(s3test.Faults{Fail: 0.1})
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Credentials and region of every gateway, and the domain below which a bucket's
// name may be a host's; nothing resolves it.
const (
	Domain          = "s3.test"
	AccessKeyID     = "test-access"
	SecretAccessKey = "test-secret-of-nobody"
	Region          = "us-east-1"
)

// Gateway is a running versitygw.
type Gateway struct {
	Endpoint string // http://127.0.0.1:port
	Root     string // a folder in it is a bucket, a file in that an object

	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
	buckets atomic.Int64
}

// Start runs a gateway until the test ends.
func Start(t testing.TB) *Gateway {
	t.Helper()
	g, err := Run(context.WithoutCancel(t.Context()), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// Bucket makes a new bucket and returns its name.
func (g *Gateway) Bucket(t testing.TB) string {
	t.Helper()
	name, err := g.NewBucket()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// NewBucket is Bucket outside of tests.
func (g *Gateway) NewBucket() (string, error) {
	name := fmt.Sprintf("bucket-%d", g.buckets.Add(1))
	if err := os.Mkdir(filepath.Join(g.Root, name), 0o700); err != nil {
		return "", fmt.Errorf("make bucket: %w", err)
	}
	return name, nil
}

// Env is what a program's environment needs to find a bucket, as fly.io sets it.
func Env(endpoint, bucket string) []string {
	return []string{
		"BUCKET_NAME=" + bucket, "AWS_ENDPOINT_URL_S3=" + endpoint, "AWS_REGION=" + Region,
		"AWS_ACCESS_KEY_ID=" + AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + SecretAccessKey,
	}
}

// Run starts a gateway whose files are below dir, and returns when it answers.
// The first call of all builds it, which takes about a minute.
func Run(ctx context.Context, dir string) (*Gateway, error) {
	program, err := Program(ctx)
	if err != nil {
		return nil, err
	}
	for range 5 {
		var g *Gateway
		if g, err = run(ctx, program, dir); err == nil {
			return g, nil
		}
		if !errors.Is(err, errEnded) { // another process may have taken the port
			break
		}
	}
	return nil, err
}

var errEnded = errors.New("it ended")

// Program builds versitygw, unless the build cache has it, and returns its path.
func Program(ctx context.Context) (string, error) {
	mod, err := output(ctx, "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	return output(ctx, "go", "tool", "-n", "-modfile="+filepath.Join(filepath.Dir(mod), "tools", "go.mod"), "versitygw")
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out)), nil
}

func run(ctx context.Context, program, dir string) (*Gateway, error) {
	g := &Gateway{Root: filepath.Join(dir, "buckets"), done: make(chan struct{})}
	sidecar := filepath.Join(dir, "metadata") // temporary directories need not have extended attributes
	for _, d := range []string{g.Root, sidecar} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	g.Endpoint = "http://" + addr
	var out bytes.Buffer
	g.cmd = exec.CommandContext(ctx, program, "--port", addr, "--region", Region, "--virtual-domain", Domain, "--keep-alive", "--quiet", "--health", "/health",
		"posix", "--sidecar", sidecar, g.Root)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+AccessKeyID, "ROOT_SECRET_ACCESS_KEY="+SecretAccessKey)
	g.cmd.Stdout, g.cmd.Stderr = &out, &out
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start versitygw: %w", err)
	}
	go func() {
		_ = g.cmd.Wait() // that it ended is what matters
		close(g.done)
	}()
	if err := g.answers(ctx); err != nil {
		g.Close()
		return nil, fmt.Errorf("start versitygw: %w: %s", err, out.Bytes())
	}
	return g, nil
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// answers waits until the gateway does.
func (g *Gateway) answers(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if resp, err := http.Get(g.Endpoint + "/health"); err == nil {
			_ = resp.Body.Close() // its status is the answer
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.done:
			return errEnded
		case <-tick.C:
		}
	}
}

// Close ends the gateway. What it stored stays.
func (g *Gateway) Close() {
	_ = g.cmd.Process.Kill() // it may have ended
	<-g.done
}

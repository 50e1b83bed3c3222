package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/org/attic-action/internal/blob/s3test"
)

// farBucket is a real S3 server behind a proxy that puts it far away and counts.
type farBucket struct {
	gateway *s3test.Gateway
	proxy   *s3test.Proxy
	faults  s3test.Faults
}

func startBucket(ctx context.Context, dir string, rtt time.Duration, rate int64) (*farBucket, error) {
	gw, err := s3test.Run(ctx, dir)
	if err != nil {
		return nil, err
	}
	proxy, err := s3test.ListenProxy(gw.Endpoint)
	if err != nil {
		gw.Close()
		return nil, err
	}
	f := &farBucket{gateway: gw, proxy: proxy, faults: s3test.Faults{RTT: rtt, Rate: rate}}
	proxy.Set(f.faults)
	return f, nil
}

func (f *farBucket) close() {
	f.proxy.Close()
	f.gateway.Close()
}

// env has a server use a new bucket of it.
func (f *farBucket) env() ([]string, error) {
	name, err := f.gateway.NewBucket()
	return append(s3test.Env(f.proxy.URL, name), "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64="+benchSecret), err
}

// benchSecret signs tokens of servers that live for a minute and listen on the loopback.
const benchSecret = "YmVuY2htYXJrcyBvbmx5LCBub3QgYSBzZWNyZXQgb2YgYW55Ym9keQ=="

// bucketBench measures a push and a pull with the packs in a bucket that is far away.
type bucketBench struct {
	bench
	rtt   time.Duration
	rate  int64 // MB/s of each connection
	paths int   // in the database of the start
	only  string
	bkt   *farBucket
}

func bucketFlags(args []string) (*bucketBench, error) {
	b := &bucketBench{}
	f := flag.NewFlagSet("bucket", flag.ContinueOnError)
	f.StringVar(&b.closure, "closure", "", "store path of the toplevel to push")
	f.StringVar(&b.rebuilt, "rebuilt", "", "the same toplevel after a rebuild of everything")
	f.StringVar(&b.bin, "bin", "bin", "folder of attic-action and attic-server")
	f.IntVar(&b.runs, "runs", 3, "runs of each timed row; the median is printed")
	f.DurationVar(&b.rtt, "rtt", 50*time.Millisecond, "how far away the bucket is")
	f.Int64Var(&b.rate, "rate", 40, "MB/s of each connection to the bucket")
	f.IntVar(&b.paths, "paths", 1_000_000, "paths in the database of the server that is started")
	f.StringVar(&b.only, "only", "", "push: no pull and no start; start: nothing else")
	return b, f.Parse(args)
}

func (b *bucketBench) run(ctx context.Context) (err error) {
	if b.closure == "" && b.only != "start" {
		return errors.New("no closure: pass --closure with a store path, for example the target of /run/current-system")
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "attic-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer removeStore(filepath.Join(b.dir, "fresh"))
	if b.bkt, err = startBucket(ctx, filepath.Join(b.dir, "s3"), b.rtt, b.rate*1e6); err != nil {
		return err
	}
	defer b.bkt.close()
	b.add(row{what: "bucket", value: fmt.Sprintf("versitygw, %s away, %d MB/s a connection", b.rtt, b.rate)})
	if b.only != "start" {
		if err := b.roads(ctx); err != nil {
			return err
		}
	}
	if b.only != "push" {
		if err := b.start(ctx); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

// roads measures there and back.
func (b *bucketBench) roads(ctx context.Context) error {
	if err := b.describe(ctx); err != nil {
		return err
	}
	s, err := b.pushes(ctx)
	if err != nil {
		return err
	}
	if b.only == "push" {
		return s.stop()
	}
	return b.bucketPulls(ctx, s)
}

// pushes times cold pushes, each into a new bucket, and a push after a rebuild of everything after each. The
// server of the last is left running.
func (b *bucketBench) pushes(ctx context.Context) (s *server, err error) {
	var colds, rebuilds []usage
	var cold, rebuilt result
	var coldCount, rebuiltCount s3test.Counts
	for i := range b.runs {
		if s != nil {
			if err := s.stop(); err != nil {
				return nil, err
			}
		}
		if b.env, err = b.bkt.env(); err != nil {
			return nil, err
		}
		if s, err = b.startServer(ctx, fmt.Sprintf("bucket-%d", i)); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, logTail(filepath.Join(b.dir, fmt.Sprintf("bucket-%d.log", i))))
		}
		b.bkt.proxy.Reset()
		var u usage
		if u, cold, err = b.push(ctx, s, b.closure); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, logTail(s.log))
		}
		colds, coldCount = append(colds, u), b.bkt.proxy.Counts()
		if b.rebuilt == "" {
			continue
		}
		b.bkt.proxy.Reset()
		if u, rebuilt, err = b.push(ctx, s, b.rebuilt); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, logTail(s.log))
		}
		rebuilds, rebuiltCount = append(rebuilds, u), b.bkt.proxy.Counts()
	}
	b.addBucketPush("cold push", "12 s; 150 to the bucket", median(colds), cold, coldCount)
	if b.rebuilt != "" {
		b.addBucketPush("push, all rebuilt", "3 s; 2 MB; 20 to the bucket", median(rebuilds), rebuilt, rebuiltCount)
	}
	return s, b.tellBucketServer(s)
}

func (b *bucketBench) addBucketPush(what, target string, u usage, r result, c s3test.Counts) {
	b.add(row{what: what, target: target, value: secs(u.wall), cpu: secs(u.cpu), peak: mib(u.peak), sent: mib(r.Sent),
		request: fmt.Sprintf("%d, %s", r.Requests, counted(c))})
}

// counted says what a bucket was asked.
func counted(c s3test.Counts) string {
	return fmt.Sprintf("bucket %d (%d PUT, %d GET), %s in, %s out, %d at once", c.Total(), c.Requests["PUT"], c.Requests["GET"], mib(c.In), mib(c.Out), c.Peak)
}

func (b *bucketBench) tellBucketServer(s *server) error {
	peak, cpu, err := s.memory()
	if err == nil {
		b.add(row{what: "  server so far", target: "96 MiB", cpu: secs(cpu), peak: mib(peak)})
	}
	return err
}

// bucketPulls times pulls into an empty store from a server that has just been started, with nothing cached, in
// turns with pulls from a static server that is next door.
func (b *bucketBench) bucketPulls(ctx context.Context, s *server) error {
	if _, err := b.copyOnce(ctx); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	static := &http.Server{Handler: http.FileServer(http.Dir(filepath.Join(b.dir, "static")))}
	go static.Serve(l)
	defer static.Close()
	var alone, ours []usage
	var count s3test.Counts
	// The first round is not counted: it finds the disk idle.
	for round := range b.runs + 1 {
		u, err := b.pull(ctx, "http://"+l.Addr().String())
		if err != nil {
			return err
		}
		if round > 0 {
			alone = append(alone, u)
		}
		if s, err = b.rested(ctx, s); err != nil {
			return err
		}
		b.bkt.proxy.Reset()
		if u, err = b.pull(ctx, s.url+"/bench"); err != nil {
			return fmt.Errorf("%w\n%s", err, logTail(s.log))
		}
		if round > 0 {
			ours, count = append(ours, u), b.bkt.proxy.Counts()
		}
	}
	a, o := median(alone), median(ours)
	b.add(row{what: "pull from a static server next door", value: secs(a.wall), cpu: secs(a.cpu), peak: mib(a.peak)})
	b.add(row{what: fmt.Sprintf("pull from ours, nothing cached (%.2f ×)", o.wall.Seconds()/a.wall.Seconds()), target: "2 × static; 300 to the bucket",
		value: secs(o.wall), cpu: secs(o.cpu), peak: mib(o.peak), request: counted(count)})
	if err := b.tellBucketServer(s); err != nil {
		return err
	}
	return s.stop()
}

// rested is the same server started anew, with nothing of the bucket on its volume.
func (b *bucketBench) rested(ctx context.Context, s *server) (*server, error) {
	if err := s.stop(); err != nil {
		return nil, err
	}
	for _, name := range []string{"near", "spool"} {
		if err := os.RemoveAll(filepath.Join(s.data, name)); err != nil {
			return nil, err
		}
	}
	return b.startServer(ctx, filepath.Base(s.data))
}

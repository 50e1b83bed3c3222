package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob/s3test"
)

// bucketSecret is a token secret: with a bucket a server makes none of its own.
const bucketSecret = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=Zm9yIHRlc3RzIG9mIGJ1Y2tldHMsIG5vdCBmb3IgYW55IHNlcnZlcg=="

// bucket is a real S3 server behind a proxy that can break it.
type bucket struct {
	gw    *s3test.Gateway
	proxy *s3test.Proxy
	name  string
}

func startBucket(t testing.TB) *bucket {
	t.Helper()
	gw := s3test.Start(t)
	return &bucket{gw: gw, proxy: s3test.StartProxy(t, gw.Endpoint), name: gw.Bucket(t)}
}

// server runs a server on an empty volume, with nothing to go by but the environment.
func (b *bucket) server(t testing.TB) *server {
	t.Helper()
	s := b.idleServer(t)
	s.startOn("127.0.0.1:0")
	return s
}

// quietServer reads nothing of the bucket but what clients ask for, and what a start needs.
func (b *bucket) quietServer(t testing.TB) *server {
	t.Helper()
	s := b.idleServer(t)
	s.args = []string{"-f", unasked(t)}
	s.startOn("127.0.0.1:0")
	return s
}

func (b *bucket) idleServer(t testing.TB, env ...string) *server {
	t.Helper()
	s := &server{t: t, home: t.TempDir(), data: filepath.Join(t.TempDir(), "server")}
	s.env = append(append(environment(s.home, bucketSecret), s3test.Env(b.proxy.URL, b.name)...), env...)
	t.Cleanup(func() {
		for _, p := range s.logs {
			if log := remarkable(p.err.String()); t.Failed() && log != "" {
				t.Logf("server %s:\n%s", s.url, tail(log))
			}
		}
	})
	return s
}

// objects are the names in the bucket.
func (b *bucket) objects(t testing.TB) []string {
	t.Helper()
	root := filepath.Join(b.gw.Root, b.name)
	var names []string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// outage has everything answered 503 for as long as $ATTIC_TEST_OUTAGE says, else for
// three seconds, and until that was noticed a few times.
func (b *bucket) outage(t testing.TB) {
	t.Helper()
	long := 3 * time.Second
	if text := os.Getenv("ATTIC_TEST_OUTAGE"); text != "" {
		long = must(time.ParseDuration(text))(t)
	}
	before, end := b.proxy.Counts().Failed, time.Now().Add(long)
	b.proxy.Set(s3test.Faults{Down: true})
	until(t, "the outage is over", func() bool { return time.Now().After(end) && b.proxy.Counts().Failed >= before+5 })
	b.proxy.Set(s3test.Faults{})
}

func TestClosureGoesThroughABucketOfWhichTenPercentFail(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	b.proxy.Set(s3test.Faults{Fail: 0.1})
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	t.Logf("push: %+v", b.proxy.Counts())
	packs := 0
	for _, name := range b.objects(t) {
		if strings.HasPrefix(name, "packs/") {
			packs++
		}
	}
	if packs < 5 || s.stored() != 0 {
		t.Errorf("%d packs in the bucket and %d bytes of them on the volume, want 5 or more and none", packs, s.stored())
	}
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
	s.stopped()
	s.restart()
	if again := mustPush(t, s.url, tok, "main", top); again.json.Pushed != 0 {
		t.Errorf("after a restart %d paths were pushed again", again.json.Pushed)
	}
}

// The bucket answers nothing but 503 for some seconds in the middle of a push, and again
// in the middle of a pull. Redirects are off: a Nix that fetches from the bucket itself
// gives it five seconds.
func TestPushAndPullOutliveABucketThatIsDown(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.idleServer(t)
	file := filepath.Join(t.TempDir(), "server.toml")
	if err := os.WriteFile(file, []byte("[storage]\ntype = \"s3\"\nredirect = \"never\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"-f", file} // the rest is in the environment
	s.startOn("127.0.0.1:0")
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	b.proxy.Reset()
	b.proxy.Set(s3test.Faults{Rate: 10 << 20}) // so that the push is under way for a while
	p := pushing(t, s.url, tok, "main", top)
	until(t, "a pack is on its way", func() bool { return b.proxy.Counts().In > 1<<20 })
	b.outage(t)
	p.pushed(t).ok(t)

	s.stopped()
	s.restart() // each life of a process has its own patience
	q := newPuller(t, rig.nixes[0])
	b.proxy.Reset()
	b.proxy.Set(s3test.Faults{Rate: 10 << 20})
	done := make(chan ended, 1)
	go func() { done <- q.substitute(s.url+"/main", key, top) }()
	until(t, "a pack is being read", func() bool { return b.proxy.Counts().Out > 1<<20 })
	b.outage(t)
	if end := <-done; end.code != 0 {
		t.Fatalf("pull: exit %d\n%s", end.code, tail(end.stderr))
	}
	q.verify(top)
}

func TestBodiesCutHalfWayAndLostAnswersLoseNothing(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	b.proxy.Set(s3test.Faults{CutPut: 4})
	p := pushing(t, s.url, tok, "main", top)
	until(t, "four are cut", func() bool { return b.proxy.Counts().Failed >= 4 })
	b.proxy.Set(s3test.Faults{LosePut: 3})
	p.pushed(t).ok(t)
	b.proxy.Set(s3test.Faults{CutGet: 10})
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
}

func TestBucketsClockMayBeWrong(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	b.proxy.Set(s3test.Faults{Skew: -3 * time.Hour})
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
}

// A wrong setting is one line, and a status by which a supervisor knows not to try
// again; a bucket that is not there at the moment may be there at the next start.
func TestWrongStorageEndsTheStartWithOneLine(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	for name, c := range map[string]struct {
		env  string
		code int
		want string
	}{
		"access key":        {"AWS_ACCESS_KEY_ID=someone", 78, "correct AWS_ACCESS_KEY_ID"},
		"secret":            {"AWS_SECRET_ACCESS_KEY=wrong", 78, "correct AWS_SECRET_ACCESS_KEY"},
		"half a pair":       {"AWS_SECRET_ACCESS_KEY=", 78, "AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not"},
		"bucket":            {"BUCKET_NAME=not-there", 78, `there is no bucket "not-there"`},
		"region":            {"AWS_REGION=eu-west-9", 78, "correct storage.region (AWS_REGION)"},
		"endpoint's syntax": {"AWS_ENDPOINT_URL_S3=localhost", 78, "AWS_ENDPOINT_URL_S3: not a URL"},
		"no token secret":   {"ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=", 78, "no token secret is configured"},
		"nobody there":      {"AWS_ENDPOINT_URL_S3=http://127.0.0.1:1", 1, "check storage.endpoint (AWS_ENDPOINT_URL_S3)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := b.idleServer(t, c.env)
			end := s.life("127.0.0.1:0").wait()
			oneLine(t, end, c.code, "attic-server: ", c.want)
			if strings.Contains(end.stderr, s3test.SecretAccessKey) {
				t.Errorf("the secret is shown:\n%s", end.stderr)
			}
		})
	}
	if names := b.objects(t); len(names) > 0 {
		t.Errorf("the bucket has %q", names)
	}
}

// A server that is told to stop while it waits for its bucket stops as asked; a recovery says that it was not done.
func TestStoppedWhileTheBucketIsAsked(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	b.proxy.Set(s3test.Faults{RTT: time.Hour})
	s := b.idleServer(t)
	for round, c := range []struct {
		run   func() *process
		code  int
		first string
	}{
		{func() *process { return s.life("127.0.0.1:0") }, 0, ""},
		{func() *process { return start(t, s.env, rig.server, "recover", "--data", s.data) }, 1, "attic-server: stopped before it was done"},
	} {
		p := c.run()
		until(t, "the bucket is asked", func() bool { return b.proxy.Counts().Total() > int64(round) })
		p.signal(t, syscall.SIGTERM)
		oneLine(t, p.wait(), c.code, c.first)
	}
}

// A command that no server takes opens the database itself, and writes to the bucket as a server would.
func TestCommandsReachTheBucketWithoutAServer(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	s.cache("main", true)
	s.stopped()
	for _, args := range [][]string{
		{"cache", "create", "other"},
		{"make-token", "--sub", "me", "--validity", "1h", "--pull", "*"},
	} {
		if end := s.command(args...); end.code != 0 || end.stderr != "" {
			t.Errorf("%s: exit %d\n%s", args[0], end.code, tail(end.stderr))
		}
	}
	if list := s.command("token", "list"); !strings.Contains(list.stdout, "me  ") {
		t.Errorf("the token is not listed:\n%s%s", list.stdout, list.stderr)
	}
	s.env = append(s.env, "AWS_SECRET_ACCESS_KEY=wrong")
	oneLine(t, s.command("cache", "create", "third"), 1, "attic-server: ", "correct AWS_SECRET_ACCESS_KEY")
	s.env = append(s.env, "AWS_SECRET_ACCESS_KEY="+s3test.SecretAccessKey)
	b.proxy.Set(s3test.Faults{Down: true})
	oneLine(t, s.command("cache", "create", "third"), 1, "attic-server: ", "the storage does not answer")
	if list := s.command("cache", "list"); list.code != 0 || !strings.Contains(list.stdout, "other") || strings.Contains(list.stdout, "third") {
		t.Errorf("exit %d\n%s%s", list.code, list.stdout, list.stderr)
	}
}

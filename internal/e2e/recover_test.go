package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/nix"
)

// command runs a command of the server's program on its data.
func (s *server) command(args ...string) ended {
	s.t.Helper()
	return start(s.t, s.env, rig.server, append(args, "--data", s.data)...).wait()
}

// loseDatabase deletes the database and what belongs to it, and leaves the storage.
func (s *server) loseDatabase() {
	s.t.Helper()
	for _, file := range must(filepath.Glob(filepath.Join(s.data, "server.db*")))(s.t) {
		if err := os.Remove(file); err != nil {
			s.t.Fatal(err)
		}
	}
}

// recovered says what a recovery brought back.
type recovered struct {
	Restored struct {
		Caches, Paths, Tokens int
	}
	Lost           []string
	Unacknowledged int `json:"unacknowledged_log_objects"`
	Epoch          int
}

func (s *server) recover(code int) recovered {
	s.t.Helper()
	end := s.command("recover", "--json")
	var r recovered
	if err := json.Unmarshal([]byte(end.stdout), &r); err != nil || end.code != code {
		s.t.Fatalf("recover: exit %d, want %d; %v\n%s\n%s", end.code, code, err, end.stdout, tail(end.stderr))
	}
	return r
}

// The server is killed at random moments of pushes, and then its database is gone: the
// storage alone gives all that was acknowledged, keys and revocations too, and nothing
// that was taken back.
func TestRecoverAfterKillsGivesAllThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	r := dice(t)
	s := startServer(t)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	tok, _ := s.cache("measure", false)
	cold := mustPush(t, s.url, tok, "measure", top)
	revoked := s.token("--pull", "measure")
	list := s.command("token", "list", "--json")
	var tokens []struct{ ID string }
	if err := json.Unmarshal([]byte(list.stdout), &tokens); err != nil || len(tokens) == 0 {
		t.Fatalf("%v: %s%s", err, list.stdout, list.stderr)
	}
	newest := tokens[len(tokens)-1].ID
	if end := s.command("token", "revoke", newest); end.code != 0 {
		t.Fatalf("revoke: %s", end.stderr)
	}
	gone, _ := s.cache("gone", false)
	s.want(http.StatusOK, s.request(http.MethodDelete, "/_api/v1/cache-config/gone", s.token("--destroy-cache", "gone"), nil))

	for round := range rounds / 4 {
		c := fmt.Sprintf("round-%d", round)
		tok, key := s.cache(c, false)
		public := must(nix.ParsePublicKey(key))(t)
		m := moment{net: startProxy(t, s)}
		client := pushing(t, m.net.url, tok, c, top)
		w := watch(s, c, tok, paths)
		m.wait(r, client, cold)
		s.proc.kill()
		m.net.pass(-1)
		acked := w.paths()
		if !client.running() && client.wait().code == 0 {
			acked = paths
		}
		client.kill()
		s.loseDatabase()
		end := s.life("127.0.0.1:0").wait()
		oneLine(t, end, 78, "attic-server: the storage holds data and the database is empty", "attic-server recover")
		if got := s.recover(0); len(got.Lost) > 0 || got.Epoch != round+2 {
			t.Fatalf("round %d: %+v", round, got)
		}
		s.restart()
		for _, path := range acked {
			if err := s.checkServed(c, tok, public, path); err != nil {
				t.Fatalf("round %d: acknowledged before the database was lost, and then: %v", round, err)
			}
		}
		if have := s.present(c, tok, paths); len(have) < len(acked) {
			t.Errorf("round %d: %d were acknowledged, %d are there", round, len(acked), len(have))
		}
		mustPush(t, s.url, tok, c, top) // and goes on
		s.verifyServed(c, tok, key, paths)
		if status, _ := s.send(s.request(http.MethodGet, "/measure/nix-cache-info", revoked, nil)); status == http.StatusOK {
			t.Errorf("round %d: a revoked token is good again", round)
		}
		if status, _ := s.send(s.request(http.MethodGet, "/gone/nix-cache-info", gone, nil)); status != http.StatusNotFound {
			t.Errorf("round %d: a cache that was destroyed is back", round)
		}
		if end := s.command("recover", "--check"); end.code != 0 || !strings.Contains(end.stdout, " 0 are missing") {
			t.Errorf("round %d: check: exit %d\n%s%s", round, end.code, end.stdout, end.stderr)
		}
	}
	s.stopped()
}

// With a bucket the whole volume may go. A machine that nobody can run a command on is
// told by its environment.
func TestVolumeLostWithABucketComesBackAtStart(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	tok, key := s.cache("main", true)
	top := build(t, "", network)[0]
	mustPush(t, s.url, tok, "main", top)
	s.proc.kill()
	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}
	oneLine(t, s.life("127.0.0.1:0").wait(), 78, "attic-server: the storage holds data and the database is empty", "ATTIC_SERVER_RECOVER=1")
	s.env = append(s.env, "ATTIC_SERVER_RECOVER=1")
	s.startOn("127.0.0.1:0")
	s.verifyServed("main", tok, key, closure(t, top))
	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, top) })
	s.stopped()
	s.restart() // the variable may stay: there is a database now
	mustPush(t, s.url, tok, "main", top)
}

func TestDatabaseOfAnotherBucketEndsTheStart(t *testing.T) {
	t.Parallel()
	one, two := startBucket(t), startBucket(t)
	s := one.server(t)
	s.cache("main", true)
	s.stopped()
	s.env = append(s.env, "AWS_ENDPOINT_URL_S3="+two.proxy.URL, "BUCKET_NAME="+two.name)
	end := s.life("127.0.0.1:0").wait()
	if end.code != 78 || !strings.Contains(end.stderr, "attic-server: the database belongs to another storage") {
		t.Errorf("exit %d\n%s", end.code, tail(end.stderr))
	}
	if names := two.objects(t); len(names) > 0 {
		t.Errorf("the other bucket has %q", names)
	}
}

func TestDeletedVolumeEndsTheServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.cache("main", false)
	s.loseDatabase()
	end := s.proc.wait()
	text := end.stderr
	if end.code != 1 || !strings.Contains(text, "was deleted or replaced while the server ran") || strings.Contains(text, "goroutine ") {
		t.Errorf("exit %d\n%s", end.code, tail(text))
	}
	if _, err := os.Stat(filepath.Join(s.data, "server.db")); err == nil {
		t.Error("there is a new database, which has nothing in it")
	}
}

// A pack that is gone takes its paths with it, by name; the next push brings them back.
func TestPushHealsWhatARecoveryCouldNotBringBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, key := s.cache("main", false)
	top := build(t, "", network)[0]
	paths := closure(t, top)
	mustPush(t, s.url, tok, "main", top)
	s.stopped()
	packs := must(filepath.Glob(filepath.Join(s.data, "storage/packs/*/*")))(t)
	slices.Sort(packs)
	if err := os.Remove(packs[0]); err != nil {
		t.Fatal(err)
	}
	if end := s.command("recover", "--check"); end.code != 1 || !strings.Contains(end.stdout, "missing: packs/") {
		t.Errorf("check: exit %d\n%s%s", end.code, end.stdout, end.stderr)
	}
	s.loseDatabase()
	got := s.recover(1)
	if len(got.Lost) == 0 || !strings.Contains(got.Lost[0], "/nix/store/") {
		t.Errorf("got %+v", got)
	}
	s.restart()
	have := s.present("main", tok, paths)
	s.verifyServed("main", tok, key, have)
	if len(have) != len(paths)-len(got.Lost) {
		t.Errorf("%d of %d paths are there, %d were named", len(have), len(paths), len(got.Lost))
	}
	mustPush(t, s.url, tok, "main", top)
	s.verifyServed("main", tok, key, paths)
}

// Nobody loses a database by a command that was meant for another machine.
func TestRecoverLeavesADatabaseInUseAlone(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, _ := s.cache("main", false)
	oneLine(t, s.command("recover"), 1, "attic-server: another attic-server uses the database")
	s.stopped()
	oneLine(t, s.command("recover"), 1, "attic-server: the database "+filepath.Join(s.data, "server.db")+" is in use, with 1 caches")
	end := s.command("recover", "--replace")
	aside := must(filepath.Glob(filepath.Join(s.data, "server.db.before-*")))(t)
	if end.code != 0 || len(aside) == 0 {
		t.Fatalf("exit %d, %q set aside\n%s", end.code, aside, end.stderr)
	}
	s.restart()
	s.want(http.StatusOK, s.request(http.MethodGet, "/main/nix-cache-info", tok, nil))
}

// A server that wakes up answers before it has asked its bucket. When the bucket then
// refuses it, it says so once and ends, so that nobody believes that uploads arrive.
func TestCredentialsThatWereTakenBackEndAWarmServer(t *testing.T) {
	t.Parallel()
	b := startBucket(t)
	s := b.server(t)
	s.cache("main", true)
	s.stopped()
	s.env = append(s.env, "AWS_SECRET_ACCESS_KEY=wrong")
	end := s.life("127.0.0.1:0").wait()
	if end.code != 78 || strings.Count(end.stderr, "correct AWS_SECRET_ACCESS_KEY") != 1 {
		t.Errorf("exit %d\n%s", end.code, tail(end.stderr))
	}
}

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// volume mounts a file system of its own, of so many MiB.
func volume(t testing.TB, size int) string {
	t.Helper()
	dir := t.TempDir()
	run(t, nil, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", size), "tmpfs", dir)
	t.Cleanup(func() { run(t, nil, "umount", "--lazy", dir) })
	return dir
}

func resize(t testing.TB, dir string, size int) {
	t.Helper()
	run(t, nil, "mount", "-o", fmt.Sprintf("remount,size=%dm", size), dir)
}

// fill writes until the volume takes no more.
func fill(t testing.TB, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f := must(os.Create(ballast))(t)
	defer f.Close()
	for size := 1 << 20; size >= 1; size /= 2 { // the last bytes one by one
		for buf := make([]byte, size); ; {
			if n, err := f.Write(buf); err != nil || n < size {
				break
			}
		}
	}
	return ballast
}

// bigPath is a NAR of 100 MB that fills two own packs.
const bigPath = `make "data" "{ ${bytes 60000000 30000000}; echo $out; ${bytes 90000000 70000000}; } >$out"`

// The server leaves 256 MiB of its volume to the database, so this one takes some 130 MiB of packs.
func TestPushToAFullServerFailsAndIsRepeatedWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	dir := volume(t, 256+130)
	s := startServerOn(t, filepath.Join(dir, "data"))
	small, big := build(t, "", network)[0], build(t, "", bigPath)[0]
	tok, key := s.cache("main", true)
	mustPush(t, s.url, tok, "main", small)

	before := s.packBytes("main")
	got := push(t, s.url, tok, "main", big)
	oneLine(t, got.ended, 1, "attic-action: ", "full", "hint: the server's disk is full")
	kept := s.packBytes("main") - before
	stock, nar := stockPath(t, "main", big)
	s.want(http.StatusInsufficientStorage, stockRequest(t, s.url, tok, stock, strings.NewReader(string(nar)), false))

	eachNix(t, func(t *testing.T, nix string) { pull(t, nix, s.url+"/main", key, small) })
	if have := s.present("main", tok, []string{big}); len(have) > 0 {
		t.Error("the cache says that it has what it could not store")
	}
	resize(t, dir, 256+130+160)
	again := mustPush(t, s.url, tok, "main", big)
	if kept == 0 || again.json.BytesSent > 101_000_000-kept {
		t.Errorf("%d of 100 MB were stored, the push that succeeded sent %d bytes", kept, again.json.BytesSent)
	}
	s.verifyServed("main", tok, key, append(closure(t, small), big))
	s.stopped()
	if left := s.litter(); len(left) > 0 {
		t.Errorf("the failures left %v", left)
	}
}

// Something else took the last byte of the volume, so that not even the database can write.
func TestServerOnAVolumeWithoutAByteReadsOnAndRecovers(t *testing.T) {
	t.Parallel()
	dir := volume(t, 400)
	s := startServerOn(t, filepath.Join(dir, "data"))
	small, other := build(t, "", network)[0], addTree(t, "other", map[string]string{"file": "text"})
	tok, key := s.cache("main", true)
	admin := s.token("--configure-cache", "main", "--pull", "main")
	mustPush(t, s.url, tok, "main", small)
	ballast := fill(t, dir)

	got := push(t, s.url, tok, "main", other)
	oneLine(t, got.ended, 1, "attic-action: ", "full", "hint: the server's disk is full")
	patch := s.request(http.MethodPatch, "/_api/v1/cache-config/main", admin, strings.NewReader(`{"priority":7}`))
	patch.Header.Set("Content-Type", "application/json")
	if status, text := s.send(patch); status != http.StatusInsufficientStorage {
		t.Errorf("PATCH: %d %s", status, text)
	}
	pull(t, rig.nixes[0], s.url+"/main", key, small)
	if !s.proc.running() {
		t.Fatal("the server is gone")
	}

	s.proc.kill()
	s.restart() // without a byte to spare
	s.verifyServed("main", tok, key, closure(t, small))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustPush(t, s.url, tok, "main", other)
	s.verifyServed("main", tok, key, []string{other})
	s.stopped()

	s.loseDatabase()
	ballast = fill(t, dir)
	oneLine(t, s.command("recover"), 1, "attic-server: open database ", "full")
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.recover(0)
	s.restart()
	s.verifyServed("main", tok, key, []string{other})
}

func TestPushWithoutRoomForItsPacksSaysSo(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	tok, _ := s.cache("main", true)
	dir := volume(t, 20)
	env := append(environment(t.TempDir(), "ATTIC_TOKEN="+tok), "TMPDIR="+dir)
	end := start(t, env, rig.action, "push", "--server", s.url, "main", build(t, "", network)[0]).wait()
	oneLine(t, end, 1, "attic-action: ", "hint: packs wait in the directory for temporary files")
	if left := must(os.ReadDir(dir))(t); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

func TestServerWithoutAWritableDirectorySaysSo(t *testing.T) {
	t.Parallel()
	dir := volume(t, 1)
	run(t, nil, "mount", "-o", "remount,ro", dir)
	for _, data := range []string{dir, filepath.Join(dir, "data")} {
		end := start(t, environment(t.TempDir()), rig.server, "--data", data, "--listen", "127.0.0.1:0").wait()
		oneLine(t, end, 1, "attic-server: ", data, "read-only file system")
	}
}

package meta

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/org/attic-action/internal/blob/disk"
	"github.com/org/attic-action/internal/ledger"
)

// crashDir tells the test binary to be the child: it commits below this
// directory until it is killed.
const crashDir = "META_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, commitUntilKilled(dir, os.Getenv(crashDir+"_ROUND")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func openCrash(dir string) (*DB, *ledger.Log, error) {
	store, err := disk.New(filepath.Join(dir, "bucket"))
	if err != nil {
		return nil, nil, err
	}
	log := &ledger.Log{Blobs: store, Epoch: 1}
	db, err := Open(context.Background(), filepath.Join(dir, "meta.db"), Options{Journal: log})
	return db, log, err
}

// commitUntilKilled prints the name of every cache whose creation was
// acknowledged, by several writers at once.
func commitUntilKilled(dir, round string) error {
	db, _, err := openCrash(dir)
	if err != nil {
		return err
	}
	errs := make(chan error)
	var out sync.Mutex
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("%s-%d-%d", round, w, i)
				if err := db.Update(context.Background(), create(name)); err != nil {
					errs <- err
					return
				}
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		}()
	}
	return <-errs
}

func TestAcknowledgedSurvivesSIGKILL(t *testing.T) {
	dir := t.TempDir()
	var acked []string
	for round := range 6 {
		acked = append(acked, killed(t, dir, fmt.Sprint(round))...)
	}
	if len(acked) == 0 {
		t.Fatal("nothing was acknowledged before any of the kills")
	}
	db, log, err := openCrash(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	inDB := map[string]bool{}
	view(t, db, func(tx *Tx) error {
		list, err := tx.Caches()
		for _, c := range list {
			inDB[c.Name] = true
		}
		return err
	})
	inLog, objects := map[string]bool{}, map[uint64]string{}
	_, err = log.Replay(t.Context(), nil, func(_ ledger.Pos, _ string, recs []ledger.Record) error {
		for _, r := range recs {
			inLog[r.Cache.Name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Glob(filepath.Join(dir, "bucket", "log", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		var seq uint64
		if _, err := fmt.Sscanf(filepath.Base(key), "%020d-", &seq); err != nil {
			t.Fatal(err)
		}
		if other, ok := objects[seq]; ok {
			t.Errorf("number %d was used twice: %s and %s", seq, other, key)
		}
		objects[seq] = key
	}
	for _, name := range acked {
		if !inDB[name] || !inLog[name] {
			t.Errorf("acknowledged %s: in the database %v, in the log %v", name, inDB[name], inLog[name])
		}
	}
	for name := range inDB {
		if !inLog[name] {
			t.Errorf("%s is in the database without a record", name)
		}
	}
	t.Logf("%d acknowledged, %d in the database, %d in the log, %d objects", len(acked), len(inDB), len(inLog), len(objects))
}

// killed runs a child for a random time and gives what it acknowledged. The last
// line may be cut off by the kill; then it was not read by anybody.
func killed(t *testing.T, dir, round string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashDir+"_ROUND="+round)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100*time.Millisecond + rand.N(300*time.Millisecond))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the child ended by itself: %v, %s", err, &errOut)
	}
	var names []string
	whole, _, _ := cutLast(out.String(), "\n")
	for s := bufio.NewScanner(strings.NewReader(whole)); s.Scan(); {
		names = append(names, s.Text())
	}
	return names
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

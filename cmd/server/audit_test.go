package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/audit"
)

// The whole way: a running server, a client that is refused, and the operator who looks
// up the request id that the client shows.
func TestRefusedRequestIsFoundByItsID(t *testing.T) {
	home := t.TempDir()
	url, stderr, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtYWxsb3J5In0.c2lnbmF0dXJlLXRoYXQtaXMtbm90LW91cnM"
	req, err := http.NewRequest("GET", url+"/_api/v1/cache-config/c?token="+jwt, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+jwt)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Request-Id")
	if resp.StatusCode != 401 || id == "" {
		t.Fatalf("got %s, id %q", resp.Status, id)
	}
	if code := stop(); code != 0 {
		t.Fatalf("stop: exit %d: %s", code, stderr)
	}
	code, out, errs := call(t, home, "attic-server", "audit", "--request", id)
	if code != 0 || errs != "" || strings.Count(out, "\n") != 1 || !strings.Contains(out, "refused  auth") || !strings.Contains(out, "no key of this server made the signature") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	for _, text := range []string{out, stderr.String()} {
		if strings.Contains(text, "c2lnbmF0") || strings.Contains(text, "bWFsbG9yeSJ9") {
			t.Errorf("it shows the token: %s", text)
		}
	}
	file := filepath.Join(home, ".local/share/attic-server/audit.log")
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v", err)
	}
	if text, err := os.ReadFile(file); err != nil || bytes.Contains(text, []byte("eyJ")) {
		t.Errorf("the file holds a token, or %v: %s", err, text)
	}
}

func TestAuditOfCommandsHoldsWhatTheyAskedForAndNoSecret(t *testing.T) {
	type input struct {
		Name         string
		Cache        string
		IDs          []string
		RepositoryID int64 `json:"repository-id"`
		Policy       struct{ Ref string }
		Token        string
		TokenFile    string
		PrivateKey   string
		Note         string
	}
	l := &audit.Log{Path: filepath.Join(t.TempDir(), "audit.log")}
	if err := l.Open(); err != nil {
		t.Fatal(err)
	}
	in := input{Name: "infra", Cache: "system", IDs: []string{"a", "b"}, RepositoryID: 1234567890123, Token: "hunter2", TokenFile: "hunter2",
		PrivateKey: "hunter2", Note: "cache-1:" + strings.Repeat("A", 86) + "=="}
	in.Policy.Ref = "refs/heads/main"
	write := auditAdmin(l)
	write(t.Context(), admin.Record{ID: "r1", Verb: "trust/add", UID: 0, Input: in, At: time.Now()})
	write(t.Context(), admin.Record{ID: "r2", Verb: "trust/add", UID: admin.Nobody, Err: errors.New("the policy is too wide"), At: time.Now()})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got []audit.Event
	r := &audit.Reader{Path: l.Path}
	if err := r.Read(t.Context(), func(e audit.Event, line []byte) error {
		if bytes.Contains(line, []byte("hunter2")) || bytes.Contains(line, []byte("AAAA")) {
			t.Errorf("it holds a secret: %s", line)
		}
		got = append(got, e)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	if e := got[0]; e.Action != "admin.trust.add" || e.Result != audit.OK || e.Policy != "infra" || e.Cache != "system" || e.Token != "a,b" ||
		e.Claims["ref"] != "refs/heads/main" || e.Claims["repository-id"] != "1234567890123" || !strings.HasPrefix(e.User, "0") {
		t.Errorf("got %+v", e)
	}
	if e := got[1]; e.Result != audit.Refused || e.Reason != "the policy is too wide" || e.User != "" {
		t.Errorf("got %+v", e)
	}
}

// Afterwards somebody asks whether a token had been taken back, and by whom; what a policy had granted is not
// listed any more by then.
func TestRevocationByPolicyNamesTheTokensAndTheUser(t *testing.T) {
	home := t.TempDir()
	_, _, stop := start(t, home, "attic-server", "--listen", "127.0.0.1:0")
	defer stop()
	ids := map[string]bool{}
	for range 30 {
		code, out, errs := call(t, home, "attic-server", "make-token", "--sub", "web", "--validity", "1h", "--pull", "c")
		if code != 0 {
			t.Fatalf("make-token: %s", errs)
		}
		id, err := tokenID(strings.TrimSpace(out))
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
	}
	if code, _, errs := call(t, home, "attic-server", "token", "revoke", "--sub", "web"); code != 0 {
		t.Fatal(errs)
	}
	user := strconv.Itoa(os.Getuid())
	for id := range ids {
		for eventually := 0; ; eventually++ { // the record is written behind the answer
			code, out, errs := call(t, home, "attic-server", "audit", "--action", "admin.token.revoke", "--jti", id)
			if code == 0 && strings.Count(out, "\n") == 1 && strings.Contains(out, "objects=30") && strings.Contains(out, " user=") && strings.Contains(out, user) {
				break
			}
			if eventually == 100 {
				t.Fatalf("token %s: exit %d, %q, %q", id, code, out, errs)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestAuditTakesTimesAndDurations(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"2h":                   now.Add(-2 * time.Hour),
		"3 days":               now.Add(-72 * time.Hour),
		"2026-11-01":           time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		"2026-11-01T10:00:00Z": time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
	} {
		if got, err := when(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %s, %v, want %s", text, got, err, want)
		}
	}
	if code, _, stderr := call(t, t.TempDir(), "attic-server", "audit", "--since", "yesterday"); code != 2 || !strings.Contains(stderr, `--since: "yesterday" is no time`) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

// The attack: an event whose text looks like another field, or another line, of the output.
func TestAuditLineQuotesWhatCouldBeTakenForFields(t *testing.T) {
	e := audit.Event{Action: audit.Upload, Result: audit.OK, Subject: `x result=ok reason="fine"`, Cache: "c"}
	if got := auditLine(e); strings.Count(got, "\n") != 1 || !strings.Contains(got, `sub="x result=ok reason=\"fine\""`) {
		t.Errorf("got %s", got)
	}
}

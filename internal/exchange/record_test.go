package exchange_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/org/attic-action/internal/audit"
	"github.com/org/attic-action/internal/limit"
)

func (w *world) last(t *testing.T) audit.Event {
	t.Helper()
	if len(w.events) == 0 {
		t.Fatal("nothing was recorded")
	}
	return w.events[len(w.events)-1]
}

func TestGrantIsRecorded(t *testing.T) {
	w := newWorld(t, infra())
	_, claims := granted(t, w, w.post(form(w.issuer.Token(audience))))
	e := w.last(t)
	if len(w.events) != 1 || e.Action != audit.Exchange || e.Result != audit.OK || e.Status != 200 || e.Request != "req-1" || e.Unverified ||
		e.Token != claims.ID || e.Subject != claims.Subject || e.Policy != "infra" || e.Cache != "system" ||
		e.Object != "cache:system:pull cache:system:push" || e.Address != "192.0.2.1" || !e.Time.Equal(w.clock) {
		t.Errorf("got %+v", e)
	}
	if e.Claims["repository_id"] != "123456789" || e.Claims["run_id"] == "" || e.Claims["event_name"] != "push" {
		t.Errorf("got claims %v", e.Claims)
	}
}

// The caller is told nothing; the record has the reason and the same request id.
func TestRefusalIsRecordedExactly(t *testing.T) {
	w := newWorld(t, infra())
	w.Limits.Refused = nil
	is := w.issuer
	used := is.Token(audience)
	granted(t, w, w.post(form(used)))
	for _, c := range []struct {
		name, raw, scope, reason string
		stranger                 bool
	}{
		{"other repository", is.Sign(is.With(audience, map[string]any{"repository_id": "5"})), "", "repository_id", true},
		{"garbage", "bad", "", "invalid_grant", true},
		{"other audience", is.Token("https://github.com/acme"), "", "aud", true},
		{"used before", used, "", "used before", false},
		{"more than it may", is.Token(audience), "cache:other:push", "invalid_scope", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form(c.raw)
			if c.scope != "" {
				f.Set("scope", c.scope)
			}
			if rec := w.post(f); rec.Code != http.StatusBadRequest {
				t.Fatalf("got %d", rec.Code)
			}
			e := w.last(t)
			if e.Result != audit.Refused || e.Status != 400 || e.Request != "req-1" || !strings.Contains(e.Reason, c.reason) || e.Unverified != c.stranger {
				t.Errorf("got %+v", e)
			}
			if text := fmt.Sprint(e); strings.Contains(text, c.raw) && len(c.raw) > 10 {
				t.Errorf("it holds the token: %s", text)
			}
		})
	}
}

func TestPolicyGrantsOnlySoOften(t *testing.T) {
	w := newWorld(t, infra(), reader())
	w.Limits.Granted = &limit.Buckets{Rate: limit.PerMinute(3)}
	ask := func(scope string) int {
		f := form(w.issuer.Token(audience))
		f.Set("scope", scope)
		return w.post(f).Code
	}
	for i := range 3 {
		if code := ask("cache:system:push"); code != 200 {
			t.Fatalf("exchange %d: got %d", i, code)
		}
	}
	raw := w.issuer.Token(audience)
	rec := w.post(form(raw, "scope", "cache:system:push"))
	e := refused(t, rec, http.StatusTooManyRequests, "slow_down")
	if rec.Header().Get("Retry-After") != "20" || strings.Contains(e.Description, "infra") {
		t.Errorf("got %s, %v", rec.Body, rec.Header())
	}
	if ev := w.last(t); ev.Result != audit.Limited || ev.Policy != "infra,reader" || !strings.Contains(ev.Reason, "infra") {
		t.Errorf("recorded as %+v", ev)
	}
	if code := ask("cache:shared:pull"); code != 200 {
		t.Errorf("another policy is limited with it: %d", code)
	}
	w.clock = w.clock.Add(20 * time.Second)
	// It was not used up by the refusal.
	granted(t, w, w.post(form(raw, "scope", "cache:system:push")))
}

func TestAddressAsksOnlySoOften(t *testing.T) {
	w := newWorld(t, infra())
	w.Limits.Asked = &limit.Buckets{Rate: limit.PerMinute(5)}
	for range 5 {
		granted(t, w, w.post(form(w.issuer.Token(audience))))
	}
	refused(t, w.post(form(w.issuer.Token(audience))), http.StatusTooManyRequests, "slow_down")
	other := request(form(w.issuer.Token(audience)).Encode())
	other.RemoteAddr = "198.51.100.7:1"
	granted(t, w, w.send(other))
}

// The attack: another X-Forwarded-For with every guess, so that none is the tenth.
func TestForgedHeaderDoesNotEvadeTheLimit(t *testing.T) {
	w := newWorld(t, infra())
	for i := range 11 {
		r := request(form("bad").Encode())
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i))
		r.Header.Set("Fly-Client-IP", fmt.Sprintf("198.51.100.%d", i))
		if rec := w.send(r); rec.Code == http.StatusTooManyRequests {
			if i != 10 {
				t.Errorf("guess %d was limited already", i)
			}
			return
		}
	}
	t.Error("eleven guesses in no time were answered")
}

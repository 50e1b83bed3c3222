package meta_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// notes is a journal that keeps what it is told.
type notes struct{ recs []ledger.Record }

func (n *notes) Append(_ context.Context, _ uint64, _ *ledger.Pos, recs []ledger.Record) ([]string, error) {
	n.recs = append(n.recs, recs...)
	return nil, nil
}

func TestPoliciesAreKeptAndRecorded(t *testing.T) {
	journal := &notes{}
	db, err := meta.Open(t.Context(), ":memory:", meta.Options{Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	version := func() (v int64) {
		t.Helper()
		if err := db.View(t.Context(), func(tx *meta.Tx) (err error) { v, err = tx.PoliciesVersion(); return err }); err != nil {
			t.Fatal(err)
		}
		return v
	}
	update := func(fn func(*meta.Tx) error) error { return db.Update(t.Context(), fn) }
	text := json.RawMessage(`{"name":"infra","repository-id":1}`)
	start := version()
	if err := update(func(tx *meta.Tx) error {
		return tx.AddPolicy(&meta.Policy{Name: "infra", Policy: text, CreatedBy: "ops"})
	}); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *meta.Tx) error { return tx.AddPolicy(&meta.Policy{Name: "infra", Policy: text}) }); !errors.Is(err, meta.ErrExists) {
		t.Errorf("the same name again: got %v, want ErrExists", err)
	}
	added := version()
	if added == start {
		t.Error("the version did not change with an added policy")
	}
	if err := update(func(tx *meta.Tx) error {
		return tx.PutPolicy(&meta.Policy{Name: "infra", Policy: json.RawMessage(`{"name":"infra","repository-id":2}`)})
	}); err != nil {
		t.Fatal(err)
	}
	var list []meta.Policy
	if err := db.View(t.Context(), func(tx *meta.Tx) (err error) { list, err = tx.Policies(); return err }); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || string(list[0].Policy) != `{"name":"infra","repository-id":2}` || list[0].CreatedAt.IsZero() {
		t.Errorf("got %+v", list)
	}
	if err := update(func(tx *meta.Tx) error { return tx.DeletePolicy("infra") }); err != nil {
		t.Fatal(err)
	}
	if err := update(func(tx *meta.Tx) error { return tx.DeletePolicy("infra") }); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("deleted twice: got %v, want ErrNotFound", err)
	}
	if version() == added {
		t.Error("the version did not change with a deleted policy")
	}
	if len(journal.recs) != 3 || journal.recs[0].Policy == nil || journal.recs[1].Policy == nil || journal.recs[2].PolicyDeleted == nil {
		t.Errorf("got records %+v, want two policies and a deletion", journal.recs)
	}
	if p := journal.recs[0].Policy; p != nil && (p.Name != "infra" || string(p.Policy) != string(text) || p.By != "ops" || p.At.IsZero()) {
		t.Errorf("got record %+v", p)
	}
}

func TestPolicyThatIsNotJSONIsRefused(t *testing.T) {
	db, err := meta.Open(t.Context(), ":memory:", meta.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	for _, text := range []string{"", "{", "name = 1"} {
		err := db.Update(t.Context(), func(tx *meta.Tx) error { return tx.AddPolicy(&meta.Policy{Name: "p", Policy: json.RawMessage(text)}) })
		if err == nil {
			t.Errorf("%q was stored", text)
		}
	}
}

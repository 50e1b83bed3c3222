// Package trustbook is all trust policies of a server: those of server.toml, which
// stand as long as it runs, and those of the database, which come and go by command.
//
//	server.toml  [[trust]] ──┐
//	                         ├─► Set, for each exchange ─► package exchange
//	database     policies ───┘   (read anew when their version has changed)
//
// A policy of the database that cannot be compiled any more (its issuer is not listed
// now, its name stands in server.toml) grants nothing, is told by List and in the log,
// and does not touch the others.
package trustbook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/trust"
)

// Book is the policies. Use it by pointer; it is safe for concurrent use.
type Book struct {
	DB     *meta.DB
	File   []trust.Policy // of server.toml, checked
	Kinds  trust.Issuers
	Listed func(issuer string) bool // whether tokens of an issuer are accepted
	Log    *slog.Logger             // nil discards

	mu      sync.Mutex
	set     *trust.Set
	version int64
}

// Where an Entry is from.
const (
	FromFile     = "server.toml"
	FromDatabase = "database"
)

// Entry is one policy and what became of it.
type Entry struct {
	Policy  trust.Policy `json:"policy"`
	From    string       `json:"from"`
	By      string       `json:"by,omitempty"`
	At      *time.Time   `json:"at,omitempty"`
	Problem string       `json:"problem,omitempty"` // why it grants nothing
}

var (
	// ErrExists says that a policy's name is taken.
	ErrExists = errors.New("the name is taken")
	// ErrNotFound says that there is no policy of that name in the database.
	ErrNotFound = errors.New("there is no such policy")
)

// Set returns the policies that hold now.
func (b *Book) Set(ctx context.Context) (*trust.Set, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var version int64
	var rows []meta.Policy
	err := b.DB.View(ctx, func(tx *meta.Tx) (err error) {
		if version, err = tx.PoliciesVersion(); err != nil || b.set != nil && version == b.version {
			return err
		}
		rows, err = tx.Policies()
		return err
	})
	if err != nil {
		return nil, err
	}
	if b.set != nil && version == b.version {
		return b.set, nil
	}
	policies := slices.Clone(b.File)
	for _, e := range b.entries(rows) {
		if e.Problem != "" {
			b.log().Warn("a trust policy of the database grants nothing", "policy", e.Policy.Name, "error", e.Problem)
			continue
		}
		policies = append(policies, e.Policy)
	}
	set, err := b.Kinds.Compile(policies)
	if err != nil {
		return nil, err // more than a set can hold
	}
	b.set, b.version = set, version
	return set, nil
}

// List returns all policies: those of the file in its order, then those of the
// database by name.
func (b *Book) List(ctx context.Context) ([]Entry, error) {
	var rows []meta.Policy
	err := b.DB.View(ctx, func(tx *meta.Tx) (err error) { rows, err = tx.Policies(); return err })
	if err != nil {
		return nil, err
	}
	return append(FileEntries(b.File), b.entries(rows)...), nil
}

// FileEntries are the entries of policies in server.toml.
func FileEntries(policies []trust.Policy) []Entry {
	list := make([]Entry, len(policies))
	for i, p := range policies {
		list[i] = Entry{Policy: p, From: FromFile}
	}
	return list
}

// Add checks a policy and keeps it. With replace it takes the place of the one of its
// name; else such a one is ErrExists.
func (b *Book) Add(ctx context.Context, p trust.Policy, by string, replace bool) error {
	if err := b.check(p); err != nil {
		return err
	}
	text, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("trust policy %q: %w", p.Name, err)
	}
	row := &meta.Policy{Name: p.Name, Policy: text, CreatedBy: by}
	err = b.DB.Update(ctx, func(tx *meta.Tx) error {
		if replace {
			return tx.PutPolicy(row)
		}
		return tx.AddPolicy(row)
	})
	if errors.Is(err, meta.ErrExists) {
		return fmt.Errorf("trust policy %q: %w: replace it, or choose another name", p.Name, ErrExists)
	}
	return err
}

// Remove takes a policy of the database back, at once.
func (b *Book) Remove(ctx context.Context, name string) error {
	err := b.DB.Update(ctx, func(tx *meta.Tx) error { return tx.DeletePolicy(name) })
	if !errors.Is(err, meta.ErrNotFound) {
		return err
	}
	if b.inFile(name) {
		return fmt.Errorf("trust policy %q: %w in the database: it stands in server.toml, take it out there and start the server again", name, ErrNotFound)
	}
	return fmt.Errorf("trust policy %q: %w", name, ErrNotFound)
}

func (b *Book) check(p trust.Policy) error {
	if _, err := b.Kinds.Compile([]trust.Policy{p}); err != nil {
		return err
	}
	if b.inFile(p.Name) {
		return fmt.Errorf("trust policy %q: %w by one in server.toml", p.Name, ErrExists)
	}
	if b.Listed != nil && !b.Listed(p.Issuer) {
		return fmt.Errorf("trust policy %q: no [[oidc.issuer]] of server.toml has the url %q", p.Name, p.Issuer)
	}
	return nil
}

func (b *Book) inFile(name string) bool {
	return slices.ContainsFunc(b.File, func(p trust.Policy) bool { return p.Name == name })
}

func (b *Book) entries(rows []meta.Policy) []Entry {
	list := make([]Entry, 0, len(rows))
	for _, row := range rows {
		at := row.CreatedAt
		e := Entry{From: FromDatabase, By: row.CreatedBy, At: &at}
		err := decode(row.Policy, &e.Policy)
		if err == nil && e.Policy.Name != row.Name {
			err = fmt.Errorf("it is kept under the name %q and has the name %q", row.Name, e.Policy.Name)
		}
		if err == nil {
			err = b.check(e.Policy)
		}
		e.Policy.Name = row.Name
		if err != nil {
			e.Problem = err.Error()
		}
		list = append(list, e)
	}
	return list
}

// decode reads a policy. A member that this program does not know might narrow it, so
// such a policy grants nothing here.
func decode(text []byte, p *trust.Policy) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	return dec.Decode(p)
}

func (b *Book) log() *slog.Logger {
	if b.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return b.Log
}

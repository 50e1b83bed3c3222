package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/org/attic-action/internal/gc/rewrite"
	"github.com/org/attic-action/internal/ledger"
	"github.com/org/attic-action/internal/meta"
)

// survey is which packs no layout needs.
type survey struct {
	rewrite.Survey
	number int64
	idle   []int64 // packs
}

// look reads all layouts. What is shown to a cache from the moment on at which the survey got its number, it need not
// have seen.
func (c *Collector) look(ctx context.Context, r *run) (done bool, err error) {
	if r.survey == nil {
		s := &survey{Survey: rewrite.Survey{DB: c.DB, Layouts: c.Layouts}}
		err := c.update(ctx, func(tx *meta.Tx) (err error) { s.number, err = tx.BeginCollection(); return err })
		if err != nil {
			return false, err
		}
		r.survey = s
	}
	done, err = r.survey.Step(ctx)
	if err != nil || !done {
		return false, err
	}
	r.survey.Usage().Each(func(p rewrite.PackUsage) {
		if p.Entries == 0 && !p.Whole {
			r.survey.idle = append(r.survey.idle, p.ID)
		}
	})
	r.survey.Survey = rewrite.Survey{} // it is large
	return true, nil
}

// condemn condemns what the survey found, if nobody has been shown any of it since.
func (c *Collector) condemn(ctx context.Context, r *run) (done bool, err error) {
	s := r.survey
	for len(s.idle) > 0 {
		batch, n := s.idle[:min(len(s.idle), packBatch)], 0
		err := c.update(ctx, func(tx *meta.Tx) error {
			for _, id := range batch {
				done, err := tx.Condemn(id, s.number)
				if err != nil {
					return err
				}
				if done {
					n++
				}
			}
			return nil
		})
		if err != nil {
			return false, err
		}
		s.idle = s.idle[len(batch):]
		r.result.Doomed += n
		if ctx.Err() != nil {
			return false, nil
		}
	}
	r.survey = nil
	return true, nil
}

const (
	// reapBatch packs lose their rows in one transaction: of each thousands of places.
	reapBatch = 16
	// deletes is how many objects are deleted at a time.
	deletes = 8
	// sendTime bounds a request to the bucket that is not broken off when somebody else comes.
	sendTime = 20 * time.Second
)

// reap takes rows of packs away whose time has come, and then deletes their objects. What an earlier process left
// between the two comes first.
func (c *Collector) reap(ctx context.Context, r *run) (done bool, err error) {
	for {
		done, err := c.deleteDoomed(ctx, r)
		if err != nil || !done {
			return false, err
		}
		n, err := c.doom(ctx, r)
		if err != nil || n == 0 {
			return err == nil, err
		}
	}
}

// doom takes away the rows of some packs.
func (c *Collector) doom(ctx context.Context, r *run) (n int, err error) {
	before := c.now().Add(-c.grace(r))
	var list []meta.Doomed
	err = c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
		list, err = tx.Condemned(before, reapBatch)
		return err
	})
	if err != nil || len(list) == 0 {
		return 0, err
	}
	// Whoever deletes must own the bucket. Not even a row may go of a database that is not the bucket's any more: the
	// one that is would be asked for nothing, and this one would forget what to do.
	if err := c.owns(ctx); err != nil {
		return 0, err
	}
	err = c.update(ctx, func(tx *meta.Tx) error {
		if !r.superseded { // what a process logged that ended before its transaction may need one of them
			if err := tx.Supersede(); err != nil {
				return err
			}
		}
		for _, d := range list {
			if _, err := tx.Doom(d, before); err != nil {
				return err
			}
		}
		return nil
	})
	r.superseded = r.superseded || err == nil
	return len(list), err
}

// deleteDoomed deletes the objects of packs that have no row any more.
func (c *Collector) deleteDoomed(ctx context.Context, r *run) (done bool, err error) {
	for {
		var list []meta.Doomed
		err := c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) {
			list, err = tx.DoomedObjects(4 * deletes)
			return err
		})
		if err != nil || len(list) == 0 {
			return err == nil, err
		}
		if ctx.Err() != nil {
			return false, nil
		}
		if err := c.owns(ctx); err != nil {
			return false, err
		}
		keys := make([]string, len(list))
		for i, d := range list {
			keys[i] = d.Key
		}
		failed := c.delete(ctx, keys)
		err = c.update(ctx, func(tx *meta.Tx) error {
			for i, d := range list {
				if failed[i] != nil {
					continue
				}
				if err := tx.Gone(d.Key); err != nil {
					return err
				}
			}
			return nil
		})
		for i, d := range list {
			if failed[i] == nil && err == nil {
				r.result.Packs++
				r.result.Freed += d.Size
			}
		}
		if err = errors.Join(err, errors.Join(failed...)); err != nil {
			return false, err
		}
	}
}

// delete deletes objects, some at a time. It is not broken off: whether they are gone would not be known.
func (c *Collector) delete(ctx context.Context, keys []string) []error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime)
	defer cancel()
	failed := make([]error, len(keys))
	slots := make(chan struct{}, deletes)
	var wg sync.WaitGroup
	for i, key := range keys {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := c.Blobs.Delete(ctx, key); err != nil {
				failed[i] = fmt.Errorf("delete %s: %w", key, err)
			}
		})
	}
	wg.Wait()
	return failed
}

// ErrSuperseded says that another server has rebuilt its database from the bucket. What that one has pushed since lies
// on packs that this one may hold to be needed by nothing.
var ErrSuperseded = errors.New("another server has recovered from this bucket; stop this one")

// owns sees to it that the bucket is this database's. It is asked before every few deletions.
func (c *Collector) owns(ctx context.Context) error {
	var epoch uint64
	err := c.DB.View(context.WithoutCancel(ctx), func(tx *meta.Tx) (err error) { epoch, err = tx.Epoch(); return err })
	if err != nil {
		return err
	}
	newer, err := ledger.Newer(context.WithoutCancel(ctx), c.Blobs, epoch)
	if err == nil && newer {
		err = ErrSuperseded
	}
	return err
}

func keepResult(tx *meta.Tx, r *Result) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := tx.SetFact(meta.FactPlan, nil); err != nil { // it was done
		return err
	}
	return tx.SetFact(meta.FactCollection, text)
}

// KeepPlan remembers a plan, for those who want to know at once.
func KeepPlan(tx *meta.Tx, p *Plan) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return tx.SetFact(meta.FactPlan, text)
}

// LastPlan is the plan that was made last; nil if none was.
func LastPlan(tx *meta.Tx) (*Plan, error) {
	text, err := tx.Fact(meta.FactPlan)
	if err != nil || text == nil {
		return nil, err
	}
	var p Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("read what a collection would do: %w", err)
	}
	return &p, nil
}

// LastResult is what the last collection did that came to its end; nil if none did.
func LastResult(tx *meta.Tx) (*Result, error) {
	text, err := tx.Fact(meta.FactCollection)
	if err != nil || text == nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read what the last collection did: %w", err)
	}
	return &r, nil
}

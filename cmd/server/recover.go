package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/depot"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/recovery"
)

const recoverHelp = `Rebuild the database from the storage.

The storage (a bucket, or the directory storage/) holds all that was acknowledged; the
database is only quicker. When its volume is lost, this makes it anew: caches with
their keys, paths, tokens and revocations, policies, pins. It is built beside its
place, as FILE.recovering, and takes its place at the end. Broken off, it goes on
where it was when it is called again. The server must not run meanwhile.

What cannot be read is named on stderr, a line each, and left out; everything else
works. Paths whose packs are gone are left out too, so that the next push brings them
back. ID tokens that were issued before a recovery are refused.

With --check nothing is changed: database and storage are compared, and what is in one
and not in the other is listed. The server may run.

Exit codes: 0 all is there; 1 something that was acknowledged is lost or missing, or
it could not be done; 2 the command line is wrong; 78 the configuration is wrong.`

func (p *program) recover() *cobra.Command {
	var check, asJSON, replace bool
	cmd := &cobra.Command{
		Use: "recover", Short: "Rebuild the database from the storage, or compare the two", Long: recoverHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if check && replace {
				return usageError{errors.New("--check changes nothing, so there is nothing to --replace")}
			}
			if check {
				return p.checkRecovery(cmd.Context(), asJSON)
			}
			cfg, err := p.load()
			if err != nil {
				return err
			}
			p.warnOf(cfg)
			if err := becomeOwner(cfg); err != nil {
				return err
			}
			res, err := p.rebuild(cmd.Context(), cfg, replace)
			if err != nil {
				return err
			}
			return p.tellRecovery(res, asJSON)
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "compare database and storage, and change nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.Flags().BoolVar(&replace, "replace", false, "do it although the database is in use; it is kept under another name")
	return cmd
}

// rebuild makes the database anew.
func (p *program) rebuild(ctx context.Context, cfg *config.Server, replace bool) (*recovery.Result, error) {
	file := cfg.Database.File
	if file == ":memory:" {
		return nil, configError{errors.New("database.url says that the database is in memory; there is no file to rebuild")}
	}
	if err := refuseAttics(ctx, cfg); err != nil {
		return nil, err
	}
	lock, err := lockData(file)
	if errors.Is(err, errLocked) {
		return nil, hintError{err, "stop it first; attic-server recover --check works while it runs"}
	}
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	store, err := openStore(ctx, cfg)
	if err == nil {
		err = checkStore(ctx, store)
	}
	if err != nil {
		return nil, err
	}
	if holds, err := holdsData(ctx, store); err != nil {
		return nil, err
	} else if !holds {
		return nil, errors.New("the storage holds nothing to recover from; nothing was done")
	}
	if !replace {
		if err := refuseUsed(ctx, file); err != nil {
			return nil, err
		}
	}
	res, err := p.rebuildBeside(ctx, file+".recovering", store)
	if err != nil {
		return nil, err
	}
	return res, p.takePlace(file, replace)
}

// refuseUsed is an error for a database that something was ever done with: a command
// that was meant for a lost volume must not take the place of one that is there.
func refuseUsed(ctx context.Context, file string) error {
	if info, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	db, err := meta.Open(ctx, file, meta.Options{})
	if err != nil {
		return hintError{fmt.Errorf("look at the database that is there: %w", err), "recover --replace sets it aside and does not read it"}
	}
	defer db.Close()
	var used bool
	var counts meta.Counts
	err = db.View(ctx, func(tx *meta.Tx) (err error) {
		if used, err = tx.Used(); err == nil {
			counts, err = tx.Count()
		}
		return err
	})
	if err != nil {
		return err
	}
	if used {
		return hintError{fmt.Errorf("the database %s is in use, with %d caches and %d paths; nothing was done", file, counts.Caches, counts.Paths),
			"attic-server recover --check compares it with the storage; recover --replace sets it aside and makes another"}
	}
	return nil
}

// rebuildBeside makes a database in a file of its own. One that an earlier attempt
// left is gone on with, unless it is of no use.
func (p *program) rebuildBeside(ctx context.Context, file string, store blob.Store) (*recovery.Result, error) {
	for again := false; ; again = true {
		res, err := p.rebuildOnce(ctx, file, store)
		if err == nil || again || ctx.Err() != nil || !errors.Is(err, recovery.ErrChanged) && !errors.Is(err, errUnusable) {
			if ctx.Err() != nil {
				err = hintError{errors.New("stopped before the end; the database was not touched"), "call it again, and it goes on where it was"}
			}
			return res, err
		}
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(file + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("begin anew: %w", err)
			}
		}
	}
}

var errUnusable = errors.New("what an earlier attempt has left cannot be opened")

func (p *program) rebuildOnce(ctx context.Context, file string, store blob.Store) (_ *recovery.Result, err error) {
	layouts := &depot.Layouts{}
	plan := planMemory()
	debug.SetMemoryLimit(plan.GoHeap)
	debug.SetGCPercent(50)
	_, earlier := os.Stat(file)
	db, err := meta.Open(ctx, file, meta.Options{Layouts: layouts, Rebuilt: true, PageCache: plan.Database})
	if err != nil && earlier == nil {
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := db.Close(); err == nil && e != nil {
			err = e
		}
	}()
	lastStage, lastTold := "", time.Time{}
	r := &recovery.Recovery{Blobs: store, DB: db, Layouts: layouts,
		Progress: func(stage string, done, of int) {
			if stage == lastStage && time.Since(lastTold) < 2*time.Second {
				return
			}
			lastStage, lastTold = stage, time.Now()
			switch {
			case of > 0:
				fmt.Fprintf(p.stderr, "%s: %d of %d\n", stage, done, of)
			case done > 0:
				fmt.Fprintf(p.stderr, "%s: %d\n", stage, done)
			default:
				fmt.Fprintln(p.stderr, stage)
			}
		},
		Lost: func(line string) { fmt.Fprintf(p.stderr, "lost: %s\n", oneLine(line)) },
	}
	res, err := r.Run(ctx)
	if err != nil {
		return nil, err
	}
	name, err := nameBucket(ctx, store)
	if err != nil {
		return nil, err
	}
	return res, db.Update(ctx, func(tx *meta.Tx) error { return tx.SetFact(meta.FactStore, []byte(name)) })
}

// takePlace puts the rebuilt database in its place. One that is there goes out of the
// way first: it is kept if it may have been used.
func (p *program) takePlace(file string, keep bool) error {
	aside := fmt.Sprintf("%s.before-%s", file, time.Now().UTC().Format("20060102-150405"))
	for _, suffix := range []string{"-shm", "-wal", ""} {
		var err error
		if keep {
			err = os.Rename(file+suffix, aside+suffix)
		} else {
			err = os.Remove(file + suffix)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the old database aside: %w", err)
		}
		if err == nil && keep && suffix == "" {
			fmt.Fprintf(p.stderr, "the database that was there is %s now\n", aside)
		}
	}
	f, err := os.OpenFile(file+".recovering", os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(file+".recovering", file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("put the rebuilt database in its place: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// tellRecovery prints what came of it. Something lost is an error, at the end.
func (p *program) tellRecovery(res *recovery.Result, asJSON bool) error {
	if asJSON {
		if err := printJSON(p.stdout, res); err != nil {
			return err
		}
	} else {
		c := res.Counts
		fmt.Fprintf(p.stdout, "recovered %d caches, %d paths, %d packs, %d tokens and %d revocations, %d policies, %d pins in %.1f s from %d objects; epoch %d begins\n",
			c.Caches, c.Paths, c.Packs, c.Tokens, c.Revoked, c.Policies, c.Pins, res.Seconds, res.Objects, res.Epoch)
		if res.Unacknowledged > 0 || res.StrayPacks > 0 || res.Foreign > 0 {
			fmt.Fprintf(p.stdout, "never acknowledged, and left where it is: %d objects of the log, %d packs (%d MiB) that no path needs, %d objects that are not ours\n",
				res.Unacknowledged, res.StrayPacks, res.StrayBytes>>20, res.Foreign)
		}
	}
	if res.LostCount > 0 {
		return fmt.Errorf("%d things that were acknowledged could not be brought back; they are named above, and the database works without them", res.LostCount)
	}
	return nil
}

// wanted says whether a variable of the environment asks for something.
func wanted(value string) bool { return value == "1" || value == "true" || value == "yes" }

// openOrRecover opens the stack. Where the database is empty and the storage is not,
// and the environment says so, it is rebuilt first: a machine whose volume is gone can
// be told so, but nobody can run a command on it.
func (p *program) openOrRecover(ctx context.Context, cfg *config.Server, open func() (*stack, error)) (*stack, error) {
	st, err := open()
	if !errors.Is(err, errNothingHere) || !wanted(p.getenv("ATTIC_SERVER_RECOVER")) {
		return st, err
	}
	res, err := p.rebuild(ctx, cfg, false)
	if err != nil {
		return nil, err
	}
	if err := p.tellRecovery(res, false); err != nil {
		fmt.Fprintf(p.stderr, "attic-server: %s\n", oneLine(err.Error())) // it serves what there is
	}
	return open()
}

// recoverVerb registers the comparison.
func recoverVerb(m *admin.Mux, db *meta.DB, store blob.Store) {
	admin.Handle(m, "recover/check", func(ctx context.Context, _ struct{}) (*recovery.Difference, error) {
		return recovery.Check(ctx, db, store, time.Now())
	})
}

func (p *program) checkRecovery(ctx context.Context, asJSON bool) error {
	c, closeClient, err := p.connect(ctx)
	if err != nil {
		return err
	}
	diff, err := admin.Call[*recovery.Difference](ctx, c, "recover/check", struct{}{})
	if err := errors.Join(err, closeClient()); err != nil {
		return err
	}
	if asJSON {
		err = printJSON(p.stdout, diff)
	} else {
		p.tellDifference(diff)
	}
	if err == nil && diff.MissingCount > 0 {
		err = fmt.Errorf("%d objects that the database needs are missing from the storage or damaged", diff.MissingCount)
	}
	return err
}

func (p *program) tellDifference(d *recovery.Difference) {
	for _, line := range d.Missing {
		fmt.Fprintf(p.stdout, "missing: %s\n", oneLine(line))
	}
	for _, o := range d.Orphans {
		fmt.Fprintf(p.stdout, "orphan: %s (%d bytes): %s\n", o.Key, o.Size, o.Why)
	}
	fmt.Fprintf(p.stdout, "%d packs, %d objects of the log and %d of the checkpoint are there; %d are missing; %d (%d MiB) that nothing needs; %d too new to say\n",
		d.Packs, d.LogObjects, d.Shards, d.MissingCount, d.OrphanCount, d.OrphanBytes>>20, d.Recent)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/blob"
	"github.com/org/attic-action/internal/chores"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/meta"
	"github.com/org/attic-action/internal/seal"
	"github.com/org/attic-action/internal/verify"
)

const healEvery = time.Minute

type verifyInput struct {
	Deep    bool
	Sample  float64 // of 1
	Rate    int64   // bytes a second
	Restart bool
}

// openVerifier makes what checks, and has it told of packs that cannot be read.
func (st *stack) openVerifier(store blob.Store, root seal.RootKey, secrets [][]byte, log *slog.Logger) {
	st.verifier = &verify.Verifier{DB: st.db, Depot: st.depot, Blobs: store, Log: log, Renew: st.keeper.Make,
		Keys: func(ctx context.Context) ([]string, error) { return checkKeys(ctx, st.db, store, root, secrets) }}
	st.depot.Suspect = st.verifier.Suspect
	admin.Handle(st.admin, "verify/begin", func(ctx context.Context, in verifyInput) (*verify.Progress, error) {
		return st.verifier.Step(ctx, in.options(), in.Restart)
	})
	admin.Handle(st.admin, "verify/step", func(ctx context.Context, in verifyInput) (*verify.Progress, error) {
		return st.verifier.Step(ctx, in.options(), false)
	})
	admin.Handle(st.admin, "verify/last", func(ctx context.Context, _ none) (verifyLast, error) {
		res, err := st.verifier.Last(ctx)
		out := verifyLast{Result: res}
		if err == nil {
			err = st.db.View(ctx, func(tx *meta.Tx) (err error) { _, out.Waiting, err = tx.WaitingPaths(0); return err })
		}
		return out, err
	})
}

func (in verifyInput) options() verify.Options {
	return verify.Options{Deep: in.Deep, Sample: in.Sample, Rate: in.Rate}
}

// verifyLast is what stats say. Result is nil when nothing was ever checked.
type verifyLast struct {
	Result  *verify.Result `json:"last,omitempty"`
	Waiting int64          `json:"waiting"` // paths, at present
}

// lastVerify asks how the last check went.
func (p *program) lastVerify(ctx context.Context) (last verifyLast, err error) {
	err = command(p, ctx, "verify/last", none{}, func(out verifyLast) error { last = out; return nil })
	return last, err
}

// checkKeys compares the storage's id and the wraps of the root key with what is known here. What is gone it
// stores again.
func checkKeys(ctx context.Context, db *meta.DB, store blob.Store, root seal.RootKey, secrets [][]byte) (lines []string, err error) {
	const other = "it is damaged, or of another server; if this is the right storage, delete the object and run this again"
	var id []byte
	if err := db.View(ctx, func(tx *meta.Tx) (err error) { id, err = tx.Fact(meta.FactStore); return err }); err != nil {
		return nil, err
	}
	name, err := readBucketName(ctx, store)
	if err != nil {
		return nil, err
	}
	switch {
	case id == nil || name == string(id):
	case name == "":
		if err := store.Put(ctx, storeIDKey, blob.Bytes(append(id, '\n'))); err != nil {
			return nil, fmt.Errorf("restore %s: %w", storeIDKey, err)
		}
		lines = append(lines, storeIDKey+" it was gone; it is there again")
	default:
		lines = append(lines, storeIDKey+" "+other)
	}
	restored, damaged, err := seal.Restore(ctx, store, root, secrets)
	for _, key := range restored {
		lines = append(lines, key+" it was gone; it is there again")
	}
	for _, key := range damaged {
		lines = append(lines, key+" "+other)
	}
	return lines, err
}

// verifyChores are a small look at the storage, once a week by default, and the healing of what pushes brought back.
func (st *stack) verifyChores(clock config.Verify) []chores.Chore {
	list := []chores.Chore{{Name: "heal", Every: healEvery, Step: st.verifier.Heal()}}
	if clock.Interval > 0 {
		list = append(list, chores.Chore{Name: "verify", Every: clock.Interval, Step: func(ctx context.Context) (bool, error) {
			return st.verifier.Clock(ctx, verify.Options{Deep: true, Budget: clock.Read})
		}})
	}
	return list
}

// startVerifier looks at packs that could not be read until the function it returns is called.
func (st *stack) startVerifier(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); st.verifier.Watch(ctx) }()
	return func() { cancel(); <-done }
}

const verifyHelp = `Look whether what was stored is still there, and hide what is not.

Compares the storage's listing with the database, hashes the log, reads the end of each
pack, hashes NARs that were put together from chunks and never hashed as a whole, and
looks for references that lead nowhere. With --deep it reads every byte, and hashes it.

Each thing that is not as it was stored is a line. Paths that need it are answered like
paths that are not there, so that Nix builds them or asks the next cache, and the next
push of the same contents brings them back. A storage that does not answer is an error,
and makes nothing damaged.

The server may run. Stopped, it goes on where it was when it is called again with the
same options; --restart begins anew.

Exit codes: 0 all is there; 1 something is not, or it could not be done; 2 the command
line is wrong; 78 the configuration is wrong.`

func (p *program) verify() *cobra.Command {
	var in verifyInput
	var sample, rate string
	var asJSON bool
	cmd := &cobra.Command{Use: "verify [--deep] [--sample P] [--rate BYTES/s]", Short: "Look whether what was stored is still there",
		Long: verifyHelp, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in.Sample, err = parsePercent(sample); err != nil {
				return usageError{fmt.Errorf("--sample %w", err)}
			}
			if in.Rate, err = parseRate(rate); err != nil {
				return usageError{fmt.Errorf("--rate %w", err)}
			}
			return p.runVerify(cmd.Context(), in, asJSON)
		}}
	f := cmd.Flags()
	f.BoolVar(&in.Deep, "deep", false, "read and hash every byte")
	f.StringVar(&sample, "sample", "", "read this part of packs and NARs, in percent")
	f.StringVar(&rate, "rate", "", "read at most so many bytes a second: 500000, 500KB, 2MiB")
	f.BoolVar(&in.Restart, "restart", false, "begin anew, and not where the last one was stopped")
	f.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

func (p *program) runVerify(ctx context.Context, in verifyInput, asJSON bool) error {
	c, closeClient, err := p.connect(ctx)
	if err != nil {
		return err
	}
	last, err := p.stepVerify(ctx, c, in, asJSON)
	if err := errors.Join(err, closeClient()); err != nil {
		if ctx.Err() != nil {
			return hintError{errors.New("stopped before it was done"), "call it again with the same options, and it goes on where it was"}
		}
		return err
	}
	if asJSON {
		err = printJSON(p.stdout, last)
	} else {
		var b strings.Builder
		printVerified(&b, last)
		_, err = io.WriteString(p.stdout, b.String())
	}
	if r := last.Result; err == nil && (r.Damage > 0 || r.Waiting > 0) {
		err = fmt.Errorf("%d things are not as they were stored, and %d paths are absent until they are pushed again", r.Damage, r.Waiting)
	}
	return err
}

// stepVerify calls for step after step, and tells of what each has found.
func (p *program) stepVerify(ctx context.Context, c *admin.Client, in verifyInput, quiet bool) (*verify.Progress, error) {
	stage, told := "", time.Time{}
	for verb := "verify/begin"; ; verb = "verify/step" {
		out, err := admin.Call[*verify.Progress](ctx, c, verb, in)
		if err != nil {
			return nil, err
		}
		if !quiet {
			for _, f := range out.Findings {
				fmt.Fprintln(p.stdout, oneLine(f.String()))
			}
		}
		if verb == "verify/begin" && out.Resumed {
			fmt.Fprintln(p.stderr, "going on where the last run was stopped")
		}
		if out.Result != nil {
			return out, nil
		}
		if out.Stage != stage || time.Since(told) > 10*time.Second {
			stage, told = out.Stage, time.Now()
			fmt.Fprintf(p.stderr, "%s: %s\n", stage, counted(out.Count, out.Of))
		}
	}
}

func counted(c verify.Count, packs int64) string {
	of := ""
	if packs > 0 {
		of = fmt.Sprintf(" of %d", packs)
	}
	return fmt.Sprintf("%d objects there, %d%s packs, %d chunks, %d NARs and %d paths looked at, %s read",
		c.Objects, c.Packs, of, c.Chunks, c.NARs, c.Paths, bytesOf(uint64(c.Bytes)))
}

func printVerified(w io.Writer, p *verify.Progress) {
	r := p.Result
	for _, path := range p.Waiting {
		fmt.Fprintf(w, "absent: %s in %s: %s\n", path.StorePath, path.Cache, oneLine(path.Why))
	}
	if more := r.Waiting - int64(len(p.Waiting)); more > 0 {
		fmt.Fprintf(w, "and %d paths more\n", more)
	}
	fmt.Fprintln(w, counted(r.Count, 0))
	if r.Verified > 0 {
		fmt.Fprintf(w, "%d NARs were hashed for the first time\n", r.Verified)
	}
	if r.Healed > 0 || r.Released > 0 {
		fmt.Fprintf(w, "healed: %d paths by copies that came since, %d packs that are as they were stored again\n", r.Healed, r.Released)
	}
}

// printLastVerify is the section of stats.
func printLastVerify(w io.Writer, v verifyLast) {
	if v.Result == nil {
		fmt.Fprintln(w, "checked: never; attic-server verify")
	} else {
		how := "the ends of packs"
		switch r := v.Result; {
		case r.Budget > 0:
			how = "by the clock"
		case r.Deep && r.Sample > 0:
			how = strconv.FormatFloat(r.Sample*100, 'g', 3, 64) + " % deep"
		case r.Deep:
			how = "deep"
		}
		fmt.Fprintf(w, "checked: %s, %s: %s; %d found damaged or missing\n", moment(v.Result.Ended), how, counted(v.Result.Count, 0), v.Result.Damage)
	}
	if v.Waiting > 0 {
		fmt.Fprintf(w, "  %d paths are absent until they are pushed again; attic-server verify names them\n", v.Waiting)
	}
}

// parsePercent reads "5" or "2.5%" as a part of 1; nothing is all.
func parsePercent(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f > 0 && f <= 100) {
		return 0, fmt.Errorf("%.40q: want percents above 0 and up to 100", s)
	}
	if f == 100 {
		return 0, nil
	}
	return f / 100, nil
}

var rateUnits = []struct {
	name  string
	bytes float64
}{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {"b", 1}}

// parseRate reads bytes a second; nothing is no limit.
func parseRate(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	number, unit := strings.ToLower(strings.TrimSuffix(s, "/s")), 1.0
	for _, u := range rateUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || !(f*unit >= 1024 && f*unit <= 1<<50) {
		return 0, fmt.Errorf("%.40q: want bytes a second, at least 1024: 500000, 500KB, 2MiB", s)
	}
	return int64(f * unit), nil
}

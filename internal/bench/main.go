// Bench measures a push and a pull of one closure through our server, beside Nix alone on the same
// closure, and prints a table. It starts everything itself, on this machine, with disk storage:
//
//	go run ./internal/bench [--closure PATH] [--rebuilt PATH]
//	go run ./internal/bench memory    uploads, pushes and pulls at once, in a small memory cgroup
//	go run ./internal/bench bucket    a push, a pull and a start with a bucket that is far away
//	go run ./internal/bench millions  fills a database with a million paths
//	go run ./internal/bench recovery  rebuilds such a database from its storage
//	go run ./internal/bench scale     collects, sums up and answers with a million paths
//	go run ./internal/bench cost      plays a year of pushes, and says what it costs
//
// closure is the store path of a toplevel; rebuilt is the same after a rebuild of everything (the same
// contents under other store paths). Without --rebuilt that row is left out. The programs are taken
// from bin/, as `make build` leaves them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"text/tabwriter"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var what interface{ run(context.Context) error }
	var err error
	switch name := append(args, "")[0]; name {
	case "memory":
		what, err = memoryFlags(args[1:])
	case "bucket":
		what, err = bucketFlags(args[1:])
	case "recovery":
		what, err = recoveryFlags(args[1:])
	case "scale":
		what, err = scaleFlags(args[1:])
	case "cost":
		what, err = costFlags(args[1:])
	case "millions":
		what, err = millionsFlags(args[1:])
	default:
		what = diskBench()
	}
	if err != nil {
		return err
	}
	return what.run(ctx)
}

// diskBench reads the flags of the table with disk storage.
func diskBench() *bench {
	var b bench
	flag.StringVar(&b.closure, "closure", "", "store path of the toplevel to push")
	flag.StringVar(&b.rebuilt, "rebuilt", "", "the same toplevel after a rebuild of everything")
	flag.StringVar(&b.bin, "bin", "bin", "folder of attic-action and attic-server")
	flag.IntVar(&b.runs, "runs", 3, "runs of each timed row; the median is printed")
	flag.Parse()
	return &b
}

// bench is one run of everything. Its folder is removed at the end.
type bench struct {
	closure, rebuilt, bin string
	runs                  int
	dir                   string
	env                   []string // of the server, beside our own
	group                 *cgroup  // that the server runs in; nil: none
	rows                  []row
}

// row is a line of the table.
type row struct {
	what    string
	target  string // what is to be reached, in words
	value   string
	cpu     string
	peak    string // of the program that the row is about
	sent    string
	request string
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.closure == "" {
		return fmt.Errorf("no closure: pass --closure with a store path, for example the target of /run/current-system")
	}
	if b.bin, err = filepath.Abs(b.bin); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "attic-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, step := range []func(context.Context) error{b.describe, b.colds, b.pulls, b.stockUploads} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	b.print()
	return nil
}

func (b *bench) add(r row) {
	b.rows = append(b.rows, r)
	fmt.Fprintf(os.Stderr, "bench: %s: %s\n", r.what, r.value)
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "what\tat most\tmeasured\tCPU\tpeak memory\tbytes sent\trequests")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.what, dash(r.target), r.value, dash(r.cpu), dash(r.peak), dash(r.sent), dash(r.request))
	}
	w.Flush()
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

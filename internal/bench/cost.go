package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/org/attic-action/internal/nixcli"
)

// cost plays a year of pushes with the chunks of a real closure, and says what a bucket and a machine cost: ours,
// and beside it the same with one object for each chunk of 64 KiB. docs/cost.md says what is measured and what is
// assumed.
type cost struct {
	closure     string
	hosts, days int
	daily       int     // settings that change a day
	weekly      float64 // share of the paths that get new contents in a week's update
	monthly     float64 // the same when everything is rebuilt, once a month
	changed     float64 // share of a path's chunks that are new when its contents change
	retention   int     // days
	upstream    bool    // only configuration is pushed: the rest is another cache's
	linger      time.Duration
	volume      float64 // GB
	seed        int
}

func costFlags(args []string) (*cost, error) {
	c := &cost{}
	f := flag.NewFlagSet("cost", flag.ContinueOnError)
	f.StringVar(&c.closure, "closure", "", "store path of a toplevel")
	f.IntVar(&c.hosts, "hosts", 10, "hosts, which share what is not their configuration")
	f.IntVar(&c.days, "days", 360, "days; each host is pushed, and pulls, once a day")
	f.IntVar(&c.daily, "daily", 5, "settings that change a day")
	f.Float64Var(&c.weekly, "weekly", 0.025, "share of the paths that a week's update changes")
	f.Float64Var(&c.monthly, "monthly", 0.25, "share of the paths that a month's update changes, which rebuilds all")
	f.Float64Var(&c.changed, "changed", 0.83, "share of a changed path's chunks that are new")
	f.IntVar(&c.retention, "retention", 30, "days for which a path is kept that was not pushed")
	f.BoolVar(&c.upstream, "upstream", false, "an upstream cache has all but the configuration")
	f.DurationVar(&c.linger, "linger", 5*time.Minute, "how long the machine stays awake behind the last request")
	f.Float64Var(&c.volume, "volume", 1, "GB of the machine's volume")
	f.IntVar(&c.seed, "seed", 1, "of what changes when")
	return c, f.Parse(args)
}

func (c *cost) run(ctx context.Context) error {
	if c.closure == "" || c.hosts < 1 || c.days < 1 {
		return errors.New("cost: pass --closure with a store path, for example the target of /run/current-system")
	}
	nix := &nixcli.Nix{Bin: "nix"}
	tops, err := nix.Resolve(ctx, []string{c.closure})
	if err != nil {
		return err
	}
	paths, err := nix.Closure(ctx, tops)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: read %d paths\n", len(paths))
	nodes, err := readClosure(ctx, paths)
	if err != nil {
		return err
	}
	describeNodes(nodes)
	ours, theirs := c.simulate(nodes)
	c.print(ours, theirs)
	return nil
}

func describeNodes(nodes []node) {
	var nar, ours, plain, literals int64
	var nOurs, nPlain, nRefs int
	for _, n := range nodes {
		nar, literals = nar+n.nar, literals+n.literals
		for _, p := range n.ours {
			ours, nOurs = ours+int64(p.size), nOurs+1
		}
		for _, p := range n.plain {
			plain, nPlain = plain+int64(p.size), nPlain+1
			if p.refs {
				nRefs++
			}
		}
	}
	fmt.Printf("The closure has %d paths, %s of NARs: %d chunks and %s of literals, %s compressed; at 64 KiB %d chunks, %s, of which %d hold references.\n\n",
		len(nodes), mib(nar), nOurs, mib(literals), mib(ours), nPlain, mib(plain), nRefs)
}

// played is what a scheme did in a year.
type played struct {
	sum   tally
	awake float64 // seconds
	most  int64
	bill  bill
}

// simulate plays the year for both.
func (c *cost) simulate(nodes []node) (ours, theirs played) {
	y := newYear(*c, nodes)
	packed, single := newPacked(), newSingle()
	names := map[uint64]int{}               // day of the last push of each path that was pushed
	had := make([]map[uint64]bool, c.hosts) // what each host pulled last
	var awake [2]float64
	var stored [2]float64
	days := 0
	for d := range c.days {
		if d > 0 {
			y.day(d)
		}
		for h := range c.hosts {
			y.play(h)
			c.hostDay(y, d, h, names, had, packed, single)
		}
		if d%7 == 6 {
			since := d - c.retention
			packed.collect(since)
			single.collect(since)
			for name, last := range names {
				if last < since {
					delete(names, name)
				}
			}
		}
		packed.checkpoint(len(names))
		stored[0] += float64(packed.total())
		stored[1] += float64(single.total())
		days++
		ours.most, theirs.most = max(ours.most, packed.total()), max(theirs.most, single.total())
		// The hosts are pushed by jobs of one workflow; each pulls at an hour of its own.
		lingering := float64(1+c.hosts) * c.linger.Seconds()
		awake[0] += lingering
		awake[1] += lingering
		if days == 30 || d == c.days-1 {
			for i, p := range []*played{&ours, &theirs} {
				var t tally
				if i == 0 {
					t = packed.month()
				} else {
					t = single.month()
				}
				t.stored = stored[i] / float64(days)
				p.bill.month(t, awake[i]+t.busy, c.volume)
				p.awake += awake[i] + t.busy
				p.sum.add(t, days)
				awake[i], stored[i] = 0, 0
			}
			days = 0
		}
	}
	ours.sum.stored /= float64(c.days)
	theirs.sum.stored /= float64(c.days)
	return ours, theirs
}

func (t *tally) add(o tally, days int) {
	t.stored += o.stored * float64(days)
	t.classA += o.classA
	t.classB += o.classB
	t.sent += o.sent
	t.pulled += o.pulled
	t.streamed += o.streamed
	t.busy += o.busy
}

// hostDay is a push of a host, and its pull.
func (c *cost) hostDay(y *year, d, h int, names map[uint64]int, had []map[uint64]bool, packed *packed, single *single) {
	var newOurs, newPlain, pullOurs, pullPlain []pushed
	now := map[uint64]bool{}
	for i := range y.nodes {
		if c.upstream && y.nodes[i].nar > unitMax {
			continue
		}
		name := y.ident[i]
		now[name] = true
		_, pushedBefore := names[name]
		names[name] = d
		ours, plain := y.pushed(h, i, y.nodes[i].ours), y.pushed(h, i, y.nodes[i].plain)
		if pushedBefore {
			packed.touch(d, ours)
			single.touch(d, plain)
		} else {
			newOurs, newPlain = append(newOurs, ours), append(newPlain, plain)
		}
		if !had[h][name] {
			pullOurs, pullPlain = append(pullOurs, ours), append(pullPlain, plain)
		}
	}
	had[h] = now
	packed.push(d, newOurs)
	single.push(d, newPlain)
	packed.pull(pullOurs)
	single.pull(pullPlain)
}

func (y *year) pushed(h, i int, list []part) pushed {
	p := pushed{nar: y.nodes[i].nar, node: i}
	y.parts(h, i, list, func(id uint64, size int64) { p.ids, p.size = append(p.ids, id), append(p.size, size) })
	return p
}

func (s *packed) touch(day int, p pushed) {
	for _, id := range p.ids {
		s.chunks[id].last = day
	}
}

func (s *single) touch(day int, p pushed) {
	for _, id := range p.ids {
		s.chunks[id].last = day
	}
}

func (c *cost) print(ours, theirs played) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	line := func(what, a, b string) { fmt.Fprintf(w, "| %s\t| %s\t| %s\t|\n", what, a, b) }
	dollars := func(v float64) string { return fmt.Sprintf("$%.2f", v) }
	count := func(n int64) string {
		if n >= 100_000 {
			return fmt.Sprintf("%.2f M", float64(n)/1e6)
		}
		return fmt.Sprintf("%.1f k", float64(n)/1e3)
	}
	giga := func(n float64) string { return fmt.Sprintf("%.2f GB", n/gb) }
	fmt.Printf("%d hosts, %d days, a push and a pull of each host a day; %d settings change a day, %.1f %% of the paths a week, %.0f %% in a month's rebuild of all\n\n",
		c.hosts, c.days, c.daily, 100*c.weekly, 100*c.monthly)
	line("", "ours", "an object for each 64 KiB")
	line("---", "---", "---")
	line("stored, on average", giga(ours.sum.stored), giga(theirs.sum.stored))
	line("stored, at most", giga(float64(ours.most)), giga(float64(theirs.most)))
	line("sent by pushes", giga(float64(ours.sum.sent)), giga(float64(theirs.sum.sent)))
	line("pulled", giga(float64(ours.sum.pulled)), giga(float64(theirs.sum.pulled)))
	line("class A: PUT, LIST", count(ours.sum.classA), count(theirs.sum.classA))
	line("class B: GET", count(ours.sum.classB), count(theirs.sum.classB))
	line("machine awake", fmt.Sprintf("%.0f h", ours.awake/3600), fmt.Sprintf("%.0f h", theirs.awake/3600))
	line("of these at work", fmt.Sprintf("%.0f h", ours.sum.busy/3600), fmt.Sprintf("%.0f h", theirs.sum.busy/3600))
	for _, r := range []struct {
		what string
		get  func(bill) float64
	}{
		{"R2: storage", func(b bill) float64 { return b.storage }},
		{"R2: class A", func(b bill) float64 { return b.classA }},
		{"R2: class B", func(b bill) float64 { return b.classB }},
		{"fly: machine, asleep when idle", func(b bill) float64 { return b.machine }},
		{"fly: volume", func(b bill) float64 { return b.volume }},
		{"fly: egress", func(b bill) float64 { return b.egress }},
		{"**a year**", bill.total},
		{"with the machine always on", func(b bill) float64 { return b.total() - b.machine + b.alwaysOn }},
	} {
		line(r.what, dollars(r.get(ours.bill)), dollars(r.get(theirs.bill)))
	}
	w.Flush()
	free := func(p played) bill {
		var b bill
		t := p.sum
		b.storage = r2Storage * t.stored / gb * float64(c.days) / 30
		b.classA, b.classB = r2ClassA*float64(t.classA)/1e6, r2ClassB*float64(t.classB)/1e6
		return b
	}
	o, t := free(ours), free(theirs)
	fmt.Printf("\nWithout what is free each month, R2 takes %s and %s: storage %s and %s, class A %s and %s, class B %s and %s.\n",
		dollars(o.bucket()), dollars(t.bucket()), dollars(o.storage), dollars(t.storage), dollars(o.classA), dollars(t.classA), dollars(o.classB), dollars(t.classB))
}

package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// Runners are the labels of runners by the system that they build for.
type Runners map[string][]string

// defaultRunners are GitHub's own.
var defaultRunners = Runners{
	"x86_64-linux":   {"ubuntu-latest"},
	"aarch64-linux":  {"ubuntu-24.04-arm"},
	"aarch64-darwin": {"macos-latest"},
	"x86_64-darwin":  {"macos-15-intel"},
}

// ParseRunners reads lines such as "aarch64-linux: self-hosted, arm64", which take the place of the defaults for those
// systems. A system without a label has no runner.
func ParseRunners(text string) (Runners, error) {
	r := maps.Clone(defaultRunners)
	for _, line := range nonBlank(text) {
		system, labels, ok := strings.Cut(line, ":")
		system = strings.TrimSpace(system)
		if !ok || system == "" || nix.ValidSystem(system) != nil {
			return nil, fmt.Errorf("%q is not as it should be: SYSTEM: LABEL, such as aarch64-linux: ubuntu-24.04-arm", line)
		}
		r[system] = nil
		for label := range strings.SplitSeq(labels, ",") {
			if label = strings.TrimSpace(label); label != "" {
				r[system] = append(r[system], label)
			}
		}
	}
	return r, nil
}

// queued is the result in a plan of a host that a job of the matrix is to build.
const queued = "queued"

// toMatrix ends the first job of a matrix: each host that waits gets a job. So does one that does not evaluate, on this
// machine's kind of runner, for there the red mark belongs.
func (r *run) toMatrix(ctx context.Context, jobs []*job, system string) {
	var some []nixcli.Host
	for _, j := range jobs {
		row := j.row
		evaluated := row.Result == ""
		if row.Result == report.Failed {
			j.host.System = system
		}
		switch {
		case row.Result == report.Cached && !j.upstream:
			r.pin(ctx, row.Name, j.path) // nobody else will
		case row.Result != "" && row.Result != report.Failed:
		case !oneLineName(row.Name):
			r.fail(row, errors.New("a name with a line break can't be handed to another job"))
			r.lost = append(r.lost, row.Name)
		case len(r.in.Runners[j.host.System]) == 0: // a machine that has no runner's label
			r.lost = append(r.lost, row.Name)
		default:
			some = append(some, j.host)
			if evaluated {
				row.Result, row.StorePath = report.Planned, j.host.OutPath
			}
		}
		p := planned{Name: row.Name, System: row.System, Path: row.StorePath, Result: string(row.Result), Reason: row.Reason}
		if row.Result == report.Planned {
			p.Result, p.Reason = queued, ""
		}
		p.Before = r.before[row.Name].String() // the last job comes when there are new pins
		r.plan = append(r.plan, p)
	}
	r.matrix = matrix(some, r.in.Runners)
}

// entry is one job of strategy.matrix.
type entry struct {
	Host   string `json:"host"` // for people
	System string `json:"system"`
	Runner any    `json:"runner"` // a label, or a list of them
	Hosts  string `json:"hosts"`  // the inputs of that job
	Attrs  string `json:"attrs"`
}

// matrixMax is what GitHub takes.
const matrixMax = 256

// matrix is the value of the output: an entry for each host that is to be built. More hosts than GitHub takes entries are
// spread over them, system by system.
func matrix(hosts []nixcli.Host, runners Runners) any {
	include := []entry{}
	for share := 1; ; share++ {
		include = include[:0]
		for _, group := range bySystem(hosts) {
			for some := range slices.Chunk(group, share) {
				include = append(include, newEntry(some, runners))
			}
		}
		if len(include) <= matrixMax || share > len(hosts) {
			return map[string]any{"include": include}
		}
	}
}

func bySystem(hosts []nixcli.Host) [][]nixcli.Host {
	groups := map[string][]nixcli.Host{}
	for _, h := range hosts {
		groups[h.System] = append(groups[h.System], h)
	}
	var sorted [][]nixcli.Host
	for _, system := range slices.Sorted(maps.Keys(groups)) {
		sorted = append(sorted, groups[system])
	}
	return sorted
}

func newEntry(some []nixcli.Host, runners Runners) entry {
	e := entry{System: some[0].System, Runner: runners[some[0].System]}
	if labels := runners[e.System]; len(labels) == 1 {
		e.Runner = labels[0]
	}
	var names, hosts, attrs []string
	for _, h := range some {
		names = append(names, h.Name)
		if name, ok := h.Attr.Host(); ok {
			hosts = append(hosts, literal(name))
		} else {
			attrs = append(attrs, escapeAttr(h.Attr))
		}
	}
	if len(hosts) == 0 {
		hosts = []string{"!*"}
	}
	e.Host, e.Hosts, e.Attrs = strings.Join(names, ", "), strings.Join(hosts, "\n"), strings.Join(attrs, "\n")
	return e
}

// escapeAttr is the line of the input attrs that means this path alone.
func escapeAttr(at nixcli.Attr) string {
	escaped := slices.Clone(at)
	for i := range escaped[1:] {
		escaped[i+1] = literal(at[i+1])
	}
	return escaped.String()
}

// oneLineName reports whether a name can be handed to another job: a line is a pattern, so it has no line breaks.
func oneLineName(name string) bool { return !strings.ContainsAny(name, "\r\n") }

// planned is a host in the output plan, which the last job reads.
type planned struct {
	Name   string `json:"name"`
	System string `json:"system,omitempty"`
	Path   string `json:"path,omitempty"`
	Result string `json:"result"`
	Reason string `json:"reason,omitempty"`
	Before string `json:"before,omitempty"` // what was pinned
}

// Need is a job that another one needs, as toJSON(needs) has it.
type Need struct {
	Name   string
	Result string // success, failure, cancelled or skipped
	Plan   []planned
}

// ParseNeeds reads ${{ toJSON(needs) }}; nil for an empty text. One of the jobs has an output plan.
func ParseNeeds(text string) ([]Need, error) {
	if text == "" {
		return nil, nil
	}
	var raw map[string]struct {
		Result  string            `json:"result"`
		Outputs map[string]string `json:"outputs"`
	}
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, fmt.Errorf("it is not ${{ toJSON(needs) }}: %w", err)
	}
	var needs []Need
	found := false
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		n := Need{Name: name, Result: raw[name].Result}
		if plan, ok := raw[name].Outputs["plan"]; ok && plan != "" {
			if err := json.Unmarshal([]byte(plan), &n.Plan); err != nil {
				return nil, fmt.Errorf("the output plan of the job %s is not the one of this action: %w", name, err)
			}
			found = true
		}
		needs = append(needs, n)
	}
	if !found {
		return nil, fmt.Errorf("no job that this one needs has an output plan; the job with matrix: true must hand its own on: outputs: { plan: ${{ steps.ID.outputs.plan }} }")
	}
	return needs, nil
}

package action

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/org/attic-action/internal/github"
	"github.com/org/attic-action/internal/report"
)

// OutputNames are the outputs that a run sets, as action.yml declares them. All but matrix and plan, which only a run
// with matrix: true has, are set by every run, one that failed at once included: fromJSON of an empty text is an error.
var OutputNames = []string{"hosts", "failed-hosts", "paths", "pushed-bytes", "cache-public-key", "matrix", "plan"}

// tell writes the outputs, the summary and the table in the log.
func (r *run) tell() error {
	good, paths := []string{}, map[string]string{}
	var sent int64
	for _, h := range r.report.Hosts {
		sent += h.Bytes
		switch h.Result {
		case report.Pushed, report.Built, report.Cached:
			good = append(good, h.Name)
			paths[h.Name] = h.StorePath
		}
	}
	key := ""
	if r.config != nil {
		key = r.config.PublicKey
	}
	errs := []error{
		r.output("hosts", good),
		r.output("failed-hosts", r.report.Failed()),
		r.output("paths", paths),
		r.Runner.SetOutput("pushed-bytes", strconv.FormatInt(sent, 10)),
		r.Runner.SetOutput("cache-public-key", clean(key)),
	}
	if r.matrix != nil {
		errs = append(errs, r.output("matrix", r.matrix), r.output("plan", r.plan))
	}
	if len(r.report.Hosts)+len(r.report.Notes) > 0 { // else there is an error, and nothing but that
		r.Runner.Print("\n" + r.report.Text())
		errs = append(errs, r.Runner.AddSummary(r.report.Markdown(github.SummaryMax)))
	}
	return errors.Join(errs...)
}

// output sets an output to a value as JSON.
func (a *Action) output(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("set output %s: %w", name, err)
	}
	return a.Runner.SetOutput(name, string(b))
}

package action

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/org/attic-action/internal/report"
)

// OutputNames are the outputs that a run sets, as action.yml declares them.
var OutputNames = []string{"hosts", "failed-hosts", "paths"}

// tell writes the outputs, the summary and the table in the log.
func (a *Action) tell(r report.Report) error {
	good, paths := []string{}, map[string]string{}
	for _, h := range r.Hosts {
		if h.Result == report.Pushed || h.Result == report.Built {
			good = append(good, h.Name)
			paths[h.Name] = h.StorePath
		}
	}
	a.Runner.Print("\n" + r.Text())
	return errors.Join(
		a.output("hosts", good),
		a.output("failed-hosts", r.Failed()),
		a.output("paths", paths),
		a.Runner.AddSummary(r.Markdown()),
	)
}

// output sets an output to a value as JSON.
func (a *Action) output(name string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("set output %s: %w", name, err)
	}
	return a.Runner.SetOutput(name, string(b))
}

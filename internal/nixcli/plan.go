package nixcli

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// Plan is what a build would come to.
type Plan struct {
	Build []nix.StorePath // derivations
	Fetch []nix.StorePath // from substituters
}

// Plan finds out what building a derivation's output would build and fetch. It does neither.
func (n *Nix) Plan(ctx context.Context, drvPath, output string) (Plan, error) {
	drv, err := parseDrv(drvPath, &output)
	if err != nil {
		return Plan{}, fmt.Errorf("plan build of %.300q: %w", drvPath, err)
	}
	said := bounded{limit: maxOutput}
	_, err = n.run(ctx, command{store: true, args: []string{"--realise", "--dry-run", drv.String() + "!" + output}, stderr: &said})
	if err != nil {
		return Plan{}, fmt.Errorf("plan build of %s: %w", drv, err)
	}
	return parsePlan(said.String()), nil
}

var planHeading = regexp.MustCompile(`^th(?:is|ese)(?: [0-9]+)? (derivation|path)s? will be (?:built|fetched)`)

// parsePlan reads the lists that nix prints: a heading, then store paths behind two blanks.
//
//	these 2 derivations will be built:
//	  /nix/store/….drv
//	this path will be fetched (0.02 MiB download, 0.08 MiB unpacked):
//	  /nix/store/…
func parsePlan(text string) Plan {
	var p Plan
	var list *[]nix.StorePath
	for line := range strings.Lines(plain(text)) {
		if m := planHeading.FindStringSubmatch(line); m != nil {
			if list = &p.Fetch; m[1] == "derivation" {
				list = &p.Build
			}
			continue
		}
		path, err := nix.ParseStorePath(strings.TrimSpace(line))
		if list == nil || err != nil || !strings.HasPrefix(line, "  ") {
			list = nil
			continue
		}
		*list = append(*list, path)
	}
	return p
}

package config

import (
	"fmt"

	"github.com/org/attic-action/internal/trust"
)

// PinRule is one [[pins]]: how many revisions pins keep whose setter does not say.
type PinRule struct {
	Name string // pattern, as in the pins of a policy
	Keep int
}

// maxKeep is what package meta allows.
const maxKeep = 100

// PinRules are in the order of the file; the first that matches counts.
type PinRules []PinRule

// Keep is how many revisions a pin of this name keeps; 0: no rule says.
func (rules PinRules) Keep(name string) int {
	for _, r := range rules {
		if trust.MayPin([]string{r.Name}, name) {
			return r.Keep
		}
	}
	return 0
}

type filePin struct {
	Name *string `toml:"name"`
	Keep *int64  `toml:"keep"`
}

// pins reads [[pins]].
func (b *builder) pins(s *Server) error {
	for i, f := range b.file.Pins {
		at := fmt.Sprintf("pins[%d]", i)
		switch {
		case f.Name == nil:
			return b.wrong(at, `no name: want a pattern of pin names, such as "acme/*"`)
		case f.Keep == nil:
			return b.wrong(at, "no keep: want how many revisions pins of this name keep")
		case *f.Keep < 1 || *f.Keep > maxKeep:
			return b.wrong(at+".keep", "%d: a pin keeps 1 to %d revisions", *f.Keep, maxKeep)
		}
		if err := trust.CheckPinPattern(*f.Name); err != nil {
			return b.wrong(at+".name", "%.100q %w", *f.Name, err)
		}
		for j, earlier := range s.Pins {
			if earlier.Name == *f.Name {
				return b.wrong(at+".name", "%q stands there already, as pins[%d]; the first counts", *f.Name, j)
			}
		}
		s.Pins = append(s.Pins, PinRule{*f.Name, int(*f.Keep)})
	}
	return nil
}

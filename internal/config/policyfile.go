package config

import (
	"fmt"
	"strings"

	"github.com/org/attic-action/internal/trust"
)

// ReadPolicies reads a file with [[trust]] tables, as they stand in server.toml,
// and with nothing else. They are read and not yet compiled.
func ReadPolicies(name string, text []byte) ([]trust.Policy, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFile)
	}
	b, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	if err := b.keys(nil); err != nil {
		return nil, err
	}
	for _, k := range b.keysAt {
		if table, _, _ := strings.Cut(stripIndices(k.key), "."); table != "trust" {
			return nil, b.wrong(k.key, "want [[trust]] tables only")
		}
	}
	if len(b.file.Trust) == 0 {
		return nil, fmt.Errorf("%s: no [[trust]] table", name)
	}
	return b.file.Trust, nil
}

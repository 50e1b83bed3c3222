package follow

import (
	"bytes"
	"regexp"
	"slices"
	"sync"

	"github.com/org/attic-action/internal/nix"
)

const (
	// lineMax is the longest line that can name a derivation, with colours around it.
	lineMax = 512
	// drvsMax is how many derivations are remembered: builders may write as many names as they like.
	drvsMax = 1 << 16
)

// building is what Nix says when it begins to build, here or, "on 'ssh://…'", elsewhere.
var building = regexp.MustCompile(`^(?:\x1b\[[0-9;]*m)*building '(/[^'\s]+\.drv)'(?: on '[^']*')?\.\.\.`)

// lines finds the derivations that a log names, each once.
type lines struct {
	mu    sync.Mutex
	part  []byte // of a line whose end has not come, its beginning
	named map[nix.StorePath]bool
	fresh []nix.StorePath // that take has not returned
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		l.part = append(l.part, line[:min(len(line), lineMax-len(l.part))]...)
		if !ended {
			return n, nil
		}
		l.line(l.part)
		l.part, p = l.part[:0], rest
	}
}

func (l *lines) line(line []byte) {
	m := building.FindSubmatch(line)
	if m == nil || len(l.named) >= drvsMax {
		return
	}
	drv, err := nix.ParseStorePath(string(m[1]))
	if err != nil || l.named[drv] {
		return
	}
	if l.named == nil {
		l.named = map[nix.StorePath]bool{}
	}
	l.named[drv] = true
	l.fresh = append(l.fresh, drv)
}

// take returns the derivations that were named since it was called last.
func (l *lines) take() []nix.StorePath {
	l.mu.Lock()
	defer l.mu.Unlock()
	drvs := l.fresh
	l.fresh = nil
	return slices.Clip(drvs)
}

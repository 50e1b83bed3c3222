package action

import "bytes"

// tally counts in the log of a build what Nix began to build, and what it fetched. A builder may print such lines too, so
// it is good for people alone.
type tally struct {
	made, fetched int
	line          []byte // its beginning
}

const (
	buildingLine = "building '/"
	copyingLine  = "copying path '/"
)

func (t *tally) Write(p []byte) (int, error) {
	for n := len(p); ; {
		i := bytes.IndexByte(p, '\n')
		part := p
		if i >= 0 {
			part = p[:i]
		}
		t.line = append(t.line, part[:min(len(part), len(copyingLine)-min(len(t.line), len(copyingLine)))]...)
		if i < 0 {
			return n, nil
		}
		switch {
		case bytes.HasPrefix(t.line, []byte(buildingLine)):
			t.made++
		case bytes.HasPrefix(t.line, []byte(copyingLine)):
			t.fetched++
		}
		t.line, p = t.line[:0], p[i+1:]
	}
}

package nix

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	maxNarInfoLen = 1 << 20
	// defaultCompression is what Nix assumes of a narinfo without a Compression line.
	defaultCompression = "bzip2"
)

// ParseNarInfo reads a narinfo of at most 1 MiB. Unknown keys are passed over; a known key twice (but Sig), a
// line without its newline, and a value that its type refuses are errors.
func ParseNarInfo(r io.Reader) (*NarInfo, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxNarInfoLen+1))
	if err != nil {
		return nil, fmt.Errorf("read narinfo: %w", err)
	}
	if len(text) > maxNarInfoLen {
		return nil, fmt.Errorf("narinfo: longer than %d bytes", maxNarInfoLen)
	}
	p := narInfoParser{seen: map[string]bool{}}
	for line := range strings.Lines(string(text)) {
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("narinfo: %w", err)
		}
	}
	info, err := p.finish()
	if err != nil {
		return nil, fmt.Errorf("narinfo: %w", err)
	}
	return info, nil
}

type narInfoParser struct {
	info       NarInfo
	references string // base names, understood when the store's directory is known
	seen       map[string]bool
}

func (p *narInfoParser) line(line string) error {
	line, ended := strings.CutSuffix(line, "\n")
	if !ended {
		return errors.New("ends within a line")
	}
	key, value, ok := strings.Cut(line, ": ")
	if !ok {
		return fmt.Errorf("line %s: no colon and space", quote(line))
	}
	if p.seen[key] {
		return fmt.Errorf("%s: more than one", quote(key))
	}
	if err := p.field(key, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// field takes one known field; the others are as if not there.
func (p *narInfoParser) field(key, value string) (err error) {
	n := &p.info
	switch key {
	case "StorePath":
		n.StorePath, err = ParseStorePath(value)
	case "URL":
		n.URL, err = value, ValidField(value)
	case "Compression":
		n.Compression, err = value, ValidField(value)
	case "FileHash":
		n.FileHash, err = ParseHash(value)
	case "FileSize":
		n.FileSize, err = parseSize(value)
	case "NarHash":
		n.NarHash, err = ParseHash(value)
	case "NarSize":
		n.NarSize, err = parseSize(value)
	case "References":
		p.references = value
	case "System":
		n.System, err = value, ValidSystem(value)
	case "Deriver":
		n.Deriver, err = DeriverName(value), ValidDeriver(value)
	case "Sig":
		n.Sigs = append(n.Sigs, value)
		return ValidSig(value)
	case "CA":
		n.CA, err = value, ValidCA(value)
	default:
		return nil
	}
	p.seen[key] = true
	return err
}

func (p *narInfoParser) finish() (*NarInfo, error) {
	n := &p.info
	switch {
	case n.StorePath.IsZero():
		return nil, errors.New("no StorePath")
	case n.URL == "":
		return nil, errors.New("no URL")
	case !p.seen["NarHash"]:
		return nil, errors.New("no NarHash")
	case n.NarSize == 0:
		return nil, errors.New("no NarSize, or it is zero")
	}
	if n.Compression == "" {
		n.Compression = defaultCompression
	}
	for base := range strings.FieldsSeq(p.references) {
		ref, err := ParseBaseName(n.StorePath.Dir(), base)
		if err != nil {
			return nil, fmt.Errorf("reference: %w", err)
		}
		n.References = append(n.References, ref)
	}
	return n, nil
}

// parseSize reads decimal digits; strconv.ParseUint would take them with a plus sign refused already.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is not a number of bytes", quote(s))
	}
	return n, nil
}

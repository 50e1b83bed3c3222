package nixconf

import (
	"fmt"
	"slices"
	"strings"
)

// A nix.conf that a person owns gets our lines between two comments, and nothing else in it is touched:
//
//	# attic-action: https://cache.example.org system
//	extra-substituters = …
//	# attic-action: end
const (
	blockStart = "# attic-action: "
	blockEnd   = blockStart + "end"
)

// Block is a cache that a nix.conf got from Add.
type Block struct {
	Server string // URL of the server
	Name   string // of the cache
	Lines  string // between the comments
}

// Netrc is the netrc file that the block names; empty if it names none.
func (b Block) Netrc() string {
	for line := range strings.Lines(b.Lines) {
		if file, ok := strings.CutPrefix(line, "netrc-file = "); ok {
			return strings.TrimSpace(file)
		}
	}
	return ""
}

// Substituter is the URL that the block adds.
func (b Block) Substituter() string {
	for line := range strings.Lines(b.Lines) {
		if url, ok := strings.CutPrefix(line, "extra-substituters = "); ok {
			return strings.TrimSpace(url)
		}
	}
	return ""
}

func (b Block) String() string {
	return blockStart + b.Server + " " + b.Name + "\n" + b.Lines + blockEnd + "\n"
}

// Blocks are the caches that text, a nix.conf, got from Add.
func Blocks(text string) ([]Block, error) {
	var blocks []Block
	parts, err := split(text)
	for _, p := range parts {
		if p.block != nil {
			blocks = append(blocks, *p.block)
		}
	}
	return blocks, err
}

// Add returns text, a nix.conf, with the cache of that name on that server in it: where it was already, else at the end, for
// a plain "substituters = …" drops what comes before it. All else stays byte for byte.
func Add(text, server, name string, c Cache) (string, error) {
	lines, err := c.Lines()
	if err != nil {
		return "", err
	}
	if !isWord(server) || !isWord(name) {
		return "", fmt.Errorf("%.200q and %.200q are not a server and a cache", server, name)
	}
	parts, err := split(text)
	if err != nil {
		return "", err
	}
	b := &Block{Server: server, Name: name, Lines: lines}
	if i := slices.IndexFunc(parts, func(p part) bool { return p.is(server, name) }); i >= 0 {
		parts[i].block = b
	} else {
		if text != "" && !strings.HasSuffix(text, "\n") {
			parts = append(parts, part{text: "\n"})
		}
		parts = append(parts, part{block: b})
	}
	return join(parts), nil
}

// Remove returns text without the cache of that name on that server.
func Remove(text, server, name string) (string, error) {
	parts, err := split(text)
	if err != nil {
		return "", err
	}
	return join(slices.DeleteFunc(parts, func(p part) bool { return p.is(server, name) })), nil
}

// part is a block, or what stands between two.
type part struct {
	text  string
	block *Block
}

func (p part) is(server, name string) bool {
	return p.block != nil && p.block.Server == server && p.block.Name == name
}

// split reads a nix.conf. A block that somebody has taken apart is an error: what of it is still ours can't be known.
func split(text string) ([]part, error) {
	var parts []part
	var open *Block
	number, opened := 0, 0
	for line := range strings.Lines(text) {
		number++
		trimmed := strings.TrimRight(line, " \t\r\n")
		rest, marked := strings.CutPrefix(trimmed, blockStart)
		server, name, named := strings.Cut(rest, " ")
		switch {
		case marked && open == nil && named:
			open, opened = &Block{Server: server, Name: name}, number
		case trimmed == blockEnd && open != nil:
			parts = append(parts, part{block: open})
			open = nil
		case marked:
			return nil, fmt.Errorf("line %d, %.100q, stands alone; remove it, and the lines that belong to it", number, trimmed)
		case open != nil:
			open.Lines += line
		case len(parts) > 0 && parts[len(parts)-1].block == nil:
			parts[len(parts)-1].text += line
		default:
			parts = append(parts, part{text: line})
		}
	}
	if open != nil {
		return nil, fmt.Errorf("line %d begins what no %q ends; remove it, and the lines that belong to it", opened, blockEnd)
	}
	return parts, nil
}

func join(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		if p.block != nil {
			b.WriteString(p.block.String())
		}
		b.WriteString(p.text)
	}
	return b.String()
}

package nix

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// NarInfo is what a cache says of a store path: the text of its <hash>.narinfo, parsed.
type NarInfo struct {
	StorePath   StorePath
	URL         string // of the NAR, relative to the cache's
	Compression string // "none", "zstd", …
	FileHash    Hash   // of the compressed NAR; zero if not told
	FileSize    uint64 // bytes of the compressed NAR; zero if not told
	NarHash     Hash
	NarSize     uint64 // bytes, never zero
	References  []StorePath
	Deriver     string // base name of a .drv; "" if not known
	System      string
	Sigs        []string // "name:base64"
	CA          string   // content address, "fixed:r:sha256:…"; "" if none
}

// Fingerprint is the text that signatures sign. References are sorted and unique in it, as Nix makes it,
// whatever their order in n.
func (n *NarInfo) Fingerprint() string {
	var b strings.Builder
	fmt.Fprintf(&b, "1;%s;sha256:%s;%d;", n.StorePath, n.NarHash.Base32(), n.NarSize)
	dir := n.StorePath.Dir()
	for i, ref := range n.referenceNames() {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(dir)
		b.WriteByte('/')
		b.WriteString(ref)
	}
	return b.String()
}

// Format is the text of the narinfo, its fields in Attic's order. A value that could add a line
// of its own is left out with its key: who takes values from outside refuses them before, with
// ValidField and its kin.
func (n *NarInfo) Format() []byte {
	b := make([]byte, 0, 512+64*len(n.References))
	b = appendField(b, "StorePath", n.StorePath.String())
	b = appendField(b, "URL", n.URL)
	b = appendField(b, "Compression", orNone(n.Compression))
	if !n.FileHash.IsZero() {
		b = appendField(b, "FileHash", n.FileHash.String())
	}
	if n.FileSize > 0 {
		b = appendField(b, "FileSize", strconv.FormatUint(n.FileSize, 10))
	}
	b = appendField(b, "NarHash", n.NarHash.String())
	b = appendField(b, "NarSize", strconv.FormatUint(n.NarSize, 10))
	// Valid names hold neither spaces nor line ends. The space after the colon stays when there are none.
	b = append(b, "References: "...)
	b = append(b, strings.Join(n.referenceNames(), " ")...)
	b = append(b, '\n')
	b = appendOptional(b, "System", n.System)
	b = appendOptional(b, "Deriver", DeriverName(n.Deriver))
	for _, sig := range n.Sigs {
		b = appendOptional(b, "Sig", sig)
	}
	return appendOptional(b, "CA", n.CA)
}

// orNone names the compression, since Nix takes bzip2 for a narinfo that does not.
func orNone(compression string) string {
	if compression == "" {
		return "none"
	}
	return compression
}

func appendOptional(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}
	return appendField(b, key, value)
}

func appendField(b []byte, key, value string) []byte {
	if hasLineBreaker(value) {
		return b
	}
	b = append(b, key...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, '\n')
}

// referenceNames are the base names of the references, sorted bytewise, each once.
func (n *NarInfo) referenceNames() []string {
	names := make([]string, len(n.References))
	for i, ref := range n.References {
		names[i] = ref.Base()
	}
	slices.Sort(names)
	return slices.Compact(names)
}

package depot

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"io"
	"slices"

	"github.com/org/attic-action/internal/nar"
	"github.com/org/attic-action/internal/nix"
)

const (
	// maxSigs bounds the signatures that a path gathers: whoever may push could add to them for ever.
	maxSigs = 64
	// maxNARSize keeps sums of sizes far from overflowing.
	maxNARSize = 1 << 50
)

// A claim is what a client says of a path, as far as something here can contradict it.
type claim struct {
	up      *Upload
	address *nix.ContentAddress // nil when the path claims none

	digest hash.Hash     // of what the address hashes, as far as its bytes were seen; nil when nothing can be told
	file   *nar.Contents // of an address that hashes one file, and not its NAR

	listing *nar.Skeleton // of the NAR's bytes; nil where none pass by
}

// newClaim checks what needs no contents. A content address must be one that the store path follows
// from: clients believe such a path without any signature.
func newClaim(s Scope, up *Upload) (*claim, error) {
	if err := checkFields(up); err != nil {
		return nil, err
	}
	if up.NARSize > maxNARSize {
		return nil, badRequest("%s: a NAR of %d bytes is more than there can be", up.Path, up.NARSize)
	}
	c := &claim{up: up}
	if err := c.checkAddress(); err != nil {
		return nil, err
	}
	return c, checkSigner(s, up)
}

// checkFields refuses what would become a line of its own in a narinfo.
func checkFields(up *Upload) error {
	for _, err := range []error{nix.ValidDeriver(up.Deriver), nix.ValidSystem(up.System)} {
		if err != nil {
			return badRequest("%s: %v", up.Path, err)
		}
	}
	if len(up.Sigs) > maxSigs {
		return badRequest("%s: %d signatures are more than the limit of %d", up.Path, len(up.Sigs), maxSigs)
	}
	for _, sig := range up.Sigs {
		if err := nix.ValidSig(sig); err != nil {
			return badRequest("%s: %v", up.Path, err)
		}
	}
	return nil
}

// DropUnfounded takes off what the stock client may say and nothing here can uphold: texts that are no
// signatures, no derivers, no systems, and a content address that the path does not follow from. Attic
// takes all as they come; without them clients believe the path for its cache's signature alone.
func (up *Upload) DropUnfounded() {
	if nix.ValidDeriver(up.Deriver) != nil {
		up.Deriver = ""
	}
	if nix.ValidSystem(up.System) != nil {
		up.System = ""
	}
	up.Sigs = slices.DeleteFunc(slices.Clone(up.Sigs), func(sig string) bool { return nix.ValidSig(sig) != nil })
	up.Sigs = up.Sigs[:min(len(up.Sigs), maxSigs)]
	if (&claim{up: up}).checkAddress() != nil {
		up.CA = ""
	}
}

func (c *claim) checkAddress() error {
	if c.up.CA == "" {
		return nil
	}
	ca, err := nix.ParseContentAddress(c.up.CA)
	if err != nil {
		return badRequest("%s: %v", c.up.Path, err)
	}
	var refs []string
	for _, ref := range c.up.References {
		if ref != c.up.Path.Base() {
			refs = append(refs, ref)
		}
	}
	self := len(refs) < len(c.up.References)
	derived, err := ca.StorePath(c.up.Path.Dir(), c.up.Path.Name(), refs, self)
	if err != nil {
		return badRequest("%s: content address %s: %v", c.up.Path, c.up.CA, err)
	}
	if derived != c.up.Path {
		return badRequest("%s: its content address %s belongs to another path, %s", c.up.Path, c.up.CA, derived)
	}
	// With a reference to itself, zeros were hashed in place of the path's own hash.
	if ca.Method == nix.Recursive && ca.Algorithm == "sha256" && !self && !bytes.Equal(ca.Digest, c.up.NARHash[:]) {
		return badRequest("%s: its content address is not its NAR hash", c.up.Path)
	}
	c.address = &ca
	return nil
}

// contents is a writer for the NAR's bytes, or nil when the address hashes nothing that they would tell.
// MD5 and SHA-1 prove little to whoever made the file, and name another file wrongly all the same.
func (c *claim) contents() io.Writer {
	if c.address == nil || c.address.Method == nix.Git || c.address.Method == nix.Recursive && c.address.Algorithm == "sha256" {
		return nil // the latter is the NAR hash, or hashes zeros in place of the path's own name
	}
	switch c.address.Algorithm {
	case "md5":
		c.digest = md5.New()
	case "sha1":
		c.digest = sha1.New()
	case "sha256":
		c.digest = sha256.New()
	case "sha512":
		c.digest = sha512.New()
	default:
		return nil
	}
	if c.address.Method == nix.Recursive {
		return c.digest
	}
	c.file = &nar.Contents{To: c.digest}
	return c.file
}

// tee writes to all of to, and to contents where the address needs them.
func (c *claim) tee(to ...io.Writer) io.Writer {
	if w := c.contents(); w != nil {
		to = append(to, w)
	}
	if c.listing != nil {
		to = append(to, c.listing)
	}
	return io.MultiWriter(to...)
}

// listed is up with the listing of what went by.
func (c *claim) listed(up Upload) (Upload, error) {
	up.Listing = c.listing.Bytes()
	return up, readListing(&up)
}

// checkContents compares the address with the bytes that went into contents.
func (c *claim) checkContents() error {
	if c.digest != nil && (c.file != nil && !c.file.Whole() || !bytes.Equal(c.digest.Sum(nil), c.address.Digest)) {
		return c.wrongContents()
	}
	return nil
}

func (c *claim) wrongContents() error {
	return badRequest("%s: its contents are not what its content address %s says", c.up.Path, c.up.CA)
}

// checkArrived compares the address of a file with what was hashed when the NAR's packs arrived, or
// lies in its piece list. A NAR that nobody hashed is not read again for it.
func (c *claim) checkArrived(asm *assembly) error {
	if c.address == nil || c.address.Method != nix.Flat && c.address.Method != nix.Text || !asm.verified {
		return nil
	}
	if digest, known := asm.arrived.digest(c.address.Algorithm); known && !bytes.Equal(digest, c.address.Digest) {
		return c.wrongContents()
	}
	return nil
}

// checkSigner holds a cache to the keys that its paths must be signed by. What is signed is the NAR
// hash and the references, so it does not matter who sends the path.
func checkSigner(s Scope, up *Upload) error {
	if len(s.SignedBy) == 0 {
		return nil
	}
	info := nix.NarInfo{StorePath: up.Path, NarHash: up.NARHash, NarSize: up.NARSize}
	for _, base := range up.References {
		ref, err := nix.ParseBaseName(up.Path.Dir(), base)
		if err != nil {
			return badRequest("reference of %s: %v", up.Path, err)
		}
		info.References = append(info.References, ref)
	}
	fingerprint := info.Fingerprint()
	for _, sig := range up.Sigs {
		signed := func(k nix.PublicKey) bool { return k.Verify(fingerprint, sig) }
		if slices.ContainsFunc(s.SignedBy, signed) {
			return nil
		}
	}
	return badRequest("%s: this cache takes only paths that are signed by one of %d keys; nix store sign --recursive signs them",
		up.Path, len(s.SignedBy))
}

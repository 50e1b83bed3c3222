package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/jsonscan"
	"github.com/org/attic-action/internal/nix"
)

// Realisation is what Nix writes to realisations/<id>.doi: which path an output of
// a content-addressed derivation became.
type Realisation struct {
	Dependent  map[string]string `json:"dependentRealisations"` // ids to base names
	ID         string            `json:"id"`                    // "sha256:<64 hex digits>!<output>"
	OutPath    string            `json:"outPath"`               // base name
	Signatures []string          `json:"signatures"`            // "name:base64"
}

const (
	// MaxRealisation is the longest realisation, in bytes.
	MaxRealisation     = 1 << 20
	maxRealisationSigs = 64
)

// ValidRealisationID reports whether s names an output of a derivation.
func ValidRealisationID(s string) bool {
	hash, output, ok := strings.Cut(strings.TrimPrefix(s, "sha256:"), "!")
	return ok && strings.HasPrefix(s, "sha256:") && len(hash) == 64 && strings.Trim(hash, "0123456789abcdef") == "" &&
		len(output) > 0 && len(output) <= 200 && !strings.ContainsFunc(output, notOutputRune)
}

// notOutputRune is what no name of a store path has.
func notOutputRune(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-._?=", r))
}

// DecodeRealisation reads the realisation of an id, in the store that is in dir. An
// *Error says what is wrong with it. Members that it does not know are left out.
func DecodeRealisation(text []byte, id, dir string) (*Realisation, error) {
	r := &Realisation{Dependent: map[string]string{}, Signatures: []string{}}
	s := jsonscan.New(text, 0)
	err := s.Members([]jsonscan.Field{
		{Name: "id", Read: func() (err error) { r.ID, err = s.Text(); return }},
		{Name: "outPath", Read: func() (err error) { r.OutPath, err = s.Text(); return }},
		{Name: "signatures", Optional: true, Read: func() (err error) { r.Signatures, err = s.Texts(); return }},
		{Name: "dependentRealisations", Optional: true, Read: func() error {
			return s.Object(func(name string) (err error) {
				if !ValidRealisationID(name) {
					return s.Wrong("%.40q is not the id of a realisation", name)
				}
				r.Dependent[name], err = s.Text()
				return err
			})
		}},
	})
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return nil, badRequest("realisation: %v", err)
	}
	if r.ID != id || !ValidRealisationID(id) {
		return nil, badRequest("realisation: its id is %.100q, and not what the URL says", r.ID)
	}
	for _, base := range append([]string{r.OutPath}, values(r.Dependent)...) {
		if _, err := nix.ParseBaseName(dir, base); err != nil {
			return nil, badRequest("realisation: %v", err)
		}
	}
	if len(r.Signatures) > maxRealisationSigs {
		return nil, badRequest("realisation: more than %d signatures", maxRealisationSigs)
	}
	for _, sig := range r.Signatures {
		if err := nix.ValidSig(sig); err != nil {
			return nil, badRequest("realisation: %v", err)
		}
	}
	return r, nil
}

func values(m map[string]string) (list []string) {
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// Merge adds the signatures of other, which is of the same output and path.
func (r *Realisation) Merge(other *Realisation) {
	for _, sig := range other.Signatures {
		if len(r.Signatures) < maxRealisationSigs {
			r.Sign(sig)
		}
	}
}

// Sign adds a signature.
func (r *Realisation) Sign(sig string) {
	if !slices.Contains(r.Signatures, sig) {
		r.Signatures = append(r.Signatures, sig)
	}
}

// Fingerprint is the text that signatures sign.
func (r *Realisation) Fingerprint() string {
	var unsigned struct {
		Dependent map[string]string `json:"dependentRealisations"`
		ID        string            `json:"id"`
		OutPath   string            `json:"outPath"`
	}
	unsigned.Dependent, unsigned.ID, unsigned.OutPath = r.Dependent, r.ID, r.OutPath
	b, err := json.Marshal(unsigned)
	if err != nil { // texts and lists of them always encode
		panic("api: internal error: " + err.Error())
	}
	return string(b)
}

// Encode is r as Nix writes it.
func (r *Realisation) Encode() []byte {
	b, err := json.Marshal(r)
	if err != nil { // texts and lists of them always encode
		panic("api: internal error: " + err.Error())
	}
	return b
}

package api

import (
	"encoding/json"
	"strings"

	"github.com/org/attic-action/internal/jsonscan"
	"github.com/org/attic-action/internal/nix"
)

// UploadInfo describes the NAR of an upload, in a header or before the NAR.
type UploadInfo struct {
	Cache         string
	StorePathHash string // the hash in StorePath
	StorePath     string
	References    []string // base names, as sent: in any order, perhaps repeated
	System        string   // empty: not given; as are Deriver and CA
	Deriver       string
	Sigs          []string
	CA            string
	NARHash       nix.Hash
	NARSize       uint64 // bytes
}

// DecodeUploadInfo reads the description of an upload. Every fault is 400 here.
// More is checked than by Attic: a narinfo is made of these texts, line by line,
// and it is signed.
func DecodeUploadInfo(info []byte) (*UploadInfo, error) {
	u := new(UploadInfo)
	s := jsonscan.New(info, 0)
	err := s.Positional([]jsonscan.Field{
		{Name: "cache", Read: func() (err error) { u.Cache, err = readCacheName(s); return }},
		{Name: "store_path_hash", Read: func() (err error) { u.StorePathHash, err = readHash(s); return }},
		{Name: "store_path", Read: func() (err error) { u.StorePath, err = s.Text(); return }},
		{Name: "references", Read: func() (err error) { u.References, err = s.Texts(); return }},
		optionalLine(s, "system", &u.System),
		optionalLine(s, "deriver", &u.Deriver),
		{Name: "sigs", Read: func() (err error) { u.Sigs, err = readLines(s); return }},
		optionalLine(s, "ca", &u.CA),
		{Name: "nar_hash", Read: func() (err error) { u.NARHash, err = readNARHash(s); return }},
		{Name: "nar_size", Read: func() (err error) { u.NARSize, err = s.Uint(); return }},
	})
	if err == nil {
		err = s.End()
	}
	if err != nil {
		return nil, badRequest("upload info: %v", err)
	}
	return u, u.check()
}

// check holds what depends on several members.
func (u *UploadInfo) check() error {
	path, err := nix.ParseStorePath(u.StorePath)
	if err != nil {
		return badRequest("upload info: %v", err)
	}
	if path.Hash() != u.StorePathHash {
		return badRequest("upload info: store_path_hash is not the hash in store_path")
	}
	return checkReferences(path.Dir(), u.References)
}

func checkReferences(dir string, references []string) error {
	for _, base := range references {
		if _, err := nix.ParseBaseName(dir, base); err != nil {
			return badRequest("reference: %v", err)
		}
	}
	return nil
}

// MarshalJSON writes the members as the stock client does: all of them, null for
// what is not given.
func (u UploadInfo) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Cache         string   `json:"cache"`
		StorePathHash string   `json:"store_path_hash"`
		StorePath     string   `json:"store_path"`
		References    []string `json:"references"`
		System        *string  `json:"system"`
		Deriver       *string  `json:"deriver"`
		Sigs          []string `json:"sigs"`
		CA            *string  `json:"ca"`
		NARHash       nix.Hash `json:"nar_hash"`
		NARSize       uint64   `json:"nar_size"`
	}{u.Cache, u.StorePathHash, u.StorePath, notNil(u.References), given(u.System), given(u.Deriver),
		notNil(u.Sigs), given(u.CA), u.NARHash, u.NARSize})
}

func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func optionalLine(s *jsonscan.Scanner, name string, to *string) jsonscan.Field {
	return jsonscan.Field{Name: name, Optional: true, Read: func() error {
		if null, err := s.Null(); null || err != nil {
			return err
		}
		text, err := readLine(s)
		*to = text
		return err
	}}
}

func readLines(s *jsonscan.Scanner) ([]string, error) {
	lines := []string{}
	err := s.Array(func(int) error {
		line, err := readLine(s)
		lines = append(lines, line)
		return err
	})
	return lines, err
}

// readNARHash reads a typed hash: unlike nix.ParseHash it takes no SRI.
func readNARHash(s *jsonscan.Scanner) (nix.Hash, error) {
	text, err := s.Text()
	if err != nil {
		return nix.Hash{}, err
	}
	hash, err := nix.ParseHash(text)
	if err != nil || !strings.HasPrefix(text, "sha256:") {
		return nix.Hash{}, s.Wrong("not sha256: with 64 hexadecimal or 52 base-32 digits")
	}
	return hash, nil
}

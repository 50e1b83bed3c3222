package nixcli

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/nix"
)

// The JSON of path-info came in three forms:
//
//	until 2.18   [{"path": "/nix/store/…", …}, …]
//	since 2.19   {"/nix/store/…": {…}, …}
//	format 2     {"version": 2, "storeDir": "/nix/store", "info": {"<hash>-<name>": {…}, …}}
//
// In the second and third an unknown path is null, in the first it has "valid": false. In the third,
// references are base names. Hashes, content addresses and signatures are strings or, in the newest, objects.

// rawInfo is one path in any of the forms.
type rawInfo struct {
	Path       string      `json:"path"`
	Valid      *bool       `json:"valid"`
	NarHash    hashField   `json:"narHash"`
	NarSize    uint64      `json:"narSize"`
	References []string    `json:"references"`
	Deriver    string      `json:"deriver"`
	CA         caField     `json:"ca"`
	Signatures []signature `json:"signatures"`
}

// parsePathInfos adds the valid paths in the output of path-info to infos.
func parsePathInfos(out []byte, infos map[nix.StorePath]PathInfo) error {
	var byPath map[string]*rawInfo
	var store string
	var err error
	if out = bytes.TrimSpace(out); bytes.HasPrefix(out, []byte("[")) {
		byPath, err = parseArray(out)
	} else {
		byPath, store, err = parseObject(out)
	}
	if err != nil {
		return fmt.Errorf("understand nix path-info: %w", err)
	}
	for path, raw := range byPath {
		if raw == nil || raw.Valid != nil && !*raw.Valid {
			continue
		}
		info, err := raw.parse(path, store)
		if err != nil {
			return fmt.Errorf("understand nix path-info of %.300q: %w", path, err)
		}
		infos[info.Path] = info
	}
	return nil
}

func parseArray(out []byte) (map[string]*rawInfo, error) {
	var list []rawInfo
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, err
	}
	byPath := make(map[string]*rawInfo, len(list))
	for i := range list {
		byPath[list[i].Path] = &list[i]
	}
	return byPath, nil
}

// parseObject returns the store's directory too if paths are base names.
func parseObject(out []byte) (byPath map[string]*rawInfo, store string, err error) {
	// Full paths begin with a slash, so the keys of format 2 are not among them.
	if !bytes.HasPrefix(bytes.TrimLeft(out, "{ \n\t\r"), []byte(`"/`)) {
		var format2 struct {
			StoreDir string              `json:"storeDir"`
			Info     map[string]*rawInfo `json:"info"`
		}
		if err := json.Unmarshal(out, &format2); err != nil {
			return nil, "", err
		}
		if format2.StoreDir == "" && len(format2.Info) > 0 {
			return nil, "", errors.New("base names without a storeDir")
		}
		return format2.Info, format2.StoreDir, nil
	}
	err = json.Unmarshal(out, &byPath)
	return byPath, "", err
}

// parse checks one path's values. If store is empty, paths are full ones.
func (r *rawInfo) parse(path, store string) (PathInfo, error) {
	info := PathInfo{NarHash: nix.Hash(r.NarHash), NarSize: r.NarSize, CA: string(r.CA), Deriver: r.Deriver}
	var err error
	if info.Path, err = parsePath(path, store); err != nil {
		return PathInfo{}, err
	}
	if info.NarHash.IsZero() || info.NarSize == 0 {
		return PathInfo{}, errors.New("no narHash or narSize")
	}
	for _, text := range r.References {
		ref, err := parsePath(text, store)
		if err != nil {
			return PathInfo{}, fmt.Errorf("reference: %w", err)
		}
		info.References = append(info.References, ref)
	}
	slices.SortFunc(info.References, comparePaths)
	info.References = slices.Compact(info.References)
	if r.Deriver != "" {
		drv, err := parsePath(r.Deriver, store)
		if err != nil {
			return PathInfo{}, fmt.Errorf("deriver: %w", err)
		}
		info.Deriver = drv.String()
	}
	for _, sig := range r.Signatures {
		info.Sigs = append(info.Sigs, string(sig))
	}
	return info, nil
}

func parsePath(s, store string) (nix.StorePath, error) {
	if store == "" || strings.HasPrefix(s, "/") {
		return nix.ParseStorePath(s)
	}
	return nix.ParseBaseName(store, s)
}

// hashField is a SHA-256 as text, or as an object.
type hashField nix.Hash

func (h *hashField) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	algorithm, digest, err := parseHash(b)
	if err != nil {
		return err
	}
	if algorithm != "sha256" || len(digest) != len(h) {
		return fmt.Errorf("a NAR hash that is no SHA-256 but %.20q", algorithm)
	}
	*h = hashField(digest)
	return nil
}

// parseHash reads a hash of any algorithm: "sha256:<hex or base 32>", "sha256-<base64>", or
// {"algorithm": "sha256", "format": "base64", "hash": "<digest>"}, the hash there also in the form of a string.
func parseHash(b []byte) (algorithm string, digest []byte, err error) {
	var text string
	if json.Unmarshal(b, &text) == nil {
		return parseHashText(text)
	}
	var object struct{ Algorithm, Format, Hash string }
	if err := json.Unmarshal(b, &object); err != nil {
		return "", nil, err
	}
	if strings.ContainsAny(object.Hash, ":-") {
		return parseHashText(object.Hash)
	}
	if object.Format == "base64" {
		return parseHashText(object.Algorithm + "-" + object.Hash)
	}
	return parseHashText(object.Algorithm + ":" + object.Hash)
}

func parseHashText(text string) (algorithm string, digest []byte, err error) {
	i := strings.IndexAny(text, ":-")
	if i < 0 {
		return "", nil, fmt.Errorf("hash %.100q: no algorithm", text)
	}
	algorithm = text[:i]
	size, known := map[string]int{"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "blake3": 32}[algorithm]
	digits := text[i+1:]
	switch {
	case !known:
		return "", nil, fmt.Errorf("hash %.100q: unknown algorithm", text)
	case text[i] == '-':
		digest, err = base64.StdEncoding.DecodeString(digits)
	case len(digits) == hex.EncodedLen(size):
		digest, err = hex.DecodeString(digits)
	default:
		digest, err = nix.DecodeBase32(digits)
	}
	if err == nil && len(digest) != size {
		err = fmt.Errorf("%d bytes in place of %d", len(digest), size)
	}
	if err != nil {
		return "", nil, fmt.Errorf("hash %.150q: %w", text, err)
	}
	return algorithm, digest, nil
}

// caField is a content address as Nix writes it in a narinfo; "" for none.
type caField string

func (c *caField) UnmarshalJSON(b []byte) error {
	var text *string
	if json.Unmarshal(b, &text) == nil {
		if text != nil {
			*c = caField(*text)
		}
		return nix.ValidCA(string(*c))
	}
	var object struct {
		Method string
		Hash   json.RawMessage
	}
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	prefix, ok := map[string]string{"flat": "fixed:", "nar": "fixed:r:", "git": "fixed:git:", "text": "text:"}[object.Method]
	if !ok {
		return fmt.Errorf("content address: unknown method %.50q", object.Method)
	}
	algorithm, digest, err := parseHash(object.Hash)
	if err != nil {
		return fmt.Errorf("content address: %w", err)
	}
	*c = caField(prefix + algorithm + ":" + nix.EncodeBase32(digest))
	return nil
}

// signature is "name:base64", or an object of both.
type signature string

func (s *signature) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) != nil {
		var object struct{ KeyName, Sig string }
		if err := json.Unmarshal(b, &object); err != nil {
			return err
		}
		text = object.KeyName + ":" + object.Sig
	}
	*s = signature(text)
	return nix.ValidSig(text)
}

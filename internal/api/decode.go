package api

import (
	"errors"
	"mime"
	"net/http"
	"strings"

	"github.com/org/attic-action/internal/jsonscan"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/token"
)

// CheckContentType refuses, with 415, a body that does not say it is JSON:
// application/json or application/<something>+json.
func CheckContentType(contentType string) error {
	media, _, err := mime.ParseMediaType(contentType)
	sub, ok := strings.CutPrefix(media, "application/")
	if i := strings.LastIndexByte(sub, '+'); i > 0 && sub[i:] == "+json" {
		sub = "json"
	}
	if err != nil || !ok || sub != "json" {
		return &Error{Code: http.StatusUnsupportedMediaType, Name: RequestError,
			Message: "the body must be JSON and say so: Content-Type: application/json"}
	}
	return nil
}

// DecodeCreateCache reads the body of POST cache-config.
func DecodeCreateCache(contentType string, body []byte) (*CreateCache, error) {
	c := new(CreateCache)
	return c, decode(contentType, body, func(s *jsonscan.Scanner) error {
		return s.Positional([]jsonscan.Field{
			{Name: "keypair", Read: func() (err error) { c.Keypair, err = readKeypair(s); return }},
			{Name: "is_public", Read: func() (err error) { c.IsPublic, err = s.Bool(); return }},
			{Name: "store_dir", Read: func() (err error) { c.StoreDir, err = readLine(s); return }},
			{Name: "priority", Read: func() (err error) { c.Priority, err = readInt32(s); return }},
			{Name: "upstream_cache_key_names", Read: func() (err error) { c.UpstreamCacheKeyNames, err = s.Texts(); return }},
		})
	})
}

// DecodePatchCache reads the body of PATCH cache-config. Empty and
// CheckRetention are left to the caller, for they come after the permissions.
func DecodePatchCache(contentType string, body []byte) (*PatchCache, error) {
	p := new(PatchCache)
	return p, decode(contentType, body, func(s *jsonscan.Scanner) error {
		return s.Positional([]jsonscan.Field{
			optional(s, "keypair", &p.Keypair, readKeypair),
			// Read-only: ignored, but Attic looks at their type.
			optional(s, "substituter_endpoint", new(*string), (*jsonscan.Scanner).Text),
			optional(s, "api_endpoint", new(*string), (*jsonscan.Scanner).Text),
			optional(s, "public_key", new(*string), (*jsonscan.Scanner).Text),
			optional(s, "is_public", &p.IsPublic, (*jsonscan.Scanner).Bool),
			optional(s, "store_dir", &p.StoreDir, readLine),
			optional(s, "priority", &p.Priority, readInt32),
			optional(s, "upstream_cache_key_names", &p.UpstreamCacheKeyNames, (*jsonscan.Scanner).Texts),
			optional(s, "retention_period", &p.RetentionPeriod, readRetention),
		})
	})
}

// DecodeMissingPaths reads the body of POST get-missing-paths. Hashes may repeat.
func DecodeMissingPaths(contentType string, body []byte) (*MissingPathsRequest, error) {
	m := new(MissingPathsRequest)
	return m, decode(contentType, body, func(s *jsonscan.Scanner) error {
		return s.Positional([]jsonscan.Field{
			{Name: "cache", Read: func() (err error) { m.Cache, err = readCacheName(s); return }},
			{Name: "store_path_hashes", Read: func() (err error) { m.StorePathHashes, err = readHashes(s); return }},
		})
	})
}

// DecodeClosure reads the body of POST closure.
func DecodeClosure(contentType string, body []byte) (*ClosureRequest, error) {
	c := new(ClosureRequest)
	return c, decode(contentType, body, func(s *jsonscan.Scanner) error {
		return s.Members([]jsonscan.Field{
			{Name: "store_path_hashes", Read: func() (err error) { c.StorePathHashes, err = readHashes(s); return }},
			{Name: "list", Optional: true, Read: func() (err error) { c.List, err = s.Bool(); return }},
		})
	})
}

// decode reads one JSON document and turns faults into the answer they deserve.
func decode(contentType string, body []byte, read func(*jsonscan.Scanner) error) error {
	if err := CheckContentType(contentType); err != nil {
		return err
	}
	s := jsonscan.New(body, 0)
	err := read(s)
	if err == nil {
		err = s.End()
	}
	var fault *jsonscan.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault) && fault.Syntax:
		return badRequest("the body is not JSON: %v", fault)
	}
	return wrongShape("the body does not fit: %v", err)
}

// optional is a field that may be missing or null.
func optional[T any](s *jsonscan.Scanner, name string, to **T, read func(*jsonscan.Scanner) (T, error)) jsonscan.Field {
	return jsonscan.Field{Name: name, Optional: true, Read: func() error {
		if null, err := s.Null(); null || err != nil {
			return err
		}
		value, err := read(s)
		*to = &value
		return err
	}}
}

func readInt32(s *jsonscan.Scanner) (int32, error) {
	n, err := s.Integer(-1<<31, 1<<31-1)
	return int32(n), err
}

func readCacheName(s *jsonscan.Scanner) (string, error) {
	name, err := s.Text()
	if err == nil && !token.ValidCacheName(name) {
		err = s.Wrong("not the name of a cache")
	}
	return name, err
}

func readHash(s *jsonscan.Scanner) (string, error) {
	hash, err := s.Text()
	if err == nil && !nix.ValidPathHash(hash) {
		err = s.Wrong("not a store path hash of 32 characters")
	}
	return hash, err
}

func readHashes(s *jsonscan.Scanner) ([]string, error) {
	hashes := []string{}
	err := s.Array(func(int) error {
		hash, err := readHash(s)
		hashes = append(hashes, hash)
		return err
	})
	return hashes, err
}

// readLine reads a text that will stand in a line of a narinfo or of
// nix-cache-info, where a line break would add a line of the sender's choice.
func readLine(s *jsonscan.Scanner) (string, error) {
	text, err := s.Text()
	if err == nil && hasControl(text) {
		err = s.Wrong("has control characters")
	}
	return text, err
}

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func readKeypair(s *jsonscan.Scanner) (k Keypair, err error) {
	err = s.Enum(func(name string, valued bool) error {
		switch {
		case name == "Generate":
			k.Generate = true
			if valued {
				return s.Unit()
			}
			return nil
		case name == "Keypair" && valued:
			text, err := s.Text()
			if err != nil {
				return err
			}
			// Halves that do not match would sign what nobody can verify. The
			// parser's own text may quote the key.
			if _, err := nix.ParseKeypair(text); err != nil {
				return s.Wrong("not a keypair (name:base64 of 64 bytes, the halves belonging together)")
			}
			k.Text = text
			return nil
		}
		return s.Wrong(`neither "Generate" nor {"Keypair": "…"}`)
	})
	return k, err
}

func readRetention(s *jsonscan.Scanner) (r Retention, err error) {
	err = s.Enum(func(name string, valued bool) error {
		switch {
		case name == "Global" && valued:
			return s.Unit()
		case name == "Global":
			return nil
		case name == "Period" && valued:
			n, err := s.Integer(0, 1<<32-1)
			seconds := uint32(n)
			r.Seconds = &seconds
			return err
		}
		return s.Wrong(`neither "Global" nor {"Period": seconds}`)
	})
	return r, err
}

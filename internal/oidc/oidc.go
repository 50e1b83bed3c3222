// Package oidc verifies ID tokens of known issuers, and of no others.
//
// A token passes through these gates in order; the network is reached only by the
// fourth, and only for an issuer that the configuration lists:
//
//	size, form         ≤ 8 KiB, three parts of canonical base64url, strict JSON
//	header             alg of the issuer's list, kid, no crit, no b64
//	iss                exactly one of the listed issuers
//	kid                a key of that issuer (cache, else discovery and JWKS)
//	signature          RS256 or ES256
//	claims             aud one string and ours; exp, nbf, iat; sub, jti
//
// Keys come from memory wherever possible. An unknown kid has them fetched again at
// most once a minute, whoever asks; keys older than an hour are renewed, and used for
// half a day more while the issuer cannot be reached.
package oidc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// GitHub is the issuer of github.com. It is listed without being configured.
const GitHub = "https://token.actions.githubusercontent.com"

// ErrUnavailable says that the issuer's keys could not be had, so that nothing is known
// about the token: the caller may try again.
var ErrUnavailable = errors.New("keys of the issuer are unavailable")

// Issuer is one issuer whose tokens are accepted.
type Issuer struct {
	// URL is compared with iss byte for byte, and is where discovery begins.
	URL string
	// JWKSFile, when given, is read once, by New; the network is not used.
	JWKSFile string
	// AllowInsecure admits http and private addresses, for tests.
	AllowInsecure bool
	// Algorithms are out of RS256 and ES256; nil means RS256 alone for GitHub, which
	// signs with nothing else, and both for others.
	Algorithms []string
	// NoID is for an issuer whose tokens have no jti: the hash of what it signed then
	// stands for it, so that such a token is single-use as well.
	NoID bool
}

// Config is what New makes a Verifier of.
type Config struct {
	// Issuers are those accepted beside GitHub. An entry with GitHub's URL replaces
	// the built-in one.
	Issuers []Issuer
	// Audience is the only aud accepted: the public URL of this server. It comes from
	// configuration and never from a Host header.
	Audience string
	// Transport carries the requests for keys; nil means one that refuses private
	// addresses (unless the issuer is AllowInsecure). For tests.
	Transport http.RoundTripper
	Now       func() time.Time // nil means time.Now
	Log       *slog.Logger     // for trouble with fetching keys; nil discards
}

// Verifier checks ID tokens. It is immutable but for its cache of keys, and safe for
// concurrent use.
type Verifier struct {
	audience string
	order    []string
	issuers  map[string]*issuer
	now      func() time.Time
}

type issuer struct {
	algorithms []string
	noID       bool
	keys       keySource
}

// Token is an ID token that has passed every check.
type Token struct {
	Issuer string // as configured
	ID     string // jti
	// Claims are all members of the payload. Strings are string, numbers json.Number.
	Claims map[string]any
	// Expires is exp. The token is accepted until Leeway after it.
	Expires time.Time
	Issued  time.Time // iat
}

// New checks the configuration and returns a Verifier. It reads key files, and leaves
// the network for the first token.
func New(c Config) (*Verifier, error) {
	if err := checkAudience(c.Audience); err != nil {
		return nil, fmt.Errorf("oidc audience %q: %w", c.Audience, err)
	}
	v := &Verifier{audience: c.Audience, issuers: make(map[string]*issuer), now: c.Now}
	if v.now == nil {
		v.now = time.Now
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for _, is := range withGitHub(c.Issuers) {
		if v.issuers[is.URL] != nil {
			return nil, fmt.Errorf("oidc issuer %q is listed twice", is.URL)
		}
		built, err := newIssuer(is, c.Transport, v.now, log)
		if err != nil {
			return nil, fmt.Errorf("oidc issuer %q: %w", is.URL, err)
		}
		v.issuers[is.URL] = built
		v.order = append(v.order, is.URL)
	}
	return v, nil
}

func withGitHub(issuers []Issuer) []Issuer {
	for _, is := range issuers {
		if is.URL == GitHub {
			return issuers
		}
	}
	return append([]Issuer{{URL: GitHub}}, issuers...)
}

func newIssuer(is Issuer, rt http.RoundTripper, now func() time.Time, log *slog.Logger) (*issuer, error) {
	algs := is.Algorithms
	switch {
	case algs == nil && is.URL == GitHub:
		algs = []string{"RS256"}
	case algs == nil:
		algs = []string{"RS256", "ES256"}
	}
	for _, a := range algs {
		if methods[a] == nil {
			return nil, fmt.Errorf("algorithm %q is not one of RS256, ES256", a)
		}
	}
	base, err := parseIssuer(is)
	if err != nil {
		return nil, err
	}
	if is.JWKSFile != "" {
		keys, err := readKeyFile(is.JWKSFile)
		if err != nil {
			return nil, err
		}
		return &issuer{algorithms: algs, noID: is.NoID, keys: fileKeys{keys}}, nil
	}
	return &issuer{algorithms: algs, noID: is.NoID, keys: newRemoteKeys(is, base, rt, now, log)}, nil
}

// checkAudience refuses audiences that other services have as well: a token that one of
// them was given could be replayed here.
func checkAudience(aud string) error {
	lower := strings.ToLower(aud)
	switch {
	case aud == "":
		return errors.New("must not be empty: set [oidc] audience, or api-endpoint, to this server's public URL")
	case len(aud) > 512:
		return errors.New("must not be longer than 512 bytes")
	case lower == "https://github.com" || strings.HasPrefix(lower, "https://github.com/"):
		return errors.New("is GitHub's default, which every service is sent; use this server's public URL")
	}
	return nil
}

// Audience returns the only aud that is accepted.
func (v *Verifier) Audience() string { return v.audience }

// Issuers returns the accepted issuers, GitHub's first where it is built in.
func (v *Verifier) Issuers() []string { return append([]string(nil), v.order...) }

// Verify checks a token in compact form. Its error says exactly what is wrong, with
// values quoted and bounded but never the token itself; it is meant for the log and not
// for whoever sent the token. It is ErrUnavailable if no keys could be had.
func (v *Verifier) Verify(ctx context.Context, raw string) (Token, error) {
	jws, err := parseCompact(raw)
	if err != nil {
		return Token{}, err
	}
	iss, err := stringClaim(jws.claims, "iss")
	if err != nil {
		return Token{}, err
	}
	is := v.issuers[iss]
	if is == nil {
		return Token{}, fmt.Errorf("iss %s is not a listed issuer", quote(iss))
	}
	if err := is.checkSignature(ctx, jws); err != nil {
		return Token{}, err
	}
	if _, ok := jws.claims["jti"]; !ok && is.noID {
		// The spelling of a token is canonical, so there is one hash for it.
		sum := sha256.Sum256([]byte(jws.signed))
		jws.claims["jti"] = "sha256-" + hex.EncodeToString(sum[:])
	}
	return v.checkClaims(iss, jws.claims)
}

func (is *issuer) checkSignature(ctx context.Context, jws *compact) error {
	alg, kid, err := jws.algAndKid()
	if err != nil {
		return err
	}
	method := methods[alg]
	if method == nil || !slices.Contains(is.algorithms, alg) {
		return fmt.Errorf("alg %s is not accepted from this issuer", quote(alg))
	}
	key, err := is.keys.key(ctx, keyName{kid: kid, alg: alg})
	if err != nil {
		return err
	}
	if err := method.Verify(jws.signed, jws.signature, key); err != nil {
		return fmt.Errorf("signature does not fit key %s", quote(kid))
	}
	return nil
}

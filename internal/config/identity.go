package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// keyKind is one way to give the key of tokens.
type keyKind struct {
	name string // of the key in [jwt.signing]
	env  string
	make func([]byte) (token.Key, error)
}

// keyKinds are in the order in which the environment is asked.
var keyKinds = [...]keyKind{
	{"token-rs256-pubkey-base64", envRS256Public, token.RS256Public},
	{"token-rs256-secret-base64", envRS256Secret, token.RS256Secret},
	{"token-hs256-secret-base64", envHS256, token.HS256},
}

// read returns the key in a base64 text. Errors don't quote it.
func (k keyKind) read(text string) (token.Key, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || strings.ContainsAny(text, "\r\n") {
		return token.Key{}, errors.New("not base64 (standard, padded, without line breaks)")
	}
	return k.make(raw)
}

// jwt reads how tokens are bound and finds their keys.
func (b *builder) jwt(s *Server) error {
	f := b.file.JWT
	if f == nil {
		f = new(fileJWT)
	}
	if f.Issuer != nil && *f.Issuer == "" {
		// Attic would bind to the empty issuer; dropping the bond would be worse.
		return b.wrong("jwt.token-bound-issuer", "it is empty; leave it out if tokens need no issuer")
	}
	if f.Issuer != nil {
		s.JWT.Issuer = *f.Issuer
	}
	s.JWT.Audiences = f.Audiences
	if err := b.presentKey(s, f); err != nil {
		return err
	}
	for _, key := range s.JWT.Keys {
		// Attic takes any, so a start must not fail for it.
		if n := len(key.Secret()); n > 0 && n < minRootKey {
			b.warnings = append(b.warnings, fmt.Sprintf("the token secret has %d bytes, so who has a token or the bucket can try out all that are likely: "+
				"replace it by the output of openssl rand -base64 48; docs/tokens.md says how", n))
		}
	}
	return b.previousKeys(s, f)
}

// presentKey finds the key that signs: in the file, else in the environment.
func (b *builder) presentKey(s *Server, f *fileJWT) error {
	switch {
	case b.file.OldHS256 != nil && f.Signing != nil:
		return b.wrong("token-hs256-secret-base64", "there is [jwt.signing] too: keep one of them")
	case b.file.OldHS256 != nil:
		b.warn("token-hs256-secret-base64", "its place is under [jwt.signing] now; it is still taken here")
		key, err := b.key("token-hs256-secret-base64", keyKinds[2], *b.file.OldHS256)
		s.JWT.Keys = []token.Key{key}
		return err
	case f.Signing != nil:
		key, err := b.signing("jwt.signing", f.Signing, "or leave the table out and set "+envHS256)
		s.JWT.Keys = []token.Key{key}
		return err
	}
	return b.envKey(s)
}

// maxPrevious bounds how many keys a token of nobody's is tried with.
const maxPrevious = 8

// previousKeys finds the keys that only verify: those of the file and those of the
// environment, for a secret that was in one may be followed by one in the other.
func (b *builder) previousKeys(s *Server, f *fileJWT) error {
	for i := range f.Previous {
		key, err := b.signing(fmt.Sprintf("jwt.previous[%d]", i), &f.Previous[i], "in each [[jwt.previous]]")
		if err != nil {
			return err
		}
		s.JWT.Previous = append(s.JWT.Previous, key.VerifyOnly())
	}
	for _, kind := range keyKinds {
		for _, text := range strings.Fields(b.getenv(kind.env + envPrevious)) {
			key, err := kind.read(text)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.env+envPrevious, err)
			}
			s.JWT.Previous = append(s.JWT.Previous, key.VerifyOnly())
		}
	}
	if n := len(s.JWT.Previous); n > maxPrevious {
		return fmt.Errorf("%s: %d previous keys of tokens: at most %d can be", b.at("jwt"), n, maxPrevious)
	}
	return nil
}

// signing reads a table that has one key.
func (b *builder) signing(at string, f *fileSigning, instead string) (token.Key, error) {
	var kind keyKind
	var text *string
	for i, value := range []*string{f.RS256Public, f.RS256Secret, f.HS256} {
		if value == nil {
			continue
		}
		if text != nil {
			return token.Key{}, b.wrong(at, "it has %s and %s: keep one of them", kind.name, keyKinds[i].name)
		}
		kind, text = keyKinds[i], value
	}
	if text == nil {
		return token.Key{}, b.wrong(at, "it has no key: want token-hs256-secret-base64, token-rs256-secret-base64 or token-rs256-pubkey-base64, %s", instead)
	}
	return b.key(at+"."+kind.name, kind, *text)
}

func (b *builder) key(at string, kind keyKind, text string) (token.Key, error) {
	key, err := kind.read(text)
	if err != nil {
		return key, b.wrong(at, "%w", err)
	}
	return key, nil
}

func (b *builder) envKey(s *Server) error {
	for _, kind := range keyKinds {
		text := strings.TrimSpace(b.getenv(kind.env))
		if text == "" {
			continue
		}
		key, err := kind.read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.env, err)
		}
		s.JWT.Keys = []token.Key{key}
		return nil
	}
	return nil
}

// minRootKey is the least that can wrap a root key, in bytes.
const minRootKey = 32

func (b *builder) rootKey(s *Server) error {
	text := strings.TrimSpace(b.getenv(envRootKey))
	if text == "" {
		return nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) < minRootKey {
		return fmt.Errorf("%s: want the base64 of at least %d random bytes, as from: openssl rand -base64 32", envRootKey, minRootKey)
	}
	s.RootKey = raw
	return nil
}

// oidc reads whose ID tokens may come.
func (b *builder) oidc(s *Server) error {
	f := b.file.OIDC
	if f == nil {
		f = new(fileOIDC)
	}
	if f.Audience != nil && *f.Audience == "" {
		return b.wrong("oidc.audience", "it is empty: any token of the issuer would do")
	}
	s.OIDC.Audience = strings.TrimSuffix(s.APIEndpoint, "/")
	if f.Audience != nil {
		s.OIDC.Audience = *f.Audience
	}
	if err := b.maxTTL(s, f); err != nil {
		return err
	}
	for i, issuer := range f.Issuers {
		key := fmt.Sprintf("oidc.issuer[%d]", i)
		if err := checkIssuer(issuer); err != nil {
			return b.wrong(key, "%w", err)
		}
		if slices.ContainsFunc(s.OIDC.Issuers, func(o Issuer) bool { return o.URL == issuer.URL }) {
			return b.wrong(key, "%s stands there twice", issuer.URL)
		}
		if issuer.JWKSFile != "" && !filepath.IsAbs(issuer.JWKSFile) && b.name != envConfig {
			issuer.JWKSFile = filepath.Join(filepath.Dir(b.name), issuer.JWKSFile)
		}
		kind, err := trust.ParseKind(issuer.Kind, issuer.URL)
		if err != nil {
			return b.wrong(key, "%w", err)
		}
		s.OIDC.Issuers = append(s.OIDC.Issuers, Issuer{URL: issuer.URL, Kind: kind, JWKSFile: issuer.JWKSFile, AllowInsecure: issuer.AllowInsecure})
	}
	if !slices.ContainsFunc(s.OIDC.Issuers, func(o Issuer) bool { return o.URL == trust.GitHub }) {
		s.OIDC.Issuers = append([]Issuer{{URL: trust.GitHub, Kind: trust.KindGitHub}}, s.OIDC.Issuers...)
	}
	return nil
}

func (b *builder) maxTTL(s *Server, f *fileOIDC) error {
	s.OIDC.MaxTTL = trust.MaxTTL
	if f.MaxTTL == nil {
		return nil
	}
	ttl, err := token.ParseDuration(*f.MaxTTL)
	if err != nil {
		return b.wrong("oidc.max-ttl", "%w", err)
	}
	if ttl < time.Second || ttl > trust.MaxTTL {
		return b.wrong("oidc.max-ttl", "%q: want 1s to %s", *f.MaxTTL, strings.TrimSuffix(trust.MaxTTL.String(), "0m0s"))
	}
	s.OIDC.MaxTTL = ttl
	return nil
}

func checkIssuer(i fileIssuer) error {
	u, err := url.Parse(i.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("url: %q is not the URL of an issuer, like https://gitlab.example.com", i.URL)
	case u.Scheme == "http" && !i.AllowInsecure:
		return fmt.Errorf("url: %q is not https; for a test, say allow-insecure = true", i.URL)
	}
	return nil
}

// trust checks the policies, so that check-config finds what would stop a server.
func (b *builder) trust(s *Server) error {
	s.Trust = b.file.Trust
	if len(s.Trust) == 0 {
		return nil
	}
	if _, err := s.OIDC.Kinds().Compile(s.Trust); err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	if s.OIDC.Audience == "" {
		return b.wrong("trust[0]", "a policy needs [oidc] audience, or api-endpoint, for ID tokens to name")
	}
	for i, p := range s.Trust {
		if !s.OIDC.Lists(p.Issuer) {
			return b.wrong(fmt.Sprintf("trust[%d].issuer", i), "no [[oidc.issuer]] has the url %q", p.Issuer)
		}
		for _, w := range trust.Warnings(p) {
			b.warn(fmt.Sprintf("trust[%d]", i), "%s", w)
		}
		if ttl, err := token.ParseDuration(p.TTL); err == nil && ttl > s.OIDC.MaxTTL {
			b.warn(fmt.Sprintf("trust[%d].ttl", i), "%q is longer than [oidc] max-ttl: tokens will live %s", p.TTL, s.OIDC.MaxTTL)
		}
	}
	return nil
}

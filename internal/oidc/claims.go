package oidc

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits on the times that a token carries.
const (
	Leeway      = time.Minute      // clocks may differ by this much
	maxAge      = 10 * time.Minute // since iat
	maxLifetime = time.Hour        // from iat to exp
)

// maxClaim bounds the claims that end up in records and logs.
const maxClaim = 1024

func (v *Verifier) checkClaims(iss string, claims map[string]any) (Token, error) {
	// A list of audiences means that somebody else was to accept the token as well, and
	// could pass it on to us. One string, and it is ours.
	aud, err := stringClaim(claims, "aud")
	if err != nil {
		return Token{}, err
	}
	if aud != v.audience {
		return Token{}, fmt.Errorf("aud is %s, ours is %q", quote(aud), v.audience)
	}
	if _, err := stringClaim(claims, "sub"); err != nil {
		return Token{}, err
	}
	id, err := stringClaim(claims, "jti")
	if err != nil {
		return Token{}, err
	}
	iat, exp, err := checkTimes(claims, v.now())
	if err != nil {
		return Token{}, err
	}
	return Token{Issuer: iss, ID: id, Claims: claims, Expires: exp, Issued: iat}, nil
}

func checkTimes(claims map[string]any, now time.Time) (iat, exp time.Time, err error) {
	exp, err = timeClaim(claims, "exp")
	if err != nil {
		return iat, exp, err
	}
	iat, err = timeClaim(claims, "iat")
	if err != nil {
		return iat, exp, err
	}
	if _, ok := claims["nbf"]; ok {
		nbf, err := timeClaim(claims, "nbf")
		if err != nil {
			return iat, exp, err
		}
		if now.Add(Leeway).Before(nbf) {
			return iat, exp, fmt.Errorf("nbf %s is in the future, it is %s", stamp(nbf), stamp(now))
		}
	}
	switch {
	case !now.Before(exp.Add(Leeway)):
		return iat, exp, fmt.Errorf("exp %s is past, it is %s", stamp(exp), stamp(now))
	case now.Add(Leeway).Before(iat):
		return iat, exp, fmt.Errorf("iat %s is in the future, it is %s", stamp(iat), stamp(now))
	case now.Sub(iat) > maxAge:
		return iat, exp, fmt.Errorf("iat %s is more than %s ago, it is %s", stamp(iat), maxAge, stamp(now))
	case !exp.After(iat):
		return iat, exp, errors.New("exp is not after iat")
	case exp.Sub(iat) > maxLifetime:
		return iat, exp, fmt.Errorf("token lives %s, at most %s are accepted", exp.Sub(iat), maxLifetime)
	}
	return iat, exp, nil
}

func stringClaim(claims map[string]any, name string) (string, error) {
	v, ok := claims[name]
	if !ok {
		return "", fmt.Errorf("claim %s is absent", name)
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("claim %s is not a string", name)
	}
	if s == "" || len(s) > maxClaim {
		return "", fmt.Errorf("claim %s has %d bytes, 1 to %d are accepted", name, len(s), maxClaim)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("claim %s holds a control character", name)
	}
	return s, nil
}

// timeClaim reads whole seconds. Fractions and exponents are legal in the standard and
// used by nobody; refusing them leaves no rounding to argue about.
func timeClaim(claims map[string]any, name string) (time.Time, error) {
	v, ok := claims[name]
	if !ok {
		return time.Time{}, fmt.Errorf("claim %s is absent", name)
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, fmt.Errorf("claim %s is not a number", name)
	}
	sec, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil || sec < 0 || sec > 1<<40 {
		return time.Time{}, fmt.Errorf("claim %s is not a time in whole seconds", name)
	}
	return time.Unix(sec, 0), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

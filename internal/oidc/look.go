package oidc

import (
	"fmt"
	"maps"
)

// ReadClaims reads the claims of a token in compact form and verifies nothing: for
// showing somebody their own token. Its form is as strict as Verify's.
func ReadClaims(raw string) (map[string]any, error) {
	jws, err := parseCompact(raw)
	if err != nil {
		return nil, err
	}
	return jws.claims, nil
}

// Look says what Verify would find wrong with claims, but for the signature and the key,
// which it does not look at. It never uses the network.
func (v *Verifier) Look(claims map[string]any) error {
	iss, err := stringClaim(claims, "iss")
	if err != nil {
		return err
	}
	is := v.issuers[iss]
	if is == nil {
		return fmt.Errorf("iss %s is not a listed issuer", quote(iss))
	}
	if _, ok := claims["jti"]; !ok && is.noID {
		claims = maps.Clone(claims)
		claims["jti"] = "none"
	}
	_, err = v.checkClaims(iss, claims)
	return err
}

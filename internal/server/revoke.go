package server

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
)

// auditRevoke is what the audit calls a token that its bearer gave up.
const auditRevoke = "token.revoke"

// maxRevoke bounds the form of a revocation, in bytes.
const maxRevoke = 16 << 10

// revokeToken is RFC 7009: whoever has a token may end it, as a job does with its own
// when it is done. Nobody learns anything by it: a token that is none, or is good no
// more, is answered like one that was ended just now.
func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Cache-Control", "no-store")
	jwt, err := tokenForm(r)
	if err != nil {
		return err
	}
	rec := recordOf(r)
	claims, bad, err := s.verify(r.Context(), jwt)
	switch {
	case err != nil:
		return err
	case bad != nil:
		if rec.caller = (caller{refused: bad, wait: s.countBad(r, rec, jwt, bad)}); rec.caller.wait > 0 {
			return tooMany(rec.caller.wait, "Too many bad tokens from this address.")
		}
	case claims.ID == "":
		return &statusError{status: http.StatusBadRequest, name: "unsupported_token_type", msg: "The token has no id, so it cannot be revoked."}
	default:
		rec.caller = caller{claims: claims}
		audited(r, auditRevoke, "")
		if err := s.Revoke(r.Context(), claims.ID); err != nil {
			return fmt.Errorf("revoke token: %w", err)
		}
	}
	send(w, http.StatusOK, "", nil)
	return nil
}

// tokenForm reads the token out of the body, once and from nowhere else: URLs end up
// in logs.
func tokenForm(r *http.Request) (string, error) {
	if r.URL.RawQuery != "" || len(r.Header.Values("Authorization")) > 0 {
		return "", requestError("the token belongs into the body alone")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return "", requestError("the body must be application/x-www-form-urlencoded")
	}
	if r.ContentLength > maxRevoke {
		return "", tooLargeJSON(maxRevoke)
	}
	body, err := readAtMost(r.Body, maxRevoke, r.ContentLength)
	if err != nil {
		return "", err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["token"]) != 1 {
		return "", requestError("the body must be a form with one token") // the error would quote it
	}
	return form.Get("token"), nil
}

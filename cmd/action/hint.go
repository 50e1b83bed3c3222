package main

import (
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/spool"
)

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// hint guesses what the user can do about err; empty when there is no guess.
func hint(err error) string {
	var se *client.StatusError
	var dns *net.DNSError
	var verify *tls.CertificateVerificationError
	text := err.Error()
	switch {
	case errors.As(err, &se):
		return statusHint(se)
	case errors.Is(err, client.ErrEndpoint):
		return "write the whole URL, as https://cache.example.org or http://localhost:8080"
	case errors.Is(err, errNoToken):
		return "use --token-file FILE or $ATTIC_TOKEN, or log in with: attic login NAME URL TOKEN"
	case errors.Is(err, errNoServer):
		return "use --server URL or $ATTIC_SERVER, or log in with: attic login NAME URL TOKEN"
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "the server speaks http:// there, not https://"
	case errors.As(err, &verify):
		return "the server's certificate is not trusted here; $SSL_CERT_FILE names further authorities"
	case errors.As(err, &dns):
		return "there is no such host; is the server's URL right?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there; is the server running, and is the port right?"
	case errors.Is(err, client.ErrStalled):
		return "the connection carried nothing for a minute; what is stored stays, run the same command again to go on"
	case errors.Is(err, spool.ErrFull), errors.Is(err, syscall.ENOSPC):
		return "packs wait in the directory for temporary files; $TMPDIR names another"
	case errors.Is(err, exec.ErrNotFound):
		return "nix is not in the PATH"
	case strings.Contains(text, "no valid path"), strings.Contains(text, "is not valid"):
		return "only paths that the Nix store holds as valid can be pushed; build or realise it first"
	}
	return ""
}

func statusHint(e *client.StatusError) string {
	if e.Location != nil {
		return "redirects are not followed, to keep the token where it was meant to go; use the URL of the new place"
	}
	if strings.Contains(e.Text, "HTTP request to an HTTPS server") {
		return "the server speaks https:// there, not http://"
	}
	switch {
	case e.API != nil && e.API.Name == api.MissingReferences && strings.Contains(e.URL.Path, "/pins/"):
		return "push it whole first: attic-action push CACHE PATH"
	case e.Status == http.StatusForbidden && e.Method != http.MethodGet && strings.Contains(e.URL.Path, "/pins/"):
		return "the token needs the right to pin that name: pins = [\"owner/repo/*\"] in the trust policy, or attic-server make-token --pin"
	case e.Status == http.StatusUnauthorized:
		return "the token is missing, expired or not of this server; --token-file, $ATTIC_TOKEN or attic login give one"
	case e.Status == http.StatusForbidden && e.Method == http.MethodGet:
		return "the token needs the right to pull from this cache (attic-server make-token --pull)"
	case e.Status == http.StatusForbidden:
		return "the token needs the right to push to this cache (attic-server make-token --push)"
	case e.API != nil && e.API.Name == api.NoSuchCache:
		return "check the name, or create it with: attic cache create NAME"
	case e.Status == http.StatusNotFound && e.API == nil:
		return "is this the URL of a cache server? A path in it must be complete"
	case e.Status == http.StatusInsufficientStorage:
		return "the server's disk is full"
	case e.Status == http.StatusRequestEntityTooLarge:
		return "a proxy in between refuses large requests"
	}
	return ""
}

package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// parseIssuer checks what an issuer may look like, so that discovery has one URL.
func parseIssuer(is Issuer) (*url.URL, error) {
	u, err := url.Parse(is.URL)
	if err != nil {
		return nil, errors.New("is not a URL")
	}
	switch {
	case u.Scheme != "https" && !(u.Scheme == "http" && is.AllowInsecure):
		return nil, errors.New("must begin with https:// (allow-insecure = true is for tests)")
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must be a host and a path, without user, query or fragment")
	case len(is.URL) > 512:
		return nil, errors.New("is longer than 512 bytes")
	}
	return u, nil
}

// fetch reads the discovery document and the key set that it names.
func (r *remoteKeys) fetch(ctx context.Context) (keySet, error) {
	doc, err := r.get(ctx, strings.TrimSuffix(r.issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	meta, err := parseObject(doc)
	if err != nil {
		return nil, fmt.Errorf("discovery document %w", err)
	}
	if meta["issuer"] != r.issuer {
		return nil, errors.New("discovery document is another issuer's")
	}
	uri, _ := meta["jwks_uri"].(string)
	if err := r.checkKeysURI(uri); err != nil {
		return nil, err
	}
	doc, err = r.get(ctx, uri)
	if err != nil {
		return nil, err
	}
	return parseKeys(doc)
}

// checkKeysURI keeps the second request where the first one went. A document that sends
// us elsewhere would make this server knock on doors of its choice.
func (r *remoteKeys) checkKeysURI(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || uri == "" {
		return errors.New("discovery document has no jwks_uri")
	}
	if u.Scheme != r.base.Scheme || u.Host != r.base.Host || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("jwks_uri %s is not on the issuer's scheme, host and port", quote(uri))
	}
	return nil
}

// get reads one document of bounded size. Redirects are not followed, see newClient.
func (r *remoteKeys) get(ctx context.Context, uri string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", quote(uri), err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err // a *url.Error, which names method and URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: answered %d", quote(uri), resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", quote(uri), err)
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("get %s: answer is larger than %d bytes", quote(uri), maxDocument)
	}
	return b, nil
}

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/admin"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/token"
)

// permFlags are atticadm's flags in the order in which their patterns enter
// the token. The order matters: the first pattern that matches decides.
var permFlags = []struct {
	name string
	perm token.Perm
	what string
}{
	{"pull", token.Pull, "read"},
	{"push", token.Push, "upload"},
	{"delete", token.Delete, "delete paths"},
	{"create-cache", token.CreateCache, "create the cache"},
	{"configure-cache", token.ConfigureCache, "change the cache's settings"},
	{"configure-cache-retention", token.ConfigureCacheRetention, "change how long paths are kept"},
	{"destroy-cache", token.DestroyCache, "destroy the cache"},
}

// tokenRequest is the command line of make-token.
type tokenRequest struct {
	sub, validity string
	pins          []string
	dump          bool
	patterns      [][]string // beside permFlags
}

func (p *program) makeToken() *cobra.Command {
	req := &tokenRequest{patterns: make([][]string, len(permFlags))}
	cmd := &cobra.Command{
		Use:   "make-token --sub SUBJECT --validity DURATION [--pull PATTERN]...",
		Short: "Print an access token", Args: noArgs,
		Long: `Print an access token, on stdout and nothing else there. It is signed with the token
secret and good at once, whether or not a server runs; one that runs, or its database,
lists it for "token list" and "token revoke".

A PATTERN is the name of a cache, with * for any letters. Of the patterns that match a
name the first one decides, in the order of the flags below.`,
		Example: "  attic-server make-token --sub laptop --validity 1y --pull system --push system",
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.printToken(cmd.Context(), req) },
	}
	f := cmd.Flags()
	f.StringVar(&req.sub, "sub", "", "who the token is for")
	f.StringVar(&req.validity, "validity", "", `how long it is good, such as "1y" or "2 weeks"`)
	f.BoolVar(&req.dump, "dump-claims", false, "print the claims in place of the token")
	for i, pf := range permFlags {
		f.StringArrayVar(&req.patterns[i], pf.name, nil, "may "+pf.what+" where the cache's name matches; may be repeated")
	}
	f.StringArrayVar(&req.pins, "pin", nil, "may set pins whose names match, in the caches of --pull and --push; may be repeated")
	return cmd
}

// claims checks the command line. All that is wrong with it is a usage error.
func (r *tokenRequest) claims(now time.Time) (token.Claims, error) {
	var c token.Claims
	if r.sub == "" || r.validity == "" {
		return c, usageError{errors.New("make-token needs --sub and --validity")}
	}
	validity, err := token.ParseDuration(r.validity)
	if err != nil {
		return c, usageError{fmt.Errorf("--validity: %w", err)}
	}
	exp := now.Add(validity)
	c = token.Claims{Subject: r.sub, Expires: &exp, NotBefore: &now, Pins: r.pins}
	for _, pattern := range r.pins {
		if !token.ValidPin(pattern) {
			return c, usageError{fmt.Errorf("--pin %.40q: want a pattern of names, such as acme/infra/*", pattern)}
		}
	}
	for i, pf := range permFlags {
		for _, pattern := range r.patterns[i] {
			if err := c.Caches.Add(pattern, pf.perm); err != nil {
				return c, usageError{fmt.Errorf("--%s: %w", pf.name, err)}
			}
		}
	}
	return c, nil
}

func (p *program) printToken(ctx context.Context, req *tokenRequest) error {
	now := time.Now()
	claims, err := req.claims(now)
	if err != nil {
		return err
	}
	cfg, err := p.load()
	if err != nil {
		return err
	}
	if err := ensureSecret(cfg); err != nil {
		return err
	}
	req.warn(p)
	if req.dump {
		line, err := claims.Dump()
		if err != nil {
			return fmt.Errorf("print claims: %w", err)
		}
		_, err = fmt.Fprintf(p.stdout, "%s\n", line)
		return err
	}
	var id [16]byte
	rand.Read(id[:])                      // never fails: crypto/rand ends the program instead
	claims.ID = hex.EncodeToString(id[:]) // what a revocation names
	jwt, err := authority(cfg).Sign(claims)
	if err != nil {
		return fmt.Errorf("make token: %w", err)
	}
	if err := p.listToken(ctx, cfg, claims); err != nil {
		fmt.Fprintf(p.stderr, "attic-server: warning: the token is not listed, so only its id %s revokes it: %s\n", claims.ID, oneLine(err.Error()))
	}
	_, err = fmt.Fprintln(p.stdout, jwt)
	return err
}

// listToken has the token listed by the server that runs, or in the database that
// is here. A token that cannot be listed is as good as any other: its maker has the
// secret and needs no database.
func (p *program) listToken(ctx context.Context, cfg *config.Server, c token.Claims) error {
	if _, err := os.Stat(cfg.Database.File); err != nil {
		if client, err := admin.Dial(ctx, adminSocket(cfg)); err == nil { // of a server without a file
			return issueBy(ctx, client, c)
		}
		return fmt.Errorf("there is no database at %s", cfg.Database.File)
	}
	client, done, err := p.connectTo(ctx, cfg)
	if err != nil {
		return err
	}
	return errors.Join(issueBy(ctx, client, c), done())
}

func issueBy(ctx context.Context, client *admin.Client, c token.Claims) error {
	_, err := admin.Call[struct{}](ctx, client, "token/issue", tokenRow{
		ID: c.ID, Subject: c.Subject, Caches: issued.Caches(c.Caches), Issued: *c.NotBefore, Expires: *c.Expires,
	})
	return err
}

// warn tells of patterns that never decide: the first pattern that matches a
// name does, so --pull '*' --push 'dev-*' gives no right to push to dev-x.
func (r *tokenRequest) warn(p *program) {
	var before []string
	for i := range permFlags {
		for _, pattern := range r.patterns[i] {
			for _, first := range before {
				if first != pattern && strings.Contains(pattern, "*") && covers(first, pattern) {
					fmt.Fprintf(p.stderr, "warning: --%s %s has no effect: the first pattern that matches a name decides, and %s comes before it\n",
						permFlags[i].name, pattern, first)
					break
				}
			}
			before = append(before, pattern)
		}
	}
}

// covers tells whether every name that b matches is matched by a, which has
// one star at its end.
func covers(a, b string) bool {
	prefix, isPrefix := strings.CutSuffix(a, "*")
	return isPrefix && !strings.Contains(prefix, "*") && strings.HasPrefix(b, prefix)
}

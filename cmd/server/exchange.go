package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/org/attic-action/internal/api"
	"github.com/org/attic-action/internal/config"
	"github.com/org/attic-action/internal/exchange"
	"github.com/org/attic-action/internal/issued"
	"github.com/org/attic-action/internal/oidc"
	"github.com/org/attic-action/internal/server"
	"github.com/org/attic-action/internal/trust"
)

// mountExchange adds the routes that trade ID tokens for access tokens, where
// an audience is known: without one, a token meant for another server would do.
func mountExchange(st *stack, cfg *config.Server) error {
	s := st.server
	if cfg.OIDC.Audience == "" {
		return nil
	}
	verifier, err := newVerifier(cfg, s.Log)
	if err != nil {
		return fmt.Errorf("set up oidc: %w", err)
	}
	endpoint := cfg.APIEndpoint
	if endpoint == "" {
		endpoint = cfg.OIDC.Audience + "/"
	}
	url, err := api.URL(endpoint, api.OIDCTokenRoute)
	if err != nil {
		return fmt.Errorf("set up oidc: %w", err)
	}
	revoke, err := api.URL(endpoint, api.OIDCRevokeRoute)
	if err != nil {
		return fmt.Errorf("set up oidc: %w", err)
	}
	x := &exchange.Exchange{
		Verifier: verifier, Policies: st.policies.Set, Authority: s.Auth, Endpoint: url, RevocationEndpoint: revoke,
		Book: book(st.issued), Since: st.recovered, MaxTTL: cfg.OIDC.MaxTTL, RequestID: server.RequestID, Log: s.Log,
		Address: cfg.Peers.Address, Limits: exchangeLimits(cfg.Limits), Audit: st.audit.Write,
	}
	s.TrustConfig, s.TokenExchange = x.ConfigHandler(), x.TokenHandler()
	return nil
}

// newVerifier makes what judges ID tokens.
func newVerifier(cfg *config.Server, log *slog.Logger) (*oidc.Verifier, error) {
	issuers := make([]oidc.Issuer, len(cfg.OIDC.Issuers))
	for i, is := range cfg.OIDC.Issuers {
		issuers[i] = oidc.Issuer{URL: is.URL, JWKSFile: is.JWKSFile, AllowInsecure: is.AllowInsecure, NoID: is.Kind == trust.KindBuildkite}
	}
	return oidc.New(oidc.Config{Issuers: issuers, Audience: cfg.OIDC.Audience, Log: log})
}

// book keeps used ID tokens and the tokens that were given for them in the database.
func book(register *issued.Register) func(context.Context, exchange.Trade) error {
	return func(ctx context.Context, t exchange.Trade) error {
		err := register.Trade(ctx, issued.Used{Issuer: t.Issuer, ID: t.ID, Until: t.Until}, t.Claims, t.Policies)
		if errors.Is(err, issued.ErrUsed) {
			return exchange.ErrReplayed
		}
		return err
	}
}

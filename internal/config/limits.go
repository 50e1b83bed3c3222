package config

import (
	"net/netip"
	"path/filepath"

	"github.com/org/attic-action/internal/peer"
)

// Limits say how often something may happen. 0 means no limit.
type Limits struct {
	BadTokens         int // that did not verify: a minute, from one address
	Exchanges         int // a minute, from one address
	RefusedExchanges  int // a minute, from one address
	ExchangesOfPolicy int // granted: a minute, by one policy
	Uploads           int // requests of a push: a second, with one token
	UploadsOfAddress  int // requests of a push: a second, from one address
}

// DefaultLimits are far above what a CI of a thousand jobs does, and below what
// hurts a small machine. Uploads over theirs wait before they are refused. Bad
// tokens count from the third hundred on: what a server answers to them is part of the
// protocol, and a run that tries it out makes some two hundred requests.
var DefaultLimits = Limits{
	BadTokens: 300, Exchanges: 600, RefusedExchanges: 10, ExchangesOfPolicy: 600, Uploads: 200, UploadsOfAddress: 500,
}

// Audit says where the record of who did what is kept.
type Audit struct {
	File    string // empty: there is no place for one
	MaxSize int64  // bytes, before the next file is begun
	Keep    int    // older files that stay
}

const (
	defaultAuditSize = 16 << 20
	defaultAuditKeep = 8
	auditName        = "audit.log"
)

type fileLimits struct {
	BadTokens         *int64 `toml:"bad-tokens"`
	Exchanges         *int64 `toml:"exchanges"`
	RefusedExchanges  *int64 `toml:"refused-exchanges"`
	ExchangesOfPolicy *int64 `toml:"exchanges-of-policy"`
	Uploads           *int64 `toml:"uploads"`
	UploadsOfAddress  *int64 `toml:"uploads-of-address"`
}

type fileAudit struct {
	File    *string `toml:"file"`
	MaxSize *int64  `toml:"max-size"`
	Keep    *int64  `toml:"keep"`
}

// peers reads whose word counts for where a request comes from.
func (b *builder) peers(s *Server) error {
	if b.file.TrustedProxies == nil {
		if b.onFly() {
			s.Peers.Header = peer.FlyHeader
		}
		return nil
	}
	s.Peers.Proxies = []netip.Prefix{}
	for _, text := range b.file.TrustedProxies {
		p, err := peer.ParseProxy(text)
		if err != nil {
			return b.wrong("trusted-proxies", "%w", err)
		}
		s.Peers.Proxies = append(s.Peers.Proxies, p)
	}
	return nil
}

func (b *builder) limits(s *Server) error {
	s.Limits = DefaultLimits
	f := b.file.Limits
	if f == nil {
		return nil
	}
	const most = 1_000_000 // what is more is no limit, and easily a slip
	for _, k := range []struct {
		name string
		from *int64
		to   *int
	}{
		{"bad-tokens", f.BadTokens, &s.Limits.BadTokens},
		{"exchanges", f.Exchanges, &s.Limits.Exchanges},
		{"refused-exchanges", f.RefusedExchanges, &s.Limits.RefusedExchanges},
		{"exchanges-of-policy", f.ExchangesOfPolicy, &s.Limits.ExchangesOfPolicy},
		{"uploads", f.Uploads, &s.Limits.Uploads},
		{"uploads-of-address", f.UploadsOfAddress, &s.Limits.UploadsOfAddress},
	} {
		if k.from == nil {
			continue
		}
		if *k.from < 0 || *k.from > most {
			return b.wrong("limits."+k.name, "%d: want a number up to %d; 0 is no limit", *k.from, most)
		}
		*k.to = int(*k.from)
	}
	return nil
}

func (b *builder) audit(s *Server) error {
	f := b.file.Audit
	if f == nil {
		f = new(fileAudit)
	}
	s.Audit = Audit{MaxSize: defaultAuditSize, Keep: defaultAuditKeep}
	if s.Data != "" {
		s.Audit.File = filepath.Join(s.Data, auditName)
	}
	if f.File != nil {
		if !filepath.IsAbs(*f.File) {
			return b.wrong("audit.file", "%q is not an absolute path", *f.File)
		}
		s.Audit.File = *f.File
	}
	if n := f.MaxSize; n != nil {
		if *n < 64<<10 || *n > 1<<40 {
			return b.wrong("audit.max-size", "%d: want the bytes of one file, at least %d", *n, 64<<10)
		}
		s.Audit.MaxSize = *n
	}
	if n := f.Keep; n != nil {
		if *n < 1 || *n > 10_000 {
			return b.wrong("audit.keep", "%d: want a number of files from 1 to 10000", *n)
		}
		s.Audit.Keep = int(*n)
	}
	return nil
}

package exchange

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bad tokens that one address may send: a burst, then one each refill. A matrix of jobs
// with a wrong policy stays near it, guessing does not. Good tokens are not counted:
// many runners share an address.
const (
	floodBurst     = 10
	floodRefill    = 6 * time.Second
	floodAddresses = 4096
)

// floods counts refused tokens by address. The zero value is ready.
type floods struct {
	mu   sync.Mutex
	from map[string]*rate.Limiter
}

// wait returns how long this address has to wait before it is served, zero if it may
// go on. An address that keeps asking meanwhile does not lengthen its wait.
func (f *floods) wait(address string, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.from[floodKey(address)]
	if l == nil {
		return 0
	}
	if missing := 1 - l.TokensAt(now); missing > 0 {
		return time.Duration(missing * float64(floodRefill))
	}
	return 0
}

// count notes a refused token.
func (f *floods) count(address string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := floodKey(address)
	l := f.from[key]
	if l == nil {
		if f.from == nil {
			f.from = make(map[string]*rate.Limiter)
		}
		f.makeRoom(now)
		l = rate.NewLimiter(rate.Every(floodRefill), floodBurst)
		f.from[key] = l
	}
	l.AllowN(now, 1)
}

// makeRoom keeps the map within its bound: out of a few addresses, picked by the map's
// own random order, the one that has misbehaved least is forgotten.
func (f *floods) makeRoom(now time.Time) {
	if len(f.from) < floodAddresses {
		return
	}
	var least string
	most, looked := -1.0, 0
	for key, l := range f.from {
		if n := l.TokensAt(now); n > most {
			least, most = key, n
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(f.from, least)
}

// floodKey is the address, of IPv6 the /64: whoever has one such address has them all.
func floodKey(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	if a = a.Unmap(); a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}

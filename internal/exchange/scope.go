package exchange

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/token"
	"github.com/org/attic-action/internal/trust"
)

// maxScopes bounds the items of a scope.
const maxScopes = 64

// item is what is asked for, or granted, in one cache.
type item struct {
	cache string // a name, or a pattern out of a policy
	perm  token.Perm
}

// parseScope reads "cache:NAME:PERMISSION …" and gathers the permissions by cache, in
// the order in which caches are first named.
func parseScope(scope string) ([]item, error) {
	if scope == "" {
		return nil, nil
	}
	parts := strings.Split(scope, " ")
	if len(parts) > maxScopes {
		return nil, fmt.Errorf("scope has %d items, at most %d are accepted", len(parts), maxScopes)
	}
	var items []item
	for _, p := range parts {
		kind, rest, _ := strings.Cut(p, ":")
		name, permName, _ := strings.Cut(rest, ":")
		perm, err := token.ParsePerm(permName)
		if kind != "cache" || err != nil || token.ParsePattern(name) != nil {
			return nil, fmt.Errorf("scope item %s is not cache:NAME:PERMISSION", quote(p))
		}
		items = add(items, name, perm)
	}
	return items, nil
}

func add(items []item, cache string, perm token.Perm) []item {
	i := slices.IndexFunc(items, func(it item) bool { return it.cache == cache })
	if i < 0 {
		return append(items, item{cache, perm})
	}
	items[i].perm |= perm
	return items
}

// choice is what a token will hold.
type choice struct {
	entries  []item
	pins     []string
	ttl      time.Duration
	policies []string
}

func (c choice) scope() string {
	var parts []string
	for _, it := range c.entries {
		for _, name := range strings.Split(it.perm.String(), ",") {
			parts = append(parts, "cache:"+it.cache+":"+name)
		}
	}
	return strings.Join(parts, " ")
}

// choose picks what the token gets out of the matching policies' grants. Grants are not
// united: without a scope exactly one policy may match, and with one, each cache that is
// named gets the grant of a single policy. The order of policies does not matter.
func choose(grants []trust.Grant, wanted []item) (choice, *Refusal) {
	if wanted == nil {
		if len(grants) > 1 {
			return choice{}, refuse(codeScope, "name a scope: several policies match", fmt.Errorf("policies %s match, and no scope was named", policyNames(grants)))
		}
		return everything(grants[0]), nil
	}
	var c choice
	var used []trust.Grant
	for _, w := range wanted {
		g, perm := best(grants, w)
		if perm == 0 {
			continue // not granted: left out, and the answer's scope says so
		}
		c.entries = append(c.entries, item{w.cache, perm})
		if !slices.ContainsFunc(used, func(u trust.Grant) bool { return u.Policy == g.Policy }) {
			used = append(used, g)
		}
	}
	if len(used) == 0 {
		return choice{}, refuse(codeScope, "nothing of this scope is granted", fmt.Errorf("policies %s match, and grant nothing of scope %s", policyNames(grants), quote(choice{entries: wanted}.scope())))
	}
	c.ttl = used[0].TTL
	for _, g := range used {
		c.ttl = min(c.ttl, g.TTL)
		c.policies = append(c.policies, g.Policy)
	}
	c.pins = commonPins(used)
	return c, nil
}

func everything(g trust.Grant) choice {
	c := choice{pins: g.Pins, ttl: g.TTL, policies: []string{g.Policy}}
	for _, cache := range g.Caches {
		c.entries = add(c.entries, cache, g.Perm)
	}
	return c
}

// best returns the policy that grants most of what is wanted in one cache, and how much;
// of equals the one with the shorter life, then the one first by name.
func best(grants []trust.Grant, w item) (trust.Grant, token.Perm) {
	var candidates []trust.Grant
	for _, g := range grants {
		if covers(g, w.cache) && g.Perm&w.perm != 0 {
			candidates = append(candidates, g)
		}
	}
	if len(candidates) == 0 {
		return trust.Grant{}, 0
	}
	g := slices.MinFunc(candidates, func(a, b trust.Grant) int {
		return cmp.Or(
			cmp.Compare(bits.OnesCount8(uint8(b.Perm&w.perm)), bits.OnesCount8(uint8(a.Perm&w.perm))),
			cmp.Compare(a.TTL, b.TTL),
			cmp.Compare(a.Policy, b.Policy),
		)
	})
	return g, g.Perm & w.perm
}

// covers reports whether the policy grants this cache. A pattern is covered by itself
// alone: whether one pattern lies within another is a question we need not answer.
func covers(g trust.Grant, cache string) bool {
	if slices.Contains(g.Caches, cache) {
		return true
	}
	if !token.ValidCacheName(cache) {
		return false
	}
	for _, pattern := range g.Caches {
		var one token.Grants
		if one.Add(pattern, g.Perm) == nil && one.For(cache) != 0 {
			return true
		}
	}
	return false
}

// commonPins are the pins that every policy used allows. A token's pins hold in all of
// its caches, so uniting them would let one policy's pins into another one's cache.
func commonPins(used []trust.Grant) []string {
	pins := slices.Clone(used[0].Pins)
	for _, g := range used[1:] {
		pins = slices.DeleteFunc(pins, func(p string) bool { return !slices.Contains(g.Pins, p) })
	}
	return pins
}

func policyNames(grants []trust.Grant) string {
	names := make([]string, len(grants))
	for i, g := range grants {
		names[i] = g.Policy
	}
	return strings.Join(names, ", ")
}

// noPolicy is the reason why nothing is granted: what each policy missed.
func noPolicy(why []trust.Explanation) error {
	if len(why) == 0 {
		return errors.New("there are no trust policies")
	}
	const most = 20
	var parts []string
	for i, w := range why {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(why)-most))
			break
		}
		parts = append(parts, fmt.Sprintf("policy %s: %s", w.Policy, w.Reason))
	}
	return errors.New("no trust policy matches: " + strings.Join(parts, "; "))
}

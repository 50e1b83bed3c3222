package trust

import "strings"

// MayPin reports whether one of the patterns of a token or policy allows the name of
// a pin: all of it, from its first byte to its last. * stops at '/' and ** does not;
// a * that is all of the last part covers whatever is below, so that acme/infra/*
// allows acme/infra/main/web, and not acme/infrared/main/web.
func MayPin(patterns []string, name string) bool {
	for _, p := range patterns {
		if p == "*" || strings.HasSuffix(p, "/*") {
			p += "*"
		}
		if matchGlob(p, name) {
			return true
		}
	}
	return false
}

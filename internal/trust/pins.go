package trust

import (
	"errors"
	"strings"
)

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

// CheckPinPattern says what is wrong with a pattern of pin names, as the end of a sentence that begins with it. Unlike
// one that grants a right, it may be for all names.
func CheckPinPattern(pattern string) error {
	rest := strings.TrimLeft(pattern, "*")
	if len(rest) < len(pattern) {
		rest = strings.TrimPrefix(rest, "/")
	}
	text := checkPin(rest)
	if pattern == "*" || pattern == "**" {
		text = ""
	}
	if text != "" {
		return errors.New(text)
	}
	if strings.Contains(pattern, "*") {
		return checkGlob(pattern)
	}
	return nil
}

package nixconf

import (
	"fmt"
	"net/url"
	"strings"
)

// Netrc is the text of a netrc file that shows token to the host of a substituter's URL, in front of rest, the file
// that Nix would read otherwise: there can be only one, and its first entry for a host counts. A token that is no
// single word is an error, without the token in it.
func Netrc(substituter, token string, rest []byte) ([]byte, error) {
	u, err := url.Parse(substituter)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), " \t\r\n\"\\") {
		return nil, fmt.Errorf("%.200q is not the URL of a substituter", substituter)
	}
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '#' }) {
		return nil, fmt.Errorf("the token for %s can't stand in a netrc file: it is not one word", u.Hostname())
	}
	// The name is not looked at; old versions of curl want one.
	text := entry(u.Hostname()) + token + "\n"
	if len(rest) > 0 {
		text += "\n" + strings.TrimRight(string(rest), "\n") + "\n"
	}
	return []byte(text), nil
}

// entry is what Netrc writes for a host, up to the token.
func entry(host string) string { return "machine " + host + "\nlogin attic-action\npassword " }

// WithoutNetrc is text, a netrc file, without the entry that Netrc wrote for the host of a substituter's URL. Entries that
// somebody else wrote stay.
func WithoutNetrc(text []byte, substituter string) []byte {
	u, err := url.Parse(substituter)
	if err != nil {
		return text
	}
	all := "\n" + string(text)
	before, rest, ours := strings.Cut(all, "\n"+entry(u.Hostname()))
	if !ours {
		return text
	}
	_, rest, _ = strings.Cut(rest, "\n") // the token
	return []byte(strings.TrimPrefix(before+"\n"+strings.TrimPrefix(rest, "\n"), "\n"))
}

// HasMachine reports whether text, a netrc file, has an entry for the host of a substituter's URL.
func HasMachine(text []byte, substituter string) bool {
	u, err := url.Parse(substituter)
	words := strings.Fields(string(text))
	for i := range words[:max(len(words)-1, 0)] {
		if err == nil && words[i] == "machine" && words[i+1] == u.Hostname() {
			return true
		}
	}
	return false
}

// SameHost reports whether one entry of a netrc file is for both substituters.
func SameHost(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	return errA == nil && errB == nil && ua.Hostname() == ub.Hostname()
}

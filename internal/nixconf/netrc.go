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
	text := "machine " + u.Hostname() + "\nlogin attic-action\npassword " + token + "\n"
	if len(rest) > 0 {
		text += "\n" + strings.TrimRight(string(rest), "\n") + "\n"
	}
	return []byte(text), nil
}

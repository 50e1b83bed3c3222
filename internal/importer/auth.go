package importer

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
)

// Bearer is the header Authorization for a token, as the stock client and ours send it.
func Bearer(text []byte) (string, error) {
	tok := strings.TrimSpace(string(text))
	if tok == "" || strings.ContainsFunc(tok, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("there is no token in it, one word on a line")
	}
	return "Bearer " + tok, nil
}

// FromNetrc is the header Authorization that Nix would send to a source with such a netrc file; empty: the file has
// nothing for the host.
func FromNetrc(text []byte, u *url.URL) string {
	var login, password string
	found := false
	words := strings.Fields(string(text))
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch words[i] {
		case "machine", "default":
			if found {
				return basic(login, password)
			}
			if found = words[i] == "default" || value == u.Hostname(); words[i] == "machine" {
				i++
			}
			login, password = "", ""
		case "login":
			login, i = value, i+1
		case "password":
			password, i = value, i+1
		case "account":
			i++
		}
	}
	if !found {
		return ""
	}
	return basic(login, password)
}

func basic(login, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(login+":"+password))
}

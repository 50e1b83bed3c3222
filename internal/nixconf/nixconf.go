// Package nixconf writes what makes Nix pull from a cache: lines of nix.conf, a NixOS module of the same, and a netrc where
// the cache is private. It touches no files: texts in, texts out.
//
// Nix reads, each over what came before:
//
//	/etc/nix/nix.conf                  the machine's
//	$NIX_USER_CONF_FILES               the user's, the first of them last; unset: nix.conf in the XDG folders
//	$NIX_CONFIG                        text
//
// A plain "substituters = …" in a later place drops what earlier ones added with "extra-substituters", so whoever adds a
// cache does it in front of the user's files, and again behind a NIX_CONFIG that Overrides.
package nixconf

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/org/attic-action/internal/nix"
)

// Cache is a binary cache as nix.conf names it.
type Cache struct {
	URL   string   // of the substituter
	Keys  []string // public ones, "name:base64"
	Netrc string   // absolute path of a file with the cache's token; empty for a public cache
}

// Lines are the lines of nix.conf that add the cache to what is configured already. What could be more than a value
// there, such as a key with a line break, is an error: key and URL are what a server answered.
func (c Cache) Lines() (string, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" || !isWord(c.URL) {
		return "", fmt.Errorf("%.200q is not the URL of a substituter", c.URL)
	}
	if len(c.Keys) == 0 {
		return "", errors.New("the cache has no public key")
	}
	for _, key := range c.Keys {
		if _, err := nix.ParsePublicKey(key); err != nil || !isWord(key) {
			return "", fmt.Errorf("%.200q is not a public key", key)
		}
	}
	text := "extra-substituters = " + c.URL + "\nextra-trusted-public-keys = " + strings.Join(c.Keys, " ") + "\n"
	if c.Netrc != "" {
		if !filepath.IsAbs(c.Netrc) || !isPath(c.Netrc) {
			return "", fmt.Errorf("nix.conf can't name the netrc file %.200q", c.Netrc)
		}
		text += "netrc-file = " + c.Netrc + "\n"
	}
	return text, nil
}

// isWord reports whether nix.conf takes s for one word of a list.
func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c == '#' || unicode.IsSpace(c) || unicode.IsControl(c) })
}

// isPath reports whether nix.conf takes s for a value: words are joined again by one blank, and # begins a comment.
func isPath(s string) bool {
	return s == strings.Join(strings.Fields(s), " ") && !strings.ContainsFunc(s, func(c rune) bool { return c == '#' || unicode.IsControl(c) })
}

// overriding are the settings, by all their names, that drop what an earlier "extra-" one added.
var overriding = []string{"substituters", "binary-caches", "trusted-public-keys", "binary-cache-public-keys", "netrc-file"}

// Overrides reports whether text, such as $NIX_CONFIG, assigns one of the settings of Lines anew.
func Overrides(text string) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) >= 2 && f[1] == "=" && slices.Contains(overriding, f[0]) {
			return true
		}
	}
	return false
}

// UserFiles are the files that Nix reads as the user's configuration, the one that wins first. home is the user's folder.
func UserFiles(getenv func(string) string, home string) []string {
	if list := getenv("NIX_USER_CONF_FILES"); list != "" {
		return splitList(list)
	}
	var files []string
	switch nixDir, configDir := getenv("NIX_CONFIG_HOME"), getenv("XDG_CONFIG_HOME"); {
	case nixDir != "":
		files = append(files, filepath.Join(nixDir, "nix.conf"))
	case configDir != "":
		files = append(files, filepath.Join(configDir, "nix", "nix.conf"))
	case home != "":
		files = append(files, filepath.Join(home, ".config", "nix", "nix.conf"))
	}
	dirs := getenv("XDG_CONFIG_DIRS")
	if dirs == "" {
		dirs = "/etc/xdg"
	}
	for _, dir := range splitList(dirs) {
		files = append(files, filepath.Join(dir, "nix", "nix.conf"))
	}
	return files
}

func splitList(list string) []string {
	return slices.DeleteFunc(strings.Split(list, ":"), func(s string) bool { return s == "" })
}

package config

import (
	"strings"
	"testing"
)

func TestHowABucketIsRead(t *testing.T) {
	const table = "[storage]\ntype = \"s3\"\nregion = \"r\"\nbucket = \"b\"\n"
	for _, c := range []struct {
		text     string
		env      []string
		redirect string
		cache    int64
	}{
		{"", nil, RedirectAuto, CacheAuto},
		{"redirect = \"never\"\ncache-bytes = 0\n", nil, RedirectNever, 0},
		{"redirect = \"auto\"\ncache-bytes = 16777216\n", nil, RedirectAuto, 16 << 20},
		{"redirect = \"always\"\ncache-bytes = 16777216\n", nil, RedirectAlways, 16 << 20},
		{"", []string{envRedirect, "never\n", envCacheBytes, "1073741824"}, RedirectNever, 1 << 30},
		{"redirect = \"auto\"\ncache-bytes = 0\n", []string{envRedirect, "never", envCacheBytes, "1073741824"}, RedirectAuto, 0},
	} {
		s, err := load(t, table+c.text, env(c.env...))
		if err != nil || len(s.Warnings) > 0 {
			t.Errorf("%q %q: %v %v", c.text, c.env, err, s)
			continue
		}
		if s.Storage.Redirect != c.redirect || s.Storage.CacheBytes != c.cache {
			t.Errorf("%q %q: got %s %d", c.text, c.env, s.Storage.Redirect, s.Storage.CacheBytes)
		}
	}
	for _, c := range []struct {
		text string
		env  []string
		want string
	}{
		{"redirect = \"sometimes\"\n", nil, `server.toml:5: key storage.redirect: "sometimes": want "auto", "always" or "never"`},
		{"redirect = true\n", nil, "server.toml:5: key storage.redirect: want"},
		{"cache-bytes = 1000\n", nil, "server.toml:5: key storage.cache-bytes: 1000: want a number of bytes from 16777216 on, or 0 for no cache"},
		{"cache-bytes = -1\n", nil, "server.toml:5: key storage.cache-bytes: -1: want"},
		{"", []string{envRedirect, "yes"}, envRedirect + `: "yes": want`},
		{"", []string{envCacheBytes, "1 GiB"}, envCacheBytes + `: "1 GiB": want a number of bytes`},
	} {
		if _, err := load(t, table+c.text, env(c.env...)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%q %q: got %v, want %s…", c.text, c.env, err, c.want)
		}
	}
	s, err := load(t, "[storage]\ntype = \"local\"\npath = \"/s\"\nredirect = \"auto\"\ncache-bytes = 0\n", env())
	if err != nil || len(s.Warnings) != 2 || !strings.Contains(s.Warnings[0], `storage.redirect: has no use with type = "local"`) {
		t.Errorf("on a disk: %v %v", err, s)
	}
}

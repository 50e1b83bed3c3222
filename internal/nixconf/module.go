package nixconf

import (
	"fmt"
	"net/url"
	"strings"
)

// ModuleNetrc is the netrc file that a Module names: the one that Nix reads without being told to.
const ModuleNetrc = "/etc/nix/netrc"

// Module is a NixOS module that adds the cache. It holds no token, for whatever a module holds everybody on the machine can
// read: it says where the token goes.
func (c Cache) Module() (string, error) {
	if _, err := c.Lines(); err != nil {
		return "", err
	}
	var keys []string
	for _, key := range c.Keys {
		keys = append(keys, quote(key))
	}
	var b strings.Builder
	if c.Netrc != "" {
		u, _ := url.Parse(c.URL) // Lines has parsed it
		fmt.Fprintf(&b, "# The cache is private. %s, of root and mode 0600, has to hold a token, which no module should:\n"+
			"#   machine %s password TOKEN\n", c.Netrc, u.Hostname())
	}
	fmt.Fprintf(&b, "{\n  nix.settings = {\n    substituters = [ %s ];\n    trusted-public-keys = [ %s ];\n", quote(c.URL), strings.Join(keys, " "))
	if c.Netrc != "" {
		fmt.Fprintf(&b, "    netrc-file = %s;\n", quote(c.Netrc))
	}
	b.WriteString("  };\n}\n")
	return b.String(), nil
}

// quote makes a Nix string of s.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(s) + `"`
}

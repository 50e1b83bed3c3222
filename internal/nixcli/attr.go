package nixcli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Attr is a path of attributes in a flake's outputs: {"nixosConfigurations", "web"}.
type Attr []string

// hostsAttr is the output that holds hosts.
const hostsAttr = "nixosConfigurations"

// HostAttr is where a flake has the host called name.
func HostAttr(name string) Attr { return Attr{hostsAttr, name} }

// Host returns the name of the host that is at this path, if it is one's.
func (a Attr) Host() (string, bool) {
	if len(a) == 2 && a[0] == hostsAttr {
		return a[1], true
	}
	return "", false
}

// Name is what people call it: a host's name, or else the path.
func (a Attr) Name() string {
	if name, ok := a.Host(); ok {
		return name
	}
	return a.String()
}

// bareAttr needs no quotes in a flake reference, and in no file of a runner.
var bareAttr = regexp.MustCompile(`^[A-Za-z0-9_@'+=:,~/-]+$`)

// String joins the path by dots. A name with a dot in it, or with anything that is not plain, stands in quotes.
// ParseAttr reads it back.
func (a Attr) String() string {
	parts := make([]string, len(a))
	for i, part := range a {
		if parts[i] = part; !bareAttr.MatchString(part) {
			parts[i] = quote(part)
		}
	}
	return strings.Join(parts, ".")
}

// ParseAttr reads a path: names with dots in between, those with a dot in them in quotes. Within quotes, \ takes the
// next character's meaning away, but for n, r and t.
func ParseAttr(s string) (Attr, error) {
	var path Attr
	for rest := s; ; {
		part, after, err := attrPart(rest)
		if err != nil {
			return nil, fmt.Errorf("%.200q is no attribute path: %w", s, err)
		}
		path = append(path, part)
		if after == "" {
			return path, nil
		}
		if after[0] != '.' {
			return nil, fmt.Errorf("%.200q is no attribute path: there is no dot behind a quote", s)
		}
		rest = after[1:]
	}
}

func attrPart(s string) (part, after string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, `."`)
		if end < 0 {
			end = len(s)
		}
		if part = s[:end]; part == "" {
			return "", "", errors.New("a name is empty")
		}
		return part, s[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\' && i+1 < len(s):
			i++
			if j := strings.IndexByte("nrt", s[i]); j >= 0 {
				b.WriteByte("\n\r\t"[j])
			} else {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("a quote has no end")
}

// outputName is what the first name of a path may be: it goes into a flake reference, the others into an expression.
var outputName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_'-]*$`)

// selector is the path behind its first name, in the Nix language.
func (a Attr) selector(of string) string {
	var b strings.Builder
	b.WriteString(of)
	for _, part := range a[min(1, len(a)):] {
		b.WriteString("." + quote(part))
	}
	return b.String()
}

// derivation is the expression for what is built of the value at this path: of a configuration, what it makes.
func (a Attr) derivation(value string) string {
	switch {
	case len(a) != 2:
		return value
	case a[0] == hostsAttr:
		return value + ".config.system.build.toplevel"
	case a[0] == "darwinConfigurations":
		return "(" + value + ".config.system.build.toplevel or " + value + ".system)"
	case a[0] == "homeConfigurations":
		return value + ".activationPackage"
	}
	return value
}

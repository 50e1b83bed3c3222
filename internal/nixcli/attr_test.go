package nixcli

import (
	"slices"
	"strings"
	"testing"
)

func TestAttrNames(t *testing.T) {
	for want, attr := range map[string]Attr{
		"web":                             HostAttr("web"),
		"db.prod":                         HostAttr("db.prod"),
		"packages.x86_64-linux.hello":     {"packages", "x86_64-linux", "hello"},
		"homeConfigurations.me@host":      {"homeConfigurations", "me@host"},
		`homeConfigurations."a.b"`:        {"homeConfigurations", "a.b"},
		`darwinConfigurations."a\n\${b}"`: {"darwinConfigurations", "a\n${b}"},
	} {
		if got := attr.Name(); got != want {
			t.Errorf("%q is called %s, want %s", attr, got, want)
		}
	}
}

func TestParseAttrRefusesHalves(t *testing.T) {
	for _, bad := range []string{"", ".", "a.", ".a", `a."b`, `a."b"c`, `a"b"`, "a..b"} {
		if got, err := ParseAttr(bad); err == nil {
			t.Errorf("%s is %q", bad, got)
		}
	}
}

func FuzzParseAttr(f *testing.F) {
	for _, s := range []string{"a.b", `a."b.c".d`, `a."\"\\\n${x}"`, `""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		attr, err := ParseAttr(s)
		if err != nil {
			return
		}
		text := attr.String()
		again, err := ParseAttr(text)
		if err != nil || !slices.Equal(attr, again) {
			t.Errorf("%q is %q, which is %q, %v", s, text, again, err)
		}
		if strings.ContainsAny(text, "\n\r") {
			t.Errorf("%q has a line break", text)
		}
	})
}

// Outputs other than hosts: what a configuration makes, and a path to a derivation.
func TestEvalOfOtherOutputs(t *testing.T) {
	flake := flakeDir(t, `{
  outputs = { self }: let
    make = name: derivation { inherit name; system = "@system@"; builder = "/bin/sh"; args = [ "-c" "echo > $dev" ]; outputs = [ "dev" ]; };
  in {
    packages."@system@" = { hello = make "hello"; "a.b" = make "dotted"; bad = throw "no"; };
    darwinConfigurations = { new.config.system.build.toplevel = make "mac"; old.system = make "oldmac"; };
    homeConfigurations."me@host".activationPackage = make "home";
    deep.er.thing = make "thing";
    text.x = "a text";
  };
}`)
	eachNix(t, func(t *testing.T, n *Nix) {
		settings, err := n.Settings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := n.Names(t.Context(), flake, Attr{"packages", settings.System}); err != nil || !slices.Equal(got, []string{"a.b", "bad", "hello"}) {
			t.Errorf("names %q, %v", got, err)
		}
		for want, at := range map[string]Attr{
			"hello": {"packages", settings.System, "hello"}, "dotted": {"packages", settings.System, "a.b"}, "thing": {"deep", "er", "thing"},
			"mac": {"darwinConfigurations", "new"}, "oldmac": {"darwinConfigurations", "old"}, "home": {"homeConfigurations", "me@host"},
		} {
			h, err := n.Eval(t.Context(), flake, at)
			if err != nil || !strings.HasSuffix(h.DrvPath, "-"+want+".drv") || h.Output != "dev" || h.Name != at.String() {
				t.Errorf("%s is %+v, %v", at, h, err)
			}
		}
		for _, at := range []Attr{{"text", "x"}, {"none", "x"}, {"packages", settings.System, "bad"}, {"a b"}, {"-x"}, {}} {
			if h, err := n.Eval(t.Context(), flake, at); err == nil {
				t.Errorf("%s is %+v", at, h)
			}
		}
	})
}

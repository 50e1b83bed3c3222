package nixcli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/nix"
)

const (
	aBase = "xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10"
	bBase = "563528481rvhc5kxwipjmg6rqrl95mdx-glibc-2.33-56"
	drv   = "00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv"
	hash  = "16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci"
	sri   = "sha256-keEprBlZ0GKtCT0rH4tlr64PcSBW/j6seOxTD/ahu5o="
	sig   = "conf:kb75mJZgiCOuY3NSL71X3b4hRsNM8pT0EhJxCs0l9NQw8h9LoOtHdgT7ew+kHfxFGZyhpQqbZ0J70nqHy+PVCA=="
)

// Each form tells the same of the same path, and of another that it is not valid.
var forms = map[string]string{
	"array": `[{"path":"/nix/store/` + aBase + `","narHash":"sha256:` + hash + `","narSize":206104,
		"references":["/nix/store/` + aBase + `","/nix/store/` + bBase + `"],"deriver":"/nix/store/` + drv + `",
		"signatures":["` + sig + `"],"ca":"fixed:r:sha256:` + hash + `","valid":true,"registrationTime":1},
		{"path":"/nix/store/` + bBase + `","valid":false}]`,
	"object": `{"/nix/store/` + aBase + `":{"ca":"fixed:r:sha256:` + hash + `","deriver":"/nix/store/` + drv + `","narHash":"` + sri + `",
		"narSize":206104,"references":["/nix/store/` + bBase + `","/nix/store/` + aBase + `"],"signatures":["` + sig + `"],"ultimate":true},
		"/nix/store/` + bBase + `":null}`,
	"format 2": `{"version":2,"storeDir":"/nix/store","info":{"` + aBase + `":{"ca":{"method":"nar","hash":"` + sri + `"},"deriver":"` + drv + `",
		"narHash":"` + sri + `","narSize":206104,"references":["` + bBase + `","` + aBase + `","` + bBase + `"],"signatures":["` + sig + `"],"version":2},
		"` + bBase + `":null}}`,
	"objects": `{"info":{"` + aBase + `":{"ca":{"method":"nar","hash":{"algorithm":"sha256","format":"nix32","hash":"` + hash + `"}},"deriver":"` + drv + `",
		"narHash":{"algorithm":"sha256","format":"base64","hash":"` + sri[len("sha256-"):] + `"},"narSize":206104,"references":["` + bBase + `","` + aBase + `"],
		"signatures":[{"keyName":"conf","sig":"` + sig[len("conf:"):] + `"}]},"` + bBase + `":null},"storeDir":"/nix/store","version":3}`,
}

func TestEveryFormOfPathInfoTellsTheSame(t *testing.T) {
	a, b := parse(t, "/nix/store/"+aBase), parse(t, "/nix/store/"+bBase)
	narHash, err := nix.ParseHash(sri)
	if err != nil {
		t.Fatal(err)
	}
	want := map[nix.StorePath]PathInfo{a: {
		Path: a, NarHash: narHash, NarSize: 206104, References: []nix.StorePath{b, a},
		Deriver: "/nix/store/" + drv, CA: "fixed:r:sha256:" + hash, Sigs: []string{sig},
	}}
	for name, text := range forms {
		t.Run(name, func(t *testing.T) {
			got := map[nix.StorePath]PathInfo{}
			if err := parsePathInfos([]byte(text), got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestPathInfoRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"no size":                       {`206104`, `0`},
		"negative size":                 {`206104`, `-1`},
		"hash of another algorithm":     {sri, "sha1-iOWs8gZSWtrS8cX4vPmL8aL2Fj8="},
		"hash cut short":                {sri, sri[:20]},
		"no hash":                       {`"narHash":"` + sri + `"`, `"x":1`},
		"signature with a line of text": {sig, `conf:x\nCA: y`},
		"content address with a line":   {`"fixed:r:sha256:` + hash + `"`, `"text:sha256:x\nDeriver: y"`},
		"reference out of the store":    {bBase + `","`, `../../etc","`},
		"path without a name":           {`{"/nix/store/` + aBase, `{"/nix/store/x`},
		"truncated":                     {`}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.ReplaceAll(forms["object"], change[0], change[1])
			if text == forms["object"] {
				t.Fatal("the test changes nothing")
			}
			got := map[nix.StorePath]PathInfo{}
			if err := parsePathInfos([]byte(text), got); err == nil {
				t.Errorf("taken: %+v", got)
			}
		})
	}
}

func FuzzParsePathInfos(f *testing.F) {
	for _, text := range forms {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		infos := map[nix.StorePath]PathInfo{}
		if parsePathInfos(b, infos) != nil {
			return
		}
		for path, info := range infos {
			// Whatever was taken is fit for a narinfo: it reads back as it was.
			n := nix.NarInfo{
				StorePath: info.Path, URL: "nar/x.nar", Compression: "none", NarHash: info.NarHash, NarSize: info.NarSize,
				References: info.References, Deriver: nix.DeriverName(info.Deriver), Sigs: info.Sigs, CA: info.CA,
			}
			back, err := nix.ParseNarInfo(strings.NewReader(string(n.Format())))
			if err != nil || back.StorePath != path || !reflect.DeepEqual(back.Sigs, info.Sigs) || back.CA != info.CA {
				t.Fatalf("%+v: %v, narinfo %q", info, err, n.Format())
			}
		}
	})
}

func TestDependenciesFirstEndsWithACircle(t *testing.T) {
	a, b := parse(t, "/nix/store/"+aBase), parse(t, "/nix/store/"+bBase)
	got := dependenciesFirst(map[nix.StorePath]PathInfo{
		a: {Path: a, References: []nix.StorePath{b}}, b: {Path: b, References: []nix.StorePath{a}},
	})
	if len(got) != 2 {
		t.Errorf("%d paths", len(got))
	}
}

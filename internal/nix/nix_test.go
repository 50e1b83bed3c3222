package nix

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
)

func mustPath(t testing.TB, s string) StorePath {
	t.Helper()
	p, err := ParseStorePath(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustHash(t testing.TB, s string) Hash {
	t.Helper()
	h, err := ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

const (
	hello = "/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10"
	glibc = "/nix/store/563528481rvhc5kxwipjmg6rqrl95mdx-glibc-2.33-56"
	// The three spellings of one hash.
	helloHex    = "sha256:91e129ac1959d062ad093d2b1f8b65afae0f712056fe3eac78ec530ff6a1bb9a"
	helloBase32 = "sha256:16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci"
	helloSRI    = "sha256-keEprBlZ0GKtCT0rH4tlr64PcSBW/j6seOxTD/ahu5o="
)

func TestBase32RoundTrip(t *testing.T) {
	sum := sha256.Sum256([]byte("seed"))
	b := append(sum[:], sum[:]...)
	for n := range len(b) {
		text := EncodeBase32(b[:n])
		back, err := DecodeBase32(text)
		if err != nil || !bytes.Equal(back, b[:n]) {
			t.Fatalf("%d bytes: %q gave %x, %v", n, text, back, err)
		}
	}
}

func TestDecodeBase32Refuses(t *testing.T) {
	for name, text := range map[string]string{
		"letter e":           strings.Repeat("e", 52),
		"upper case":         strings.Repeat("A", 52),
		"bits of no byte":    "z" + strings.Repeat("0", 51),
		"length of no value": "0",
		"beyond ASCII":       "ä",
	} {
		if b, err := DecodeBase32(text); err == nil {
			t.Errorf("%s: %q gave %x", name, text, b)
		}
	}
}

func FuzzDecodeBase32(f *testing.F) {
	f.Add("16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci")
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := DecodeBase32(s); err == nil && EncodeBase32(b) != s {
			t.Fatalf("%q decodes to %x, which is %q", s, b, EncodeBase32(b))
		}
	})
}

func TestHashSpellings(t *testing.T) {
	want := mustHash(t, helloHex)
	for _, s := range []string{helloBase32, helloSRI, "sha256:" + strings.ToUpper(want.Hex())} {
		if got := mustHash(t, s); got != want {
			t.Errorf("%s is %s, want %s", s, got, want)
		}
	}
	if want.String() != helloHex || "sha256:"+want.Base32() != helloBase32 {
		t.Errorf("printed as %s and %s", want, want.Base32())
	}
}

func TestParseHashRefuses(t *testing.T) {
	for _, s := range []string{
		"", "sha256", "sha256:", helloHex[7:], "sha512:" + helloHex[7:], "SHA256:" + helloHex[7:], helloHex[:70], helloHex + "0",
		helloBase32[:58], strings.Replace(helloHex, "9", "g", 1), helloSRI[:50], helloSRI + "\n", "sha256-" + helloSRI[7:49] + "\n\n",
		"sha256:" + helloSRI[7:], "sha256-" + strings.Repeat("/", 43) + "=", // the last has bits beyond its last byte
	} {
		if h, err := ParseHash(s); err == nil {
			t.Errorf("%q gave %s", s, h)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add(helloHex)
	f.Add(helloBase32)
	f.Add(helloSRI)
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHash(s)
		if err != nil {
			return
		}
		if back, err := ParseHash(h.String()); err != nil || back != h {
			t.Fatalf("%q is %s, which is %s, %v", s, h, back, err)
		}
	})
}

func TestHashInJSON(t *testing.T) {
	text, err := json.Marshal(mustHash(t, helloBase32))
	if err != nil || string(text) != `"`+helloHex+`"` {
		t.Fatalf("%s, %v", text, err)
	}
	var h Hash
	if err := json.Unmarshal(text, &h); err != nil || h.String() != helloHex {
		t.Errorf("%s, %v", h, err)
	}
}

func TestStorePathParts(t *testing.T) {
	p := mustPath(t, hello)
	if p.String() != hello || p.Dir() != "/nix/store" || p.Base() != "xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10" ||
		p.Hash() != "xcp9cav49dmsjbwdjlmkjxj10gkpx553" || p.Name() != "hello-2.10" {
		t.Errorf("%s: %s | %s | %s | %s", p, p.Dir(), p.Base(), p.Hash(), p.Name())
	}
	if q := mustPath(t, "/other/nix store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-a"); q.Dir() != "/other/nix store" || q == p {
		t.Errorf("%s: %s", q, q.Dir())
	}
	var zero StorePath
	if !zero.IsZero() || zero.String()+zero.Dir()+zero.Base()+zero.Hash()+zero.Name() != "" {
		t.Error("the zero value has parts")
	}
}

func TestStorePathNames(t *testing.T) {
	const hash = "/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-"
	for _, name := range []string{"a", "-", ".a", "...", ".a-b", "+-._?=aZ09", strings.Repeat("n", 211)} {
		mustPath(t, hash+name)
	}
	for _, name := range []string{
		"", ".", "..", ".-a", "..-a", "a b", "a\n", "a\x00", "ä", "a/b", "a!", "a;b", "a,b", strings.Repeat("n", 212),
	} {
		if p, err := ParseStorePath(hash + name); err == nil {
			t.Errorf("name %q gave %s", name, p)
		}
	}
}

func TestParseStorePathRefuses(t *testing.T) {
	base := hello[len("/nix/store/"):]
	for name, s := range map[string]string{
		"nothing":                  "",
		"root":                     "/",
		"bare name":                base,
		"relative":                 "nix/store/" + base,
		"store at the root":        "/" + base,
		"two slashes":              "/nix//store/" + base,
		"dots":                     "/nix/x/../store/" + base,
		"slash at its end":         hello + "/",
		"inside an object":         hello + "/bin",
		"short hash":               "/nix/store/" + base[1:],
		"letter e in the hash":     "/nix/store/e" + base[1:],
		"no dash":                  "/nix/store/" + base[:32] + "_x",
		"line in the directory":    "/nix/store\nSig: x/" + base,
		"return in the directory":  "/nix/store\r/" + base,
		"zero in the directory":    "/nix/st\x00re/" + base,
		"no UTF-8":                 "/nix/st\xffre/" + base,
		"separator of fingerprint": "/nix/store;sha256:x;1;/" + base,
		"separator of references":  "/nix/store,/x/" + base,
		"beyond PATH_MAX":          "/" + strings.Repeat("d", 4096) + "/" + base,
	} {
		if p, err := ParseStorePath(s); err == nil {
			t.Errorf("%s: %q gave %s", name, s, p)
		}
	}
}

func FuzzParseStorePath(f *testing.F) {
	f.Add(hello)
	f.Add("/other/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-.a")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseStorePath(s)
		if err != nil {
			return
		}
		if p.String() != s || p.Dir()+"/"+p.Hash()+"-"+p.Name() != s || strings.ContainsAny(s, "\n\r\x00") {
			t.Fatalf("%q: %q %q %q", s, p.Dir(), p.Hash(), p.Name())
		}
		if q, err := ParseBaseName(p.Dir(), p.Base()); err != nil || q != p {
			t.Fatalf("%q from its parts: %s, %v", s, q, err)
		}
	})
}

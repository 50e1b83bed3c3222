package nix

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func helloInfo(t testing.TB) *NarInfo {
	h := mustPath(t, hello)
	return &NarInfo{
		StorePath: h, URL: "nar/xcp9cav49dmsjbwdjlmkjxj10gkpx553.nar", Compression: "zstd",
		NarHash: mustHash(t, helloHex), NarSize: 206104,
		References: []StorePath{h, mustPath(t, glibc), h}, // out of order, and one twice
	}
}

func TestFingerprint(t *testing.T) {
	info := helloInfo(t)
	if got := info.Fingerprint(); got != helloPrint {
		t.Errorf("got  %s\nwant %s", got, helloPrint)
	}
	info = &NarInfo{
		StorePath: mustPath(t, "/nix/store/p7jlcn3pbzlbnv4l0gs19l498cxqg33q-hello.txt"),
		NarHash:   mustHash(t, "sha256:10a83a91g1r50bdw8g4hn47m7j7m6angpabwc80l9c16nx11cw9d"), NarSize: 128,
	}
	const want = "1;/nix/store/p7jlcn3pbzlbnv4l0gs19l498cxqg33q-hello.txt;sha256:10a83a91g1r50bdw8g4hn47m7j7m6angpabwc80l9c16nx11cw9d;128;"
	if got := info.Fingerprint(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := conf(t).Sign(want); got != textSig {
		t.Errorf("signature %s, want %s", got, textSig)
	}
}

func TestFormatInAtticsOrder(t *testing.T) {
	info := helloInfo(t)
	info.Sigs = []string{helloSig}
	info.System, info.CA = "x86_64-linux", "fixed:r:sha256:16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci"
	info.Deriver = "/nix/store/00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv" // Nix reads base names only
	info.FileSize = 50000
	const want = `StorePath: /nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10
URL: nar/xcp9cav49dmsjbwdjlmkjxj10gkpx553.nar
Compression: zstd
FileSize: 50000
NarHash: sha256:91e129ac1959d062ad093d2b1f8b65afae0f712056fe3eac78ec530ff6a1bb9a
NarSize: 206104
References: 563528481rvhc5kxwipjmg6rqrl95mdx-glibc-2.33-56 xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10
System: x86_64-linux
Deriver: 00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv
Sig: conf:kb75mJZgiCOuY3NSL71X3b4hRsNM8pT0EhJxCs0l9NQw8h9LoOtHdgT7ew+kHfxFGZyhpQqbZ0J70nqHy+PVCA==
CA: fixed:r:sha256:16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci
`
	if got := string(info.Format()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestFormatWithoutReferencesKeepsTheSpace(t *testing.T) {
	info := helloInfo(t)
	info.References = nil
	if got := string(info.Format()); !strings.HasSuffix(got, "\nReferences: \n") {
		t.Errorf("got %q", got)
	}
}

// A newline in an uploaded field would be a Sig or a References line of the attacker's.
func TestFormatWritesNoForgedLine(t *testing.T) {
	const forged = "x\nSig: evil:x"
	info := helloInfo(t)
	info.URL, info.Compression, info.Deriver, info.System, info.CA, info.Sigs = forged, forged, forged, forged, forged, []string{forged, "y\rz"}
	if got := string(info.Format()); strings.Contains(got, "Sig") || strings.Contains(got, "\r") {
		t.Errorf("got %q", got)
	}
}

func TestFieldValidators(t *testing.T) {
	for name, valid := range map[string]func(string) error{
		"field": ValidField, "deriver": ValidDeriver, "system": ValidSystem, "signature": ValidSig, "content address": ValidCA,
	} {
		for _, s := range []string{"x\ny", "x\n", "\nx", "x\ry", "x\x00", "x\x7f", "x\u0085", "\xff", strings.Repeat("x", 5000)} {
			if valid(s) == nil {
				t.Errorf("%s: %.20q is valid", name, s)
			}
		}
	}
	for _, row := range []struct {
		valid     func(string) error
		good, bad []string
	}{
		{ValidDeriver, []string{"", "unknown-deriver", "00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv", "/nix/store/00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv"},
			[]string{"hello.drv", "/hello.drv", "/", "x/00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv"}},
		{ValidSystem, []string{"", "x86_64-linux", "armv7l-linux", "i686-cygwin"}, []string{"x86 64", "x=y", "x;y", "ä"}},
		{ValidSig, []string{helloSig}, []string{"", "conf", "conf:", confPublic, ":" + helloSig[5:]}},
		{ValidCA, []string{"", "text:sha256:1pz582wa7q7myv5n86lv50mni8l1b2f99z5qh7w4d5q7486w2lzi", "fixed:sha1:x", "fixed:r:sha256:" + helloBase32[7:], "fixed:git:sha1:x", "fixed:r:sha512:a/b+c="},
			[]string{"x", "text", "text:sha256:", "fixed:x:sha256:y", "fixed:r:", "text:r:sha256:x", "fixed:sha256:a b", "fixed:sha256:a:b"}},
	} {
		for _, s := range row.good {
			if err := row.valid(s); err != nil {
				t.Error(err)
			}
		}
		for _, s := range row.bad {
			if row.valid(s) == nil {
				t.Errorf("%q is valid", s)
			}
		}
	}
}

func TestParseNarInfoReadsWhatFormatWrites(t *testing.T) {
	info := helloInfo(t)
	info.References = []StorePath{mustPath(t, glibc), mustPath(t, hello)}
	info.Sigs, info.FileHash, info.FileSize = []string{helloSig, textSig}, mustHash(t, helloHex), 7
	info.Deriver, info.System, info.CA = "00ngdp1czwk57xnvdhpfdp8gh8qbbcs4-hello.drv", "x86_64-linux", "fixed:sha1:x"
	got, err := ParseNarInfo(bytes.NewReader(info.Format()))
	if err != nil || !reflect.DeepEqual(got, info) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, info)
	}
}

const minimal = "StorePath: " + hello + "\nURL: x.nar\nNarHash: " + helloBase32 + "\nNarSize: 1\n"

func TestParseNarInfoTakesNixsWays(t *testing.T) {
	got, err := ParseNarInfo(strings.NewReader("Later: unknown key\n" + minimal + "Deriver: unknown-deriver\nReferences: \n"))
	if err != nil || got.Compression != "bzip2" || got.Deriver != "" || got.NarHash.String() != helloHex || got.References != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestParseNarInfoRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":              "",
		"no StorePath":         strings.Replace(minimal, "StorePath", "Storepath", 1),
		"no URL":               strings.Replace(minimal, "URL", "Url", 1),
		"no NarHash":           strings.Replace(minimal, "NarHash", "Narhash", 1),
		"no NarSize":           strings.Replace(minimal, "NarSize", "Narsize", 1),
		"size of zero":         strings.Replace(minimal, "NarSize: 1", "NarSize: 0", 1),
		"size with a sign":     strings.Replace(minimal, "NarSize: 1", "NarSize: +1", 1),
		"size beyond 64 bits":  strings.Replace(minimal, "NarSize: 1", "NarSize: 99999999999999999999", 1),
		"no last newline":      strings.TrimSuffix(minimal, "\n"),
		"empty line":           minimal + "\n",
		"no space after colon": minimal + "CA:x\n",
		"two URLs":             minimal + "URL: y\n",
		"reference as a path":  minimal + "References: " + glibc + "\n",
		"hash of no SHA-256":   strings.Replace(minimal, "sha256", "sha512", 1),
		"carriage returns":     strings.ReplaceAll(minimal, "\n", "\r\n"),
		"more than a MiB":      minimal + "X: " + strings.Repeat("x", 1<<20) + "\n",
		"bad signature":        minimal + "Sig: x\n",
		"bad content address":  minimal + "CA: x\n",
		"bad deriver":          minimal + "Deriver: x\n",
		"bad system":           minimal + "System: x y\n",
	} {
		if info, err := ParseNarInfo(strings.NewReader(text)); err == nil {
			t.Errorf("%s: taken as %+v", name, info)
		}
	}
}

func FuzzParseNarInfo(f *testing.F) {
	f.Add([]byte(minimal))
	info := helloInfo(f)
	info.Sigs, info.CA, info.System, info.FileHash, info.FileSize = []string{helloSig}, "fixed:sha1:x", "a", info.NarHash, 1
	f.Add(info.Format())
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := ParseNarInfo(bytes.NewReader(b))
		if err != nil {
			return
		}
		text := first.Format()
		second, err := ParseNarInfo(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%q is written as %q: %v", b, text, err)
		}
		if !bytes.Equal(second.Format(), text) || second.Fingerprint() != first.Fingerprint() {
			t.Fatalf("%q is written as %q and then %q", b, text, second.Format())
		}
	})
}

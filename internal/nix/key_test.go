package nix

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	confSecret = "conf:bB1s7fJ26j/XSGohL9YrMvu57KpN6nBUVIZzcZndJO1aWBclVF1TPIz/sLZYx2L9jKohYSLq/OOt9IbEHp43ow=="
	confPublic = "conf:WlgXJVRdUzyM/7C2WMdi/YyqIWEi6vzjrfSGxB6eN6M="

	helloPrint = "1;/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10;sha256:16mvl7v0ylzcg2n3xzjn41qhzbmgcn5iyarx16nn5l2r36n2kqci;206104;" +
		"/nix/store/563528481rvhc5kxwipjmg6rqrl95mdx-glibc-2.33-56,/nix/store/xcp9cav49dmsjbwdjlmkjxj10gkpx553-hello-2.10"
	helloSig = "conf:kb75mJZgiCOuY3NSL71X3b4hRsNM8pT0EhJxCs0l9NQw8h9LoOtHdgT7ew+kHfxFGZyhpQqbZ0J70nqHy+PVCA=="
	textSig  = "conf:a25NVnTmxyA9a/MEvT5d65+p3qjT0RLw59S4EONSkfvkqLCBMuFPhk+GrWvh33ElPh68qQZ6MT+XP/x05w01BQ=="
)

func conf(t testing.TB) Keypair {
	t.Helper()
	k, err := ParseKeypair(confSecret)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeypairOfNix(t *testing.T) {
	k := conf(t)
	if k.Secret() != confSecret || k.Public().String() != confPublic {
		t.Errorf("printed as another: %s", k.Public())
	}
	if got := k.Sign(helloPrint); got != helloSig {
		t.Errorf("signature %s, want %s", got, helloSig)
	}
}

func TestVerify(t *testing.T) {
	public, err := ParsePublicKey(confPublic)
	if err != nil {
		t.Fatal(err)
	}
	if !public.Verify(helloPrint, helloSig) {
		t.Error("a right signature does not verify")
	}
	for name, row := range map[string][2]string{
		"other text":     {helloPrint + " ", helloSig},
		"other key name": {helloPrint, "x" + helloSig},
		"other bytes":    {helloPrint, textSig},
		"no signature":   {helloPrint, ""},
		"cut":            {helloPrint, helloSig[:60]},
	} {
		if public.Verify(row[0], row[1]) {
			t.Errorf("%s: verifies", name)
		}
	}
	if (PublicKey{}).Verify(helloPrint, helloSig) || (PublicKey{Name: "conf"}).Verify(helloPrint, helloSig) {
		t.Error("a key without bytes verifies")
	}
}

// Attic takes a pair whose halves do not match, and then serves signatures that never verify.
func TestParseKeypairRefusesHalvesThatAreNoPair(t *testing.T) {
	raw, err := base64.StdEncoding.DecodeString(confSecret[len("conf:"):])
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 31, 32, 63} {
		wrong := bytes.Clone(raw)
		wrong[i] ^= 1
		if _, err := ParseKeypair("conf:" + base64.StdEncoding.EncodeToString(wrong)); err == nil || !strings.Contains(err.Error(), "half") {
			t.Errorf("byte %d changed: error is %v", i, err)
		}
	}
}

func TestParseKeypairRefuses(t *testing.T) {
	payload := confSecret[len("conf:"):]
	for name, s := range map[string]string{
		"nothing":             "",
		"no colon":            payload,
		"no name":             ":" + payload,
		"two colons":          "a:b:" + payload,
		"space in the name":   "a b:" + payload,
		"line in the name":    "a\nSig:" + payload,
		"no-break space":      "a\u00a0b:" + payload,
		"invisible in name":   "a\u202eb:" + payload,
		"no UTF-8 in name":    "a\xff:" + payload,
		"name too long":       strings.Repeat("n", 256) + ":" + payload,
		"public key only":     confPublic,
		"newline after it":    confSecret + "\n",
		"newlines within":     "conf:" + payload[:42] + "\r\n" + payload[42:86],
		"padding left out":    strings.TrimRight(confSecret, "="),
		"URL alphabet":        strings.ReplaceAll(confSecret, "/", "_"),
		"65 bytes":            "conf:" + base64.StdEncoding.EncodeToString(make([]byte, 65)),
		"bits after the last": strings.Replace(confSecret, "w==", "x==", 1),
	} {
		if _, err := ParseKeypair(s); err == nil {
			t.Errorf("%s: taken", name)
		} else if len(s) > 30 && strings.Contains(err.Error(), payload[:20]) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
}

func TestGenerateKeypair(t *testing.T) {
	k, err := GenerateKeypair("a+cache", rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKeypair(k.Secret())
	if err != nil || !again.Public().Verify("text", k.Sign("text")) || k.Public().Name != "a+cache" {
		t.Errorf("%v, %s", err, k.Public())
	}
	if _, err := GenerateKeypair("a:b", rand.Reader); err == nil {
		t.Error("a colon in the name was taken")
	}
	if _, err := GenerateKeypair("a", bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("31 bytes of randomness were enough")
	}
}

func TestKeypairPrintsNoSecret(t *testing.T) {
	k := conf(t)
	raw, _ := base64.StdEncoding.DecodeString(confSecret[len("conf:"):])
	holder := struct {
		Exported Keypair
		hidden   Keypair
		pointer  *Keypair
	}{k, k, &k}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k, "holder", holder)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k, "holder", holder)
	asJSON, _ := json.Marshal(holder)
	log.Write(asJSON)
	for _, v := range []any{k, &k, holder, &holder, []Keypair{k}, map[string]Keypair{"k": k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&log, verb, v)
		}
	}
	for name, part := range map[string]string{
		"base64": confSecret[5:20], "hex": fmt.Sprintf("%x", raw[:4]), "decimals": fmt.Sprintf("%d %d %d", raw[0], raw[1], raw[2]),
		"Go": fmt.Sprintf("%#x, %#x", raw[0], raw[1]), "raw": string(raw[:4]),
	} {
		if strings.Contains(log.String(), part) {
			t.Errorf("%s of the secret was printed:\n%s", name, log.String())
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); got != "[redacted] [redacted] [redacted] [redacted]" {
		t.Errorf("printed %q", got)
	}
}

func TestZeroKeypairDoesNotPanic(t *testing.T) {
	var k Keypair
	if !k.IsZero() || k.Secret() != "" || k.Sign("x") != "" || k.Public().Verify("x", k.Sign("x")) {
		t.Error("the zero value does something")
	}
}

func TestKeypairThatNixGenerated(t *testing.T) {
	dir := t.TempDir()
	secret, public := filepath.Join(dir, "secret"), filepath.Join(dir, "public")
	if out, err := exec.Command("nix-store", "--generate-binary-cache-key", "of-nix-1", secret, public).CombinedOutput(); err != nil {
		t.Fatalf("nix-store: %v: %s", err, out)
	}
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	k, err := ParseKeypair(read(secret))
	if err != nil || k.Public().String() != read(public) {
		t.Errorf("%v, %s", err, k.Public())
	}
}

func FuzzParseKeypair(f *testing.F) {
	f.Add(confSecret)
	f.Add(confPublic)
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseKeypair(s); err == nil && k.Secret() != s {
			t.Fatal("a second spelling was taken")
		}
		if k, err := ParsePublicKey(s); err == nil && k.String() != s {
			t.Fatalf("%q is %s", s, k)
		}
	})
}

package seal

import (
	"bytes"
	"testing"
)

func TestCopyOpensForItsSecretsOnly(t *testing.T) {
	root := RootKey{1, 2, 3}
	a, b, c := []byte("a"), []byte("b"), []byte("c")
	both := Copy(root, [][]byte{a, b})
	if got, ok := Open(both, [][]byte{b, a}); !ok || got != root {
		t.Errorf("got %v", ok)
	}
	if bytes.Contains(both, root[:]) {
		t.Error("the key lies open in its copy")
	}
	for name, tt := range map[string]struct {
		copied  []byte
		secrets [][]byte
	}{
		"nothing":               {nil, [][]byte{a}},
		"an empty copy":         {[]byte("{}"), nil},
		"no secret":             {both, nil},
		"another secret":        {both, [][]byte{c}},
		"a new secret":          {both, [][]byte{a, b, c}},
		"a secret that is past": {both, [][]byte{a}},
		"not a copy":            {[]byte("root"), [][]byte{a}},
		"cut short":             {both[:len(both)-5], [][]byte{a, b}},
		"two keys":              {[]byte(`{` + string(Copy(root, [][]byte{a})[1:len(Copy(root, [][]byte{a}))-1]) + `,` + string(Copy(RootKey{9}, [][]byte{b})[1:])), [][]byte{a, b}},
	} {
		if _, ok := Open(tt.copied, tt.secrets); ok {
			t.Errorf("%s: opened", name)
		}
	}
	// A wrap under another secret's name must not pass for that one's.
	moved := bytes.Replace(Copy(root, [][]byte{a}), []byte(name(a)), []byte(name(b)), 1)
	if _, ok := Open(moved, [][]byte{b}); ok {
		t.Error("a moved wrap was opened")
	}
}

func FuzzOpen(f *testing.F) {
	secrets := [][]byte{[]byte("a")}
	f.Add(Copy(RootKey{1}, secrets))
	f.Add([]byte(`{"keys/root-x":"AAAA"}`))
	f.Fuzz(func(t *testing.T, copied []byte) {
		if root, ok := Open(copied, secrets); ok && root != (RootKey{1}) {
			t.Error("a key that nobody wrapped")
		}
	})
}

package seal

import (
	"encoding/json"
	"fmt"
)

// Copy wraps the root key under each secret, for a place that is nearer than the
// bucket: a server that wakes up for one request cannot ask the bucket first. Like
// the bucket's wraps it is worth nothing without one of the secrets.
func Copy(root RootKey, secrets [][]byte) []byte {
	wraps := map[string][]byte{}
	for _, s := range secrets {
		wraps[name(s)] = sealed(derive(s, infoWrap), root[:], []byte(name(s)), nonce())
	}
	b, err := json.Marshal(wraps)
	if err != nil { // strings and bytes
		panic(fmt.Sprintf("seal: internal error: %v", err))
	}
	return b
}

// Open reads the root key from a copy. It is false unless the copy was made for
// just these secrets and all of them open it to one key; then the bucket must be
// asked, and another copy made: a secret that is not configured any more must not
// go on opening it, a new one needs its wrap in the bucket.
func Open(copied []byte, secrets [][]byte) (root RootKey, ok bool) {
	var wraps map[string][]byte
	if json.Unmarshal(copied, &wraps) != nil || len(wraps) == 0 {
		return RootKey{}, false
	}
	names := map[string]bool{}
	for _, s := range secrets {
		plain, err := opened(derive(s, infoWrap), wraps[name(s)], []byte(name(s)))
		if err != nil || len(plain) != len(root) || len(names) > 0 && RootKey(plain) != root {
			return RootKey{}, false
		}
		root = RootKey(plain)
		names[name(s)] = true
	}
	if len(names) != len(wraps) {
		return RootKey{}, false
	}
	return root, true
}

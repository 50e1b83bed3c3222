package nix

import "testing"

// Paths that Nix made: nix-store --add-fixed of a file "f" with "hello\n", nix store make-content-addressed,
// nix-instantiate.
func TestContentAddressesDeriveNixsPaths(t *testing.T) {
	for _, c := range []struct {
		ca, want string
		refs     []string
		self     bool
	}{
		{"fixed:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq", "/nix/store/1p9q0bz6f22dyxh4lw8xs08p4201vyq4-f", nil, false},
		{"fixed:sha512:0lrc0dwnvipqviibf7qfm1y492qvjwb1zhkcyi05cndmva1mr5gjcgrnz1x36djmk0sfg8djd2n0qv68vib2jg590mwznar9jcjphp7", "/nix/store/73j0b3a4s7j9abkll8kb61zam2n0cmmn-f", nil, false},
		{"fixed:md5:4425hx5d1mc9y39llj4k4nm55i", "/nix/store/7s9z2am75yq73wgn24qpijd5jf44vb5s-f", nil, false},
		{"fixed:r:md5:4ycxcbh0ac0abr4zxw23l6isnk", "/nix/store/9hcvjx6md70b79ffrd52lwwff7qzj79r-f", nil, false},
		{"fixed:r:sha1:wz60bbf44cw7nswp1wv8vcsyfg155sqd", "/nix/store/jq1d30ypzhhw6hhml61xjfndy39pcysv-f", nil, false},
		{"fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw", "/nix/store/xp0dpr9yz5h0fk5c5lpj7zzqjbdh3w8c-f", nil, false},
		{"fixed:r:sha256:1kv27r1yvrr64lfh5kfibs7zdqlqh6n05199pnq0890j3n2hv54b", "/nix/store/19p1cm8wx2h2wzc0z056s2hk895r9dbr-libkeyutils1",
			[]string{"x3z3raksm7xha043v4w4aaw6vsv38g54-libc6"}, true},
		{"text:sha256:1wlqla83pq61nwwxkv4wmnxp9xr762lhhpzdc9lg7yw87dk8ka50", "/nix/store/56ywni4bd9vfian78al15rz063sdrsn5-node-6.drv",
			[]string{"jnn6ilhq9sybq7sd9i7cpamhxflxhskf-node-5.drv", "vh798wl51bvph47jkl78gnmyp6fwdzhr-node-3.drv"}, false},
	} {
		want, err := ParseStorePath(c.want)
		if err != nil {
			t.Fatal(err)
		}
		ca, err := ParseContentAddress(c.ca)
		if err != nil {
			t.Errorf("%s: %v", c.ca, err)
			continue
		}
		if got, err := ca.StorePath(StoreDir, want.Name(), c.refs, c.self); err != nil || got != want {
			t.Errorf("%s: got %s (%v), want %s", c.ca, got, err, want)
		}
		if got, err := ca.StorePath(StoreDir, want.Name()+"x", c.refs, c.self); err == nil && got.Hash() == want.Hash() {
			t.Errorf("%s: another name has the same hash", c.ca)
		}
	}
}

func TestContentAddressesThatNixHasNot(t *testing.T) {
	const digest = "00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq"
	for _, s := range []string{"", "fixed", "fixed:sha256", "text:sha512:" + digest, "text:sha256:", "text:sha256:" + digest[1:],
		"fixed:git:md5:" + digest, "fixed:x:sha256:" + digest, "fixed:r:r:sha256:" + digest, "fixed:sha256:" + digest + "\nSig: x"} {
		if ca, err := ParseContentAddress(s); err == nil {
			t.Errorf("%q was read as %+v", s, ca)
		}
	}
	flat, err := ParseContentAddress("fixed:sha256:" + digest)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := flat.StorePath(StoreDir, "f", []string{digest[:32] + "-x"}, false); err == nil {
		t.Errorf("a flat file with references is %s", p)
	}
	text, err := ParseContentAddress("text:sha256:" + digest)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := text.StorePath(StoreDir, "f", nil, true); err == nil {
		t.Errorf("a text that refers to itself is %s", p)
	}
}

func FuzzParseContentAddress(f *testing.F) {
	f.Add("fixed:r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw")
	f.Add("text:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq")
	f.Add("fixed:git:sha1:iwjz551fyw0cxcjgf4l6c879zabd6wpm")
	f.Fuzz(func(t *testing.T, s string) {
		ca, err := ParseContentAddress(s)
		if err != nil {
			return
		}
		if ValidCA(s) != nil || len(ca.Digest) != digestLen[ca.Algorithm] {
			t.Errorf("%q was read as %+v", s, ca)
		}
		if p, err := ca.StorePath(StoreDir, "f", nil, false); err != nil || p.Name() != "f" {
			t.Errorf("%q: path %s, %v", s, p, err)
		}
	})
}

package nixconf

import (
	"strings"
	"testing"
)

var public = Cache{URL: "https://c.example/system", Keys: []string{key}}

const mine = "# mine\nsubstituters = https://other.example\n\n!include secrets.conf"

func TestAddLeavesTheRestAlone(t *testing.T) {
	once, err := Add(mine, "https://c.example", "system", public)
	if err != nil || !strings.HasPrefix(once, mine+"\n# attic-action: https://c.example system\nextra-substituters") {
		t.Fatalf("%q, %v", once, err)
	}
	twice, err := Add(once, "https://c.example", "system", public)
	if err != nil || twice != once {
		t.Errorf("a second time: %q, %v", twice, err)
	}
	gone, err := Remove(once, "https://c.example", "system")
	if err != nil || gone != mine+"\n" {
		t.Errorf("removed: %q, %v", gone, err)
	}
}

func TestAddReplacesInPlace(t *testing.T) {
	text, err := Add("", "https://c.example", "system", public)
	if err != nil {
		t.Fatal(err)
	}
	text += "cores = 2\n"
	other := public
	other.Netrc = "/home/me/netrc"
	text, err = Add(text, "https://c.example", "system", other)
	if err != nil || strings.Count(text, "extra-substituters") != 1 || !strings.HasSuffix(text, "\ncores = 2\n") {
		t.Errorf("%q, %v", text, err)
	}
	text, err = Add(text, "https://c.example", "second", public)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := Blocks(text)
	if err != nil || len(blocks) != 2 || blocks[0].Netrc() != "/home/me/netrc" || blocks[1].Name != "second" || blocks[1].Netrc() != "" ||
		blocks[0].Substituter() != public.URL {
		t.Errorf("%+v, %v", blocks, err)
	}
}

// Half a block is somebody's edit: to guess what is ours would be to delete what is not.
func TestABlockThatWasTakenApartIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no end":    "# attic-action: https://c.example system\nextra-substituters = x\n",
		"no start":  "extra-substituters = x\n# attic-action: end\n",
		"two begin": "# attic-action: a b\n# attic-action: c d\n# attic-action: end\n",
	} {
		if got, err := Add(text, "https://c.example", "system", public); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if got, err := Remove(text, "https://c.example", "system"); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestWithoutNetrcIsNetrcTakenBack(t *testing.T) {
	const theirs = "machine other.example password p\n# attic\nmachine c.example\npassword old\n"
	with, err := Netrc(public.URL, "eyJ", []byte(theirs))
	if err != nil {
		t.Fatal(err)
	}
	if got := WithoutNetrc(with, public.URL); string(got) != theirs {
		t.Errorf("%q", got)
	}
	again, err := Netrc(public.URL, "eyJ", WithoutNetrc(with, public.URL))
	if err != nil || string(again) != string(with) {
		t.Errorf("%q, %v", again, err)
	}
	if !HasMachine([]byte(theirs), public.URL) || HasMachine([]byte("machine other.example\n"), public.URL) {
		t.Error("HasMachine")
	}
}

// A URL that a server answered is text in the module, not Nix.
func TestModuleQuotes(t *testing.T) {
	got, err := Cache{URL: "https://c.example/${builtins.readFile\"x}", Keys: []string{key}}.Module()
	if err != nil || strings.Contains(got, `/${`) || !strings.Contains(got, `/\${builtins.readFile\"x}`) {
		t.Errorf("%s, %v", got, err)
	}
}

func FuzzAdd(f *testing.F) {
	f.Add(mine)
	f.Add("# attic-action: a b\nx\n# attic-action: end\ncores = 1")
	f.Fuzz(func(t *testing.T, text string) {
		parts, err := split(text)
		if err != nil {
			return
		}
		if len(parts) == 1 && parts[0].block == nil && join(parts) != text {
			t.Fatalf("%q became %q", text, join(parts))
		}
		once, err := Add(text, "https://c.example", "system", public)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := Add(once, "https://c.example", "system", public); err != nil || twice != once {
			t.Fatalf("%q became %q, %v", once, twice, err)
		}
	})
}

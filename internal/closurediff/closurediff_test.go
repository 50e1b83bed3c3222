package closurediff

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestNamesAreSplitAsNixDoes(t *testing.T) {
	hash := strings.Repeat("a", 32)
	for base, want := range map[string][2]string{
		hash + "-openssl-3.0.13":                         {"openssl", "3.0.13"},
		hash + "-openssl-3.0.13-bin":                     {"openssl", "3.0.13"},
		hash + "-glibc-2.40-66-dev":                      {"glibc", "2.40-66"},
		hash + "-nixos-system-web-25.05.20250101.abcdef": {"nixos-system-web", "25.05.20250101.abcdef"},
		hash + "-python3.12-requests-2.31.0":             {"python3.12-requests", "2.31.0"},
		hash + "-unit-sshd.service":                      {"unit-sshd.service", ""},
		hash + "-foo-unstable-2024-01-01":                {"foo-unstable", "2024-01-01"},
		hash + "-source":                                 {"source", ""},
		hash + "-hello-man":                              {"hello-man", ""},
		hash + "-x-1-bin":                                {"x", "1"},
		hash + "-x-1-beta":                               {"x", "1-beta"},
		hash + "-ends-with-":                             {"ends-with-", ""},
		hash + "--1":                                     {"", "1"},
		"short":                                          {"short", ""},
		"":                                               {"", ""},
		hash + "-linux-6.12.1-modules-shrunk":            {"linux", "6.12.1-modules-shrunk"},
		hash + "-a-_b":                                   {"a", "_b"},
	} {
		if name, version := Split(base); name != want[0] || version != want[1] {
			t.Errorf("%s: %q %q, want %q", base, name, version, want)
		}
	}
}

func path(n byte, name string) string { return strings.Repeat(string(n), 32) + "-" + name }

func TestChangesAreThoseOfPackages(t *testing.T) {
	before := Closure{
		path('a', "openssl-3.0.13"): 100, path('a', "openssl-3.0.13-bin"): 50, path('a', "glibc-2.40"): 1000,
		path('a', "gone-1"): 7, path('a', "two-1"): 5, path('a', "fat-1"): 10, path('a', "unit-x.service"): 3, path('a', "both-1"): 1,
	}
	after := Closure{
		path('b', "openssl-3.0.14"): 110, path('b', "openssl-3.0.14-bin"): 50, path('a', "glibc-2.40"): 1000,
		path('b', "new"): 9, path('b', "two-1"): 5, path('b', "two-2"): 6, path('b', "fat-1"): 10 + 8192, path('b', "unit-x.service"): 4, path('a', "both-1"): 1,
	}
	got := Compare(before, after)
	want := Diff{Rebuilt: 1, Size: 10 - 7 + 9 + 6 + 8192 + 1, Changes: []Change{
		{Name: "fat", Size: 8192},
		{Name: "gone", Kind: Removed, Before: []string{"1"}, Size: -7},
		{Name: "new", Kind: Added, After: []string{""}, Size: 9},
		{Name: "openssl", Before: []string{"3.0.13"}, After: []string{"3.0.14"}, Size: 10},
		{Name: "two", After: []string{"2"}, Size: 6},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if d := Compare(before, before); !d.Same() || d.Size != 0 {
		t.Errorf("with itself: %+v", d)
	}
	if d := Compare(nil, nil); !d.Same() {
		t.Errorf("of nothing: %+v", d)
	}
}

// Sizes come over the network.
func TestSumsOfSizesDoNotWrapAround(t *testing.T) {
	c := Closure{path('a', "x-1"): math.MaxUint64, path('b', "x-2"): math.MaxUint64, path('c', "y"): 1}
	if c.Size() != math.MaxInt64 || Compare(nil, c).Changes[0].Size != math.MaxInt64 {
		t.Errorf("%d, %+v", c.Size(), Compare(nil, c))
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x-1-bin")
	f.Fuzz(func(t *testing.T, base string) {
		name, version := Split(base)
		if !strings.Contains(base, name) || !strings.Contains(base, version) {
			t.Errorf("%q: %q %q", base, name, version)
		}
		if d := Compare(Closure{base: 1}, Closure{base: 1}); !d.Same() {
			t.Errorf("%q differs from itself", base)
		}
	})
}

package trust

import "testing"

// A pattern that is matched in the middle, or loosely, lets one repository push another's system out
// of its pin.
func TestPinPatternsAreAnchored(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"acme/infra/*", "acme/infra/main/web", true},
		{"acme/infra/*", "acme/infra/web", true},
		{"acme/infra/*", "acme/infra", false},
		{"acme/infra/*", "acme/infrared/main/web", false},
		{"acme/infra/*", "evil/acme/infra/main/web", false},
		{"acme/infra/*", "ACME/infra/main/web", false},
		{"acme/infra/main/*", "acme/infra/dev/web", false},
		{"acme/*/main/web", "acme/infra/main/web", true},
		{"acme/*/main/web", "acme/infra/dev/main/web", false}, // * stops at /
		{"acme/**/web", "acme/infra/dev/main/web", true},
		{"acme/infra/main/web", "acme/infra/main/web", true},
		{"acme/infra/main/web", "acme/infra/main/web2", false},
		{"acme/infra/pr-*", "acme/infra/pr-1", true},
		{"acme/infra/pr-*", "acme/infra/pr-1/web", false},
		{"acme/infra/pr-*/*", "acme/infra/pr-1/web", true},
		{"*", "acme/infra/main/web", true},
		{"acme.infra/*", "acme-infra/x", false}, // no regular expression
		{"a|b/*", "b/x", false},
		{"", "x", false},
	} {
		if got := MayPin([]string{"other", c.pattern}, c.name); got != c.want {
			t.Errorf("%q on %q: got %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
	if MayPin(nil, "x") {
		t.Error("nothing allows something")
	}
}

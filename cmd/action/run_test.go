package main

import (
	"os"
	"slices"
	"testing"
)

// A flake's code runs in what Nix starts. It gets neither the cache's token nor what would let it ask for one.
func TestNixGetsNoSecrets(t *testing.T) {
	got := withoutSecrets([]string{
		"PATH=/bin", "NIX_CONFIG=cores = 2", "ATTIC_TOKEN=t", "INPUT_TOKEN=t", "INPUT_GITHUB-TOKEN=t", "STATE_x=t",
		"ACTIONS_ID_TOKEN_REQUEST_URL=u", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=t", "ACTIONS_RUNTIME_TOKEN=t", "odd",
	})
	if want := []string{"PATH=/bin", "NIX_CONFIG=cores = 2", "odd"}; !slices.Equal(got, want) {
		t.Errorf("Nix gets %q", got)
	}
}

// In a job's container $HOME belongs to another user, and Nix does not read it.
func TestHomeIsTheUsersOwn(t *testing.T) {
	mine := t.TempDir()
	t.Setenv("HOME", mine)
	if got := home(); got != mine {
		t.Errorf("home is %s, want %s", got, mine)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(mine, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if got := home(); got == mine {
			t.Error("somebody else's home is taken for ours")
		}
	}
}

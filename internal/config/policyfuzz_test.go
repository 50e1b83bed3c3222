package config

import (
	"reflect"
	"testing"

	"github.com/org/attic-action/internal/trust"
)

// FuzzReadPolicies reads any text without a panic, and what was read and is a policy
// reads the same again as it is written by TOML.
func FuzzReadPolicies(f *testing.F) {
	f.Add("[[trust]]\nname = \"infra\"\nrepository-id = 1\nref = \"refs/heads/main\"\ncaches = [\"a\"]\ngrant = [\"push\"]\n")
	f.Add("[[trust]]\nname = 'p'\nrepository-owner-id = 7\nevents = []\ncaches = ['*']\ngrant = ['pull']\nenvironment = \"pr\\u00f6d \\\"x\\\\\"\n")
	f.Add("[[trust]]\n[[trust]]\nname = \"\\U0010FFFF\"\n")
	f.Add("trust = [{name = 'x', allow = ['owner-wide-push']}]\n[oidc]\n")
	f.Add("[trust]\nname = 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		policies, err := ReadPolicies("p.toml", []byte(text))
		if err != nil {
			return
		}
		for _, p := range policies {
			if _, err := trust.Compile([]trust.Policy{p}); err != nil {
				continue
			}
			again, err := ReadPolicies("again.toml", []byte(p.TOML()))
			if err != nil || len(again) != 1 {
				t.Fatalf("%v in\n%s", err, p.TOML())
			}
			if got, want := again[0].TOML(), p.TOML(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			one, err := trust.Compile(again)
			if err != nil || one.Len() != 1 {
				t.Errorf("%v: written as\n%s", err, p.TOML())
			}
			if !reflect.DeepEqual(again[0].Caches, p.Caches) || again[0].Environment != p.Environment || !reflect.DeepEqual(again[0].Grant, p.Grant) {
				t.Errorf("got %+v, want %+v", again[0], p)
			}
		}
	})
}

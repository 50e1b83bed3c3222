package trust

import (
	"slices"

	"github.com/org/attic-action/internal/token"
)

// perms are the permissions by the names that atticadm's flags give them, in the order
// in which they are written.
var perms = []struct {
	name string
	perm token.Perm
}{
	{"pull", token.Pull},
	{"push", token.Push},
	{"delete", token.Delete},
	{"create-cache", token.CreateCache},
	{"configure-cache", token.ConfigureCache},
	{"configure-cache-retention", token.ConfigureCacheRetention},
	{"destroy-cache", token.DestroyCache},
}

// ParsePerm returns the permission of that name.
func ParsePerm(name string) (token.Perm, bool) {
	i := slices.Index(permNames(), name)
	if i < 0 {
		return 0, false
	}
	return perms[i].perm, true
}

// PermNames lists the names of the permissions in p, always in the same order.
func PermNames(p token.Perm) []string {
	var names []string
	for _, k := range perms {
		if p&k.perm != 0 {
			names = append(names, k.name)
		}
	}
	return names
}

func permNames() []string { return PermNames(^token.Perm(0)) }

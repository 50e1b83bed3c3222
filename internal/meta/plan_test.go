package meta

import (
	"regexp"
	"strings"
	"testing"
)

// A table with a million rows must not be read from end to end for one answer.
func TestHotQueriesUseIndexes(t *testing.T) {
	db := open(t, Options{})
	scan := regexp.MustCompile(`SCAN (\w+)`)
	for name, query := range map[string]string{
		"Path": readPath, "MissingPaths": missingPaths, "MissingPaths, damaged": missingOrDamaged, "unverified": unverifiedNARs, "Locate": locate, "FindNARs": findNARs, "FindPack": findPack,
		"TouchPaths": touchPaths, "SetComplete": completePaths,
		"DebugPath": readBuildID, "Realisation": readRealisation, "Nodes": readNodes, "Pin": readPin, "PacksOf": packsOf,
		"staged":      "SELECT start, data FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3 AND staged_at > $4 ORDER BY start",
		"Sweep, seen": sweepSeen, "Sweep, issued": sweepIssued, "Sweep, revoked": sweepRevoked, "Sweep, staged": sweepStaged,
		"expired":   "DELETE FROM seen_tokens WHERE until <= $1",
		"old parts": "DELETE FROM staged WHERE staged_at <= $1",
		"drop":      "DELETE FROM visible WHERE cache_id = $1", "drop places": "DELETE FROM places WHERE cache_id = $1",
		"Show": addPlaces, "DropPack": dropPlaces, "DropPack, caches": "DELETE FROM visible WHERE pack_id = $1",
	} {
		t.Run(name, func(t *testing.T) {
			plan := planOf(t, db, query)
			for _, line := range plan {
				// k is the short list of caches that the caller gave.
				if m := scan.FindStringSubmatch(line); m != nil && m[1] != "k" && m[1] != "json_each" {
					t.Errorf("%s is scanned:\n%s", m[1], strings.Join(plan, "\n"))
				}
			}
		})
	}
}

// What others have must be on no way to an answer, or a clock would tell the unknown from the invisible
// (design §4): chunks and packs are looked for among those of a cache.
func TestWhatIsLookedForIsLookedForByCache(t *testing.T) {
	db := open(t, Options{})
	for name, query := range map[string]string{"Locate": locate, "FindPack": findPack} {
		for _, line := range planOf(t, db, query) {
			table, by, _ := strings.Cut(strings.TrimPrefix(line, "SEARCH "), " ")
			switch {
			case !strings.HasPrefix(line, "SEARCH "), table == "o": // the question
			case table == "p", table == "q": // a pack that the cache sees, and whether it is in quarantine
				if !strings.Contains(by, "(rowid=?)") {
					t.Errorf("%s: %s", name, line)
				}
			case !strings.Contains(by, "(cache_id=? AND "):
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

// An inner join would answer for an unknown NAR without looking at who sees it.
func TestUnknownIsLookedUpLikeInvisible(t *testing.T) {
	plan := strings.Join(planOf(t, open(t, Options{}), findNARs), "\n")
	if left := strings.Count(plan, "LEFT-JOIN"); left != 2 {
		t.Errorf("%d left joins in the plan, want 2, those of the NAR and those of who sees it:\n%s", left, plan)
	}
}

func planOf(t *testing.T, db *DB, query string) (plan []string) {
	t.Helper()
	update(t, db, func(tx *Tx) error {
		args := make([]any, strings.Count(query, "$")) // more than there are: NULLs
		return tx.each("EXPLAIN QUERY PLAN "+query, args, func(scan func(...any) error) error {
			var id, parent, unused int
			var detail string
			err := scan(&id, &parent, &unused, &detail)
			plan = append(plan, detail)
			return err
		})
	})
	if len(plan) == 0 {
		t.Error("no plan")
	}
	return plan
}

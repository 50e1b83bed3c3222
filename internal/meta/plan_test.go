package meta

import (
	"cmp"
	"regexp"
	"strings"
	"testing"
)

// A table with a million rows must not be read from end to end for one answer.
func TestHotQueriesUseIndexes(t *testing.T) {
	db := open(t, Options{})
	scan := regexp.MustCompile(`SCAN (\w+)`)
	for name, query := range map[string]string{
		"Path": readPath, "MissingPaths": missingPaths, "Locate": locate, "FindNARs": findNARs, "FindPack": findPack,
		"TouchPaths": touchPaths, "SetComplete": completePaths,
		"Nodes": readNodes, "Pin": readPin, "PacksOf": packsOf,
		"staged":      "SELECT start, data FROM staged WHERE cache_id = $1 AND hash = $2 AND nar = $3 AND staged_at > $4 ORDER BY start",
		"Sweep, seen": sweepSeen, "Sweep, issued": sweepIssued, "Sweep, revoked": sweepRevoked, "Sweep, staged": sweepStaged,
		"expired":   "DELETE FROM seen_tokens WHERE until <= $1",
		"old parts": "DELETE FROM staged WHERE staged_at <= $1",
		"drop":      "DELETE FROM visible WHERE cache_id = $1",
	} {
		t.Run(name, func(t *testing.T) {
			var plan []string
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
			for _, line := range plan {
				// k is the short list of caches that the caller gave.
				if m := scan.FindStringSubmatch(line); m != nil && m[1] != "k" && m[1] != "json_each" {
					t.Errorf("%s is scanned:\n%s", m[1], strings.Join(plan, "\n"))
				}
			}
			if len(plan) == 0 {
				t.Error("no plan")
			}
		})
	}
}

// An inner join would answer for what is unknown without looking at what is visible, and a clock would
// tell the unknown from the invisible (design §4).
func TestUnknownIsLookedUpLikeInvisible(t *testing.T) {
	db := open(t, Options{})
	for name, query := range map[string]string{"Locate": locate, "FindNARs": findNARs, "FindPack": findPack} {
		var left int
		want := map[string]int{"Locate": 4}[name] // the row and the copy
		var plan []string
		update(t, db, func(tx *Tx) error {
			args := make([]any, strings.Count(query, "$"))
			return tx.each("EXPLAIN QUERY PLAN "+query, args, func(scan func(...any) error) error {
				var id, parent, unused int
				var detail string
				err := scan(&id, &parent, &unused, &detail)
				plan = append(plan, detail)
				if strings.Contains(detail, "LEFT-JOIN") {
					left++
				}
				return err
			})
		})
		if want = cmp.Or(want, 2); left != want {
			t.Errorf("%s: %d left joins in the plan, want %d, those of the thing and those of who sees it:\n%s", name, left, want, strings.Join(plan, "\n"))
		}
	}
}

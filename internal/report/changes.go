package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/org/attic-action/internal/closurediff"
)

const (
	rowsMax  = 250 // packages that a list names
	namesMax = 8   // hosts that a title names
)

// changes are the folded lists of what changed. Machines of one flake get the same updates, so what all that changed have
// in common is told once, and hosts whose rest is the same are told together.
func (r Report) changes() []string {
	var changed []Host
	for _, h := range r.Hosts {
		if h.Since != nil && !h.Since.Same {
			changed = append(changed, h)
		}
	}
	common := inAll(changed)
	var parts []string
	if len(common) > 0 {
		parts = append(parts, folded(fmt.Sprintf("all %d hosts that changed: %s", len(changed), counted(common)), changeTable(common)))
	}
	together := map[string][]Host{}
	var order []string
	for _, h := range changed {
		k := fmt.Sprint(h.Since.Size, h.Since.Rebuilt, h.Since.Changes)
		if together[k] == nil {
			order = append(order, k)
		}
		together[k] = append(together[k], h)
	}
	for _, k := range order {
		parts = append(parts, changesOf(together[k], common))
	}
	return parts
}

// changesOf is the list of some hosts that changed in the same way, without what is told already.
func changesOf(hosts []Host, told []closurediff.Change) string {
	since := hosts[0].Since
	changes := without(since.Changes, told)
	var names []string
	for _, h := range hosts[:min(len(hosts), namesMax)] {
		names = append(names, short(h.Name))
	}
	title := strings.Join(names, ", ")
	if n := len(hosts) - namesMax; n > 0 {
		title += fmt.Sprintf(" and %d more", n)
	}
	switch {
	case len(told) == 0:
		title += ": " + counted(changes)
	case len(changes) == 0:
		title += ": nothing else"
	default:
		title += ": besides, " + counted(changes)
	}
	if since.Rebuilt > 0 {
		title += fmt.Sprintf(", %d rebuilt in the same version", since.Rebuilt)
	}
	title += "; " + signed(since.Size)
	if len(hosts) == 1 {
		title += " since " + short(since.Pin)
	}
	if len(changes) == 0 {
		return "\n" + Escape(title) + "\n"
	}
	return folded(title, changeTable(changes))
}

// counted says how many packages changed, and how.
func counted(changes []closurediff.Change) string {
	var n [3]int
	for _, c := range changes {
		n[c.Kind]++
	}
	var parts []string
	for kind, word := range []string{"changed", "added", "removed"} {
		if n[kind] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[kind], word))
		}
	}
	if len(parts) == 0 {
		return "no package changed"
	}
	return strings.Join(parts, ", ")
}

// changeTable is a table of packages.
func changeTable(changes []closurediff.Change) string {
	var b strings.Builder
	b.WriteString("| package | before | after | size |\n| --- | --- | --- | ---: |\n")
	for _, c := range changes[:min(len(changes), rowsMax)] {
		b.WriteString(tableRow([]string{c.Name, versions(c.Before, c.Kind == closurediff.Added), versions(c.After, c.Kind == closurediff.Removed), signed(c.Size)}))
	}
	if n := len(changes) - rowsMax; n > 0 {
		fmt.Fprintf(&b, "\nand %d more\n", n)
	}
	return b.String()
}

// versions are those that only one side has.
func versions(list []string, none bool) string {
	if none {
		return "∅"
	}
	named := slices.Clone(list)
	for i := range named {
		if named[i] == "" {
			named[i] = "ε" // a path without a version: Nix's sign
		}
	}
	return strings.Join(named, ", ")
}

// inAll are the changes that each of several hosts has.
func inAll(hosts []Host) []closurediff.Change {
	if len(hosts) < 2 {
		return nil
	}
	count := map[string]int{}
	for _, h := range hosts {
		for _, c := range h.Since.Changes {
			count[fmt.Sprint(c)]++
		}
	}
	return slices.DeleteFunc(slices.Clone(hosts[0].Since.Changes), func(c closurediff.Change) bool { return count[fmt.Sprint(c)] < len(hosts) })
}

func without(changes, told []closurediff.Change) []closurediff.Change {
	skip := map[string]bool{}
	for _, c := range told {
		skip[fmt.Sprint(c)] = true
	}
	return slices.DeleteFunc(slices.Clone(changes), func(c closurediff.Change) bool { return skip[fmt.Sprint(c)] })
}

package report

import (
	"flag"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/org/attic-action/internal/closurediff"
)

var hostile = []string{
	"a::error::x", "a|b", "|", "<img src=x onerror=alert(1)>", "`x`", "**x**", "_x_", "[x](javascript:y)", "![x](http://e/x)", "x\ny", "x\n\n# head", "x\r\n| a |",
	"$(id)", "&lt;b&gt;", "\\|", "~~x~~", "@acme/team", "https://evil.example", "\x1b[31mred", "a\u202Eb", "\xff", "---", "> x", "    code", "$x$", "#12", "GH-12", "gh-7", "www.evil.example", "WWW.x", "a@b.example", "acme/infra#7", "acme/infra@0123456789abcdef",
}

// golden compares with a file; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is now\n%s", name, got)
	}
}

var update = flag.Bool("update", false, "write golden files")

const large = 1 << 20

var openssl = closurediff.Change{Name: "openssl", Before: []string{"3.0.13"}, After: []string{"3.0.14"}, Size: 12_000}

// threeHosts is a run as there are many.
func threeHosts() Report {
	return Report{Server: "https://cache.example", Cache: "system", Requests: 7, Time: 75 * time.Second, Hosts: []Host{
		{Name: "web", System: "x86_64-linux", Result: Pushed, Paths: 130, Pushed: 12, Raw: 9_000_000, Bytes: 3_400_000, Made: 10, Fetched: 2, Closure: 2_150_000_000,
			Time: 12300 * time.Millisecond, StorePath: "/nix/store/x", Since: &Since{Pin: "acme/infra/main/web", Diff: closurediff.Diff{
				Size: 1_200_000, Rebuilt: 40, Changes: []closurediff.Change{
					{Name: "new", Kind: closurediff.Added, After: []string{""}, Size: 500}, openssl,
					{Name: "old", Kind: closurediff.Removed, Before: []string{"1", "2"}, Size: -900},
				}}}},
		{Name: "mail", System: "x86_64-linux", Result: Cached, Since: &Since{Pin: "acme/infra/main/mail", Same: true}},
		{Name: "pi", System: "aarch64-linux", Result: Skipped, Reason: "this machine builds x86_64-linux"},
		{Name: "db", System: "x86_64-linux", Result: Failed, Reason: "build broke", Log: "boom ``` </details>", Made: 3, Time: time.Second},
	}, Notes: []string{"Add this:\n    permissions:\n      id-token: write"}}
}

func TestMarkdownIsOneTable(t *testing.T) {
	r := threeHosts()
	golden(t, "hosts.md", r.Markdown(large))
	golden(t, "hosts.txt", r.Text())
	if got := r.Failed(); !slices.Equal(got, []string{"db"}) {
		t.Errorf("failed: %q", got)
	}
	golden(t, "none.md", Report{Cache: "system", Notes: []string{"Nothing was built."}}.Markdown(large))
}

// hundred hosts got the same update, and one of them more.
func hundred() Report {
	r := Report{Cache: "system"}
	for i := range 100 {
		since := &Since{Pin: fmt.Sprintf("acme/infra/main/h%d", i), Diff: closurediff.Diff{Size: 12_000, Rebuilt: 3, Changes: []closurediff.Change{openssl}}}
		if i == 42 {
			since.Changes = append(since.Changes, closurediff.Change{Name: "zoo", Kind: closurediff.Added, After: []string{"1"}, Size: 1})
			since.Size++
		}
		r.Hosts = append(r.Hosts, Host{Name: fmt.Sprintf("h%d", i), System: "x86_64-linux", Result: Cached, Since: since})
	}
	return r
}

func TestWhatHostsHaveInCommonIsToldOnce(t *testing.T) {
	md := hundred().Markdown(large)
	if n := strings.Count(md, "| openssl |"); n != 1 {
		t.Errorf("openssl is told %d times", n)
	}
	_, changes, _ := strings.Cut(md, "\n\n<details>")
	golden(t, "hundred.md", "<details>"+changes)
}

// GitHub drops a summary that is too long, all of it, and refuses a comment.
func TestMarkdownIsCutAtWholeParts(t *testing.T) {
	r := hundred()
	for i := range r.Hosts {
		r.Hosts[i].Log, r.Hosts[i].Reason = strings.Repeat("line\n", 500), "it broke"
		r.Hosts[i].Result = Failed
	}
	for _, limit := range []int{200, 1000, 4096, 20_000, 65_536, 100_000, 1 << 20} {
		md := r.Markdown(limit)
		if len(md) > limit {
			t.Errorf("%d bytes, the limit is %d", len(md), limit)
		}
		if a, b := strings.Count(md, "<details>"), strings.Count(md, "</details>"); a != b || strings.Count(md, "```")%2 != 0 {
			t.Errorf("limit %d: %d folds begin and %d end", limit, a, b)
		}
		if told := strings.Contains(md, "this page was full"); told != (limit < 1<<20) {
			t.Errorf("limit %d: says so: %v", limit, told)
		}
		if limit >= 20_000 && !strings.Contains(md, "| h99 |") {
			t.Errorf("limit %d: a host is not in the table", limit)
		}
	}
}

// What Escape returns has no character left that Markdown or HTML gives a meaning, but the references, and shows the
// name as it is.
func TestHostileNamesAreNoMarkup(t *testing.T) {
	for _, name := range hostile {
		got := Escape(name)
		bare := strings.NewReplacer(noWidth, "", "&#", "", ";", "").Replace(got)
		if i := strings.IndexAny(bare, "|<>`*_[]()!~#\\$@:&\"'{}\n\r\t\x1b\u202E"); i >= 0 {
			t.Errorf("Escape(%q) = %q holds %q", name, got, bare[i])
		}
		if shown := html.UnescapeString(strings.ReplaceAll(got, noWidth, "")); utf8.ValidString(name) && !strings.ContainsAny(name, "\n\r\x1b\u202E") && shown != name {
			t.Errorf("Escape(%q) shows %q", name, shown)
		}
		row := Report{Hosts: []Host{{Name: name, System: name, Result: Failed, Reason: name, Log: name}}, Notes: []string{name}}
		md := strings.Split(row.Markdown(large), "\n")
		if md[4] == "" || strings.Count(md[4], "|") != len(columns)+1 {
			t.Errorf("%q breaks the table: %q", name, md[4])
		}
		for _, line := range strings.Split(row.Text(), "\n") {
			if strings.ContainsAny(line, "\x1b\r\u202E") {
				t.Errorf("%q prints %q", name, line)
			}
		}
	}
}

func TestLogCannotEndItsFence(t *testing.T) {
	for _, log := range []string{"```", "````\n</details>\n# x", "`", "a\n``````````\nb"} {
		lines := strings.Split(Fence(log), "\n")
		fence := strings.TrimSuffix(lines[0], "text")
		if lines[len(lines)-1] != fence || strings.Contains(strings.Join(lines[1:len(lines)-1], "\n"), fence) {
			t.Errorf("Fence(%q) = %q", log, lines)
		}
	}
}

func TestNumbersReadWell(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_960: "10 kB", 999_499: "999 kB", 999_500: "1.0 MB", 340_000_000: "340 MB", 1 << 62: "4612 PB"} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0.0 s", 9 * time.Second: "9.0 s", 59 * time.Second: "59 s", 185 * time.Second: "3 min 5 s"} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %s, want %s", d, got, want)
		}
	}
}

// calls are where GitHub writes to people and to other issues, in a text as it is shown; links are made of what is written.
var (
	calls = regexp.MustCompile(`(?i)@[a-z0-9]|#[0-9]|gh-[0-9]|www\.`)
	links = regexp.MustCompile(`(?i)www\.|[a-z]://`)
)

// In a pull request's comment a name must not call somebody, nor write into another issue.
func TestHostileNamesCallNobody(t *testing.T) {
	for _, name := range hostile {
		if shown := html.UnescapeString(Escape(name)); calls.MatchString(shown) {
			t.Errorf("%q is shown as %q", name, shown)
		}
		if links.MatchString(Escape(name)) {
			t.Errorf("%q is written as %q", name, Escape(name))
		}
	}
}

// ours is all the markup that a report has.
var ours = regexp.MustCompile(`^(### |\* \*\*|> ?|\|[ |]|<details><summary>)|\*\* failed: |</?summary>|</?details>|\|( ---:?)? ?|\| ---:? `)

// Whatever the names, nothing in a report is markup but the report's own, and a row has as many cells as the head.
func FuzzMarkdown(f *testing.F) {
	for _, h := range hostile {
		f.Add(h, h, h)
	}
	f.Add("a", "```\n</details>", "1 | 2")
	f.Fuzz(func(t *testing.T, name, log, version string) {
		change := closurediff.Change{Name: name, Before: []string{version}, After: []string{name}, Size: 1}
		since := &Since{Pin: name, Diff: closurediff.Diff{Changes: []closurediff.Change{change}, Size: -1}}
		r := Report{Cache: name, Notes: []string{log}, Hosts: []Host{
			{Name: name, System: version, Result: Failed, Reason: log, Log: log, Since: since},
			{Name: "web", Result: Pushed, Since: since},
		}}
		fence := ""
		for line := range strings.Lines(r.Markdown(large)) {
			line = strings.TrimSuffix(line, "\n")
			switch ticks := strings.TrimSuffix(line, "text"); {
			case fence != "" && line == fence:
				fence = ""
				continue
			case fence != "":
				continue
			case len(ticks) >= 3 && strings.Trim(ticks, "`") == "":
				fence = ticks
				continue
			case strings.HasPrefix(line, ">     "): // a note's block of code
				continue
			}
			if strings.HasPrefix(line, "|") {
				if n := strings.Count(line, "|"); n != len(columns)+1 && n != 5 {
					t.Errorf("a row of %d: %q", n-1, line)
				}
			}
			bare := regexp.MustCompile(`&#[0-9]+;`).ReplaceAllString(ours.ReplaceAllString(line, ""), "")
			if i := strings.IndexAny(bare, "|<>`*_[]()!~#\\$@:&\"'{}\r\t\x1b\u202E"); i >= 0 {
				t.Errorf("%q holds %q", line, bare[i])
			}
		}
		if fence != "" {
			t.Error("a fence does not end")
		}
	})
}

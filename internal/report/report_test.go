package report

import (
	"html"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var hostile = []string{
	"a::error::x", "a|b", "|", "<img src=x onerror=alert(1)>", "`x`", "**x**", "_x_", "[x](javascript:y)", "![x](http://e/x)", "x\ny", "x\n\n# head", "x\r\n| a |",
	"$(id)", "&lt;b&gt;", "\\|", "~~x~~", "@acme/team", "https://evil.example", "\x1b[31mred", "a\u202Eb", "\xff", "---", "> x", "    code", "$x$", "#12",
}

func TestMarkdownIsOneTable(t *testing.T) {
	r := Report{Server: "https://cache.example", Cache: "system", Requests: 7, Time: 75 * time.Second, Hosts: []Host{
		{Name: "web", System: "x86_64-linux", Result: Pushed, Paths: 130, Pushed: 12, Bytes: 3_400_000, Time: 12300 * time.Millisecond, StorePath: "/nix/store/x"},
		{Name: "pi", System: "aarch64-linux", Result: Skipped, Reason: "this machine builds x86_64-linux"},
		{Name: "db", System: "x86_64-linux", Result: Failed, Reason: "build broke", Log: "boom ``` </details>", Time: time.Second},
	}, Notes: []string{"Add this:\n    permissions:\n      id-token: write"}}
	want := `### attic-action&#58; cache system

| host | system | result | paths | pushed | bytes | time |
| --- | --- | --- | ---: | ---: | ---: | ---: |
| web | x86&#95;64-linux | pushed | 130 | 12 | 3.4 MB | 12 s |
| pi | aarch64-linux | skipped |  |  |  |  |
| db | x86&#95;64-linux | failed |  |  |  | 1.0 s |

3 hosts&#58; 1 pushed, 1 skipped, 1 failed; 12 paths and 3.4 MB sent in 7 requests, 1 min 15 s

* **pi** skipped: this machine builds x86&#95;64-linux

* **db** failed: build broke

<details><summary>last log lines of db</summary>

` + "````text\nboom ``` </details>\n````" + `
</details>

> Add this&#58;
>
>     permissions:
>       id-token: write
`
	if got := r.Markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := r.Failed(); !slices.Equal(got, []string{"db"}) {
		t.Errorf("failed: %q", got)
	}
	text := `host  system         result   paths  pushed  bytes   time
web   x86_64-linux   pushed   130    12      3.4 MB  12 s
pi    aarch64-linux  skipped
db    x86_64-linux   failed                          1.0 s
3 hosts: 1 pushed, 1 skipped, 1 failed; 12 paths and 3.4 MB sent in 7 requests, 1 min 15 s
pi skipped: this machine builds x86_64-linux
db failed: build broke
Add this:
    permissions:
      id-token: write
`
	if got := r.Text(); got != text {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
}

// What Escape returns has no character left that Markdown or HTML gives a meaning, but the references, and shows the
// name as it is.
func TestHostileNamesAreNoMarkup(t *testing.T) {
	for _, name := range hostile {
		got := Escape(name)
		bare := strings.NewReplacer("&#", "", ";", "").Replace(got)
		if i := strings.IndexAny(bare, "|<>`*_[]()!~#\\$@:&\"'{}\n\r\t\x1b\u202E"); i >= 0 {
			t.Errorf("Escape(%q) = %q holds %q", name, got, bare[i])
		}
		if shown := html.UnescapeString(got); utf8.ValidString(name) && !strings.ContainsAny(name, "\n\r\x1b\u202E") && shown != name {
			t.Errorf("Escape(%q) shows %q", name, shown)
		}
		row := Report{Hosts: []Host{{Name: name, System: name, Result: Failed, Reason: name, Log: name}}, Notes: []string{name}}
		md := strings.Split(row.Markdown(), "\n")
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

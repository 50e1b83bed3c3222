package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	attackRow = regexp.MustCompile(`(?m)^\| (\d+) \|.*$`)
	testName  = regexp.MustCompile("`((?:cmd/)?[a-z/0-9]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)(?:/([^`]+))?`")
)

// A table of attacks is worth as much as the tests that it names: each must be there, and each row must
// name one.
func TestAttacksNameTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := attackRow.FindAllString(string(text), -1)
	if len(rows) < 60 {
		t.Errorf("%d attacks in docs/security.md, want at least 60", len(rows))
	}
	for _, row := range rows {
		cells := strings.Split(strings.ReplaceAll(row, `\|`, "/"), "|")
		if len(cells) != 7 {
			t.Errorf("%d cells, want 5: %s", len(cells)-2, row)
			continue
		}
		tests := testName.FindAllStringSubmatch(cells[5], -1)
		if len(tests) == 0 {
			t.Errorf("no test: %s", row)
		}
		for _, m := range tests {
			checkTest(t, m[1], m[2], m[3])
		}
	}
}

// checkTest looks for a test's function, and for the name of its subtest among the texts of its package's
// tests.
func checkTest(t *testing.T, pkg, name, sub string) {
	t.Helper()
	if !strings.HasPrefix(pkg, "cmd/") {
		pkg = "internal/" + pkg
	}
	files, err := filepath.Glob(filepath.Join("../..", pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(src), "\nfunc "+name+"(") && (sub == "" || strings.Contains(string(src), `"`+sub+`"`)) {
			return
		}
	}
	t.Errorf("docs/security.md names %s.%s %s, which is not there", pkg, name, sub)
}

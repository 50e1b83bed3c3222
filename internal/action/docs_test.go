package action

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs is docs/action.md from one heading to the next of its level.
func docs(t *testing.T, heading string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/action.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/action.md has no %s", heading)
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

var inputRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]*) \\| `([^|]*)` \\| ")

// Each input is there, in action.yml's order, with its default and with an example that it takes.
func TestDocsHaveEachInputWithItsDefaultAndAnExample(t *testing.T) {
	_, defaults := declared(t, "inputs")
	var got []string
	for _, m := range inputRow.FindAllStringSubmatch(docs(t, "Inputs"), -1) {
		name, example := m[1], m[3]
		got = append(got, name)
		if want := defaults[name]; want != "" && m[2] != "`"+want+"`" {
			t.Errorf("docs/action.md has the default %s for %s, action.yml has %s", m[2], name, want)
		}
		i := slices.IndexFunc(inputs, func(i input) bool { return i.name == name })
		if i < 0 || strings.Contains(example, "${{") {
			continue
		}
		if err := inputs[i].read(&Inputs{}, example); err != nil {
			t.Errorf("docs/action.md's example %q of %s: %v", example, name, err)
		}
	}
	if !slices.Equal(got, inputNames()) {
		t.Errorf("docs/action.md lists the inputs %q, the code has %q", got, inputNames())
	}
}

func TestDocsHaveEachOutput(t *testing.T) {
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(docs(t, "Outputs"), -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, OutputNames) {
		t.Errorf("docs/action.md lists the outputs %q, the code has %q", got, OutputNames)
	}
}

// said are all texts in the code of these folders.
func said(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			switch {
			case strings.Contains(file, "_test.") || strings.Contains(file, ".test."):
			case strings.HasSuffix(file, ".js"):
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				all.Write(text)
			case strings.HasSuffix(file, ".go"):
				all.WriteString(strings.Join(literals(t, file, func(ast.Node) bool { return true }), "\n"))
			}
		}
	}
	return all.String()
}

// literals are the texts of a file within the nodes that are wanted; "a" + "b" is one text.
func literals(t *testing.T, file string, want func(ast.Node) bool) []string {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if n == nil || !want(n) {
			return n != nil
		}
		ast.Inspect(n, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				if text, whole := literalOf(e); text != "" {
					texts = append(texts, text)
					return !whole
				}
			}
			return true
		})
		return false
	})
	return texts
}

// literalOf is the text that an expression holds; whole says that it holds nothing else.
func literalOf(e ast.Expr) (text string, whole bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ = strconv.Unquote(e.Value)
			return text, true
		}
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			x, allX := literalOf(e.X)
			y, allY := literalOf(e.Y)
			return x + y, allX && allY
		}
	}
	return "", false
}

// What the page quotes is what the program says: a message that was reworded is found no more.
func TestDocsQuoteMessagesThatExist(t *testing.T) {
	all := said(t, "internal/action", "internal/github", "internal/nixcli", "internal/client", "cmd/action", "action")
	rows, quotes := 0, 0
	for line := range strings.Lines(docs(t, "Troubleshooting")) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || cell == "message" || cell == "---" {
			continue
		}
		rows++
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
			quotes++
			if !strings.Contains(all, m[1]) {
				t.Errorf("docs/action.md quotes %q, which nothing says", m[1])
			}
		}
	}
	if rows < 40 || quotes < rows {
		t.Errorf("%d rows with %d messages: the page is not read as it is written", rows, quotes)
	}
}

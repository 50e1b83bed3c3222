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
		texts = append(texts, textsIn(n)...)
		return false
	})
	return texts
}

func textsIn(n ast.Node) (texts []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		e, ok := n.(ast.Expr)
		if !ok {
			return true
		}
		text, whole := literalOf(e)
		if text != "" {
			texts = append(texts, text)
		}
		return text == "" || !whole
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

// told are the functions whose texts people see.
var told = []string{"errors.New", "fmt.Errorf", "Warning", "Notice", "note", "skip"}

// glue are messages of which people need the part that follows, or that follow one which is explained.
var glue = []string{
	"this server pins nothing", "the cache does not list ", "there is no cache to ask for ", "no cache that is asked knows ", "it takes more than ",
	"the answer is longer than ", " skipped ",
	"log in at ", "exchange the ID token: %w", "ask how to log in: ", "read the answer: ", "push: ", "input %s: ", "read %s: ", "read pin ",
	"set output ", "make a folder for it: ", "the server's answer: ", "input attrs: %s: ", "%s: %s (%w)", "1 host failed: ",
}

// What an action of ours says to people, the page explains. A new message is a new line there.
func TestDocsExplainEachMessage(t *testing.T) {
	page := docs(t, "Troubleshooting")
	var quotes []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(page, -1) {
		quotes = append(quotes, m[1])
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, call := range calls(t, file) {
			text := strings.Join(call, " ")
			words := len(strings.Fields(text))
			known := slices.ContainsFunc(quotes, func(q string) bool { return len(q) > 8 && strings.Contains(text, q) }) ||
				slices.ContainsFunc(glue, func(g string) bool { return strings.HasPrefix(text, g) })
			if words > 4 && !known {
				t.Errorf("%s says %q, which docs/action.md does not explain", file, text)
			}
		}
	}
}

// calls are the texts of each call in a file that tells people something.
func calls(t *testing.T, file string) (texts [][]string) {
	t.Helper()
	literals(t, file, func(n ast.Node) bool {
		if isTold(n) {
			texts = append(texts, textsIn(n))
		}
		return false
	})
	return texts
}

func isTold(n ast.Node) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	name := f.Sel.Name
	if x, ok := f.X.(*ast.Ident); ok && (x.Name == "errors" || x.Name == "fmt") {
		name = x.Name + "." + name
	}
	return slices.Contains(told, name)
}

// What the reusable workflow hands on is what the action takes, and means the same if it is not given.
func TestReusableWorkflowHandsInputsOn(t *testing.T) {
	text, err := os.ReadFile("../../.github/workflows/build-hosts.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, defaults := declared(t, "inputs")
	steps := regexp.MustCompile(`(?m)^          ([a-z-]+): (?:\$\{\{ (\w+)\.([a-z-]+) \}\}|.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(steps) < 15 {
		t.Fatalf("%d lines hand something on", len(steps))
	}
	for _, m := range steps {
		if m[1] == "persist-credentials" {
			continue
		}
		if !slices.Contains(inputNames(), m[1]) || m[3] != "" && m[1] != m[3] {
			t.Errorf("it hands on %s: %s.%s", m[1], m[2], m[3])
		}
		own := regexp.MustCompile(`(?m)^      ` + m[1] + `:\n(?:        .*\n)*?        default: "?(.*?)"?\n`).FindSubmatch(text)
		if own != nil && string(own[1]) != defaults[m[1]] {
			t.Errorf("its default of %s is %s, the action's %s", m[1], own[1], defaults[m[1]])
		}
	}
}

package action

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/org/attic-action/internal/github"
)

// declared is what action.yml has under inputs or outputs: names and, of inputs, defaults.
func declared(t *testing.T, section string) (names []string, defaults map[string]string) {
	t.Helper()
	text, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?m)^` + section + `:\n((?:  .*\n|\n)+)`).FindSubmatch(text)
	if block == nil {
		t.Fatalf("action.yml has no %s", section)
	}
	defaults = map[string]string{}
	for line := range strings.Lines(string(block[1])) {
		if m := regexp.MustCompile(`^  ([a-z-]+):$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			names = append(names, m[1])
		}
		if m := regexp.MustCompile(`^    default: "?(.*?)"?$`).FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			defaults[names[len(names)-1]] = m[1]
		}
	}
	return names, defaults
}

func inputNames() []string {
	var names []string
	for _, i := range inputs {
		names = append(names, i.name)
	}
	return names
}

// action.yml, which a runner reads, and the code, which runs, name the same inputs and outputs.
func TestActionYMLDeclaresWhatTheCodeReads(t *testing.T) {
	if got, _ := declared(t, "inputs"); !slices.Equal(got, inputNames()) {
		t.Errorf("inputs of action.yml are %q, the code has %q", got, inputNames())
	}
	if got, _ := declared(t, "outputs"); !slices.Equal(got, OutputNames) {
		t.Errorf("outputs of action.yml are %q, the code has %q", got, OutputNames)
	}
}

// A plain text with a colon in it is no text, and a runner refuses the whole file.
func TestActionYMLHasOnlyPlainTextsThatYAMLTakesForOne(t *testing.T) {
	text, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		m := regexp.MustCompile(`^ *[a-z-]+: ([A-Za-z(].*)`).FindStringSubmatch(line)
		if m != nil && (strings.Contains(m[1], ": ") || strings.Contains(m[1], " #")) {
			t.Errorf("it needs quotes: %s", line)
		}
	}
}

// An input that is not given means what action.yml says is its default.
func TestActionYMLHasTheCodesDefaults(t *testing.T) {
	_, defaults := declared(t, "inputs")
	read := func(env map[string]string) Inputs {
		t.Helper()
		env["INPUT_SERVER"], env["INPUT_CACHE"] = "https://c.example", "system"
		in, err := ReadInputs(&github.Runner{Getenv: func(k string) string { return env[k] }})
		if err != nil {
			t.Fatal(err)
		}
		in.Token, in.GitHub = github.Secret{}, github.Secret{} // a pointer, which is another one each time
		return in
	}
	given := map[string]string{}
	for name, value := range defaults {
		given[github.InputVariable(name)] = value
	}
	if got, want := read(given), read(map[string]string{}); !reflect.DeepEqual(got, want) {
		t.Errorf("with the defaults of action.yml the inputs are\n%+v\nand without any\n%+v", got, want)
	}
}

// The README's table of inputs has each of them, with its default, in this order.
func TestREADMEListsTheInputs(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, defaults := declared(t, "inputs")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([^|]*) \\| ").FindAllStringSubmatch(string(text), -1) {
		got = append(got, m[1])
		if want := defaults[m[1]]; want != "" && m[2] != "`"+want+"`" {
			t.Errorf("README.md has the default %s for %s, action.yml has %s", m[2], m[1], want)
		}
	}
	if !slices.Equal(got, inputNames()) {
		t.Errorf("README.md lists the inputs %q, the code has %q", got, inputNames())
	}
}

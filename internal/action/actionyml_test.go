package action

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// action.yml, which a runner reads, and the code, which runs, name the same inputs and outputs.
func TestActionYMLDeclaresWhatTheCodeReads(t *testing.T) {
	text, err := os.ReadFile("../../action.yml")
	if err != nil {
		t.Fatal(err)
	}
	for section, want := range map[string][]string{"inputs": InputNames, "outputs": OutputNames} {
		block := regexp.MustCompile(`(?m)^` + section + `:\n((?:  .*\n|\n)+)`).FindSubmatch(text)
		if block == nil {
			t.Fatalf("action.yml has no %s", section)
		}
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+):$`).FindAllSubmatch(block[1], -1) {
			got = append(got, string(m[1]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s of action.yml are %q, the code has %q", section, got, want)
		}
	}
}

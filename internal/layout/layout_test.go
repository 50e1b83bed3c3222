// Package layout keeps the project's arrows pointing down. The order of the floors is the drawing in
// docs/architecture.md; a package may import packages of lower floors only.
package layout

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/org/attic-action/"

// floors, from the ground up. Packages on one floor do not know each other.
var floors = [][]string{
	{"internal/nix", "internal/spool", "internal/jsonscan", "internal/audit", "internal/limit", "internal/peer", "internal/admin", "internal/budget", "internal/chores", "internal/unpack", "internal/foresight"},
	{"internal/nar", "internal/waiting", "internal/chunk", "internal/blob", "internal/closurediff"},
	{"internal/pack", "internal/blob/disk", "internal/blob/s3", "internal/blob/near", "internal/seal", "internal/token"},
	{"internal/ledger", "internal/api", "internal/trust", "internal/github", "internal/github/repo", "internal/github/comment", "internal/report"},
	{"internal/meta", "internal/oidc", "internal/nixcli", "internal/nixconf", "internal/config"},
	{"internal/depot", "internal/exchange", "internal/client", "internal/issued", "internal/trustbook", "internal/roots", "internal/checkpoint", "internal/follow"},
	{"internal/push", "internal/server", "internal/recovery", "internal/importer", "internal/exporter", "internal/gc/rewrite"},
	{"internal/action", "internal/verify", "internal/gc"},
	{"cmd/action", "cmd/server"},
}

// tools are programs and helpers of tests; they may import anything, and nothing that ships imports
// them.
var tools = []string{
	"internal/bench", "internal/blob/blobtest", "internal/blob/s3test", "internal/oidctest", "internal/oidctest/issuer",
	"internal/server/servertest", "internal/layout", "internal/e2e", "internal/e2e/throttle", "internal/soak",
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, p)
	}
}

func TestArrowsPointDown(t *testing.T) {
	floor := map[string]int{}
	for i, names := range floors {
		for _, name := range names {
			floor[name] = i
		}
	}
	tool := map[string]bool{}
	for _, name := range tools {
		tool[name] = true
	}
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if tool[name] {
			continue
		}
		from, known := floor[name]
		if !known {
			t.Errorf("%s has no floor; give it one here and in docs/architecture.md", name)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if ours && (tool[to] || floor[to] >= from) {
				t.Errorf("%s imports %s, which is not below it", name, to)
			}
		}
	}
}

// A client that linked the database or the server would be three times as large, and could do what
// only a server may.
func TestActionLinksNoServer(t *testing.T) {
	for _, p := range list(t) {
		if p.ImportPath != module+"cmd/action" {
			continue
		}
		for _, dep := range p.Deps {
			for _, banned := range []string{"modernc.org/sqlite", "github.com/aws/", "database/sql", module + "internal/meta", module + "internal/depot", module + "internal/server"} {
				if strings.HasPrefix(dep, banned) {
					t.Errorf("cmd/action links %s", dep)
				}
			}
		}
		return
	}
	t.Fatal("cmd/action is not among the packages")
}

// A program that can run a template keeps every exported method of everything it links, for templates
// call methods by name: of the S3 SDK alone that is eight megabytes.
func TestNoProgramRunsTemplates(t *testing.T) {
	for _, dir := range []string{"../../cmd", "../../internal"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			src, err := os.ReadFile(path)
			for _, use := range []string{"SetVersionTemplate(", "SetUsageTemplate(", "SetHelpTemplate(", "SetErrPrefixTemplate(", `"text/template"`, `"html/template"`, "MethodByName("} {
				if strings.Contains(string(src), use) {
					t.Errorf("%s uses %s", path, use)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

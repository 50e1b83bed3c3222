package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// noise is a file of bytes that do not compress, the same in every run.
var noise = sync.OnceValues(func() (string, error) {
	file := filepath.Join(rig.dir, "noise")
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{'e', '2', 'e'}), noiseSize)
	return file, err
})

const noiseSize = 160 << 20

// keep protects store paths until the run ends, and has them deleted then.
func keep(t testing.TB, paths ...string) {
	t.Helper()
	rig.mu.Lock()
	rig.roots++
	root := filepath.Join(rig.dir, fmt.Sprintf("root-%d", rig.roots))
	rig.paths = append(rig.paths, paths...)
	rig.mu.Unlock()
	run(t, environment(t.TempDir()), "nix-store", append([]string{"--realise", "--add-root", root, "--indirect"}, paths...)...)
}

// addTree puts files into the store: name in the tree, contents. A name that ends in "*" is executable.
func addTree(t testing.TB, name string, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name+"-"+rig.salt)
	for file, content := range files {
		file, executable := strings.CutSuffix(filepath.Join(dir, file), "*")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if executable {
			mode = 0o755
		}
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := run(t, environment(t.TempDir()), "nix-store", "--add", dir)
	keep(t, path)
	return path
}

// build builds the paths of a Nix expression, which is a function of a salt that changes all hashes and
// no contents, and of the noise file; it returns its outputs in order.
func build(t testing.TB, salt, expr string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "paths.nix")
	if err := os.WriteFile(file, []byte(prelude+expr), 0o644); err != nil {
		t.Fatal(err)
	}
	blob := must(noise())(t)
	env := environment(t.TempDir())
	drvs := strings.Fields(run(t, env, "nix-instantiate", "--argstr", "salt", rig.salt+salt, "--argstr", "noise", blob, file))
	paths := strings.Fields(run(t, env, "nix-store", append([]string{"--realise"}, drvs...)...))
	keep(t, paths...)
	all := append(closure(t, paths...), closure(t, drvs...)...)
	rig.mu.Lock()
	rig.paths = append(rig.paths, all...)
	rig.mu.Unlock()
	return paths
}

// prelude opens the function that expressions are.
const prelude = `
{ salt, noise }:
let
  # make NAME SCRIPT: a store path that a shell script makes.
  make = name: script: derivation {
    inherit name salt; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "set -e; PATH=/usr/bin:/bin; ${script}" ];
  };
  # bytes FROM COUNT: that many bytes of noise.
  bytes = from: count: "{ tail -c +$((${toString from} + 1)) ${noise} | head -c ${toString count}; }";
  range = n: builtins.genList (i: i) n;
  lines = builtins.concatStringsSep "\n";
in
`

// network is a closure of 60 paths and 47 MB: small ones, each referring to some of those before it, that
// fill two shared packs; and three with packs of their own, which need nothing else.
const network = `
let
  node = i: make "node-${toString i}" ''
    mkdir -p $out/bin
    ${bytes (i * 600000) 550000} >$out/data
    printf '#!/bin/sh\nexec %s/bin/run\n' $out >$out/bin/run
    chmod +x $out/bin/run
    ${lines (map (d: ''
      ln -sn ${d} $out/dep-${baseNameOf d.name}
      echo ${d}/bin/run >>$out/deps'') (deps i))}
  '';
  deps = i: map (builtins.elemAt nodes) (builtins.filter (j: j >= 0) (unique [ (i - 1) (if i > 3 then i / 2 else -1) (i - 7) ]));
  unique = builtins.foldl' (seen: x: if builtins.elem x seen then seen else seen ++ [ x ]) [ ];
  own = i: make "own-${toString i}" ''
    mkdir $out
    { ${bytes (34000000 + i * 8000000) 3000000}; echo $out; ${bytes (39000000 + i * 8000000) 2500000}; } >$out/blob
  '';
  nodes = map node (range 56);
in make "network" "echo ${toString nodes} ${toString (map own (range 3))} >$out"
`

// system is a closure with what NARs can be: symlinks, executables, empty files and directories, names
// that are not ASCII; a NAR of 9 MiB, one of more than 200 MiB that compresses, and one of 150 MiB that
// does not, so that it has own packs in a row. All of them refer to themselves and to each other.
const system = `
let
  base = make "base" ''
    mkdir -p $out/bin $out/empty "$out/na me/ünïcode"
    printf '#!/bin/sh\necho base\n' >$out/bin/tool
    chmod +x $out/bin/tool
    ln -s tool $out/bin/alias
    ln -s /nowhere $out/dangling
    : >"$out/na me/ünïcode/empty file"
    echo $out >$out/self
  '';
  lib = make "lib" ''
    mkdir -p $out/lib
    { ${bytes 157500000 5000000}; echo ${base}/bin/tool $out/lib; ${bytes 162500000 4500000}; } >$out/lib/lib.so.1
    ln -s lib.so.1 $out/lib/lib.so
  '';
  text = make "text" ''
    mkdir $out
    { seq 1 12000000; echo ${lib}/lib/lib.so $out; seq 12000001 25000000; } >$out/table
  '';
  data = make "data" ''
    { ${bytes 0 80000000}; echo ${base} ${lib}; ${bytes 80000000 77000000}; } >$out
  '';
in make "system" ''
  mkdir $out
  ln -s ${base} $out/base
  ln -s ${lib} $out/lib
  ln -s ${text} $out/text
  ln -s ${data} $out/data
  echo $out >$out/self
''
`

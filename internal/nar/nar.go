// Package nar writes and checks NARs, Nix's archive of one file system object. An object has one NAR
// and no other, so its hash names the contents.
//
// A NAR is a row of strings. Each is its length as 8 bytes, least first, then its bytes, then zeros
// up to a multiple of 8:
//
//	archive   = "nix-archive-1" node
//	node      = "(" "type" ( regular | symlink | directory ) ")"
//	regular   = "regular" [ "executable" "" ] "contents" <bytes>
//	symlink   = "symlink" "target" <target>
//	directory = "directory" { "entry" "(" "name" <name> "node" node ")" }   names ascend bytewise
package nar

const (
	magic      = "nix-archive-1"
	bufferSize = 256 << 10
	// caseHackSuffix follows a name, with a number, where Nix unpacked two names that differ only in
	// case onto a file system that does not tell them apart.
	caseHackSuffix = "~nix~case~hack~"
)

// zeros are the most that can stand behind a string, and one more.
var zeros [8]byte

// padding is the number of zeros behind n bytes.
func padding(n uint64) int { return int(-n & 7) }

package nixcli

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// Place is where Nix says that something is wrong.
type Place struct {
	Source       string // what File lies in: a store path, or a reference such as github:acme/infra; empty: File is absolute
	File         string // path within Source
	Line, Column int    // from 1; 0: Nix did not say
}

// The forms, each on a line of its own. Nix quotes lines of the source as well, but behind their numbers.
//
//	at /nix/store/…-source/flake.nix:12:3:      2.8, and path: in later versions
//	at /home/runner/work/infra/flake.nix:12:3:  a git tree in later versions
//	at «github:acme/infra/4f2c…»/flake.nix:12:3:
//	- In `/nix/store/…-source/hosts/web.nix'    where a module defines what an option does not take
var (
	atPlace = regexp.MustCompile(`^(?:… )?(?:error: )?at («[^»]+»)?(/[^\x00]+):([0-9]{1,7}):([0-9]{1,7}):?$`)
	inPlace = regexp.MustCompile("^- In `(/[^\\x00`']+)'")
)

// storeFile is a file in a store path.
var storeFile = regexp.MustCompile(`^(/.*?/[0-9a-df-np-sv-z]{32}-[^/]+)/(.+)$`)

// maxPlaces bounds what Places returns.
const maxPlaces = 50

// Places are the places that an error of Nix names, in its order: the last ones are nearest to what is wrong. They come
// from the flake, so they may be anything.
func Places(err error) []Place {
	failed, ok := errors.AsType[*CommandError](err)
	if !ok {
		return nil
	}
	var places []Place
	for _, line := range failed.Stderr {
		if p, ok := parsePlace(strings.TrimSpace(line)); ok {
			places = append(places, p)
		}
	}
	return places[max(0, len(places)-maxPlaces):]
}

func parsePlace(line string) (Place, bool) {
	if m := inPlace.FindStringSubmatch(line); m != nil {
		return inSource("", m[1]), true
	}
	m := atPlace.FindStringSubmatch(line)
	if m == nil {
		return Place{}, false
	}
	p := inSource(strings.Trim(m[1], "«»"), m[2])
	p.Line, _ = strconv.Atoi(m[3]) // digits, and few
	p.Column, _ = strconv.Atoi(m[4])
	return p, true
}

func inSource(source, file string) Place {
	if source != "" {
		return Place{Source: source, File: strings.TrimPrefix(file, "/")}
	}
	if m := storeFile.FindStringSubmatch(file); m != nil {
		return Place{Source: m[1], File: m[2]}
	}
	return Place{File: file}
}

package budget

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// unknown is what a machine is taken to have that says nothing about itself.
const unknown = 512 << 20

// Machine is how many bytes this process may use, and who says so: the least of GOMEMLIMIT, the limits of
// its cgroup and of all that it lies in (version 2: memory.max, memory.high; version 1:
// memory.limit_in_bytes) and the physical memory. Call it before anybody sets another limit of Go's.
func Machine() (limit int64, source string) {
	goLimit := int64(math.MaxInt64)
	if os.Getenv("GOMEMLIMIT") != "" {
		goLimit = debug.SetMemoryLimit(-1) // a negative number only asks; the runtime has parsed it
	}
	return machine(os.DirFS("/"), goLimit, physical())
}

// machine looks at the system in root. Numbers of 0 or less, or too large for an int64, are none.
func machine(root fs.FS, goLimit, physical int64) (limit int64, source string) {
	limit = math.MaxInt64
	take := func(n int64, from string) {
		if n > 0 && n < limit {
			limit, source = n, from
		}
	}
	take(goLimit, "GOMEMLIMIT")
	for _, file := range limitFiles(root) {
		take(readLimit(root, file), "/"+file)
	}
	if physical <= 0 {
		physical = memTotal(root)
	}
	take(physical, "physical memory")
	if source == "" {
		return unknown, "a guess: neither the system nor GOMEMLIMIT says"
	}
	return limit, source
}

// limitFiles are the files that may hold a limit of this process's memory. What is not there is no limit.
func limitFiles(root fs.FS) []string {
	mounts := cgroupMounts(root)
	var files []string
	eachLine(root, "proc/self/cgroup", func(line string) {
		// hierarchy:controllers:path, where version 2 has 0 and no controllers
		id, rest, _ := strings.Cut(line, ":")
		controllers, group, ok := strings.Cut(rest, ":")
		v2 := id == "0" && controllers == ""
		if !ok || !v2 && !slices.Contains(strings.Split(controllers, ","), "memory") {
			return
		}
		names := []string{"memory.limit_in_bytes"}
		if v2 {
			names = []string{"memory.max", "memory.high"}
		}
		for _, m := range mounts {
			if m.v2 != v2 {
				continue
			}
			for _, dir := range m.up(group) {
				for _, name := range names {
					files = append(files, path.Join(dir, name))
				}
			}
		}
	})
	return files
}

// cgroupMount is where a hierarchy that counts memory is to be seen.
type cgroupMount struct {
	v2   bool
	base string // the cgroup that the mount shows; not "/" inside a container that has no namespace of its own
	dir  string // where, without the leading slash
}

// cgroupMounts reads mountinfo: "36 35 98:0 /base /dir opts shared:1 - cgroup cgroup rw,memory".
func cgroupMounts(root fs.FS) []cgroupMount {
	var mounts []cgroupMount
	eachLine(root, "proc/self/mountinfo", func(line string) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 {
			return
		}
		v2 := r[0] == "cgroup2"
		if !v2 && (r[0] != "cgroup" || !slices.Contains(strings.Split(r[2], ","), "memory")) {
			return
		}
		mounts = append(mounts, cgroupMount{v2: v2, base: clean(unescape(l[3])), dir: strings.TrimPrefix(clean(unescape(l[4])), "/")})
	})
	return mounts
}

// up lists the folders of a cgroup and of all those that it lies in, as far as the mount shows them.
func (m cgroupMount) up(group string) []string {
	group = clean(group)
	inside, ok := strings.CutPrefix(group, strings.TrimSuffix(m.base, "/"))
	if !ok || inside != "" && inside[0] != '/' {
		inside = "" // the mount shows another part of the tree: its top is where the limit would be
	}
	var dirs []string
	for at := clean(inside); ; at = path.Dir(at) {
		dirs = append(dirs, path.Join(".", m.dir, at))
		if at == "/" {
			return dirs
		}
	}
}

// clean makes any text an absolute path without dots.
func clean(p string) string { return path.Clean("/" + p) }

// unescape undoes mountinfo's octal escapes of spaces and the like.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// readLimit reads a file of one number; "max", nonsense and no file at all are 0.
func readLimit(root fs.FS, file string) int64 {
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// memTotal reads the physical memory from /proc/meminfo.
func memTotal(root fs.FS) (n int64) {
	eachLine(root, "proc/meminfo", func(line string) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil && kib > 0 && kib < math.MaxInt64>>10 {
				n = kib << 10
			}
		}
	})
	return n
}

// eachLine calls fn with the lines of a file, if there is one.
func eachLine(root fs.FS, file string, fn func(line string)) {
	b, err := fs.ReadFile(root, file)
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		fn(lines.Text())
	}
}

package budget

import (
	"math"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	for name, text := range files {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const (
	meminfo = "MemTotal:       24683844 kB\nMemFree:        21866548 kB\n"
	v2mount = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
	v1mount = "25 22 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n36 22 0:33 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
)

func TestMachineTakesTheLeastLimit(t *testing.T) {
	const no = math.MaxInt64
	for name, tt := range map[string]struct {
		files    map[string]string
		goLimit  int64
		physical int64
		want     int64
		source   string
	}{
		"nothing is known":    {nil, no, 0, unknown, "a guess: neither the system nor GOMEMLIMIT says"},
		"physical memory":     {map[string]string{"proc/meminfo": meminfo}, no, 0, 24683844 << 10, "physical memory"},
		"told by the system":  {nil, no, 8 << 30, 8 << 30, "physical memory"},
		"GOMEMLIMIT is least": {map[string]string{"proc/meminfo": meminfo}, 100 << 20, 0, 100 << 20, "GOMEMLIMIT"},
		"version 2": {map[string]string{"proc/meminfo": meminfo, "proc/self/mountinfo": v2mount, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "268435456\n", "sys/fs/cgroup/a/b/memory.high": "max\n"}, no, 0, 256 << 20, "/sys/fs/cgroup/a/b/memory.max"},
		"version 2, high": {map[string]string{"proc/self/mountinfo": v2mount, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "268435456\n", "sys/fs/cgroup/a/memory.high": "134217728\n"}, no, 0, 128 << 20, "/sys/fs/cgroup/a/memory.high"},
		"a parent's": {map[string]string{"proc/self/mountinfo": v2mount, "proc/self/cgroup": "0::/a/b/c\n",
			"sys/fs/cgroup/a/b/c/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1048576\n"}, no, 0, 1 << 20, "/sys/fs/cgroup/a/memory.max"},
		"version 1 beside an empty version 2": {map[string]string{"proc/self/mountinfo": v1mount + v2mount, "proc/self/cgroup": "4:memory:/x\n1:cpu:/y\n0::/\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "268435456\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, no, 0, 256 << 20, "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"},
		"version 1, two controllers": {map[string]string{"proc/self/mountinfo": v1mount, "proc/self/cgroup": "4:cpu,memory:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "268435456\n"}, no, 0, 256 << 20, "/sys/fs/cgroup/memory/x/memory.limit_in_bytes"},
		"a container without a namespace of its own": {map[string]string{
			"proc/self/mountinfo": "36 22 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "proc/self/cgroup": "4:memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n"}, no, 0, 256 << 20, "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
		"outside of its namespace": {map[string]string{"proc/self/mountinfo": v2mount, "proc/self/cgroup": "0::/../../other\n",
			"sys/fs/cgroup/memory.max": "268435456\n"}, no, 0, 256 << 20, "/sys/fs/cgroup/memory.max"},
		"a mount with a space in it": {map[string]string{"proc/self/mountinfo": `30 24 0:26 / /my\040groups rw - cgroup2 c rw`, "proc/self/cgroup": "0::/\n",
			"my groups/memory.max": "268435456\n"}, no, 0, 256 << 20, "/my groups/memory.max"},
		"nonsense": {map[string]string{"proc/self/mountinfo": "\n - \na b - c\n" + v2mount, "proc/self/cgroup": "\n::\n0:\nx:y:z\n0::a\x00b\n0::\n",
			"proc/meminfo": "MemTotal: -5 kB\nMemTotal: 99999999999999999999 kB\nMemTotal: 9223372036854775807 kB\nMemTotal:\n", "sys/fs/cgroup/memory.max": "-7"},
			no, 0, unknown, "a guess: neither the system nor GOMEMLIMIT says"},
	} {
		t.Run(name, func(t *testing.T) {
			got, source := machine(tree(tt.files), tt.goLimit, tt.physical)
			if got != tt.want || source != tt.source {
				t.Errorf("got %d by %s, want %d by %s", got, source, tt.want, tt.source)
			}
		})
	}
}

func TestThisMachineHasMemory(t *testing.T) {
	if n, source := Machine(); n < 1<<20 || source == "" {
		t.Errorf("got %d by %q", n, source)
	}
}

// Whatever a container's runtime has written there: a number above 0 and no panic.
func FuzzMachine(f *testing.F) {
	f.Add("0::/a\n", v2mount, "268435456\n", meminfo)
	f.Add("4:memory:/../x\n", v1mount, "max", "MemTotal: 1 kB")
	f.Fuzz(func(t *testing.T, group, mounts, limit, info string) {
		root := tree(map[string]string{"proc/self/cgroup": group, "proc/self/mountinfo": mounts, "proc/meminfo": info,
			"sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory/memory.limit_in_bytes": limit})
		if n, source := machine(root, math.MaxInt64, 0); n <= 0 || source == "" {
			t.Errorf("got %d by %q", n, source)
		}
	})
}

func TestPlanStaysBelowTheLimit(t *testing.T) {
	for _, limit := range []int64{1, 64 << 20, 220 << 20, 256 << 20, 1 << 30, 24 << 30, math.MaxInt64} {
		p := NewPlan(limit)
		if p.InFlight < 8<<20 || p.Database < 4<<20 {
			t.Errorf("%d: too little to work with: %+v", limit, p)
		}
		if limit >= 64<<20 && (p.GoHeap+p.Database > limit/16*13 || p.InFlight > p.GoHeap/2) {
			t.Errorf("%d: more than there is: %+v", limit, p)
		}
	}
	for _, c := range []struct {
		limit            int64
		processors, want int
	}{{1, 64, 1}, {64 << 20, 64, 1}, {256 << 20, 1, 1}, {256 << 20, 2, 2}, {256 << 20, 64, 5}, {24 << 30, 64, 64}} {
		if got := NewPlan(c.limit).Jobs(c.processors); got != c.want {
			t.Errorf("%d bytes, %d processors: %d jobs, want %d", c.limit, c.processors, got, c.want)
		}
	}
	if p := NewPlan(256 << 20); p.GoHeap != 176<<20 || p.Database != 16<<20 || p.InFlight != 72<<20 {
		t.Errorf("the machine of 256 MiB that docs/limits.md describes: %+v", p)
	}
}

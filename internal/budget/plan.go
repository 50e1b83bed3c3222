package budget

// Plan is what a server does with the memory that it may use.
type Plan struct {
	Limit    int64 // bytes in all
	GoHeap   int64 // soft limit of the Go runtime: beyond it it collects garbage harder
	Database int64 // SQLite's page caches, which are not the Go runtime's
	InFlight int64 // what requests share
}

// NewPlan divides limit bytes.
//
// A quarter is for what neither counts and a cgroup's limit does: the kernel's buffers of sockets, dirty pages of
// spool files, page tables, stacks. Of the Go heap, requests get half of what an idle server leaves: the other half
// is garbage that was not collected yet.
func NewPlan(limit int64) Plan {
	p := Plan{Limit: limit}
	p.Database = between(4<<20, limit/16, 64<<20)
	p.GoHeap = max(limit-p.Database-limit/4, 16<<20)
	p.InFlight = between(8<<20, (p.GoHeap-idle)/2, 512<<20)
	return p
}

// Jobs is how many of so many processors may compress or verify at a time: an eighth of the heap is for what
// their coders keep, 4 MiB each. A container may have many processors and little memory.
func (p Plan) Jobs(processors int) int {
	return int(between(1, p.GoHeap/8/(4<<20), int64(processors)))
}

// idle is about what a server's heap holds that has nothing to do.
const idle = 32 << 20

func between(least, n, most int64) int64 { return max(least, min(n, most)) }

package main

import (
	"log/slog"
	"runtime/debug"

	"github.com/org/attic-action/internal/budget"
	"github.com/org/attic-action/internal/server"
)

// memory is the plan for this machine, and who says what it has.
type memory struct {
	budget.Plan
	source string
}

func planMemory() memory {
	limit, source := budget.Machine()
	return memory{budget.NewPlan(limit), source}
}

// limits are what one request, or all of a kind, may hold, so that together they stay within the plan.
func (m memory) limits() server.Limits {
	return server.Limits{
		BodyBudget:  min(64<<20, m.InFlight/4),
		PathsBytes:  min(16<<20, max(m.InFlight/32, 1<<20)),
		Connections: int(min(2048, max(m.Limit/(512<<10), 128))),
	}
}

// apply gives the Go runtime its part of the plan, unless GOMEMLIMIT did, and says how memory is divided.
func (m memory) apply(getenv func(string) string, log *slog.Logger) {
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(m.GoHeap)
	}
	if getenv("GOGC") == "" {
		debug.SetGCPercent(50) // the server's live memory is small and its machines are, too
	}
	mib := func(n int64) int64 { return n >> 20 }
	log.Info("memory", "limit_mib", mib(m.Limit), "by", m.source, "go_mib", mib(m.GoHeap),
		"requests_mib", mib(m.InFlight), "database_mib", mib(m.Database))
}

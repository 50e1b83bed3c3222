package admin

import (
	"context"
	"net"
	"net/http"
	"syscall"
)

// Nobody is the uid of a caller whom the system does not name.
const Nobody = -1

type uidKey struct{}

// withCaller notes who opened a connection. Whoever may open the socket may command the
// server, so it decides nothing; the record says it.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	uid := Nobody
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { uid, _ = peerUID(int(fd)) }) // nobody knows, then
		}
	}
	return context.WithValue(ctx, uidKey{}, uid)
}

func callerUID(r *http.Request) int {
	if uid, ok := r.Context().Value(uidKey{}).(int); ok {
		return uid
	}
	return Nobody
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Listen makes the socket, mode 0600, in place of one that a server which was
// killed has left. Two servers must not share a socket's name: whoever calls this
// holds the lock of the database that the socket belongs to.
func Listen(socket string) (net.Listener, error) {
	if fi, err := os.Lstat(socket); err == nil && fi.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("listen on %s: a file is in the way", socket)
	}
	// Under another name until its mode is right: between bind and chmod a socket is
	// open to whoever the umask lets in.
	tmp := socket + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	var ln net.Listener
	err := shortly(tmp, func(name string) (err error) { ln, err = net.Listen("unix", name); return err })
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false) // of tmp, which has been renamed by then
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, socket)
	}
	if err != nil {
		_ = os.Remove(tmp) // the error before is the one to tell
		_ = ln.Close()
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	return &listener{ln, socket}, nil
}

// maxSocket is what the address of a socket holds, less its last zero; Linux has 107.
const maxSocket = 103

// shortly calls fn with the socket's name, or, where that does not fit into an address,
// with a shorter one for the same place.
func shortly(socket string, fn func(name string) error) error {
	if len(socket) <= maxSocket {
		return fn(socket)
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("its name has %d bytes, at most %d are possible", len(socket), maxSocket)
	}
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return err
	}
	defer dir.Close()
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket)))
}

// listener removes its socket when it is closed.
type listener struct {
	net.Listener
	socket string
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	if err == nil {
		err = os.Remove(l.socket)
	}
	return err
}

// stopTime is how long calls under way may take once the server is to stop.
const stopTime = 5 * time.Second

// Serve answers calls until ctx ends, then lets those under way end.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		ConnContext: withCaller,
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime) // ctx itself has ended
		defer cancel()
		stopped <- srv.Shutdown(ctx)
	})
	err := srv.Serve(ln)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve administration: %w", err)
	}
	return <-stopped
}

// Command throttle stands in front of a server, as a slow line would: it hands on so many bytes a second to it, in all its
// connections together, and answers at full speed.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	to := flag.String("to", "", "`address` of the server")
	rate := flag.Int("rate", 1<<20, "bytes a second")
	flag.Parse()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "throttle:", err)
		os.Exit(1)
	}
	fmt.Printf("THROTTLE=http://%s\n", l.Addr())
	line := &line{rate: *rate}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go serve(c, *to, line)
	}
}

func serve(c net.Conn, to string, l *line) {
	defer c.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return // which the caller sees as a connection that ends
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(&slow{server, l}, c) // either end may hang up
		if half, ok := server.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}()
	_, _ = io.Copy(c, server)
}

// line is what all connections share.
type line struct {
	mu   sync.Mutex
	rate int
}

// slow writes no faster than the line is.
type slow struct {
	io.Writer
	line *line
}

func (s *slow) Write(p []byte) (int, error) {
	s.line.mu.Lock()
	time.Sleep(time.Duration(len(p)) * time.Second / time.Duration(s.line.rate))
	s.line.mu.Unlock()
	return s.Writer.Write(p)
}

// Command issuer is a local stand-in for GitHub's issuer of ID tokens, for the demo and
// for end-to-end tests. It prints the two variables that a runner would set for a job.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/org/attic-action/internal/oidctest"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "issuer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	is := oidctest.New("")
	flags := flag.NewFlagSet("issuer", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:0", "`address` to listen on; port 0 picks a free one")
	flags.StringVar(&is.RequestToken, "request-token", is.RequestToken, "bearer `token` that /idtoken wants")
	flags.StringVar(&is.Identity.Repository, "repository", is.Identity.Repository, "repository claim, `owner/name`")
	flags.StringVar(&is.Identity.RepositoryID, "repository-id", is.Identity.RepositoryID, "repository_id claim")
	flags.StringVar(&is.Identity.OwnerID, "owner-id", is.Identity.OwnerID, "repository_owner_id claim")
	flags.StringVar(&is.Identity.Ref, "ref", is.Identity.Ref, "ref claim")
	flags.StringVar(&is.Identity.Event, "event", is.Identity.Event, "event_name claim")
	flags.StringVar(&is.Identity.Environment, "environment", "", "environment claim; empty for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", *addr, err)
	}
	is.URL = "http://" + l.Addr().String()
	fmt.Printf("ISSUER=%s\nACTIONS_ID_TOKEN_REQUEST_URL=%s\nACTIONS_ID_TOKEN_REQUEST_TOKEN=%s\n", is.URL, is.RequestURL(), is.RequestToken)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server := &http.Server{Handler: is, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(l); err != http.ErrServerClosed {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// Command attic-server is a Nix binary cache that speaks Attic's protocol.
//
//	attic-server                     serve, with what it finds or makes
//	attic-server -f server.toml      serve as the file says
//	attic-server make-token …        print an access token
//	attic-server check-config        read the configuration and stop
//
// Called as atticd or atticadm it takes what those take, for scripts written
// for Attic.
//
// It exits 0 when it was asked to stop, 1 with one line when it could not do
// its work, 2 when it was called the wrong way, and 78 when the configuration has
// to be changed first, so that a supervisor knows that trying again is no use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/blob/s3"
)

// version is set by the linker.
var version = "0.1.0"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	p := &program{args: os.Args, getenv: os.Getenv, environ: os.Environ, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.run(ctx))
}

// program is one call of the command, with all that it takes from outside.
type program struct {
	args           []string
	getenv         func(string) string
	environ        func() []string // for misspelt variables; nil: not looked for
	stdout, stderr io.Writer

	listening func(addr string) // tests learn the port here; may be nil

	file, data, logFormat string // persistent flags
	listen, mode          string
	version               bool
}

// usageError is a wrong call: exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// configError is a configuration that no second try will make better: exit status
// 78, EX_CONFIG of sysexits.h, for systemd's RestartPreventExitStatus.
type configError struct{ error }

func (e configError) Unwrap() error { return e.error }

// hintError has a second line that says what to do.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

func (p *program) run(ctx context.Context) int {
	err := p.command().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	// Of a command that the server did, only the text comes back.
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || strings.HasSuffix(err.Error(), context.Canceled.Error())) {
		err = errors.New("stopped before it was done; what was done stays")
	}
	fmt.Fprintf(p.stderr, "attic-server: %s\n", oneLine(err.Error()))
	var hint hintError
	if errors.As(err, &hint) {
		fmt.Fprintf(p.stderr, "hint: %s\n", hint.hint)
	}
	var usage usageError
	var config configError
	switch {
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command "):
		return 2
	case errors.As(err, &config) || errors.Is(err, s3.ErrSetup):
		return 78
	}
	return 1
}

// oneLine keeps an error on its line, whatever a file or a client put into it.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}

// command is the tree of commands, by the name the program was called with.
const help = `A Nix binary cache that speaks Attic's protocol.

Without anything configured it serves on 127.0.0.1:8080, keeps everything under
--data (else $XDG_DATA_HOME/attic-server), and prints the line that makes a token.
-f reads a server.toml; one written for Attic is accepted. SIGTERM and SIGINT
finish what is in flight, within 25 seconds. Called as atticd or atticadm, it takes
what those take.

On fly.io (FLY_APP_NAME) it listens on [::]:8080 and is https://APP.fly.dev/. With
BUCKET_NAME and what belongs to it, as "fly storage create" sets them, contents go
into that bucket. Called by root, it acts as the user who owns the data.

Exit codes: 0 stopped as asked; 1 an error, in one line; 2 the command line is
wrong; 78 the configuration is wrong, or the secrets, or the bucket refuses them,
and trying again is no use.`

func (p *program) command() *cobra.Command {
	name := strings.TrimSuffix(filepath.Base(p.args[0]), ".exe")
	root := &cobra.Command{
		Use:           "attic-server",
		Short:         "A Nix binary cache that speaks Attic's protocol",
		Long:          help,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
	}
	root.Flags().BoolVarP(&p.version, "version", "V", false, "print the version")
	root.SetArgs(p.args[1:])
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVarP(&p.file, "config", "f", "", "server.toml to read")
	flags.StringVar(&p.data, "data", "", "directory of the database and the packs")
	flags.StringVar(&p.logFormat, "log-format", "text", "text or json")
	root.AddCommand(p.makeToken())
	if name == "atticadm" {
		root.Use, root.Short, root.Long = "atticadm", "Make access tokens", "Makes access tokens, as Attic's atticadm does. The same program is attic-server, which can do more."
		root.RunE = p.orVersion(func(*cobra.Command, []string) error { return usageError{errors.New("no command; there is make-token")} })
		return root
	}
	serve := &cobra.Command{Use: "serve", Short: "Answer requests (the default)", Args: noArgs, RunE: p.serve}
	p.serveFlags(root)
	p.serveFlags(serve)
	root.RunE = p.orVersion(p.serve)
	root.AddCommand(p.pin(), p.path(), p.why(), p.delete(), p.stats())
	root.AddCommand(p.token(), p.cache(), p.secret())
	root.AddCommand(p.audit(), p.recover(), p.verify(), p.gc())
	root.AddCommand(p.importPaths(), p.exportPaths())
	root.AddCommand(serve, &cobra.Command{Use: "check-config", Args: noArgs, RunE: p.checkConfig,
		Short: "Read the configuration, keys included, and stop",
		Long: `Read the configuration, keys included, and stop. What is wrong is one line with its
place, and exit code 78; what has no use, or another meaning here than in Attic, is a
warning each. Nothing is opened or made, neither the database nor the storage.`})
	root.AddCommand(p.trust())
	return root
}

// orVersion prints the version if that is what was asked for. Cobra would do it by a
// template, and a program that can run templates, which call methods by name, keeps every
// method of everything: eight megabytes of S3 that nobody calls.
func (p *program) orVersion(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if p.version {
			_, err := fmt.Fprintf(p.stdout, "attic-server %s\n", version)
			return err
		}
		return run(cmd, args)
	}
}

func (p *program) serveFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.listen, "listen", "l", "", "IP:port to listen on")
	cmd.Flags().StringVar(&p.mode, "mode", "monolithic", strings.Join(modes, ", "))
	cmd.Flags().Bool("tokio-console", false, "")
	_ = cmd.Flags().MarkHidden("tokio-console") // atticd's; the flag exists, so this can't fail
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

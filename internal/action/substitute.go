package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nixconf"
)

// pulls makes the cache a substituter of this job: of its own builds, and of the steps that follow.
//
//	$RUNNER_TEMP/attic-action-…/nix.conf   first of $NIX_USER_CONF_FILES, the user's own files behind it
//	$RUNNER_TEMP/attic-action-…/netrc      0600, only for a private cache, the user's own netrc behind ours
//
// The token in it may pull and nothing else: a builder without a sandbox is the same user, and could read it. The post
// step removes all of this.
type pulls struct {
	a     *Action
	dir   string
	url   string
	login *Login // of tokens that may pull; nil: the cache is public
	shown string // the token in the netrc
	rest  []byte // the user's netrc
}

// stateDir is the state in which the post step finds the folder.
const stateDir = "dir"

// dirPrefix begins the name of the folder.
const dirPrefix = "attic-action-"

// substituteFrom sets it up. What keeps it from being set up is told, and is no error: all that is lost is time.
func (a *Action) substituteFrom(ctx context.Context, in Inputs, cfg *client.Config) *pulls {
	p := &pulls{a: a}
	if !cfg.IsPublic {
		p.login = a.Login.forPulls()
	}
	if err := p.setUp(ctx, in, cfg); err != nil {
		a.Runner.Warning("not pulling from the cache", "what the cache holds is built again: "+err.Error())
		return nil
	}
	return p
}

func (p *pulls) setUp(ctx context.Context, in Inputs, cfg *client.Config) error {
	temp := p.a.Runner.Getenv("RUNNER_TEMP")
	if temp == "" && p.a.Runner.InActions() {
		return errors.New("$RUNNER_TEMP is not set")
	}
	p.url = cfg.Substituter(in.Server, in.Cache)
	conf := nixconf.Cache{URL: p.url, Keys: cfg.PublicKeys()}
	if _, err := conf.Lines(); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	var err error
	if p.dir, err = os.MkdirTemp(temp, dirPrefix+"*"); err != nil { // 0700
		return fmt.Errorf("make a folder for it: %w", err)
	}
	if err := p.a.Runner.SaveState(stateDir, p.dir); err != nil {
		return err
	}
	if p.login != nil {
		conf.Netrc = filepath.Join(p.dir, "netrc")
		if p.rest, err = p.userNetrc(ctx); err != nil {
			return err
		}
		if err := p.writeNetrc(ctx); err != nil {
			return err
		}
	}
	lines, err := conf.Lines()
	if err != nil {
		return err
	}
	file := filepath.Join(p.dir, "nix.conf")
	if strings.Contains(file, ":") {
		return fmt.Errorf("a path with a colon, %s, can't stand in $NIX_USER_CONF_FILES", file)
	}
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		return err
	}
	return p.export(ctx, file, lines)
}

// export tells the later steps and our own Nix.
func (p *pulls) export(ctx context.Context, file, lines string) error {
	getenv := p.a.Runner.Getenv
	vars := map[string]string{"NIX_USER_CONF_FILES": strings.Join(append([]string{file}, nixconf.UserFiles(getenv, p.a.Home)...), ":")}
	if config := getenv("NIX_CONFIG"); nixconf.Overrides(config) { // it comes last, and would drop our lines
		vars["NIX_CONFIG"] = config + "\n" + lines
	}
	for name, value := range vars {
		p.a.Setenv(name, value)
		if err := p.a.Runner.SetEnv(name, value); err != nil {
			return err
		}
	}
	ignored, err := p.a.Nix.Ignored(ctx)
	if err != nil {
		p.a.Runner.Printf("%v\n", err) // a build will tell, if there is anything to tell
	}
	if slices.Contains(ignored, p.url) || p.login != nil && slices.Contains(ignored, "netrc-file") {
		p.a.Runner.Warning("not pulling from the cache", "the Nix daemon ignores substituters that this user sets, so what the cache holds is built again: "+
			"add the user to trusted-users in /etc/nix/nix.conf of the runner, or "+p.url+" and its key to substituters and trusted-public-keys there")
	}
	return nil
}

const netrcMax = 1 << 20

// userNetrc is the file that Nix reads without us. One that is there and can't be read would be lost.
func (p *pulls) userNetrc(ctx context.Context) ([]byte, error) {
	s, err := p.a.Nix.Settings(ctx)
	if err != nil {
		return nil, err
	}
	if s.Netrc == "" {
		return nil, nil
	}
	f, err := os.Open(s.Netrc)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("this user can't read %s, which Nix needs beside the cache's token; add the cache there", s.Netrc)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, netrcMax))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.Netrc, err)
	}
	return b, nil
}

// writeNetrc puts a token that is good now into the file, which is there whole at any time.
func (p *pulls) writeNetrc(ctx context.Context) error {
	token, err := p.login.Token(ctx)
	if err != nil || token == p.shown {
		return err
	}
	text, err := nixconf.Netrc(p.url, token, p.rest)
	if err != nil {
		return err
	}
	file := filepath.Join(p.dir, "netrc")
	f, err := os.CreateTemp(p.dir, "netrc-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return err
	}
	p.shown = token
	return nil
}

// netrcEvery is how often the netrc is looked after; a token that is still good stays.
const netrcEvery = 20 * time.Second

// keep renews the token in the netrc until it is stopped. At the end it is as new as can be, for the steps that follow.
func (p *pulls) keep(ctx context.Context) (stop func()) {
	if p == nil || p.login == nil {
		return func() {}
	}
	run, cancel := context.WithCancel(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(netrcEvery)
		defer t.Stop()
		for {
			select {
			case <-run.Done():
				return
			case <-t.C:
				if err := p.writeNetrc(run); err != nil && run.Err() == nil {
					p.a.Runner.Printf("renew the token for pulls: %v\n", err)
				}
			}
		}
	}()
	return func() {
		cancel()
		<-gone
		if ctx.Err() == nil {
			p.login.renewSoon()
			if p.writeNetrc(ctx) == nil { // else the one that is there is good for a while
				p.login.logoutFormer(ctx)
			}
		}
	}
}

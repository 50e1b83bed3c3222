package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/nixconf"
)

// newUse makes Nix pull from a cache, for this user and for good.
func newUse() *cobra.Command {
	var u nixUser
	var print, remove bool
	cmd := &cobra.Command{
		Use:   "use [flags] CACHE",
		Short: "Make this user's Nix pull from a cache",
		Long: `Make this user's Nix pull from a cache: its substituter and public key are added to the user's nix.conf
($XDG_CONFIG_HOME/nix/nix.conf), between two comments. For a private cache the token goes into a netrc file with mode 0600:
the one that Nix reads already, else netrc beside nix.conf. All else in both files stays as it is, and doing it again
changes nothing.

--print changes nothing at all: it prints a NixOS module that does the same for a whole machine. --remove takes back what
was added.

CACHE is a cache's name, or SERVER:CACHE with a server of attic's own configuration; server and token are found as push
finds them. A public cache needs no token.`,
		Example: `  attic-action use --server https://cache.example.org system
  attic-action use --print system > cache.nix
  attic-action use --remove system`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("use takes one CACHE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if print && remove {
				return usagef("--print and --remove are two things")
			}
			u.getenv, u.home, u.nix = os.Getenv, home(), &nixcli.Nix{}
			u.from.getenv, u.from.stdin = os.Getenv, cmd.InOrStdin()
			u.out, u.errOut = cmd.OutOrStdout(), cmd.ErrOrStderr()
			switch {
			case remove:
				return u.remove(args[0])
			case print:
				return u.print(cmd.Context(), args[0])
			}
			return u.add(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.from.server, "server", "", "`URL` of the server")
	f.StringVar(&u.from.tokenFile, "token-file", "", "`FILE` that holds the token; - is standard input")
	f.BoolVar(&print, "print", false, "print a NixOS module instead")
	f.BoolVar(&remove, "remove", false, "take back what was added")
	return cmd
}

// nixUser is whose Nix is told of a cache.
type nixUser struct {
	from        sources
	getenv      func(string) string
	home        string
	nix         *nixcli.Nix
	out, errOut io.Writer
}

// ask asks the server for the cache.
func (u *nixUser) ask(ctx context.Context, ref string) (login, nixconf.Cache, *client.Config, error) {
	l, err := u.from.resolve(ref)
	if err != nil {
		return l, nixconf.Cache{}, nil, err
	}
	c, err := client.New(client.Options{
		Endpoint: l.Endpoint, Token: client.StaticToken(string(l.Token)), UserAgent: "attic-action/" + version(),
	})
	if err != nil {
		return l, nixconf.Cache{}, nil, err
	}
	l.Endpoint = c.Endpoint()
	cfg, err := c.CacheConfig(ctx, l.Cache)
	if err != nil {
		return l, nixconf.Cache{}, nil, err
	}
	return l, nixconf.Cache{URL: cfg.Substituter(l.Endpoint, l.Cache), Keys: cfg.PublicKeys()}, cfg, nil
}

func (u *nixUser) print(ctx context.Context, ref string) error {
	_, cache, cfg, err := u.ask(ctx, ref)
	if err != nil {
		return err
	}
	if !cfg.IsPublic {
		cache.Netrc = nixconf.ModuleNetrc
	}
	module, err := cache.Module()
	if err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	if _, err := io.WriteString(u.out, module); err != nil {
		return fmt.Errorf("print module: %w", err)
	}
	return nil
}

func (u *nixUser) add(ctx context.Context, ref string) error {
	l, cache, cfg, err := u.ask(ctx, ref)
	if err != nil {
		return err
	}
	conf, err := u.nixConf()
	if err != nil {
		return err
	}
	var netrc *ownFile
	if !cfg.IsPublic {
		if netrc, err = u.netrc(ctx, conf, &cache); err != nil {
			return err
		}
		text, err := nixconf.Netrc(cache.URL, string(l.Token), nixconf.WithoutNetrc(netrc.before, cache.URL))
		if err != nil {
			return err
		}
		netrc.after, netrc.mode = text, 0o600
		if nixconf.HasMachine(nixconf.WithoutNetrc(netrc.before, cache.URL), cache.URL) {
			fmt.Fprintf(u.errOut, "%s had an entry for that host already; the new one is in front of it, and counts\n", netrc.path)
		}
	}
	text, err := nixconf.Add(string(conf.before), l.Endpoint, l.Cache, cache)
	if err != nil {
		return fmt.Errorf("%s: %w", conf.path, err)
	}
	conf.after = []byte(text)
	if err := u.write(netrc, conf); err != nil { // the secret first: without it the cache would refuse Nix
		return err
	}
	u.check(ctx, cache.URL, netrc != nil)
	return nil
}

// remove takes back what add did. It asks no server: there may be none any more.
func (u *nixUser) remove(ref string) error {
	l, err := u.from.resolve(ref)
	if err != nil && !errors.Is(err, errNoServer) {
		return err
	}
	if err == nil {
		endpoint, _ := client.ParseEndpoint(l.Endpoint) // resolve has parsed it
		l.Endpoint = endpoint.String()
	}
	l.Cache = ref[strings.IndexByte(ref, ':')+1:]
	conf, err := u.nixConf()
	if err != nil {
		return err
	}
	blocks, err := nixconf.Blocks(string(conf.before))
	if err != nil {
		return fmt.Errorf("%s: %w", conf.path, err)
	}
	ours := slices.DeleteFunc(slices.Clone(blocks), func(b nixconf.Block) bool {
		return b.Name != l.Cache || l.Endpoint != "" && !client.SameEndpoint(b.Server, l.Endpoint)
	})
	switch len(ours) {
	case 0:
		return fmt.Errorf("%s has nothing of attic-action for the cache %s", conf.path, l.Cache)
	case 1:
	default:
		return fmt.Errorf("%s has a cache %s of %d servers; --server names one", conf.path, l.Cache, len(ours))
	}
	text, err := nixconf.Remove(string(conf.before), ours[0].Server, ours[0].Name)
	if err != nil {
		return fmt.Errorf("%s: %w", conf.path, err)
	}
	conf.after = []byte(text)
	netrc, err := u.withoutToken(ours[0], blocks)
	if err != nil {
		return err
	}
	return u.write(conf, netrc)
}

// withoutToken is the netrc file without the token of a block, unless another cache on the same host needs it, too. It is nil where
// there is nothing to do.
func (u *nixUser) withoutToken(gone nixconf.Block, blocks []nixconf.Block) (*ownFile, error) {
	if gone.Netrc() == "" {
		return nil, nil
	}
	for _, b := range blocks {
		if b != gone && b.Netrc() != "" && nixconf.SameHost(b.Substituter(), gone.Substituter()) {
			return nil, nil
		}
	}
	netrc, err := open(gone.Netrc())
	if err != nil {
		return nil, err
	}
	netrc.after, netrc.mode = nixconf.WithoutNetrc(netrc.before, gone.Substituter()), 0o600
	return netrc, nil
}

// nixConf is the file of the user's own settings that wins over others.
func (u *nixUser) nixConf() (*ownFile, error) {
	files := nixconf.UserFiles(u.getenv, u.home)
	if len(files) == 0 || !filepath.IsAbs(files[0]) {
		return nil, errors.New("there is no folder for the user's nix.conf: $HOME is not set")
	}
	return open(files[0])
}

// netrc is the file that gets the token: Nix reads one only. Where none is there yet it is one beside nix.conf.
func (u *nixUser) netrc(ctx context.Context, conf *ownFile, cache *nixconf.Cache) (*ownFile, error) {
	s, err := u.nix.Settings(ctx)
	if err != nil {
		return nil, err
	}
	cache.Netrc = s.Netrc
	if _, err := os.Lstat(s.Netrc); s.Netrc == "" || errors.Is(err, os.ErrNotExist) {
		cache.Netrc = filepath.Join(filepath.Dir(conf.named), "netrc")
	}
	f, err := open(cache.Netrc)
	if err != nil {
		return nil, fmt.Errorf("%w; Nix reads this netrc and no other, so the token has to be added there", err)
	}
	return f, nil
}

// write writes what differs, and says so.
func (u *nixUser) write(files ...*ownFile) error {
	changed := false
	for _, f := range files {
		if f == nil {
			continue
		}
		done, err := f.write()
		if err != nil {
			return err
		}
		if done != "" {
			fmt.Fprintf(u.errOut, "%s %s\n", done, f.path)
			changed = true
		}
	}
	if !changed {
		fmt.Fprintln(u.errOut, "nothing to change: it is all there already")
	}
	return nil
}

// check asks Nix whether it heeds what was written. If not, people need to know: nothing else would tell them.
func (u *nixUser) check(ctx context.Context, url string, private bool) {
	s, err := u.nix.Settings(ctx)
	if err != nil {
		fmt.Fprintf(u.errOut, "attic-action: can't ask Nix whether it pulls from %s now: %v\n", url, err)
		return
	}
	ignored, err := u.nix.Ignored(ctx)
	has := slices.ContainsFunc(s.Substituters, func(has string) bool { return strings.TrimRight(has, "/") == url })
	switch {
	case !has && nixconf.Overrides(u.getenv("NIX_CONFIG")):
		fmt.Fprintln(u.errOut, "attic-action: $NIX_CONFIG sets the substituters anew, so the cache does not count where it is set")
	case !has:
		fmt.Fprintf(u.errOut, "attic-action: %s is not among Nix's substituters yet; something read after this file sets them anew\n", url)
	case err == nil && (slices.Contains(ignored, url) || private && slices.Contains(ignored, "netrc-file")):
		fmt.Fprintln(u.errOut, "attic-action: the Nix daemon ignores substituters that this user sets\n"+
			"hint: add the user to trusted-users in /etc/nix/nix.conf, or have the machine use the cache: attic-action use --print")
	default:
		fmt.Fprintf(u.errOut, "Nix pulls from %s\n", url)
	}
}

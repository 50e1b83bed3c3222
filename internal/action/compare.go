package action

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/org/attic-action/internal/client"
	"github.com/org/attic-action/internal/closurediff"
	"github.com/org/attic-action/internal/nix"
	"github.com/org/attic-action/internal/nixcli"
	"github.com/org/attic-action/internal/report"
)

// What a summary says of sizes and changes is worth some seconds and requests, and never a job.
const (
	rememberTime = 15 * time.Second
	compareTime  = 45 * time.Second
	pinsAsked    = 8    // side by side
	infosAsked   = 16   // side by side, of upstream caches
	infosMax     = 8000 // in all: two NixOS closures and more
)

// Reader tells what a cache holds.
type Reader interface {
	// Pinned is the newest revision of a pin; the zero path if there is none, or the token may not see it.
	Pinned(ctx context.Context, name string) (nix.StorePath, error)
	// List is what the closure of a path consists of, as far as the cache has it, and the base names of what that refers to
	// and is elsewhere.
	List(ctx context.Context, path nix.StorePath) (closurediff.Closure, []string, error)
}

// Pinned asks for a pin.
func (c *Remote) Pinned(ctx context.Context, name string) (nix.StorePath, error) {
	pin, err := c.Client.Pin(ctx, c.Name, name)
	switch client.Status(err) {
	case 401, 403, 404, 405:
		return nix.StorePath{}, nil
	}
	if err != nil || len(pin.Revisions) == 0 {
		return nix.StorePath{}, err
	}
	path, err := nix.ParseStorePath(pin.Revisions[0].StorePath)
	if err != nil {
		return nix.StorePath{}, fmt.Errorf("read pin %s: %w", name, err)
	}
	return path, nil
}

// List asks for a closure.
func (c *Remote) List(ctx context.Context, path nix.StorePath) (closurediff.Closure, []string, error) {
	answer, err := c.Client.ListClosure(ctx, c.Name, path.Hash())
	if err != nil {
		return nil, nil, err
	}
	if _, ok := answer.Paths[path.Base()]; !ok { // another path, or a server that lists nothing
		return nil, nil, fmt.Errorf("the cache does not list %s", path)
	}
	return answer.Paths, answer.Upstream, nil
}

// baseline is the pin that a host is compared with: the branch's own, and of a pull request that of the branch it is to
// go to.
func (r *run) baseline(host string) (string, bool) {
	repo, branch := r.Runner.Getenv("GITHUB_REPOSITORY"), r.Runner.Getenv("GITHUB_BASE_REF")
	if branch == "" {
		branch, _ = strings.CutPrefix(r.Runner.Getenv("GITHUB_REF"), "refs/heads/")
	}
	if repo == "" || branch == "" || strings.HasPrefix(branch, "refs/") {
		return "", false
	}
	return repo + "/" + branch + "/" + host, true
}

// remember reads which revisions are pinned, before new ones are.
func (r *run) remember(ctx context.Context, jobs []*job) {
	if !r.asks {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rememberTime)
	defer cancel()
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(pinsAsked)
	for _, j := range jobs {
		name, ok := r.baseline(j.row.Name)
		if !ok || j.row.Result != "" && j.row.Result != report.Cached {
			continue
		}
		g.Go(func() error {
			path, err := r.cache.Pinned(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && path != (nix.StorePath{}) {
				r.before[j.row.Name] = path
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		r.Runner.Printf("which revisions were pinned last is not known: %s\n", firstLine(err.Error()))
	}
}

// compare finds how large the closures of hosts are, and what changed in them since the last pinned revision.
func (r *run) compare(ctx context.Context, settings nixcli.Settings) {
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, compareTime)
	defer cancel()
	l := &lister{run: r, up: r.upstreams(settings), local: r.localInfos(ctx), infos: map[string]*nix.NarInfo{}}
	for i := range r.report.Hosts {
		row := &r.report.Hosts[i]
		path, err := nix.ParseStorePath(row.StorePath)
		if err != nil || row.Result != report.Pushed && row.Result != report.Built && row.Result != report.Cached {
			continue
		}
		if err := l.tell(ctx, row, path); err != nil {
			r.Runner.Printf("%s: not compared with its last pinned revision: %s\n", row.Name, firstLine(err.Error()))
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// upstreams are the caches whose paths ours need not have. Where there is no Nix that would say, they are the usual one.
func (r *run) upstreams(settings nixcli.Settings) upstream {
	if r.config == nil {
		return upstream{}
	}
	if len(settings.Substituters) == 0 && len(settings.Keys) == 0 {
		settings.Substituters = []string{"https://cache.nixos.org"}
		settings.Keys = []string{"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="}
	}
	return newUpstream(r.Login.HTTP, settings, r.config.UpstreamCacheKeyNames, r.config.Substituter(r.in.Server, r.in.Cache))
}

// localInfos is what this machine's store knows of the hosts' closures, by base name.
func (r *run) localInfos(ctx context.Context) map[string]nixcli.PathInfo {
	known := map[string]nixcli.PathInfo{}
	if r.in.Needs != nil {
		return known // there need not be a Nix
	}
	var tops []nix.StorePath
	for _, h := range r.report.Hosts {
		if path, err := nix.ParseStorePath(h.StorePath); err == nil && h.Result != report.Planned {
			tops = append(tops, path)
		}
	}
	if len(tops) == 0 {
		return known
	}
	tops, err := r.Nix.Valid(ctx, tops)
	if err != nil || len(tops) == 0 {
		return known
	}
	infos, err := r.Nix.Closure(ctx, tops)
	if err != nil {
		r.Runner.Printf("how large the closures are is not known: %s\n", firstLine(err.Error()))
		return known
	}
	for _, info := range infos {
		known[info.Path.Base()] = info
	}
	return known
}

// lister finds out what closures consist of: from this machine's store, from the cache, and what both lack from upstream
// caches. Hosts share most of it, so nobody is asked twice.
type lister struct {
	*run
	up    upstream
	local map[string]nixcli.PathInfo
	infos map[string]*nix.NarInfo // by base name, of upstream caches; nil: nobody has it
}

// tell fills in a row.
func (l *lister) tell(ctx context.Context, row *report.Host, path nix.StorePath) error {
	before, pinned := l.before[row.Name]
	name, _ := l.baseline(row.Name)
	_, here := l.local[path.Base()]
	if pinned && before == path {
		row.Since = &report.Since{Pin: name, Same: true}
	}
	if !here && (!pinned || before == path) {
		return nil // nothing is known but at the price of hundreds of requests, and nothing changed
	}
	after, err := l.closure(ctx, path)
	if err != nil {
		return err
	}
	row.Closure = after.Size()
	if !pinned || before == path {
		return nil
	}
	old, err := l.closure(ctx, before)
	if err != nil {
		return err
	}
	row.Since = &report.Since{Pin: name, Diff: closurediff.Compare(old, after)}
	return nil
}

// closure is all that a path needs. It is an error if there is something that nobody knows of.
func (l *lister) closure(ctx context.Context, top nix.StorePath) (closurediff.Closure, error) {
	whole, next := closurediff.Closure{}, []string{top.Base()}
	if _, ok := l.local[top.Base()]; !ok {
		if l.cache == nil {
			return nil, fmt.Errorf("there is no cache to ask for %s", top)
		}
		paths, elsewhere, err := l.cache.List(ctx, top)
		if err != nil {
			return nil, err
		}
		maps.Copy(whole, paths)
		next = elsewhere
	}
	for len(next) > 0 {
		if err := l.ask(ctx, top.Dir(), next); err != nil {
			return nil, err
		}
		level := next
		next = nil
		for _, base := range level {
			if _, ok := whole[base]; ok {
				continue
			}
			size, refs, ok := l.info(base)
			if !ok {
				return nil, fmt.Errorf("no cache that is asked knows %s", base)
			}
			whole[base] = size
			for _, ref := range refs {
				next = append(next, ref.Base())
			}
		}
	}
	return whole, nil
}

// info is what is known of a path.
func (l *lister) info(base string) (size uint64, refs []nix.StorePath, ok bool) {
	if info, ok := l.local[base]; ok {
		return info.NarSize, info.References, true
	}
	if info := l.infos[base]; info != nil {
		return info.NarSize, info.References, true
	}
	return 0, nil, false
}

// ask asks upstream caches for those paths that nothing is known of.
func (l *lister) ask(ctx context.Context, dir string, bases []string) error {
	unknown := map[string]*nix.NarInfo{}
	for _, base := range bases {
		if _, ok := l.local[base]; ok {
			continue
		}
		if _, ok := l.infos[base]; !ok {
			unknown[base] = nil
		}
	}
	if len(l.infos)+len(unknown) > infosMax {
		return fmt.Errorf("it takes more than %d questions", infosMax)
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(infosAsked)
	for base := range maps.Clone(unknown) {
		path, err := nix.ParseStorePath(dir + "/" + base)
		if err != nil {
			return err
		}
		g.Go(func() error {
			for _, url := range l.up.substituters {
				if info := l.up.info(ctx, url, path); info != nil {
					mu.Lock()
					unknown[base] = info
					mu.Unlock()
					break
				}
			}
			return nil
		})
	}
	_ = g.Wait() // none fails
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	maps.Copy(l.infos, unknown)
	return nil
}

package action

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/org/attic-action/internal/github/comment"
)

var (
	commitID = regexp.MustCompile(`^[0-9a-f]{40,64}$`)
	runID    = regexp.MustCompile(`^[0-9]{1,20}$`)
	ghServer = regexp.MustCompile(`^https?://[A-Za-z0-9.:-]+$`)
)

// comment puts the summary on the pull request, if there is one. That it can't is told, and fails nothing: whoever looks
// for it finds the same in the job's summary.
func (r *run) comment(ctx context.Context, failed error) {
	if !r.in.Comment || ctx.Err() != nil {
		return
	}
	c, ok := r.pull()
	if !ok {
		return
	}
	page := r.report
	if failed != nil { // what an earlier run said is not true any more
		page.Notes = append([]string{"This run failed: " + firstLine(failed.Error())}, page.Notes...)
	}
	last := r.origin()
	c.Body = page.Markdown(comment.MaxBody-len(comment.Marker(c.Key))-len(last)) + last
	api := r.Runner.Getenv("GITHUB_API_URL")
	if api == "" {
		api = "https://api.github.com"
	}
	if err := r.Comment(ctx, api, r.in.GitHub, c); err != nil {
		r.Runner.Notice("no comment on the pull request", "The job's summary is the same. "+firstLine(err.Error()))
	}
}

// pull is the pull request that this run is of, and the key of its comment: a workflow may have several jobs, each with
// a cache of its own.
func (r *run) pull() (comment.Comment, bool) {
	gh, err := r.Runner.Context()
	if err != nil {
		return comment.Comment{}, false
	}
	pull, _ := gh.Event["pull_request"].(map[string]any)
	number, _ := pull["number"].(float64)
	if number < 1 {
		return comment.Comment{}, false
	}
	of := []string{r.Runner.Getenv("GITHUB_WORKFLOW"), r.Runner.Getenv("GITHUB_JOB"), r.in.Server, r.in.Cache, r.in.Flake}
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return comment.Comment{Repo: r.Runner.Getenv("GITHUB_REPOSITORY"), Number: int(number), Key: hex.EncodeToString(sum[:8])}, true
}

// origin says of which commit and run a comment is. What is not as it should be is left out.
func (r *run) origin() string {
	text := ""
	if gh, err := r.Runner.Context(); err == nil {
		pull, _ := gh.Event["pull_request"].(map[string]any)
		head, _ := pull["head"].(map[string]any)
		if sha, _ := head["sha"].(string); commitID.MatchString(sha) {
			text = "Commit " + sha
		}
	}
	server, id := r.Runner.Getenv("GITHUB_SERVER_URL"), r.Runner.Getenv("GITHUB_RUN_ID")
	if repo := r.Runner.Getenv("GITHUB_REPOSITORY"); ghServer.MatchString(server) && runID.MatchString(id) && repoName.MatchString(repo) {
		text += " in [this run](" + server + "/" + repo + "/actions/runs/" + id + ")"
	}
	if text = strings.TrimSpace(text); text == "" {
		return ""
	}
	return "\n" + text + ".\n"
}

var repoName = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)

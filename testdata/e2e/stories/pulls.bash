# Who has no token builds, and pulls what is there; the cache stays as it is.
workflow "a push, so that there is something to pull" 0 push "${identity[@]}"
web=$(path_of web)
nix-store --delete "$web" >/dev/null 2>&1
echo '{"number":7,"pull_request":{"number":7,"head":{"ref":"feat","repo":{"fork":true}},"base":{"ref":"main"}}}' >"$work/pr.json"
sed -i 's/web = .*/& new = host { name = "new"; };/' hosts.nix
commit
before=$(packs)
workflow "a fork's pull request builds, pushes nothing and does not fail" 0 pull_request -e "$work/pr.json"
same "$(value output failed-hosts)" '[]' "output failed-hosts"
same "$(value output pushed-bytes)" 0 "output pushed-bytes"
recorded summary | grep -q 'from a fork' || die "the summary does not say that it is a fork's: $(recorded summary)"
says "copying path '$web' from '$url/$cache'" # and does not build it again
! on_cache "$(path_of new)" || die "the path is on the cache"
same "$(packs)" "$before" "packs on the server"
ok

git revert --no-edit -n HEAD && commit
nix-store --delete "$web" >/dev/null 2>&1
workflow "a job without permission for ID tokens pulls, and is told which line it lacks" 0 push
recorded summary | grep -q 'id-token: write' || die "the summary does not name the line: $(recorded summary)"
says "copying path '$web' from '$url/$cache'"
silent "building '/nix/store"
ok

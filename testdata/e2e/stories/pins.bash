# What a branch's hosts are stays on the cache under their names, and the summary says what changed since.
workflow "hosts of a branch are pinned" 0 push "${identity[@]}"
for host in web db.prod; do says "$host: pinned as acme/infra/main/$host"; done
ok

first=$(path_of web)
# shellcheck disable=SC2016 # it is Nix's
sed -i 's/name = "web";/name = "web"; build = "echo new $dep > $out";/' hosts.nix
commit
workflow "the summary says what changed since the last pinned revision" 0 push "${identity[@]}"
[ "$(path_of web)" != "$first" ] || die "web is what it was"
says "web: pinned as acme/infra/main/web"
recorded summary | grep -q '^web.*since acme/infra/main/web$' || die "the summary does not say it: $(recorded summary)"
ok

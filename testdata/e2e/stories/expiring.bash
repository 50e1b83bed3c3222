# A token that lives 12 s, and a push that takes twice as long.
hosts large
cache=short-$cache
create_cache "$cache"
"$work/throttle" -to "${url#http://}" -rate 1000000 >"$work/throttle.env" &
pids+=($!)
until_ok grep -q THROTTLE= "$work/throttle.env" || die "the slow line does not start"
# shellcheck disable=SC1091 # written by throttle
. "$work/throttle.env"
began=$SECONDS
workflow "a push goes on when its token has ended" 0 push "${identity[@]}" --var "SERVER=$THROTTLE" --var "AUDIENCE=$url"
[ $((SECONDS - began)) -gt 20 ] || die "the push was over before a token could end"
on_cache "$(path_of large)" || die "large is not on the cache"
silent eyJ
ok

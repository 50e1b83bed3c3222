# Without a runner: build and push with a token, then pull from a private cache by what use has written.
what="a laptop builds, pushes and pulls from a private cache"
cache=private-$cache
create_cache "$cache" false
token() { "$work/server" -f "$work/server.toml" --data "$work/data" make-token --sub laptop --validity 1h "$@"; }
mkdir -p "$work/home/.config/nix"
conf=$work/home/.config/nix/nix.conf
printf '%s\n' "$NIX_CONFIG" >"$conf"
cp "$conf" "$work/conf.before"
# laptop COMMAND… runs something as that user.
laptop() { env -u NIX_CONFIG HOME="$work/home" XDG_CACHE_HOME="$work/home/.cache" ATTIC_SERVER="$url" "$@"; }

ATTIC_TOKEN=$(token --pull "$cache" --push "$cache") laptop "$work/action" build --json "$cache" >"$work/result" 2>"$work/log" || die "build fails"
same "$(jq -c '[.hosts[] | [.name, .result]]' "$work/result")" '[["db.prod","pushed"],["pi","skipped"],["web","pushed"]]' "result"
web=$(jq -r '.hosts[] | select(.name == "web").store_path' "$work/result")
nix-store --delete "$web" >/dev/null 2>&1

! laptop nix-store --realise "$web" >"$work/log" 2>&1 || die "Nix has the path from elsewhere"
ATTIC_TOKEN=$(token --pull "$cache") laptop "$work/action" use "$cache" >"$work/log" 2>&1 || die "use fails"
says "Nix pulls from $url/$cache"
same "$(stat -c %a "$work/home/.config/nix/netrc")" 600 "mode of the netrc"
! grep -q eyJ "$conf" || die "a token is in nix.conf"
laptop nix-store --realise "$web" >"$work/log" 2>&1 || die "Nix does not pull from the cache"
says "copying path '$web' from '$url/$cache'"

laptop "$work/action" use --remove "$cache" >"$work/log" 2>&1 || die "use --remove fails"
cmp "$conf" "$work/conf.before" || die "nix.conf is not what it was"
[ ! -e "$work/home/.config/nix/netrc" ] || die "the token stays"
ok

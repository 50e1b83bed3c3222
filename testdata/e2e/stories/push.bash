# A host that this machine builds is on the cache, one of another system is told of, and a second run builds nothing.
workflow "first push: every host that this machine builds is on the cache" 0 push "${identity[@]}"
same "$(value output hosts)" '["db.prod","web"]' "output hosts"
same "$(value output failed-hosts)" '[]' "output failed-hosts"
for host in web db.prod; do
  on_cache "$(path_of "$host")" || die "$host is not on the cache"
done
same "$(names output)" 'cache-public-key failed-hosts hosts paths pushed-bytes ' "names of outputs"
same "$(names env)" 'NIX_CONFIG NIX_USER_CONF_FILES ' "names of variables for later steps"
same "$(names post-env)" 'NIX_CONFIG NIX_USER_CONF_FILES ' "names of variables that post takes back"
same "$(value post-env NIX_CONFIG)" "$NIX_CONFIG" "NIX_CONFIG after post"
recorded summary | grep -q '^| *web ' || die "the summary has no row for web: $(recorded summary)"
recorded summary | grep -q 'it is built on aarch64-linux' || die "the summary does not say why pi was skipped: $(recorded summary)"
[ "$(value output pushed-bytes)" -gt 0 ] || die "nothing was sent"
says "extra-substituters = $url/$cache" # in the job's next step
says "the cache is no substituter any more"
dir=$(value state dir)
[ ! -e "$dir" ] || die "post left $dir"
for secret in "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" eyJ; do # no token of any kind
  silent "$secret"
  ! grep -qrF "$secret" "$work/recorded" || die "a token is in the runner's files"
done
ok

before=$(packs)
workflow "second run: all hosts are on the cache, so nothing is built, fetched or sent" 0 push "${identity[@]}"
same "$(value output hosts)" '["db.prod","web"]' "output hosts"
same "$(value output pushed-bytes)" 0 "output pushed-bytes"
same "$(packs)" "$before" "packs on the server"
says 'web: the cache has all of'
says 'db.prod: the cache has all of'
silent 'Build web'
ok

# Names from a flake are text wherever they turn up.
hosts hostile
workflow "hostile names do no harm" 1 push "${identity[@]}"
want=$(nix eval --json .#nixosConfigurations --apply 'c: builtins.filter (n: n != "liar") (builtins.attrNames c)')
same "$(value output hosts | jq -c sort)" "$(jq -c sort <<<"$want")" "output hosts"
same "$(value output failed-hosts)" '["liar"]' "output failed-hosts"
same "$(names output)" 'cache-public-key failed-hosts hosts paths pushed-bytes ' "names of outputs"
same "$(names env)" 'NIX_CONFIG NIX_USER_CONF_FILES ' "names of variables"
recorded summary >"$work/summary"
for harm in '<img' '![x](https' 'uid=0'; do
  ! grep -qF "$harm" "$work/summary" || die "the summary holds $harm: $(cat "$work/summary")"
  [ "$harm" = '<img' ] || [ "$harm" = '![x](https' ] || silent "$harm"
done
# act prints an obeyed ::error with this mark; of ours, one for the host and one for the job
same "$(grep -c '❗  ::error' "$work/log")" 2 "annotations that were obeyed"
ok

# What a job has built when it is cut off is not built again.
hosts slow
slow=$(nix eval --raw .#nixosConfigurations.slow.config.system.build.toplevel)
dep=$(nix eval --raw .#nixosConfigurations.slow.config.system.build.toplevel.dep)
begin "a cancelled job leaves what it had built on the cache" push "${identity[@]}"
until_ok on_cache "$dep" || die "what is built already is not pushed while the build goes on"
! on_cache "$slow" || die "the host is built, though its builder waits"
cancel
wait "$act" && die "the job succeeded"
same "$(value output failed-hosts)" '["slow"]' "output failed-hosts"
same "$(value output hosts)" '[]' "output hosts"
recorded summary | grep -q slow || die "the summary of a cancelled job does not name its host: $(recorded summary)"
ok

nix-store --delete "$dep" >/dev/null 2>&1 # another runner has none of it
touch "$work/gate"
workflow "the next job goes on where that one was stopped" 0 push "${identity[@]}"
says "copying path '$dep' from '$url/$cache'"
silent 'building '"'$(nix eval --raw .#nixosConfigurations.slow.config.system.build.toplevel.dep.drvPath)"
on_cache "$slow" || die "the host is not on the cache"
ok

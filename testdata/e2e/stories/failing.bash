# A host that fails, in whichever way, is a red mark for itself alone.
hosts bad
workflow "a failing host fails the job by its name, the others are pushed" 1 push "${identity[@]}"
same "$(value output hosts)" '["web"]' "output hosts"
same "$(value output failed-hosts)" '["broken","evalfail"]' "output failed-hosts"
on_cache "$(path_of web)" || die "web is not on the cache"
dep=$(nix eval --raw .#nixosConfigurations.broken.config.system.build.toplevel.dep)
on_cache "$dep" || die "what the failed host needs is built, and not on the cache"
says 'the disk is on fire'
says 'this host does not evaluate'
says '2 hosts failed: broken, evalfail'
recorded summary | grep -q 'the disk is on fire' || die "the summary does not say why: $(recorded summary)"
ok

# Each host in a job of its own, and a last job that knows all.
file=matrix.yml
hosts bad
workflow "matrix: each host passes or fails in a job of its own, and the last job knows all" 1 push "${identity[@]}"
says 'all hosts=["web"] failed=["broken","evalfail"]'
on_cache "$(nix eval --raw .#nixosConfigurations.web.config.system.build.toplevel)" || die "web is not on the cache"
ok

file=called.yml
hosts good
workflow "the reusable workflow builds what there is to build" 0 push "${identity[@]}"
says 'called hosts=["db.prod","web"] failed=[]'
on_cache "$(nix eval --raw '.#nixosConfigurations."db.prod".config.system.build.toplevel')" || die "db.prod is not on the cache"
ok
workflow "the reusable workflow: nothing to be built is no failure" 0 push "${identity[@]}"
says 'called hosts=["db.prod","web"] failed=[]'
silent 'Build web'
ok

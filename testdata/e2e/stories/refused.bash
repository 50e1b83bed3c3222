# A server that does not know the workflow: the job says what it showed, and what would accept it.
cache=other
create_cache "$cache"
workflow "a refused exchange fails the job and shows the claims" 1 push "${identity[@]}"
same "$(value output hosts)" '[]' "output hosts"
for claim in refs/heads/main 74 acme/infra '[[trust]]' 'attic-server trust add'; do
  recorded summary | grep -qF -- "$claim" || die "the summary does not say $claim: $(recorded summary)"
done
says 'refused this workflow'
silent eyJ
ok

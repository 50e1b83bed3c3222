# fly.io and the like start a server when somebody asks for it.
stop_server
begin "a server that is asleep is waited for" push "${identity[@]}"
until_ok grep -q 'does not answer' "$work/log" || die "nobody asks the server"
sleep 10 # refused connections, several times
start_server
wait "$act" || die "the job failed"
same "$(grep -c 'does not answer' "$work/log")" 1 "lines that say so"
on_cache "$(path_of web)" || die "web is not on the cache"
ok

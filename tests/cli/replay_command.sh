#!/usr/bin/env bash
# replay -- COMMAND: running a command for an event, which consume does in the same way.
# shellcheck disable=SC2016 # what stands in '' is for the shell of the command
. "${0%/*}/lib.sh"
plan 30

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
# is_gone PID: or nobody is there to reap it
is_gone() {
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}
# has_lines FILE N
has_lines() {
	[ "$(wc -l <"$1")" -ge "$2" ]
}

# ---- what it gets ------------------------------------------------------------------------------------------------

t 'it runs for each event in order, finds it on stdin, and its stdout is ours'
events 0 4 | evbus publish -q -t orders
expect_status 0 evbus replay -t orders -- cat
expect_out "$(events 0 4)"
expect_err ''
expect_status 0 evbus replay -t orders -o 1 --to-offset 3 -- cat
expect_out "$(events 1 2)"

t 'what stands behind -- is its own'
expect_status 0 evbus replay -t orders --max 1 -- sh -c 'echo "$0 $*"' -q --max 3 -- -t
expect_out '-q --max 3 -- -t'
expect_status 64 evbus replay -t orders --
expect_err_has "the command behind '--' is missing"
expect_status 64 evbus replay -t orders cat
expect_err_has "operand 'cat' is one too many"

t 'its environment says what the event is'
echo '{"id":"e1","type":"order.placed","tenant_id":"t1","firm":"x"}' | evbus publish -q -t shop -k 'm_17'
expect_status 0 evbus replay -t shop -- sh -c 'env | grep -a ^EVENT_ | sort'
expect_out_like 'EVENT_ATTEMPT=1
EVENT_ID=e1
EVENT_OFFSET=0
EVENT_OFFSET_KIND=file_line
EVENT_PARTITION_ID=0
EVENT_PARTITION_KEY=m_17
EVENT_PUBLISHED_AT_UTC=20??-??-??T??:??:??.??????Z
EVENT_TENANT_ID=t1
EVENT_TOPIC=shop
EVENT_TYPE=order.placed'

t 'what an event does not have is not left over from us or from the one before'
printf '%s\n' '{"id":"1","type":"a","tenant_id":"t"}' '{"x":1,"tenant_id":null}' | evbus publish -q -t bare
expect_status 0 env EVENT_ID=old EVENT_GROUP=old EVENT_OTHER=old KEEP=this evbus replay -t bare -o 1 -- \
	sh -c 'env | grep -E "^(EVENT_|KEEP)" | cut -d = -f 1 | sort | tr "\n" " "'
expect_out_like 'EVENT_ATTEMPT EVENT_OFFSET EVENT_OFFSET_KIND EVENT_PARTITION_ID EVENT_PUBLISHED_AT_UTC EVENT_TOPIC KEEP '
expect_status 0 evbus replay -t bare -- sh -c 'echo "${EVENT_TYPE-none} ${EVENT_TENANT_ID-none}"'
expect_out 'a t
none none'

t 'values come as text, whatever is in them'
printf '%s\n' '{"id":7,"type":"a\nb=\"c\" \u00e4$(id)"}' | evbus publish -q -t odd
expect_status 0 evbus replay -t odd -- sh -c 'printf "%s|%s" "$EVENT_ID" "$EVENT_TYPE"'
expect_out_like '7|a
b="c" ä$(id)'

t 'a value that cannot be in an environment is left out, and that is said once'
{
	printf '%s\n' '{"id":"a\u0000b","type":"t"}' '{"id":"a\u0000b","type":"t"}'
	printf '{"id":"%0200000d","type":"t"}\n' 1
} | evbus publish -q -t odd
expect_status 0 evbus replay -t odd -o 1 -- sh -c 'echo "${EVENT_ID-none} $EVENT_TYPE"'
expect_out 'none t
none t
none t'
expect_err_has 'EVENT_ID is left out'
expect_equal "$(wc -l <"$ERR")" 1 'lines of stderr'

t 'TRACEPARENT is that of the event, else ours'
printf '%s\n' '{"id":"1","traceparent":"00-11-22-01"}' '{"id":"2","traceparent":3}' '{"id":"3"}' | evbus publish -q -t traced
expect_status 0 env TRACEPARENT=ours evbus replay -t traced -- sh -c 'echo "$TRACEPARENT"'
expect_out '00-11-22-01
ours
ours'
expect_status 0 evbus replay -t traced -- sh -c 'echo "${TRACEPARENT-none}"'
expect_out '00-11-22-01
none
none'

t 'a variable of ours with a password in it is not handed on'
expect_status 0 env EVBUS_BUS=event_bus EVBUS_TO_BUS=nats://me:secret@h EVBUS_OUTBOX='postgresql://h/d?password=secret' \
	EVBUS_STORE=s.db EVBUS_OTHER=nats://me@h:1 evbus replay -t traced --max 1 -- sh -c 'env | grep ^EVBUS_ | grep -v ^EVBUS_TEST | sort'
expect_out 'EVBUS_BUS=event_bus
EVBUS_OTHER=nats://me@h:1
EVBUS_STORE=s.db'
while read -r url password; do
	EVBUS_X=$url expect_status 0 evbus replay -t traced --max 1 -- sh -c 'echo "${EVBUS_X-none}"'
	expect_out none
	EVBUS_BUS=$url evbus config >"$OUT" 2>"$ERR"
	expect_true "$url is shown without its password" grep -qF '***' "$OUT"
	expect_equal "$(grep -cF "$password" "$OUT" "$ERR" | cut -d: -f2 | paste -sd,)" 0,0 "told: $url"
done <<'URLS'
nats://me:se/cret@h se/cret
amqp://me:se@cr/et@h:1/v se@cr/et
amqps://me:s?ecret@h s?ecret
kafka://me:s#ecret@h:1 s#ecret
amqp://me:s%2Fe%40c@h/v s%2Fe
nats://me:s/e?c@r&e=t@h:1,g:2 c@r&e
nats://me:12?34@h 12?34
nats://:secret@h secret
nats://h?pwd=secret secret
kafka://h:1?sasl.oauthbearer.client.secret=hidden hidden
POSTGRES://me:se:cr/et@[::1]:1/db cr/et
a://b,c://me:se/cret@h se/cret
URLS
for url in kafka://h:1,g:2 'kafka://h:1,[::1]:2?sasl.username=me@there' file:///srv/a:b@c 'amqp://me@h:1/v?password_file=/a@b' \
	'nats://h?user=a:b@c' nats://me@h:1 'amqp://h:1/a:b@c?x=y'; do
	EVBUS_X=$url expect_status 0 evbus replay -t traced --max 1 -- sh -c 'echo "${EVBUS_X-none}"'
	case $url in
	*/a:b@c\?*) expect_out none ;; # it cannot be told from a password
	*) expect_out "$url" ;;
	esac
done

t 'it has a process group of its own, default signals, and no descriptor of ours'
expect_status 0 evbus replay -t orders --max 1 -- bash -c '
	[ "$(ps -o pgid= -p $$ | tr -d " ")" = $$ ] && echo "its own group"
	grep -E "^Sig(Blk|Ign)" /proc/self/status | tr "\t\n" "  "'
expect_out_like 'its own group
SigBlk: 0000000000000000 SigIgn: 00000000?0000000 '
expect_status 0 evbus replay -t orders --max 1 -- ls /proc/self/fd
expect_same "$OUT" <(ls /proc/self/fd)

t 'signals that we were started to ignore do not become its own, and its end is still learnt'
expect_status 1 bash -c 'trap "" CHLD HUP PIPE; exec evbus replay -t orders -- sh -c "grep -E ^SigIgn /proc/self/status; exit 3"'
expect_out_like 'SigIgn:?00000000?0000000'
expect_err_has 'status 3'

# ---- stdin and stderr --------------------------------------------------------------------------------------------

t 'a large event goes through, and a command need not read it'
{ printf '{"id":"1","x":"'; head -c 1000000 /dev/zero | tr '\0' x; echo '"}'; } | evbus publish -q -t large
expect_status 0 evbus replay -t large -- true
expect_status 0 evbus replay -t large -- sh -c 'exec <&-; sleep 0.1'
expect_status 0 evbus replay -t large -- sleep 0.1
expect_status 0 evbus replay -t large -- sh -c 'sleep 0.1; head -c 100000 >/dev/null; wc -c'
expect_out $((1000000 + 18 - 100000))
expect_status 0 evbus replay -t large -- cat
expect_same "$OUT" <(evbus tail -t large --format payload)

t 'a flood on stderr is passed on, and takes no memory'
memory=100000
[ -z "${EVBUS_TEST_CFLAGS:-}" ] || memory=unlimited # a sanitizer reserves more than there is
expect_status 1 bash -c 'ulimit -v $0; evbus replay -t large -- sh -c "head -c 100000000 /dev/zero | tr \"\\0\" x >&2; echo >&2; echo end >&2; exit 3" 2>&1 >/dev/null | tee >(wc -c >passed) | tail -c 200 >end; exit ${PIPESTATUS[0]}' $memory
wait_for 5 test -s passed
expect_true 'all of it' test "$(<passed)" -gt 100000000
expect_true 'its last line is the reason' grep -q "'sh' ended with status 3: end" end

t 'who holds its stderr after its end is not waited for'
begin=$SECONDS
expect_status 1 evbus replay -t orders --max 1 -- sh -c 'sleep 9 & echo $! >sleeper; echo why >&2; exit 3'
expect_true 'it did not take so long' test $((SECONDS - begin)) -lt 5
expect_err_has 'status 3: why'
kill "$(<sleeper)"

t 'with --quiet its stderr is not passed on'
expect_status 0 evbus replay -q -t orders --max 2 -- sh -c 'echo talk >&2'
expect_err ''
expect_status 1 evbus replay -q -t orders -- sh -c 'echo why >&2; exit 3'
expect_err "evbus replay: record orders/0/0: 'sh' ended with status 3: why"

t 'with --log json each line of it is a message'
expect_status 0 evbus replay --log json -t orders -o 2 --max 1 -- sh -c 'printf "one\ntwo \"2\"" >&2'
expect_err_like '{"time":"*","level":"notice","command":"replay","message":"one","topic":"orders","partition_id":0,"offset":"2"}
{"time":"*","level":"notice","command":"replay","message":"two \\"2\\"","topic":"orders","partition_id":0,"offset":"2"}'

# ---- how it ends -------------------------------------------------------------------------------------------------

t 'the first failure ends it with 1'
expect_status 1 evbus replay -t orders -- sh -c 'cat; [ "$EVENT_OFFSET" != 1 ]'
expect_out "$(events 0 1)"
expect_err "evbus replay: record orders/0/1: 'sh' ended with status 1"
expect_status 1 evbus replay -t orders -- sh -c 'exit 65'
expect_err_has "status 65"
expect_status 1 evbus replay -t orders -- sh -c 'kill -SEGV $$'
expect_err_has "'sh' died of signal 11 (Segmentation fault)"

t 'with --on-error skip it goes on, and ends with 1'
expect_status 1 evbus replay -t orders --on-error skip -- sh -c 'cat; exit $((EVENT_OFFSET % 2))'
expect_out "$(events 0 4)"
expect_err "evbus replay: record orders/0/1: 'sh' ended with status 1
evbus replay: record orders/0/3: 'sh' ended with status 1
evbus replay: the command failed for 2 of 5 events"
expect_status 1 evbus replay -t orders --on-error stop -- false
expect_status 64 evbus replay -t orders --on-error retry -- false

t 'a status that says that the command is wrong ends it with 78'
for status in 64 78 126 127; do
	expect_status 78 evbus replay -t orders --on-error skip -- sh -c "cat; echo why >&2; exit $status"
	expect_out "$(events 0 0)"
	expect_err_has "'sh' ended with status $status: why"
done

t 'where whoever read stdout is gone the first that fails ends it with 74'
mkfifo pipe
# shellcheck disable=SC2094 # a FIFO
exec 5<>pipe 6>pipe 5<&-
expect_status 74 sh -c 'exec evbus replay -t orders --on-error skip -- cat >&6'
expect_err_has "'cat' died of signal 13 (Broken pipe) (whoever read stdout is gone)"
exec 6>&-

t 'a command that cannot be run is told before the first event'
: >plain && printf '#!/no/such/thing\n' >broken && chmod +x broken && mkdir directory
for case in "nosuch=cannot find 'nosuch' in PATH" "./nosuch=cannot execute './nosuch': No such file" \
	"./plain=cannot execute './plain': Permission denied" "./directory=cannot execute './directory': Is a directory" \
	"=an empty name"; do
	expect_status 78 evbus replay -b nowhere -t orders -- "${case%%=*}"
	expect_err_has "${case#*=}"
done
expect_status 78 evbus replay -t orders -- ./broken
expect_err_has 'the interpreter that it names is not there'
expect_status 78 env PATH="$PWD/directory:${EVBUS%/*}" evbus replay -t orders -- cat
expect_err_has "cannot find 'cat' in PATH"

t 'a script without #! is run by the shell'
echo 'cat; echo "$0 $1"' >script && chmod +x script
expect_status 0 evbus replay -t orders --max 1 -- ./script word
expect_out '{"id":"0"}
./script word'
expect_status 0 env PATH="$PWD:$PATH" evbus replay -t orders --max 1 -- script word

# ---- its time ----------------------------------------------------------------------------------------------------

t 'a time-out ends its process group'
expect_status 1 evbus replay -t orders --handler-timeout 200ms -- sh -c 'sleep 30 & echo $! >sleeper; wait'
expect_err "evbus replay: record orders/0/0: 'sh' was not done within 0.2 s"
wait_for 5 is_gone "$(<sleeper)"
expect_status 0 evbus replay -t orders --handler-timeout 20s -- true

t 'who ignores SIGTERM is killed, with what it left behind, and that is said'
expect_status 1 evbus replay -t orders --handler-timeout 100ms -- sh -c 'trap "" TERM; echo why >&2; sleep 30 & echo $! >sleeper; wait; wait'
expect_err_has "'sh' did not end within 1 s of SIGTERM, and is killed"
expect_err_has "was not done within 0.1 s: why"
wait_for 5 is_gone "$(<sleeper)"
expect_status 1 evbus replay -t orders --handler-timeout 100ms -- sh -c '(trap "" TERM; exec >/dev/null 2>&1; sleep 30) & echo $! >sleeper; exec sleep 30'
wait_for 5 is_gone "$(<sleeper)"

t 'SIGTERM lets the one that runs finish'
evbus replay -t orders -- sh -c 'echo begun >>log; sleep 0.3; echo done >>log' 2>"$ERR" &
replay=$!
wait_for 5 has_lines log 1
kill -TERM $replay
wait $replay
expect_equal $? 143 'its status'
expect_equal "$(tr '\n' ' ' <log)" 'begun done ' 'what was done'

t 'a second signal ends it at once'
rm log
evbus replay -t orders -- sh -c 'echo $$ >log; exec sleep 30' &
replay=$!
wait_for 5 test -s log
kill -TERM $replay
sleep 0.3
expect_true 'it still runs' kill -0 $replay
kill -TERM $replay
wait $replay
expect_equal $? 143 'its status'
wait_for 5 is_gone "$(<log)"

t 'two signals in a row, as timeout(1) sends them, are one'
rm log
expect_status 124 timeout 0.3 evbus replay -t orders -- sh -c 'echo begun >>log; sleep 0.8; echo done >>log'
expect_equal "$(tr '\n' ' ' <log)" 'begun done ' 'what was done'
rm log
evbus replay -t orders -- sh -c 'echo begun >>log; sleep 0.8; echo done >>log' &
replay=$!
wait_for 5 has_lines log 1
kill -TERM $replay
sleep 0.02
kill -TERM $replay
wait $replay
expect_equal "$(tr '\n' ' ' <log)" 'begun done ' 'what was done'

t 'it does not outlive a replay that is killed'
rm log
evbus replay -t orders -- sh -c 'echo $$ >log; exec sleep 30' &
replay=$!
wait_for 5 test -s log
{ kill -KILL $replay && wait $replay; } 2>/dev/null
wait_for 5 is_gone "$(<log)"

# ---- with other options ------------------------------------------------------------------------------------------

t 'it is paced, bounded, filtered and counted as anything else'
begin=${EPOCHREALTIME/./}
expect_status 0 evbus replay -t orders --max 3 --rate 10 -- cat
expect_lines 3
expect_true 'two pauses of 100 ms' test $((${EPOCHREALTIME/./} - begin)) -ge 195000
expect_status 0 evbus replay -t orders --where /id=3 -- cat
expect_out '{"id":"3"}'
expect_status 0 evbus replay -t orders --dry-run -- false
expect_out 5

t 'no checkpoint and no store are touched'
fresh
events 1 3 | evbus publish -q -t orders
expect_status 0 evbus replay -t orders -- true
expect_true 'no store was made' test ! -e event_bus/.evbus

t 'what excludes it, and what is only for it'
for options in '--to-topic again' '--to-bus copy' '--count'; do
	# shellcheck disable=SC2086 # options are words
	expect_status 64 evbus replay -t orders $options -- true
done
expect_status 64 evbus replay -t orders --handler-timeout 1s
expect_status 64 evbus replay -t orders --on-error skip
expect_err_has "behind '--'"

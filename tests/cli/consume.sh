#!/usr/bin/env bash
# consume -- COMMAND. What a command gets and how it is ended is tested with replay, in replay_command.sh.
# shellcheck disable=SC2016 # what stands in '' is for the shell of the command
. "${0%/*}/lib.sh"
plan 32

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
# at GROUP TOPIC: the checkpoint, or nothing
at() {
	evbus checkpoint-get -g "$1" -t "$2" -p "${3:-0}" --format tsv 2>/dev/null | cut -f 4
}
is_gone() { # PID
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}
has_lines() { # FILE N
	[ "$(wc -l <"$1")" -ge "$2" ]
}
# Descriptor 6 is that of a pipe that nobody reads.
with_broken_stdout() {
	"$@" >&6
}
soon=(--retry-delay 1ms --retry-cap 1ms)

# ---- events ------------------------------------------------------------------------------------------------------

t 'it runs for what is there, moves the checkpoint, and prints nothing itself'
events 0 4 | evbus publish -q -t orders
expect_status 0 evbus consume -t orders -g billing -- cat
expect_out "$(events 0 4)"
expect_err_has '5 done, 0 retried, 0 dead, 0 passed over'
expect_equal "$(at billing orders)" 5 'the checkpoint'
expect_status 0 evbus consume -q -t orders -g billing -- cat
expect_out ''
expect_err ''

t 'it goes on where the group was'
events 5 6 | evbus publish -q -t orders
expect_status 0 evbus consume -q -t orders -g billing -- sh -c 'echo "$EVENT_OFFSET $EVENT_GROUP $EVENT_ATTEMPT $EVENT_TOPIC"'
expect_out '5 billing 1 orders
6 billing 1 orders'
expect_status 0 evbus consume -q -t orders -g other --max 2 -- cat
expect_out "$(events 0 1)"
expect_equal "$(at other orders)" 2 'the checkpoint'

t '--offset is for partitions without a checkpoint'
expect_status 0 evbus consume -q -t orders -g third -o -2 --max 1 -- cat
expect_out '{"id":"5"}'
expect_status 0 evbus consume -q -t orders -g third --from-offset 0 -- cat
expect_out '{"id":"6"}'
expect_status 64 evbus consume -q -t orders -g third -o stored -- cat

t 'filters pass over what does not match, and count it'
printf '{"id":"%s","type":"%s","tenant_id":"%s"}\n' 1 order.placed a 2 order.paid a 3 order.placed b | evbus publish -q -t shop
expect_status 0 evbus consume -t shop -g g --type order.placed --tenant a -- cat
expect_lines 1
expect_out_has '"id":"1"'
expect_err_has '1 done, 0 retried, 0 dead, 2 passed over'
expect_equal "$(at g shop)" 3 'the checkpoint'
expect_status 0 evbus consume -q -t shop -g h --where /id=3 -- cat
expect_out_has '"id":"3"'

t 'a pattern takes several topics, and -p one partition'
evbus topic-create -q --partitions 2 wide.one >/dev/null
events 1 2 | evbus publish -q -t wide.one -p 1
events 3 3 | evbus publish -q -t wide.one -p 0
events 4 4 | evbus publish -q -t wide.two
expect_status 0 evbus consume -q -t 'wide.>' -g g -p 0 -- cat
expect_same <(sort "$OUT") <(events 3 4)
expect_status 0 evbus consume -q -t 'wide.*' -g g -- cat
expect_out "$(events 1 2)"

t 'a topic that is not there, and what is missing or wrong'
expect_status 66 evbus consume -t nothing -g g -- true
expect_status 64 evbus consume -t orders -g g
expect_err_has "'-- COMMAND [ARG...]' is missing"
expect_status 64 evbus consume -t orders -- true
expect_status 64 evbus consume -t orders -g g --window 3 -- true
expect_status 64 evbus consume -t orders -g g --coprocess --concurrency 2 -- true
expect_status 64 evbus consume -t orders -g g --concurrency 0 -- true

t 'a command that cannot be run is told before the bus is looked for'
expect_status 78 evbus consume -b nowhere -t orders -g g -- no-such-command
expect_err "evbus consume: cannot find 'no-such-command' in PATH"

# ---- what its status means ---------------------------------------------------------------------------------------

t '65 is a dead letter now, and the next event follows'
fresh
events 0 4 | evbus publish -q -t orders
expect_status 1 evbus consume -t orders -g g -- sh -c 'cat; [ "$EVENT_OFFSET" != 2 ] || { echo "no such customer" >&2; exit 65; }'
expect_out "$(events 0 4)"
expect_err_has "record orders/0/2 is a dead letter: 'sh' ended with status 65: no such customer"
expect_err_has "1 dead letter was made: see 'evbus dlq-list -g g'"
expect_equal "$(at g orders)" 5 'the checkpoint'
expect_equal "$(sql "SELECT reason, error, attempts, record_offset, $(bytes_of payload) FROM dlq")" 'refused|no such customer|1|2|{"id":"2"}' 'the letter'

t 'any other is tried again, before what follows, and a dead letter in the end'
expect_status 1 evbus consume -t orders -g h "${soon[@]}" --retry-max 2 -- sh -c 'echo "$EVENT_OFFSET/$EVENT_ATTEMPT"; [ "$EVENT_OFFSET" != 1 ]'
expect_out '0/1
1/1
1/2
1/3
2/1
3/1
4/1'
expect_err_has "record orders/0/1: 'sh' ended with status 1; that was attempt 1, and it is tried again"
expect_err_has '4 done, 2 retried, 1 dead'
expect_equal "$(sql "SELECT reason, error, attempts FROM dlq WHERE group_name = 'h'")" 'retries|ended with status 1|3' 'the letter'

t 'one that succeeds later is done, and nothing is left of its failures'
expect_status 0 evbus consume -t orders -g i "${soon[@]}" -- sh -c '[ "$EVENT_ATTEMPT" -gt 2 ]'
expect_err_has '5 done, 10 retried, 0 dead'
expect_equal "$(sql "SELECT count(*) FROM retries WHERE group_name = 'i'")" 0 'rows of retries'

t 'a signal and a time-out are failures of their own kinds'
expect_status 1 evbus consume -q -t orders -g j --max 1 --retry-max 0 -- sh -c 'echo why >&2; kill -SEGV $$'
expect_status 1 evbus consume -q -t orders -g j --max 1 --retry-max 0 --handler-timeout 100ms -- sleep 30
expect_equal "$(sql "SELECT reason, error FROM dlq WHERE group_name = 'j' ORDER BY id")" 'signal|died of signal 11 (Segmentation fault): why
timeout|was not done within 0.1 s' 'the letters'

t 'a status that says that the command is wrong stops it, and nothing moves'
for status in 64 78 126 127; do
	expect_status 78 evbus consume -t orders -g "k$status" -- sh -c "cat; echo why >&2; [ \$EVENT_OFFSET != 1 ] || exit $status"
	expect_out "$(events 0 1)"
	expect_err_has "record orders/0/1: 'sh' ended with status $status: why (a status that says that the command is wrong)"
	expect_equal "$(at "k$status" orders)" 1 'the checkpoint'
done
expect_equal "$(sql "SELECT count(*) FROM retries")" 0 'attempts counted'

t 'a command that goes away meanwhile is no fault of the event'
printf '#!/bin/sh\nrm "$0"\n' >once && chmod +x once
expect_status 78 evbus consume -q -t orders -g l -- ./once
expect_err_has "cannot execute './once'"
expect_equal "$(at l orders)" 1 'the checkpoint'

t '--on-dead stop ends it with the first dead letter'
expect_status 1 evbus consume -q -t orders -g m --on-dead stop -- sh -c 'cat; [ "$EVENT_OFFSET" != 1 ] || exit 65'
expect_out "$(events 0 1)"
expect_equal "$(at m orders)" 2 'the checkpoint'

t '--max counts what is done or dead, and not the attempts'
expect_status 1 evbus consume -q -t orders -g n "${soon[@]}" --retry-max 1 --max 2 -- sh -c 'cat; [ "$EVENT_OFFSET" != 1 ]'
expect_out "$(events 0 1; events 1 1)"
expect_status 0 evbus consume -q -t orders -g n --max 0 -- cat
expect_out ''

t 'the policy comes from the environment too'
expect_status 1 env RETRY_MAX=0 evbus consume -t orders -g o --max 1 -- false
expect_err_has '0 retried, 1 dead'
expect_status 1 env EVBUS_RETRY_MAX=1 RETRY_MAX=0 EVBUS_RETRY_DELAY=1ms evbus consume -t orders -g o --max 1 -- false
expect_err_has '1 retried, 1 dead'

# ---- time and signals --------------------------------------------------------------------------------------------

t '--timeout ends it with 75, and saves what is done'
expect_status 75 evbus consume -q -f -t orders -g p --timeout 300ms -- cat
expect_out "$(events 0 4)"
expect_equal "$(at p orders)" 5 'the checkpoint'
expect_status 75 evbus consume -q -t orders -g q --retry-delay 1h --retry-cap 1h --timeout 100ms -- false

t '--follow goes on, and takes up topics that appear'
evbus consume -q -f -t 'later.>' -g g -- sh -c 'echo "$EVENT_TOPIC" >>log' 2>"$ERR" &
consumer=$!
events 1 2 | evbus publish -q -t later.one
wait_for 5 has_lines log 2
events 1 1 | evbus publish -q -t later.two
wait_for 5 has_lines log 3
kill $consumer
wait $consumer
expect_equal $? 143 'its status'
expect_err ''

t 'SIGTERM lets the command finish, and saves that'
evbus consume -q -t orders -g r -- sh -c 'echo $EVENT_OFFSET >>begun; sleep 0.3; echo >>finished' &
consumer=$!
wait_for 5 has_lines begun 1
kill -TERM $consumer
wait $consumer
expect_equal $? 143 'its status'
expect_equal "$(wc -l <finished)" 1 'events done'
expect_equal "$(at r orders)" 1 'the checkpoint'

t 'a command that dies of the same signal counts no attempt'
rm -f begun
evbus consume -q -t orders -g s -- sh -c 'echo $$ >>begun; exec sleep 30' &
consumer=$!
wait_for 5 has_lines begun 1
kill -TERM $consumer
sleep 0.05
kill -TERM "$(<begun)"
wait $consumer
expect_equal $? 143 'its status'
expect_equal "$(sql "SELECT count(*) FROM retries WHERE group_name = 's'")" 0 'attempts counted'
expect_equal "$(at s orders)" '' 'the checkpoint'

t 'SIGINT and a second signal end it at once, and no attempt is counted'
rm -f begun
(trap - INT; exec evbus consume -q -t orders -g s -- sh -c 'echo $$ >>begun; exec sleep 30') &
consumer=$!
wait_for 5 has_lines begun 1
kill -INT $consumer
sleep 0.3
kill -INT $consumer
wait_for 3 is_gone $consumer
wait $consumer
wait_for 3 is_gone "$(<begun)"
expect_equal "$(sql "SELECT count(*) FROM retries WHERE group_name = 's'")" 0 'attempts counted'

t 'a consumer that is killed takes its command along, and another one goes on'
rm -f begun
evbus consume -q -t orders -g t -- sh -c 'echo $$ >>begun; [ $EVENT_OFFSET -lt 2 ] || exec sleep 30' &
consumer=$!
wait_for 5 has_lines begun 3
{ kill -KILL $consumer && wait $consumer; } 2>/dev/null
wait_for 3 is_gone "$(tail -n 1 begun)"
expect_status 0 evbus consume -q -t orders -g t -- cat
expect_out "$(events 2 4)"

t 'attempts and their due time outlive a restart'
expect_status 75 evbus consume -q -t orders -g u --retry-max 1 --retry-delay 1h --retry-cap 1h --timeout 200ms -- false
due=$(sql "SELECT attempts, next_attempt_at FROM retries WHERE group_name = 'u'")
expect_status 75 evbus consume -q -t orders -g u --retry-max 1 --retry-delay 1h --retry-cap 1h --timeout 200ms -- sh -c 'echo again'
expect_out ''
expect_equal "$(sql "SELECT attempts, next_attempt_at FROM retries WHERE group_name = 'u'")" "$due" 'what is stored'
sql "UPDATE retries SET next_attempt_at = '2026-01-01T00:00:00.000000Z' WHERE group_name = 'u'"
expect_status 1 evbus consume -q -t orders -g u --retry-max 1 --max 1 -- sh -c 'echo "$EVENT_ATTEMPT"; exit 1'
expect_out 2

# ---- many --------------------------------------------------------------------------------------------------------

t 'keys keep their order with --concurrency, through retries, and others flow'
fresh
for i in $(seq 1 8); do for key in a b c d; do printf '%s\t{"id":"%s%s"}\n' $key $key "$i"; done; done >keyed
for key in a b c d; do grep "^$key" keyed | cut -f 2 | evbus publish -q -t keyed -k $key; done
expect_status 0 evbus consume -t keyed -g g --concurrency 4 "${soon[@]}" -- \
	sh -c 'case $EVENT_ID$EVENT_ATTEMPT in a31|b51|b52) exit 1;; esac; sleep 0.0$((EVENT_OFFSET % 3)); echo $EVENT_ID'
expect_err_has '32 done, 3 retried'
for key in a b c d; do
	expect_equal "$(grep "^$key" "$OUT" | tr '\n' ' ')" "$(seq -f "$key%g" -s ' ' 8) " "the order of $key"
done

t 'with --concurrency several run at once, never more, and the checkpoint waits for the first'
fresh
events 0 7 | evbus publish -q -t many
evbus consume -q -t many -g g --concurrency 4 -- sh -c 'echo b >>log; if [ $EVENT_OFFSET = 0 ]; then while [ ! -e go ]; do sleep 0.02; done; else sleep 0.1; fi; echo e >>log' &
consumer=$!
wait_for 5 has_lines log 15
expect_true 'the first is still not done' test -z "$(at g many)"
: >go
wait $consumer
expect_equal $? 0 'its status'
expect_equal "$(at g many)" 8 'the checkpoint'
expect_equal "$(awk '/b/ { n++ } /e/ { n-- } n > most { most = n } END { print most }' log)" 4 'at once'

t 'with --concurrency what succeeds is saved, also after several said that the command is wrong'
fresh
evbus topic-create -q three >/dev/null
events 1 3 | evbus publish -q -t three
expect_status 78 evbus consume -q -t three -g g --inbox --concurrency 3 -- sh -c '[ "$EVENT_OFFSET" = 2 ] || exit 64; sleep 0.5; echo done >>log'
expect_equal "$(cat log)/$(sql 'SELECT count(*) FROM inbox')" done/1 'what was done, and what is known of it'

t 'two processes of a group never have the same partition, and --no-wait says so'
fresh
events 0 2 | evbus publish -q -t orders
evbus consume -q -f -t orders -g g -- sh -c 'echo $EVENT_OFFSET >>log' &
consumer=$!
wait_for 5 has_lines log 3
expect_status 75 evbus consume -q -t orders -g g --no-wait -- cat
expect_status 75 evbus consume -q -f -t orders -g g --timeout 100ms -- cat
kill $consumer
wait $consumer
expect_status 0 evbus consume -q -t orders -g g --no-wait -- cat
expect_out ''

t '--inbox runs no event twice'
fresh
{ events 1 3; events 2 4; } | evbus publish -q -t orders
expect_status 0 evbus consume -t orders -g g --inbox -- cat
expect_out "$(events 1 4)"
expect_err_has '4 done, 0 retried, 0 dead, 0 passed over, 2 done before'
evbus checkpoint-set -q -t orders -g g -o 0 >/dev/null
expect_status 0 evbus consume -q -t orders -g g --inbox -- cat
expect_out ''
expect_status 0 evbus consume -q -t orders -g h --inbox -- cat
expect_lines 4

t 'a letter that was queued is tried before the next event'
fresh
events 0 2 | evbus publish -q -t orders
expect_status 1 evbus consume -q -t orders -g g --max 1 -- sh -c 'exit 65'
sql "UPDATE dlq SET state = 'QUEUED'"
expect_status 0 evbus consume -t orders -g g -- cat
expect_out "$(events 0 2)"
expect_err_has '2 done, 0 retried, 0 dead, 0 passed over, 1 letter done'
expect_equal "$(sql 'SELECT state FROM dlq')" RETRIED 'the letter'

t 'a letter that fails again is told, and status 1'
expect_status 1 evbus consume -q -t orders -g h -- sh -c 'exit 65'
sql "UPDATE dlq SET state = 'QUEUED' WHERE group_name = 'h'"
expect_status 1 evbus consume -t orders -g h -- sh -c '[ $EVENT_OFFSET = 0 ]'
expect_err_has '0 done, 0 retried, 0 dead, 0 passed over, 1 letter done, 2 letters failed'
expect_err_has "evbus consume: 2 letters failed: see 'evbus dlq-list -g h'"
sql "UPDATE dlq SET state = 'QUEUED' WHERE group_name = 'h' AND record_offset = '1'"
events 3 3 | evbus publish -q -t orders
expect_status 1 evbus consume -q -t orders -g h -- sh -c 'exit 65'
expect_err_has "evbus consume: 1 dead letter was made, 1 letter failed: see 'evbus dlq-list -g h'"

t 'with --on-dead stop the first letter that fails again is the end'
sql "UPDATE dlq SET state = 'QUEUED' WHERE group_name = 'h' AND state = 'DEAD'"
expect_status 1 evbus consume -q -t orders -g h --on-dead stop -- sh -c 'cat; exit 65'
expect_lines 1
expect_equal "$(sql "SELECT count(*) FROM dlq WHERE state = 'QUEUED'")" 2 'those behind it'

# ---- stdout ------------------------------------------------------------------------------------------------------

t 'where whoever read stdout is gone it stops with 74, and that is no attempt'
mkfifo pipe
# shellcheck disable=SC2094 # a FIFO
exec 5<>pipe 6>pipe 5<&-
for options in '' '--concurrency 2' '--retry-max 0'; do
	# shellcheck disable=SC2086 # several
	expect_status 74 with_broken_stdout evbus consume -q -t orders -g i $options -- cat
	expect_err_like "evbus consume: record orders/0/[01]: 'cat' died of signal 13 (Broken pipe) (whoever read stdout is gone)"
done
expect_equal "$(at i orders)$(sql "SELECT count(*) FROM dlq WHERE group_name = 'i'")$(sql 'SELECT count(*) FROM retries')" 00 'letters and attempts'
expect_status 78 with_broken_stdout evbus consume -q -t orders -g i -- sh -c 'exit 64'
expect_status 1 with_broken_stdout evbus consume -q -t orders -g i --max 1 -- sh -c 'exit 65'
expect_status 0 with_broken_stdout evbus consume -q -t orders -g i -- true
exec 6>&-

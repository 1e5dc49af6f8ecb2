#!/usr/bin/env bash
# consume --coprocess -- COMMAND
# shellcheck disable=SC2016 # what stands in '' is for the shell or the awk of the command
. "${0%/*}/lib.sh"
plan 25

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
at() { # GROUP TOPIC
	evbus checkpoint-get -g "$1" -t "$2" --format tsv 2>/dev/null | cut -f 4
}
is_gone() { # PID
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}
has_lines() { # FILE N
	[ "$(wc -l <"$1")" -ge "$2" ]
}
soon=(--retry-delay 1ms --retry-cap 1ms)
# What follows reads lines and answers each; what is said for which is the caller's: answer 'CASES'.
answer() {
	printf '%s' "while read -r line; do n=\$((n + 1)); offset=\${line#*\\\"offset\\\":\\\"}; offset=\${offset%%\\\"*}; case \$offset in $1 *) echo ok;; esac; done"
}

t 'it is started once, gets each record as tail prints it, and says ok'
events 0 99 | evbus publish -q -t orders
expect_status 0 evbus consume -t orders -g g --coprocess -- sh -c 'echo $$ >>started; tee read | sed -u "s/.*/ok/"'
expect_out ''
expect_err_has '100 done, 0 retried, 0 dead'
expect_same read <(evbus tail -t orders -o beginning)
expect_equal "$(wc -l <started)" 1 'processes'
expect_equal "$(at g orders)" 100 'the checkpoint'

t 'retry and dead say what is to be done, and why'
expect_status 1 evbus consume -t orders -g h "${soon[@]}" --retry-max 1 --coprocess -- \
	sh -c "$(answer '3) echo retry no answer;; 5) echo retry;; 7) echo dead no such customer;; 8) echo dead;;')"
expect_err_has "record orders/0/3: 'sh' answered retry: no answer; that was attempt 1, and it is tried again"
expect_err_has "record orders/0/7 is a dead letter: 'sh' answered dead: no such customer"
expect_equal "$(sql "SELECT record_offset, reason, error, attempts FROM dlq WHERE group_name = 'h' ORDER BY record_offset")" '3|retries|no answer|2
5|retries|answered retry|2
7|refused|no such customer|1
8|refused|answered dead|1' 'the letters'

t 'it has the environment of a command, without an event'
expect_status 0 env EVENT_ID=old EVBUS_OUTBOX=nats://u:secret@h evbus consume -q -t orders -g i --max 1 --coprocess -- \
	sh -c 'env | grep -E "^(EVENT_|EVBUS_OUT)" >&2; env | grep -E "^(EVENT_|EVBUS_OUT)" >environment; exec sed -u s/.*/ok/'
expect_equal "$(<environment)" EVENT_GROUP=i 'its environment'
expect_err ''

t 'its stderr is passed on, and a flood of it is no harm'
expect_status 0 evbus consume -t orders -g j --max 3 --coprocess -- sh -c 'echo hello >&2; head -c 10000000 /dev/zero >&2; exec sed -u s/.*/ok/'
expect_err_has hello
expect_true 'all of it' test "$(wc -c <"$ERR")" -gt 10000000

t 'with --window 1 a record is given when the one before it is answered'
expect_status 0 evbus consume -q -t orders -g k --max 5 --window 1 --coprocess -- \
	python3 -uc 'import os, select, sys
while True:
	line = os.read(0, 1 << 20)
	if not line: break
	assert line.count(b"\n") == 1, line
	assert not select.select([0], [], [], 0.02)[0]
	os.write(1, b"ok\n")'
expect_status 0 evbus consume -q -t orders -g k --window 7 --coprocess -- \
	python3 -uc 'import os, sys, time
most = 0
while True:
	lines = os.read(0, 1 << 20).count(b"\n")
	if not lines: break
	most = max(most, lines)
	time.sleep(0.005)
	os.write(1, b"ok\n" * lines)
sys.exit(0 if 2 <= most <= 7 else 3)'

t 'records of one key are not given before those in front of them are answered'
for key in a b; do seq 1 20 | sed "s/.*/{\"id\":\"$key&\"}/" | evbus publish -q -t keyed -k $key; done
expect_status 0 evbus consume -q -t keyed -g g "${soon[@]}" --coprocess -- \
	bash -c 'declare -A tried; while read -r line; do
		[[ $line =~ \"id\":\"([ab][0-9]+) ]]; key=${BASH_REMATCH[1]}
		if [[ $key == *5 && ! ${tried[$key]:-} ]]; then tried[$key]=1; echo retry; else echo "$key" >>order; echo ok; fi
	done'
for key in a b; do
	expect_equal "$(grep "^$key" order | tr '\n' ' ')" "$(seq -f "$key%g" -s ' ' 20) " "the order of $key"
done

t 'without a key records are independent, unless with --window 1'
events 1 9 | evbus publish -q -t keyless
again='while read -r line; do case $line in *\"id\":\"3\"*) [ -e "$0" ] || { : >"$0"; echo retry; continue; };; esac; echo "$line" >>"$0.order"; echo ok; done'
expect_status 0 evbus consume -q -t keyless -g g --retry-delay 100ms --coprocess -- sh -c "$again" free
expect_equal "$(grep -o '"id":"."' free.order | tr -cd '0-9')" 124567893 'the order'
expect_status 0 evbus consume -q -t keyless -g h --retry-delay 100ms --window 1 --coprocess -- sh -c "$again" strict
expect_equal "$(grep -o '"id":"."' strict.order | tr -cd '0-9')" 123456789 'the order with --window 1'

t 'events up to a mebibyte go through'
{
	printf '{"id":"1","x":"' && head -c 1000000 /dev/zero | tr '\0' x && echo '"}'
	events 2 3
	printf '{"id":"4","x":"' && head -c 1000000 /dev/zero | tr '\0' y && echo '"}'
} | evbus publish -q -t large
expect_status 0 evbus consume -q -t large -g g --coprocess -- sh -c 'tee read | sed -u "s/.*/ok/"'
expect_same read <(evbus tail -t large -o beginning)

# ---- what is no answer -------------------------------------------------------------------------------------------

t 'another line stops it, and nothing that is unanswered moves'
fresh
events 0 9 | evbus publish -q -t orders
for case in 'OK' 'okay' 'ok done' '' 'retrying' 'deadly' 'retry:x'; do
	expect_status 78 evbus consume -t orders -g g --coprocess -- sh -c 'sed -u "1s/.*/$0/; 1!s/.*/ok/"' "$case"
	expect_err_has "its answer 1, '$case', is none of: ok, retry REASON, dead REASON"
done
expect_equal "$(at g orders)" '' 'the checkpoint'
expect_status 78 evbus consume -t orders -g g --coprocess -- sh -c 'sed -u "4s/.*/ko/; 4!s/.*/ok/"'
expect_err_has "its answer 4, 'ko', is none of"
expect_equal "$(at g orders)" 3 'the checkpoint'
expect_equal "$(sql 'SELECT count(*) FROM retries')" 0 'attempts counted'

t 'a NUL is in no answer'
for answer in 'ok\0' 'dead \0x' 'retry a\0b' '\0'; do
	expect_status 78 evbus consume -q -t orders -g nul --coprocess -- sh -c 'read -r line; printf "$0\n"; exec sleep 1' "$answer"
	expect_err_has ', has a NUL in it'
done
expect_equal "$(at nul orders)$(sql 'SELECT count(*) FROM dlq')" 0 'the checkpoint and letters'

t 'an answer to nothing, and one without an end'
expect_status 78 evbus consume -q -t orders -g h --max 2 --coprocess -- sh -c 'echo ok; exec sed -u "s/.*/ok/"'
expect_err_has 'belongs to no record: one line for each'
expect_status 78 evbus consume -q -t orders -g i --coprocess -- sh -c 'exec tr -d "\n" </dev/zero'
expect_err_has 'is too long'

t 'a status that says that the command is wrong stops it'
for status in 64 78 126 127; do
	expect_status 78 evbus consume -q -t orders -g j --coprocess -- sh -c 'echo why >&2; exit $0' $status
	expect_err_has "ended with status $status before it answered: why"
done
expect_equal "$(at j orders)" '' 'the checkpoint'
expect_equal "$(sql 'SELECT count(*) FROM retries')" 0 'attempts counted'

t 'so does one that ends with 0 and has never answered'
for command in true 'read -r line' 'exec <&-'; do
	expect_status 78 timeout 5 evbus consume -q -t orders -g zero --retry-delay 1ms --handler-timeout 1s --coprocess -- sh -c "$command; exit 0"
	expect_err_has "'sh' ended with status 0 before it answered anything: it must answer each record with a line"
done
expect_equal "$(at zero orders)$(sql 'SELECT count(*) FROM retries')$(sql 'SELECT count(*) FROM dlq')" 00 'checkpoint, attempts, letters'
expect_status 0 evbus consume -q -t orders -g zero "${soon[@]}" --coprocess -- \
	sh -c 'read -r line; [ -e seen ] || { : >seen; echo ok; read -r line; exit 0; }; echo ok'

t 'a command that is not there is told before the bus is looked for'
expect_status 78 evbus consume -b nowhere -t orders -g j --coprocess -- no-such-command
expect_err_has "cannot find 'no-such-command' in PATH"

# ---- its death ---------------------------------------------------------------------------------------------------

t 'one that dies at every 7th record is started again, and all is done'
fresh
events 0 49 | evbus publish -q -t orders
expect_status 0 evbus consume -t orders -g g "${soon[@]}" --coprocess -- \
	sh -c 'while read -r line; do n=$((n + 1)); [ $n != 7 ] || exit 3; echo "$line" >>log; echo ok; done'
expect_err_has "ended with status 3 before it answered; that was attempt 1, and it is tried again"
expect_err_has '50 done,'
expect_equal "$(sort -u log | wc -l) $(wc -l <log)" '50 50' 'events handled'

t 'the record that kills it becomes a dead letter, and no other'
fresh
events 0 99 | evbus publish -q -t orders
expect_status 1 evbus consume -q -t orders -g g "${soon[@]}" --retry-max 3 --coprocess -- \
	python3 -uc 'import os, sys
rest = b""
while True:
	data = os.read(0, 1 << 20)
	if not data: break
	*lines, rest = (rest + data).split(b"\n")
	# It answers late, so that which record killed it cannot be seen.
	for line in lines:
		if b"\"id\":\"41\"" in line: os.kill(os.getpid(), 9)
	os.write(1, b"ok\n" * len(lines))'
expect_equal "$(sql 'SELECT record_offset, reason, attempts FROM dlq')" '41|signal|4' 'the letters'
expect_true 'the signal is the reason' grep -q 'died of signal 9 (Killed) before it answered' <(sql 'SELECT error FROM dlq')
expect_equal "$(at g orders)" 100 'the checkpoint'
expect_equal "$(sql 'SELECT count(*) FROM retries')" 0 'attempts left over'

t 'one that does not answer in time is ended, with what it started'
fresh
events 0 9 | evbus publish -q -t orders
expect_status 1 evbus consume -q -t orders -g g "${soon[@]}" --retry-max 1 --handler-timeout 150ms --coprocess -- \
	sh -c 'while read -r line; do case $line in *\"id\":\"4\"*) sleep 30 & echo $! >sleeper; wait;; esac; echo ok; done'
expect_equal "$(sql 'SELECT record_offset, reason, attempts, error FROM dlq')" '4|timeout|2|did not answer within 0.15 s' 'the letter'
wait_for 3 is_gone "$(<sleeper)"
expect_equal "$(at g orders)" 10 'the checkpoint'

t 'one that closes its stdin or its stdout is as good as dead'
expect_status 1 evbus consume -q -t orders -g h "${soon[@]}" --retry-max 0 --max 1 --coprocess -- sh -c 'exec <&-; sleep 30'
expect_status 1 evbus consume -q -t orders -g h "${soon[@]}" --retry-max 0 --max 1 --coprocess -- sh -c 'sleep 0.1; exec <&-; sleep 30'
expect_status 1 evbus consume -q -t orders -g h "${soon[@]}" --retry-max 0 --max 1 --coprocess -- sh -c 'exec >&-; sleep 30'
expect_status 1 evbus consume -q -t orders -g h "${soon[@]}" --retry-max 0 --max 1 --coprocess -- \
	sh -c 'trap "exit 0" TERM; exec <&-; while :; do sleep 0.05; done'
expect_equal "$(sql "SELECT count(*) FROM dlq WHERE group_name = 'h'")" 4 'the letters'

t 'one that answers all and then fails is told'
expect_status 1 evbus consume -q -t orders -g i --coprocess -- sh -c 'sed -u "s/.*/ok/"; exit 3'
expect_err_has "'sh' answered all, and then ended with status 3"
expect_equal "$(at i orders)" 10 'the checkpoint'

t 'one that ends while nothing is to be done is started again when there is'
evbus consume -f -t later -g g "${soon[@]}" --coprocess -- sh -c 'read -r line; echo "$line" >>log; echo ok' 2>"$ERR" &
consumer=$!
for i in 1 2 3; do
	events $i $i | evbus publish -q -t later
	wait_for 5 has_lines log $i
	sleep 0.2
done
kill $consumer
wait $consumer
expect_equal "$(grep -o '"id":"."' log | tr '\n' ' ')" '"id":"1" "id":"2" "id":"3" ' 'what was handled'

# ---- signals -----------------------------------------------------------------------------------------------------

t 'SIGTERM lets it answer what it has, and no further record is given'
fresh
events 0 999 | evbus publish -q -t orders
evbus consume -q -t orders -g g --window 4 --coprocess -- sh -c 'while read -r line; do echo >>log; sleep 0.05; echo ok; done' 2>"$ERR" &
consumer=$!
wait_for 5 has_lines log 3
kill -TERM $consumer
wait $consumer
expect_equal $? 143 'its status'
expect_equal "$(at g orders)" "$(wc -l <log)" 'the checkpoint, and what it read'
expect_true 'no more than the window' test "$(wc -l <log)" -lt 12
expect_err ''

t 'a second signal ends it at once, and what is unanswered comes again'
rm log
evbus consume -q -t orders -g h --coprocess -- sh -c 'echo $$ >>log; sleep 30' &
consumer=$!
wait_for 5 has_lines log 1
kill -TERM $consumer
sleep 0.3
kill -TERM $consumer
wait_for 3 is_gone $consumer
wait $consumer
expect_equal $? 143 'its status'
wait_for 3 is_gone "$(<log)"
expect_equal "$(at h orders)$(sql 'SELECT count(*) FROM retries')" 0 'the checkpoint and attempts'

t 'a consumer that is killed takes it along'
rm log
evbus consume -q -t orders -g i --coprocess -- sh -c 'echo $$ >>log; exec sleep 30' &
consumer=$!
wait_for 5 has_lines log 1
{ kill -KILL $consumer && wait $consumer; } 2>/dev/null
wait_for 3 is_gone "$(<log)"

t '--timeout and --max end it in order'
expect_status 75 evbus consume -q -f -t orders -g j --timeout 300ms --coprocess -- sh -c 'tee given | sed -u "s/.*/ok/"; echo end >>ends'
expect_status 0 evbus consume -q -t orders -g k --max 5 --coprocess -- sh -c 'sed -u "s/.*/ok/"; echo end >>ends'
expect_equal "$(at j orders) $(at k orders) $(wc -l <ends)" "$(wc -l <given) 5 2" 'checkpoints, and ends in order'
expect_true 'there was time for some' test -s given

t '--inbox: what was done before is not given'
evbus checkpoint-set -q -t orders -g k -o 0 >/dev/null
expect_status 0 evbus consume -q -t orders -g k2 --inbox --max 5 --coprocess -- sed -u 's/.*/ok/'
evbus checkpoint-set -q -t orders -g k2 -o 0 >/dev/null
expect_status 0 evbus consume -q -t orders -g k2 --inbox --max 5 --coprocess -- sh -c 'tee read | sed -u "s/.*/ok/"'
expect_equal "$(grep -c . read)" 5 'records given'
expect_true 'the first is a new one' grep -q '"offset":"5"' read

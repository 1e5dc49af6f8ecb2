#!/usr/bin/env bash
# What goes wrong between the program and RabbitMQ: what has a receipt is in the queue, nothing is lost of what is published
# again, and nothing waits for ever.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 8

serve net proxy
net=$ANSWER
serve broker server rabbitmq || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r plain _ <<<"$ANSWER"
tell net to "${plain##*:}"
echo s3cret >"$SERVED/password"
through="amqp://tester@127.0.0.1:$net?password_file=$SERVED/password"
plain="amqp://tester@${plain#*@}?password_file=$SERVED/password"
export EVBUS_STORE=sqlite:state.db

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&","type":"t","more":"................................................................"}/'
}
take() { # QUEUE: the ids that are in it, to `found`
	tell broker take "$1" "$PWD/messages"
	jq -r .message_id messages >found
}
# Each from 1 to LAST is there, the first time in its order.
expect_all() { # QUEUE LAST
	take "$1"
	awk '!seen[$1]++' found >firsts
	expect_same firsts <(seq 1 "$2")
}
events 1 20000 | evbus publish -q -t many

t 'a server that is killed in the middle: 69 within the time-out, what has a receipt is there, and from there it goes on'
tell broker queue many
evbus replay -t many --to-bus "$plain&timeout=3s" --rate 20000 --format '{topic}\n' >receipts 2>err &
replay=$!
wait_for 20 test -s receipts
SECONDS=0
tell broker kill
wait "$replay"
expect_equal $? 69 'the status'
took 8
tell broker start
done=$(wc -l <receipts)
expect_true "some were published, and not all: $done" test "$done" -gt 0 -a "$done" -lt 20000
expect_status 0 evbus replay -q -t many -o "$done" --to-bus "$plain"
expect_all many 20000
expect_true "what came twice was under way: $(wc -l <found)" test "$(wc -l <found)" -le 31000

t 'a server that is paused, or swallowed by the network: 69 within the time-out, also for what is large; then it goes on'
tell broker queue slow
for harm in 'hole both' silent paused; do
	tell net pass
	if [ "$harm" = paused ]; then
		tell broker pause
	else
		# shellcheck disable=SC2086 # its words
		tell net $harm
	fi
	SECONDS=0
	expect_status 69 evbus publish -b "$through&timeout=1s" -t slow <<<'{"id":"1"}'
	took 4
done
tell broker resume
tell net pass
{
	printf '{"id":"1","x":"'
	head -c 2800000 /dev/zero | tr '\0' x
	echo '"}'
} >large
mkfifo in
rm -f receipts
evbus publish -b "$through&timeout=2s" --max-payload 3M -t slow --format '{topic}\n' <in >receipts 2>err &
publisher=$!
exec 7>in
echo '{"id":"0"}' >&7
wait_for 20 test -s receipts
tell broker pause
SECONDS=0
cat large large large >&7 2>/dev/null
exec 7>&-
wait "$publisher"
expect_equal $? 69 "the status ($(cat err))"
took 8
tell broker resume
expect_status 0 evbus publish -q -b "$through" -t slow <<<'{"id":"2"}'
take slow
expect_equal "$(head -n 1 found) $(tail -n 1 found)" '0 2' 'what came'

t 'a connection that is cut anywhere: nothing that has a receipt is missing, and nothing is after the rest is published'
head -n 3000 <(events 1 3000) | evbus publish -q -t cut
tries=0
for way in up down; do
	for bytes in 10 300 500 800 5000 100000; do
		tell broker queue cut
		tell net pass
		tell net cut "$way" "$bytes"
		evbus replay -t cut --to-bus "$through&timeout=5s" --format '{topic}\n' >receipts 2>err
		status=$? tries=$((tries + 1))
		expect_true "$way $bytes: the status is $status ($(cat err))" test "$status" = 69 -o "$status" = 0
		tell net pass
		[ "$status" = 0 ] || expect_status 0 evbus replay -q -t cut -o "$(wc -l <receipts)" --to-bus "$through"
		expect_all cut 3000
	done
done
ran 'connections cut' "$tries" 12

t 'a server without memory takes nothing: that is told within the time-out, and who follows goes on afterwards'
tell broker queue blocked
outbox() { # COMMAND...
	evbus "outbox-$1" --outbox sqlite:app.db "${@:2}"
}
outbox init -q >/dev/null
tell broker control set_vm_memory_high_watermark 0.00001
SECONDS=0
expect_status 69 evbus publish -b "$plain&timeout=2s" -t blocked <<<'{"id":"0"}'
expect_err_has 'takes nothing now: low on memory'
took 6
events 1 10 | outbox add -q -t blocked >/dev/null
outbox drain -f -q --to-bus "$plain&timeout=1s" --retry-delay 100ms --retry-cap 500ms 2>err &
drainer=$!
wait_for 20 grep -q 'no attempt is counted' err
tell broker control set_vm_memory_high_watermark 0.4
sent() {
	[ "$(sqlite3 app.db "SELECT count(*) FROM outbox WHERE state = 'SENT' AND attempts = 0")" = "$1" ]
}
wait_for 60 sent 10

t 'a connection that the server has closed meanwhile is opened anew, and nobody is told'
tell broker control close_all_connections for-a-test
: >err
events 11 20 | outbox add -q -t blocked >/dev/null
wait_for 60 sent 20
kill "$drainer"
wait "$drainer"
take blocked
expect_equal "$(grep -vx 0 found | awk '!seen[$1]++' | paste -sd,)" "$(seq 1 20 | paste -sd,)" 'what came'
expect_equal "$(cat err)" '' 'what was told'

t 'drainers and the server killed at random: each committed row comes, in the order of its key'
tell broker queue drained
rm -f app.db
outbox init -q >/dev/null
for key in a b c; do
	events 1 1000 | sed "s/\"id\":\"/&$key-/" | outbox add -q -t drained --key "$key" >/dev/null
done
kills=0
for n in 1 2 3 4 5 6; do
	outbox drain -f -q --to-bus "$plain&timeout=2s" --batch 200 --lease 2s --retry-delay 100ms 2>>err &
	drainer=$!
	sleep "0.$((RANDOM % 5 + 1))"
	if [ "$n" = 3 ]; then
		tell broker kill
		tell broker start
	fi
	kill -KILL "$drainer"
	wait "$drainer" 2>/dev/null
	kills=$((kills + 1))
done
ran 'drainers killed' "$kills" 6
expect_status 0 outbox drain -q --to-bus "$plain" --concurrency 2
take drained
for key in a b c; do
	expect_same <(grep "^$key" found | awk '!seen[$1]++') <(seq 1 1000 | sed "s/^/$key-/")
done
expect_true "what came twice was under way: $(wc -l <found)" test "$(wc -l <found)" -le $((3000 + 7 * 200))

t 'who waits for a confirmation ends by a signal at once'
rm -f receipts
evbus publish -b "$plain" -t many --format '{topic}\n' <in >receipts 2>err &
publisher=$!
exec 7>in
events 1 1 >&7
wait_for 20 test -s receipts
tell broker pause
events 2 2 >&7
sleep 0.5
SECONDS=0
kill -TERM "$publisher"
wait "$publisher"
took 2
exec 7>&-
tell broker resume

t 'a queue that goes in the middle: what has a receipt was in it, and what has none is refused'
tell broker queue going
rm -f receipts
evbus publish -b "$plain" -t going --format '{topic}\n' <in >receipts 2>err &
publisher=$!
exec 7>in
events 1 1 >&7
wait_for 20 test -s receipts
take going
expect_equal "$(cat found)" 1 'before'
tell broker delete going
events 2 4 >&7
exec 7>&-
wait "$publisher"
expect_equal $? 66 'the status'
expect_equal "$(wc -l <receipts)" 1 receipts
expect_true "the reason is told: $(cat err)" grep -q '312 NO_ROUTE' err

#!/usr/bin/env bash
# What goes wrong between the program and a broker of Kafka: no receipt is false, what has one is there once and in order,
# and nothing waits for ever.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 10

serve net proxy
net=$ANSWER
serve broker server kafka --behind "$net" || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r plain _ _ behind <<<"$ANSWER"
tell net to "${behind##*:}"
through=kafka://127.0.0.1:$net
export EVBUS_BUS=$plain EVBUS_STORE=sqlite:state.db

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"n":&,"more":"................................................................"}/'
}
# In the topic stands each from 1 to LAST, once and in order; the receipts say where.
expect_all() { # TOPIC LAST RECEIPTS
	evbus replay -q -t "$1" --format '{/n}\n' >found
	expect_same found <(seq 1 "$2")
	evbus replay -q -t "$1" --format '{offset}\n' >found
	expect_same "$3" found
}
# Each receipt is of a record that is there; what has none may be there, behind those.
expect_receipts_true() { # TOPIC RECEIPTS
	evbus replay -q -t "$1" --format '{offset}\n' | head -n "$(wc -l <"$2")" >found
	expect_same "$2" found
	evbus replay -q -t "$1" --format '{/n}\n' >found
	expect_same found <(seq 1 "$(wc -l <found)")
}

t 'a broker that is killed in the middle of a publish and comes back has each event once, in order'
mkfifo in
evbus publish -t killed -X timeout=90s --format '{offset}\n' <in >receipts &
publisher=$!
exec 7>in
events 1 10000 >&7
wait_for 20 test -s receipts
tell broker kill
events 10001 20000 >&7 &
sleep 0.2
tell broker start
wait $!
exec 7>&-
wait "$publisher"
expect_equal $? 0 'the status'
expect_all killed 20000 receipts

t 'a broker that is killed and stays away: 69 within the time-out, and no receipt is false'
evbus topic-create -q -t away >/dev/null
evbus publish -t away -X timeout=3s --format '{offset}\n' <in >receipts 2>err &
publisher=$!
exec 7>in
events 1 10000 >&7
wait_for 20 test -s receipts
SECONDS=0
tell broker kill
events 10001 11000 >&7 2>/dev/null
exec 7>&-
wait "$publisher"
expect_equal $? 69 'the status'
took 8
expect_true "the reason is told: $(cat err)" grep -q 'within 3 s: .*Connection refused' err
expect_status 69 evbus replay -t away -X timeout=1s
tell broker start
expect_receipts_true away receipts

t 'a broker that is paused: 69 within the time-out for whoever asks; then it goes on'
evbus topic-create -q -t paused >/dev/null
events 1 10 | evbus publish -t paused --format '{offset}\n' >receipts
tell broker pause
for command in 'publish -t paused' 'replay -t paused' 'topic-list' 'topic-create -t other' 'topic-describe -t paused'; do
	SECONDS=0
	# shellcheck disable=SC2086 # its words
	expect_status 69 evbus $command -X timeout=1s <<<'{"n":11}'
	took 4
done
tell broker resume
expect_receipts_true paused receipts
evbus publish -q -t paused <<<'{"n":12}'
expect_status 0 evbus tail -t paused --last 1 --format '{/n}\n'
expect_out 12

t 'a connection that is cut anywhere in a publish: each event once, in order'
tries=0
for way in up down; do
	for bytes in 10 300 700 1500 5000 100000; do
		topic=cut.$way.$bytes tries=$((tries + 1))
		evbus topic-create -q -t "$topic" >/dev/null
		tell net pass
		tell net cut "$way" "$bytes"
		events 1 3000 | evbus publish -b "$through" -t "$topic" --format '{offset}\n' >receipts ||
			fail "$topic: status $?"
		expect_all "$topic" 3000 receipts
	done
done
ran 'connections cut' "$tries" 12

t 'answers that come late, twice, or not for a while: each event once, in order'
for harm in 'delay both 100' 'double down 20' 'double up 3' 'hole both' 'hole down'; do
	topic=harm.${harm// /.}
	evbus topic-create -q -t "$topic" >/dev/null
	tell net pass
	evbus publish -b "$through" -t "$topic" -X timeout=60s --format '{offset}\n' <in >receipts &
	publisher=$!
	exec 7>in
	events 1 500 >&7
	# shellcheck disable=SC2086 # its words
	tell net $harm
	events 501 3000 >&7
	sleep 0.3
	[ "${harm%% *}" != hole ] || tell net pass
	exec 7>&-
	wait "$publisher"
	expect_equal $? 0 "$harm: the status"
	expect_all "$topic" 3000 receipts
done
tell net pass

t 'answers that come late: an event that is larger than the topic takes is still refused alone'
evbus topic-create -q -t late >/dev/null
{ echo '{"n":1}' && printf '{"pad":"%s"}\n' "$(head -c 1048570 /dev/zero | tr '\0' x)" && echo '{"n":2}'; } >in.jsonl
tell net delay down 1100
expect_status 1 evbus publish -q -b "$through" -t late -X timeout=60s --max-payload 2MiB --on-error skip in.jsonl
tell net pass
expect_status 0 evbus replay -t late --format '{/n}\n'
expect_out $'1\n2'

t 'a network that swallows everything: 69 within the time-out'
for harm in 'hole both' silent; do
	# shellcheck disable=SC2086 # its words
	tell net $harm
	for command in 'publish -t killed' 'replay -t killed' 'topic-list'; do
		SECONDS=0
		# shellcheck disable=SC2086 # its words
		expect_status 69 evbus $command -b "$through" -X timeout=1s <<<'{"n":0}'
		took 4
	done
	tell net pass
done

t 'who reads is cut off again and again, and misses nothing'
evbus replay -b "$through" -t killed --format '{/n}\n' >found &
reader=$!
for _ in 1 2 3 4 5 6; do
	tell net cut down 150000
	sleep 0.1
	tell net drop
done
tell net pass
wait "$reader"
expect_equal $? 0 'the status'
expect_same found <(seq 1 20000)

t 'who follows goes on when the broker comes back'
evbus publish -q -t followed <<<'{"n":1}'
evbus tail -f -t followed -o beginning --max 2 -X timeout=90s --format '{/n}\n' >went-on &
reader=$!
wait_for 20 test -s went-on
tell broker kill
sleep 0.5
tell broker start
evbus publish -q -t followed <<<'{"n":2}'
wait "$reader"
expect_equal "$? $(paste -sd ' ' went-on)" '0 1 2' 'the status, and what was followed'

t 'who follows, or waits for a broker, ends by a signal at once'
# Not before it follows: a signal that meets the shell that is to become it is lost.
evbus tail -f -t followed -o 1 >following &
reader=$!
wait_for 20 test -s following
SECONDS=0
kill -TERM "$reader"
wait "$reader"
took 3

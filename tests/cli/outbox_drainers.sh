#!/usr/bin/env bash
# outbox-drain: several at once, killed, and overtaken.
. "${0%/*}/lib.sh"
plan 5

use_app
sql() {
	app "$@"
}
begin() {
	fresh
	evbus outbox-init -q >/dev/null
}
# fill ROWS KEYS: rows 1, 2, … of which each has a key 0, 1, … and its number
fill() {
	sql "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
		INSERT INTO outbox (id, topic, event_type, partition_key, payload)
		SELECT 'o-' || i, 'orders', 't', 'k' || (i % $2), '{\"id\":\"o-' || i || '\",\"n\":' || i || '}' FROM n"
}
# whole ROWS: each event is on the bus once, and each key in order
whole() {
	evbus replay -t orders --format '{partition_key} {/n}\n' >log
	expect_equal "$(wc -l <log)" "$1" 'events on the bus'
	expect_equal "$(cut -d ' ' -f 2 log | sort -n | uniq | wc -l)" "$1" 'different events'
	expect_order_of_keys <log
	expect_equal "$(sql 'SELECT DISTINCT state FROM outbox')" SENT 'the states'
}

t 'two drainers share the rows; each is published once, and each key is in order'
begin
fill 2000 500
evbus outbox-drain --batch 20 >one 2>said_one &
one=$!
evbus outbox-drain --batch 20 --concurrency 3 >two 2>said_two &
two=$!
wait $one
expect_equal $? 0 'the status of the first'
wait $two
expect_equal $? 0 'the status of the second'
expect_equal "$(cat one two | wc -l)" 2000 'receipts'
expect_equal "$(cat said_one said_two | grep -v ' made ')" '' 'what they said'
whole 2000

t 'receipts of several workers are whole lines'
expect_equal "$(cat one two | jq -r .offset | sort -n | paste -sd ' ')" "$(seq 0 1999 | paste -sd ' ')" 'the offsets'

t 'one hot key is published in order by several'
begin
fill 500 1
evbus outbox-drain -q --batch 20 --lease 2s &
evbus outbox-drain -q --batch 20 --lease 2s --concurrency 3
expect_equal $? 0 'the status'
wait
whole 500

t 'killed in the middle, again and again, each event is on the bus once'
begin
fill 3000 30
# To come to a server takes longer.
tenths=1
[ -z "$tests_database" ] || tenths=3
for _ in 1 2 3 4 5 6 7 8; do
	evbus outbox-drain -q --batch 40 --lease 200ms --concurrency 2 2>/dev/null &
	drainer=$!
	sleep "0.$((RANDOM % tenths))$((RANDOM % 9 + 1))"
	kill -9 $drainer 2>/dev/null
	wait $drainer 2>/dev/null
done
# The leases that were left behind are short: it does not wait for longer ones.
expect_status 0 evbus outbox-drain -q --lease 2s --timeout 60s
whole 3000

t 'one that was stopped for longer than its lease overtakes nobody'
begin
fill 2000 10
evbus outbox-drain -q --batch 100 --lease 300ms 2>said &
drainer=$!
wait_for 10 test -s event_bus/orders/partition=0.jsonl
kill -STOP $drainer
evbus outbox-drain -q --timeout 60s 2>said_second &
second=$!
# It may have been stopped with a lock in its hands, for which the other waits as long as it takes.
sleep 0.6
kill -CONT $drainer
wait $drainer
wait $second
expect_equal $? 0 'the status of the second'
whole 2000

#!/usr/bin/env bash
# outbox-drain: what it publishes, how it ends, what it says.
. "${0%/*}/lib.sh"
plan 34

use_app
sql() {
	app "$@"
}
# The outbox as messages name it: who comes to a server may be a secret.
named() {
	echo "${EVBUS_OUTBOX/owner@/***@}"
}
events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"o-&","type":"order.placed"}/'
}
add() { # OPTIONS...: adds what it reads
	evbus outbox-add "$@" >/dev/null
}
begin() {
	fresh
	evbus outbox-init -q >/dev/null
}
# The states of all rows, in order.
states() {
	sql 'SELECT state FROM outbox ORDER BY seq' | paste -sd ' '
}
# ids TOPIC: of the events on the bus, in order
ids() {
	evbus tail -t "$1" -o beginning --format '{event_id}\n' | paste -sd ' '
}

# ---- what is published -------------------------------------------------------------------------------------------

t 'each row is published as it stands, and has a receipt'
begin
printf '%s\n' '{"id":"1","type":"t","total":1.10,"big":12345678901234567890,"u":"\u00e9é"}' '{"id":"2","type":"t"}' >events
add -t orders events
expect_status 0 evbus outbox-drain
expect_out_like '{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"0","published_at_utc":"*Z"}
{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"1","published_at_utc":"*Z"}'
evbus replay -t orders --format payload >published
expect_same published events
expect_equal "$(states)" 'SENT SENT' 'the states'
expect_equal "$(evbus outbox-list --format json | jq -r '.receipt.offset' | paste -sd ' ')" '0 1' 'the receipts in the table'

t 'drained again there is nothing to do'
expect_status 0 evbus outbox-drain
expect_out ''
expect_err ''
expect_equal "$(ids orders)" '1 2' 'the events'

t 'an empty outbox is drained; one that is not there is not'
begin
expect_status 0 evbus outbox-drain
expect_out ''
fresh
expect_status 66 evbus outbox-drain
expect_err_has outbox-init
expect_status 66 evbus outbox-drain -f
expect_true 'no database was made' test ! -e app.db

t 'rows are drained whatever their numbers are, and the highest may be 0'
begin
events 1 2 | add -t orders
sql 'UPDATE outbox SET seq = seq - 2'
expect_status 0 evbus outbox-drain -q
expect_equal "$(states)" 'SENT SENT' 'the states'
sql "UPDATE outbox SET state = 'PENDING', seq = -9223372036854775808 WHERE seq = 0; DELETE FROM outbox WHERE seq = -1"
expect_status 78 evbus outbox-drain
expect_err_has 'the lowest number'

t 'formats are those of publish, and -q prints nothing'
begin
events 1 4 | add -t orders
expect_status 0 evbus outbox-drain --max 1 --format '{offset} {event_id}\n'
expect_out '0 o-1'
expect_status 0 evbus outbox-drain --max 1 --format tsv
expect_out_like $'orders\t0\tfile_line\t1\t20*Z'
expect_status 0 evbus outbox-drain --max 1 --format payload
expect_out '{"id":"o-3","type":"order.placed"}'
expect_status 0 evbus outbox-drain -q
expect_out ''
expect_err ''
expect_equal "$(states)" 'SENT SENT SENT SENT' 'the states'
expect_status 64 evbus outbox-drain --format yaml

t '--max ends it after so many rows, also where batches are smaller or larger'
begin
events 1 20 | add -t orders
for case in '7 3' '5 500' '1 1'; do
	expect_status 0 evbus outbox-drain --max "${case% *}" --batch "${case#* }" --concurrency 2
	expect_lines "${case% *}"
done
expect_equal "$(states | tr ' ' '\n' | grep -c SENT)" 13 'rows that are sent'

t '--dry-run tells how many rows would be claimed, and claims none'
begin
events 1 3 | add -t orders
events 4 6 | add -t orders -k key
sql "UPDATE outbox SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+30 seconds'), attempts = 5 WHERE id = 'o-5'"
expect_status 0 evbus outbox-drain --dry-run
expect_out 4
expect_equal "$(states)" 'PENDING PENDING PENDING PENDING PENDING PENDING' 'the states'
expect_true 'nothing was published' test ! -e event_bus/orders

t 'a row that is on the bus already gets the receipt of the first'
begin
events 1 1 | add -t orders
evbus outbox-drain -q
sql "UPDATE outbox SET state = 'PENDING'"
expect_status 0 evbus outbox-drain
expect_out_like '{"topic":"orders",*"offset":"0",*"duplicate":true}'
expect_equal "$(ids orders)" o-1 'the events'

t 'the receipts in the table are those that are printed, whatever rows follow each other'
begin
evbus topic-create -q orders --partitions 3 >/dev/null
seq 1 60 | sed 's/.*/{"id":"o-&","type":"t","k":"k-&"}/' | add -t orders --key-from /k
events 61 90 | add -t invoices
seq 91 120 | sed 's/.*/{"id":"o-&","type":"t"}/' | add -t orders -k one
sql "DELETE FROM outbox WHERE id IN ('o-70', 'o-100')"
evbus outbox-drain --max 95 -q
sql "UPDATE outbox SET state = 'PENDING', receipt = NULL WHERE seq BETWEEN 65 AND 68 OR seq = 80"
evbus outbox-drain -q --max 5
sql "UPDATE outbox SET state = 'PENDING', receipt = NULL"
expect_status 0 evbus outbox-drain
expect_lines 118
sql 'SELECT receipt FROM outbox ORDER BY seq' >kept
expect_same kept "$OUT"
sql "DELETE FROM outbox"
rm -rf event_bus/invoices
events 61 120 | add -t invoices
expect_status 0 evbus outbox-drain
sql 'SELECT receipt FROM outbox ORDER BY seq' >kept
expect_same kept "$OUT"
sql "DELETE FROM outbox"
events 61 120 | tac | add -t invoices
expect_status 0 evbus outbox-drain
sql 'SELECT receipt FROM outbox ORDER BY seq' >kept
expect_same kept "$OUT"

t 'rows of one key keep their order, whatever the batch'
begin
for key in a b; do
	seq 1 30 | sed 's/.*/{"id":"'$key'-&","type":"t"}/' | add -t orders -k $key
done
expect_status 0 evbus outbox-drain --batch 7 --concurrency 3 -q
evbus replay -t orders --format '{partition_key} {event_id}\n' >got
for key in a b; do
	expect_equal "$(sed -n "s/^$key $key-//p" got | paste -sd ' ')" "$(seq 1 30 | paste -sd ' ')" "the events of key $key"
done

t 'a table of other names, with states of its own'
fresh
numbers='n INTEGER PRIMARY KEY AUTOINCREMENT'
[ -z "$tests_database" ] || numbers='n INTEGER GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY'
sql "CREATE TABLE events ($numbers, guid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
	body TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'NEW' CHECK (status IN ('NEW', 'BUSY', 'COMPLETED', 'BROKEN')),
	tries INTEGER NOT NULL DEFAULT 0, owner TEXT, until TEXT, made TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
	INSERT INTO events (guid, kind, body) VALUES ('g-1', 'lead', '{\"a\":1.10}'), ('g-2', 'deal', '{\"b\":2}')"
map="table=events,seq=n,id=guid,event_type=kind,payload=body,state=status,attempts=tries,lease_owner=owner,lease_expires_at=until,created_at=made,\
topic='crm.{event_type}',state.PENDING=NEW,state.PROCESSING=BUSY,state.SENT=COMPLETED,state.FAILED=BROKEN"
expect_status 0 evbus outbox-drain --map "$map" --format '{topic} {payload}\n'
expect_out 'crm.lead {"a":1.10}
crm.deal {"b":2}'
expect_equal "$(sql 'SELECT status FROM events' | paste -sd ' ')" 'COMPLETED COMPLETED' 'their states'
sql "INSERT INTO events (guid, kind, body) VALUES ('g-0', 'lead', '[]')"
expect_status 1 evbus outbox-drain -q --map "$map"
expect_err_has "1 row has FAILED; see 'evbus dlq-list --outbox $(named)' with the same --map"
sql "DELETE FROM events WHERE guid = 'g-0'"
expect_status 0 evbus outbox-list --map "$map" --state SENT --format json
expect_lines 2
expect_equal "$(jq -r .state "$OUT" | uniq)" SENT 'the state'

t '--wrap makes an envelope around the body, byte for byte'
sql "INSERT INTO events (guid, kind, body) VALUES ('g-3', 'lead', '{\"total\": 1.10, \"a\" :[1,  2.0]}'), ('g-4', 'lead', '1.10')"
expect_status 0 evbus outbox-drain --map "$map" --wrap --format payload
expect_out_like '{"event_id":"g-3","event_type":"lead","occurred_at":"*","data":{"total": 1.10, "a" :\[1,  2.0]}}
{"event_id":"g-4","event_type":"lead","occurred_at":"*","data":1.10}'

# ---- refusals ----------------------------------------------------------------------------------------------------

t 'a payload that is no JSON object is FAILED at once, and the others are published'
begin
events 1 1 | add -t orders
sql "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('bad', 'orders', 't', '[1]'), ('worse', 'or ders', 't', '{}')"
events 2 2 | add -t orders
expect_status 1 evbus outbox-drain --format '{event_id}\n'
expect_out 'o-1
o-2'
expect_err_has "row 2, 'bad' for 'orders', has FAILED: "
expect_err_has "row 3, 'worse' for 'or ders', has FAILED: "
expect_err_has "2 rows have FAILED; see 'evbus dlq-list --outbox $(named)'"
expect_equal "$(states)" 'SENT FAILED FAILED SENT' 'the states'
expect_status 0 evbus outbox-list --state FAILED --format json --payload
expect_lines 2
expect_equal "$(jq -r .payload "$OUT" | head -n 1)" '[1]' 'the payload'
expect_equal "$(jq '.last_error | length > 5' "$OUT" | uniq)" true 'it says why'

t 'the command that is named shows what FAILED'
expect_status 0 evbus dlq-list --format json
expect_equal "$(jq -r .event_id "$OUT" | paste -sd ' ')" 'bad worse' 'the letters'

t 'what FAILED before is not this failure'
events 3 3 | add -t orders
expect_status 0 evbus outbox-drain -q
expect_err ''

# A topic with two partitions refuses a row without a key.
t 'a row that is refused is tried again so often and is then FAILED'
begin
evbus topic-create -q orders --partitions 2 >/dev/null
events 1 1 | add -t orders
expect_status 1 evbus outbox-drain --retry-max 2 --retry-delay 20ms
expect_out ''
expect_err_has "row 1, 'o-1' for 'orders', was refused and is tried again: "
expect_err_has "1 row has FAILED"
expect_equal "$(grep -c 'is tried again' "$ERR")" 2 'refusals that are tried again'
expect_equal "$(evbus outbox-list --format tsv | cut -f 4,6)" $'FAILED\t3' 'the state'
events 2 2 | add -t orders
expect_status 1 evbus outbox-drain --retry-max 0 -q
expect_equal "$(evbus outbox-list --format tsv | sed -n '2p' | cut -f 4,6)" $'FAILED\t1' 'the state'

t 'RETRY_MAX and EVBUS_RETRY_… say the policy where options do not'
events 3 3 | add -t orders
RETRY_MAX=0 expect_status 1 evbus outbox-drain -q
events 4 4 | add -t orders
RETRY_MAX=9 EVBUS_RETRY_MAX=1 EVBUS_RETRY_DELAY=10ms EVBUS_RETRY_CAP=10ms EVBUS_RETRY_FACTOR=1.5 expect_status 1 evbus outbox-drain -q
expect_equal "$(evbus outbox-list --format tsv | cut -f 6 | paste -sd ' ')" '3 1 1 2' 'the attempts'
RETRY_MAX=few expect_status 78 evbus outbox-drain
expect_err_has "variable 'RETRY_MAX'"
EVBUS_RETRY_MAX=few RETRY_MAX=1 expect_status 78 evbus outbox-drain
expect_err_has "variable 'EVBUS_RETRY_MAX'"

t 'one that waits holds back its key and nothing else'
begin
evbus topic-create -q two --partitions 2 >/dev/null
sql "INSERT INTO outbox (id, topic, event_type, payload, partition_key, attempts, next_attempt_at) VALUES
	('a1', 'orders', 't', '{\"id\":\"a1\"}', 'a', 5, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 second'))"
printf '{"id":"a%s","type":"t"}\n' 2 3 | add -t orders -k a
printf '{"id":"b%s","type":"t"}\n' 1 2 | add -t orders -k b
expect_status 75 evbus outbox-drain --timeout 300ms --format '{event_id}\n'
expect_out 'b1
b2'
expect_err_has '--timeout'
expect_status 0 evbus outbox-drain --timeout 20s --format '{event_id}\n'
expect_out 'a1
a2
a3'

t 'what is added while it runs is left for the next time'
begin
sql "INSERT INTO outbox (id, topic, event_type, payload, next_attempt_at) VALUES
	('o-1', 'orders', 't', '{\"id\":\"o-1\"}', strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 second'))"
evbus outbox-drain --format '{event_id}\n' >got 2>said &
drainer=$!
sleep 0.3
events 2 2 | add -t orders
wait $drainer
expect_equal "$? $(cat got)" '0 o-1' 'the status and the receipts'
expect_equal "$(states)" 'SENT PENDING' 'the states'

# ---- options that are not of their form --------------------------------------------------------------------------

t 'what is not of its form is a usage error'
for option in --batch=0 --batch=4097 --batch=x --concurrency=0 --concurrency=65 --lease=0 --lease=99ms --lease=2d --interval=0 \
	--interval=9ms --retry-max=-1 --retry-max=x --retry-max=4294967296 --retry-delay=-1s --retry-cap=x --retry-factor=0.99 --retry-factor=0 \
	--retry-factor=inf --retry-factor=nan --retry-factor=0x2 --retry-factor=2e1 --retry-factor= --retry-factor=1.0.0 --retry-factor=.5 \
	--max=0 --timeout=x --max-payload=4M --once operand; do
	expect_status 64 evbus outbox-drain $option
done
expect_status 64 evbus outbox-drain --retry-factor 0
expect_err_has 'write a number from 1 on'

t 'every option of the policy is taken'
begin
events 1 1 | add -t orders
expect_status 0 evbus outbox-drain -q --batch 1 --concurrency 64 --lease 1d --interval 10ms --retry-max 4294967295 --retry-delay 0 \
	--retry-cap 0 --retry-factor 1 --max 100 --timeout 1h --max-payload 3M

t 'a payload above --max-payload is FAILED'
printf '{"id":"long","type":"t","x":"%0100d"}\n' 0 | add -t orders
expect_status 1 evbus outbox-drain --max-payload 100
expect_err_has "'long'"

# ---- following ---------------------------------------------------------------------------------------------------

# follow OPTIONS...: a drainer in the background, in $drainer; its receipts in got, what it says in said.
follow() {
	: >got
	: >said
	(trap - INT TERM; exec evbus outbox-drain -f --interval 20ms --format '{event_id}\n' "$@" >got 2>said) &
	drainer=$!
}
# ends_of SIGNAL STATUS
end_with() {
	kill -s "$1" $drainer
	wait $drainer 2>/dev/null
	expect_equal $? "$2" 'the status'
}

t '-f goes on with rows that come later, and dies of its signal'
begin
events 1 2 | add -t orders
follow
wait_for 10 grep -q o-2 got
events 3 3 | add -t orders
wait_for 10 grep -q o-3 got
end_with TERM 143
expect_equal "$(paste -sd ' ' got)" 'o-1 o-2 o-3' 'the receipts'
expect_equal "$(states)" 'SENT SENT SENT' 'the states'
follow --concurrency 4
events 4 40 | add -t orders -k k
wait_for 10 grep -q o-40 got
end_with INT 130
expect_equal "$(sed 's/o-//' got | paste -sd ' ')" "$(seq 4 40 | paste -sd ' ')" 'the receipts'

t 'where nobody reads any more it ends with 74 before it publishes what nobody would see'
events 41 41 | add -t orders
mkfifo pipe
head -n 1 <pipe >first &
(trap - INT TERM; exec evbus outbox-drain -f --interval 20ms --format '{event_id}\n' >pipe 2>said) &
drainer=$!
wait_for 10 grep -q o-41 first
wait $drainer
expect_equal $? 74 'the status'
expect_equal "$(cat said)" 'evbus outbox-drain: cannot write to stdout: Broken pipe' 'what it said'

t 'a stdout that closes in the middle: the batch is marked, and nothing is lost or published twice'
begin
events 1 200 | add -t orders
expect_status 0 bash -c 'evbus outbox-drain --batch 10 2>err | head -n 1; [ "${PIPESTATUS[0]}" = 74 ]'
expect_lines 1
sent=$(sql "SELECT count(*) FROM outbox WHERE state = 'SENT'")
expect_true "some rows are SENT, and not all ($sent)" test "$sent" -ge 10 -a "$sent" -lt 200
expect_equal "$(sql "SELECT count(*) FROM outbox WHERE state = 'PROCESSING'")" 0 'rows that are PROCESSING'
expect_equal "$(evbus tail -t orders -o beginning --count)" "$sent" 'events'
expect_status 0 evbus outbox-drain -q
expect_equal "$(ids orders)" "$(events 1 200 | jq -r .id | paste -sd ' ')" 'the events'
expect_status 74 sh -c 'evbus outbox-drain >&- 2>err; [ $? = 0 ] && exit 74'

t 'where one worker fails the others end with it'
begin
events 1 100 | add -t orders -k hot
expect_status 74 bash -c 'timeout 20 evbus outbox-drain -f --interval 1h --concurrency 4 --batch 5 2>err | head -n 1; exit "${PIPESTATUS[0]}"'

# ---- outages -----------------------------------------------------------------------------------------------------

t 'where the bus is not a directory nothing is marked and no attempt is counted'
begin
events 1 3 | add -t orders
: >event_bus
status=0
evbus outbox-drain >"$OUT" 2>"$ERR" || status=$?
expect_true "the status is that of a failure ($status)" test "$status" -ge 69 -a "$status" -le 78
expect_out ''
expect_equal "$(sql 'SELECT state, attempts, next_attempt_at, last_error, lease_owner FROM outbox' | uniq -c | sed 's/^ *//')" \
	'3 PENDING|0|||' 'the rows'
rm event_bus
expect_status 0 evbus outbox-drain --format '{event_id}\n'
expect_out 'o-1
o-2
o-3'

t 'a topic that cannot be written is an outage'
events 4 6 | add -t orders
mv event_bus/orders/partition=0.jsonl away
mkdir event_bus/orders/partition=0.jsonl
status=0
evbus outbox-drain >"$OUT" 2>"$ERR" || status=$?
expect_true "the status is that of a failure ($status)" test "$status" -ge 69 -a "$status" -le 78
expect_equal "$(sql "SELECT state, attempts, lease_owner FROM outbox WHERE id > 'o-3'" | uniq -c | sed 's/^ *//')" '3 PENDING|0|' 'the rows'
rmdir event_bus/orders/partition=0.jsonl
mv away event_bus/orders/partition=0.jsonl
expect_status 0 evbus outbox-drain -q
expect_equal "$(ids orders)" 'o-1 o-2 o-3 o-4 o-5 o-6' 'the events'

t 'a bus that may not be written is an outage'
if [ "$(id -u)" = 0 ]; then
	skip 'root may write everywhere'
else
	begin
	events 1 3 | add -t orders
	mkdir -m 500 event_bus
	expect_status 77 evbus outbox-drain
	expect_equal "$(states)" 'PENDING PENDING PENDING' 'the states'
	chmod 700 event_bus
fi

# No file may grow beyond the log as it is now, which is longer than the database: the bus is full, and the outbox is not.
t 'with -f an outage is said once, waited for, and said to be over'
begin
seq 1 300 | sed "s/.*/{\"id\":\"f-&\",\"x\":\"$(printf %01000d 0)\"}/" | evbus publish -q -t orders
(trap '' XFSZ
ulimit -S -f $(($(stat -c %s event_bus/orders/partition=0.jsonl) / 1024))
trap - INT TERM
exec evbus outbox-drain -f --interval 20ms --retry-delay 20ms --retry-cap 50ms --concurrency 2 --batch 5 --format '{event_id}\n' >got 2>said) &
drainer=$!
events 1 17 | add -t orders
wait_for 10 grep -q 'goes on when that is over' said
sleep 0.3
expect_equal "$(grep -c . said)" 1 'lines it said'
expect_equal "$(cat got)" '' 'the receipts'
expect_equal "$(sql 'SELECT max(attempts) FROM outbox')" 0 'attempts'
prlimit --pid $drainer --fsize=unlimited:
wait_for 10 grep -q 'can be published again' said
wait_for 10 grep -q 'o-17' got
kill $drainer
wait $drainer 2>/dev/null
expect_equal $? 143 'the status'
expect_equal "$(grep -c . said)" 2 'lines it said'
expect_equal "$(sort -u got | wc -l)" 17 'receipts'
expect_equal "$(evbus tail -t orders -o beginning --count)" 317 'events'

t 'what an operator has to mend ends -f, too'
begin
events 1 1 | add -t orders
: >event_bus
expect_status 78 evbus outbox-drain -f
expect_equal "$(states)" PENDING 'the states'

t '--log json says it in JSON'
begin
sql "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('bad', 'orders', 't', '[1]')"
expect_status 1 evbus outbox-drain --log json
expect_equal "$(jq -r '.level' "$ERR" | uniq | paste -sd ' ')" 'notice warning error' 'the levels'
expect_equal "$(tail -n 1 "$ERR" | jq -r .code)" 1 'the code'

# ---- waiting for others that publish idempotently ----------------------------------------------------------------

t '--timeout ends the wait for another publisher, and what has no receipt is given back'
begin
events 1 1 | add -t orders
evbus outbox-drain -q
events 2 4 | add -t orders
hold_keys orders
for follow in '' -f; do
	# shellcheck disable=SC2086 # it is an option, or none
	expect_status 75 evbus outbox-drain --timeout 300ms --concurrency 2 --batch 1 $follow
	expect_err_has '--timeout is over'
	expect_equal "$(states)" 'SENT PENDING PENDING PENDING' 'the states'
	expect_equal "$(sql 'SELECT max(attempts) FROM outbox')" 0 'attempts'
done
expect_equal "$(ids orders)" o-1 'events'

t 'a signal ends it, too, and it is said what is waited for'
: >"$ERR"
evbus outbox-drain -f --concurrency 2 >"$OUT" 2>"$ERR" &
drainer=$!
wait_for 10 grep -q "waiting for another process that publishes idempotently to 'orders'" "$ERR"
kill $drainer
status=0
wait $drainer || status=$?
expect_equal $status 143 'the status'
expect_equal "$(states)" 'SENT PENDING PENDING PENDING' 'the states'
release_lock
expect_status 0 evbus outbox-drain -q
expect_equal "$(ids orders)" 'o-1 o-2 o-3 o-4' 'events'

#!/usr/bin/env bash
# outbox-init, outbox-add, outbox-list.
. "${0%/*}/lib.sh"
plan 24

use_app
sql() {
	app "$@"
}
events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"o-&","type":"order.placed"}/'
}
# list COLUMNS...: those of each row, with blanks between
list() {
	evbus outbox-list --format tsv | cut -f "$1" | tr '\t' ' '
}

# ---- outbox-init -------------------------------------------------------------------------------------------------

t 'init makes the database and the table, and prints how to write to it'
expect_status 0 evbus outbox-init
expect_out_like '-- *transaction*
INSERT INTO *:id*:topic*:event_type*:payload*
-- for example:
-- INSERT INTO *'\''o-1'\''*'\''orders'\''*'
expect_err_has "made the table of outbox 'app.db'"
expect_equal "$(sql 'SELECT count(*) FROM outbox')" 0 'rows'

t 'init of what is there says so, and leaves it as it is'
events 1 1 | evbus outbox-add -t orders >/dev/null
expect_status 0 evbus outbox-init
expect_err "evbus outbox-init: outbox 'app.db' is there already"
expect_out_has 'INSERT INTO'
expect_equal "$(sql 'SELECT count(*) FROM outbox')" 1 'rows'
expect_status 0 evbus outbox-init -q
expect_err ''

t 'the example that init prints is a statement that runs, and so is what it prints as a whole'
fresh
evbus outbox-init -q >printed
sed -n '/for example/,$s/^-- //p' printed | sed 1d >example.sql
expect_status 0 app "$(cat example.sql)"
expect_equal "$(sql 'SELECT id, topic, event_type, state FROM outbox')" 'o-1|orders|order.placed|PENDING' 'the row'

t 'a transaction that is rolled back leaves no row'
fresh
evbus outbox-init -q >/dev/null
sql "BEGIN; INSERT INTO outbox (id, topic, event_type, payload) VALUES ('x', 'orders', 't', '{}'); ROLLBACK;
	BEGIN; INSERT INTO outbox (id, topic, event_type, payload) VALUES ('y', 'orders', 't', '{}'); COMMIT;"
expect_equal "$(list 2)" y 'the rows'

t 'a database in WAL mode is warned of, and its mode is kept'
needs_sqlite
fresh
sqlite3 app.db 'PRAGMA journal_mode = WAL; CREATE TABLE own (x)' >/dev/null
expect_status 0 evbus outbox-init -q
expect_err_has 'WAL'
expect_err_has '3.51.3'
expect_equal "$(sqlite3 app.db 'PRAGMA journal_mode')" wal 'the mode'
events 1 3 | evbus outbox-add -t orders >/dev/null
expect_equal "$(sqlite3 app.db 'PRAGMA integrity_check')" ok 'the database'

t 'a table that has other columns is refused, and --map is named'
fresh
sql 'CREATE TABLE outbox (x INTEGER)'
expect_status 76 evbus outbox-init
expect_err_has --map

t 'what is not of its form is a usage error'
for options in '--map payload' '--map nothing=x' '--map payload=a,payload=b' \
	'--map payload=a;b' 'operand'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus outbox-init $options
done
expect_status 78 evbus outbox-init --outbox mysql://x

t 'without --outbox the table is in the store'
fresh
unset EVBUS_OUTBOX
expect_status 0 evbus outbox-init
events 1 2 | expect_status 0 evbus outbox-add -t orders
expect_out 'o-1
o-2'
expect_status 0 evbus outbox-list --format tsv
expect_lines 2
[ -n "$tests_database" ] || expect_true 'it is there' test -s event_bus/.evbus/state.db

# ---- outbox-add --------------------------------------------------------------------------------------------------

t 'add takes all from the event, and prints the ids'
fresh
evbus outbox-init -q >/dev/null
echo '{"event_id":"e-1","event_type":"order.placed","tenant_id":"acme","idempotency_key":"k-1","total":1.10}' |
	expect_status 0 evbus outbox-add -t orders
expect_out e-1
expect_err ''
expect_equal "$(sql 'SELECT id, tenant_id, topic, event_type, event_key, partition_key, state, attempts FROM outbox')" \
	'e-1|acme|orders|order.placed|k-1||PENDING|0' 'the row'
expect_equal "$(sql 'SELECT payload FROM outbox')" \
	'{"event_id":"e-1","event_type":"order.placed","tenant_id":"acme","idempotency_key":"k-1","total":1.10}' 'the payload'

t 'add takes what is said instead of what the event says'
echo '{"event_id":"e-2","event_type":"a","tenant_id":"b","event_key":"c"}' | expect_status 0 evbus outbox-add -t orders \
	--id i --type ty --tenant-id te --event-key ek -k pk --format json
expect_out '{"outbox":"app.db","id":"i","topic":"orders"}'
expect_equal "$(sql "SELECT id, tenant_id, event_type, event_key, partition_key FROM outbox WHERE id = 'i'")" \
	'i|te|ty|ek|pk' 'the row'

t 'add takes the key from the event'
printf '%s\n' '{"id":"a","type":"t","m":{"id":7}}' '{"id":"b","type":"t","m":null,"n":"x"}' |
	expect_status 0 evbus outbox-add -t orders --key-from /m/id,/n
expect_equal "$(sql "SELECT partition_key FROM outbox WHERE id IN ('a', 'b') ORDER BY seq" | paste -sd ' ')" '7 x' 'the keys'
echo '{"id":"c","type":"t"}' | expect_status 65 evbus outbox-add -t orders --key-from /m/id
expect_err_has "'/m/id'"
echo '{"id":"c","type":"t"}' | expect_status 64 evbus outbox-add -t orders --key-from m
echo '{"id":"c","type":"t"}' | expect_status 64 evbus outbox-add -t orders --key-from /m -k x

t 'an id of CloudEvents is its source and its id'
echo '{"specversion":"1.0","id":"7","source":"/shop","type":"t"}' | expect_status 0 evbus outbox-add -t orders
expect_out '/shop 7'

t 'a bad line anywhere and nothing is added; its place is told'
fresh
evbus outbox-init -q >/dev/null
printf '%s\n' '{"id":"1","type":"t"}' '' ' {"id":"2",  oops}' | expect_status 65 evbus outbox-add -t orders
expect_err_has 'stdin:3:14: '
expect_out ''
printf '%s\n' '{"id":"1","type":"t"}' >good
printf '%s\n' '{"id":"2","type":"t"}' '[]' >bad
expect_status 65 evbus outbox-add -t orders good bad
expect_err_has 'bad:2:1: '
echo '{"id":"1"}' | expect_status 65 evbus outbox-add -t orders
expect_err_has --type
echo '{"type":"1"}' | expect_status 65 evbus outbox-add -t orders
expect_err_has --id
echo '{"id":{},"type":"1"}' | expect_status 65 evbus outbox-add -t orders
echo '{"id":"1","id":"2","type":"1"}' | expect_status 65 evbus outbox-add -t orders
expect_err_has "'id'"
echo '{"id":"1","type":"0123456789"}' | expect_status 65 evbus outbox-add -t orders --max-payload 20
expect_status 66 evbus outbox-add -t orders good nothing
expect_equal "$(list 2)" '' 'the rows'

t 'an id that is there already is a conflict, and nothing is added'
expect_status 0 evbus outbox-add -t orders good
printf '%s\n' '{"id":"7","type":"t"}' '{"id":"1","type":"t"}' | expect_status 76 evbus outbox-add -t orders
expect_err_has 'stdin:2'
expect_err_has "'1'"
expect_out ''
printf '%s\n' '{"id":"7","type":"t"}' '{"id":"7","type":"t"}' | expect_status 76 evbus outbox-add -t orders
expect_equal "$(list 2)" 1 'the rows'

t 'add does not keep the database waiting for a slow pipe'
{
	events 2 2
	sleep 1
	events 3 3
} | evbus outbox-add -t orders >added &
adder=$!
sleep 0.2
expect_status 0 app "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('own', 'orders', 't', '{}')"
wait $adder
expect_equal "$(cat added)" 'o-2
o-3' 'the ids'

t 'add is interrupted: nothing is added'
fresh
evbus outbox-init -q >/dev/null
mkfifo fifo
(trap - INT TERM; exec evbus outbox-add -t orders fifo >added) &
adder=$!
exec 7>fifo
events 1 5 >&7
sleep 0.2
kill $adder
wait $adder 2>/dev/null
expect_equal $? 143 'the status'
exec 7>&-
expect_equal "$(list 2)" '' 'the rows'

t 'a closed stdout is told, and the rows are there'
events 1 5 | expect_status 74 sh -c 'evbus outbox-add -t orders 2>err >&-'
expect_equal "$(list 2 | wc -l)" 5 'the rows'
expect_status 74 bash -c '{ sleep 0.2; echo "{\"id\":\"late\",\"type\":\"t\"}"; } | evbus outbox-add -t orders 2>err | true; exit "${PIPESTATUS[1]}"'
expect_equal "$(list 2 | tail -n 1)" late 'the last row'
expect_status 0 evbus outbox-add -t orders /dev/null
expect_out ''

t 'without a table it says what to run'
fresh
events 1 1 | expect_status 66 evbus outbox-add -t orders
expect_err_has outbox-init
expect_status 66 evbus outbox-list
expect_err_has outbox-init
expect_true 'no database was made' test ! -e app.db
events 1 1 | expect_status 64 evbus outbox-add
events 1 1 | expect_status 64 evbus outbox-add -t 'a..b'

# ---- outbox-list -------------------------------------------------------------------------------------------------

fresh
evbus outbox-init -q >/dev/null
{
	printf '{"id":"%s","type":"t"}\n' k1 k2 k3 | evbus outbox-add -t crm.lead -k key --tenant-id acme
	events 1 2 | evbus outbox-add -t orders
} >/dev/null
sql "UPDATE outbox SET attempts = 2, last_error = 'first line
second $(printf %0120d 0)',
	next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+1 hour') WHERE id = 'k1';
	UPDATE outbox SET state = 'SENT', sent_at = created_at, lease_expires_at = created_at, receipt = '{\"offset\":\"7\"}' WHERE id = 'o-1'"

t 'list tells state, age, attempts, due and how many wait behind each'
expect_status 0 evbus outbox-list
expect_out_like 'SEQ  ID *TOPIC *STATE *AGE  ATTEMPTS  DUE *BEHIND  ERROR
  1  k1 *crm.lead  PENDING *s *2  60m *2  first line*second 000*...
  2  k2 *crm.lead  PENDING *s *0  now *0  -
  3  k3 *
  4  o-1  orders *SENT *-  *-
  5  o-2  orders *PENDING *now*'
expect_lines 6
expect_err_like 'evbus outbox-list: 4 PENDING (1 of them wait), 0 PROCESSING, 1 SENT, 0 FAILED; the oldest that could be claimed now is *s old'
expect_status 0 evbus outbox-list -q
expect_err ''

t 'list as tsv has times and whole errors'
expect_status 0 evbus outbox-list --state PENDING --blocked --format tsv
expect_out_like $'1\tk1\tcrm.lead\tPENDING\t?\t2\t20*Z\t2\tfirst line\\\\nsecond 0000*0000'
expect_err ''

t 'list as JSON has every column'
expect_status 0 evbus outbox-list --format json --payload
expect_lines 5
for row in 1 4; do
	expect_equal "$(sed -n "${row}p" "$OUT" | jq -r 'keys_unsorted | join(" ")')" \
		'seq id tenant_id topic event_type event_key partition_key state attempts next_attempt_at last_error lease_owner lease_expires_at created_at sent_at receipt history behind age_seconds payload' \
		'the members'
done
expect_equal "$(sed -n 4p "$OUT" | jq -c '[.receipt.offset, .payload.id, .tenant_id]')" '["7","o-1",null]' 'what is JSON'
expect_status 0 evbus outbox-list --format json --max 1
expect_equal "$(jq -r 'length' "$OUT")" 19 'without the payload'
expect_status 64 evbus outbox-list --payload

t 'list chooses by state, topic, tenant and how many'
for case in '--state SENT=o-1' '--topic crm.>=k1 k2 k3' '-t orders=o-1 o-2' '--tenant acme=k1 k2 k3' '--tenant x=' '--max 2=k1 k2' \
	'--state FAILED=' '--blocked=k1' '--blocked -t orders='; do
	# shellcheck disable=SC2086 # several words
	expect_status 0 evbus outbox-list --format tsv ${case%%=*}
	expect_equal "$(cut -f 2 "$OUT" | paste -sd ' ')" "${case#*=}" "${case%%=*}"
done
expect_status 64 evbus outbox-list --state sent
expect_err_has 'PENDING|PROCESSING|SENT|FAILED'
expect_status 64 evbus outbox-list -t 'a..b'

t '--counts counts'
expect_status 0 evbus outbox-list --counts --format json
expect_out_like '{"outbox":"app.db","pending":4,"processing":0,"sent":1,"failed":0,"waiting":1,"oldest_due_seconds":+([0-9])}'
expect_status 0 evbus outbox-list --counts
expect_out_like 'OUTBOX *PENDING  *PROCESSING  *SENT  *FAILED  *WAITING  *OLDEST_DUE_SECONDS
app.db *4 *0 *1 *0 *1 *?'
expect_status 64 evbus outbox-list --counts --state SENT

t 'whatever stands in a column, a row is a line and JSON is JSON'
fresh
evbus outbox-init -q >/dev/null
# What is no UTF-8 is shown so, where a database takes it.
bad="CAST(x'ff27' AS TEXT)"
[ -z "$tests_database" ] || bad="E'\\uFFFD'''"
awkward=$'\'); DROP TABLE outbox; --\n\t"\\ \x01'
sql "INSERT INTO outbox (id, topic, event_type, payload, tenant_id, event_key, partition_key, last_error, receipt, history)
	SELECT x, x, x, x, x, x, x, $bad || x, x, x FROM (SELECT '${awkward//\'/\'\'}' AS x) AS t"
for format in json tsv; do
	expect_status 0 evbus outbox-list --format $format
	expect_lines 1
done
expect_status 0 evbus outbox-list -q
expect_lines 2
expect_status 0 evbus outbox-list --format json --payload
for member in id topic event_type payload tenant_id event_key partition_key receipt history; do
	expect_equal "$(jq -r ".$member" "$OUT")" "$awkward" "$member"
done
expect_equal "$(jq -r '.last_error' "$OUT" | head -n 1)" $'\xef\xbf\xbd'"''); DROP TABLE outbox; --" 'the error'
sql $'UPDATE outbox SET payload = \'{\n"a":1}\', receipt = \'{\n"a":1}\''
expect_status 0 evbus outbox-list --format json --payload
expect_lines 1
expect_equal "$(jq -r .payload "$OUT")" $'{\n"a":1}' 'an object on two lines'
expect_status 0 evbus outbox-list --format tsv --tenant "$awkward"
expect_lines 1
printf '{"id":"2","type":"t"}\n' | expect_status 0 evbus outbox-add -t orders --type "$awkward" --id "$awkward'" --tenant-id "$awkward" \
	--event-key "$awkward" -k "$awkward"
expect_lines 1
expect_equal "$(sql 'SELECT count(*) FROM outbox')" 2 'the rows'

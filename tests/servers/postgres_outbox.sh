#!/usr/bin/env bash
# An outbox in a Postgres that is an application's.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 24

serve database server postgres || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r url with_password <<<"$ANSWER"
export EVBUS_OUTBOX=$url

outbox_clock() { # BUS OUTBOX
	"$EVBUS_TEST_BUILD/tests/servers/outbox_clock" "$@"
}
sql() { # STATEMENT...
	local each args=()
	for each; do args+=(-c "$each"); done
	psql -XAtq -v ON_ERROR_STOP=1 -d "$url" "${args[@]}"
}
# begin: a bus and a table that are new
begin() {
	fresh
	sql 'DROP TABLE IF EXISTS outbox' 2>/dev/null
	evbus outbox-init -q >/dev/null
}
# add ID KEY: the statement that adds a row
add() {
	echo "INSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES ('$1', 'orders', 't', '$2', '{\"id\":\"$1\"}');"
}
# published: the ids on the bus, in order
published() {
	evbus replay -q -t orders --format '{event_id}\n' 2>/dev/null | paste -sd ' '
}
is_published() { # IDS
	[ "$(published)" = "$1" ]
}
are_sent() { # ROWS
	[ "$(sql "SELECT count(*) FROM outbox WHERE state = 'SENT'")" = "$1" ]
}
# open_session: an application, to which say gives statements; it has done them when say returns
open_session() {
	coproc session { psql -XAtq -d "$url" 2>&1; }
	# shellcheck disable=SC2154 # of the coproc
	session_pid=$session_PID
}
say() { # STATEMENT
	local line
	printf '%s\n\\echo done\n' "$1" >&"${session[1]}"
	while read -r line <&"${session[0]}" && [ "$line" != 'done' ]; do
		fail "the application: $line"
	done
}
close_session() {
	eval "exec ${session[1]}>&-"
	wait "$session_pid"
}

# has_looked: the drainer has looked who writes, and then for rows
has_looked() {
	[ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'evbus%' AND state = 'idle'
		AND query LIKE '%FROM \"outbox\" AS o%ORDER BY%'")" = 1 ]
}

later_is_open() {
	[ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'")" = 1 ]
}

# ---- the table ---------------------------------------------------------------------------------------------------

t 'outbox-init makes the table, its indices and what tells of rows, and the statement that it prints can be run'
fresh
expect_status 0 evbus outbox-init
expect_err_has "made the table of outbox 'test'"
sed -n 's/^-- INSERT/INSERT/p' "$OUT" | sql "$(cat)"
expect_equal "$(sql "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'outbox'")" \
	'outbox_evbus_failed outbox_evbus_open outbox_id_key outbox_pkey' 'the indices'
expect_status 0 evbus outbox-init
expect_err_has "outbox 'test' is there already"
expect_equal "$(grep -c lacks "$OUT")" 0 'advice'
expect_status 0 evbus outbox-drain --format '{offset} {event_id}\n'
expect_out '0 o-1'

t 'many that make it at once make one'
sql 'DROP TABLE outbox' 'DROP FUNCTION evbus_outbox()'
for _ in 1 2 3 4 5 6 7 8; do
	evbus outbox-init >/dev/null 2>>said || echo "status $?" >>said
done
expect_equal "$(grep -c 'made the table' said)" 1 'made'
expect_equal "$(grep -c status said)" 0 'failures'

t 'outbox-add adds all or none, and says which id is there'
begin
printf '{"id":"a","type":"t"}\n{"id":"b","type":"t"}\n' | expect_status 0 evbus outbox-add -t orders -k k
printf '{"id":"c","type":"t"}\n{"id":"b","type":"t"}\n' | expect_status 76 evbus outbox-add -t orders -k k
expect_err_has "the id 'b' is in the outbox 'test' already"
expect_equal "$(sql 'SELECT string_agg(id, $$ $$ ORDER BY seq) FROM outbox')" 'a b'

t 'nothing is added to a table that is the application'"'"'s: what it lacks is printed, and can be run'
fresh
sql 'DROP SCHEMA IF EXISTS shop CASCADE' 2>/dev/null
sql 'CREATE SCHEMA shop' "CREATE TYPE shop.status AS ENUM ('new', 'working', 'published', 'broken')" \
	'CREATE TABLE shop.events (nr serial PRIMARY KEY, event_uuid uuid NOT NULL DEFAULT gen_random_uuid(),
		kind varchar(40) NOT NULL, aggregate_id int, body jsonb NOT NULL, status shop.status NOT NULL DEFAULT $$new$$,
		tries smallint NOT NULL DEFAULT 0, next_try timestamptz, error varchar(30), locked_by varchar(400),
		locked_until timestamptz, created timestamptz NOT NULL DEFAULT $$2026-01-29 12:00:00.5+01$$,
		published_at timestamp, receipt jsonb)'
map="table=shop.events,seq=nr,id=event_uuid,topic=crm.{kind},event_type=kind,partition_key=aggregate_id,payload=body,\
state=status,state.PENDING=new,state.PROCESSING=working,state.SENT=published,state.FAILED=broken,attempts=tries,\
next_attempt_at=next_try,last_error=error,lease_owner=locked_by,lease_expires_at=locked_until,created_at=created,\
sent_at=published_at"
evbus topic-create -q crm.placed >/dev/null
expect_status 0 evbus outbox-init --map "$map"
expect_equal "$(sql "SELECT count(*) FROM pg_indexes WHERE schemaname = 'shop'")" 1 'its own index alone'
sed -n '/lacks:/,$p' "$OUT" | sed 1d >advice.sql
expect_equal "$(wc -l <advice.sql)" 4 'advice'
expect_true 'the advice runs' psql -Xq -v ON_ERROR_STOP=1 -d "$url" -f advice.sql
expect_status 0 evbus outbox-init --map "$map"
expect_equal "$(grep -c lacks "$OUT")" 0 'advice'

t 'its columns may be an enum, timestamps, a UUID, numbers and JSON; --wrap makes the envelope'
sql "INSERT INTO shop.events (event_uuid, kind, aggregate_id, body) SELECT
	('00000000-0000-0000-0000-00000000000' || n)::uuid, 'placed', n % 2, jsonb_build_object('total', n) FROM generate_series(1, 3) n"
expect_status 0 evbus outbox-drain --wrap --map "$map"
expect_lines 3
expect_equal "$(evbus replay -q -t crm.placed --format payload | head -n 1)" \
	'{"event_id":"00000000-0000-0000-0000-000000000001","event_type":"placed","occurred_at":"2026-01-29T11:00:00.500000Z","data":{"total": 1}}'
expect_equal "$(sql "SELECT nr || ' ' || status || ' ' || (receipt ->> 'offset') FROM shop.events ORDER BY nr")" \
	$'1 published 0\n2 published 1\n3 published 2'
expect_true 'sent_at is UTC' test "$(sql "SELECT count(*) FROM shop.events WHERE abs(extract(epoch FROM published_at - (now() AT TIME ZONE 'UTC'))) < 600")" = 3

t 'a row that is refused has its error as far as the column takes it, is a dead letter, and can be retried'
sql "INSERT INTO shop.events (kind, body) VALUES ('not a topic', '{}')"
expect_status 1 evbus outbox-drain --wrap --map "$map"
expect_equal "$(sql "SELECT status || ' ' || tries || ' ' || length(error) FROM shop.events WHERE nr = 4")" 'broken 1 30'
expect_status 0 evbus dlq-list --map "$map" --format tsv
expect_out_has 'test:4'
sql "UPDATE shop.events SET kind = 'placed' WHERE nr = 4"
expect_status 0 evbus dlq-retry test:4 --map "$map"
expect_status 0 evbus outbox-drain -q --wrap --map "$map"
expect_equal "$(sql 'SELECT status FROM shop.events WHERE nr = 4')" published
expect_status 0 evbus sweep --sent-older-than 0s --map "$map" --format json
expect_equal "$(sql 'SELECT count(*) FROM shop.events')" 0 'what is left'

t 'an enum that lacks a state is refused, with what to do; the state of a lease only where there are leases'
sql "DELETE FROM shop.events" "ALTER TYPE shop.status RENAME VALUE 'working' TO 'w'"
expect_status 76 evbus outbox-drain --map "$map"
expect_err_has "has no 'working'"
expect_err_has "ALTER TYPE shop.status ADD VALUE 'working'"
sql 'ALTER TABLE shop.events DROP COLUMN locked_by' "INSERT INTO shop.events (kind, body) VALUES ('placed', '{}')"
expect_status 0 evbus outbox-drain -q --wrap --map "${map//lease_owner=locked_by,lease_expires_at=locked_until,/}"
expect_equal "$(sql 'SELECT status FROM shop.events')" published

t 'a sequence that gives connections a stock of numbers is refused, with what to do'
begin
sql 'ALTER SEQUENCE outbox_seq_seq CACHE 20' "$(add a k)"
expect_status 78 evbus outbox-drain
expect_err_has 'run ALTER SEQUENCE outbox_seq_seq CACHE 1'
sql 'ALTER SEQUENCE outbox_seq_seq CACHE 1'
expect_status 0 evbus outbox-drain

t 'what is written to by another name is refused: a view, a partition, a table that others inherit from'
begin
sql "$(add a k)" 'CREATE VIEW seen AS SELECT * FROM outbox'
expect_status 78 evbus outbox-drain --map table=seen
expect_err_has 'no table: who writes to it by another name cannot be seen'
sql 'DROP VIEW seen' 'CREATE TABLE heir () INHERITS (outbox)'
expect_status 78 evbus outbox-drain
sql 'DROP TABLE heir' 'CREATE TABLE parts (LIKE outbox INCLUDING DEFAULTS) PARTITION BY RANGE (seq)' \
	'ALTER TABLE parts ATTACH PARTITION outbox DEFAULT'
expect_status 78 evbus outbox-drain
expect_err_has 'a partition'
expect_status 0 evbus outbox-drain -q --map table=parts
expect_equal "$(published)" a
sql 'DROP TABLE parts'

t 'a row that is due at infinity waits; a state of fixed length is read without its blanks'
begin
sql "ALTER TABLE outbox ALTER next_attempt_at TYPE timestamptz USING NULL, ALTER state TYPE char(12)" \
	"$(add never k)" "UPDATE outbox SET next_attempt_at = 'infinity'" "$(add now other)"
expect_status 75 evbus outbox-drain -q --timeout 500ms
expect_equal "$(published)" now
expect_true 'one is SENT' are_sent 1

t 'a state that is equal only to the database is refused'
begin
sql 'CREATE COLLATION IF NOT EXISTS alike (provider = icu, locale = '"'und-u-ks-level2'"', deterministic = false)' \
	'ALTER TABLE outbox ALTER state TYPE text COLLATE alike' "$(add a k)" "UPDATE outbox SET state = 'pending'"
expect_status 78 evbus outbox-drain
expect_err_has "takes for 'PENDING'"

# ---- the horizon -------------------------------------------------------------------------------------------------

t 'a row waits for a transaction that may still commit a lower number, and comes behind it'
begin
open_session
say "BEGIN; $(add first k)"
sql "$(add second k)"
expect_status 75 evbus outbox-drain --timeout 1s
expect_equal "$(published)" '' 'before the first'
evbus outbox-drain -q --timeout 20s &
drainer=$!
wait_for 10 has_looked
# Those who write by then are waited for, and nobody who comes later.
sql 'BEGIN' "$(add later k)" 'SELECT pg_sleep(60)' COMMIT >/dev/null 2>&1 &
later=$!
wait_for 10 later_is_open
say 'COMMIT;'
wait $drainer
expect_equal $? 0 'the status of the drain that waited'
sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'" >/dev/null
wait $later
# The bounded one saw the first row come, whose number is lower.
expect_equal "$(published)" 'first second'
close_session

t 'it does not wait for one that is rolled back, nor for those of other tables'
begin
sql 'CREATE TABLE IF NOT EXISTS other (n int)'
open_session
say "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO other VALUES (1); SELECT FROM outbox;"
sql "$(add one k)"
expect_status 0 evbus outbox-drain -q --timeout 5s
expect_equal "$(published)" one 'with a transaction of another table'
say "$(add two k)"
sql "$(add three k)"
evbus outbox-drain -q --timeout 20s &
drainer=$!
sleep 0.3
expect_equal "$(published)" one 'with a transaction of this table'
say 'ROLLBACK;'
wait $drainer
expect_equal "$(published)" 'one three' 'after it was rolled back'
close_session

t 'it waits as well where numbers were handed out before, and the table was emptied since'
begin
sql "$(add o-1 k)" "$(add o-2 k)" "$(add o-3 k)"
evbus outbox-drain -q -f --interval 100ms &
drainer=$!
wait_for 10 are_sent 3
sql 'TRUNCATE outbox RESTART IDENTITY'
open_session
say "BEGIN; $(add first k)"
sql "$(add second k)"
sleep 1
say 'COMMIT;'
wait_for 10 are_sent 2
expect_equal "$(published)" 'o-1 o-2 o-3 first second'
close_session
kill -TERM $drainer
wait $drainer

t 'it waits for a transaction that is prepared meanwhile, also when the server is started again'
begin
# Postgres prepares no transaction that tells somebody something.
sql 'DROP TRIGGER evbus_outbox ON outbox'
open_session
say "BEGIN; $(add first k)"
sql "$(add second k)"
evbus outbox-drain -f 2>said >receipts &
drainer=$!
wait_for 10 has_looked
say "PREPARE TRANSACTION 'two phases';"
tell database kill
tell database start
sleep 6
expect_equal "$(published)" '' 'while it is prepared'
expect_equal "$(grep -c 'a prepared transaction (see pg_prepared_xacts) has written to the table' said)" 1 'what it said'
sql "COMMIT PREPARED 'two phases'"
wait_for 10 is_published 'first second'
kill -TERM $drainer
wait $drainer
close_session

t 'writers side by side, of which some roll back, and drainers: each committed row once, in the order of its key'
begin
writers=()
for writer in 1 2 3 4 5 6; do
	for n in $(seq 40); do
		echo "BEGIN; SELECT pg_advisory_xact_lock($((writer % 3)));"
		echo "INSERT INTO outbox (id, topic, event_type, partition_key, payload) SELECT '$writer-$n-' || i, 'orders', 't',
			'k$((writer % 3))', '{\"id\":\"$writer-$n-' || i || '\",\"n\":' || currval('outbox_seq_seq') || '}' FROM generate_series(1, 3) i;"
		echo "SELECT pg_sleep(random() * 0.02);"
		if [ $((n % 4)) = 0 ]; then echo 'ROLLBACK;'; else echo 'COMMIT;'; fi
	done | sed 1i"SELECT nextval('outbox_seq_seq');" | psql -XAtq -d "$url" >/dev/null 2>>said_writers &
	writers+=($!)
done
evbus outbox-drain -q -f --batch 7 --lease 2s 2>said_one &
one=$!
evbus outbox-drain -q -f --batch 50 --concurrency 2 2>said_two &
two=$!
wait "${writers[@]}"
kill -TERM $one $two
wait $one $two
expect_status 0 evbus outbox-drain -q --timeout 30s
expect_equal "$(cat said_writers)" '' 'what the writers said'
evbus replay -q -t orders --format '{partition_key} {event_id}\n' >log
sql "SELECT partition_key || ' ' || id FROM outbox ORDER BY seq" >rows
expect_equal "$(wc -l <rows)" 540 'rows that were committed'
for key in k0 k1 k2; do
	grep "^$key " log >"log.$key"
	grep "^$key " rows >"rows.$key"
	expect_same "log.$key" "rows.$key"
done

# ---- locks -------------------------------------------------------------------------------------------------------

t 'a row that the application holds is waited for by its key, and by no other'
begin
sql "$(add a1 a)" "$(add b1 b)" "$(add a2 a)" "$(add b2 b)"
open_session
say "BEGIN; SELECT FROM outbox WHERE id = 'a1' FOR UPDATE;"
evbus outbox-drain -q --timeout 20s &
drainer=$!
wait_for 10 is_published 'b1 b2'
sleep 0.3
expect_equal "$(published)" 'b1 b2' 'while it is held'
say 'COMMIT;'
wait $drainer
expect_equal $? 0 'the status'
expect_equal "$(published)" 'b1 b2 a1 a2'
close_session

t 'leases are judged and made by what the clock of the server says with the row, whatever becomes of ours meanwhile'
begin
sql BEGIN "$(add a k)" "UPDATE outbox SET state = 'PROCESSING', lease_owner = 'other:1:00:3600000', lease_expires_at =
	to_char((clock_timestamp() + '30 min') AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')" COMMIT
expect_equal "$(outbox_clock file:event_bus "$url")" 0 'claimed while it was leased'
sql "UPDATE outbox SET lease_expires_at = '2026-01-01T00:00:00.000000Z'" \
	'ALTER TABLE outbox ADD seen text' "CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN NEW.seen = COALESCE(NEW.seen, extract(epoch FROM NEW.lease_expires_at::timestamptz - clock_timestamp())::text); RETURN NEW; END'" \
	"CREATE TRIGGER note BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION note()"
expect_equal "$(outbox_clock file:event_bus "$url")" 1 'claimed when the lease was over'
expect_true 'its own lease is as long as leases are' test "$(sql 'SELECT seen::numeric BETWEEN 0 AND 30 FROM outbox')" = t

t 'without a place for leases one drains at a time, on whatever machine it is'
begin
sql 'ALTER TABLE outbox DROP COLUMN lease_owner' "$(add a k)"
open_session
say "DO \$\$ BEGIN PERFORM pg_advisory_lock(1702260578, ('outbox'::regclass::oid::bigint - 2147483648)::int); END \$\$;"
expect_status 75 evbus outbox-drain
expect_err_has 'another process drains the outbox'
close_session
expect_status 0 evbus outbox-drain -q
expect_equal "$(published)" a

# ---- being told --------------------------------------------------------------------------------------------------

t 'with -f a row is published as soon as it is committed, also when the server was away in between'
begin
evbus outbox-drain -f --interval 1h >receipts 2>said &
drainer=$!
sleep 1
sql "$(add one k)"
wait_for 3 is_published one
tell database kill
sleep 0.5
tell database start
sleep 2
sql "$(add two k)"
wait_for 3 is_published 'one two'
tell database kill
wait_for 30 grep -q 'no attempt is counted' said
tell database start
sql "$(add three k)"
wait_for 30 is_published 'one two three'
expect_true 'it says that it goes on' grep -q 'can be published again' said
kill -TERM $drainer
wait $drainer
expect_equal $? 143 'the status'

t 'where nobody tells, it looks each second'
begin
sql 'DROP TRIGGER evbus_outbox ON outbox'
evbus outbox-drain -f -q 2>said &
drainer=$!
sleep 0.5
sql "$(add one k)"
wait_for 5 is_published one
kill -TERM $drainer
wait $drainer

# ---- failures ----------------------------------------------------------------------------------------------------

t 'a server that is away, or silent, is 69 within the time-out'
begin
sql "$(add a k)"
tell database stop
expect_status 69 evbus outbox-drain
tell database start
tell database pause
expect_status 69 evbus outbox-drain --outbox "$url?timeout=1s"
tell database resume
expect_status 0 evbus outbox-drain -q
expect_equal "$(published)" a

t 'a password is refused on the command line, taken from the environment, and never shown'
expect_status 64 evbus outbox-list --outbox "$with_password"
expect_err_has passfile
expect_status 64 evbus outbox-list --outbox 'postgresql://u:pass#word@127.0.0.1/test'
EVBUS_OUTBOX=postgresql://u:pass@word@127.0.0.1/test expect_status 78 evbus outbox-list
expect_equal "$(grep -c word@ "$ERR")" 0
expect_err_has '%40'
EVBUS_OUTBOX=$with_password expect_status 77 evbus outbox-list
expect_equal "$(grep -c s3cret "$ERR")" 0
sql 'GRANT ALL ON outbox TO tester'
sql "$(add 'not a topic' k)" "UPDATE outbox SET topic = 'not a topic' WHERE id = 'not a topic'"
EVBUS_OUTBOX=$with_password expect_status 1 evbus outbox-drain
expect_equal "$(grep -c s3cret "$ERR")" 0
expect_err_has 'dlq-list --outbox'

# ---- the proof ---------------------------------------------------------------------------------------------------

t 'drainers and the server killed at random while applications write: every committed row once, none lost'
begin
writers=()
for writer in 1 2 3; do
	for n in $(seq 150); do
		state=COMMIT
		[ $((RANDOM % 4)) != 0 ] || state=ROLLBACK
		sql 'BEGIN' "$(add "$writer-$n" "k$writer")" 'SELECT pg_sleep(random() * 0.01)' $state >/dev/null 2>&1
	done &
	writers+=($!)
done
kills=0
while kill -0 "${writers[0]}" 2>/dev/null; do
	evbus outbox-drain -q -f --batch 5 --lease 300ms --concurrency 2 2>/dev/null &
	drainer=$!
	sleep "0.$((RANDOM % 4))$((RANDOM % 9 + 1))"
	kill -9 $drainer
	wait $drainer 2>/dev/null
	kills=$((kills + 1))
	if [ $((kills % 7)) = 0 ]; then
		tell database kill
		tell database start
	fi
done
wait "${writers[@]}"
expect_status 0 evbus outbox-drain -q --lease 2s --timeout 60s
for writer in 1 2 3; do
	evbus replay -q -t orders --format '{event_id}\n' | grep "^$writer-" >log
	sql "SELECT id FROM outbox WHERE partition_key = 'k$writer' ORDER BY seq" >rows
	expect_true "there are rows" test -s rows
	expect_same log rows
done
ran 'kills' "$((kills > 3))" 1

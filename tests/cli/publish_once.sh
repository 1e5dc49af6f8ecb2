#!/usr/bin/env bash
# publish --idempotent: what is a repeat, what its receipt says, and what may happen to the index.
. "${0%/*}/lib.sh"
plan 31

once() {
	evbus publish --idempotent "$@"
}
log() {
	echo "event_bus/$1/partition=${2:-0}.jsonl"
}
lines() { # TOPIC [PARTITION]
	wc -l <"$(log "$@")" | tr -d ' '
}
ids() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
have_sqlite() {
	command -v sqlite3 >/dev/null || { skip 'there is no sqlite3' && false; }
}
# Each id of the log stands in it once.
expect_each_once() { # TOPIC FIRST LAST
	expect_equal "$(cat "event_bus/$1"/partition=*.jsonl | sed -E 's/.*"payload":\{"id":"([0-9]+)".*/\1/' | sort -n | tr '\n' ' ')" \
		"$(seq "$2" "$3" | tr '\n' ' ')" 'ids in the log'
}
tell='{partition_id}/{offset} {duplicate}\n'

# ---- repeats -----------------------------------------------------------------------------------------------------

t 'a repeat gets the first receipt, with "duplicate":true, and the status is 0'
ids 1 2 | expect_status 0 once -t orders
cp "$OUT" first
ids 1 2 | expect_status 0 once -t orders
expect_same "$OUT" <(sed 's/}$/,"duplicate":true}/' first)
expect_equal "$(lines orders)" 2 'lines'

t 'the line of an idempotent publisher has the key, and the tenant where there is one'
echo '{"id":"9","tenant_id":"acme"}' | once -q -t orders
expect_true 'it has none' grep -qxE '\{.*"partition_key":null,"event_key":"1","payload":\{"id":"1"\}\}' "$(log orders)"
expect_true 'it has one' grep -qE '"partition_key":null,"tenant_id":"acme","event_key":"9","payload":' "$(log orders)"
evbus publish -q -t plain <<<'{"id":"1","tenant_id":"acme"}'
expect_true 'a plain line has neither' grep -qE '"partition_key":null,"payload":' "$(log plain)"

t 'receipts come in the order of the events, repeats among new ones'
fresh
printf '{"id":"1"}\n{"id":"2"}\n{"id":"1"}\n{"id":"3"}\n{"id":"2"}\n{"id":"1"}\n' |
	expect_status 0 once -t orders --format "$tell"
expect_out '0/0 false
0/1 false
0/0 true
0/2 false
0/1 true
0/0 true'
{ ids 3 4; ids 1 1; ids 5 5; } | expect_status 0 once -t orders --format "$tell"
expect_out '0/2 true
0/3 false
0/0 true
0/4 false'

t 'what plain publishing wrote is no first'
fresh
ids 1 1 | evbus publish -q -t orders
ids 1 1 | expect_status 0 once -t orders --format "$tell"
expect_out '0/1 false'

t 'a repeat prints what is in the log, also where its own payload is another one'
fresh
echo '{"id":"1","v":1}' | once -q -t orders
echo '{"id":"1","v":2}' | expect_status 0 once -t orders --format payload
expect_out '{"id":"1","v":1}'

t 'the same key in two topics is two events, and in two partitions one'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
ids 1 1 | expect_status 0 once -t other --format "$tell"
expect_out '0/0 false'
ids 1 1 | expect_status 0 once -t orders -p 2 --format "$tell"
expect_out '2/0 false'
ids 1 1 | expect_status 0 once -t orders -p 0 --format "$tell"
expect_out '2/0 true'
printf '{"id":"7","k":"a"}\n{"id":"7","k":"b"}\n{"id":"7","k":"c"}\n' |
	expect_status 0 once -t orders --key-from /k --format "$tell"
expect_equal "$(cut -d ' ' -f 1 "$OUT" | sort -u | wc -l | tr -d ' ')" 1 'places'

t 'a tenant has its own keys'
fresh
printf '{"id":"1","tenant_id":"a"}\n{"id":"1","tenant_id":"b"}\n{"id":"1"}\n{"id":"1","tenant_id":""}\n{"id":"1","firm_id":"b"}\n' |
	expect_status 0 once -t orders --format "$tell"
expect_out '0/0 false
0/1 false
0/2 false
0/2 true
0/1 true'

# ---- keys --------------------------------------------------------------------------------------------------------

t 'the key is the event key, else the event id, or what --event-key-from says'
fresh
printf '{"id":"1","event_key":"x"}\n{"id":"2","idempotencyKey":"x"}\n{"id":"x"}\n{"event_id":"x"}\n' |
	expect_status 0 once -t orders --format "$tell"
expect_equal "$(grep -c true "$OUT")" 3 'repeats'
printf '{"id":"1","a":{"b":7}}\n{"id":"2","a":{"b":7}}\n{"id":"3","c":"7"}\n' |
	expect_status 0 once -t other --event-key-from /a/b,/c --format "$tell"
expect_equal "$(grep -c true "$OUT")" 2 'repeats'

t 'an event without a key is refused, and so are keys that cannot be taken'
fresh
refused() { # EVENT WHAT
	printf '%s\n' "$1" | expect_status 65 once -t orders
	expect_err_has "$2"
}
refused '{"a":1}' 'no event key'
refused '{"id":null}' 'no event key'
refused '{"id":""}' 'the event key is empty'
refused '{"id":{"a":1}}' 'the event key is an object'
refused '{"id":"1","tenant_id":[1]}' 'the tenant is an array'
refused '{"id":"1","id":"2"}' "'id' stands"
refused '{"id":"\ud800"}' 'half a surrogate pair'
refused "{\"id\":\"$(printf 'x%.0s' {1..1025})\"}" '1024 is the most'
refused "{\"id\":\"1\",\"tenant_id\":\"$(printf 'x%.0s' {1..257})\"}" '256 is the most'
echo '{"id":"1"}' | expect_status 65 once -t orders --event-key-from /nothing
expect_err_has "'/nothing'"
expect_true 'nothing was made' test ! -e event_bus

t 'keys with quotes, SQL, NUL and of 1 KiB are told apart'
fresh
cat >awkward <<'X'
{"id":"'"}
{"id":"''; DROP TABLE event_keys; --"}
{"id":"\u0000"}
{"id":"\u0000\u0000"}
{"id":"a\u0000b"}
{"id":"a\u0000c"}
{"id":"\\u0000"}
{"id":"\""}
{"id":"\\\""}
{"id":"\","}
{"id":"\u00e9"}
{"id":"e\u0301"}
{"id":"null"}
{"id":"%"}
{"id":" "}
{"id":"0"}
{"id":"0.0"}
{"id":0.00}
{"id":true}
X
for last in a b; do echo "{\"id\":\"$(printf 'x%.0s' {1..1023})$last\"}"; done >>awkward
expect_status 0 once -t orders --format "$tell" awkward
expect_equal "$(grep -c false "$OUT")" "$(wc -l <awkward | tr -d ' ')" 'new ones'
expect_status 0 once -t orders --format "$tell" awkward
expect_equal "$(grep -c true "$OUT")" "$(wc -l <awkward | tr -d ' ')" 'repeats'
evbus verify -q --rebuild-keys >/dev/null
expect_status 0 once -t orders --format "$tell" awkward
expect_equal "$(grep -c true "$OUT")" "$(wc -l <awkward | tr -d ' ')" 'repeats'
printf '{"id":"\\u0061"}\n{"id":"a"}\n{"id":1}\n{"id":"1"}\n' | expect_status 0 once -t same --format "$tell"
expect_equal "$(grep -c true "$OUT")" 2 'other spellings'

t 'an event of CloudEvents is known by source and id together'
fresh
printf '%s\n' '{"specversion":"1.0","id":"1","source":"/a","type":"t"}' '{"specversion":"1.0","id":"1","source":"/b","type":"t"}' \
	'{"specversion":"1.0","id":"1","source":"/a","type":"t"}' | expect_status 0 once -t orders --format "$tell"
expect_out '0/0 false
0/1 false
0/0 true'
expect_true 'the key' grep -q '"event_key":"/a 1"' "$(log orders)"
echo '{"specversion":"1.0","id":"1","source":"a b","type":"t"}' | expect_status 65 once -t orders

t 'options that do not go together'
echo '{"id":"1"}' | expect_status 64 evbus publish -t orders --event-key-from /id
expect_err_has '--idempotent'
echo '{"id":"1"}' | expect_status 64 once -t orders --event-key-from id

# ---- batches -----------------------------------------------------------------------------------------------------

t 'of an atomic batch only what is new is appended, and the batch covers that'
fresh
ids 1 2 | once -q -t orders
{ ids 2 4; ids 1 1; ids 3 3; } | expect_status 0 once -t orders --atomic --format "$tell"
expect_out '0/1 true
0/2 false
0/3 false
0/0 true
0/2 true'
expect_equal "$(grep -c '"batch":"2-3"' "$(log orders)")" 2 'lines of the batch'
ids 1 4 | expect_status 0 once -t orders --atomic --format "$tell"
expect_equal "$(grep -c true "$OUT")" 4 'repeats'
expect_equal "$(lines orders)" 4 'lines'
expect_status 0 evbus verify

t '--expect-offset is for what is new'
{ ids 1 2; ids 5 5; } | expect_status 76 once -t orders --expect-offset 3
expect_equal "$(lines orders)" 4 'lines'
{ ids 1 2; ids 5 5; } | expect_status 0 once -t orders --expect-offset 4 --format "$tell"
expect_out '0/0 true
0/1 true
0/4 false'
ids 1 5 | expect_status 0 once -t orders --expect-offset 77
expect_equal "$(lines orders)" 5 'lines'

t 'records keep their tenant and their key'
fresh
echo '{"id":"1","tenant_id":"a","k":"z"}' | once -q -t orders --event-key-from /k
evbus tail -t orders >records
expect_status 0 once -t copy --records records
expect_true 'they have' grep -q '"tenant_id":"a","event_key":"z"' "$(log copy)"
expect_status 0 once --records records --format "$tell"
expect_out '0/0 true'
sed 's/"tenant_id":"a","event_key":"z"/"tenant_id":"b","event_key":"z"/' records | expect_status 0 once --records --format "$tell"
expect_out '0/1 false'
sed 's/"event_key":"z"/"event_key":7/' records | expect_status 65 once --records
expect_err_has 'event_key'

# ---- the index ---------------------------------------------------------------------------------------------------

t 'the store is made when much was published, and lost it is made again'
fresh
needs_sqlite
ids 1 10 | once -q -t orders
expect_true 'none for little' test ! -e event_bus/.evbus/state.db
ids 1 3000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(grep -c true "$OUT")" 10 'repeats'
expect_true 'it is there' test -s event_bus/.evbus/state.db
cp event_bus/.evbus/state.db older.db
ids 2990 6000 | once -q -t orders
rm -r event_bus/.evbus
ids 1 6000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(sort -u "$OUT")" true 'repeats'

t 'an older store loses nothing'
needs_sqlite
cp older.db event_bus/.evbus/state.db
ids 1 6000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(sort -u "$OUT")" true 'repeats'
expect_each_once orders 1 6000

t 'with a store that is newer than the log, what the log lost is published again'
head -n 2000 "$(log orders)" >shorter && mv shorter "$(log orders)" && rm event_bus/orders/partition=0.lock
ids 1990 2010 | expect_status 0 once -t orders --format "$tell"
expect_equal "$(grep -c true "$OUT")" 11 'repeats'
expect_equal "$(tail -n 1 "$OUT")" '0/2009 false' 'the last one'
ids 4000 6000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(sort -u "$OUT")" false 'new ones'

t 'a topic that was removed and made again with the store kept gets its events'
rm -r event_bus/orders
ids 1 3000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(sort -u "$OUT")" false 'new ones'
expect_each_once orders 1 3000
ids 1 3000 | expect_status 0 once -t orders --format '{duplicate}\n'
expect_equal "$(sort -u "$OUT")" true 'repeats'

t 'a row that leads to a record without the key does not count'
if have_sqlite; then
	fresh
	ids 1 2000 | once -q -t orders
	expect_equal "$(sql 'SELECT COUNT(*) FROM event_keys')" 2000 'rows'
	sql "INSERT INTO event_keys SELECT topic, tenant_id, 'x' || event_key, log_id, partition_id, record_offset, published_at FROM event_keys"
	printf '{"id":"x1"}\n{"id":"x2000"}\n{"id":"1"}\n' | expect_status 0 once -t orders --format "$tell"
	expect_out '0/2000 false
0/2001 false
0/0 true'
fi

t 'verify --rebuild-keys makes the index anew, and says how many keys there are'
fresh
ids 1 1500 | once -q -t orders
ids 1 5 | evbus publish -q -t plain
expect_status 0 evbus verify --rebuild-keys --format tsv
expect_out_has 'the index of event keys was made anew: 1500 keys'
expect_out_has 'the index of event keys was made anew: 0 keys'
expect_status 0 evbus verify --format tsv
expect_out ''
head -n 700 "$(log orders)" >shorter && mv shorter "$(log orders)" && rm event_bus/orders/partition=0.lock
expect_status 0 evbus verify --rebuild-keys -t orders --format tsv
expect_out_has '700 keys; the one before was of another log'
if command -v sqlite3 >/dev/null; then
	expect_equal "$(sql 'SELECT COUNT(*) FROM event_keys')" 700 'rows'
fi
expect_status 64 evbus verify --rebuild-keys -p 0

t 'of a damaged log the index is left as it is'
printf X | dd of="$(log orders)" bs=1 seek=200 conv=notrunc status=none
expect_status 1 evbus verify --rebuild-keys -t orders --format tsv
expect_out_has 'left as it is'

t 'a store that cannot be used is told, and nothing is published'
fresh
needs_sqlite
ids 1 2 | once -q -t orders
mkdir -p event_bus/.evbus && echo 'this is no database, but it is long enough to be looked at' >event_bus/.evbus/state.db
ids 3 3 | expect_status 74 once -t orders
expect_err_has 'state.db'
expect_equal "$(lines orders)" 2 'lines'
ids 3 3 | expect_status 0 once -t orders --store elsewhere.db --format "$tell"
expect_out '0/2 false'

# ---- many at once ------------------------------------------------------------------------------------------------

t 'eight at once publish the same 1000 keys: each is there once, and all get the same receipts'
fresh
evbus topic-create -q orders >/dev/null
ids 1 1000 >keys
for i in 1 2 3 4 5 6 7 8; do
	once -t orders --format '{/id} {offset}\n' keys >"got.$i" &
	pids[i]=$!
done
for i in 1 2 3 4 5 6 7 8; do
	expect_true "publisher $i ended well" wait "${pids[i]}"
	expect_same "got.$i" got.1
done
expect_each_once orders 1 1000

t 'one event at a time of four processes'
fresh
evbus topic-create -q orders --partitions 2 >/dev/null
single() {
	for n in $(seq 1 40); do echo "{\"id\":\"$n\"}" | once -q -t orders -p $(($1 % 2)); done
}
for i in 1 2 3 4; do single $i & done
wait
expect_each_once orders 1 40

t 'killed over and over until it is done, each event is there once'
fresh
evbus topic-create -q orders >/dev/null
ids 1 4000 >keys
kills=0
for n in $(seq 1 60); do
	once -q -t orders keys &
	pid=$!
	sleep "0.00$((n % 10))$((n % 7))"
	kill -9 $pid 2>/dev/null && kills=$((kills + 1))
	wait $pid 2>/dev/null && [ "$n" -gt 30 ] && break
done
expect_true 'it was killed' test $kills -ge 15
expect_status 0 once -t orders --format '{duplicate}\n' keys
expect_each_once orders 1 4000
expect_status 0 evbus verify -q

t 'a lock file that is deleted under load lets nothing through twice'
fresh
evbus topic-create -q orders >/dev/null
ids 1 2000 >keys
for i in 1 2 3 4; do once -q -t orders keys & pids[i]=$!; done
while kill -0 "${pids[1]}" 2>/dev/null; do rm -f event_bus/orders/keys.lock; done
for i in 1 2 3 4; do expect_true "publisher $i ended well" wait "${pids[i]}"; done
expect_each_once orders 1 2000

t 'one that is stopped while others publish repeats nothing when it goes on'
fresh
evbus topic-create -q orders >/dev/null
ids 1 3000 >keys
once -q -t orders keys &
pid=$!
sleep 0.005
kill -STOP $pid
(once -q -t orders keys) &
other=$!
sleep 0.1
kill -CONT $pid
expect_true 'it ended well' wait $pid
expect_true 'the other one too' wait $other
expect_each_once orders 1 3000

# ---- waiting -----------------------------------------------------------------------------------------------------

t 'one that waits for another says so, is ended by a signal, and has appended nothing'
fresh
ids 1 1 | once -q -t orders
for signal in INT TERM; do
	hold_keys orders
	ids 2 3 >"more"
	: >"$ERR"
	# An interactive shell does not ignore SIGINT for what it starts; this one does.
	python3 -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' evbus publish --idempotent -t orders more >"$OUT" 2>"$ERR" &
	publisher=$!
	wait_for 10 grep -q . "$ERR"
	expect_err "evbus publish: waiting for another process that publishes idempotently to 'orders'"
	kill -$signal $publisher
	status=0
	wait $publisher || status=$?
	expect_equal $status "$([ $signal = INT ] && echo 130 || echo 143)" 'the status'
	expect_err "evbus publish: waiting for another process that publishes idempotently to 'orders'"
	expect_out ''
	release_lock
	expect_equal "$(lines orders)" 1 'lines'
done

t 'one that waits goes on when the other one has gone, and its records have the time of then'
hold_keys orders
: >"$ERR"
once -t orders --format '{published_at_utc}\n' more >"$OUT" 2>"$ERR" &
publisher=$!
wait_for 10 grep -q waiting "$ERR"
sleep 0.3
before=$(date -u +%FT%T.%6NZ)
release_lock
expect_true 'it ended well' wait $publisher
expect_lines 2
expect_true 'no record is older' test -z "$(awk -v before="$before" '$0 < before' "$OUT")"
expect_equal "$(lines orders)" 3 'lines'

t 'verify --rebuild-keys that waits is ended by a signal'
hold_keys orders
: >"$ERR"
evbus verify --rebuild-keys >"$OUT" 2>"$ERR" &
verifier=$!
wait_for 10 grep -q 'waiting for another process' "$ERR"
kill $verifier
status=0
wait $verifier || status=$?
expect_equal $status 143 'the status'
release_lock

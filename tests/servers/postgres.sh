#!/usr/bin/env bash
# The store in Postgres: when the server is not there, dies, stops and comes back, when the network loses things, and when
# machines share it. What a store does where all is well, the files of tests/cli show (EVBUS_TEST_STORE=postgres).
# shellcheck disable=SC2016 # what stands in '' is for the shell of the command
. "${0%/*}/../cli/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 22

number=0
begin() {
	fresh
	number=$((number + 1))
	schema=s$number
	export EVBUS_STORE="$url?schema=$schema&timeout=${1:-5s}"
}
events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
ask() { # STATEMENT
	PGOPTIONS="-c search_path=$schema" psql -XAtq -v ON_ERROR_STOP=1 -d "$url" -c "$1"
}
# through OPTIONS: the store, by way of the proxy
through() {
	printf 'postgresql://%s@127.0.0.1:%s/%s?schema=%s&%s' "$user" "$net" "${url##*/}" "$schema" "$1"
}
is_gone() { # PID
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}
has_lines() { # FILE N
	[ "$(wc -l <"$1")" -ge "$2" ]
}
# Other machines have nothing but the store in common.
other_machine() {
	HOME=$PWD/other "$@"
}

t 'there is a server, a proxy, and the module'
must_serve postgres db server postgres
url=${ANSWER%% *} with_password=${ANSWER#* }
user=${url#*//} user=${user%%@*} password=${with_password#*://*:} password=${password%%@*}
port=${url##*:} port=${port%%/*}
expect_true 'a proxy' serve net proxy "$port"
net=$ANSWER

# ---- where it is, and who may come ---------------------------------------------------------------------------------

t 'the first write makes the schema and says so; reading makes nothing'
begin
events 0 4 | evbus publish -q -t orders
expect_status 0 evbus checkpoint-list --format tsv
expect_out ''
expect_equal "$(ask "SELECT count(*) FROM pg_namespace WHERE nspname = '$schema'")" 0 'schemas'
expect_status 0 evbus checkpoint-set -g g -t orders -o 2
expect_err_has "made the store 'postgresql://"
expect_equal "$(ask 'SELECT next_offset FROM checkpoints')" 2 'the checkpoint'

t 'a name of a schema may be anything'
EVBUS_STORE="$url?schema=we%22ird%20%24%C3%A9" expect_status 0 evbus checkpoint-set -q -g g -t orders -o 3
EVBUS_STORE="$url?schema=we%22ird%20%24%C3%A9" expect_status 0 evbus checkpoint-get -g g -t orders --format tsv
expect_out_has $'\t3\t'

t 'what is no such URL is refused, and names the option'
for bad in "$url?timeout=0" "$url?schema=" "$url?schema=%zz" "$url?nonsense=1" "postgresql:x" "${url/@/:a/b@}"; do
	EVBUS_STORE=$bad expect_status 78 evbus checkpoint-list
	expect_true "no password: $bad" sh -c '! grep -q "a/b" "$1"' sh "$ERR"
done
EVBUS_STORE="$url?nonsense=1" evbus checkpoint-list 2>"$ERR"
expect_err_has nonsense

t 'a password is taken from the environment, a passfile and a service file, and not from the command line'
begin
for bad in "$with_password" "postgresql://${url#*@}?user=tester&password=$password" "postgres${with_password#postgresql}"; do
	expect_status 64 evbus checkpoint-list --store "$bad"
	expect_err_has passfile
	expect_true 'it is not shown' sh -c '! grep -q "$2" "$1"' sh "$ERR" "$password"
done
plain=postgresql://${with_password%%:"$password"*} plain=${plain/postgresql:\/\/postgresql/postgresql}@${with_password#*@}
EVBUS_STORE=$with_password expect_status 0 evbus checkpoint-list --format tsv
PGPASSWORD=$password expect_status 0 evbus checkpoint-list --store "$plain" --format tsv
PGPASSWORD=wrong expect_status 77 evbus checkpoint-list --store "$plain"
PGPASSFILE=/dev/null expect_status 77 evbus checkpoint-list --store "$plain"
expect_err_has passfile
printf '*:*:*:*:%s\n' "$password" >passfile && chmod 600 passfile
expect_status 0 evbus checkpoint-list --store "$plain?passfile=$PWD/passfile" --format tsv
name=${plain#*//} name=${name%%@*}
printf '[here]\nhost=127.0.0.1\nport=%s\ndbname=%s\nuser=%s\npassword=%s\n' "$port" "${url##*/}" "$name" "$password" >services
PGSERVICEFILE=$PWD/services expect_status 0 evbus checkpoint-list --store 'postgresql:///?service=here' --format tsv
EVBUS_STORE=$with_password expect_status 0 evbus config
expect_true 'config does not show it' sh -c '! grep -q "$2" "$1"' sh "$OUT" "$password"

t 'a database that is not UTF-8 is refused'
psql -Xq -d "$url" -c "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
EVBUS_STORE="${url%/*}/latin" expect_status 78 evbus checkpoint-list
expect_err_has LATIN1

# ---- what is kept ---------------------------------------------------------------------------------------------------

t 'checkpoints move from SQLite to Postgres and back without a loss'
begin
evbus topic-create -q --partitions 3 many >/dev/null
for p in 0 1 2; do events 0 20 | evbus publish -q -t many -p $p; done
events 0 4 | evbus publish -q -t one
move() { # FROM TO
	evbus checkpoint-list --store "$1" --format json >"$tests_dir/moved" || return
	evbus checkpoint-set -q --from-file - --store "$2" <"$tests_dir/moved"
}
for p in 0 1 2; do evbus checkpoint-set -q --store a.db -g billing -t many -p $p -o $((5 * p + 1)) >/dev/null; done
evbus checkpoint-set -q --store a.db -g audit -t one -o end >/dev/null
sqlite3 a.db "UPDATE checkpoints SET updated_at = '2020-02-29T23:59:59.000001Z' WHERE partition_id = 2;
	INSERT INTO checkpoints SELECT 'elsewhere', 'gone', 77, '99999999999999999999999999999999999999', 'kinesis_sequence', '0123456789abcdef0123456789abcdef', '', updated_at
	FROM checkpoints WHERE partition_id = 0 LIMIT 1"
expect_status 0 move a.db "$EVBUS_STORE"
expect_status 0 move "$EVBUS_STORE" b.db
rows='SELECT group_name, topic, partition_id, next_offset, offset_kind, log_id, fingerprint, updated_at FROM checkpoints ORDER BY 1, 2, 3'
sqlite3 a.db "$rows" | LC_ALL=C sort >wanted
ask "$rows" | LC_ALL=C sort >got
expect_same got wanted
sqlite3 b.db "$rows" | LC_ALL=C sort >got
expect_same got wanted
expect_equal "$(wc -l <wanted)" 5 'checkpoints'

t 'a list is sorted by bytes, whatever the language of the database'
begin
for group in b a B _ é A 1; do
	events 0 0 | evbus publish -q -t "t$group" 2>/dev/null || continue
	evbus checkpoint-set -q -g g -t "t$group" -o 0 >/dev/null
done
evbus checkpoint-list --format tsv | cut -f 2 >got
expect_same got <(LC_ALL=C sort got)
expect_true 'several' has_lines got 4

t 'texts with any bytes come back as they were: NUL, half a surrogate pair, DLE'
begin
printf '{"id":"a\\u0000b","type":"x\\ud800y"}\n{"id":"c\\u0010d"}\n{"id":"e\\u001000f"}\n' | evbus publish -q -t orders
for store in "$EVBUS_STORE" sqlite:local.db; do
	EVBUS_STORE=$store evbus consume -q -g g -t orders --retry-max 0 -- sh -c 'cat >/dev/null; printf "\377\300\0!" >&2; exit 65' 2>"$ERR"
	EVBUS_STORE=$store expect_status 0 evbus dlq-list --format json --payload
	sed -E 's/"[0-9T:.-]{26}Z"/TIME/g; s/"age_seconds":[0-9]*//' "$OUT" >"letters.${store%%:*}"
done
expect_same letters.postgresql letters.sqlite
expect_true 'three of them' has_lines letters.sqlite 3
for i in 1 2; do evbus consume -q -g "i" -t orders --inbox -- sh -c 'echo >>ran; cat >/dev/null' 2>"$ERR"; evbus checkpoint-set -q -g i -t orders -o 0 >/dev/null; done
expect_equal "$(wc -l <ran)" 3 'runs of events that the inbox knows'

# ---- claims ---------------------------------------------------------------------------------------------------------

t 'another machine is kept out of a partition, and told by whom'
begin
events 0 2 | evbus publish -q -t orders
evbus consume -f -q -g g -t orders -- sh -c 'cat >>handled; echo >>handled' &
consumer=$!
wait_for 10 has_lines handled 3
expect_status 75 other_machine evbus consume -q -g g -t orders --no-wait -- true
expect_err_has "evbus $(hostname) $consumer from 127.0.0.1"
expect_status 75 other_machine evbus checkpoint-set -g g -t orders -o 0
expect_status 0 other_machine evbus checkpoint-set -q -g h -t orders -o 0

t 'it comes to its turn when the first one is killed'
kill -KILL $consumer && wait $consumer 2>/dev/null
within 5 expect_status 0 other_machine evbus consume -q -g g -t orders -- cat
expect_out ''

t 'who lost the claim to another one saves nothing any more'
begin
events 0 2 | evbus publish -q -t orders
evbus consume -q -g g -t orders --commit-every 1 -- sh -c 'cat >/dev/null; touch began; while [ ! -e go ]; do sleep 0.02; done' 2>first.err &
first=$!
wait_for 10 test -e began
ask "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evbus%'" >/dev/null
other_machine evbus consume -f -q -g g -t orders -- sh -c 'cat >/dev/null; echo >>second' &
second=$!
wait_for 10 has_lines second 3
touch go
wait $first
expect_equal $? 76 'status of the first'
expect_true 'it says why' grep -q 'somebody else' first.err
wait_for 5 sh -c '[ "$(evbus checkpoint-get -g g -t orders --format tsv | cut -f 4)" = 3 ]'
kill $second && wait $second 2>/dev/null

t 'who lost it, and nobody else took it, goes on; but not where a checkpoint was moved meanwhile'
begin
events 0 2 | evbus publish -q -t orders
for moved in no yes; do
	rm -f began go
	evbus consume -q -g $moved -t orders -- sh -c 'cat >/dev/null; touch began; while [ ! -e go ]; do sleep 0.02; done' 2>"$ERR" &
	first=$!
	wait_for 10 test -e began
	ask "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'evbus%'" >/dev/null
	[ $moved = no ] || wait_for 5 evbus checkpoint-set -q -g $moved -t orders -o 1 >/dev/null
	touch go
	wait $first
	expect_equal "$moved $?" "$moved $([ $moved = no ] && echo 0 || echo 76)" 'status'
done
expect_equal "$(ask 'SELECT group_name, next_offset FROM checkpoints ORDER BY 1')" $'no|3\nyes|1' 'the checkpoints'

# ---- a server that is away ------------------------------------------------------------------------------------------

t 'a server that is not there is told at once'
begin
tell net refuse
EVBUS_STORE=$(through timeout=5s) within 2 expect_status 69 evbus checkpoint-list
expect_err_has 'refused'
tell net pass

t 'of several hosts one that has vanished leaves the others their time'
begin
# A queue that is full answers no more than a host that is gone.
coproc gone { exec python3 -c 'import socket, sys
full = socket.create_server(("127.0.0.1", 0), backlog=0)
clients = [socket.socket() for _ in range(4)]
for client in clients:
    client.setblocking(False)
    client.connect_ex(full.getsockname())
print(full.getsockname()[1], flush=True)
sys.stdin.read()'; }
# shellcheck disable=SC2154 # of the coproc
read -r port <&"${gone[0]}"
at=${url#*@}
EVBUS_STORE="postgresql://$user@127.0.0.1:$port,$at?schema=$schema&timeout=10s" within 10 expect_status 0 evbus checkpoint-list
eval "exec ${gone[1]}>&-"

t 'one that is silent, or stopped, is told within the time-out, and nothing hangs'
tell net hole both
EVBUS_STORE=$(through timeout=1s) within 3 expect_status 69 evbus checkpoint-list
expect_err_has 'no answer for 1000 ms'
tell net pass
events 0 9 | evbus publish -q -t orders
tell db pause
EVBUS_STORE="$url?schema=$schema&timeout=1s" within 3 expect_status 69 evbus checkpoint-set -g g -t orders -o 1
EVBUS_STORE="$url?schema=$schema&timeout=1s" within 3 expect_status 69 evbus consume -q -g g -t orders -- cat
expect_out ''
tell db resume
expect_status 0 evbus checkpoint-set -q -g g -t orders -o 1

t 'one that waits for a lock of another says so after half the time-out'
PGOPTIONS="-c search_path=$schema" psql -Xq -d "$url" -c "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('evbus store ' || current_setting('search_path'), 0)); SELECT pg_sleep(3)" >/dev/null &
sleep 0.5
EVBUS_STORE="$url?schema=$schema&timeout=2s" within 3 expect_status 75 evbus checkpoint-set -g g -t orders -o 2
expect_err_has 'try again'
wait $!

t 'a database for reading only, or a user who may not write, is told so'
begin
psql -Xq -d "$url" -c "REVOKE CREATE ON DATABASE ${url##*/} FROM PUBLIC, $name"
events 0 2 | evbus publish -q -t orders
PGOPTIONS='-c default_transaction_read_only=on' expect_status 0 evbus checkpoint-list --format tsv
PGOPTIONS='-c default_transaction_read_only=on' expect_status 77 evbus checkpoint-set -g g -t orders -o 1
expect_err_has 'target_session_attrs'
EVBUS_STORE="postgresql://$name@${url#*@}?schema=nobodys" PGPASSWORD=$password expect_status 77 evbus checkpoint-set -g g -t orders -o 1
expect_err_has 'permission denied'

# ---- a server that comes and goes -----------------------------------------------------------------------------------

# Consumers, started again whenever they end, until all is done. Each event is handled, and again only if a consumer or the
# connection broke: then at most those that were not saved.
consume_all() { # OF
	local tries=0
	while [ $tries -lt 60 ]; do
		evbus consume -q -g g -t orders --commit-every 20 --inbox -- sh -c 'echo "$EVENT_ID" >>handled; cat >/dev/null' 2>>errors && break
		tries=$((tries + 1))
		sleep 0.05
	done
	touch over
}
expect_all() { # OF
	expect_equal "$(sort -nu handled | wc -l)" "$1" 'events that were handled'
	expect_equal "$(ask 'SELECT next_offset FROM checkpoints')" "$1" 'the checkpoint'
	expect_equal "$(ask 'SELECT count(*) FROM inbox')" "$1" 'rows of the inbox'
	expect_true "$(wc -l <handled) runs" test "$(wc -l <handled)" -le $(($1 + 25 * ($2 + 1)))
	grep -vE 'lost|cannot connect|no answer|may have happened|starting up|shutting down|somebody else|terminat' errors >others
	expect_same others /dev/null
}
count=400 breaks=6
[ -z "${EVBUS_TEST_QUICK:-}" ] || count=120 breaks=3
RANDOM=${EVBUS_TEST_SEED:-7}

t 'a server that is killed and comes back loses nothing that was acknowledged'
begin 10s
events 1 $count | evbus publish -q -t orders
: >handled && : >errors
consume_all &
for ((i = 1; i <= breaks; i++)); do
	wait_for 60 sh -c "[ -e over ] || [ \$(wc -l <handled) -ge $((i * count / (breaks + 2))) ]"
	tell db kill
	sleep "0.$((RANDOM % 5))"
	tell db start
done
wait_for 120 test -e over
expect_all $count $breaks

t 'so does one that is stopped in order, and one that stands still for a while'
begin 10s
events 1 $count | evbus publish -q -t orders
: >handled && : >errors
consume_all &
wait_for 60 has_lines handled $((count / 4))
tell db stop
tell db start
wait_for 60 has_lines handled $((count / 2))
tell db pause
sleep 1
tell db resume
wait_for 120 test -e over
expect_all $count 2

t 'a network that cuts connections at any byte loses nothing'
begin 10s
events 1 $count | evbus publish -q -t orders
EVBUS_STORE=$(through timeout=10s)
: >handled && : >errors
consume_all &
cuts=0
while [ ! -e over ] && [ $cuts -lt $((4 * breaks)) ]; do
	tell net cut "$([ $((RANDOM % 2)) = 0 ] && echo up || echo down)" $((RANDOM % 9000))
	cuts=$((cuts + 1))
	sleep "0.$((RANDOM % 40 + 10))"
done
tell net pass
wait_for 120 test -e over
expect_all $count $cuts

t 'a network that holds everything back only makes it late'
begin
events 1 20 | evbus publish -q -t orders
tell net delay both 20
EVBUS_STORE=$(through timeout=5s) expect_status 0 evbus consume -q -g g -t orders -- true
expect_equal "$(ask 'SELECT next_offset FROM checkpoints')" 20 'the checkpoint'
tell net pass

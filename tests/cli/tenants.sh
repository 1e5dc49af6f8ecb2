#!/usr/bin/env bash
# No command that is run for tenant A shows or changes anything of tenant B, though their events have the same ids, keys
# and types: each command that takes a tenant, against letters, rows of outboxes, inbox, event keys and the log.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
. "${0%/*}/lib.sh"
plan 5

# events TENANT: three, with a payload that says whose they are.
events() {
	printf '{"id":"%s","event_type":"a","tenant_id":"'"$1"'","event_key":"k%s","correlation_id":"c","whose":"of-'"$1"'"}\n' 1 1 2 2 3 3
}
# add_row TENANT ID TOPIC: all but the id of the row is the same.
add_row() {
	events "$1" | head -n 1 | evbus outbox-add -q -t "$3" --id "$2" >/dev/null
}

# Of each tenant: three events on the log, letters 1 to 3 of A and 4 to 6 of B, inbox, rows that wait and that are FAILED.
mkdir base
cd base || exit 1
{
	events A | evbus publish -q -t t --idempotent
	events B | evbus publish -q -t t --idempotent
	evbus verify --rebuild-keys
	evbus consume -q -t t -g letters --tenant A -- sh -c 'echo of-A >&2; exit 65'
	evbus checkpoint-set -q -t t -g letters -o 0
	evbus consume -q -t t -g letters --tenant B -- sh -c 'echo of-B >&2; exit 65'
	evbus consume -q -t t -g worked --inbox --tenant B -- true
	evbus checkpoint-set -q -t t -g worked -o 0
	evbus outbox-init -q
	add_row A fails-A rows
	add_row B fails-B rows
	sql "UPDATE outbox SET topic = '..'"
	evbus outbox-drain -q --retry-max 0
	add_row A waits-A rows
	add_row B waits-B rows
} >/dev/null 2>&1
cd ..
[ -z "$tests_database" ] || sql "CREATE SCHEMA kept;
	DO \$\$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
		EXECUTE format('CREATE TABLE kept.%I AS TABLE %I', t, t); END LOOP; END \$\$"
# as_before DIRECTORY: a copy of the bus; a store on a server is not in it.
as_before() {
	rm -rf "$1"
	cp -a ../base "$1"
	[ -z "$tests_database" ] || sql "DO \$\$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'kept' LOOP
		EXECUTE format('DELETE FROM %I', t); EXECUTE format('INSERT INTO %I SELECT * FROM kept.%I', t, t); END LOOP; END \$\$"
}

# All that there is of B; what the log has of it stands in the log for good.
of_b() {
	sql "SELECT * FROM dlq WHERE tenant_id = 'B'; SELECT * FROM outbox WHERE tenant_id = 'B';
		SELECT * FROM inbox WHERE tenant_id = 'B'; SELECT * FROM event_keys WHERE tenant_id = 'B';
		SELECT * FROM outbox_decisions WHERE seq IN (SELECT seq FROM outbox WHERE tenant_id = 'B')"
	evbus tail -t '>' -o beginning --tenant B 2>/dev/null
}

# How it is printed does not depend on where it is.
formats=(table json tsv) all=97
[ -z "$tests_database" ] || formats=(json) all=71
ran=0
# for_a STATUSES WORDS...: the command shows nothing of B, and changes nothing of it, which is $before.
for_a() {
	local status=0
	as_before work
	cd work || exit 1
	timeout 20 "$EVBUS" "${@:2}" <"../${input:-nothing}" >"$OUT" 2>"$ERR" || status=$?
	[[ " $1 " == *" $status "* ]] || fail "${*:2}: exit status $status: $(head -n 5 "$ERR")"
	expect_equal "$(cat "$OUT" "$ERR" | grep -aE 'of-B|tenant_id": *"B"|[a-z]-B')" '' "of B, by ${*:2}"
	expect_equal "$(of_b)" "$before" "what is of B, after ${*:2}"
	ran=$((ran + 1))
	cd ..
}
# shows_a STATUSES WORDS...: and what is of A is shown, so that the one above proves something.
shows_a() {
	for_a "$@"
	expect_true "something of A is shown by ${*:2}" grep -qaE 'of-A|"A"|[a-z]-A|	A	' "$OUT"
}

# Beside it, with its store.
mkdir elsewhere && cd elsewhere || exit 1
: >nothing
t 'the same is there of both'
as_before here
cd here || exit 1
for tenant in A B; do
	expect_equal "$(sql "SELECT count(*) FROM dlq WHERE tenant_id = '$tenant'")" 3 "letters of $tenant"
	expect_equal "$(sql "SELECT state FROM outbox WHERE tenant_id = '$tenant' ORDER BY seq" | paste -sd ,)" FAILED,PENDING "rows of $tenant"
	expect_equal "$(sql "SELECT count(*) FROM event_keys WHERE tenant_id = '$tenant'")" 3 "keys of $tenant"
	expect_equal "$(evbus tail -t t -o beginning --tenant $tenant --count)" 3 "records of $tenant"
done
expect_equal "$(sql "SELECT count(*) FROM inbox WHERE tenant_id = 'B'")" 3 'inbox of B'
mapfile -t letters_of_b < <(sql "SELECT id FROM dlq WHERE tenant_id = 'B'")
before=$(of_b)
row_of_b=$(evbus dlq-list --format tsv | cut -f 1 | grep ':2$')
expect_true 'a row that is FAILED has a letter' test "$row_of_b"
cd ..

t 'what reads the log gives out nothing of another tenant'
for where in '-n 100' '-o beginning' '-p 0 -o 0 --format payload' '-o beginning --format stored' '-o beginning --format pretty' \
	'-o beginning --format tsv' '-o beginning -f --timeout 100ms'; do
	# shellcheck disable=SC2086 # several words
	shows_a '0 75' tail -t '>' --tenant A $where
done
for_a 0 tail -t t --tenant A --event-key k1
for_a 0 tail -t t --tenant A --where /whose=of-B -n 100
for_a 0 tail -t t --tenant A -o beginning --count
expect_out 3
shows_a 0 replay -t t --tenant A
for_a 0 replay -t t --tenant A --count
expect_out 3
for_a 0 replay -t t --tenant A --to-topic copy
expect_equal "$(evbus tail -t copy -b work/event_bus -o beginning --format payload | grep -c of-A)" 3
shows_a 0 replay -t t --tenant A -- cat
shows_a 0 consume -t t -g new --tenant A -- cat
shows_a 0 consume -t t -g new --tenant A -- sh -c 'cat; env'
# The ids of B's are in the inbox; those of A's are others.
shows_a 0 consume -t t -g worked --inbox --tenant A -- cat
expect_equal "$(grep -c of-A "$OUT")" 3
for_a 0 consume -t t -g new --tenant A --coprocess -- sh -c 'while read -r line; do echo "$line" >&2; echo ok; done'
for_a 1 consume -t t -g new --tenant A -- sh -c 'exit 65'
expect_equal "$(evbus dlq-list -g new --format tsv -b work/event_bus | wc -l)" 3

t 'what is published once, or put into an outbox, meets no key of another tenant'
events A >three
# B's first key, as A's fourth event: not a duplicate of B's.
echo '{"id":"4","event_type":"a","tenant_id":"A","event_key":"of B alone"}' >one
input=one for_a 0 publish -t t --idempotent
echo '{"id":"4","event_type":"a","tenant_id":"B","event_key":"of B alone"}' | evbus publish -q -t t --idempotent -b work/event_bus
expect_equal "$(evbus tail -t t --event-key 'of B alone' -o beginning --count -b work/event_bus)" 2
input=three for_a 0 publish -t t --idempotent
expect_equal "$(grep -o '"offset":"[0-9]*"' "$OUT" | paste -sd ' ')" '"offset":"0" "offset":"1" "offset":"2"'
input=one for_a 0 outbox-add -t rows --tenant-id A
for format in "${formats[@]}"; do
	shows_a 0 outbox-list --tenant A --format "$format"
	shows_a 0 outbox-list --tenant A --state FAILED --format "$format"
done
for_a 0 outbox-list --tenant A --topic rows

t 'of dead letters, those of another tenant are not there'
for options in '' --payload '--state all' '--type a' '--source store' '--source outbox' '-g letters' '--by type' '--by tenant' '--by group' '--by error'; do
	for format in "${formats[@]}"; do
		# shellcheck disable=SC2086 # several words
		for_a '0 64' dlq-list --tenant A --format "$format" $options
	done
done
shows_a 0 dlq-list --tenant A --payload --format json
for_a 0 dlq-list --tenant A --format tsv
expect_lines 4
for id in "${letters_of_b[@]}" "$row_of_b"; do
	for_a 66 dlq-show --tenant A "$id"
	for_a '0 66' dlq-list --tenant A --id "$id" --format tsv
	expect_out ''
	for_a '1 66' dlq-discard --tenant A "$id"
	for_a '1 66' dlq-retry --tenant A "$id"
	for_a '1 66' dlq-retry --tenant A "$id" -- cat
	for_a '1 64 66' dlq-retry --tenant A --republish "$id"
done
for_a 0 dlq-show --tenant A 1
for options in '' --dry-run --republish; do
	# shellcheck disable=SC2086 # several words
	for_a '0 1' dlq-retry --tenant A --all $options
done
for_a '0 1' dlq-retry --tenant A --all -- cat
for_a '0 1' dlq-retry --tenant A --all -- false
for_a 0 dlq-discard --tenant A --all --dry-run
for_a 0 dlq-discard --tenant A --all
expect_equal "$(cd work && sql "SELECT count(*) FROM dlq WHERE state = 'DISCARDED'")" 3
for_a '0 1' dlq-discard --tenant A --all --undo

t 'all of it was run'
ran 'commands for one of two tenants' "$ran" $all

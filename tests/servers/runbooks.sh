#!/usr/bin/env bash
# The runbooks of evbus-runbooks(7), carried out as they are written: runbooks.sh nats|kafka. Only the address of the server
# is another.
. "${0%/*}/../cli/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 3

server=$1

# Kafka's differ in the first one, and in one more before the log is copied.
carried_out() {
	steps 'Move from files to NATS' | while read -r step; do
		case $server/$step in
		kafka/export\ FROM*) steps 'Move from files to Kafka' | grep '^export' ;;
		kafka/evbus\ replay*) steps 'Move from files to Kafka' | grep -v '^export' && printf '%s\n' "$step" ;;
		*) printf '%s\n' "$step" ;;
		esac
	done
}
no_server() {
	[ -z "$WHY" ] || skip "$WHY"
	[ -n "$WHY" ]
}

serve broker server "$server"
url=${ANSWER%% *}
carried_out | sed -E "s|TO=[a-z]+://[^ ]*|TO=$url|" >steps

# A group is in the middle of a topic, with one event that is a dead letter; then come the next ones.
for i in $(seq 1 200); do
	printf '{"id":"e-%d","type":"order.placed","amount":%d.10}\n' "$i" "$i"
done >before.jsonl
printf '{"id":"n-%d","type":"order.paid"}\n' 1 2 3 >next.jsonl
cat >handler <<'SH'
#!/bin/sh
echo "$EVENT_ID" >>handled
[ "$EVENT_ID" != e-7 ] || exit 65
SH
chmod +x handler
evbus publish -q -t orders --idempotent before.jsonl
evbus consume -q -t orders -g billing --max 50 -- ./handler 2>/dev/null

t "each step of the move to $server ends with 0"
if ! no_server; then
	expect_true 'there are steps' test "$(grep -c ^evbus steps)" -ge 8
	while read -r step; do
		eval "$step" >"$OUT" 2>"$ERR" </dev/null
		expect_equal $? 0 "$step ($(head -c 500 "$ERR"))"
	done <steps
fi

t 'each event was handled once, in its order, before and after'
if ! no_server; then
	jq -r .id before.jsonl next.jsonl >wanted
	expect_same handled wanted
	expect_status 0 evbus checkpoint-list -g billing --format json
	expect_out_has "\"offset_kind\":\"$(case $server in nats) echo nats_sequence ;; kafka) echo kafka_offset ;; esac)\""
	expect_status 0 evbus dlq-list -g billing --format tsv
	expect_out_has 'e-7'
fi

t 'the way back is the same, and the log is what it was'
if ! no_server; then
	expect_status 0 evbus replay -q -t orders --to-bus file:back
	expect_status 0 evbus verify -t orders --against file:back
	expect_status 0 env -u EVBUS_STORE evbus verify -b file:back --deep
	evbus replay -b file:back -t orders --format payload >came-back
	cat before.jsonl next.jsonl | expect_same came-back -
fi

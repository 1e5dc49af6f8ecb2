#!/usr/bin/env bash
# publish: records that evbus printed, and events over several lines.
. "${0%/*}/lib.sh"
plan 25

# as_printed TOPIC PARTITION: the lines of a log as tail prints them.
as_printed() {
	sed -E "s/^\{\"crc32c\":\"[0-9a-f]{8}\",/{\"topic\":\"$1\",\"partition_id\":$2,\"offset_kind\":\"file_line\",/" \
		"${3:-event_bus}/$1/partition=$2.jsonl"
}
# what_stays TOPIC PARTITION [BUS]: of each line what does not depend on the time.
what_stays() {
	sed -E 's/^\{"crc32c":"[0-9a-f]{8}",//; s/"published_at_utc":"[^"]*",//' "${3:-event_bus}/$1/partition=$2.jsonl"
}
records() {
	evbus topic-describe "$1" --format tsv | awk '{ n += $5 } END { print n + 0 }'
}
record() { # MEMBERS...: with a payload
	printf '{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"7","published_at_utc":"2026-01-29T12:00:00.000000Z"%s,"payload":{"n":1}}\n' "$@"
}

# ---- records -----------------------------------------------------------------------------------------------------

t 'records go to another bus without loss: topics, partitions, keys, payloads'
evbus topic-create -q orders --partitions 3 >/dev/null
evbus publish -q -t orders --key-from /event_id,/id,/eventId "$DATA/events.jsonl"
evbus publish -q -t orders --key $'k"\\\té' "$DATA/events.jsonl"
evbus publish -q -t orders -p 1 "$DATA/awkward.jsonl"
evbus publish -q -t crm.lead "$DATA/awkward.jsonl"
evbus topic-create -q -b other orders --partitions 3 >/dev/null
{ for p in 0 1 2; do as_printed orders $p; done && as_printed crm.lead 0; } | expect_status 0 evbus publish -b other --records
expect_lines "$(cat event_bus/*/partition=?.jsonl | wc -l)"
for p in 0 1 2; do
	expect_same <(what_stays orders $p other) <(what_stays orders $p)
done
expect_same <(what_stays crm.lead 0 other) <(what_stays crm.lead 0)

t 'stored lines are taken where the topic is named'
fresh
evbus publish -q -t orders -k key "$DATA/awkward.jsonl"
expect_status 0 evbus publish -q --records -t copy event_bus/orders/partition=0.jsonl
expect_same <(what_stays copy 0) <(what_stays orders 0)
expect_status 65 evbus publish --records event_bus/orders/partition=0.jsonl
expect_err_has 'orders/partition=0.jsonl:1:1: the record has no topic'

t 'a topic, a partition or a key that is given counts more than the record'
fresh
evbus topic-create -q two --partitions 8 >/dev/null
record ',"partition_key":"21"' >one
expect_status 0 evbus publish --records -t two one --format '{topic} {partition_id} {partition_key}\n'
expect_out 'two 0 21'
expect_status 0 evbus publish --records -t two -p 3 one --format '{topic} {partition_id} {partition_key}\n'
expect_out 'two 3 21'
expect_status 0 evbus publish --records -t two --key foobar one --format '{topic} {partition_id} {partition_key}\n'
expect_out 'two 6 foobar'
expect_status 0 evbus publish --records -t two --key-from /n one --format '{topic} {partition_key}\n'
expect_out 'two 1'

t 'a key that is null is none'
record ',"partition_key":null' | expect_status 0 evbus publish --records --format stored
expect_out_has '"partition_key":null,"payload":{"n":1}}'

t 'where a record came from is kept'
record ',"partition_key":null,"origin":"crm.lead/3/42","returns":2' | expect_status 0 evbus publish --records --format stored
expect_out_has '"partition_key":null,"origin":"crm.lead/3/42","returns":2,"payload":{"n":1}}'
record ',"origin":null,"returns":null,"batch":"1-2","new":[1]' | expect_status 0 evbus publish --records --format stored
expect_out_like '*"partition_key":null,"payload":{"n":1}}'

t 'files take no bytes that are no JSON object'
fresh
raw='{"topic":"orders","payload":null,"payload_base64":"/wA="}'
expect_status 65 evbus publish --records <<<"$raw"
expect_err_has "stdin:1:1: the event is not one JSON object (it has payload_base64), and a bus of the backend 'file' takes no other"
expect_status 65 evbus publish --records <<<"${raw/\"\/wA=\"/null}"
expect_err_has 'stdin:1:29: the event is not one JSON object: expected {'
expect_status 0 evbus publish --records <<<"${raw/null/{\}}"
expect_out_has '"offset":"0"'

t 'members may stand in any order, with blanks, escapes and a payload between them'
printf '{ "payload" : {"n": 1.10 } ,"p\\u0061rtition_key":"k", "topic": "ord\\u0065rs" , "x":"%05000d" }\n' 0 |
	expect_status 0 evbus publish --records --format '{topic} {partition_key} {payload}\n'
expect_out 'orders k {"n": 1.10 }'

t 'a line without a payload is refused: receipts are no records'
echo '{"n":1}' | evbus publish -t orders >receipt
expect_status 65 evbus publish --records receipt
expect_out ''
expect_err_has 'receipt:1:1: the record has no payload'

t 'a payload that is no event is refused at its place'
for payload in '"text"' '[1]' 1; do
	printf ' {"topic":"orders","payload":%s,"payload_base64":"AA=="}\n' "$payload" | expect_status 65 evbus publish --records
	expect_err_has 'stdin:1:30: the event is not one JSON object: expected {'
done
printf '{"topic":"orders","payload":{"a":1}}\n  {"topic":"orders","payload":{"a":tru}}\n' | expect_status 65 evbus publish --records
expect_lines 1
expect_err_has 'stdin:2:39: the record is not one JSON object: expected true, false or null'

t 'members that are not what they should be are refused at their place'
while read -r column members; do
	printf '{"payload":{},%s}\n' "$members" | expect_status 65 evbus publish --records
	expect_out ''
	expect_err_has "stdin:1:$column: "
done <<'LINES'
23 "topic":"a b"
23 "topic":".."
23 "topic":7
23 "topic":"a\u0000b"
1 "topic":"a","topic":"b"
1 "topic":"a","payload":{}
47 "topic":"orders","partition_id":-1
47 "topic":"orders","partition_id":1024
47 "topic":"orders","partition_id":"0"
48 "topic":"orders","partition_key":1
41 "topic":"orders","origin":"x"
41 "topic":"orders","origin":"x/1"
41 "topic":"orders","origin":"x/y/1"
41 "topic":"orders","origin":"x/1/"
41 "topic":"orders","origin":"x/1/1\n"
41 "topic":"orders","origin":"a b/1/1"
42 "topic":"orders","returns":-1
42 "topic":"orders","returns":4294967296
LINES

t 'a record with a key too long is refused'
record ",\"partition_key\":\"$(printf '%01025d' 0)\"" | expect_status 65 evbus publish --records
expect_err_has "the record's 'partition_key' is not null or a string of at most 1024 bytes"

t 'what is no JSON at all is refused at its place'
printf '{"topic":"orders","payload":{}} x\n' | expect_status 65 evbus publish --records
expect_err_has 'stdin:1:32: the record is not one JSON object: more than one object'
echo nonsense | expect_status 65 evbus publish --records
expect_err_has 'stdin:1:1: the record is not one JSON object: expected {'

t 'bad records are skipped and kept like bad lines'
fresh
{ record && cat "$DATA/bad.jsonl" && record; } >mixed
expect_status 1 evbus publish --records --on-error skip --rejects rejects mixed
expect_lines 2
expect_same rejects "$DATA/bad.jsonl"

t 'a partition that is not there is said with its line, and what came before it has its receipt'
{ record && sed 's/"partition_id":0/"partition_id":1/' < <(record); } | expect_status 66 evbus publish --records
expect_lines 1
expect_err_has "stdin:2: topic 'orders' has no partition 1"

t 'the largest payload makes a record, too'
fresh
head -c 1048568 /dev/zero | tr '\0' x | sed 's/.*/{"s":"&"}/' >large
echo >>large
expect_status 0 evbus publish -q -t orders -k "$(printf '%01024d' 0)" large
as_printed orders 0 | expect_status 0 evbus publish -q --records -t copy
expect_true 'it is the same' cmp <(what_stays copy 0) <(what_stays orders 0)

# ---- over several lines ------------------------------------------------------------------------------------------

t 'newlines outside strings become blanks, and nothing else changes'
fresh
printf '\n{\n  "id": "1\\n",\r\n\t"list": [\n1,\n\n2 ] }\n\n\n{"id":"2"}{"id":"3"} {\n}' |
	expect_status 0 evbus publish -t orders --multiline --format payload
printf '{   "id": "1\\n",\r \t"list": [ 1,  2 ] }\n{"id":"2"}\n{"id":"3"}\n{ }\n' >wanted
expect_same "$OUT" wanted

t 'events on one line are the same with it: brackets and braces in strings do not count'
expect_status 0 evbus publish -t orders --multiline --format payload "$DATA/awkward.jsonl" "$DATA/events.jsonl"
expect_same "$OUT" <(cat "$DATA/awkward.jsonl" "$DATA/events.jsonl")
dd if="$DATA/events.jsonl" bs=101 status=none | expect_status 0 evbus publish -t orders --multiline --format payload
expect_same "$OUT" "$DATA/events.jsonl"

t 'an event is acknowledged when its last brace is there'
rm -f pipe && mkfifo pipe
evbus publish -t alone --multiline <pipe >receipts 2>err &
exec 3>pipe
printf '{\n"id":\n"1"}' >&3
wait_for 10 grep -q '"offset":"0"' receipts
exec 3>&-
expect_status 0 wait $!

t 'a newline in a string is refused where it stands'
fresh
printf '{"id":"1"}\n{\n  "id": "2\n3"\n}\n' | expect_status 65 evbus publish -t orders --multiline
expect_lines 1
expect_err_has 'stdin:3:11: the event is not one JSON object: a newline in a string'

t 'what the library refuses is told by line and column in the file'
printf '  {\n "a": 1,\n  "b": tru\n}\n' | expect_status 65 evbus publish -t orders --multiline
expect_err_has 'stdin:3:11: the event is not one JSON object: expected true, false or null'
printf '{"a":1}  {"b":nul}\n' | expect_status 65 evbus publish -t orders --multiline
expect_err_has 'stdin:1:18: '

t 'what has no end, no beginning or the wrong bracket is refused'
while IFS=$'\t' read -r place text; do
	printf %b "$text" | expect_status 65 evbus publish -q -t orders --multiline
	expect_err_has "stdin:$place: "
done <<'LINES'
2:8	{\n "a": 1\n\n
1:8	{"a":[1}\n
1:7	{"a":1]\n
2:3	{}\n  [1]
1:1	"text"
1:8	{"a":1}}
LINES
printf '{"a":%s' "$(printf '[%.0s' {1..200})" | expect_status 65 evbus publish -q -t orders --multiline
expect_err_has 'stdin:1:133: the event is not one JSON object: nested too deep'

t 'after a refused event the next one is found: behind its brace, or where a line begins with one'
fresh
printf '{"n":1}{"n":\ntru} {"n":2}\n{"n":"3\n4"}\n {"n":"lost"}\n{"n":5}\nnonsense {"n":"lost"}\n\n{\n"n":6}\n{"n":' >mixed
expect_status 1 evbus publish -t orders --multiline --on-error skip --rejects rejects --format payload mixed
expect_out $'{"n":1}\n{"n":2}\n{"n":5}\n{ "n":6}'
expect_same rejects <(printf '{"n":\ntru}\n{"n":"3\n4"}\n {"n":"lost"}\nnonsense {"n":"lost"}\n\n{"n":\n')
expect_err_has 'mixed:2:4: '
expect_err_has 'mixed:3:8: '
expect_err_has 'mixed:7:1: '
expect_err_has 'mixed:11:6: '
expect_err_has '4 of 8 events were refused'

t 'an event too long is passed over'
fresh
{ echo '{"n":1}' && printf '{\n"s":"' && head -c 5000000 /dev/zero | tr '\0' x && printf '"\n}\n{"n":3}\n'; } >long
expect_status 1 evbus publish -t orders --multiline --on-error skip --format payload long
expect_out $'{"n":1}\n{"n":3}'
expect_err_has 'long:2:1: the event has more than 1114112 bytes'

t 'records may go over several lines, too'
printf '{\n"topic":"orders",\n"payload":{\n"n":1}\n}\n{"topic":"orders",\n"payload":\n{"n":tru}}' | expect_status 65 evbus publish --records --multiline --format payload
expect_out '{ "n":1}'
expect_err_has 'stdin:8:9: '

t 'samples survive being laid out over lines'
fresh
sed 's/":"/":\n"/g; s/^{/{\n/' "$DATA/events.jsonl" >laid_out
expect_status 0 evbus publish -t orders --multiline --format payload laid_out
expect_same "$OUT" <(sed 's/":"/": "/g; s/^{/{ /' "$DATA/events.jsonl")
expect_equal "$(records orders)" "$(wc -l <"$DATA/events.jsonl")"

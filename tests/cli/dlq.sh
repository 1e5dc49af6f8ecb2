#!/usr/bin/env bash
# dlq-list, dlq-show, dlq-discard.
. "${0%/*}/lib.sh"
plan 22

# letters LINE...: puts a letter for each JSON object into the store.
letters() {
	printf '%s\n' "$@" | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/make_letters" event_bus
}
# ids [OPTIONS...]: of what is listed
ids() {
	evbus dlq-list --format tsv "$@" | cut -f 1 | paste -sd ' '
}
states() {
	evbus dlq-list --state all --format tsv | cut -f 1,2 | tr '\t' ' ' | paste -sd ' '
}
bus() {
	fresh
	echo '{"id":"1"}' | evbus publish -q -t orders
}

# ---- dlq-list ----------------------------------------------------------------------------------------------------

t 'a table tells what an operator has to know, on one line a letter'
bus
letters '{"group":"billing","event_id":"e0","event_type":"order.made","attempts":"6","age":"7300","error":"Traceback\n  File\nKeyError: amount\n"}' \
	'{"group":"mail","event_id":"e1","topic":"crm.lead","partition_id":"3","offset":"99","reason":"timeout","age":"200000","error":""}'
expect_status 0 evbus dlq-list
expect_out 'ID  STATE  GROUP    TOPIC     POSITION  EVENT_ID  TYPE        REASON   ATTEMPTS  AGE  ERROR
1   DEAD   billing  orders         0/0  e0        order.made  retries         6   2h  KeyError: amount
2   DEAD   mail     crm.lead      3/99  e1        -           timeout         1   2d  '
expect_err ''

t 'json has all that is known of a letter'
expect_status 0 evbus dlq-list --id 1 --format json
expect_out_like '{"id":"1","state":"DEAD","source":"store","group":"billing","tenant_id":null,"topic":"orders","partition_id":0,"offset":"0","offset_kind":"file_line","published_at_utc":"20*Z","partition_key":null,"event_id":"e0","event_type":"order.made","correlation_id":null,"reason":"retries","error":"Traceback\\n  File\\nKeyError: amount\\n","attempts":6,"returns":0,"created_at_utc":"20*Z","updated_at_utc":"20*Z","resolved_by":null,"result":null,"history":\[{"attempt":6,"at":"20*Z","reason":"retries","error":"*amount\\n"}\]}'
expect_status 0 evbus dlq-list --id 1 --format tsv
expect_out_like $'1\tDEAD\tstore\tbilling\t\\\\N\torders\t0\t0\tfile_line\t20*Z\t\\\\N\te0\torder.made\t\\\\N\tretries\tTraceback\\\\n  File\\\\nKeyError: amount\\\\n\t6\t0\t20*'

t 'a payload is told byte for byte, or in base64 where it is not one JSON object'
bus
letters '{"payload":"{\"id\": 1.10,\"id\":\"\\u0041\", \"n\":12345678901234567890123}"}' '{"payload":"[1]"}' '{"payload":""}' \
	'{"payload":"a\u0000b"}' '{"payload":"{\"a\":\n1}"}'
expect_status 0 evbus dlq-list --payload --format json
expect_equal "$(sed 's/.*,"payload":/"payload":/' "$OUT")" '"payload":{"id": 1.10,"id":"\u0041", "n":12345678901234567890123},"payload_base64":null}
"payload":null,"payload_base64":"WzFd"}
"payload":null,"payload_base64":""}
"payload":null,"payload_base64":"YQBi"}
"payload":{"a": 1},"payload_base64":null}' 'the payloads'
expect_status 0 evbus dlq-list --payload --id 5 --format tsv
expect_out_has $'\t{"a":\\n1}\t\\N'
expect_status 0 evbus dlq-list --format json
expect_equal "$(grep -c payload "$OUT")" 0 'lines with a payload that was not asked for'

t 'each filter chooses'
bus
letters '{"group":"a","topic":"crm.lead.won","event_type":"lead.won","tenant_id":"A","reason":"refused"}' \
	'{"group":"b","topic":"crm.lead","event_type":"lead.lost","tenant_id":"B","reason":"timeout","age":"90000"}' \
	'{"group":"b","topic":"orders","event_type":null,"tenant_id":null,"reason":"retries","age":"3700"}'
expect_equal "$(ids)" '1 2 3'
expect_equal "$(ids -t 'crm.>')" '1 2' "-t 'crm.>'"
expect_equal "$(ids -t 'crm.*')" '2' "-t 'crm.*'"
expect_equal "$(ids -g b)" '2 3' '-g'
expect_equal "$(ids --type 'lead.*')" '1 2' '--type'
expect_equal "$(ids --tenant A)" '1' '--tenant'
expect_equal "$(ids --reason timeout)" '2' '--reason'
expect_equal "$(ids --older-than 1h)" '2 3' '--older-than'
expect_equal "$(ids --newer-than 1d)" '1 3' '--newer-than'
expect_equal "$(ids --older-than 1h --newer-than 1d)" '3' 'both'
expect_equal "$(ids --id 3 --id 1 --id 3)" '1 3' '--id'
expect_equal "$(ids --id 3 -g a)" '' '--id and -g'
expect_equal "$(ids --max 2)" '1 2' '--max'
expect_equal "$(ids --max 0)" '' '--max 0'
expect_equal "$(ids --source store)" '1 2 3' '--source'
expect_status 0 evbus dlq-list -t nothing
expect_lines 1
expect_status 66 evbus dlq-list --id 1 --id 99
expect_err_has "'99'"
expect_out ''
expect_status 66 evbus dlq-list --source app.db
expect_err_has "'app.db'"
for options in '--reason slow' '-t a..b' '--id x' '--id 1x' '--id :1' '--state old' '--by id' '--older-than yesterday' '--format payload' \
	'--by reason --payload' 'x'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus dlq-list $options
done

t 'those that need a decision are listed, dead ones first, unless others are asked for'
bus
letters '{}' '{}' '{}' '{}' '{}'
evbus dlq-retry -q 1 4 >/dev/null
evbus dlq-discard -q 2 >/dev/null
evbus dlq-retry -q 3 -- true >/dev/null
expect_equal "$(ids)" '5 1 4'
expect_equal "$(ids --state dead)/$(ids --state queued)/$(ids --state retried)/$(ids --state discarded)" '5/1 4/3/2' 'by state'
expect_equal "$(ids --state all)" '1 2 3 4 5' 'all'
expect_equal "$(ids --id 3 --id 2)" '2 3' 'those that are named'
expect_equal "$(ids --max 2)" '5 1' '--max over both'

t '--by counts, the most frequent first'
bus
letters '{"reason":"timeout","event_type":"b"}' '{"event_type":"b\tc"}' '{"event_type":null,"tenant_id":"A"}' '{"reason":"timeout"}' '{"reason":"timeout","group":"x"}'
expect_status 0 evbus dlq-list --by reason
expect_out 'REASON   COUNT
timeout      3
retries      2
total        5'
expect_status 0 evbus dlq-list --by type --format json
expect_out '{"type":null,"count":3}
{"type":"b","count":1}
{"type":"b\tc","count":1}'
expect_status 0 evbus dlq-list --by topic --format tsv
expect_out $'orders\t5'
expect_status 0 evbus dlq-list --by group --reason retries --format tsv
expect_out $'g\t2'
expect_status 0 evbus dlq-list --by tenant --format tsv
expect_out $'\\N\t4\nA\t1'
expect_status 0 evbus dlq-list --by tenant --max 3 --format tsv
expect_out $'\\N\t2\nA\t1'

t 'too many different ones are refused, and told so'
bus
not_on_postgres 'a hundred thousand letters, one by one, take minutes over a server'
[ -n "$tests_database" ] || seq 100001 | sed 's/.*/{"event_type":"t&"}/' | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/make_letters" event_bus
expect_status 64 evbus dlq-list --by type
expect_err_has 100000
expect_status 0 evbus dlq-list --by reason --format tsv
expect_out $'retries\t100001'

t 'a long table is printed in parts, a reader that has had enough is no failure'
not_on_postgres 'it is about those hundred thousand'
expect_status 0 evbus dlq-list
expect_lines 100002
expect_equal "$(head -n 1 "$OUT" | cut -c 1-10)$(tail -n 1 "$OUT" | cut -c 1-12)" 'ID    STAT100001  DEAD' 'the first and the last line'
expect_status 0 bash -c 'set -o pipefail; evbus dlq-list | head -n 2'
expect_lines 2

t 'no letter, no bus'
needs_sqlite
bus
expect_status 0 evbus dlq-list --format json
expect_out ''
expect_status 0 evbus dlq-list --by reason
expect_out 'REASON  COUNT
total       0'
expect_status 66 evbus dlq-list -b nowhere
expect_true 'no bus was made' test ! -e nowhere

t 'what stands in the fields is data: SQL, control characters, bytes that are no text'
bus
letters '{"event_id":"x'\''; DROP TABLE dlq; --","event_type":"\u001b[2J\u0007","error":"one\u001b[31m\ntwo\tthree","tenant_id":"%_\" OR 1=1"}'
expect_equal "$(ids --tenant '%_" OR 1=1')" 1 'the tenant'
expect_equal "$(ids --tenant "' OR ''='")" '' 'another tenant'
expect_status 0 evbus dlq-list
expect_equal "$(grep -c $'[\001-\010\013-\037]' "$OUT")" 0 'lines with control characters'
expect_out_has '\u001b[2J\u0007'
expect_lines 2
expect_status 0 evbus dlq-list --format json
expect_out_has '"event_type":"\u001b[2J\u0007"'
expect_out_has "x'; DROP TABLE dlq; --"
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
	for options in 'list --format json' 'list --format tsv' 'list' 'show 1' 'show 1 --format json'; do
		expect_status 0 script -qec "evbus dlq-$options" /dev/null </dev/null
		expect_equal "$(tr -d '\r' <"$OUT" | grep -c $'[\001-\010\013-\037]')" 0 "lines with control characters: $options"
	done
fi

# ---- dlq-show ----------------------------------------------------------------------------------------------------

t 'show prints every attempt, and the payload last'
bus
letters '{"group":"billing","tenant_id":"A","partition_key":"m 1","event_id":"e0","event_type":"order.made","correlation_id":"c","payload":"{\"id\":\"1\"}","error":"no such customer","attempts":"2","reason":"timeout","history":"[{\"attempt\":1,\"at\":\"2026-01-01T00:00:00.000000Z\",\"reason\":\"retries\",\"error\":\"line 1\\npayload:\"},{\"attempt\":2,\"at\":\"2026-01-01T00:00:01.000000Z\",\"reason\":\"timeout\",\"error\":\"no such\"}]"}'
expect_status 0 evbus dlq-show 1
expect_out_like 'id                1
state             DEAD
source            store
group             billing
tenant_id         A
topic             orders
partition_id      0
offset            0
offset_kind       file_line
published_at_utc  20*Z
partition_key     m 1
event_id          e0
event_type        order.made
correlation_id    c
reason            timeout
attempts          2
returns           0
created_at_utc    20*Z
updated_at_utc    20*Z
attempt           1 at 2026-01-01T00:00:00.000000Z retries
                  line 1
                  payload:
attempt           2 at 2026-01-01T00:00:01.000000Z timeout
                  no such customer
payload:
{"id":"1"}'
expect_status 0 evbus dlq-show 1 --format json
expect_out_like '{"id":"1",*"history":\[{"attempt":1,*},{"attempt":2,*}\],"payload":{"id":"1"},"payload_base64":null}'

t 'what was resolved says by whom, when and how'
evbus dlq-retry -q 1 -- true >/dev/null
expect_status 0 evbus dlq-show 1
expect_out_has 'state             RETRIED'
expect_out_has "resolved_by       $(id -un)@$(uname -n)"
expect_out_has "result            'true' ended with status 0"

t 'the payload alone is byte for byte, and can be published again'
bus
letters '{"payload":"{\"id\": 1.10}"}' '{"payload":"a\u0000b\n\u001b"}'
expect_status 0 evbus dlq-show 1 --format payload
expect_out '{"id": 1.10}'
evbus dlq-show 1 --format payload | evbus publish -q -t again
expect_status 0 evbus replay -t again --format payload
expect_out '{"id": 1.10}'
expect_status 0 evbus dlq-show 2 --format payload
printf 'a\0b\n\033\n' >wanted
expect_same "$OUT" wanted
expect_status 0 evbus dlq-show 1 2
expect_equal "$(grep -c '^payload:' "$OUT")" 2 'payloads'

t 'a field that spans lines cannot look like another one'
bus
letters '{"event_id":"e\nstate             RETRIED\npayload:\n{}","error":"why"}'
expect_status 0 evbus dlq-show 1
expect_equal "$(grep -c '^state ' "$OUT")$(grep -c '^payload:' "$OUT")" 11 'states and payloads'
expect_out_has 'e\u000astate'
expect_out_has '                  why'

t 'an id that is not there, or of another tenant'
bus
letters '{}' '{"tenant_id":"A"}' '{"tenant_id":"B"}'
for options in 17 'app.db:1' '--tenant A 3' '--tenant A 2 3' '1 2 3 4'; do
	# shellcheck disable=SC2086 # several words
	expect_status 66 evbus dlq-show $options
done
expect_status 0 evbus dlq-show --tenant B 3
for options in '' 'x' '1 --format tsv' '0' '-- -1'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus dlq-show $options
done

# ---- dlq-discard -------------------------------------------------------------------------------------------------

t 'discarded letters are kept, and can be taken back'
bus
letters '{"event_id":"e0"}' '{"event_id":"e1"}' '{"event_id":"e2"}'
expect_status 0 evbus dlq-discard 1 --id 3
expect_out 'ID  BEFORE  AFTER      GROUP  TOPIC   PARTITION_ID  OFFSET  EVENT_ID  RETURNS  RESULT
1   DEAD    DISCARDED  g      orders             0       0  e0              0  -
3   DEAD    DISCARDED  g      orders             0       2  e2              0  -'
expect_err ''
expect_equal "$(states)" '1 DISCARDED 2 DEAD 3 DISCARDED'
expect_status 0 evbus dlq-show 1
expect_out_has "resolved_by       $(id -un)@"
expect_status 0 evbus dlq-discard --undo 1 --format tsv
expect_out $'1\tDISCARDED\tDEAD\tg\torders\t0\t0\te0\t0\t\\N'
expect_equal "$(states)" '1 DEAD 2 DEAD 3 DISCARDED'
expect_status 0 evbus dlq-discard --undo --all --format json
expect_out '{"id":"3","before":"DISCARDED","after":"DEAD","group":"g","topic":"orders","partition_id":0,"offset":"2","event_id":"e2","returns":0,"result":null}'

t 'a dry run changes nothing and prints the same'
expect_status 0 evbus dlq-discard -g g --dry-run --format tsv
expect_err_has 'dry run'
cp "$OUT" dry
expect_equal "$(states)" '1 DEAD 2 DEAD 3 DEAD'
expect_status 0 evbus dlq-discard -g g --format tsv
expect_same "$OUT" dry
expect_equal "$(states)" '1 DISCARDED 2 DISCARDED 3 DISCARDED'

t 'several without a word which are refused, and counted'
bus
letters '{}' '{}'
expect_status 64 evbus dlq-discard
expect_err_has 'there are 2 letters'
expect_equal "$(states)" '1 DEAD 2 DEAD'
evbus dlq-discard -q 1 >/dev/null
expect_status 0 evbus dlq-discard
expect_equal "$(states)" '1 DISCARDED 2 DISCARDED' 'one is clear'
expect_status 0 evbus dlq-discard
expect_lines 1

t 'what is queued can be discarded and taken back; what was retried is left alone'
bus
letters '{}' '{}' '{}' '{}'
evbus dlq-retry -q 1 2 >/dev/null
evbus dlq-retry -q 4 -- true >/dev/null
expect_status 0 evbus dlq-discard --undo 1 --format tsv
expect_equal "$(cut -f 2,3 "$OUT")" $'QUEUED\tDEAD'
expect_status 1 evbus dlq-discard 2 3 4 --format tsv
expect_err_has "'4' is left alone"
expect_equal "$(cut -f 1-3 "$OUT")" $'2\tQUEUED\tDISCARDED\n3\tDEAD\tDISCARDED\n4\tRETRIED\tRETRIED'
expect_equal "$(states)" '1 DEAD 2 DISCARDED 3 DISCARDED 4 RETRIED'
expect_status 0 evbus dlq-discard 2 --format tsv
expect_equal "$(cut -f 2,3 "$OUT")" $'DISCARDED\tDISCARDED' 'what is done already is no failure'

t 'an id far too long in a file, or one with a NUL, is none'
bus
letters '{}'
{ printf '{"id":"' && head -c 3000000 /dev/zero | tr '\0' 1 && echo '"}'; } | expect_status 65 evbus dlq-discard --ids-from -
printf '1\0\n' | expect_status 65 evbus dlq-discard --ids-from -
printf '99999999999999999999\n' | expect_status 65 evbus dlq-discard --ids-from -
expect_err_has "line 1: there is no id of a letter"
expect_equal "$(states)" '1 DEAD'

t 'nothing of another tenant is shown or changed'
bus
letters '{"tenant_id":"A"}' '{"tenant_id":"B"}' '{"tenant_id":null}'
expect_status 0 evbus dlq-discard --tenant A --all --format tsv
expect_lines 1
expect_equal "$(states)" '1 DISCARDED 2 DEAD 3 DEAD'
expect_status 1 evbus dlq-discard --tenant A 2 3
expect_err_has '2 of 2 ids'
expect_status 1 evbus dlq-retry --tenant A 2 3
expect_status 1 evbus dlq-retry --tenant A 2 3 -- true
expect_equal "$(states)" '1 DISCARDED 2 DEAD 3 DEAD'

t 'usage'
for options in '--all x' '--id x' '--ids-from' '-t a..b --all'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus dlq-discard $options
done

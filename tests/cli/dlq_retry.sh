#!/usr/bin/env bash
# dlq-retry: by the group, by a command, by publishing once more; what was reviewed is what is done.
. "${0%/*}/lib.sh"
plan 29

make_letters=${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/make_letters
# letters LINE...: puts a letter for each JSON object into the store.
letters() {
	printf '%s\n' "$@" | "$make_letters" event_bus
}
# numbered FIRST LAST: with ids of events to match
numbered() {
	seq "$1" "$2" | sed 's/.*/{"offset":"&","event_id":"e&","payload":"{\\"id\\":\\"e&\\"}"}/' | "$make_letters" event_bus
}
states() {
	evbus dlq-list --state all --format tsv | cut -f 1,2 | tr '\t' ' ' | paste -sd ' '
}
# member ID NAME: of a letter, as JSON
member() {
	evbus dlq-show "$1" --format json | sed "s/.*\"$2\":\(\"[^\"]*\"\|[^,}]*\)[,}].*/\1/"
}
bus() {
	fresh
	seq 0 9 | sed 's/.*/{"id":"e&"}/' | evbus publish -q -t orders
}

# ---- by its group ------------------------------------------------------------------------------------------------

t 'without a command letters are queued'
bus
numbered 0 1
expect_status 0 evbus dlq-retry 1
expect_out 'ID  BEFORE  AFTER   GROUP  TOPIC   PARTITION_ID  OFFSET  EVENT_ID  RETURNS  RESULT
1   DEAD    QUEUED  g      orders             0       0  e0              0  -'
expect_err_has '1 queued'
expect_equal "$(states)" '1 QUEUED 2 DEAD'
expect_status 0 evbus dlq-retry -q 1 2 --format json
expect_out '{"id":"1","before":"QUEUED","after":"QUEUED","group":"g","topic":"orders","partition_id":0,"offset":"0","event_id":"e0","returns":0,"result":null}
{"id":"2","before":"DEAD","after":"QUEUED","group":"g","topic":"orders","partition_id":0,"offset":"1","event_id":"e1","returns":0,"result":null}'
expect_err ''

t 'several without a word which are refused, and counted; one is clear; none is nothing to do'
bus
numbered 0 2
expect_status 64 evbus dlq-retry
expect_err_has 'there are 3 letters'
expect_status 64 evbus dlq-retry -- true
expect_status 64 evbus dlq-retry --republish --max 1
expect_equal "$(states)" '1 DEAD 2 DEAD 3 DEAD'
expect_status 0 evbus dlq-retry -q --all --max 2
expect_equal "$(states)" '1 QUEUED 2 QUEUED 3 DEAD'
expect_status 0 evbus dlq-retry -q
expect_status 0 evbus dlq-retry
expect_lines 1
expect_err ''

# ---- by a command ------------------------------------------------------------------------------------------------

t 'a command gets the event and what is known of it, oldest first'
bus
letters '{"group":"billing","offset":"7","partition_key":"m\"1","tenant_id":"A","attempts":"6","payload":"{\"id\":\"e7\",\"type\":\"x\"}"}' '{"group":"mail","offset":"3"}'
# shellcheck disable=SC2016 # for the command
expect_status 0 evbus dlq-retry -q --all --format tsv -- sh -c 'echo "$EVENT_GROUP $EVENT_TOPIC/$EVENT_PARTITION_ID/$EVENT_OFFSET $EVENT_OFFSET_KIND $EVENT_ID $EVENT_TYPE $EVENT_TENANT_ID $EVENT_PARTITION_KEY $EVENT_ATTEMPT $(cat)" >>got'
expect_equal "$(cat got)" 'billing orders/0/7 file_line e7 x A m"1 7 {"id":"e7","type":"x"}
mail orders/0/3 file_line     2 {}' 'what it got'
expect_out $'1\tDEAD\tRETRIED\tbilling\torders\t0\t7\t\\N\t0\t\'sh\' ended with status 0
2\tDEAD\tRETRIED\tmail\torders\t0\t3\t\\N\t0\t\'sh\' ended with status 0'
expect_equal "$(states)" '1 RETRIED 2 RETRIED'
expect_status 0 evbus dlq-retry -q 1 2 --format tsv -- false
expect_equal "$(cut -f 2,3 "$OUT")" $'RETRIED\tRETRIED\nRETRIED\tRETRIED' 'what is done already is no failure'

t 'a failure is one more attempt on the same letter, and status 1'
bus
numbered 0 1
expect_status 1 evbus dlq-retry -q --all --format tsv -- sh -c 'grep -q e0 || { echo no such customer >&2; exit 3; }'
expect_equal "$(cut -f 1,3,9,10 "$OUT")" $'1\tRETRIED\t0\t\'sh\' ended with status 0\n2\tDEAD\t1\t\'sh\' ended with status 3: no such customer'
expect_equal "$(states)" '1 RETRIED 2 DEAD'
expect_equal "$(member 2 attempts) $(member 2 returns) $(member 2 reason) $(member 2 error)" '2 1 "retries" "no such customer"'
expect_status 0 evbus dlq-show 2
expect_equal "$(grep -c '^attempt  ' "$OUT")" 2 'attempts'

t 'how it failed is its reason'
bus
numbered 0 2
expect_status 1 evbus dlq-retry -q 1 -- sh -c 'exit 65'
expect_status 1 evbus dlq-retry -q 2 -- sh -c 'kill -9 $$'
expect_status 1 evbus dlq-retry -q 3 --handler-timeout 100ms -- sleep 5
expect_equal "$(member 1 reason) $(member 2 reason) $(member 3 reason)" '"refused" "signal" "timeout"'

t 'a wrong command stops at once with 78, and nothing is counted'
bus
numbered 0 2
for status in 64 78 126 127; do
	expect_status 78 evbus dlq-retry -q --all --format tsv -- sh -c "echo x >>ran; exit $status"
	expect_err_has "status $status"
done
expect_equal "$(wc -l <ran)" 4 'runs'
expect_status 78 evbus dlq-retry -q --all -- ./nothing
expect_status 78 evbus dlq-retry -q --all -b nowhere -- evbus-no-such-command
expect_err_has evbus-no-such-command
expect_equal "$(states) $(member 1 attempts) $(member 1 returns)" '1 DEAD 2 DEAD 3 DEAD 1 0'

t 'nor is it where whoever read standard output is gone, with 74'
bus
numbered 0 2
mkfifo pipe
# shellcheck disable=SC2094 # a FIFO
exec 5<>pipe 6>pipe 5<&-
# shellcheck disable=SC2016 # for sh
expect_status 74 sh -c 'exec evbus dlq-retry -q --all -- cat >&6'
expect_err_has "letter '1': 'cat' died of signal 13 (Broken pipe) (whoever read stdout is gone)"
expect_equal "$(evbus dlq-list --state dead --format tsv | wc -l)" 3 'letters'
exec 6>&-

t 'letters that come meanwhile are not tried'
bus
numbered 0 2
expect_status 0 evbus dlq-retry -q --all --format tsv -- sh -c "n=\$(wc -l <ran 2>/dev/null); echo x >>ran; echo '{\"offset\":\"9\"}' | sed \"s/9/\${n:-0}9/\" | '$make_letters' event_bus"
expect_equal "$(wc -l <ran)" 3 'runs'
expect_equal "$(states)" '1 RETRIED 2 RETRIED 3 RETRIED 4 DEAD 5 DEAD 6 DEAD'

t 'a letter that was discarded meanwhile is not tried, and named'
bus
numbered 0 2
# shellcheck disable=SC2016 # for the command
expect_status 1 evbus dlq-retry -q --all --format tsv -- sh -c '[ $EVENT_OFFSET != 0 ] || evbus dlq-discard 2 >/dev/null; echo $EVENT_OFFSET >>ran'
expect_err_has "'2' is left alone: it was discarded"
expect_equal "$(paste -sd ' ' ran)" '0 2' 'runs'
expect_equal "$(cut -f 1-3 "$OUT")" $'1\tDEAD\tRETRIED\n2\tDEAD\tDISCARDED\n3\tDEAD\tRETRIED'

t 'letters that are not dead are left alone, and named'
bus
numbered 0 2
evbus dlq-discard -q 1 >/dev/null
evbus dlq-retry -q 2 >/dev/null
expect_status 1 evbus dlq-retry -q 1 2 3 --format tsv -- true
expect_err_has "'1' is left alone: it was discarded"
expect_err_has "'2' is left alone: it is queued"
expect_equal "$(states)" '1 DISCARDED 2 QUEUED 3 RETRIED'
expect_status 1 evbus dlq-retry -q 1 2
expect_equal "$(states)" '1 DISCARDED 2 QUEUED 3 RETRIED'

t '--max tries so many, --rate so many a second'
bus
numbered 0 5
expect_status 0 evbus dlq-retry -q --all --max 0 -- true
expect_lines 1
expect_status 0 evbus dlq-retry -q --all --max 2 -- true
expect_equal "$(states)" '1 RETRIED 2 RETRIED 3 DEAD 4 DEAD 5 DEAD 6 DEAD'
evbus dlq-retry -q --all -- true >/dev/null
numbered 6 14
from=$(date +%s%N)
expect_status 0 evbus dlq-retry -q --all --rate 20
took=$((($(date +%s%N) - from) / 1000000))
expect_true "9 letters at 20/s take 400 ms and not $took" test $took -ge 400

t 'a loop ends: what came back too often is left alone, counted and told'
bus
numbered 0 1
for _ in 1 2 3; do
	evbus dlq-retry -q --all --max-returns 2 -- false >/dev/null 2>&1
done
expect_equal "$(member 1 returns) $(member 2 returns)" '3 3'
expect_status 1 evbus dlq-retry --all --max-returns 2 --format tsv -- true
expect_err_has '2 came back more than 2 times'
expect_equal "$(cut -f 1-3,10 "$OUT")" $'1\tDEAD\tDEAD\tleft alone: it came back too often\n2\tDEAD\tDEAD\tleft alone: it came back too often'
numbered 2 2
expect_status 1 evbus dlq-retry -q --all --max-returns 2 --max 1 -- true
expect_equal "$(states)" '1 DEAD 2 DEAD 3 RETRIED' 'those left alone do not count for --max'
expect_status 0 evbus dlq-retry -q --all -- true

# ---- by publishing it once more ----------------------------------------------------------------------------------

t '--republish appends the payload once more, with its key, origin and returns'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
letters '{"partition_id":"2","offset":"41","partition_key":"m\"1","payload":"{\"id\": 1.10}","returns":"1"}' '{"partition_id":"1","offset":"7"}'
expect_status 0 evbus dlq-retry --all --republish --format tsv
expect_err_has '2 retried'
expect_out_like $'1\tDEAD\tRETRIED\tg\torders\t2\t41\t*\t1\t{"topic":"orders","partition_id":2,"offset_kind":"file_line","offset":"0","published_at_utc":"20*Z"}
2\tDEAD\tRETRIED\tg\torders\t1\t7\t*{"topic":"orders","partition_id":1,*}'
expect_status 0 evbus tail -t orders -p 2
expect_out_like '{"topic":"orders","partition_id":2,*"partition_key":"m\\"1","origin":"orders/2/41","returns":2,"payload":{"id": 1.10}}'
expect_equal "$(states)" '1 RETRIED 2 RETRIED'
expect_status 0 evbus dlq-show 2
expect_out_has 'result            {"topic":"orders","partition_id":1,'

t 'what the topic does not take is one more attempt, the others go on'
bus
letters '{"offset":"0","payload":"not JSON"}' '{"offset":"1"}' '{"topic":"gone","offset":"2"}' '{"offset":"3","partition_id":"9"}'
expect_status 1 evbus dlq-retry -q --all --republish --format tsv
expect_equal "$(cut -f 1-3,9 "$OUT")" $'1\tDEAD\tDEAD\t1\n2\tDEAD\tRETRIED\t0\n3\tDEAD\tDEAD\t1\n4\tDEAD\tDEAD\t1'
expect_equal "$(member 1 reason) $(member 1 attempts)" '"backend" 2'
expect_true 'no topic was made' test ! -e event_bus/gone

# ---- what was reviewed is what is done ---------------------------------------------------------------------------

for format in table json tsv; do
	t "a dry run as $format is taken back, and does exactly that, whatever came meanwhile"
	bus
	numbered 0 4
	expect_status 0 evbus dlq-retry --all --dry-run --format $format
	expect_err_has 'dry run'
	grep -v '"id":"3"\|^3' "$OUT" >plan
	expect_equal "$(states)" '1 DEAD 2 DEAD 3 DEAD 4 DEAD 5 DEAD'
	numbered 5 6
	expect_status 0 evbus dlq-retry -q --ids-from plan --format $format
	expect_same "$OUT" plan
	expect_equal "$(states)" '1 QUEUED 2 QUEUED 3 DEAD 4 QUEUED 5 QUEUED 6 DEAD 7 DEAD'
	evbus dlq-list --state queued --format $format >listed
	expect_status 0 evbus dlq-discard --ids-from listed
	expect_equal "$(states)" '1 DISCARDED 2 DISCARDED 3 DEAD 4 DISCARDED 5 DISCARDED 6 DEAD 7 DEAD' 'by dlq-list'
done

t 'a dry run with a command or --republish runs and publishes nothing'
bus
numbered 0 1
expect_status 0 evbus dlq-retry -q --all --dry-run --format tsv -- touch ran
expect_equal "$(cut -f 1-3 "$OUT")" $'1\tDEAD\tRETRIED\n2\tDEAD\tRETRIED'
expect_status 0 evbus dlq-retry -q --all --dry-run --republish
expect_true 'nothing ran' test ! -e ran
expect_equal "$(states) $(evbus replay -t orders --count)" '1 DEAD 2 DEAD 10'

t 'ids: one a line, from standard input, twice, with blanks; more than one way'
bus
numbered 0 5
printf ' 2 \r\n\n5\n2\n' | expect_status 0 evbus dlq-retry -q --ids-from - --id 1 4 --format tsv
expect_equal "$(cut -f 1 "$OUT" | paste -sd ' ')" '1 2 4 5'

t 'a line without an id is refused with its number, before anything is done'
bus
numbered 0 1
for line in x 1x '{"topic":"orders"}' '{"id":1}' '{"id":"1"' '{"id":"1",}' '{"id":"x"}' $'\t1' 'DEAD  1' ':1' '1 DEAD' '1 2' 'ID  BEFORE'; do
	printf '1\n%s\n' "$line" >plan
	expect_status 65 evbus dlq-retry --ids-from plan
	expect_err_has 'line 2'
done
expect_equal "$(states)" '1 DEAD 2 DEAD'
printf '1\n99\n' >plan
expect_status 66 evbus dlq-retry --ids-from plan
expect_err_has "'99'"
expect_equal "$(states)" '1 DEAD 2 DEAD'
expect_status 66 evbus dlq-retry --ids-from nothing
expect_status 74 evbus dlq-retry --ids-from .

t 'an empty file of ids is none of them, and not all'
: >empty
expect_status 0 evbus dlq-retry --ids-from empty
expect_err_has 'no ids'
expect_status 0 evbus dlq-discard --ids-from /dev/null --all
expect_status 0 evbus dlq-retry --ids-from empty -- touch ran
expect_equal "$(states)" '1 DEAD 2 DEAD'
expect_true 'nothing ran' test ! -e ran

t 'many ids'
bus
numbered 0 9999
expect_status 0 evbus dlq-retry --all --dry-run --format json
cp "$OUT" plan
expect_status 0 evbus dlq-discard --ids-from plan --dry-run --format tsv
expect_lines 10000

# ---- others, and ends --------------------------------------------------------------------------------------------

t 'nobody else tries letters of the same group meanwhile'
bus
letters '{"group":"a","offset":"1"}' '{"group":"b","offset":"2"}' '{"group":"a","offset":"3"}'
evbus dlq-retry -q -g a --max 1 -- sh -c 'touch runs; while [ ! -e go ]; do sleep 0.02; done' >/dev/null &
wait_for 5 test -e runs
expect_status 75 evbus dlq-retry -q -g a -- true
expect_status 75 evbus dlq-retry -q -g a --republish
expect_status 0 evbus dlq-retry -q -g b -- true
expect_status 0 evbus dlq-retry -q 3
touch go
wait $!
expect_equal "$(states)" '1 RETRIED 2 RETRIED 3 QUEUED'
expect_status 0 evbus dlq-retry -q -g a -- true

t 'after a kill it goes on where it was'
bus
numbered 0 5
# shellcheck disable=SC2016 # for the command
command='echo $EVENT_OFFSET >>ran; [ $EVENT_OFFSET != 3 ] || [ -e again ] || { touch again; kill -9 $PPID; sleep 1; }'
expect_status 137 bash -c 'evbus dlq-retry -q --all -- sh -c "$0"; exit $?' "$command"
expect_equal "$(states)" '1 RETRIED 2 RETRIED 3 RETRIED 4 DEAD 5 DEAD 6 DEAD'
expect_status 0 evbus dlq-retry -q --all -- sh -c "$command"
expect_equal "$(states)" '1 RETRIED 2 RETRIED 3 RETRIED 4 RETRIED 5 RETRIED 6 RETRIED'
expect_equal "$(paste -sd ' ' ran)" '0 1 2 3 3 4 5' 'runs'

t 'SIGTERM lets the command finish, records it, and ends'
bus
numbered 0 2
evbus dlq-retry -q --all --format tsv -- sh -c 'touch runs; while [ ! -e go ]; do sleep 0.02; done' >said &
pid=$!
wait_for 5 test -e runs
kill $pid
sleep 0.1
touch go
wait $pid
expect_equal $? 143 'status'
expect_equal "$(cut -f 1-3 said)" $'1\tDEAD\tRETRIED'
expect_equal "$(states)" '1 RETRIED 2 DEAD 3 DEAD'

t 'SIGTERM ends the wait between two, and the next is not tried'
bus
numbered 0 1
evbus dlq-retry -q --all --rate 1/m --format tsv -- touch ran >said &
pid=$!
wait_for 5 grep -q RETRIED said
kill $pid
wait $pid
expect_equal $? 143 'status'
expect_equal "$(states)" '1 RETRIED 2 DEAD'

t 'a letter that somebody else changes before it is queued is left alone, and named'
bus
numbered 0 1
evbus dlq-retry -q --all --rate 1 --format tsv >said 2>err &
pid=$!
wait_for 5 grep -q QUEUED said
expect_status 0 evbus dlq-discard 2
wait $pid
expect_equal $? 1 'status'
expect_true 'it is named' grep -q "'2' is left alone" err
expect_equal "$(cut -f 1-3 said)" $'1\tDEAD\tQUEUED\n2\tDEAD\tDEAD'
expect_equal "$(states)" '1 QUEUED 2 DISCARDED'

t 'a reader of the lines that goes away ends it with 74, and what was done is recorded'
bus
numbered 0 5
# shellcheck disable=SC2016 # for bash
expect_status 74 bash -c 'evbus dlq-retry -q --all --format json -- sh -c "echo x >>ran; sleep 0.05" | true; exit ${PIPESTATUS[0]}'
expect_equal "$(evbus dlq-list --state retried --format tsv | wc -l)" "$(wc -l <ran)" 'what ran and what is recorded'
expect_true 'it ended early' test "$(wc -l <ran)" -lt 6

t 'usage'
for options in '--all x' '--republish -- true' '--handler-timeout 1s --all' '--all --' '--rate 0 --all' '--max -1 --all' '--id x' 'x' \
	'--all --max-returns -1' 'app.db:1 --republish'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus dlq-retry $options
done
expect_status 66 evbus dlq-retry 99 -- true
expect_status 66 evbus dlq-retry app.db:1
expect_err_has --outbox

#!/usr/bin/env bash
# publish: what is refused, and what goes wrong.
. "${0%/*}/lib.sh"
plan 36

payloads() {
	sed -E 's/^\{"crc32c":.*,"payload"://; s/\}$//' event_bus/orders/partition=0.jsonl
}
records() {
	evbus topic-describe "${1:-orders}" --format tsv | awk '{ n += $5 } END { print n + 0 }'
}
# three: two good lines around a bad one.
three() {
	printf '{"n":1}\n \t{"n":tru}\r\n{"n":3}\n'
}

# ---- bad lines ---------------------------------------------------------------------------------------------------

t 'a bad line stops: what is before it is published and has its receipt'
three | expect_status 65 evbus publish -t orders
expect_lines 1
expect_out_has '"offset":"0"'
expect_err_like "*evbus publish: stdin:2:11: the event is not one JSON object: expected true, false or null"
expect_equal "$(payloads)" '{"n":1}'

t 'it is told with the name of its file; lines are counted in each, empty ones too'
fresh
printf '{"n":1}\n' >good
printf '\n\n{"n":1}\n{"n":2]\n' >bad
expect_status 65 evbus publish -t orders good bad
expect_lines 2
expect_err_has 'evbus publish: bad:4:7: '

t 'a bad line that comes alone is told at once'
fresh
mkfifo pipe
evbus publish -t orders --on-error skip <pipe >receipts 2>err &
exec 3>pipe
echo '{"n":1' >&3
wait_for 10 grep -q 'stdin:1:7: .*unexpected end' err
echo '{"n":2}' >&3
wait_for 10 grep -q '"offset":"0"' receipts
exec 3>&-
expect_status 1 wait $!

t 'a bad line is skipped, counted, and kept as it stands'
fresh
three | expect_status 1 evbus publish -t orders --on-error skip --rejects rejects
expect_lines 2
expect_err_has 'evbus publish: stdin:2:11: '
expect_err_has 'evbus publish: 1 of 3 events were refused'
expect_equal "$(payloads)" $'{"n":1}\n{"n":3}'
expect_same rejects <(printf ' \t{"n":tru}\r\n')

t 'every bad line is refused, with its place, and none is published'
fresh
expect_status 1 evbus publish -t orders --on-error skip --rejects rejects "$DATA/bad.jsonl"
expect_out ''
expect_same rejects "$DATA/bad.jsonl"
sed -n "s|^evbus publish: .*/bad\.jsonl:\([0-9]*\):[0-9]*: .*|\1|p" "$ERR" >places
expect_same places <(seq "$(wc -l <"$DATA/bad.txt")")
expect_true 'nothing is published' test ! -s event_bus/orders/partition=0.jsonl

t 'each of them stops'
lines=$(wc -l <"$DATA/bad.txt")
for ((n = 1; n <= lines; n++)); do
	sed -n "${n}p" "$DATA/bad.jsonl" | evbus publish -q -t orders 2>/dev/null
	echo "$?"
done | sort | uniq -c | tr -s ' ' >"$OUT"
expect_out " $lines 65"

t 'good and bad lines in turn'
fresh
paste -d '\n' <(head -n 100 "$DATA/events.jsonl") <(head -n 100 "$DATA/bad.jsonl") >mixed
expect_status 1 evbus publish -t orders --on-error skip --rejects rejects --format payload mixed
expect_same "$OUT" <(head -n 100 "$DATA/events.jsonl")
expect_same rejects <(head -n 100 "$DATA/bad.jsonl")
expect_same <(payloads) <(head -n 100 "$DATA/events.jsonl")

t 'skipping without a bad line is a success'
fresh
echo '{}' | expect_status 0 evbus publish -q -t orders --on-error skip --rejects rejects
expect_err ''
expect_true 'the file is there' test -e rejects

t 'rejects are made for their owner alone, and appended to'
fresh
echo old >old
(umask 0 && echo nonsense | evbus publish -q -t orders --on-error skip --rejects new) 2>/dev/null
expect_equal "$(stat -c %a new)" 600
printf 'a\nb' | expect_status 1 evbus publish -q -t orders --on-error skip --rejects old
expect_same old <(printf 'old\na\nb\n')

t 'rejects that cannot be kept are a failure before anything is published'
fresh
mkdir dir
echo '{}' | expect_status 73 evbus publish -t orders --on-error skip --rejects dir
expect_err_has "'dir'"
expect_out ''
echo '{}' | expect_status 73 evbus publish -t orders --on-error skip --rejects none/rejects
expect_true 'there is no bus' test ! -e event_bus

t 'rejects on a full disk are a failure, and what was taken has its receipt'
if [ -c /dev/full ]; then
	three | expect_status 74 evbus publish -t orders --on-error skip --rejects /dev/full
	expect_lines 1
	expect_err_has "cannot write to '/dev/full'"
else
	skip 'no /dev/full here'
fi

t 'a line far too long is passed over, in bounded memory, and kept as it is'
fresh
{ printf '{"s":"' && head -c 5000000 /dev/zero | tr '\0' x && echo '"}'; } >long
{ echo '{"n":1}' && cat long && echo '{"n":3}' && printf '   ' && head -c 2000000 long; } >lines
expect_status 1 evbus publish -t orders --on-error skip --rejects rejects --format payload lines
expect_out $'{"n":1}\n{"n":3}'
expect_err_has 'lines:2:1: the line has more than 1114112 bytes'
expect_err_has 'lines:4:1: the line has more than 1114112 bytes'
{ cat long && printf '   ' && head -c 2000000 long && echo; } | expect_true 'they are kept' cmp - rejects
expect_status 65 evbus publish -q -t orders lines

t 'many blanks are an empty line or stand before an event, up to the length of a line'
fresh
head -c 1114000 /dev/zero | tr '\0' ' ' >blanks
{ cat blanks && echo && cat blanks && echo '{"n":1}'; } >lines
expect_status 0 evbus publish -t orders --format payload lines
expect_out '{"n":1}'
{ cat blanks && echo '{"n"}'; } | expect_status 65 evbus publish -t orders
expect_err_has 'stdin:1:1114005: '
{ cat blanks blanks && echo; } | expect_status 65 evbus publish -t orders
expect_err_has 'stdin:1:1: the line has more than 1114112 bytes'

t 'an event without the key that was asked for is refused'
fresh
printf '{"k":"a"}\n  {"x":1}\n' | expect_status 65 evbus publish -t orders --key-from /k
expect_lines 1
expect_err_has "stdin:2:3: the event has none of the members '/k'"
echo '{"k":"a","k":"b"}' | expect_status 65 evbus publish -t orders --key-from /k
expect_err_has 'stdin:1:1: '

t 'a key too long is refused: a usage error if it was given, else a bad event'
key=$(printf '%01025d' 0)
echo '{}' | expect_status 64 evbus publish -t orders --key "$key"
echo "{\"k\":\"$key\"}" | expect_status 65 evbus publish -t orders --key-from /k

# ---- atomic ------------------------------------------------------------------------------------------------------

t 'of an atomic batch with a bad line nothing is written'
fresh
echo '{"n":0}' | evbus publish -q -t orders
three | expect_status 65 evbus publish -t orders --atomic
expect_out ''
expect_err_has 'stdin:2:11: '
expect_equal "$(payloads)" '{"n":0}'

t 'of an atomic batch too large for one write nothing is written'
awk 'BEGIN { for (i = 0; i < 50000; i++) printf "{\"n\":%d}\n", i }' >many
expect_status 65 evbus publish -t orders --atomic many
expect_out ''
expect_err_has 'atomic batch'
expect_equal "$(records)" 1

t 'an atomic batch to several partitions is a usage error'
evbus topic-create -q two --partitions 8 >/dev/null
printf '{"k":"21"}\n{"k":"foobar"}\n' | expect_status 64 evbus publish -t two --atomic --key-from /k
expect_equal "$(records two)" 0

t 'a file that is not there leaves nothing of an atomic batch'
head -n 2 many >two
expect_status 66 evbus publish -t orders --atomic two none
expect_equal "$(records)" 1

# ---- files -------------------------------------------------------------------------------------------------------

t 'a file that is not there is said so, and what came before it has its receipts'
fresh
printf '{"n":1}\n' >good
expect_status 66 evbus publish -t orders good none good
expect_lines 1
expect_err_has "cannot open 'none': No such file or directory"
expect_equal "$(records)" 1

t 'a directory is no file'
expect_status 74 evbus publish -t orders good .
expect_lines 1
expect_err_has "cannot read '.': Is a directory"

t 'a file that may not be read is said so'
if [ "$(id -u)" = 0 ]; then
	skip 'root may read everything'
else
	echo '{}' >secret && chmod 0 secret
	expect_status 77 evbus publish -t orders secret
	expect_err_has "'secret'"
fi

t 'stdin that is closed is a failure'
expect_status 74 evbus publish -t orders <&-
expect_err_has "cannot read 'stdin'"

t 'an event for an operand is told to be piped'
fresh
expect_status 64 evbus publish -t orders '{"id":"1"}'
expect_err_has "operand '{\"id\":\"1\"}' is an event"
expect_err_has 'pipe it'
expect_true 'there is no bus' test ! -e event_bus

# ---- usage -------------------------------------------------------------------------------------------------------

t 'a topic is needed, and has to be one'
echo '{}' | expect_status 64 evbus publish
expect_err_has '--topic'
for topic in 'crm.' '.crm' 'a/b' '..' 'a b' '*' ''; do
	echo '{}' | expect_status 64 evbus publish -t "$topic"
done
expect_true 'there is no bus' test ! -e event_bus

t 'what contradicts itself is a usage error, before anything is read'
for options in '--key a --partition 0' '--key a --key-from /a' '--key-from /a -p 0' '--rejects f' \
	'--rejects f --on-error stop' '--atomic --on-error skip'; do
	# shellcheck disable=SC2086 # several options
	three | expect_status 64 evbus publish -t orders $options
	expect_out ''
done
expect_true 'nothing was made' test ! -e f -a ! -e event_bus

t 'values that are not of their form are usage errors'
for option in --partition=-1 --partition=1024 --partition=x --expect-offset=x --expect-offset=-1 --max-payload=0 \
	--max-payload=4M --max-payload=5000000000 --on-error=wait --key-from=a --key-from= --nonsense; do
	echo '{}' | expect_status 64 evbus publish -t orders "$option"
	expect_out ''
done

# ---- stdout, signals ---------------------------------------------------------------------------------------------

t 'receipts that cannot be printed are a failure, and what was taken is synced'
fresh
if [ -c /dev/full ]; then
	three | expect_status 74 sh -c 'evbus publish -t orders --on-error skip >/dev/full'
	expect_equal "$(records)" 2
	echo '{}' | expect_status 74 sh -c 'evbus publish -t orders >&-'
else
	skip 'no /dev/full here'
fi

t 'so is a reader of receipts that goes away'
fresh
yes '{"id":"1"}' | head -n 20000 >many
{ evbus publish -t orders many 2>err; echo $? >status; } | :
expect_equal "$(cat status)" 74
expect_true 'it says what' grep -q 'cannot write to stdout' err
expect_equal "$(records)" "$(wc -l <event_bus/orders/partition=0.jsonl)" 'durable of what is in the log'

t 'SIGTERM and SIGINT: what was read is published and has its receipt, and it dies of the signal'
for signal in TERM:143 INT:130; do
	fresh
	mkfifo pipe
	# A job in the background ignores SIGINT unless it is told otherwise.
	env --default-signal=INT "$EVBUS" publish -t orders --format '{offset}\n' <pipe >receipts 2>err &
	exec 3>pipe
	printf '{"id":"1"}\n{"id":"2"}\n{"id":' >&3
	wait_for 10 grep -q 1 receipts
	kill -"${signal%:*}" $!
	expect_status "${signal#*:}" wait $!
	exec 3>&-
	expect_same receipts <(printf '0\n1\n')
	expect_equal "$(records)" 2
	expect_true 'without a word' test "$(grep -vc made err)" = 0
done

t 'a signal in the middle of a fast stream: every event in the log has its receipt'
fresh
mkfifo pipe
yes '{"id":"1"}' >pipe 2>/dev/null &
evbus publish -t orders --format '{offset}\n' <pipe >receipts 2>/dev/null &
publisher=$!
wait_for 10 test -s receipts
kill -TERM "$publisher"
expect_status 143 wait "$publisher"
expect_equal "$(wc -l <receipts)" "$(records)" receipts
expect_equal "$(wc -l <receipts)" "$(wc -l <event_bus/orders/partition=0.jsonl)" lines

t 'a signal ends one that waits for who holds a lock of the partition; nothing is acknowledged, and the next one goes on'
for lock in partition=0.jsonl partition=0.lock; do
	for events in 1 100000; do
		fresh
		seq -f "{\"n\":%.0f,\"pad\":\"$(printf '%0100d' 0)\"}" $events >others
		mkfifo pipe
		evbus publish -t orders <pipe >receipts 2>err &
		publisher=$!
		exec 3>pipe
		echo '{}' >&3
		wait_for 10 test -s receipts
		hold_lock "event_bus/orders/$lock"
		cat others >&3 2>/dev/null &
		sleep 0.3
		begun=$(date +%s%N)
		kill -TERM $publisher
		expect_status 143 wait $publisher
		expect_true 'soon' test $(($(date +%s%N) - begun)) -lt 5000000000
		expect_equal "$(wc -l <receipts)" 1 receipts
		expect_true 'without a word' test "$(grep -vc made err)" = 0
		exec 3>&-
		release_lock
		evbus publish -q -t orders others
		expect_true 'all are there' test "$(records)" -gt $events
	done
done

t 'a signal leaves nothing of an atomic batch'
fresh
echo '{"n":0}' | evbus publish -q -t orders
mkfifo pipe
evbus publish -t orders --atomic <pipe >receipts &
exec 3>pipe
echo '{"n":1}' >&3
sleep 0.3
kill -TERM $!
expect_status 143 wait $!
exec 3>&-
expect_equal "$(records)" 1
expect_true 'nor a receipt' test ! -s receipts

t 'with --log json a refusal is one JSON object a line'
fresh
three | expect_status 65 evbus publish -q -t orders --log json
expect_err_like '{"time":"*","level":"error","command":"publish","message":"stdin:2:11: *","topic":"orders",*"code":65}'

t 'a bus that cannot be opened is said so'
echo >file
echo '{}' | expect_status 78 evbus publish -b file:file/bus -t orders
expect_out ''
echo '{}' | expect_status 78 evbus publish -b nonsense:bus -t orders

t 'a log that was cut short is a conflict'
fresh
three | evbus publish -q -t orders --on-error skip 2>/dev/null
: >event_bus/orders/partition=0.jsonl
echo '{}' | expect_status 76 evbus publish -t orders
expect_out ''

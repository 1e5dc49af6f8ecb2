#!/usr/bin/env bash
# publish: what is taken, where it goes, and the receipts.
. "${0%/*}/lib.sh"
plan 34

# payloads FILE...: of lines of a log, byte for byte.
payloads() {
	sed -E 's/^\{"crc32c":"[0-9a-f]{8}","offset":"[0-9]+","published_at_utc":"[^"]*","partition_key":(null|"([^"\\]|\\.)*"),("batch":"[^"]*",)?"payload"://; s/\}$//' "$@"
}
log() {
	echo "event_bus/$1/partition=${2:-0}.jsonl"
}
records() { # TOPIC: how many are durable
	evbus topic-describe "$1" --format tsv | awk '{ n += $5 } END { print n + 0 }'
}

t 'each line gets a receipt, in order'
printf '{"id":"1"}\n{"id":"2"}\n{"id":"3"}\n' | expect_status 0 evbus publish -t orders
expect_lines 3
expect_out_like '{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"0","published_at_utc":"20??-??-??T??:??:??.??????Z"}
*"offset":"1"*
*"offset":"2",*'
expect_err_has "made topic 'orders'"

t 'a line of the log has the members in their order'
expect_true 'it has' grep -qxE '\{"crc32c":"[0-9a-f]{8}","offset":"1","published_at_utc":"[^"]*","partition_key":null,"payload":\{"id":"2"\}\}' "$(log orders)"

t 'blanks around a line and CR are not part of it, empty lines are skipped, the last newline may be missing'
fresh
printf '\n \t \r\n\r\n  {"a":  1}\t \r\n\t{"b":2}\r\n\n{"c":3}' | expect_status 0 evbus publish -t orders --format payload
expect_out '{"a":  1}
{"b":2}
{"c":3}'
payloads "$(log orders)" >have
expect_same have "$OUT"

t 'no input at all publishes nothing and makes nothing'
fresh
expect_status 0 evbus publish -t orders </dev/null
expect_out ''
expect_err ''
expect_true 'there is no bus' test ! -e event_bus

t 'payloads are not changed by a byte: the sample events'
for file in events awkward; do
	fresh
	expect_status 0 evbus publish -t orders --format payload "$DATA/$file.jsonl"
	expect_same "$OUT" "$DATA/$file.jsonl"
	payloads "$(log orders)" >have
	expect_same have "$DATA/$file.jsonl"
done

t 'payloads are not changed by a byte: real events'
if [ -n "$WEBHOOKS" ]; then
	fresh
	expect_status 0 evbus publish -q -t hooks "$WEBHOOKS"
	payloads "$(log hooks)" >have
	expect_same have "$WEBHOOKS"
else
	skip 'there are no real events here'
fi

t 'lines of every length arrive whole, wherever a read ends'
fresh
awk 'BEGIN { for (s = "x"; length(s) < 9000;) s = s s; for (i = 0; i < 3000; i++) print "{\"n\":" i ",\"s\":\"" substr(s, 1, i * 7919 % 9000) "\"}" }' >many
expect_equal "$(wc -l <many)" 3000 'lines to publish'
expect_status 0 evbus publish -q -t orders many
payloads "$(log orders)" >have
expect_true 'the log is the file' cmp have many
expect_status 0 sh -c 'dd if=many bs=5000 status=none | evbus publish -t pipe --format payload'
expect_true 'so are the receipts' cmp "$OUT" many

t 'lines come through a pipe in pieces'
fresh
dd if="$DATA/events.jsonl" bs=97 status=none | expect_status 0 evbus publish -t orders --format payload
expect_same "$OUT" "$DATA/events.jsonl"

t 'files are read in turn, - is stdin, and a file without a last newline does not run into the next'
fresh
printf '{"n":1}' >a
printf '{"n":3}\n{"n":4}' >b
echo '{"n":2}' | expect_status 0 evbus publish -t orders --format payload a - b
expect_out '{"n":1}
{"n":2}
{"n":3}
{"n":4}'

t 'of a file that grows, what was there at the start is published: a log can be published to itself'
fresh
printf '{"n":1}\n{"n":2}\n' | evbus publish -q -t orders
expect_status 0 evbus publish -t orders --format '{offset}\n' "$(log orders)"
expect_out '2
3'

t 'stdin that is a file is read from where it stands'
printf '{"n":1}\n{"n":2}\n' >two
{ dd bs=8 count=1 status=none >/dev/null; evbus publish -t standing --format payload 2>/dev/null; } <two >"$OUT"
expect_out '{"n":2}'

t 'a line that comes alone is acknowledged at once'
fresh
mkfifo pipe
evbus publish -t orders <pipe >receipts 2>err &
exec 3>pipe
echo '{"id":"1"}' >&3
wait_for 10 grep -q '"offset":"0"' receipts
printf '{"id":"2"}\n{"id":' >&3
wait_for 10 grep -q '"offset":"1"' receipts
printf '"3"}' >&3
exec 3>&-
expect_status 0 wait $!
expect_true 'the last line too' grep -q '"offset":"2"' receipts

t 'a FIFO may be named, also before somebody writes to it'
mkfifo fifo
evbus publish -t orders fifo >receipts &
echo '{"id":"4"}' >fifo
expect_status 0 wait $!
expect_true 'it has' grep -q '"offset":"3"' receipts

t 'quiet prints neither receipts nor notices'
fresh
echo '{"id":"1"}' | expect_status 0 evbus publish -q -t orders
expect_out ''
expect_err ''
expect_equal "$(records orders)" 1

t 'a receipt in each format'
fresh
publish() {
	echo '{"id":"é","n":1.10}' | evbus publish -t orders -k k "$@"
}
expect_status 0 publish --format json
expect_out_like '{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"0","published_at_utc":"*Z"}'
expect_status 0 publish --format payload
expect_out '{"id":"é","n":1.10}'
expect_status 0 publish --format tsv
expect_out_like $'orders\t0\tfile_line\t2\t20*Z'
expect_status 0 publish --format stored
expect_same "$OUT" <(sed -n 4p "$(log orders)")
expect_status 0 publish --format pretty
expect_out_like 'orders/0/4  20*Z  key "k"*"n": 1.10*'
expect_status 0 publish --format '{offset}|{/n}|{/none}|{partition_key}|{event_id}\n'
expect_out '5|1.10||k|é'

t 'what is not a format is refused before anything is published'
fresh
echo '{}' | expect_status 64 evbus publish -t orders --format nonsense
expect_out ''
expect_true 'there is no bus' test ! -e event_bus

t 'a partition is chosen by its number'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
echo '{"id":"1"}' | expect_status 0 evbus publish -t orders -p 2
expect_out_has '"partition_id":2'
expect_equal "$(payloads "$(log orders 2)")" '{"id":"1"}'

t 'a key chooses the partition as Kafka does, and is kept'
fresh
evbus topic-create -q orders --partitions 8 >/dev/null
# murmur2 of the tests of Kafka: "21" -973932308, "foobar" -790332482, "a-little-bit-long-string" -985981536
for pair in 21:4 foobar:6 a-little-bit-long-string:0; do
	echo '{}' | expect_status 0 evbus publish -t orders --key "${pair%:*}" --format '{partition_id} {partition_key}\n'
	expect_out "${pair#*:} ${pair%:*}"
done

t 'a key of any text is kept as JSON'
echo '{}' | expect_status 0 evbus publish -t orders --key $'a"b\\c\té' --format stored
expect_out_has '"partition_key":"a\"b\\c\té"'
echo '{}' | expect_status 0 evbus publish -t orders --key '' --format stored
expect_out_has '"partition_key":""'

t 'the first member that is there gives the key'
printf '{"merchant_id":"foobar","event_id":"21"}\n{"event_id":"21"}\n{"x":1,"event_id":21}\n' |
	expect_status 0 evbus publish -t orders --key-from /merchant_id,/event_id --format '{partition_id} {partition_key}\n'
expect_out '6 foobar
4 21
4 21'

t 'receipts of several partitions come in the order of the input'
fresh
evbus topic-create -q orders --partitions 16 >/dev/null
awk 'BEGIN { for (i = 0; i < 20000; i++) printf "{\"n\":%d,\"k\":\"k%d\"}\n", i, i % 97 }' >many
expect_status 0 evbus publish -t orders --key-from /k --format payload many
expect_true 'they do' cmp "$OUT" many
expect_equal "$(records orders)" 20000

t 'one partition of several has to be chosen'
fresh
evbus topic-create -q orders --partitions 2 >/dev/null
echo '{"id":"1"}' | expect_status 64 evbus publish -t orders
expect_out ''
expect_err_has 'choose one'
expect_equal "$(records orders)" 0

t 'a partition that is not there is said so'
echo '{"id":"1"}' | expect_status 66 evbus publish -t orders -p 2
expect_err_has 'has no partition 2'

t 'an unexpected offset is a conflict, and nothing is written'
fresh
printf '{"n":0}\n{"n":1}\n' | expect_status 0 evbus publish -q -t orders --expect-offset 0
echo '{"n":2}' | expect_status 76 evbus publish -t orders --expect-offset 1
expect_out ''
expect_equal "$(records orders)" 2
echo '{"n":2}' | expect_status 0 evbus publish -q -t orders --expect-offset 2
expect_equal "$(payloads "$(log orders)" | tail -n 1)" '{"n":2}'

t 'with --no-create neither a bus nor a topic is made'
fresh
echo '{}' | expect_status 66 evbus publish -t orders --no-create
expect_out ''
expect_true 'there is no bus' test ! -e event_bus
echo '{}' | evbus publish -q -t orders
echo '{}' | expect_status 66 evbus publish -t others --no-create
expect_true 'there is no topic' test ! -e event_bus/others
echo '{}' | expect_status 0 evbus publish -q -t orders --no-create
expect_equal "$(records orders)" 2

t 'the largest payload can be set, to the byte'
fresh
printf '{"s":"12345"}\n' >fits
expect_status 0 evbus publish -q -t orders --max-payload 13 fits
expect_status 65 evbus publish -t orders --max-payload 12 fits
expect_err_has 'fits:1:1: the event has 13 bytes, and 12 is the most'
head -c 3145720 /dev/zero | tr '\0' x | sed 's/.*/{"s":"&"}/' >large
echo >>large
expect_equal "$(wc -c <large)" 3145729 'bytes of the file'
expect_status 65 evbus publish -q -t orders large
expect_status 0 evbus publish -q -t orders --max-payload 3M large
payloads "$(log orders)" | tail -n 1 >have
expect_true 'it is in the log' cmp have large

t 'an atomic batch is marked as one'
fresh
printf '{"n":0}\n{"n":1}\n{"n":2}\n' | expect_status 0 evbus publish -t orders --atomic
expect_lines 3
expect_equal "$(grep -c '"batch":"0-2"' "$(log orders)")" 3

t 'nothing of an atomic batch is there before all of it is'
rm -f pipe && mkfifo pipe
evbus publish -q -t orders --atomic <pipe &
exec 3>pipe
echo '{"n":3}' >&3
sleep 0.3
expect_equal "$(records orders)" 3
exec 3>&-
expect_status 0 wait $!
expect_equal "$(records orders)" 4

t 'publishers at once: every receipt is true'
fresh
for p in 1 2 3 4; do
	awk -v p=$p 'BEGIN { for (i = 0; i < 2000; i++) printf "{\"p\":%d,\"n\":%d}\n", p, i }' |
		evbus publish -q -t orders &
	awk -v p=$p 'BEGIN { for (i = 0; i < 500; i++) printf "{\"q\":%d,\"n\":%d}\n", p, i }' |
		evbus publish -t orders --format '{offset} {payload}\n' >"receipts$p" 2>/dev/null &
done
wait
expect_equal "$(records orders)" 10000
payloads "$(log orders)" | awk '{ print NR - 1, $0 }' | grep '"q"' >have
sort -n receipts? >said
expect_same said have

t 'memory stays small, whatever comes and however long'
fresh
case $(grep -ac __asan_init "$EVBUS") in
0)
	mkfifo pipe
	evbus publish -q -t orders --on-error skip <pipe 2>err &
	exec 3>pipe
	yes '{"id":"1","s":"some text that is a little longer than nothing"}' | head -n 300000 >&3
	head -c 30000000 /dev/zero | tr '\0' '{' >&3
	expect_true 'less than 64 MiB' test "$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$!/status")" -lt 65536
	exec 3>&-
	expect_status 1 wait $!
	expect_equal "$(records orders)" 300000
	;;
*) skip 'the sanitizer needs memory of its own' ;;
esac

t 'on a terminal it says what it waits for'
fresh
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
	{ sleep 0.5; printf '{"id":"1"}\n\004'; } | expect_status 0 script -qec 'evbus publish -t orders' /dev/null
	expect_out_has 'reading events from the terminal, one JSON object a line; Ctrl-D ends'
	expect_equal "$(records orders)" 1
else
	skip 'script(1) gets no terminal here'
fi

t 'progress is shown where stderr is a terminal, for files'
if script -qec true /dev/null >/dev/null 2>&1 </dev/null; then
	yes '{"id":"1","s":"some text that is a little longer than nothing"}' | head -n 60000 >many
	expect_status 0 script -qec 'evbus publish -t orders many | { sleep 1; cat >/dev/null; }' /dev/null </dev/null
	expect_out_has ' of 3.7 MiB'
	expect_status 0 script -qec 'evbus publish -q -t orders many' /dev/null </dev/null
	expect_out ''
else
	skip 'script(1) gets no terminal here'
fi

t 'the symlink works'
ln -s "$EVBUS" evbus-publish
echo '{"id":"1"}' | expect_status 0 ./evbus-publish -t link
expect_out_has '"topic":"link"'

t 'an endless pipe is synced in groups that can be read while it goes on'
fresh
yes '{"id":"1"}' | evbus publish -t orders --format '{offset}\n' 2>/dev/null | head -n 100000 | tail -n 1 >"$OUT"
expect_out 99999

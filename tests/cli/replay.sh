#!/usr/bin/env bash
# replay: a range again, to stdout, to a topic, to another bus.
. "${0%/*}/lib.sh"
plan 30

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
offsets=(--format '{offset} ')
# spoil FILE N: changes a byte of its Nth line, in place.
spoil() {
	printf X | dd of="$1" bs=1 seek=$(($(head -n "$2" "$1" | wc -c) - 5)) conv=notrunc status=none
}
has_lines() { # FILE N
	[ "$(wc -l <"$1")" -ge "$2" ]
}
count() { # TOPIC [BUS]
	evbus replay -b "${2:-event_bus}" -t "$1" --count
}
# milliseconds COMMAND...: how long it took
milliseconds() {
	local begin=${EPOCHREALTIME/./}
	"$@"
	echo $(((${EPOCHREALTIME/./} - begin) / 1000))
}
expect_between() { # VALUE LOW HIGH WHAT
	ok
	[[ $1 -ge $2 && $1 -le $3 ]] || fail "$4: $1, expected $2 to $3"
}

# ---- to stdout ---------------------------------------------------------------------------------------------------

t 'the whole range, as tail prints it'
events 0 19 | evbus publish -q -t orders
expect_status 0 evbus replay -t orders
expect_same "$OUT" <(evbus tail -t orders -o beginning)
expect_lines 20
expect_err ''

t 'a part of it'
expect_status 0 evbus replay -t orders -o 3 --to-offset 6 "${offsets[@]}"
expect_out_like '3 4 5 '
expect_status 0 evbus replay -t orders -o -2 "${offsets[@]}"
expect_out_like '18 19 '
expect_status 0 evbus replay -t orders --from-offset 7 --max 2 "${offsets[@]}"
expect_out_like '7 8 '
expect_status 0 evbus replay -t orders -S -1h -U -1s --count
expect_status 0 evbus replay -t orders -U 2026-01-01T00:00:00Z --count
expect_out 0
expect_status 0 evbus replay -t orders --max 0
expect_out ''
expect_status 66 evbus replay -t nothing
expect_status 0 evbus replay -t 'nothing.>'
expect_out ''

t '--count and --dry-run print the number only'
expect_status 0 evbus replay -t orders --count
expect_out 20
expect_status 0 evbus replay -t orders -o 5 --max 4 --count
expect_out 4
expect_status 0 evbus replay -t orders --dry-run
expect_out 20

t 'filters choose'
evbus publish -q -t events "$DATA/events.jsonl"
expect_status 0 evbus replay -t events --type 'order.*' --tenant acme --format payload
expect_same "$OUT" <(grep '"event_type":"order\.[a-z]*","tenant_id":"acme"' "$DATA/events.jsonl")
expect_status 0 evbus replay -t events --where /no/such=1 --count
expect_out 0

t 'over many segments nothing is missing and nothing twice'
evbus topic-create -q small --segment-size 64K >/dev/null
events 0 3999 | evbus publish -q -t small
expect_status 0 evbus replay -t small --format payload
expect_same "$OUT" <(events 0 3999)

t '-g begins at the checkpoint; on a log that was made anew it is refused'
evbus checkpoint-set -q -g billing -t orders -o 17 >/dev/null
expect_status 0 evbus replay -t orders -g billing "${offsets[@]}"
expect_out_like '17 18 19 '
expect_equal "$(evbus checkpoint-get -g billing -t orders --format tsv | cut -f 4)" 17 'the checkpoint'
rm -r event_bus/orders
events 0 19 | evbus publish -q -t orders
expect_status 76 evbus replay -t orders -g billing
expect_err_has 'another log'

t 'all sample and webhook events come out as they went in'
fresh
for file in "$DATA/events.jsonl" "$DATA/awkward.jsonl" "$WEBHOOKS"; do
	[ -n "$file" ] || continue
	rm -rf event_bus
	evbus publish -q -t all "$file"
	expect_status 0 evbus replay -t all --format payload
	expect_same "$OUT" "$file"
done

t 'a damaged line is told after what stands before it was printed'
fresh
events 0 19 | evbus publish -q -t orders
spoil event_bus/orders/partition=0.jsonl 6
expect_status 74 evbus replay -t orders "${offsets[@]}"
expect_out_like '0 1 2 3 4 '
expect_err_has 'damaged at offset 5'

t 'a reader of stdout that had enough is no failure, a full disk is one'
fresh
for _ in 1 2 3 4; do cat "$DATA/events.jsonl"; done | evbus publish -q -t orders
expect_status 0 sh -c '{ evbus replay -t orders || echo "status $?" >&2; } | head -n 1'
expect_err ''
expect_status 74 sh -c 'evbus replay -t orders >/dev/full'

# ---- the pace ----------------------------------------------------------------------------------------------------

t '--rate is kept exactly, and evenly'
fresh
events 1 400 | evbus publish -q -t orders
took=$(milliseconds sh -c 'evbus replay -t orders --max 101 --rate 200 >paced')
expect_between "$took" 495 900 'milliseconds for 101 records at 200 a second'
expect_equal "$(wc -l <paced)" 101 'records'
# What comes in each fifth of the time.
evbus replay -t orders --max 201 --rate 200 --format '{offset}\n' | while read -r _; do echo "${EPOCHREALTIME/./}"; done |
	awk 'NR == 1 { begin = $1 } { n[int(($1 - begin) / 200000)]++ } END { for (i = 0; i < 5; i++) print n[i] }' >fifths
while read -r n; do
	expect_between "$n" 25 55 'records in 200 ms at 200 a second'
done <fifths

t 'many a second, a few a minute'
fresh
events 1 20000 | evbus publish -q -t orders
took=$(milliseconds sh -c 'evbus replay -t orders --rate 20000 >paced')
expect_between "$took" 990 2500 'milliseconds for 20000 records at 20000 a second'
took=$(milliseconds sh -c 'evbus replay -t orders --max 2 --rate 120/m >paced')
expect_between "$took" 495 900 'milliseconds for two records at 120 a minute'
expect_status 64 evbus replay -t orders --rate fast
expect_status 64 evbus replay -t orders --rate 0

t 'what is due is there before the next is waited for'
rm -f paced
(trap - INT; exec evbus replay -t orders --rate 1/h --format payload >paced 2>said) &
paced=$!
wait_for 5 has_lines paced 1
kill -TERM $paced
status=0
wait $paced || status=$?
expect_equal $status 143 'status after SIGTERM'
expect_same paced <(events 1 1)

t 'what a slow reader missed is not made up for in a burst'
fresh
for _ in 1 2 3 4 5 6 7; do cat "$DATA/events.jsonl"; done | evbus publish -q -t orders
took=$(milliseconds sh -c 'evbus replay -t orders --max 1400 --rate 1000 | { sleep 1; wc -l; } >paced')
expect_between "$took" 2100 4000 'milliseconds for 1400 records of which 100 were taken in the first second'
expect_equal "$(cat paced)" 1400 'records'

# ---- to a topic --------------------------------------------------------------------------------------------------

t '--to-topic publishes again: payloads, keys, origin, receipts'
fresh
evbus publish -q -t orders -k 'k"é' "$DATA/awkward.jsonl"
expect_status 0 evbus replay -t orders --to-topic copies
expect_lines 86
expect_equal "$(head -n 1 "$OUT" | sed 's/"2[^"]*Z"/TIME/')" '{"topic":"copies","partition_id":0,"offset_kind":"file_line","offset":"0","published_at_utc":TIME}' 'a receipt'
expect_err_has "made topic 'copies'"
expect_status 0 evbus replay -t copies --format payload
expect_same "$OUT" "$DATA/awkward.jsonl"
expect_same <(evbus replay -t copies --format '{partition_key}\n') <(evbus replay -t orders --format '{partition_key}\n')
expect_equal "$(evbus tail -t copies -n 1 | sed 's/.*"origin":"\([^"]*\)".*/\1/')" orders/0/85 'origin'
expect_equal "$(evbus verify -t copies --format json | tail -n 1 | sed 's/.*"damages":\([0-9]*\).*/\1/')" 0 'damages'

t 'receipts: --format and -q'
fresh
events 1 3 | evbus publish -q -t orders
expect_status 0 evbus replay -t orders --to-topic a --format '{topic}/{offset} {/id}\n'
expect_out 'a/0 1
a/1 2
a/2 3'
expect_status 0 evbus replay -t orders --to-topic a --format tsv
expect_out_like $'a\t0\tfile_line\t3\t20*Z\na\t0\tfile_line\t4\t20*Z\na\t0\tfile_line\t5\t20*Z'
expect_status 0 evbus replay -q -t orders --to-topic b
expect_out ''
expect_err ''
expect_equal "$(count b)" 3 'records'

t 'the end is fixed at the start: a topic replayed into itself doubles'
expect_status 0 evbus replay -q -t orders --to-topic orders
expect_equal "$(count orders)" 6 'records'
expect_status 0 evbus replay -q -t '>' --to-topic orders
expect_equal "$(count orders)" $((6 + 6 + 6 + 3)) 'records'

t 'a record that was published again before keeps its origin'
fresh
events 1 3 | evbus publish -q -t a
evbus replay -q -t a --to-topic b
evbus replay -q -t b -o 2 --to-topic c
expect_status 0 evbus replay -t c
expect_out_has '"origin":"a/0/2"'

t 'a record goes to the partition of its key'
fresh
evbus topic-create -q orders --partitions 5 >/dev/null
evbus topic-create -q same --partitions 5 >/dev/null
evbus topic-create -q one --partitions 1 >/dev/null
evbus publish -q -t orders --key-from /event_id,/id,/eventId "$DATA/events.jsonl"
expect_status 0 evbus replay -q -t orders --to-topic same
for p in 0 1 2 3 4; do
	expect_same <(evbus replay -t same -p $p --format payload) <(evbus replay -t orders -p $p --format payload)
done
expect_status 0 evbus replay -q -t orders --to-topic one
expect_same <(evbus replay -t one --format payload | sort) <(sort "$DATA/events.jsonl")

t 'a record without a key needs a choice where there are several partitions'
fresh
evbus topic-create -q many --partitions 4 >/dev/null
events 1 3 | evbus publish -q -t orders
expect_status 64 evbus replay -t orders --to-topic many
expect_err_has --to-partition
expect_err_has 'orders/0/0'
expect_status 0 evbus replay -t orders --to-topic many --to-partition 2 --format '{partition_id}{partition_key} '
expect_out_like '2 2 2 '
expect_status 0 evbus replay -t orders --to-topic many -k foobar --format '{partition_id} {partition_key} '
expect_out_like '* foobar * foobar * foobar '
expect_status 0 evbus replay -t orders --to-topic many --key-from /no,/id --format '{partition_key} '
expect_out_like '1 2 3 '
expect_status 65 evbus replay -t orders --to-topic many --key-from /no
expect_err_has 'orders/0/0'
expect_status 66 evbus replay -t orders --to-topic many --to-partition 4
expect_err_has 'partition 4'

t 'options that do not go together'
for options in '-k x' '--key-from /x' '--to-partition 1' '--to-topic a --count' '--to-topic a -k x --key-from /x' \
	'--to-topic a --to-partition 1 -k x' '--to-topic a.*' '--to-topic a --key-from x' '--follow'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus replay -t orders $options
done
expect_true 'nothing was made' test ! -e event_bus/a

t 'a paced replay publishes as it goes'
fresh
events 1 60 | evbus publish -q -t orders
(trap - INT; exec evbus replay -t orders --to-topic copies --rate 30 >receipts 2>said) &
paced=$!
wait_for 5 has_lines receipts 5
expect_true 'it is not done yet' test "$(wc -l <receipts)" -lt 50
kill -TERM $paced
status=0
wait $paced || status=$?
expect_equal $status 143 'status after SIGTERM'
expect_equal "$(count copies)" "$(wc -l <receipts)" 'records and receipts'

# ---- to another bus ----------------------------------------------------------------------------------------------

t '--to-bus alone keeps topics, partitions, keys'
fresh
evbus topic-create -q a.events --partitions 3 --segment-size 128K >/dev/null
evbus publish -q -t a.events --key-from /event_id,/id,/eventId "$DATA/events.jsonl"
evbus publish -q -t a.awkward "$DATA/awkward.jsonl"
events 1 3 | evbus publish -q -t b
expect_status 0 evbus replay -t 'a.>' --to-bus file:other
expect_lines $((216 + 86))
expect_equal "$(evbus topic-list -b other --format tsv | cut -f 1,2 | paste -sd ' ')" $'a.awkward\t1 a.events\t3' 'topics there'
for p in 0 1 2; do
	expect_same <(evbus replay -b other -t a.events -p $p --format '{offset} {partition_key} {payload}\n') \
		<(evbus replay -t a.events -p $p --format '{offset} {partition_key} {payload}\n')
done
expect_same <(evbus replay -b other -t a.awkward --format payload) "$DATA/awkward.jsonl"
expect_true 'the segment size too' grep -q 131072 other/a.events/topic.json
expect_status 0 evbus verify -b other

t 'a topic that has other partitions there is refused before anything is published'
fresh
evbus topic-create -q b --partitions 3 >/dev/null
events 1 3 | evbus publish -q -t a
events 1 3 | evbus publish -q -t b -p 2
evbus topic-create -q -b other b --partitions 2 >/dev/null
expect_status 76 evbus replay -t '>' --to-bus other
expect_err_has '2 partitions there and 3 here'
expect_equal "$(count '>' other)" 0 'records there'
expect_status 0 evbus replay -t b --to-bus other --to-partition 1 --format '{topic}/{partition_id}\n'
expect_lines 3
expect_out_has b/1

t '--to-bus and --to-topic: another topic of another bus'
expect_status 0 evbus replay -q -t a --to-bus other --to-topic c
expect_same <(evbus replay -b other -t c --format payload) <(events 1 3)
expect_true 'here there is none' test ! -e event_bus/c

t '--dry-run counts and publishes nothing'
fresh
events 1 9 | evbus publish -q -t orders
expect_status 0 evbus replay -t orders -o 2 --to-bus other --dry-run
expect_out 7
expect_status 0 evbus replay -t orders --to-topic x --dry-run --max 3
expect_out 3
expect_true 'nothing was made' test ! -e other -a ! -e event_bus/x

# ---- failures ----------------------------------------------------------------------------------------------------

t 'reading that fails and publishing that fails are told apart'
fresh
events 0 19 | evbus publish -q -t orders
spoil event_bus/orders/partition=0.jsonl 6
expect_status 74 evbus replay -t orders --to-topic copies
expect_err_has "reading from 'file:event_bus': topic 'orders', partition 0 is damaged at offset 5"
expect_lines 5
expect_equal "$(count copies)" 5 'what was read before is published'
echo >file
expect_status 78 evbus replay -t orders --to-bus file:file
expect_err_has "publishing to 'file:file'"

t 'a disk that is full: what has a receipt is there, and it is no success'
fresh
for _ in 1 2 3 4; do cat "$DATA/events.jsonl"; done | evbus publish -q -t orders
# shellcheck disable=SC2016 # it is for that shell
expect_status 74 bash -c 'trap "" XFSZ; ulimit -f 100; evbus replay -t orders --to-topic copies --rate 300 | cat; exit ${PIPESTATUS[0]}'
expect_err_has "publishing to 'file:event_bus'"
expect_true 'some were published' test -s "$OUT"
expect_equal "$(count copies)" "$(wc -l <"$OUT")" 'records and receipts'

t 'receipts that nobody reads are a failure, and what was published stays'
fresh
events 1 20000 | evbus publish -q -t orders
expect_status 0 sh -c '{ evbus replay -t orders --to-topic copies; echo "status $?" >&2; } | head -n 1 >/dev/null'
expect_err_has 'status 74'
expect_err_has 'receipts'
expect_status 0 evbus verify -t copies
expect_status 0 sh -c '{ evbus replay -q -t orders --to-topic quiet; echo "status $?" >&2; } | head -n 1 >/dev/null'
expect_err_has 'status 0'

t 'what a pipe has taken stays as it was, also where its reader passes it on unread'
fresh
events 1 60000 | evbus publish -q -t orders
evbus replay -t orders >all
expect_true 'it is several blocks' test "$(wc -c <all)" -gt 9000000
evbus replay -t orders | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/hold" >held
expect_same held all
evbus replay -t orders | { sleep 0.3; cat; } >late
expect_same late all
evbus replay -t orders --format stored | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/hold" >held
expect_same held event_bus/orders/partition=0.jsonl
grep -qsE '\[(always|madvise)\]' /sys/kernel/mm/transparent_hugepage/enabled ||
	skip 'no huge pages here: output was written to the pipe as ever, not given to it'

t 'progress is shown where stderr is a terminal, and nowhere else'
fresh
events 1 40 | evbus publish -q -t orders
if script -qec true /dev/null >/dev/null 2>&1; then
	expect_status 0 script -qec "evbus replay -t orders --rate 40 >/dev/null" /dev/null
	expect_out_has ' of '
	expect_out_has '/s'
	expect_status 0 script -qec "evbus replay -q -t orders --rate 40 >/dev/null" /dev/null
	expect_out ''
else
	skip 'script(1) gets no terminal here'
fi
expect_status 0 evbus replay -t orders --rate 100
expect_err ''

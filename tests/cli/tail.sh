#!/usr/bin/env bash
# tail: looking at records, and following them.
. "${0%/*}/lib.sh"
plan 35

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
numbers() { # FIRST LAST: on one line
	seq "$1" "$2" | tr '\n' ' ' | sed 's/ $//'
}
offsets=(--format '{offset} ')
places=(--format '{topic}/{partition_id}/{offset} ')
# spoil FILE N: changes a byte of its Nth line, in place.
spoil() {
	printf X | dd of="$1" bs=1 seek=$(($(head -n "$2" "$1" | wc -c) - 5)) conv=notrunc status=none
}
# has_lines FILE N
has_lines() {
	[ "$(wc -l <"$1")" -ge "$2" ]
}
# follow ARGS...: evbus tail -f in the background, with its stdout in followed, its stderr in said, its status in ended.
follow() {
	rm -f ended
	: >followed
	: >said
	{
		status=0
		timeout 60 evbus tail -f "$@" >followed 2>said || status=$?
		echo "$status" >ended
	} &
}
# ended N: the follower ends with this status.
ended() {
	wait_for 10 test -s ended
	expect_equal "$(cat ended)" "$1" 'exit status of the follower'
}

# ---- where it begins and ends ------------------------------------------------------------------------------------

t 'the last ten are printed, as they stand in the log'
events 1 15 | evbus publish -q -t orders
expect_status 0 evbus tail -t orders
expect_same "$OUT" <(tail -n 10 event_bus/orders/partition=0.jsonl |
	sed -E 's/^\{"crc32c":"[0-9a-f]{8}",/{"topic":"orders","partition_id":0,"offset_kind":"file_line",/')
expect_err ''

t '-n says how many; more than there are is all'
expect_status 0 evbus tail -t orders -n 2 "${offsets[@]}"
expect_out_like '13 14 '
expect_status 0 evbus tail -t orders --last 99 "${offsets[@]}"
expect_out_like "$(numbers 0 14) "
expect_status 0 evbus tail -t orders -n 0
expect_out ''

t 'every way to name a position'
for case in '0=0 1' '12=12 13' 'beginning=0 1' 'end=' '-3=12 13' '-99=0 1' '@-1h=0 1' '@2026-01-01T00:00:00Z=0 1' '99='; do
	expect_status 0 evbus tail -t orders -o "${case%%=*}" --max 2 --format '{offset}\n'
	expect_equal "$(paste -sd ' ' "$OUT")" "${case#*=}" "-o ${case%%=*}"
done
expect_status 64 evbus tail -t orders -o middle
expect_err_has "'middle'"
expect_err_has beginning

t '--to-offset is exclusive, and takes positions too'
expect_status 0 evbus tail -t orders -o 3 --to-offset 5 "${offsets[@]}"
expect_out_like '3 4 '
expect_status 0 evbus tail -t orders -o 11 --to-offset -2 "${offsets[@]}"
expect_out_like '11 12 '

t '--from-offset N --max M prints exactly M records from N on, over many segments'
evbus topic-create -q small --segment-size 64K >/dev/null
events 0 3999 | evbus publish -q -t small
expect_true 'it was rolled' test -e event_bus/small/partition=0/00000000000000000000.jsonl
for from in 0 1 499 500 1777 3990; do
	expect_status 0 evbus tail --topic small --from-offset $from --max 10 --format '{offset} {/id}\n'
	expect_same "$OUT" <(seq $from $((from + 9)) | sed 's/.*/& &/')
done
expect_status 0 evbus tail --topic small --from-offset 100 --max 3000 --format '{offset}\n'
expect_same "$OUT" <(seq 100 3099)
expect_status 0 evbus tail --topic small --from-offset 3995 --max 10 --format '{offset}\n'
expect_lines 5

t '-S and -U bound the time of publishing: inclusive, exclusive'
fresh
events 0 2 | evbus publish -q -t orders
sleep 0.01
events 3 5 | evbus publish -q -t orders
middle=$(evbus tail -t orders -o 3 --max 1 --format '{published_at_utc}')
expect_status 0 evbus tail -t orders -S "$middle" "${offsets[@]}"
expect_out_like '3 4 5 '
expect_status 0 evbus tail -t orders -U "$middle" "${offsets[@]}"
expect_out_like '0 1 2 '
expect_status 0 evbus tail -t orders -S -1h -U "$middle" "${offsets[@]}"
expect_out_like '0 1 2 '
expect_status 0 evbus tail -t orders -S "$middle" -n 2 "${offsets[@]}"
expect_out_like '4 5 '

t '-n counts back from the end of what was asked for'
expect_status 0 evbus tail -t orders -n 1 -U "$middle" "${offsets[@]}"
expect_out_like '2 '
expect_status 0 evbus tail -t orders -n 2 --to-offset 4 "${offsets[@]}"
expect_out_like '2 3 '

t '--max, and --count, which prints the number only'
expect_status 0 evbus tail -t orders -o beginning --max 4 --count
expect_out 4
expect_status 0 evbus tail -t orders --count
expect_out 6
expect_status 0 evbus tail -t orders --max 0
expect_out ''
expect_status 0 evbus tail -t orders -o end --count
expect_out 0

t 'two words for where to begin are a usage error'
expect_status 64 evbus tail -t orders -n 3 -o 1
expect_err_has --offset
expect_status 64 evbus tail -t orders -n 3 -g billing
expect_err_has --group
expect_status 64 evbus tail
expect_err_has --topic
expect_status 64 evbus tail -t 'a..b'
expect_status 64 evbus tail -t orders extra

# ---- how it prints -----------------------------------------------------------------------------------------------

t 'every format'
fresh
printf '{"id":"1","a": {"b":1.10}}\n' | evbus publish -q -t orders -k 'k"1'
expect_status 0 evbus tail -t orders
expect_out_like '{"topic":"orders","partition_id":0,"offset_kind":"file_line","offset":"0","published_at_utc":"20*Z","partition_key":"k\\"1","payload":{"id":"1","a": {"b":1.10}}}'
expect_status 0 evbus tail -t orders --format payload
expect_out '{"id":"1","a": {"b":1.10}}'
expect_status 0 evbus tail -t orders --format stored
expect_same "$OUT" event_bus/orders/partition=0.jsonl
expect_status 0 evbus tail -t orders --format tsv
expect_out_like $'orders\t0\tfile_line\t0\t20*Z\tk"1\t{"id":"1","a": {"b":1.10}}'
expect_status 0 evbus tail -t orders --format '{topic} {partition_id} {offset} {partition_key} {/a/b} {/x}|\n'
expect_out 'orders 0 0 k"1 1.10 |'
expect_status 0 evbus tail -t orders --format pretty
expect_out_has '1.10'
expect_status 64 evbus tail -t orders --format yaml
expect_err_has "'yaml'"
expect_status 0 env EVBUS_FORMAT=payload evbus tail -t orders
expect_out '{"id":"1","a": {"b":1.10}}'

t 'payloads come out as they came in, also the awkward ones'
fresh
evbus publish -q -t all "$DATA/events.jsonl" "$DATA/awkward.jsonl"
expect_status 0 evbus tail -t all -o beginning --format payload
expect_same "$OUT" <(cat "$DATA/events.jsonl" "$DATA/awkward.jsonl")

t 'filters find what grep finds'
evbus publish -q -t events "$DATA/events.jsonl"
check() { # REGEX OPTIONS...
	expect_status 0 evbus tail -t events -o beginning --format payload "${@:2}"
	expect_same "$OUT" <(grep -E "$1" "$DATA/events.jsonl")
	expect_true 'something matches' test -s "$OUT"
}
check '"(event_type|eventType|type|name)":"order\.paid"' --type order.paid
check '"event_type":"order\.' --type 'order.*'
check '"type":"com\.example\.' --type 'com.>'
check '"(tenant_id|tenantId|firm_id)":"acme"' --tenant acme
check '"firm_id":"firm-017"' --tenant firm-017
check '"order":.*"currency":"USD"' --where /order/currency=USD
check '"(correlation_id|trace_id)":"corr-92d30a6dbaf2"' --correlation-id corr-92d30a6dbaf2
check '"eventKey":"shipment-07000/0"' --event-key shipment-07000/0
check '"event_id":"evt_01KFQGV4AAMBKQ1B7WVQGT6HWC"' --event-key evt_01KFQGV4AAMBKQ1B7WVQGT6HWC
check '"event_type":"order\..*"currency":"USD"' --type 'order.*' --where /order/currency=USD --where /schema_version=1
expect_status 0 evbus tail -t events -o beginning --type 'no.such' --count
expect_out 0
expect_status 64 evbus tail -t events --type 'a.>.b'
expect_status 64 evbus tail -t events --where nonsense
expect_err_has "'nonsense'"

t 'without -n a filter looks at the last ten'
expect_status 0 evbus tail -t events --type 'order.*' --format payload
expect_same "$OUT" <(tail -n 10 "$DATA/events.jsonl" | grep '"event_type":"order\.')

# ---- several topics and partitions -------------------------------------------------------------------------------

t 'partitions are merged in the order of publishing, and -n counts all of them'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
for i in 0 1 2 3 4 5 6 7; do
	echo "{\"id\":\"$i\"}" | evbus publish -q -t orders -p $((i * 2 % 3))
done
expect_status 0 evbus tail -t orders --format '{/id} '
expect_out_like "$(numbers 0 7) "
expect_status 0 evbus tail -t orders -n 3 --format '{/id}/{partition_id} '
expect_out_like '5/1 6/0 7/2 '
expect_status 0 evbus tail -t orders -p 2 --format '{/id}/{offset} '
expect_out_like '1/0 4/1 7/2 '

t 'a bare number is one of one partition; other positions hold for each'
expect_status 64 evbus tail -t orders -o 1
expect_err_has --partition
expect_status 64 evbus tail -t '*' --to-offset 1
expect_status 0 evbus tail -t orders -o 1 -p 0 "${offsets[@]}"
expect_out_like '1 2 '
expect_status 0 evbus tail -t orders -o -1 --format '{/id} '
expect_out_like '5 6 7 '
expect_status 66 evbus tail -t orders -p 3
expect_err_has 'partition 3'
expect_status 66 timeout 10 evbus tail -f -t orders -p 3
expect_err_has 'partition 3'

t 'a pattern merges topics; one that matches nothing is no failure, and a name that is not there is'
echo '{"id":"8"}' | evbus publish -q -t crm.lead.new
echo '{"id":"9"}' | evbus publish -q -t crm.lead
expect_status 0 evbus tail -t '>' -n 3 "${places[@]}"
expect_out_like 'orders/2/2 crm.lead.new/0/0 crm.lead/0/0 '
expect_status 0 evbus tail -t 'crm.*' "${places[@]}"
expect_out_like 'crm.lead/0/0 '
expect_status 0 evbus tail -t 'crm.>' -p 0 --count
expect_out 2
expect_status 0 evbus tail -t '>' -p 2 --count
expect_out 3
expect_status 0 evbus tail -t 'no.*'
expect_out ''
expect_status 66 evbus tail -t no
expect_err_has "'no'"
expect_status 66 evbus tail -b file:nowhere -t orders
expect_status 66 evbus tail -b file:nowhere -t 'o.*'
expect_true 'reading makes no bus' test ! -e nowhere

# ---- following ---------------------------------------------------------------------------------------------------

t '-f prints what comes, at once, and --max ends it'
fresh
events 1 3 | evbus publish -q -t orders
follow -t orders -n 1 --max 3 --format payload
wait_for 5 has_lines followed 1
events 4 4 | evbus publish -q -t orders
wait_for 5 has_lines followed 2
expect_true 'it goes on' test ! -s ended
events 5 5 | evbus publish -q -t orders
ended 0
expect_same followed <(events 3 5)

t '--timeout ends with 75, after what was there was printed'
expect_status 75 evbus tail -f -t orders -o 0 --max 9 --timeout 200ms "${offsets[@]}"
expect_out_like '0 1 2 3 4 '
expect_err_has '5 records'
expect_status 75 evbus tail -f -t orders -o 0 --timeout 100ms --count
expect_out 5
expect_status 0 evbus tail -f -t orders -o 0 --max 5 --timeout 10s --count
expect_status 0 evbus tail -t orders --timeout 10s --count

t 'a topic that is not there is waited for, and that is said'
fresh
follow -t orders --max 2 --format payload
wait_for 5 grep -q "'orders'" said
events 1 2 | evbus publish -q -t orders
ended 0
expect_same followed <(events 1 2)
expect_equal "$(grep -c waiting said)" 1 'how often it is said'
expect_status 75 evbus tail -f -b file:nowhere -t x --timeout 300ms
expect_true 'waiting makes no bus' test ! -e nowhere

t 'a pattern picks up topics that appear'
fresh
events 1 1 | evbus publish -q -t crm.a
follow -t 'crm.>' --max 4 --format '{topic} {/id}\n'
wait_for 5 has_lines followed 1
events 2 2 | evbus publish -q -t crm.b
wait_for 5 has_lines followed 2
events 3 3 | evbus publish -q -t crm.c.d
wait_for 5 has_lines followed 3
events 4 4 | evbus publish -q -t sales
events 5 5 | evbus publish -q -t crm.a
ended 0
expect_same followed <(printf 'crm.a 1\ncrm.b 2\ncrm.c.d 3\ncrm.a 5\n')

t 'it survives rolling'
fresh
evbus topic-create -q orders --segment-size 64K >/dev/null
follow -t orders -o beginning --max 6000 --format '{offset}\n'
for i in 1 2 3 4 5 6; do
	events 1 1000 | evbus publish -q -t orders
done
ended 0
expect_same followed <(seq 0 5999)
expect_true 'it was rolled' test "$(find event_bus/orders/partition=0 -name '*.jsonl' | wc -l)" -gt 5

t 'several partitions are followed'
fresh
evbus topic-create -q orders --partitions 4 >/dev/null
follow -t orders --max 8 --format '{/id}\n'
for i in 1 2 3 4 5 6 7 8; do
	echo "{\"id\":\"$i\"}" | evbus publish -q -t orders -p $((i % 4))
done
ended 0
expect_same <(sort followed) <(seq 1 8)

t 'an end that was asked for ends it, also while following'
fresh
events 0 2 | evbus publish -q -t orders
follow -t orders -o 0 --to-offset 5 "${offsets[@]}"
events 3 9 | evbus publish -q -t orders
ended 0
expect_equal "$(cat followed)" '0 1 2 3 4 '
sleep 0.01
events 10 10 | evbus publish -q -t orders
expect_status 0 timeout 10 evbus tail -f -t orders -U "$(evbus tail -t orders -n 1 --format '{published_at_utc}')" --count
expect_out 10

t 'filters hold while following, and --timeout also where nothing matches'
follow -t orders --where /id=wanted --max 1 --timeout 20s --format payload
events 1 9 | evbus publish -q -t orders
echo '{"id":"wanted"}' | evbus publish -q -t orders
ended 0
expect_same followed <(echo '{"id":"wanted"}')
follow -t orders --where /id=none --timeout 700ms
for i in 1 2 3 4 5 6 7 8; do
	events 1 1 | evbus publish -q -t orders
	sleep 0.1
done
ended 75

t 'SIGTERM and SIGINT end it, by the signal, after what was there was printed'
for case in TERM=143 INT=130; do
	expect_status "${case#*=}" timeout --preserve-status -s "${case%=*}" 0.5 evbus tail -f -t orders -o 0 --max 99 "${offsets[@]}"
	expect_out_like '0 1 2 3 4 5 6 7 8 9 10 *'
	expect_err ''
done

t 'a reader of stdout that had enough is no failure'
fresh
evbus topic-create -q big --segment-size 64K >/dev/null
for i in 1 2 3; do cat "$DATA/events.jsonl"; done | evbus publish -q -t big
set -o pipefail
expect_status 0 sh -c 'set -e; { evbus tail -t big -o 0 || echo "status $?" >&2; } | head -n 1 >/dev/null'
expect_err ''
set +o pipefail
# Nothing more comes: it is noticed nevertheless.
expect_status 0 timeout 10 sh -c '{ evbus tail -f -t big -n 1 || echo "status $?" >&2; } | head -n 1'
expect_lines 1
expect_err ''
expect_status 74 sh -c 'evbus tail -t big >/dev/full'
expect_err_has 'No space left'

t 'a topic that is removed or made anew while it is followed is told, also an empty one'
fresh
events 1 3 | evbus publish -q -t orders
follow -t orders --format payload
wait_for 5 has_lines followed 3
rm -r event_bus/orders
events 4 4 | evbus publish -q -t orders
ended 76
expect_true 'it is explained' grep -q "'orders'" said
evbus topic-create -q empty >/dev/null
follow -t empty --format payload -v
wait_for 5 test -s said
rm -r event_bus/empty
events 4 4 | evbus publish -q -t empty
ended 76
expect_true 'it is explained' grep -q "'empty'" said

# ---- groups ------------------------------------------------------------------------------------------------------

t '-g begins at the checkpoint, and a group that has none at the beginning'
fresh
events 0 4 | evbus publish -q -t orders
evbus checkpoint-set -q -g billing -t orders -o 3 >/dev/null
expect_status 0 evbus tail -t orders -g billing "${offsets[@]}"
expect_out_like '3 4 '
expect_status 0 evbus tail -t orders -g billing -o stored --max 1 "${offsets[@]}"
expect_out_like '3 '
expect_status 0 evbus tail -t orders -g billing -o 1 --to-offset stored "${offsets[@]}"
expect_out_like '1 2 '
expect_status 0 evbus tail -t orders -g new "${offsets[@]}"
expect_out_like '0 1 2 3 4 '
expect_status 64 evbus tail -t orders -o stored
expect_err_has --group
expect_equal "$(evbus checkpoint-get -g billing -t orders --format tsv | cut -f 4)" 3 'the checkpoint'

t 'a log that was cut, restored or made anew since the checkpoint is refused, and it is said what was found'
cp -a event_bus saved
events 5 9 | evbus publish -q -t orders
evbus checkpoint-set -q -g billing -t orders -o 8 >/dev/null
cp -a event_bus/orders later
rm -r event_bus/orders
cp -a saved/orders event_bus/orders
expect_status 76 evbus tail -t orders -g billing
expect_err_has 'ends at offset 5'
events 15 29 | evbus publish -q -t orders
expect_status 76 evbus tail -t orders -g billing
expect_err_has checksum
expect_out ''
rm -r event_bus/orders
events 1 20 | evbus publish -q -t orders
expect_status 76 evbus tail -t orders -g billing
expect_err_has 'another log'
rm -r event_bus/orders
cp -a later event_bus/orders
expect_status 0 evbus tail -t orders -g billing "${offsets[@]}"
expect_out_like '8 9 '

# ---- damage ------------------------------------------------------------------------------------------------------

t 'a damaged line is told after what stands before it was printed'
fresh
events 0 19 | evbus publish -q -t orders
spoil event_bus/orders/partition=0.jsonl 6
expect_status 74 evbus tail -t orders -n 20 "${offsets[@]}"
expect_out_like '0 1 2 3 4 '
expect_err_has "topic 'orders', partition 0 is damaged at offset 5"
expect_status 74 evbus tail -t orders -n 20 --log json
expect_true 'it is JSON' grep -q '^{"time":.*"level":"error","command":"tail","message":".*","topic":"orders",.*"code":74}$' "$ERR"

t 'damage is not in the way of what stands behind it'
expect_status 0 evbus tail -t orders -n 3 "${offsets[@]}"
expect_out_like '17 18 19 '
expect_status 0 evbus tail -t orders -o 6 --max 1 "${offsets[@]}"
expect_out_like '6 '
expect_status 74 evbus tail -t orders -o 5

t 'a log that was cut is not taken for its end'
truncate -s -10 event_bus/orders/partition=0.jsonl
expect_status 76 evbus tail -t orders -n 2
expect_err_has 'cut or restored'

t 'what was not synced is not shown'
fresh
events 1 2 | evbus publish -q -t orders
printf '{"crc32c":"00000000","offset":"2"' >>event_bus/orders/partition=0.jsonl
expect_status 0 evbus tail -t orders --count
expect_out 2
rm event_bus/orders/partition=0.lock
expect_status 0 evbus tail -t orders --count
expect_out 2

# ---- with others -------------------------------------------------------------------------------------------------

t 'tail into publish --records copies a bus without loss'
fresh
evbus topic-create -q a.events --partitions 3 >/dev/null
evbus publish -q -t a.events --key-from /event_id,/id,/eventId "$DATA/events.jsonl"
evbus publish -q -t a.awkward "$DATA/awkward.jsonl"
evbus topic-create -q -b other a.events --partitions 3 >/dev/null
evbus tail -t 'a.>' -o beginning | expect_status 0 evbus publish -q -b other --records
for topic in a.events a.awkward; do
	for p in 0 1 2; do
		[ -e event_bus/$topic/partition=$p.jsonl ] || continue
		expect_same <(evbus tail -b other -t $topic -p $p -o 0 --format '{offset} {partition_key} {payload}\n') \
			<(evbus tail -t $topic -p $p -o 0 --format '{offset} {partition_key} {payload}\n')
	done
done

t 'webhook events come out as they went in'
fresh
if [ -n "$WEBHOOKS" ]; then
	evbus publish -q -t hooks "$WEBHOOKS"
	expect_status 0 evbus tail -t hooks -o beginning --format payload
	expect_same "$OUT" "$WEBHOOKS"
else
	skip 'no webhook events here'
fi

#!/usr/bin/env bash
# verify: proving logs, telling what is damaged, cutting.
. "${0%/*}/lib.sh"
plan 24

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
log=event_bus/orders/partition=0.jsonl
# begin_of N: the byte at which the Nth line of the log begins.
begin_of() {
	head -n $(($1 - 1)) "$log" | wc -c
}
# write_at BYTE TEXT
write_at() {
	printf %s "$2" | dd of="$log" bs=1 seek="$1" conv=notrunc status=none
}
# spoil N: changes a byte of the payload of line N.
spoil() {
	write_at $(($(begin_of $(($1 + 1))) - 5)) X
}
# findings: topic, partition, offset, byte, what and severity of each, from $OUT as TSV.
findings() {
	cut -f 1-6 "$OUT" | tr '\t' ' '
}
# seal: lines without crc32c, from "offset" to the brace, as they stand in a log.
seal() {
	python3 -c '
import sys
table = []
for i in range(256):
    for _ in range(8):
        i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
    table.append(i)
for line in sys.stdin.buffer:
    crc = 0xffffffff
    for byte in line.rstrip(b"\n"):
        crc = table[(crc ^ byte) & 0xff] ^ crc >> 8
    sys.stdout.buffer.write(b"{\"crc32c\":\"%08x\"," % (crc ^ 0xffffffff) + line)
'
}
unseal() {
	sed -E 's/^\{"crc32c":"[0-9a-f]{8}",//'
}
# cut_at OFFSET: it can be cut there, and is whole then.
cut_at() {
	expect_status 0 evbus verify -t orders --repair --cut-at "$1"
	expect_out_like "whole: 1 topic, 1 partition, $1 record*, no notes"
	expect_status 0 evbus publish -q -t orders <<<'{"id":"behind the cut"}'
}
# make_log: a log of the lines on stdin, which nobody has open.
make_log() {
	cat >made
	rm -f event_bus/orders/partition=0.lock
	cp made "$log"
}

# ---- whole -------------------------------------------------------------------------------------------------------

t 'a whole bus'
cat "$DATA/events.jsonl" "$DATA/awkward.jsonl" | evbus publish -q -t orders
evbus topic-create -q crm.lead --partitions 3 >/dev/null
events 1 3 | evbus publish -q -t crm.lead -p 1
bytes=$(cat event_bus/*/*.jsonl | wc -c)
expect_status 0 evbus verify
expect_out "whole: 2 topics, 4 partitions, 305 records, $bytes bytes, no notes"
expect_err ''
expect_status 0 evbus verify --format json
expect_out "{\"summary\":{\"topics\":2,\"partitions\":4,\"records\":305,\"bytes\":$bytes,\"notes\":0,\"damages\":0}}"
expect_status 0 evbus verify --format tsv
expect_out ''
expect_err "evbus verify: whole: 2 topics, 4 partitions, 305 records, $bytes bytes, no notes"
expect_status 0 evbus verify --repair
expect_status 64 evbus verify --format yaml

t 'a pattern, a topic, a partition'
expect_status 0 evbus verify -t 'crm.>'
expect_out_like 'whole: 1 topic, 3 partitions, 3 records, *'
expect_status 0 evbus verify -t crm.lead -p 1
expect_out_like 'whole: 1 topic, 1 partition, 3 records, *'
expect_status 0 evbus verify -p 1
expect_out_like 'whole: 1 topic, 1 partition, 3 records, *'

t 'nothing to verify is 66, also of a pattern'
expect_status 66 evbus verify -t nothing
expect_err_has "'nothing'"
expect_status 66 evbus verify -t 'no.>'
expect_status 66 evbus verify -t crm.lead -p 3
expect_err_has 'partition 3'
expect_status 66 evbus verify -p 3
expect_status 66 evbus verify -b nowhere
expect_out ''
expect_true 'no bus was made' test ! -e nowhere

t 'many segments, and a log that is being written'
fresh
evbus topic-create -q orders --segment-size 64K >/dev/null
events 0 3999 | evbus publish -q -t orders
expect_status 0 evbus verify
expect_out_like 'whole: 1 topic, 1 partition, 4000 records, *'
events 0 19999 | evbus publish -q -t orders &
for i in 1 2 3 4 5 6 7 8; do
	expect_status 0 evbus verify --deep -q --format tsv
	expect_equal "$(grep -vc duplicate "$OUT")" 0 'findings'
done
wait

# ---- damage ------------------------------------------------------------------------------------------------------

t 'a byte that was changed'
fresh
events 0 9 | evbus publish -q -t orders
spoil 6
expect_status 1 evbus verify --format tsv
expect_equal "$(findings)" "orders 0 5 $(begin_of 6) checksum damage" 'findings'
expect_status 1 evbus verify
expect_out_like "TOPIC   PARTITION_ID  OFFSET  BYTE  WHAT      SEVERITY  TEXT
orders             0       5   *$(begin_of 6)  checksum  damage    *checksum*
damaged in 1 place: 1 topic, 1 partition, 9 records, * bytes, no notes"
expect_err_has 'evbus verify -t orders -p 0 --repair --cut-at 5'
expect_equal "$(wc -l <"$ERR")" 1 'lines of stderr'
expect_status 1 evbus verify --format json
expect_out_like "{\"topic\":\"orders\",\"partition_id\":0,\"offset\":\"5\",\"byte\":$(begin_of 6),\"what\":\"checksum\",\"severity\":\"damage\",\"text\":\"*\"}
{\"summary\":{\"topics\":1,\"partitions\":1,\"records\":9,\"bytes\":*,\"notes\":0,\"damages\":1}}"
expect_status 1 sh -c 'evbus verify --format json --log json 2>&1 >/dev/null'
expect_out_like '{*"level":"warning","command":"verify","message":"*cut-at 5*"}'

t 'several findings, and what is whole behind them'
spoil 2
write_at "$(begin_of 9)" '?'
expect_status 1 evbus verify --format tsv
expect_equal "$(findings)" "orders 0 1 $(begin_of 2) checksum damage
orders 0 5 $(begin_of 6) checksum damage
orders 0 8 $(begin_of 9) shape damage" 'findings'
expect_status 1 evbus verify
expect_out_has 'damaged in 3 places: 1 topic, 1 partition, 7 records'

t 'a reader of stdout that goes away does not change the answer'
expect_status 0 sh -c '{ evbus verify --format json; echo "status $?" >&2; } | true'
expect_err_has 'status 1'
expect_status 74 sh -c 'evbus topic-create -q ok >/dev/null; evbus verify -t ok >/dev/full'

t 'a gap, an offset that stands twice, a time that goes back'
fresh
events 0 9 | evbus publish -q -t orders
cp $log saved
sed 4d saved | make_log
expect_status 1 evbus verify --format tsv
expect_equal "$(findings)" "orders 0 3 $(begin_of 4) gap damage" 'findings'
cut_at 3
sed 4p saved | make_log
expect_status 1 evbus verify --format tsv
expect_equal "$(findings | head -n 1)" "orders 0 4 $(begin_of 5) order damage" 'findings'
cut_at 4
if command -v python3 >/dev/null; then
	sed '7s/"published_at_utc":"20../"published_at_utc":"2001/' saved | unseal | seal | make_log
	expect_status 1 evbus verify --format tsv
	expect_equal "$(findings)" "orders 0 6 $(begin_of 7) order damage" 'findings'
	cut_at 6
fi

t 'an atomic batch that is not whole'
fresh
events 0 1 | evbus publish -q -t orders
events 2 5 | evbus publish -q -t orders --atomic
events 6 9 | evbus publish -q -t orders
expect_status 0 evbus verify
if command -v python3 >/dev/null; then
	sed '6s/,"batch":"2-5"//' $log | unseal | seal >changed
	make_log <changed
	expect_status 1 evbus verify --format tsv
	expect_equal "$(findings)" "orders 0 2 $(begin_of 3) batch damage" 'findings'
	cut_at 2
fi

t 'segments that are missing or do not meet'
fresh
evbus topic-create -q orders --segment-size 64K >/dev/null
events 0 2999 | evbus publish -q -t orders
mapfile -t segments < <(printf '%s\n' event_bus/orders/partition=0/*.jsonl)
mv "${segments[1]}" away
expect_status 1 evbus verify --format tsv
first=${segments[1]##*/} next=${segments[2]##*/}
first=${first%.jsonl} next=${next%.jsonl}
expect_equal "$(findings)" "orders 0 $((10#$first)) $(wc -c <"${segments[0]}") segment damage" 'findings'
expect_out_has "$((10#$next))"
mv away "${segments[1]}"
expect_status 0 evbus verify
truncate -s -20 "${segments[1]}"
expect_status 1 evbus verify --format tsv
expect_out_has damage

t 'a log whose beginning is gone is told'
fresh
evbus topic-create -q orders --segment-size 64K >/dev/null
events 0 2999 | evbus publish -q -t orders
rm event_bus/orders/partition=0/00000000000000000000.jsonl
expect_status 0 evbus verify --format tsv
expect_equal "$(findings)" 'orders 0 0 0 segment note' 'findings'

t 'a log that is shorter than what was acknowledged'
fresh
events 0 9 | evbus publish -q -t orders
truncate -s -20 $log
expect_status 1 evbus verify --format tsv
expect_out_has $'\tsegment\tdamage\t'
expect_out_has 'was cut'
expect_status 1 evbus verify --repair --format tsv
expect_out_has $'\tsegment\tdamage\t'

t 'a checkpoint that does not fit its log'
fresh
events 0 9 | evbus publish -q -t orders
evbus checkpoint-set -q -g billing -t orders -o 8 >/dev/null
expect_status 0 evbus verify
rm -r event_bus/orders
events 0 9 | evbus publish -q -t orders
expect_status 1 evbus verify --format tsv
expect_equal "$(findings)" 'orders 0 8 0 checkpoint damage' 'findings'
expect_err_has checkpoint-set
expect_true 'no cut is proposed' sh -c "! grep -q cut-at '$ERR'"

t 'more findings than a table shows are counted, and JSON has them all'
fresh
events 0 1199 | evbus publish -q -t orders
sed 's/"id":/"ID":/' $log >changed
dd if=changed of=$log conv=notrunc status=none
expect_status 1 evbus verify
expect_out_has '… and 200 more'
expect_out_has 'damaged in 1200 places'
expect_lines 1003
expect_status 1 evbus verify --format json
expect_lines 1201

# ---- an interrupted write ----------------------------------------------------------------------------------------

t 'an interrupted write is a note, and no damage'
fresh
events 0 9 | evbus publish -q -t orders
printf '{"crc32c":"00' >>$log
size=$(($(wc -c <$log) - 13))
expect_status 0 evbus verify --format tsv
expect_equal "$(findings)" "orders 0 10 $size tail note" 'findings'
expect_out_has '13 bytes'
expect_status 0 evbus verify
expect_out_has '1 note'

t '--repair cuts it, after copying it'
expect_status 0 evbus verify --repair
expect_out_like 'whole: *, no notes'
expect_err_has 'kept as'
expect_equal "$(wc -c <$log)" "$size" 'bytes of the log'
expect_equal "$(cat event_bus/orders/partition=0.torn-10-*)" '{"crc32c":"00' 'the copy'
expect_status 0 evbus verify
expect_out_has 'no notes'

t '--repair does not touch damage'
spoil 3
cp $log saved
expect_status 1 evbus verify --repair
expect_out_has checksum
expect_same $log saved
rm event_bus/orders/partition=0.lock
expect_status 1 evbus verify --repair --format tsv
expect_out_has checksum
expect_same $log saved

# ---- cutting -----------------------------------------------------------------------------------------------------

t '--cut-at cuts where damage was reported, and nowhere else'
fresh
events 0 9 | evbus publish -q -t orders
spoil 6
spoil 8
cp $log saved
for offset in 0 4 6 9 10 99; do
	expect_status 76 evbus verify -t orders --repair --cut-at $offset
	expect_same $log saved
done
expect_status 76 evbus verify -t orders --repair --cut-at 7
expect_err_has 'first'
expect_status 64 evbus verify -t orders --repair --cut-at x
expect_status 64 evbus verify -t orders --cut-at 5
expect_err_has --repair
expect_status 64 evbus verify --repair --cut-at 5
expect_err_has --topic
expect_same $log saved
expect_status 0 evbus verify -t orders --repair --cut-at 5
expect_out_like 'whole: 1 topic, 1 partition, 5 records, *'
expect_err_has 'kept as'
expect_same $log <(head -n 5 saved)
expect_same <(cat event_bus/orders/partition=0.torn-5-*) <(tail -n +6 saved)
expect_status 0 evbus publish -t orders --format '{offset}\n' <<<'{"id":"new"}'
expect_out 5

t 'of several partitions one has to be named'
fresh
evbus topic-create -q orders --partitions 2 >/dev/null
events 0 9 | evbus publish -q -t orders -p 0
events 0 9 | evbus publish -q -t orders -p 1
spoil 6
expect_status 64 evbus verify -t orders --repair --cut-at 5
expect_err_has --partition
expect_status 76 evbus verify -t orders -p 1 --repair --cut-at 5
expect_status 0 evbus verify -t orders -p 0 --repair --cut-at 5

t 'an older segment is not cut'
fresh
evbus topic-create -q orders --segment-size 64K >/dev/null
events 0 2999 | evbus publish -q -t orders
log=event_bus/orders/partition=0/00000000000000000000.jsonl
spoil 6
expect_status 1 evbus verify --format tsv
expect_status 76 evbus verify -t orders --repair --cut-at 5
expect_err_has 'older segment'
log=event_bus/orders/partition=0.jsonl

# ---- deep --------------------------------------------------------------------------------------------------------

t '--deep finds event ids that stand twice'
fresh
evbus topic-create -q orders --partitions 2 >/dev/null
for i in 1 2 3; do echo "{\"event_id\":\"e$i\",\"tenant_id\":\"a\"}"; done | evbus publish -q -t orders -p 0
for i in 2 4 2; do echo "{\"tenant_id\":\"a\",\"event_id\":\"e$i\"}"; done | evbus publish -q -t orders -p 1
echo '{"tenant_id":"b","event_id":"e1"}' | evbus publish -q -t orders -p 1
echo '{"specversion":"1.0","source":"x","id":"e1"}' | evbus publish -q -t orders -p 1
expect_status 0 evbus verify
expect_out_has 'no notes'
expect_status 0 evbus verify --deep --format tsv
log=event_bus/orders/partition=1.jsonl
expect_equal "$(findings | sort)" "orders 1 0 $(begin_of 1) duplicate note
orders 1 2 $(begin_of 3) duplicate note" 'findings'
expect_out_has "'e2'"
expect_out_has 'partition 0, offset 1'
log=event_bus/orders/partition=0.jsonl
# Long ids, of which two are the same.
fresh
long=$(head -c 3000 /dev/zero | tr '\0' a)
for end in 1 2 1; do echo "{\"event_id\":\"$long$end\"}"; done | evbus publish -q -t orders
expect_status 0 evbus verify --deep --format tsv
expect_equal "$(findings)" "orders 0 2 $(begin_of 3) duplicate note" 'findings'

t '--deep finds events out of the order in which they occurred'
fresh
for time in 2026-01-01T00:00:02Z 2026-01-01T00:00:03Z 2026-01-01T00:00:01Z 2026-01-01T00:00:04Z; do
	echo "{\"occurred_at\":\"$time\"}"
done | evbus publish -q -t orders
expect_status 0 evbus verify --deep --format tsv
expect_equal "$(findings)" "orders 0 2 $(begin_of 3) occurred_at note" 'findings'

t '--deep finds nothing in the samples but what is there'
fresh
evbus publish -q -t orders "$DATA/awkward.jsonl" ${WEBHOOKS:+"$WEBHOOKS"}
expect_status 0 evbus verify --deep --format json
expect_out_has '"damages":0'

t '--deep finds a payload that is no JSON object, though its checksum is right'
fresh
events 0 4 | evbus publish -q -t orders
if command -v python3 >/dev/null; then
	sed '3s/"payload":{"id":"2"}/"payload":{"id":"2",}/' $log | unseal | seal >changed
	make_log <changed
	expect_status 0 evbus verify
	expect_status 1 evbus verify --deep --format tsv
	expect_equal "$(findings)" "orders 0 2 $(begin_of 3) payload damage" 'findings'
else
	skip 'no python3 here'
fi

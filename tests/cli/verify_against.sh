#!/usr/bin/env bash
# verify --against: whether two buses have the same for each key; and copies by replay --to-bus.
. "${0%/*}/lib.sh"
plan 14

# lines KEY...: an event of each key in turn, with its number among them.
lines() {
	local n=0 key
	for key; do
		printf '{"k":"%s","n":%d}\n' "$key" $((n++))
	done
}
# order N...: these lines of stdin, in this order.
order() {
	local all i
	mapfile -t all
	for i; do
		printf '%s\n' "${all[i - 1]}"
	done
}
# make BUS PARTITIONS: a topic `orders` with the lines of stdin, by their keys.
make() {
	[ -d "$1" ] || mkdir "$1"
	evbus topic-create -q -b "$1" orders --partitions "$2" >/dev/null
	evbus publish -q -b "$1" -t orders --key-from /k
}
# findings: topic, partition, offset and what of each.
findings() {
	cut -f 1-3,5 "$OUT" | tr '\t' ' '
}
against() { # BUS...: compares a with it, as TSV
	evbus verify -b a --format tsv --against "$@"
}

keys=(k1 k2 k3 k1 k2 k4 k1 k5 k3 k1)
lines "${keys[@]}" | make a 3

# ---- the same ----------------------------------------------------------------------------------------------------

t 'a copy is the same, and so is the copy of a copy in the place of the first'
expect_status 0 evbus replay -q -b a -t orders --to-bus b
expect_status 0 evbus replay -q -b b -t orders --to-bus c
for bus in b c; do
	expect_status 0 evbus verify -b a --against "$bus"
	expect_out_like 'the same: 1 topic, 3 partitions, 10 records, * bytes'
	expect_err ''
done
expect_status 0 evbus verify -b a -t orders --against file:c --format json
expect_out_like '{"summary":{"topics":1,"partitions":3,"records":10,"bytes":*,"notes":0,"damages":0}}'

t 'partitions may be others, and offsets'
lines "${keys[@]}" | make d 7
lines "${keys[@]}" | make e 1
expect_status 0 against d
expect_status 0 against e
expect_status 0 evbus verify -b d --against e

t 'events of different keys may have changed places'
lines "${keys[@]}" | order 3 2 1 {4..10} | make f 3
expect_status 0 against f

# ---- differences -------------------------------------------------------------------------------------------------

t 'one that is missing in the middle'
lines "${keys[@]}" | sed 4d | make g 1
expect_status 1 against g
expect_equal "$(wc -l <"$OUT")" 1 findings
offset=$(evbus replay -b a -t orders --where /n=3 --format json | sed -E 's/.*"offset":"([0-9]+)".*/\1/')
expect_out_has "orders	$(evbus replay -b a -t orders --where /n=3 --format json | sed -E 's/.*"partition_id":([0-9]+).*/\1/')	$offset	0	differs	damage	record 2 with the key \"k1\": there it is another one, at partition 0, offset 5"
expect_err_like 'evbus verify: different in 1 place: *'

t 'one byte that is another one'
lines "${keys[@]}" | sed '6s/5/6/' | make h 1
expect_status 1 evbus verify -b a --against h
expect_out_has 'record 1 with the key "k4": there it is another one, at partition 0, offset 5'
expect_out_has 'different in 1 place: '
expect_err ''

t 'two of one key that have changed places'
lines "${keys[@]}" | order 1 2 9 {4..8} 3 10 | make i 1
expect_status 1 against i
expect_out_has 'record 1 with the key "k3": there it is another one'
expect_equal "$(wc -l <"$OUT")" 1 findings

t 'one more at the end, on either side'
(lines "${keys[@]}" && echo '{"k":"k2","n":9}') | make j 1
expect_status 1 against j
expect_equal "$(findings)" 'orders 0 10 more' findings
expect_out_has 'record 3 with the key "k2" is only on the other bus'
expect_status 1 evbus verify -b j --against a --format tsv
expect_equal "$(findings)" 'orders 0 10 missing' findings
expect_out_has 'record 3 with the key "k2" is not on the other bus'

t 'records without a key are compared by their partition'
printf '{"n":1}\n{"n":2}\n' | tee two | evbus publish -q -b l -t plain
evbus publish -q -b m -t plain <two
expect_status 0 evbus verify -b l --against m
echo '{"n":3}' | evbus publish -q -b m -t plain
expect_status 1 evbus verify -b l --against m --format tsv
expect_equal "$(findings)" 'plain 0 2 more' findings
expect_out_has 'record 3 without a key is only'

t 'a topic that is not there is an empty one, and patterns choose'
evbus topic-create -q -b m empty >/dev/null
evbus publish -q -b m -t crm.lead <two
evbus publish -q -b m -t crm.order <two
expect_status 1 evbus verify -b m --against l --format tsv
expect_equal "$(findings)" 'crm.lead 0 0 missing
crm.order 0 0 missing
plain 0 2 missing' findings
expect_status 0 evbus verify -b m -t empty --against l
expect_status 1 evbus verify -b l -t 'crm.*' --against m --format tsv
expect_equal "$(findings)" 'crm.lead 0 0 more
crm.order 0 0 more' findings
expect_status 66 evbus verify -b l -t none --against m
expect_err_has "neither bus has a topic that matches 'none'"
expect_status 66 evbus verify -b l --against nowhere
expect_err_has "of the other bus: there is no bus at 'nowhere'"

t 'of many keys that differ the first are told, and how many more there are'
seq 1000 1999 | sed 's/.*/{"k":"&"}/' | make n 2
seq 1000 1999 | sed 's/.*/{"k":"&","x":1}/' | make o 2
expect_status 1 evbus verify -b n --against o --format tsv
expect_equal "$(wc -l <"$OUT")" 11 findings
expect_out_has '990 more keys have other payloads on the other bus'

t 'where there are more keys than there is room for, it is read more than once'
seq 400000 | sed 's/.*/{"k":"&"}/' >many
make q 2 <many
sed '1,3d' many | cat - <(head -3 many) | make r 3
expect_status 0 evbus verify -b q --against r
sed '399999s/}/,"x":1}/' many | make s 1
expect_status 1 evbus verify -b q --against s --format tsv
expect_equal "$(wc -l <"$OUT")" 1 findings
expect_out_has 'record 1 with the key "399999": there it is another one, at partition 0, offset 399998'

t 'what does not go together is refused'
for option in --deep --repair --rebuild-keys '--partition 0'; do
	# shellcheck disable=SC2086 # two words
	expect_status 64 against b $option
	expect_err_has 'compares whole topics'
done
expect_status 64 against b --repair --cut-at 3
expect_status 78 against nothing:there

# ---- buses that are not files --------------------------------------------------------------------------------------

t 'a copy goes to a bus that has no segments, and a wrong option of it is told'
expect_status 0 evbus replay -b a -t orders --to-bus 'memory:x?bytes=4194304'
expect_lines 10
expect_out_has '"offset_kind":"memory_index"'
expect_status 78 evbus replay -b a -t orders --to-bus 'memory:x?bytez=1'
expect_err_has "publishing to 'memory:x?"

t 'no password is shown'
expect_status 78 evbus replay -b a -t orders --to-bus 'nothing://user:secret@host'
grep -q secret "$ERR" && fail "it shows the password: $(cat "$ERR")"
expect_status 78 evbus verify -b a --against 'nothing://user:secret@host'
grep -q secret "$ERR" && fail "it shows the password: $(cat "$ERR")"
expect_err_has "'nothing://"

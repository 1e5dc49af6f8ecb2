#!/usr/bin/env bash
# What goes wrong around a bus at three in the morning: mistyped names, files that were removed or cut.
. "${0%/*}/lib.sh"
plan 11

live=event_bus/o/partition=0.jsonl
# A new bus with 20 records in topic o and 1 in topic a.
make_bus() {
	fresh
	seq 1 20 | sed 's/.*/{"id":"&"}/' | evbus publish -q -t o 2>/dev/null
	echo '{"id":"a"}' | evbus publish -q -t a 2>/dev/null
}

t 'a mistyped bus is no directory'
fresh
for url in s3://x h2://x S://x x1:foo ftp:x; do
	echo '{}' | expect_status 78 evbus publish -t o -b "$url"
	expect_err_has 'the bus is file:DIR'
done
expect_equal "$(ls)" ''
echo '{}' | expect_status 0 evbus publish -q -t o -b FILE:bus
expect_true 'the scheme is known in capitals' test -d bus/o

t 'a mistyped store is no file'
make_bus
expect_status 78 evbus checkpoint-set -g g -t o -o 1 --store file:other.db
expect_err_has 'sqlite:FILE'

t 'a lost topic.json does not hide a log'
make_bus
rm event_bus/o/topic.json
echo '{}' | expect_status 76 evbus publish -t o
expect_err_has 'topic.json was removed'
expect_status 76 evbus tail -t o
expect_status 1 evbus verify
expect_out_has 'topic.json was removed'
expect_status 0 evbus topic-list --format tsv

t 'verify goes on behind a log that cannot be read'
make_bus
rm "$live"
echo garbage >event_bus/a/topic.json
expect_status 1 evbus verify
expect_out_has 'was removed, and records up to 20 were acknowledged'
expect_out_has "'a/topic.json' is damaged"

t 'a log that was removed is not made anew'
make_bus
rm "$live"
echo '{}' | expect_status 76 evbus publish -t o
expect_err_has 'was removed'
expect_true 'there is no new file' test ! -e "$live"

t 'a log that was cut at the end of a line can be accepted as it is'
make_bus
head -n 15 "$live" >kept
truncate -s "$(stat -c %s kept)" "$live"
expect_status 1 evbus verify -t o
expect_out_has 'it was cut'
expect_status 76 evbus topic-describe o
echo '{}' | expect_status 76 evbus publish -t o
expect_status 76 evbus verify -t o --repair --cut-at 14
evbus verify -t o --repair --cut-at 15 >/dev/null 2>&1
expect_status 0 evbus verify -t o
echo '{}' | expect_status 0 evbus publish -t o
expect_out_has '"offset":"15"'

t 'a log that was emptied can be accepted as it is'
make_bus
: >"$live"
evbus verify -t o --repair --cut-at 0 >/dev/null 2>&1
expect_status 0 evbus verify -t o
echo '{}' | expect_status 0 evbus publish -t o
expect_out_has '"offset":"0"'

t 'a follower notices that what it read was cut off'
make_bus
{ sleep 1; truncate -s -40 "$live"; } &
expect_status 76 timeout 10 evbus tail -t o -f -n 1
expect_err_has 'was cut'
wait

t 'a checkpoint on a topic that is gone is found'
make_bus
evbus checkpoint-set -q -g g -t o -o 5 >/dev/null
rm -r event_bus/o
expect_status 1 evbus verify
expect_out_has "group 'g' has a checkpoint here, and the topic is gone"

t 'a group without a checkpoint, and an offset behind the end, are told'
make_bus
expect_status 0 evbus replay -t o -g typo --count
expect_err_has "group 'typo' has no checkpoint on topic 'o'"
expect_status 0 evbus tail -t o -o 99
expect_err_has "offset 99 is behind the end of topic 'o', partition 0, which is 20"

t 'there is no bus is said for a pattern, too'
fresh
expect_status 66 evbus tail -t '>' -b nowhere
expect_err_has "there is no bus at 'nowhere'"
expect_status 66 evbus replay -t 'x.>' -b nowhere --count

#!/usr/bin/env bash
# What others have put on a server and is no JSON object, and what becomes of it; and where a bus on a server has its store.
. "${0%/*}/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 9

# raw TOPIC BASE64 [MEMBERS]: publishes bytes
raw() {
	printf '{"topic":"%s"%s,"payload":null,"payload_base64":"%s"}\n' "$1" "${3-}" "$2" |
		evbus publish -q --records
}
# mixed: three events, and bytes between the first two of them
mixed() {
	evbus publish -q -t t <<<'{"id":"1"}'
	raw t /wAKeA== ',"partition_key":"k"'
	printf '{"id":"2"}\n{"id":"3"}\n' | evbus publish -q -t t
}

t 'there is a server, and the module'
must_serve nats broker server nats
url=$ANSWER
ok

t 'it is printed as what it is'
begin
mixed
expect_status 0 evbus tail -t t -n 3 --max 1
expect_out_like '*"offset":"2",*"partition_key":"k","payload":null,"payload_base64":"/wAKeA=="}'
evbus tail -t t -n 3 --max 1 --format payload >bytes
expect_same bytes <(printf '\377\000\nx\n')
evbus tail -t t -n 3 --max 1 --format '{payload}{/id}{event_id}' >bytes
expect_same bytes <(printf '\377\000\nx')
expect_status 0 evbus tail -t t -n 3 --max 1 --format tsv
expect_out_like $'t\t0\tnats_sequence\t2\t*\tk\t\\\\N'
expect_status 0 evbus tail -t t -n 3 --max 1 --format pretty
expect_out_has 'payload_base64 /wAKeA=='
expect_status 0 evbus tail -t t -o beginning --where /id=2 --format payload
expect_out '{"id":"2"}'

t 'no handler sees it: it is a dead letter, byte for byte'
begin
mixed
expect_status 1 evbus consume -g g -t t -- sh -c 'cat >>seen'
expect_same seen <(printf '{"id":"%d"}\n' 1 2 3)
expect_status 0 evbus dlq-list --format tsv
expect_lines 1
expect_out_has $'\tnot_json\t'
evbus dlq-show 1 --format payload >bytes
expect_same bytes <(printf '\377\000\nx\n')
expect_status 0 evbus dlq-list --format json --payload
expect_out_has '"payload":null,"payload_base64":"/wAKeA=="'
expect_status 0 evbus dlq-retry 1
expect_status 1 evbus consume -q -g g -t t -- sh -c 'cat >>seen'
expect_same seen <(printf '{"id":"%d"}\n' 1 2 3)
expect_equal "$(evbus checkpoint-get -g g -t t --format json | jq -r .next_offset)" 5 'the checkpoint'

t 'it goes to another server as it is'
begin
mixed
raw t ''
expect_status 0 evbus replay -q -t t --to-bus "$url?prefix=$prefix-copy"
expect_same <(evbus tail -b "$url?prefix=$prefix-copy" -t t -o beginning --format payload) \
	<(evbus tail -t t -o beginning --format payload)
expect_status 0 evbus tail -b "$url?prefix=$prefix-copy" -t t -n 4 --max 1
expect_out_has "\"partition_key\":\"k\",\"origin\":\"t/0/2\",\"payload\":null,\"payload_base64\":\"/wAKeA==\""
expect_status 0 evbus tail -b "$url?prefix=$prefix-copy" -t t -n 1
expect_out_has '"payload":null,"payload_base64":""'

t 'files do not take it, unless it is skipped'
begin
mixed
expect_status 65 evbus replay -q -t t --to-bus file:copy
expect_err_has "record t/0/2: the event is not one JSON object"
expect_equal "$(evbus tail -b file:copy -t t -o beginning --format payload | paste -sd ' ')" '{"id":"1"}' 'the copy'
expect_status 1 evbus replay -q -t t --to-bus file:other --on-error skip
expect_err_has 'record t/0/2: the event is not one JSON object'
expect_err_has 'refused 1 of 4 events'
expect_equal "$(evbus tail -b file:other -t t -o beginning --format payload | paste -sd ' ')" \
	'{"id":"1"} {"id":"2"} {"id":"3"}' 'the copy'

t 'a command of a replay does not see it either'
begin
mixed
expect_status 1 evbus replay -t t -- cat
expect_out '{"id":"1"}'
expect_err_has 'record t/0/2: the payload is not one JSON object'
expect_status 1 evbus replay -t t --on-error skip -- cat
expect_out $'{"id":"1"}\n{"id":"2"}\n{"id":"3"}'

t 'what is no base64 is refused, and so is what is too large'
begin
for base64 in /wA '/w A' '=' '/wAKeB=='; do
	expect_status 65 raw t "$base64"
	expect_err_has 'no base64'
done
expect_status 65 evbus publish --records --max-payload 3 <<<'{"topic":"t","payload":null,"payload_base64":"/wAKeA=="}'
expect_err_has '4 bytes, and 3 is the most'

t 'the state of groups is with the user where no store is chosen'
begin
unset EVBUS_STORE
export XDG_STATE_HOME=$PWD/user/state
mixed
expect_status 0 evbus checkpoint-list -g g --format tsv
expect_true 'reading makes nothing' test ! -e user
expect_status 1 evbus consume -g g -t t -- true
expect_err_has "made the store '$XDG_STATE_HOME/evbus/state.db'"
expect_equal "$(stat -c %a user user/state user/state/evbus user/state/evbus/state.db | paste -sd ' ')" '700 700 700 600' 'the modes'
expect_status 0 evbus consume -q -g g -t t -- false
unset XDG_STATE_HOME
HOME=$PWD/other expect_status 0 evbus checkpoint-set -q -g g -t t -o end
expect_true 'a store in the home directory' test -f other/.local/state/evbus/state.db
HOME='' expect_status 78 evbus checkpoint-set -q -g g -t t -o end
expect_err_has 'choose one with --store'

t 'another stream of the name is refused where a group goes on'
begin
mixed
evbus checkpoint-set -q -g g -t t -o end >/dev/null
tell broker request "\$JS.API.STREAM.DELETE.$prefix=t=0"
for i in 1 2 3 4 5; do evbus publish -q -t t <<<"{\"id\":\"$i\"}"; done
expect_status 76 evbus consume -g g -t t -- true
expect_err_has 'another log'

#!/usr/bin/env bash
# The commands over a NATS server: nats://…
# shellcheck disable=SC2016 # what stands in '' is for the shell of a command, or begins with $JS
. "${0%/*}/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 22

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
# stream TOPIC PARTITION: its name
stream() {
	printf '%s=%s=%s' "$prefix" "${1//./=}" "$2"
}
# foreign SUBJECT TEXT...: somebody else publishes that
foreign() {
	tell broker request "$@"
	[[ $ANSWER == *'"seq"'* ]] || fail "it was not stored: $ANSWER"
}
# ask WHAT TEXT...: of the server's API
ask() {
	tell broker request "\$JS.API.$1" "${@:2}"
	[[ $ANSWER != *'"error"'* ]] || fail "$1: $ANSWER"
}
ids() { # TOPIC
	evbus tail -t "$1" -o beginning --format '{event_id}\n' | paste -sd ' '
}

t 'there is a server, and the module'
must_serve nats broker server nats
url=$ANSWER
ok

# ---- topics ------------------------------------------------------------------------------------------------------

t 'a topic is made of streams, and said what it is'
begin
expect_status 0 evbus topic-create -q -t orders.v1 --partitions 3 --format json
expect_status 0 evbus topic-describe -t orders.v1 -p 1 --format json
expect_out_has '"first_offset":"1","next_offset":"1"'
expect_out_has 'not synced yet'
ask "STREAM.INFO.$(stream orders.v1 2)"
expect_true 'its subject' test "$(jq -r '.config.subjects[0]' <<<"$ANSWER")" = "$prefix.orders.v1.2"
expect_true 'in a file' test "$(jq -r '.config.storage' <<<"$ANSWER")" = file
expect_status 76 evbus topic-create -t orders.v1 --partitions 2
expect_err_has "is there with 3 partitions, not 2"

t 'of several who make a topic at once, one does'
begin
for i in 1 2 3 4 5 6 7 8; do
	events "$i" "$i" | evbus publish -t race 2>"err.$i" >"out.$i" &
	pids[i]=$!
done
wait "${pids[@]}"
expect_equal "$(cat out.* | wc -l)" 8 'receipts'
expect_equal "$(cat out.* | jq -r .offset | sort -n | paste -sd ' ')" '1 2 3 4 5 6 7 8' 'the offsets'
expect_equal "$(cat err.* | grep -c 'made topic')" "$(cat err.* | grep -c .)" 'nothing else was said'
ask STREAM.NAMES "{\"subject\":\"$prefix.>\"}"
expect_true 'one stream' test "$(jq .total <<<"$ANSWER")" = 1

t 'patterns choose topics'
begin
for topic in crm.lead crm.deal shop.order crm; do
	echo "{\"id\":\"$topic\"}" | evbus publish -q -t "$topic"
done
expect_status 0 evbus topic-list -t 'crm.>' --format tsv
expect_lines 2
expect_out_has crm.deal
expect_equal "$(ids '*.*' | tr ' ' '\n' | sort | paste -sd ' ')" 'crm.deal crm.lead shop.order' 'the events'

t 'a name that is too long for a stream is refused'
begin
expect_status 64 evbus publish -t "$(printf 'x%.0s' {1..249})" <<<'{}'
expect_err_has 'too long'

# ---- events ------------------------------------------------------------------------------------------------------

t 'payloads come out as they went in, in order, with their keys'
begin
evbus topic-create -q -t t --partitions 4 >/dev/null
grep -v '^$' "$DATA/awkward.jsonl" >events
while IFS= read -r key; do
	expect_status 0 evbus publish -q -t t -k "$key" events
done <<'EOF'
plain
 blanks at its ends 
100%
ключ
%41
EOF
expect_status 0 evbus publish -q -t t -k $'two\nlines\t' events
for p in 0 1 2 3; do
	evbus tail -t t -p "$p" -o beginning
done >records
grep -o '"partition_key":"[^"]*","payload"' records | cut -d , -f 1 | grep -v m_17 | sort -u >keys    # one has a record in it
printf '"partition_key":"%s"\n' ' blanks at its ends ' '%41' '100%' 'two\nlines\t' plain ключ | sort -u >wanted
expect_same keys wanted
evbus topic-create -q -t one >/dev/null
evbus publish -q -t one events
expect_status 0 evbus replay -t one --format payload
expect_same "$OUT" events

t 'a key chooses the partition that it has in files'
begin
evbus topic-create -q -t t --partitions 8 >/dev/null
evbus topic-create -q -b file:files -t t --partitions 8 >/dev/null
seq 1 50 | sed 's/.*/{"id":"&"}/' >numbered
expect_status 0 evbus publish -t t --key-from /id --format '{partition_id}\n' numbered
cp "$OUT" nats
expect_status 0 evbus publish -b file:files -t t --key-from /id --format '{partition_id}\n' numbered
expect_same "$OUT" nats

t 'positions and times name places'
begin
events 1 5 | evbus publish -q -t t
expect_equal "$(evbus tail -t t -n 2 --format '{event_id} ')" '4 5 ' 'the last two'
expect_equal "$(evbus tail -t t -o 3 --format '{event_id} ')" '3 4 5 ' 'from 3'
expect_equal "$(evbus replay -t t -o beginning --to-offset 3 --format '{event_id} ')" '1 2 ' 'to 3'
expect_equal "$(evbus tail -t t -o -1 --format '{event_id} ')" '5 ' 'the last'
sleep 0.01
now=$(date -u +%Y-%m-%dT%H:%M:%S.%6NZ)
events 6 7 | evbus publish -q -t t
expect_equal "$(evbus tail -t t --since "$now" --format '{event_id} ')" '6 7 ' 'since'
expect_equal "$(evbus tail -t t -o beginning --until "$now" --format '{event_id} ')" '1 2 3 4 5 ' 'until'
expect_status 64 evbus tail -t t -o 9x

t 'messages that were deleted are gaps, also the first and the last'
begin
events 1 9 | evbus publish -q -t t
for seq in 1 4 5 8 9; do
	ask "STREAM.MSG.DELETE.$(stream t 0)" "{\"seq\":$seq}"
done
expect_equal "$(ids t)" '2 3 6 7' 'the events'
expect_status 0 evbus topic-describe -t t --format json
expect_out_has '"first_offset":"2","next_offset":"10","records":4'
expect_status 0 evbus consume -q -t t -g g -- cat
expect_lines 4
expect_equal "$(evbus checkpoint-get -g g -t t --format tsv | cut -f 4)" 10 'the checkpoint'
expect_status 0 evbus consume -q -t t -g g -- cat
expect_out ''

t 'an event that is larger than what is asked for at once is read; one that the server does not take is refused'
begin
for size in 100 600000 200 900000 300; do
	printf '{"id":"%s","pad":"%s"}\n' "$size" "$(head -c "$size" /dev/zero | tr '\0' x)"
done >events
expect_status 0 evbus publish -q -t t events
expect_status 0 evbus replay -t t --format payload
expect_same "$OUT" events
printf '{"pad":"%s"}\n' "$(head -c 1048570 /dev/zero | tr '\0' x)" >events
expect_status 65 evbus publish -q -t t --max-payload 2MiB events
expect_err_has "the servers of topic 't' take "
{ echo '{"id":"before"}' && cat events && echo '{"id":"behind"}'; } |
	expect_status 1 evbus publish -q -t t --max-payload 2MiB --on-error skip
expect_status 0 evbus tail -t t -n 2 --format payload
expect_out $'{"id":"before"}\n{"id":"behind"}'
expect_status 78 evbus publish -q -t t --atomic <<<$'{}\n{}'

t 'what was read leaves nothing on the server'
begin
events 1 3 | evbus publish -q -t t
ids t >seen
gone() {
	ask "STREAM.INFO.$(stream t 0)"
	[ "$(jq .state.consumer_count <<<"$ANSWER")" = 0 ]
}
wait_for 10 gone

# ---- groups ------------------------------------------------------------------------------------------------------

t 'a group retries, keeps what failed, and goes on where it was'
begin
events 1 4 | evbus publish -q -t t
expect_status 1 evbus consume -q -t t -g g --retry-max 1 --retry-delay 1ms --retry-cap 1ms -- sh -c 'echo "$EVENT_OFFSET/$EVENT_ATTEMPT"; [ "$EVENT_OFFSET" != 2 ]'
expect_equal "$(paste -sd ' ' "$OUT")" '1/1 2/1 2/2 3/1 4/1' 'the attempts'
expect_status 0 evbus dlq-list -g g --format json
expect_out_has '"offset":"2"'
evbus dlq-retry -g g --all >queued 2>&1
events 5 5 | evbus publish -q -t t
expect_status 0 evbus consume -q -t t -g g -- cat
expect_equal "$(jq -r .id "$OUT" | paste -sd ' ')" '2 5' 'the letter, and the next'

t 'checkpoints are set, listed, and know another log'
begin
events 1 4 | evbus publish -q -t t
expect_status 0 evbus checkpoint-set -g g -t t -o -1
expect_status 0 evbus checkpoint-list -g g --format json
expect_out_has '"next_offset":"4"'
expect_status 0 evbus consume -q -t t -g g -- cat
expect_out '{"id":"4"}'
ask "STREAM.DELETE.$(stream t 0)"
expect_status 66 evbus consume -q -t t -g g -- cat
events 1 6 | evbus publish -q -t t
expect_status 76 evbus consume -q -t t -g g -- cat
expect_out ''

t 'an outbox is drained'
begin
export EVBUS_OUTBOX=sqlite:app.db
evbus outbox-init -q >/dev/null
events 1 30 | evbus outbox-add -t t --type made >/dev/null
expect_status 0 evbus outbox-drain
expect_lines 30
expect_equal "$(ids t)" "$(seq 1 30 | paste -sd ' ')" 'the events'
unset EVBUS_OUTBOX

t 'several publish at once, and each of them keeps its order'
begin
for i in 1 2 3 4 5 6; do
	seq 1 2000 | sed "s/.*/{\"id\":\"$i-&\"}/" | evbus publish -q -t t &
	pids[i]=$!
done
wait "${pids[@]}"
ids t | tr ' ' '\n' >all
expect_equal "$(wc -l <all)" 12000 'events'
for i in 1 2 3 4 5 6; do
	grep "^$i-" all | cut -d - -f 2 | cmp -s - <(seq 1 2000) || fail "those of $i are not in order"
done

t 'who follows sees what comes at once'
begin
events 1 1 | evbus publish -q -t t
evbus tail -f -t t -o beginning --max 4 --format '{event_id}\n' >seen &
wait_for 20 test -s seen
start=$(date +%s%N)
events 2 4 | evbus publish -q -t t
wait $!
expect_equal "$(paste -sd ' ' seen)" '1 2 3 4' 'the events'
expect_true 'soon' test $((($(date +%s%N) - start) / 1000000)) -lt 3000

t 'a log is copied there and back'
begin
evbus publish -q -b file:here -t t "$DATA/events.jsonl"
expect_status 0 evbus replay -q -b file:here -t t --to-bus "$EVBUS_BUS"
expect_status 0 evbus replay -q -t t --to-bus file:back
evbus replay -b file:here -t t --format payload >here.payloads
evbus replay -b file:back -t t --format payload >back.payloads
expect_same back.payloads here.payloads

# ---- what belongs to others --------------------------------------------------------------------------------------

t 'a stream of somebody else is read and published to, whatever stands in it'
begin
ask STREAM.CREATE.SHOP '{"name":"SHOP","subjects":["shop.*.placed","shop.new"],"storage":"file"}'
foreign shop.a.placed '{"id":"1"}'
foreign shop.b.placed 'no JSON'
foreign shop.c.placed ''
foreign shop.d.placed '[1]'
export EVBUS_BUS="$url?stream=SHOP"
expect_status 0 evbus topic-list --format tsv
expect_out_like $'SHOP\t1\t4\t*'
expect_status 0 evbus publish -t SHOP <<<'{"id":"5"}'
expect_out_has '"offset":"5"'
expect_status 0 evbus tail -t SHOP
expect_out_has '"payload":{"id":"1"}'
expect_out_has "\"payload\":null,\"payload_base64\":\"$(printf 'no JSON' | base64)\""
expect_out_has '"payload":null,"payload_base64":""'
expect_status 66 evbus tail -t other
expect_err_has "there is one, 'SHOP'"
expect_status 0 evbus tail -b "$url?stream=SHOP&topic=orders" -t orders -n 1 --format payload
expect_out '{"id":"5"}'
expect_status 66 evbus tail -b "$url?stream=NONE" -t NONE
ask STREAM.CREATE.WILD '{"name":"WILD","subjects":["wild.>"],"storage":"memory"}'
expect_status 78 evbus publish -b "$url?stream=WILD" -t WILD <<<'{}'
expect_err_has 'subject='
expect_status 0 evbus publish -q -b "$url?stream=WILD&subject=wild.x" -t WILD <<<'{}'
expect_status 0 evbus topic-describe -b "$url?stream=WILD" -t WILD
expect_out_has 'in the memory of the server'

t 'a stream that has a name of ours and is not ours is left alone'
begin
ask "STREAM.CREATE.$(stream t 0)" "{\"name\":\"$(stream t 0)\",\"subjects\":[\"$prefix.t.0\"],\"storage\":\"file\"}"
expect_status 76 evbus publish -t t <<<'{}'
expect_err_has 'was not made by evbus'

t 'a payload that is not what was published is told'
begin
events 1 2 | evbus publish -q -t t
headers=$'NATS/1.0\r\nEvbus-Crc32c: 00000000\r\n\r\n'
exec 6<>"/dev/tcp/127.0.0.1/${url##*:}"
printf 'CONNECT {"verbose":false,"headers":true}\r\nHPUB %s %s %s\r\n%s{}\r\nPING\r\n' "$prefix.t.0" "${#headers}" $((${#headers} + 2)) "$headers" >&6
wait_for 10 grep -q PONG <&6
exec 6>&-
expect_status 74 evbus tail -t t -o beginning --format payload
expect_out "$(events 1 2)"
expect_err_has 'damaged at offset 3'

# ---- options -----------------------------------------------------------------------------------------------------

t 'options that are wrong are named'
begin
for option in nonsense=1 timeout=soon prefix=a.b prefix= replicas=9 duplicate_window=0 tls=maybe subject=x stream=a.b \
	tls_cert=x tls_ca=none creds=none nkey=x; do
	expect_status 78 evbus topic-list -b "$url?$option"
	expect_err_has "${option%%=*}"
done
expect_status 78 evbus publish -t t -b "$url?prefix=$prefix&replicas=3" <<<'{}'
expect_err_has 'replicas'
expect_status 78 evbus topic-list -b nats:

t 'who and what is asked for in a configuration is the same bus'
begin
events 1 2 | evbus publish -q -t t
expect_status 0 evbus tail -b "$url" -X "prefix=$prefix" -t t --format payload
expect_lines 2

#!/usr/bin/env bash
# The commands over a broker of Kafka.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 23

command -v kcat >/dev/null || {
	echo '1..0 # SKIP there is no kcat (tests/deps servers installs it)'
	exit 0
}
serve broker server kafka || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r plain sasl tls <<<"$ANSWER"
at=${plain#kafka://} files=$SERVED
export EVBUS_BUS=$plain EVBUS_STORE=sqlite:state.db

# protocol STATEMENT: in Python, with kafka.py and the port of the broker
protocol() {
	PYTHONPATH=$ROOT/tests/servers PYTHONDONTWRITEBYTECODE=1 python3 -c '
import struct, sys
from kafka import *
port = int(sys.argv[1])
exec(sys.argv[2])' "${at##*:}" "$1"
}
read_kcat() { # TOPIC FORMAT
	kcat -C -q -e -b "$at" -t "$1" -o beginning -f "$2"
}
# begin TOPIC: who publishes to it in transactions. say LINE...: has him publish that, or commit, or abort; then it is over.
begin() {
	within=$1
	tell broker topic "$1" 1
	coproc transact { exec "$EVBUS_TEST_BUILD/tests/servers/transact" "$at" "$1"; }
}
say() {
	local line answer
	for line; do
		echo "$line" >&"${transact[1]}"
		read -r answer <&"${transact[0]}"
		expect_equal "$answer" ok "transaction: $line"
		case $line in commit | abort) wait_for 20 protocol "sys.exit(not settled(port, '$within'))" ;; esac
	done
}
end() {
	# shellcheck disable=SC2154 # of the coproc
	local pid=$transact_PID
	eval "exec ${transact[1]}>&-"
	wait "$pid"
}

# ---- what is published -------------------------------------------------------------------------------------------

t 'what is published comes out as it went in, with receipts, and follows what others append'
fresh
printf '{"id":"1","type":"t","total":1.10,"u":"\\u00e9é"}\n{"id":"2"}\n' >events
expect_status 0 evbus publish -t orders.new events
expect_out_like '{"topic":"orders.new","partition_id":0,"offset_kind":"kafka_offset","offset":"0","published_at_utc":"*Z"}
{"topic":"orders.new","partition_id":0,"offset_kind":"kafka_offset","offset":"1","published_at_utc":"*Z"}'
cp "$OUT" receipts
expect_status 0 evbus replay -t orders.new --format payload
expect_same "$OUT" events
expect_status 0 evbus replay -t orders.new
expect_equal "$(jq -c '[.offset,.published_at_utc]' "$OUT")" "$(jq -c '[.offset,.published_at_utc]' receipts)" 'offsets and times'
expect_status 0 evbus tail -t orders.new -o end
expect_out ''
evbus tail -f -t orders.new -o 1 --max 2 --format payload >tailed &
wait_for 20 test -s tailed
evbus publish -q -t orders.new <<<'{"id":"3"}'
wait $!
expect_equal "$(cat tailed)" $'{"id":"2"}\n{"id":"3"}' 'what was followed'

t 'a topic that is read and not there is not made'
expect_status 66 evbus replay -t ordres
expect_err_has "there is no topic 'ordres'"
expect_status 66 evbus publish --no-create -t ordres events
expect_status 0 evbus topic-list --format tsv
expect_equal "$(grep -c ordres "$OUT")" 0 'it was made'

t 'topics are made with partitions and replicas, and described'
expect_status 0 evbus topic-create -t many --partitions 3
expect_status 76 evbus topic-create -t many --partitions 4
expect_err_has 'is there with 3 partitions, not 4'
expect_status 78 evbus topic-create -t more -X replicas=3
expect_err_has 'eplication factor'
expect_status 78 evbus topic-create -t more --segment-size 1M
expect_status 0 evbus topic-describe -t orders.new --format json
expect_equal "$(jq -c '[.first_offset,.next_offset,.records]' "$OUT")" '["0","3",3]' 'the topic'
expect_out_has 'in-sync replicas'

t 'partitions that are added while others read and consume are read and consumed'
fresh
evbus topic-create -q -t growing --partitions 1 >/dev/null
has_lines() { [ "$(wc -l <"$1")" -ge "$2" ]; }
number() { seq "$1" "$2" | sed 's/.*/{"id":"&","n":&}/'; }
number 1 20 | evbus publish -q -t growing -p 0
"$EVBUS" tail -f -q -t growing -o beginning --format '{/n}\n' >tailed &
tail=$!
"$EVBUS" consume -f -q -t growing -g g --concurrency 4 -- sh -c 'cat >>handled' &
consume=$!
wait_for 20 has_lines tailed 20
wait_for 20 has_lines handled 20
protocol "add_partitions(port, 'growing', 3)"
for partition in 1 2; do
	wait_for 20 evbus publish -q -t growing -p $partition <<<"{\"id\":\"${partition}00\",\"n\":${partition}00}"
done
number 21 40 | evbus publish -q -t growing --key-from /id
wait_for 30 has_lines tailed 42
wait_for 30 has_lines handled 42
kill "$tail" "$consume"
wait "$tail" "$consume"
expect_equal "$(sort -n tailed | tr '\n' ' ')" "$(seq -s ' ' 1 40) 100 200 " 'read once each'
expect_equal "$(jq .n handled | sort -n | tr '\n' ' ')" "$(seq -s ' ' 1 40) 100 200 " 'consumed once each'
expect_status 0 evbus checkpoint-list -g g --format tsv
expect_equal "$(cut -f3 "$OUT" | sort | tr '\n' ' ')" '0 1 2 ' 'checkpoints of all partitions'

t 'what came to a partition that was added while a group was away is consumed, also where that began at the end'
evbus consume -q -t growing -g late -o end -- false
protocol "add_partitions(port, 'growing', 4)"
wait_for 20 evbus publish -q -t growing -p 3 <<<'{"id":"300","n":300}'
evbus consume -q -t growing -g late -o end -- sh -c 'cat >>late'
expect_equal "$(cat late)" '{"id":"300","n":300}' 'what it consumed'
evbus consume -q -t growing -g later -o end -- sh -c 'cat >>later'
expect_true 'one that was never there begins at the end' test ! -e later

t 'who publishes idempotently for long finds what came to a partition that was added meanwhile'
fresh
coproc once { exec "$EVBUS" publish --idempotent -t growing --event-key-from /id -k k --format '{event_key} {partition_id} {duplicate}\n'; }
# shellcheck disable=SC2154 # of the coproc
once_pid=$once_PID
once() { # LINE
	echo "$1" >&"${once[1]}"
	read -r answer <&"${once[0]}"
}
once '{"id":"first"}'
protocol "add_partitions(port, 'growing', 5)"
wait_for 20 evbus publish -q --idempotent -t growing -p 4 --event-key-from /id <<<'{"id":"again"}'
once '{"id":"again"}'
expect_equal "$answer" 'again 4 true' 'the receipt of the repeat'
eval "exec ${once[1]}>&-"
wait "$once_pid"

t 'a key comes to the partition to which other producers of Kafka bring it'
fresh
evbus topic-create -q -t keys --partitions 7 >/dev/null
seq 200 | sed 's/.*/key-&:{"n":&}/' | kcat -P -b "$at" -t keys -K: -X topic.partitioner=murmur2
seq 200 | while read -r n; do printf '{"k":"key-%s"}\n' "$n"; done | evbus publish -q -t keys --key-from /k
read_kcat keys '%k %p\n' | sort | uniq -c >pairs
expect_equal "$(wc -l <pairs)" 200 'keys with their partition'
expect_true 'each has one partition' test -z "$(awk '$1 != 2' pairs)"

t 'headers and times are there for others'
fresh
echo '{"id":"e-1","type":"order.placed","tenant_id":"acme"}' | evbus publish -t headers --key k --format '{published_at_utc}\n' >stamp
read_kcat headers '%k|%h|%T\n' >found
expect_equal "$(cut -d'|' -f1,2 found)" "k|Evbus-Published-At=$(cat stamp),Evbus-Event-Id=e-1,Evbus-Event-Type=order.placed" headers
expect_equal "$(cut -d'|' -f3 found)" "$(date -ud "$(cat stamp)" +%s%3N)" 'the timestamp'

t 'what is no event of ours is read: no JSON, nothing at all, keys, headers of others'
fresh
tell broker topic foreign 1
printf 'k:hello\n' | kcat -P -b "$at" -t foreign -K:
printf '{"a": 1}\n' | kcat -P -b "$at" -t foreign -H Evbus-Returns=many -H Evbus-Published-At=never
printf 'gone:\n' | kcat -P -b "$at" -t foreign -K: -Z
expect_status 0 evbus replay -t foreign --format stored
expect_true 'the text' grep -qE '"partition_key":"k","payload":null,"payload_base64":"aGVsbG8="' "$OUT"
expect_true 'the object' grep -qE '"published_at_utc":"20[^"]*Z".*"partition_key":null,"payload":\{"a": 1\}' "$OUT"
expect_true 'the tombstone' grep -qE '"partition_key":"gone","payload":null,"payload_base64":""' "$OUT"

t 'several topics are read by a pattern, merged, and only those of the prefix'
fresh
for topic in shop.b shop.a; do
	evbus publish -q -t "$topic" <<<"{\"t\":\"$topic\"}"
	evbus publish -q -t "$topic" -X prefix=other <<<'{"t":"another"}'
done
expect_status 0 evbus replay -t 'shop.*' --format '{topic} {/t}\n'
expect_out 'shop.b shop.b
shop.a shop.a'
expect_status 0 evbus topic-list -X prefix=other --format tsv
expect_equal "$(cut -f1 "$OUT" | grep -c .)" "$(grep -c shop "$OUT")" 'topics of the prefix'
expect_status 0 evbus replay -t 'shop.*' -X prefix=other --format '{topic}\n'
expect_out 'shop.b
shop.a'

# ---- positions ---------------------------------------------------------------------------------------------------

t 'a time is found to the microsecond'
fresh
seq 50 | sed 's/.*/{"n":&}/' | evbus publish -t times --format '{published_at_utc}\n' >all
expect_true 'one millisecond has several' test "$(cut -c1-23 all | sort -u | wc -l)" -lt 50
for n in 2 17 50; do
	time=$(sed -n "${n}p" all)
	expect_status 0 evbus replay -t times -o "@$time" --format '{published_at_utc}\n'
	expect_equal "$(head -n 1 "$OUT")" "$time" 'the first'
	expect_lines "$(awk -v t="$time" '$0 >= t' all | wc -l)"
done

t 'a transaction that is open ends what is read; its marker is no record, and what was aborted neither'
fresh
begin txn
evbus publish -q -t txn <<<'{"n":0}'
say '{"n":1}' '{"n":2}'
evbus publish -q -t txn <<<'{"n":3}'
expect_status 0 timeout 5 evbus replay -t txn --format '{offset} {/n}\n'
expect_out '0 0'
say commit
expect_status 0 timeout 5 evbus replay -t txn --format '{offset} {/n}\n'
expect_out '0 0
1 1
2 2
3 3'
say '{"n":5}' '{"n":6}' abort
end
evbus publish -q -t txn <<<'{"n":8}'
for from in 4 5 6 7; do
	expect_status 0 timeout 5 evbus replay -t txn -o "$from" --format '{offset} {/n}\n'
	expect_out '8 8'
done
expect_status 0 timeout 5 evbus tail -t txn --last 2 --format '{offset} {/n}\n'
expect_out '3 3
8 8'

t 'a read ends where the last offsets are no records'
fresh
begin marked
say '{"n":0}' commit '{"n":2}' abort
end
expect_status 0 timeout 5 evbus replay -t marked --format '{offset}\n'
expect_out 0
expect_status 0 timeout 5 evbus consume -q -t marked -g g -- cat
expect_out_has '"n":0'
expect_status 0 timeout 5 evbus consume -q -t marked -g g -- cat
expect_out ''
expect_status 0 evbus topic-describe -t marked --format json
expect_true 'the last record has a time' grep -q '"last_published_at_utc":"20' "$OUT"

t 'what was deleted is told, with what is there'
fresh
seq 10 | sed 's/.*/{"n":&}/' | evbus publish -q -t short
evbus checkpoint-set -q -g late -t short -o 2 >/dev/null
protocol 'ask(port, (21, 0), array([text("short") + array([struct.pack(">iq", 0, 7)])]) + struct.pack(">i", 9000))'
expect_status 66 evbus replay -t short -o 3
expect_err_has 'the oldest that the topic keeps is 7'
expect_status 66 evbus consume -q -t short -g late -- cat
expect_err_has 'the oldest that the topic keeps is 7'
expect_status 0 evbus replay -t short -o beginning --format '{offset}\n'
expect_out '7
8
9'

# ---- groups ------------------------------------------------------------------------------------------------------

t 'a group consumes with retries and dead letters, and goes on at its checkpoint'
fresh
seq 0 2 | sed 's/.*/{"n":&}/' | evbus publish -q -t work
expect_status 1 evbus consume -q -t work -g g --retry-max 1 --retry-delay 1ms --retry-cap 1ms -- \
	sh -c 'echo "$EVENT_OFFSET/$EVENT_ATTEMPT"; [ "$EVENT_OFFSET" != 1 ]'
expect_out '0/1
1/1
1/2
2/1'
expect_status 0 evbus checkpoint-get -g g -t work --format json
expect_equal "$(jq -r '.next_offset + " " + .offset_kind' "$OUT")" '3 kafka_offset' 'the checkpoint'
expect_status 0 evbus dlq-list -g g --format json
expect_equal "$(jq -r .offset "$OUT")" 1 'the letter'
evbus publish -q -t work <<<'{"n":3}'
expect_status 0 evbus consume -q -t work -g g -- sh -c 'echo "$EVENT_OFFSET"'
expect_out 3

t 'a checkpoint beyond the end, as of a topic that was made again, is refused'
expect_status 76 evbus checkpoint-set -g g -t work -o 9
protocol 'ask(port, (20, 1), array([text("work")]) + struct.pack(">i", 9000))'
wait_for 10 sh -c 'evbus topic-describe -t work; [ $? = 66 ]'
evbus publish -q -t work <<<'{"n":0}'
expect_status 76 evbus consume -q -t work -g g -- cat
expect_err_has 'the log ends at offset 1'

t 'an outbox is drained'
fresh
evbus outbox-init -q --outbox sqlite:app.db >/dev/null
printf '{"id":"o-1","type":"t"}\n{"id":"o-2","type":"t"}\n' | evbus outbox-add --outbox sqlite:app.db -t drained >/dev/null
expect_status 0 evbus outbox-drain --outbox sqlite:app.db --format '{offset} {event_id}\n'
expect_out '0 o-1
1 o-2'
expect_status 0 evbus outbox-drain --outbox sqlite:app.db
expect_out ''

# ---- what Kafka cannot do, and options ---------------------------------------------------------------------------

t 'what Kafka cannot do is refused, and nothing is published'
fresh
evbus topic-create -q -t strict >/dev/null
expect_status 78 evbus publish -t strict --expect-offset 0 <<<'{}'
printf '{}\n{}\n' | expect_status 78 evbus publish -t strict --atomic
expect_status 0 evbus replay -t strict
expect_out ''

t 'an event that is larger than the topic takes is refused alone, and keeps nothing else back'
printf '{"pad":"%s"}\n' "$(head -c 1048570 /dev/zero | tr '\0' x)" >large
{ echo '{"id":"before"}' && cat large && echo '{"id":"behind"}'; } |
	expect_status 1 evbus publish -q -t sized --max-payload 2MiB --on-error skip
expect_err_has "the servers of topic 'sized' take "
expect_status 0 evbus replay -t sized --format payload
expect_out $'{"id":"before"}\n{"id":"behind"}'

t 'options that are not there, or would take a promise back, are refused by their names'
expect_status 78 evbus topic-list -X sercurity.protocol=SSL
expect_err_has "'sercurity.protocol'"
for option in acks=1 enable.idempotence=false isolation.level=read_uncommitted allow.auto.create.topics=true \
	bootstrap.servers=x plugin.library.paths=/tmp/x.so; do
	expect_status 78 evbus topic-list -X "$option"
	expect_err_has "${option%%=*}"
done
expect_status 0 evbus topic-list -X acks=all -X client.id=me -X enable.idempotence=true

t 'SASL: the password of the URL lets in, another one does not, and none is told'
expect_status 0 evbus replay -b "$sasl" -t orders.new --format payload
expect_lines 3
expect_status 77 evbus replay -b "${sasl/s3cret/secr3t}" -t orders.new
expect_err_has 'uthentication failed'
expect_equal "$(grep -c 'secr3t\|tester' "$ERR")" 0 'a secret is told'
expect_status 77 evbus publish -b "${sasl/s3cret/secr3t}" -t orders.new <<<'{}'
expect_status 0 evbus replay -b "kafka://${sasl#*@}" -X security.protocol=SASL_PLAINTEXT -X sasl.mechanism=PLAIN \
	-X sasl.username=tester -X sasl.password=s3cret -t orders.new
expect_lines 3

t 'TLS: who is signed by the authority is believed, and nobody else'
expect_status 0 evbus replay -b "$tls?security.protocol=SSL&ssl.ca.location=$files/ca.pem" -t orders.new
expect_lines 3
expect_status 69 evbus replay -b "$tls?security.protocol=SSL&ssl.ca.location=$files/stranger-ca.pem" -t orders.new
expect_err_has 'certificate verify failed'
expect_status 78 evbus replay -b "$tls?security.protocol=SSL&ssl.ca.location=$files/nothing.pem" -t orders.new
expect_err_has 'ssl.ca.location'

t 'no broker: 69 within the time-out, with the address and the reason'
SECONDS=0
expect_status 69 evbus replay -b 'kafka://127.0.0.1:1?timeout=1s' -t orders.new
expect_err_has '127.0.0.1:1'
expect_err_has 'Connection refused'
expect_status 69 evbus publish -b 'kafka://127.0.0.1:1?timeout=1s' -t orders.new <<<'{}'
expect_true "it took $SECONDS s" test "$SECONDS" -le 8

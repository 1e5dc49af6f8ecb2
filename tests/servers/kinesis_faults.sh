#!/usr/bin/env bash
# What goes wrong between the program and Kinesis: no receipt is false, what has one is there once and in the order of its key,
# and nothing waits for ever.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 12

serve net proxy
net=$ANSWER
serve service server kinesis || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
url=$ANSWER
tell net to "${url##*:}"
through="kinesis://us-east-1?endpoint=http://127.0.0.1:$net"
export EVBUS_BUS=$url EVBUS_STORE=sqlite:state.db AWS_SHARED_CREDENTIALS_FILE=$SERVED/credentials AWS_CONFIG_FILE=/dev/null

events() { # FIRST LAST, of 50 keys
	seq "$1" "$2" | awk '{ printf "{\"n\":%d,\"key\":\"k%d\",\"event_id\":\"e%d\"}\n", $1, $1 % 50, $1 }'
}
# In the topic stands each from 1 to LAST once, and those of a key in their order; the receipts say where.
expect_all() { # TOPIC LAST RECEIPTS
	evbus replay -q -t "$1" --format '{/key} {/n} {partition_id} {offset}\n' >found
	expect_order_of_keys <found
	cut -d ' ' -f 2 found | sort -n >numbers
	expect_same numbers <(seq 1 "$2")
	cut -d ' ' -f 3,4 found | sort >places
	sort "$3" >receipts.sorted
	expect_same receipts.sorted places
}
# Each receipt is of a record that is there; what has none may be there, too.
expect_receipts_true() { # TOPIC RECEIPTS
	evbus replay -q -t "$1" --format '{partition_id} {offset}\n' | sort >places
	sort "$2" | comm -23 - places >false
	expect_same false - </dev/null
}
is_active() { # TOPIC
	tell service call DescribeStreamSummary "{\"StreamName\":\"$1\"}"
	[[ $ANSWER == *'"ACTIVE"'* ]]
}
publish() {
	evbus publish --key-from /key --format '{partition_id} {offset}\n' "$@"
}

t 'requests that come too often are made again'
evbus topic-create -q --partitions 3 often >/dev/null
for action in PutRecords ListShards DescribeStreamSummary ListTagsForStream; do
	tell service throttle "$action" 3
done
events 1 500 | publish -t often >receipts || fail "status $?"
for action in GetShardIterator GetRecords; do
	tell service throttle "$action" 3
done
expect_all often 500 receipts
tell service throttle PutRecords 100000
SECONDS=0
events 501 501 | expect_status 69 evbus publish -t often --key-from /key -X timeout=1s
took 8
expect_err_has ProvisionedThroughputExceeded
tell service throttle PutRecords 0

t 'records of a call that fail are sent again, and none comes before one of its key that was to come first'
for each in 2 3 7; do
	evbus topic-create -q --partitions 3 "failing.$each" >/dev/null
	tell service fail "$each"
	events 1 2000 | publish -t "failing.$each" >receipts || fail "status $?"
	tell service fail 0
	expect_all "failing.$each" 2000 receipts
done
tell service fail 1
SECONDS=0
events 1 10 | expect_status 69 evbus publish -t often --key-from /key -X timeout=1s
took 8
expect_err_has 'takes none of them'
tell service fail 0

t 'a position whose record is older than the stream keeps is told, and not passed over without a word'
evbus topic-create -q old >/dev/null
events 1 10 | publish -t old >receipts || fail "status $?"
place() { # OF WHICH
	sed -n "$1s/.* //p" receipts
}
evbus consume -q -t old -g early --max 3 -- true || fail "status $?"
evbus consume -q -t old -g late --max 7 -- true || fail "status $?"
evbus replay -q -t old -p 0 -o "$(place 4)" --format '{/n}\n' >found
expect_same found <(seq 4 10)
tell service expire "$(place 5)"
expect_status 66 evbus consume -q -t old -g early -- true
expect_err_has "the oldest that the stream keeps is $(place 6)"
expect_status 66 evbus tail -q -t old -p 0 -o "$(place 5)"
expect_err_has 'has expired'
for from in beginning "$(place 6)"; do
	evbus replay -q -t old -p 0 -o "$from" --format '{/n}\n' >found
	expect_same found <(seq 6 10)
done
expect_status 0 evbus consume -t old -g early -X expired=pass -- cat
expect_err_has 'has expired'
expect_same "$OUT" <(events 6 10)
evbus consume -q -t old -g late -- true || fail "status $?"
tell service expire "$(place 10)"
expect_status 0 evbus consume -t old -g late -- true
expect_err_has 'all that stood in topic'
events 11 11 | publish -t old >receipts || fail "status $?"
expect_status 66 evbus consume -q -t old -g late -- cat
expect_status 0 evbus consume -t old -g late -X expired=pass -- cat
expect_same "$OUT" <(events 11 11)
tell service expire -1

t 'shards that are split and merged while a group follows: each event once, those of a key in their order'
evbus topic-create -q --partitions 2 moving >/dev/null
mkfifo moves
evbus consume -q -t moving -g g -f --max 600 --coprocess -- sed -u 'w got
s/.*/ok/' &
consumer=$!
evbus publish -q -t moving --key-from /key <moves &
publisher=$!
exec 7>moves
got() { # LAST
	events $(($1 - 199)) "$1" >&7
	wait_for 60 at_least "$1"
}
at_least() { # N
	[ "$(wc -l <got)" -ge "$1" ]
}
got 200
tell service call SplitShard "{\"StreamName\":\"moving\",\"ShardToSplit\":\"shardId-000000000000\",\"NewStartingHashKey\":\"17014118346046923173168730371588410572\"}"
wait_for 10 is_active moving
got 400
tell service call MergeShards '{"StreamName":"moving","ShardToMerge":"shardId-000000000003","AdjacentShardToMerge":"shardId-000000000001"}'
wait_for 10 is_active moving
got 600
exec 7>&-
wait "$publisher" "$consumer" || fail "status $?"
expect_equal "$(sed -n 's/.*"partition_id":\([0-9]*\).*/\1/p' got | sort -u | paste -sd ' ')" '0 1 2 3 4' 'the shards'
sed 's/.*"n":\([0-9]*\),"key":"\([^"]*\)".*/\2 \1/' got >lines
expect_order_of_keys <lines
cut -d ' ' -f 2 lines | sort -n >numbers
expect_same numbers <(seq 1 600)

t 'dead letters of a shard that has expired are not queued for nobody, and can be tried and published again'
evbus topic-create -q dead >/dev/null
events 1 3 | publish -t dead >/dev/null || fail "status $?"
expect_status 1 evbus consume -q -t dead -g g --retry-max 0 -- false
tell service call SplitShard '{"StreamName":"dead","ShardToSplit":"shardId-000000000000","NewStartingHashKey":"1701411834604692317316873037158841057"}'
wait_for 10 is_active dead
tell service call ListShards '{"StreamName":"dead"}'
[[ $ANSWER =~ \"EndingSequenceNumber\":\"([0-9]+)\" ]] || fail "no shard is closed: $ANSWER"
tell service expire "${BASH_REMATCH[1]}"
evbus dlq-list -g g --format tsv | cut -f 1 >ids
expect_equal "$(wc -l <ids)" 3 letters
expect_status 1 evbus dlq-retry -g g --all --format tsv
cut -f 1,3,10 "$OUT" >found
expect_same found <(sed 's/$/\tDEAD\tleft alone: its partition is gone/' ids)
expect_err_has 'is left alone: its partition is gone'
expect_status 0 evbus dlq-retry --format tsv "$(sed -n 1p ids)" -- true
expect_equal "$(cut -f 3 "$OUT")" RETRIED 'the state'
expect_status 0 evbus dlq-retry --format tsv "$(sed -n 2p ids)" --republish
expect_equal "$(cut -f 3 "$OUT")" RETRIED 'the state'
expect_status 66 evbus tail -t dead -p 0
expect_err_has 'any more: what was split or merged'
tell service expire -1
expect_equal "$(evbus replay -q -t dead -p 2 | wc -l)" 1 'what was published again'

t 'what is known of a shard is not all kept: published once more, each event is found where it stands'
evbus topic-create -q many >/dev/null
seq 1 5200 | awk '{ printf "{\"n\":%d,\"event_id\":\"e%d\"}\n", $1, $1 % 5199 }' >in
for file in receipts again; do
	evbus publish -t many --idempotent --event-key-from /n --format '{offset}\n' <in >"$file" || fail "status $?"
done
expect_same again receipts
expect_status 0 evbus verify --deep -t many
expect_out_has "'e1' stands at partition 0, offset $(head -n 1 receipts) already"

t 'a service that is killed in the middle of a publish, and comes back: no receipt is false, and publishing once makes it whole'
evbus topic-create -q --partitions 2 killed >/dev/null
mkfifo in
publish -t killed --idempotent -X timeout=30s <in >receipts 2>err &
publisher=$!
exec 7>in
events 1 3000 >&7
wait_for 30 test -s receipts
tell service kill
events 3001 4000 >&7 2>/dev/null &
sleep 0.3
tell service start
wait $!
exec 7>&-
wait "$publisher"
status=$?
expect_true "the status is $status: $(cat err)" test "$status" = 0 -o "$status" = 69
expect_receipts_true killed receipts
events 1 4000 | publish -t killed --idempotent >receipts || fail "status $?"
evbus replay -q -t killed --format '{/n}\n' | sort -n | uniq >numbers
expect_same numbers <(seq 1 4000)
expect_receipts_true killed receipts

t 'a service that is away for a while is waited for, and one that stays away is 69 within the time-out'
tell service kill
(sleep 1 && echo start >&"${servers_to[service]}") &
publish -t often -X timeout=20s <<<'{"n":501,"key":"k1"}' >receipts || fail "status $?"
wait $!
servers_answer service
expect_receipts_true often receipts
tell service kill
for command in 'publish -t often --key k' 'replay -t often' 'topic-list' 'topic-create other' 'topic-describe often'; do
	SECONDS=0
	# shellcheck disable=SC2086 # its words
	expect_status 69 evbus $command -X timeout=1s <<<'{"n":11}'
	took 5
done
tell service start

t 'a service that is paused: 69 within the time-out for whoever asks; then it goes on'
tell service pause
for command in 'publish -t often --key k' 'replay -t often' 'topic-list' 'topic-describe often'; do
	SECONDS=0
	# shellcheck disable=SC2086 # its words
	expect_status 69 evbus $command -X timeout=1s <<<'{"n":11}'
	took 5
done
tell service resume
expect_receipts_true often receipts

t 'a connection that is cut anywhere in a publish: no receipt is false'
tries=0
for way in up down; do
	for bytes in 10 700 3000 100000; do
		topic=cut.$way.$bytes tries=$((tries + 1))
		evbus topic-create -q "$topic" >/dev/null
		tell net pass
		tell net cut "$way" "$bytes"
		events 1 1000 | publish -b "$through" -t "$topic" >receipts 2>err || expect_equal $? 69 "$topic: $(cat err)"
		expect_receipts_true "$topic" receipts
	done
done
tell net pass
ran 'connections cut' "$tries" 8

t 'a network that swallows everything: 69 within the time-out'
for harm in 'hole both' silent; do
	# shellcheck disable=SC2086 # its words
	tell net $harm
	for command in 'publish -t often --key k' 'replay -t often' 'topic-list'; do
		SECONDS=0
		# shellcheck disable=SC2086 # its words
		expect_status 69 evbus $command -b "$through" -X timeout=1s <<<'{"n":0}'
		took 5
	done
	tell net pass
done

t 'who asks is who the environment or a file says; nobody else is let in, and no secret is told'
AWS_SHARED_CREDENTIALS_FILE=$SERVED/session expect_status 0 evbus topic-list
key=$(sed -n 's/.*secret_access_key = //p' "$SERVED/credentials")
expect_status 77 env AWS_SHARED_CREDENTIALS_FILE=/dev/null evbus topic-list
expect_err_has AWS_ACCESS_KEY_ID
expect_status 0 env AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_ACCESS_KEY_ID=AKIDTEST AWS_SECRET_ACCESS_KEY="$key" evbus topic-list
expect_status 77 env AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_ACCESS_KEY_ID=AKIDTEST AWS_SECRET_ACCESS_KEY="$key-no" evbus topic-list
expect_err_has InvalidSignature
expect_true 'the secret is not told' test -z "$(grep -F "$key" "$ERR")"
printf '[other]\naws_access_key_id=no\naws_secret_access_key=no\n[me] \n# %s\naws_access_key_id=AKIDTEST\naws_secret_access_key = %s\n' x "$key" >profiles
expect_status 77 env AWS_SHARED_CREDENTIALS_FILE=profiles AWS_PROFILE=other evbus topic-list
expect_status 0 env AWS_SHARED_CREDENTIALS_FILE=profiles AWS_PROFILE=me evbus topic-list
expect_status 78 evbus topic-list -b "kinesis://a:b@us-east-1"
expect_status 0 env AWS_REGION=us-east-1 evbus topic-list -b "${url/us-east-1/}"

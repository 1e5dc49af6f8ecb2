#!/usr/bin/env bash
# A target, which takes events and cannot be read: over a server of a few lines (tests/servers/amqp_half.py). What needs
# RabbitMQ itself stands in tests/servers/rabbitmq.sh.
. "${0%/*}/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 12

# judge: a server that does with a message as that says; its URL is in $url. From here on confirmed begins.
judge() {
	[ -n "${judged:-}" ] || serve judge amqp_half.py judge
	judged=${judged:-$SERVED} url=${url:-amqp://127.0.0.1:$ANSWER}
	seen=$(wc -l <"$judged")
}
events() { # TEXT...
	printf '{"x":"%s"}\n' "$@"
}
# What it confirmed.
confirmed() {
	tail -n "+$((seen + 1))" "$judged" | jq -r .x | paste -sd' '
}

# ---- what is refused ---------------------------------------------------------------------------------------------

t 'what a target refuses is skipped, told by its record, and counted; the others come, each once'
fresh
judge
events a 'lost 1' b 'full 1' c 'lost 2' | evbus publish -q -t o
expect_status 1 evbus replay -t o --to-bus "$url" --on-error skip --format '{offset_kind}\n'
expect_out $'none\nnone\nnone'
expect_err "evbus replay: publishing to '$url': record o/0/1: topic 'o': '$url' gives an event back, as no queue takes it (312 NO_ROUTE): declare the queue 'o', or bind one
evbus replay: publishing to '$url': record o/0/3: topic 'o': '$url' refuses an event: a queue is full, or has failed
evbus replay: publishing to '$url': record o/0/5: topic 'o': '$url' gives an event back, as no queue takes it (312 NO_ROUTE): declare the queue 'o', or bind one
evbus replay: the other side refused 3 of 6 events"
expect_equal "$(confirmed)" 'a b c' 'what came'

t 'without that the first one ends it: 66 where no queue takes it, 65 where one refuses it'
fresh
judge
events 'lost 1' a | evbus publish -q -t o
expect_status 66 evbus replay -t o --to-bus "$url"
expect_out ''
expect_status 65 evbus publish -q -b "$url" -t o < <(events 'full 1' b)
expect_status 66 evbus publish -q -b "$url" -t o < <(events 'lost 1' b)

t 'what is published is skipped as well, and kept with --rejects'
fresh
judge
events a 'lost 1' b 'full 1' c >in
expect_status 1 evbus publish -b "$url" -t o --on-error skip --rejects out --format '{offset_kind}\n' in
expect_out $'none\nnone\nnone'
expect_err_like "evbus publish: in:2:1: *(312 NO_ROUTE)*
evbus publish: in:4:1: *a queue is full*
evbus publish: 2 of 5 events were refused"
expect_equal "$(confirmed)" 'a b c' 'what came'
expect_same out <(events 'lost 1' 'full 1')

t 'a server that is gone ends it in either case'
for command in 'replay --to-bus' 'publish -b'; do
	fresh
	judged='' url=''
	judge
	events a 'lost 1' b away c >in
	evbus publish -q -t o in
	# shellcheck disable=SC2086 # its words
	expect_status 69 evbus $command "$url" -t o --on-error skip --format '{offset_kind}\n' <in
	expect_out $'none\nnone'
	expect_err_has '312 NO_ROUTE'
	expect_equal "$(confirmed)" 'a b' "what came by $command"
done

t 'a connection that fell silent behind a refusal is not used again: what it says late is about no other row'
fresh
serve half amqp_half.py late
evbus outbox-init -q --outbox sqlite:app.db >/dev/null
for n in 1 2 3; do
	evbus outbox-add -q --outbox sqlite:app.db -t here >/dev/null <<<"{\"id\":\"$n\",\"type\":\"t\"}"
done
expect_status 0 evbus outbox-drain -q -f --max 3 --timeout 20s --outbox sqlite:app.db \
	--to-bus "amqp://127.0.0.1:$ANSWER?timeout=1s" --retry-delay 10ms
expect_equal "$(sqlite3 app.db 'SELECT state, attempts FROM outbox' | uniq -c | tr -s ' ')" ' 3 SENT|0' rows
expect_equal "$(paste -sd' ' "$SERVED")" '1 1 1 2 2' 'connections that messages came on'

judged='' url=''

# ---- what there is not ---------------------------------------------------------------------------------------------

t 'options that ask for what a target has not are refused with 64, before anybody is asked'
fresh
for option in --idempotent '--expect-offset 0' --atomic '--partition 1' '--format stored'; do
	# shellcheck disable=SC2086 # its words
	expect_status 64 evbus publish -b amqp://127.0.0.1:1/shop -t o $option <<<'{"x":"a"}'
	expect_err_has "evbus publish: ${option%% [0-9]*} is not for a target such as 'amqp://127.0.0.1:1/shop': "
done
evbus publish -q -t o <<<'{"x":"a"}'
evbus outbox-init -q --outbox sqlite:app.db >/dev/null
for command in 'replay -t o --to-partition 1' 'replay -t o --format stored' 'outbox-drain --outbox sqlite:app.db --format stored'; do
	# shellcheck disable=SC2086 # its words
	expect_status 64 evbus $command --to-bus AMQPS://127.0.0.1:1
	expect_err_has "is not for a target such as 'AMQPS://127.0.0.1:1'"
done
expect_status 64 evbus outbox-drain -b amqp://127.0.0.1:1 --outbox sqlite:app.db --format stored
expect_status 0 evbus replay -t o --to-bus file:other --format stored
expect_out_has '{"crc32c":'

t 'what it has not and nobody needs is left out: partitions of records, offsets of receipts'
fresh
judge
evbus topic-create -q -t o --partitions 3 >/dev/null
for n in 0 1 2; do
	events "$n" | evbus publish -q -t o -p "$n"
done
evbus tail -t o -n 9 >records
expect_status 0 evbus publish -b "$url" --records --format tsv records
expect_equal "$(cut -f1-4 "$OUT" | uniq -c | tr -s ' \t' ' ')" ' 3 o 0 none ' receipts
expect_status 0 evbus publish -b "$url" -t o --partition 0 --no-create --format pretty < <(events a)
expect_equal "$(confirmed)" '0 1 2 a' 'what came'

t 'dead letters are published to it once more: without an offset, and one that it refuses fails again alone'
fresh
judge
evbus topic-create -q -t o --partitions 2 >/dev/null
for text in a 'lost 1' b; do
	events "$text" | evbus publish -q -t o -p 1
done
evbus consume -q -t o -g g -- sh -c 'exit 65' 2>/dev/null
expect_status 1 evbus dlq-retry -q -g g --republish -b "$url" --store sqlite:event_bus/.evbus/state.db --format json
expect_equal "$(jq -rc '.after, (.result | if startswith("{") then fromjson | .offset_kind, .offset else .[:16] end)' "$OUT" |
	paste -sd' ')" "RETRIED none null DEAD topic 'o': 'amqp RETRIED none null" results
expect_equal "$(confirmed)" 'a b' 'what came'

# ---- passwords ---------------------------------------------------------------------------------------------------

t 'a password on the command line is refused with 64, and not told; it comes from a file or the environment'
fresh
judge
at=${url#*//}
echo s3cret >pw
evbus publish -q -t o <<<'{"x":"a"}'
for secret in "amqp://me:s3cret@$at" "AMQPS://me:s3c/re@t?#@$at" "amqp://me:s3cret?x=y@$at"; do
	for command in 'publish -t o -b' 'replay -t o --to-bus' 'outbox-drain --to-bus'; do
		# shellcheck disable=SC2086 # its words
		expect_status 64 evbus $command "$secret" <<<'{"x":"a"}'
		expect_err_has 'a password in it is seen by everybody: put it into a file, named by password_file=FILE in the URL'
		expect_true 'it is not told' test -z "$(grep -F s3c "$ERR")"
	done
done
expect_status 0 evbus publish -q -b "amqp://me@$at?password_file=pw" -t o <<<'{"x":"a"}'
EVBUS_BUS=amqp://me:s3cret@$at expect_status 0 evbus publish -q -t o <<<'{"x":"b"}'
echo "bus: amqp://me:s3cret@$at" >evbus.yaml
expect_status 0 evbus publish -q -t o <<<'{"x":"c"}'
expect_equal "$(confirmed)" 'a b c' 'what came'

# ---- waiting -----------------------------------------------------------------------------------------------------

serve mute amqp_half.py mute
mute=127.0.0.1:$ANSWER connected=$SERVED
# interrupted SIGNAL COMMAND...: ends by it, once it is connected, and not by its time-out.
interrupted() {
	local program many
	many=$(($(wc -l <"$connected") + 1))
	env --default-signal=INT "${@:2}" <in >"$OUT" 2>"$ERR" &
	program=$!
	wait_for 20 grep -qx "$many" "$connected"
	kill -"$1" "$program"
	wait "$program"
	expect_equal $? $((128 + $(kill -l "$1"))) "the status of ${*:2:2}"
	expect_equal "$(cat "$ERR")" '' 'what is told'
}
patient='timeout=60s'

t 'who connects to a server that says nothing ends by a signal at once'
fresh
echo '{"id":"a","type":"t"}' >in
evbus publish -q -t o in
evbus outbox-init -q --outbox sqlite:app.db >/dev/null
evbus outbox-add -q --outbox sqlite:app.db -t o <in >/dev/null
interrupted TERM evbus publish -b "amqp://$mute?$patient" -t o
interrupted INT evbus replay -t o --to-bus "amqp://$mute?$patient"
interrupted TERM evbus outbox-drain -f --outbox sqlite:app.db --to-bus "amqp://$mute?$patient"

t 'so does who waits for it to speak TLS'
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a -keyout /dev/null -out ca.pem 2>/dev/null
interrupted TERM evbus publish -b "amqps://$mute?$patient&tls_ca=ca.pem" -t o

t 'its time-out holds'
expect_status 69 evbus publish -b "amqp://$mute?timeout=300ms" -t o <in
expect_err_has 'no answer within 300 ms'
expect_status 69 evbus publish -b "amqps://$mute?timeout=300ms&tls_ca=ca.pem" -t o <in

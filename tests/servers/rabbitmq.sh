#!/usr/bin/env bash
# The commands with RabbitMQ as a target.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 15

serve broker server rabbitmq --mutual || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r plain tls <<<"$ANSWER"
at=${plain#*@} files=$SERVED
echo s3cret >"$files/password"
plain="amqp://tester@$at?password_file=$files/password"
tls="amqps://tester@${tls#*@}?password_file=$files/password"
secure=${tls/127.0.0.1/localhost}

# take QUEUE FILE: what is in it, a message a line; taken QUEUE FILTER: of each, by jq
take() {
	tell broker take "$1" "$PWD/$2"
}
taken() {
	take "$1" messages && jq -rc "$2" messages
}

# ---- what is published -------------------------------------------------------------------------------------------

t 'what is replayed comes to the queue of its topic byte for byte, in order; receipts have no offset'
fresh
tell broker queue orders.new
printf '{"id":"1","type":"t","total":1.10,"u":"\\u00e9é"}\n{"id":"2"}\n' >events
evbus publish -q -t orders.new events
expect_status 0 evbus replay -t orders.new --to-bus "$plain"
expect_out_like '{"topic":"orders.new","partition_id":0,"offset_kind":"none","offset":null,"published_at_utc":"*Z"}
{"topic":"orders.new","partition_id":0,"offset_kind":"none","offset":null,"published_at_utc":"*Z"}'
taken orders.new .body >found
expect_same found events

t 'a message has an id, a type and a time, is persistent, and bears the headers that evbus has everywhere'
fresh
tell broker queue orders
printf '{"id":"e-1","type":"order.placed","correlation_id":"c-1"}\n{"n":2}\n' | evbus publish -q -t orders --key k
expect_status 0 evbus replay -t orders --to-bus "$plain" --format '{published_at_utc}\n'
time=$(head -n 1 "$OUT")
taken orders 'del(.body, .headers)' >found
expect_equal "$(head -n 1 found)" "{\"exchange\":\"\",\"routing_key\":\"orders\",\"content_type\":\"application/json\",\
\"delivery_mode\":2,\"correlation_id\":\"c-1\",\"message_id\":\"e-1\",\"timestamp\":$(date -ud "$time" +%s),\
\"type\":\"order.placed\",\"app_id\":\"evbus\"}" 'the first'
expect_equal "$(jq -r .message_id found | tail -n 1)" orders/0/1 'the id of one without an id: where it stood first'
expect_equal "$(jq -c .headers messages | head -n 1)" "{\"Evbus-Topic\":\"orders\",\"Evbus-Published-At\":\"$time\",\
\"Evbus-Key\":\"k\",\"Evbus-Origin\":\"orders/0/0\",\"Evbus-Event-Id\":\"e-1\",\"Evbus-Event-Type\":\"order.placed\"}" headers

t 'texts of any length come through, and what is too long for a property is left out there'
fresh
tell broker queue long
long=$(printf '%0300d' 0)
{
	printf '{"id":"%s","type":"%s","body":"é' "$long" "$long"
	head -c 300000 /dev/zero | tr '\0' x
	echo '"}'
} >event
expect_status 0 evbus publish -q -b "$plain" -t long --key "$(printf '%01024d' 1)" event
taken long .body >found
expect_same found event
expect_equal "$(jq -c '[.message_id, .type, (.headers["Evbus-Key"] | length)]' messages)" '[null,null,1024]' 'properties'

t 'several topics are forwarded by a pattern, merged, whatever partitions they have'
fresh
evbus topic-create -q -t shop.a --partitions 3 >/dev/null
for n in 1 2 3; do
	evbus publish -q -t shop.a --key "$n" <<<"{\"a\":$n}"
	evbus publish -q -t shop.b <<<"{\"b\":$n}"
done
tell broker queue shop.a
tell broker queue shop.b
expect_status 0 evbus replay -t 'shop.*' --to-bus "$plain" --format tsv
expect_equal "$(cut -f1-4 "$OUT" | tr '\t' ' ' | paste -sd,)" 'shop.a 0 none ,shop.b 0 none ,shop.a 0 none ,shop.b 0 none ,shop.a 0 none ,shop.b 0 none ' receipts
expect_equal "$(taken shop.a .body | paste -sd,)" '{"a":1},{"a":2},{"a":3}' shop.a
expect_equal "$(taken shop.b .body | paste -sd,)" '{"b":1},{"b":2},{"b":3}' shop.b

t 'an exchange gets all of it by its own rules, or by one routing key'
fresh
tell broker exchange events topic
tell broker queue placed
tell broker bind placed events 'order.#'
for option in '' '&routing_key=order.x'; do
	expect_status 0 evbus publish -q -b "$plain&exchange=events$option" -t order.placed <<<'{"n":1}'
	expect_equal "$(taken placed '[.exchange,.routing_key,.headers["Evbus-Topic"]]')" \
		"[\"events\",\"$([ -n "$option" ] && echo order.x || echo order.placed)\",\"order.placed\"]" "with '$option'"
done
expect_status 66 evbus publish -b "$plain&exchange=events" -t payment <<<'{"n":1}'
expect_status 78 evbus publish -b "$plain&exchange=nothing" -t payment <<<'{"n":1}'
expect_err_has "404 NOT_FOUND - no exchange 'nothing'"

# ---- what is not -------------------------------------------------------------------------------------------------

t 'what no queue takes is refused, told with the queue, and has no receipt'
fresh
printf '{"n":%s}\n' 1 2 3 | evbus publish -q -t nowhere
expect_status 66 evbus replay -t nowhere --to-bus "$plain"
expect_out ''
expect_err_has "no queue takes it (312 NO_ROUTE): declare the queue 'nowhere'"
tell broker queue nowhere
expect_equal "$(taken nowhere .body)" '' 'what came there all the same'

t 'what is refused while more is read is told once, and no record is named that was not'
fresh
for n in {1..40}; do
	printf '{"n":%s,"x":"%0100000d"}\n' "$n" 0
done | evbus publish -q -t nobody
expect_status 66 evbus replay -t nobody --to-bus "$plain"
expect_out ''
expect_equal "$(wc -l <"$ERR")" 1 'how often it is told'
expect_err_has "topic 'nobody': 'amqp://$at' gives an event back"
expect_true 'a record is named' test -z "$(grep ' record nobody/' "$ERR")"

t 'a full queue refuses: the status is 65, and what was confirmed has its receipts'
fresh
tell broker queue full x-max-length=3 x-overflow=reject-publish
printf '{"n":%s}\n' 1 2 3 4 5 6 | evbus publish -q -t full
expect_status 65 evbus replay -t full --to-bus "$plain&window=1" --format '{topic}\n'
expect_lines 3
expect_err_has 'refuses an event: a queue is full, or has failed'
expect_equal "$(taken full .body | paste -sd,)" '{"n":1},{"n":2},{"n":3}' 'what is in it'
expect_status 1 evbus replay -t full --to-bus "$plain" --on-error skip --format '{topic}\n'
expect_lines 3
expect_err_has 'the other side refused 3 of 6 events'
expect_equal "$(taken full .body | paste -sd,)" '{"n":1},{"n":2},{"n":3}' 'what is in it then'

t 'it cannot be read, and who wants to is told why'
fresh
for command in 'tail -t orders' 'replay -t orders' 'replay -t >' 'topic-list' 'topic-describe -t orders' \
	'checkpoint-set -g g -t orders -o 1' 'verify -t orders'; do
	# shellcheck disable=SC2086 # its words
	expect_status 78 evbus $command -b "$plain"
	expect_err_has "'amqp://$at' can be published to, and not be read"
done
expect_status 78 evbus consume -b "$plain" -t orders -g g -- cat
expect_status 78 evbus topic-create -b "$plain" -t orders
expect_err_has "made by RabbitMQ's own tools"

t 'what a target cannot promise is refused before anything is sent'
fresh
tell broker queue exact
for option in --idempotent '--expect-offset 0' --atomic '--partition 1'; do
	# shellcheck disable=SC2086 # its words
	printf '{"id":"1"}\n{"id":"2"}\n' | expect_status 64 evbus publish -b "$plain" -t exact $option
done
expect_equal "$(taken exact .body)" '' 'what was sent'

# ---- who we are --------------------------------------------------------------------------------------------------

t 'the password comes from a file too, and is in no message'
fresh
tell broker queue secret
printf 's3cret\n' >password
expect_status 0 evbus publish -q -b "amqp://tester@$at?password_file=password" -t secret <<<'{"n":1}'
EVBUS_BUS=amqp://tester:wr0ng@$at expect_status 77 evbus publish -t secret <<<'{"n":1}'
expect_err_has '403 ACCESS_REFUSED'
expect_true 'the password is told' test -z "$(grep wr0ng "$ERR")"
EVBUS_BUS=amqp://tester:s3cret@$at/none expect_status 77 evbus publish -v -t secret <<<'{"n":1}'
expect_err_has "530 NOT_ALLOWED - vhost none not found"
expect_true 'the password is told' test -z "$(grep s3cret "$ERR")"
expect_status 78 evbus publish -b "amqp://tester@$at?password_file=none" -t secret <<<'{"n":1}'
EVBUS_BUS="amqp://tester:x@$at?password_file=password" expect_status 78 evbus publish -t secret <<<'{"n":1}'

t 'TLS: both show their certificates, and a stranger is refused on either side'
fresh
tell broker queue safe
mine="tls_cert=$files/client.pem&tls_key=$files/client.key"
expect_status 0 evbus publish -q -b "$secure&tls_ca=$files/ca.pem&$mine" -t safe <<<'{"n":1}'
expect_equal "$(taken safe .body)" '{"n":1}' 'what came'
expect_status 78 evbus publish -b "$secure&tls_ca=$files/stranger-ca.pem&$mine" -t safe <<<'{"n":1}'
expect_err_has 'peer cert verification failed'
expect_status 78 evbus publish -b "$secure&$mine" -t safe <<<'{"n":1}'
expect_status 78 evbus publish -b "$tls&tls_ca=$files/ca.pem&$mine" -t safe <<<'{"n":1}'
expect_err_has 'hostname verification failed'
expect_status 69 evbus publish -b "$secure&timeout=2s&tls_ca=$files/ca.pem" -t safe <<<'{"n":1}'
expect_status 69 evbus publish -b "$secure&timeout=2s&tls_ca=$files/ca.pem&tls_cert=$files/stranger.pem&tls_key=$files/stranger.key" \
	-t safe <<<'{"n":1}'
expect_status 69 evbus publish -b "amqp://${secure#*@}&timeout=2s" -t safe <<<'{"n":1}'
expect_status 78 evbus publish -b "$plain&tls_ca=$files/ca.pem" -t safe <<<'{"n":1}'

t 'a URL that is none is refused'
for url in amqp://h:0 amqp://h:x amqp://a,b 'amqp://h?window=0' 'amqp://h?prefix=x' 'amqp://h?timeout=no' 'amqp://h/%zz' \
	'amqps://h?tls_key=x' "amqp://h?routing_key=$(printf '%0256d' 0)"; do
	expect_status 78 evbus publish -b "$url" -t orders <<<'{"n":1}'
done
for at_nobody in 127.0.0.1:1 '[::1]:1'; do
	expect_status 69 evbus publish -b "amqp://$at_nobody" -t orders <<<'{"n":1}'
	expect_err "evbus publish: cannot connect to 'amqp://$at_nobody': it is refused, or leads nowhere"
done

# ---- the outbox --------------------------------------------------------------------------------------------------

outbox() { # COMMAND...
	evbus "outbox-$1" --outbox sqlite:app.db "${@:2}"
}

t 'an outbox is drained to it: ids to know an event again by, receipts without offset in the rows'
fresh
tell broker queue paid
outbox init -q >/dev/null
printf '{"id":"o-%s","type":"order.paid"}\n' 1 2 3 | outbox add -q -t paid >/dev/null
expect_status 0 outbox drain --to-bus "$plain" --format '{topic} {offset_kind} {offset}\n'
expect_out 'paid none 
paid none 
paid none '
taken paid '[.message_id, .headers["Evbus-Event-Key"], .body]' >found
expect_equal "$(paste -sd' ' found)" "$(printf '["o-%s","o-%s","{\\"id\\":\\"o-%s\\",\\"type\\":\\"order.paid\\"}"] ' 1 1 1 2 2 2 3 3 3 | sed 's/ $//')" messages
expect_true 'it was published here' test ! -e event_bus/paid
sqlite3 app.db 'SELECT state, receipt FROM outbox' >rows
expect_equal "$(cut -d'|' -f2 rows | jq -c '[.topic,.offset_kind,.offset]' | uniq -c | tr -s ' ')" ' 3 ["paid","none",null]' receipts
expect_equal "$(cut -d'|' -f1 rows | uniq)" SENT states
outbox add -q -t paid >/dev/null <<<'{"id":"o-4","type":"t"}'
expect_status 0 outbox drain -q --to-bus file:other
expect_status 0 evbus replay -b file:other -t paid --format payload
expect_out '{"id":"o-4","type":"t"}'

t 'a row that no queue takes is refused alone, waits, and fails; the others are published'
fresh
tell broker queue here
outbox init -q >/dev/null
for n in 1 2 3; do
	outbox add -q -t here >/dev/null <<<"{\"id\":\"h-$n\",\"type\":\"t\"}"
	outbox add -q -t there >/dev/null <<<"{\"id\":\"t-$n\",\"type\":\"t\"}"
done
expect_status 1 outbox drain -q --to-bus "$plain" --retry-max 1 --retry-delay 10ms
expect_err_has 'has FAILED'
expect_err_has "declare the queue 'there'"
expect_equal "$(taken here .message_id | sort -u | paste -sd,)" h-1,h-2,h-3 'what came'
expect_equal "$(sqlite3 app.db "SELECT topic, state, attempts FROM outbox" | sort -u | paste -sd,)" 'here|SENT|0,there|FAILED|2' rows
tell broker queue there
evbus topic-create -q -t any >/dev/null
expect_status 0 evbus dlq-retry -q --outbox sqlite:app.db --all
expect_status 0 outbox drain -q --to-bus "$plain"
expect_equal "$(taken there .message_id | paste -sd,)" t-1,t-2,t-3 'what came then'

#!/usr/bin/env bash
# The runbook of evbus-runbooks(7) that forwards to RabbitMQ, carried out as it is written. Only the address of the server
# and the user are others.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 3

serve broker server rabbitmq || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r plain _ <<<"$ANSWER"
tell broker queue orders
echo s3cret >rabbit.pw
# shellcheck disable=SC2094 # a function of that name, and a file
steps 'Forward to RabbitMQ' | sed "s|forward@127.0.0.1:5672|tester@${plain#*@}|; s/\\\\e/\\\\/g" >steps
carry_out() { # FROM TO: these lines
	local step
	while read -r step; do
		eval "$step" 2>"$ERR" </dev/null
		expect_equal $? 0 "$step ($(head -c 500 "$ERR"))"
	done < <(sed -n "$1,$2p" steps)
}
forwarded() {
	tell broker take orders "$PWD/messages"
	jq -r .message_id messages | paste -sd,
}

t 'what was there before is not forwarded, and what comes then is, once'
expect_equal "$(wc -l <steps)" 8 'steps'
printf '{"id":"o-%s","type":"t"}\n' 1 2 3 | evbus publish -q -t orders
carry_out 1 3 >/dev/null
printf '{"id":"n-%s","type":"t"}\n' 1 2 3 | evbus publish -q -t orders
carry_out 4 7 >/dev/null
expect_equal "$(forwarded)" n-1,n-2,n-3 'what came'
printf '{"id":"m-%s","type":"t"}\n' 1 2 | evbus publish -q -t orders
carry_out 4 7 >/dev/null
expect_equal "$(forwarded)" m-1,m-2 'what came then'

t 'what is forwarded while the server is away comes when it is there'
tell broker stop
evbus publish -q -t orders <<<'{"id":"k-1","type":"t"}'
expect_status 69 eval "$(sed -n 6p steps)"
tell broker start
carry_out 4 7 >/dev/null
expect_equal "$(forwarded)" k-1 'what came'

t 'an outbox is drained to it'
evbus outbox-init -q --outbox sqlite:app.db >/dev/null
evbus outbox-add -q --outbox sqlite:app.db -t orders <<<'{"id":"a-1","type":"t"}' >/dev/null
carry_out 8 8
expect_equal "$(forwarded)" a-1 'what came'

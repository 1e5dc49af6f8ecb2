#!/usr/bin/env bash
# Who a NATS server lets in by keys and tokens, and what it lets him do.
# shellcheck disable=SC2016 # $JS is the server's
. "${0%/*}/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 10

# Refused with 77: what is denied is told, and nothing of what opens the door.
expect_denied() { # WHAT COMMAND...
	within 5 expect_status 77 timeout 20 "${@:2}" <<<'{"id":"denied"}'
	expect_out ''
	expect_err_has "$1"
	expect_equal "$(grep -c "s3cret\|$seed\|SU[A-Z2-7]\{20\}" "$ERR")" 0 'a secret is told'
}
# as USER: the bus for one of those below
as() {
	printf 'nats://%s:s3cret@127.0.0.1:%s' "$1" "$port"
}

t 'there is a server, and the module'
public=$(PYTHONDONTWRITEBYTECODE=1 python3 "$ROOT/tests/servers/nkeys.py" key)
stranger=$(PYTHONDONTWRITEBYTECODE=1 python3 "$ROOT/tests/servers/nkeys.py" stranger)
seed=$(<key)
{
	echo "{ nkey: \"$public\" }"
	while read -r user denied; do
		printf '{ user: "%s", password: "s3cret", permissions: { %s: { deny: "%s" } } }\n' "$user" "${denied%% *}" "${denied#* }"
	done
} >users <<'USERS'
reader publish evbus.>
writer publish $JS.API.CONSUMER.CREATE.>
stuck publish $JS.API.CONSUMER.MSG.NEXT.>
blind publish $JS.API.STREAM.INFO.>
guest publish $JS.API.STREAM.CREATE.>
lister publish $JS.API.STREAM.NAMES
deaf subscribe _INBOX.>
USERS
must_serve nats broker server nats --users "$PWD/users"
port=${ANSWER##*:}
export EVBUS_BUS=$ANSWER EVBUS_STORE=sqlite:state.db
expect_status 0 evbus publish -q -t orders <<<'{"id":"1"}'

# ---- keys and tokens -----------------------------------------------------------------------------------------------

t 'a key opens the door, and a stranger'\''s does not'
by_key="nats://127.0.0.1:$port?nkey=$public"
expect_status 0 evbus publish -b "$by_key&nkey_seed=key" -t keyed <<<'{"id":"k"}'
expect_status 0 evbus replay -b "$by_key&nkey_seed=key" -t keyed --format payload
expect_out '{"id":"k"}'
expect_denied uthorization evbus publish -b "$by_key&nkey_seed=stranger" -t keyed
expect_denied uthorization evbus publish -b "${by_key/$public/$stranger}&nkey_seed=stranger" -t keyed
expect_denied uthorization evbus publish -b "nats://127.0.0.1:$port" -t keyed

t 'a key that is no key, or half of one, is refused before anybody is asked'
expect_status 78 evbus topic-list -b "$by_key"
expect_err_has nkey_seed
expect_status 78 evbus topic-list -b "$by_key&nkey_seed=nothing"
expect_err_has "nkey_seed='nothing'"
echo "${seed%?????}" >broken
expect_true 'refused' test "$(evbus topic-list -b "$by_key&nkey_seed=broken" >"$OUT" 2>"$ERR"; echo $?)" != 0
expect_equal "$(grep -c "${seed:0:20}" "$ERR")" 0 'a secret is told'

t 'credentials of an operator open the door; those that are over, or a stranger'\''s, do not'
expect_true 'a server with an operator' serve operated server nats --operator
operated=$ANSWER files=$SERVED
by_creds() { # NAME
	printf '%s?creds=%s/%s.creds' "$operated" "$files" "$1"
}
expect_status 0 evbus publish -b "$(by_creds user)" -t keyed <<<'{"id":"c"}'
expect_status 0 evbus replay -b "$(by_creds user)" -t keyed --format payload
expect_out '{"id":"c"}'
for name in expired forged; do
	expect_denied uthor evbus publish -b "$(by_creds $name)" -t keyed
done
expect_denied uthor evbus publish -b "$operated" -t keyed
expect_status 78 evbus topic-list -b "$(by_creds nothing)"
expect_err_has "creds='$files/nothing.creds'"

t 'another account has topics of its own'
expect_status 66 evbus replay -b "$(by_creds other)" -t keyed
expect_status 0 evbus publish -b "$(by_creds other)" -t keyed --format '{offset}\n' <<<'{"id":"o"}'
expect_out 1
expect_denied '"evbus.keyed.0"' evbus publish -b "$(by_creds denied)" -t keyed

t 'a signature that begins with a zero, which libnats may leave out, keeps nobody outside'
serve chosen nats_nonce.py
read -r chosen allowed <<<"$ANSWER"
expect_status 69 evbus topic-list -b "nats://127.0.0.1:$chosen?timeout=1s&nkey=$allowed&nkey_seed=$SERVED.seed"
expect_equal "$(tail -n 1 "$SERVED")" signed 'the last login'

# ---- what is denied ------------------------------------------------------------------------------------------------

t 'who may not publish to a topic is told so, and reads it'
expect_denied 'Permissions Violation for Publish to "evbus.orders.0"' evbus publish -b "$(as reader)" -t orders
expect_denied '"evbus.orders.0"' evbus publish -b "$(as reader)" -t orders --idempotent
expect_status 0 evbus replay -b "$(as reader)" -t orders --format payload
expect_out '{"id":"1"}'

t 'who may not read a topic is told so, and publishes to it'
expect_denied '"$JS.API.CONSUMER.CREATE.evbus=orders=0' evbus replay -b "$(as writer)" -t orders
expect_denied '"$JS.API.CONSUMER.MSG.NEXT.evbus=orders=0' evbus replay -b "$(as stuck)" -t orders
expect_denied '"$JS.API.CONSUMER.CREATE.evbus=orders=0' evbus tail -b "$(as writer)" -f -t orders -o beginning
expect_denied '"$JS.API.CONSUMER.MSG.NEXT.evbus=orders=0' evbus consume -b "$(as stuck)" -t orders -g g -- cat
expect_denied '"$JS.API.CONSUMER.CREATE.evbus=orders=0' evbus tail -b "$(as writer)" -f -t orders
expect_denied '"$JS.API.CONSUMER.MSG.NEXT.evbus=orders=0' evbus tail -b "$(as stuck)" -f -t orders -o end
expect_denied '"$JS.API.CONSUMER.CREATE.evbus=orders=0' evbus tail -b "$(as writer)" -f -t orders -o end
expect_denied '"$JS.API.CONSUMER.MSG.NEXT.evbus=orders=0' evbus consume -b "$(as stuck)" -f -t orders -g h -o end -- cat
expect_status 0 evbus publish -q -b "$(as writer)" -t orders <<<'{"id":"2"}'

t 'who may not look at topics, make or list them is told so'
expect_denied '"$JS.API.STREAM.INFO.evbus=orders=0"' evbus publish -b "$(as blind)" -t orders
expect_denied '"$JS.API.STREAM.INFO.evbus=orders=0"' evbus topic-describe -b "$(as blind)" -t orders
expect_denied '"$JS.API.STREAM.CREATE.evbus=new=0"' evbus topic-create -b "$(as guest)" -t new
expect_denied '"$JS.API.STREAM.CREATE.evbus=new=0"' evbus publish -b "$(as guest)" -t new
expect_denied '"$JS.API.STREAM.NAMES"' evbus topic-list -b "$(as lister)"
expect_denied 'Permissions Violation for Subscription to "_INBOX.' evbus replay -b "$(as deaf)" -t orders

t 'nothing that was denied is there'
expect_status 0 evbus replay -t orders --format '{event_id}\n'
expect_out $'1\n2'
expect_status 0 evbus topic-list --format tsv
expect_equal "$(grep -c new "$OUT")" 0 'a topic that nobody might make'

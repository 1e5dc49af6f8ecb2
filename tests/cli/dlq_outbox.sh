#!/usr/bin/env bash
# Dead letters of outboxes: FAILED rows are listed, shown, discarded and retried as letters of groups are.
. "${0%/*}/lib.sh"
plan 10

letters() {
	printf '%s\n' "$@" | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/make_letters" event_bus
}
use_app
# rows VALUES: (id, topic, type, payload, tenant) into the outbox, and drained.
rows() {
	app "INSERT INTO outbox (id, topic, event_type, payload, tenant_id) VALUES $1"
	evbus outbox-drain -q >/dev/null 2>&1
}
# An outbox app.db with a row that was sent and two that have FAILED, and a letter in the store.
bus() {
	fresh
	echo '{"id":"1"}' | evbus publish -q -t orders
	evbus outbox-init -q >/dev/null
	rows "('a', 'orders', 't.a', 'no JSON', 'A'), ('b', 'orders', 't', '{\"id\":\"b\"}', NULL), ('c', 'crm.lead', 't.c', '[1]', 'B')"
	letters '{"event_id":"e0"}'
}
ids() {
	evbus dlq-list --format tsv "$@" | cut -f 1 | paste -sd ' '
}
row() { # ID COLUMN
	app "SELECT $2 FROM outbox WHERE id = '$1'"
}

t 'FAILED rows are letters, behind those of the store'
bus
here=$EVBUS_OUTBOX EVBUS_OUTBOX=
expect_status 0 evbus dlq-list
expect_lines 2
expect_status 0 evbus dlq-list --outbox "$here"
expect_out_like 'ID        STATE  GROUP   TOPIC     POSITION  EVENT_ID  TYPE  REASON    ATTEMPTS  AGE  ERROR
1         DEAD   g       orders         0/0  e0        -     retries          1   *s  no
app.db:1  DEAD   app.db  orders           -  a         t.a   not_json         1   *s  *
app.db:3  DEAD   app.db  crm.lead         -  c         t.c   not_json         1   *s  *'
EVBUS_OUTBOX=$here
expect_status 0 evbus dlq-list --id app.db:1 --format json --payload
expect_out_like '{"id":"app.db:1","state":"DEAD","source":"app.db","group":null,"tenant_id":"A","topic":"orders","partition_id":null,"offset":null,*,"event_id":"a",*,"history":\[{"attempt":1,*}\],"payload":null,"payload_base64":"bm8gSlNPTg=="}'
expect_status 0 evbus dlq-show app.db:1
expect_out_has 'source            app.db'
expect_true 'the payload is the last line' test "$(tail -n 1 "$OUT")" = 'no JSON'

t 'filters choose among them'
expect_equal "$(ids)" '1 app.db:1 app.db:3'
expect_equal "$(ids -g g)" 1 '-g'
expect_equal "$(ids --source store)" 1 '--source store'
expect_equal "$(ids --source app.db)" 'app.db:1 app.db:3' '--source app.db'
expect_equal "$(ids --tenant A)" 'app.db:1' '--tenant'
expect_equal "$(ids -t 'crm.>')" 'app.db:3' '-t'
expect_equal "$(ids --type t.a --reason not_json)" 'app.db:1' '--type'
expect_equal "$(ids --max 2)" '1 app.db:1' '--max'
expect_status 0 evbus dlq-list --by reason --format tsv
expect_out $'not_json\t2\nretries\t1'
expect_status 66 evbus dlq-list --source other.db
expect_status 66 evbus dlq-show app.db:2
expect_err_has 'a row that is not FAILED is no dead letter'
expect_status 66 evbus dlq-show app.db:99

t 'they are discarded and taken back'
expect_status 0 evbus dlq-discard app.db:1 --format tsv
expect_out $'app.db:1\tDEAD\tDISCARDED\t\\N\torders\t\\N\t\\N\ta\t0\t\\N'
expect_equal "$(ids)/$(ids --state discarded)" '1 app.db:3/app.db:1'
expect_equal "$(row a state)" FAILED 'the row'
expect_status 1 evbus dlq-retry -q app.db:1
expect_status 0 evbus dlq-discard app.db:1 --undo --format tsv
expect_equal "$(ids)" '1 app.db:1 app.db:3'
expect_status 0 evbus dlq-discard --all --format tsv
expect_lines 3
expect_status 0 evbus dlq-discard --all --undo --format tsv
expect_equal "$(ids)" '1 app.db:1 app.db:3'

t 'where the bus has no store yet, discarding makes it'
fresh
echo '{"id":"1"}' | evbus publish -q -t orders
evbus outbox-init -q >/dev/null
rows "('a', 'orders', 't.a', 'no JSON', 'A')"
expect_status 0 evbus dlq-discard -q --all
expect_equal "$(ids)" ''
sql 'DELETE FROM outbox_decisions'
expect_equal "$(ids --tenant A)" 'app.db:1' 'that decision was in the store'

t 'without a command the row is due again, and outbox-drain publishes it'
bus
app "UPDATE outbox SET payload = '{\"id\":\"a\"}' WHERE id = 'a'"
expect_status 0 evbus dlq-retry --source app.db --format tsv
expect_err_has outbox-drain
expect_equal "$(cut -f 1-3 "$OUT")" $'app.db:1\tDEAD\tQUEUED\napp.db:3\tDEAD\tQUEUED'
expect_equal "$(row a state) $(row a attempts) $(row c state)" 'PENDING 0 PENDING'
expect_equal "$(ids)" 1
expect_status 1 evbus outbox-drain -q
expect_equal "$(row a state) $(row c state)" 'SENT FAILED'
expect_equal "$(ids)" '1 app.db:3'
expect_status 0 evbus replay -t orders --format payload
expect_out_has '{"id":"a"}'

t 'with a command it is tried now'
bus
# shellcheck disable=SC2016 # for the command
expect_status 1 evbus dlq-retry -q --source app.db --format tsv -- sh -c 'echo "$EVENT_TOPIC ${EVENT_OFFSET-none} ${EVENT_GROUP-none} $(cat)" >>got; [ $EVENT_TOPIC = orders ]'
expect_equal "$(cat got)" 'orders none none no JSON
crm.lead none none [1]' 'what it got'
expect_equal "$(cut -f 1-3 "$OUT")" $'app.db:1\tDEAD\tRETRIED\napp.db:3\tDEAD\tDEAD'
expect_equal "$(row a state) $(row c state) $(row c attempts)" 'SENT FAILED 2'
expect_equal "$(ids)" '1 app.db:3'
expect_status 0 evbus dlq-show app.db:3
expect_equal "$(grep -c '^attempt  ' "$OUT")" 2 'attempts'

t '--republish is for letters of groups'
bus
expect_status 64 evbus dlq-retry app.db:1 --republish
expect_err_has outbox-drain
expect_status 0 evbus dlq-retry -q --all --republish --format tsv
expect_equal "$(cut -f 1-3 "$OUT")" $'1\tDEAD\tRETRIED'
expect_equal "$(ids)" 'app.db:1 app.db:3'

t 'several outboxes, and the one in the store; what was reviewed is what is done'
bus
here=$EVBUS_OUTBOX
export EVBUS_OUTBOX=sqlite:other.db
evbus outbox-init -q >/dev/null
sqlite3 other.db "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('x', 'orders', 't', 'x')"
evbus outbox-drain -q 2>/dev/null
EVBUS_OUTBOX='' evbus outbox-init -q >/dev/null
sql "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('own', 'orders', 't', 'y')"
EVBUS_OUTBOX='' evbus outbox-drain -q >/dev/null 2>&1
unset EVBUS_OUTBOX
expect_equal "$(ids --source outbox)" 'outbox:1' 'those of the outbox in the store'
expect_equal "$(ids | wc -w)" 2 'those of the store and of the outbox in it'
expect_equal "$(ids --outbox "$here" --outbox sqlite:other.db | wc -w)" 5 'all of them'
expect_status 64 evbus dlq-list --outbox "$here" --outbox sqlite:sub/app.db
for format in table json tsv; do
	expect_status 0 evbus dlq-retry -q --all --dry-run --outbox "$here" --outbox sqlite:other.db --format $format
	grep -v app.db:1 "$OUT" >plan
	expect_status 0 evbus dlq-retry -q --ids-from plan --dry-run --outbox "$here" --outbox sqlite:other.db --format $format
	expect_equal "$(grep -c . "$OUT")" "$(grep -c . plan)" "lines of $format"
	expect_true "nothing of app.db:1: $format" sh -c "! grep -q app.db:1 '$OUT'"
done
expect_status 66 evbus dlq-retry --ids-from plan
expect_err_has --outbox

t 'outboxes of the configuration are looked at without being named'
bus
here=$EVBUS_OUTBOX
unset EVBUS_OUTBOX
cat >evbus.yaml <<YAML
outboxes:
  crm:
    url: $here
YAML
expect_equal "$(ids)" '1 crm:1 crm:3'
expect_equal "$(ids --outbox crm)" '1 crm:1 crm:3' 'named as well'
expect_equal "$(ids --source store)" 1 '--source store'
expect_status 0 evbus dlq-discard -q crm:1
expect_status 0 evbus sweep -q --sent-older-than 0 --format tsv
expect_out $'sent\t1'
expect_equal "$(ids --config /dev/null --outbox "$here")" '1 app.db:3' 'under another name'

t 'an outbox under other names; a database that is not there; bytes of all kinds'
fresh
echo '{"id":"1"}' | evbus publish -q -t orders
body=TEXT bytes="x'ff00'" newline=$'\n' escape=$'\e' bell=$'\a'
[ -z "$tests_database" ] || body=BYTEA bytes="'\\xff00'"
app "CREATE TABLE events (n INTEGER PRIMARY KEY, id TEXT, body $body, status TEXT, err TEXT, tries INTEGER);
	INSERT INTO events VALUES (1, 'a$newline$escape', '{\"a\":${newline}1}', 'DONE', 'SQL'';--', 3), (2, 'b', $bytes, 'DEAD', '${bell}x', 2)"
map="table=events,seq=n,payload=body,topic='orders',state=status,last_error=err,attempts=tries,state.PENDING=NEW,state.SENT=DONE,state.FAILED=DEAD"
expect_status 0 evbus dlq-list --map "$map" --format json --payload
expect_lines 1
expect_out_has '"id":"app.db:2"'
expect_out_has '"payload":null,"payload_base64":"/wA="'
app "UPDATE events SET body = '' WHERE n = 2"
expect_status 0 evbus dlq-list --map "$map" --format json --payload
expect_out_has '"payload":null,"payload_base64":""'
expect_status 0 evbus dlq-show app.db:2 --map "$map"
expect_status 66 evbus dlq-list --outbox sqlite:missing.db
expect_true 'no database was made' test ! -e missing.db

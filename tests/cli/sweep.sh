#!/usr/bin/env bash
# sweep: removes what is done and old, and nothing else.
. "${0%/*}/lib.sh"
plan 8

letters() {
	printf '%s\n' "$@" | "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}/tests/cli/make_letters" event_bus
}
rows() { # TABLE
	sql "SELECT count(*) FROM $1"
}
# Two letters of each state that is over, one of them old; an old and a new row of the inbox and of the event keys.
old_and_new() {
	fresh
	echo '{"id":"1"}' | evbus publish -q -t orders
	letters '{}' '{}' '{}' '{}'
	evbus dlq-retry -q 1 2 -- true >/dev/null
	evbus dlq-discard -q 3 4 >/dev/null
	sql "UPDATE dlq SET updated_at = '2001-01-01T00:00:00.000000Z' WHERE id IN (1, 3)"
	for year in 2020 2999; do
		sql "INSERT INTO inbox VALUES ('g', '', 'orders', 'e$year', '$year-01-01T00:00:00.000000Z');
			INSERT INTO event_keys VALUES ('orders', '', 'e$year', 'l', 0, '0', '$year-01-01T00:00:00.000000Z')"
	done
}

t 'what is named goes where it is old, and is counted'
old_and_new
expect_status 0 evbus sweep --inbox-older-than 30d --dlq-older-than 2d
expect_out 'KIND        REMOVED
inbox             1
event_keys        1
letters           2'
expect_equal "$(sql 'SELECT event_id FROM inbox') $(sql 'SELECT event_key FROM event_keys') $(sql 'SELECT id FROM dlq' | paste -sd ,)" 'e2999 e2999 2,4' 'what is left'
expect_status 0 evbus sweep --inbox-older-than 30d --dlq-older-than 2d --format json
expect_out '{"kind":"inbox","removed":0}
{"kind":"event_keys","removed":0}
{"kind":"letters","removed":0}'

t 'what is not named is left alone'
old_and_new
expect_status 0 evbus sweep --dlq-older-than 2d --format tsv
expect_out $'letters\t2'
expect_equal "$(rows inbox) $(rows event_keys) $(rows dlq)" '2 2 2' 'rows'
expect_status 0 evbus sweep --inbox-older-than 1d --format tsv
expect_equal "$(rows inbox) $(rows event_keys) $(rows dlq)" '1 1 2' 'rows'
expect_status 0 evbus sweep --dlq-older-than 0 --format tsv
expect_out $'letters\t2'

t '--dry-run counts and removes nothing'
old_and_new
expect_status 0 evbus sweep --inbox-older-than 30d --dlq-older-than 2d --dry-run --format tsv
expect_out $'inbox\t1\nevent_keys\t1\nletters\t2'
expect_err_has 'dry run'
expect_equal "$(rows inbox) $(rows event_keys) $(rows dlq)" '2 2 4' 'rows'

t 'dead and queued letters stay, however old they are'
old_and_new
letters '{"offset":"8","age":"99999999"}' '{"offset":"9","age":"99999999"}'
evbus dlq-retry -q 5 >/dev/null
sql "UPDATE dlq SET updated_at = '2001-01-01T00:00:00.000000Z'"
expect_status 0 evbus sweep -q --dlq-older-than 1d --format tsv
expect_out $'letters\t4'
expect_equal "$(sql 'SELECT id FROM dlq ORDER BY id' | paste -sd ,)" '5,6' 'what is left'

t 'an inbox that would forget an event whose letter can be retried is kept, and the letter is named'
old_and_new
letters '{"offset":"8","age":"999999"}'
expect_status 76 evbus sweep --inbox-older-than 1d --dlq-older-than 1d
expect_err_has "'5'"
expect_out ''
expect_equal "$(rows inbox) $(rows event_keys) $(rows dlq)" '2 2 5' 'rows'
expect_status 76 evbus sweep --inbox-older-than 1d --dry-run
expect_status 0 evbus sweep -q --inbox-older-than 30d
evbus dlq-discard -q 5 >/dev/null
expect_status 0 evbus sweep -q --inbox-older-than 1d

t 'rows of outboxes that were sent go where they are old'
old_and_new
export EVBUS_OUTBOX=sqlite:app.db
evbus outbox-init -q >/dev/null
echo '{"id":"1","type":"t"}' | evbus outbox-add -q -t orders >/dev/null
echo '{"id":"2","type":"t"}' | evbus outbox-add -q -t orders >/dev/null
expect_status 0 evbus outbox-drain -q
echo '{"id":"3","type":"t"}' | evbus outbox-add -q -t orders >/dev/null
sqlite3 app.db "UPDATE outbox SET sent_at = '2001-01-01T00:00:00.000000Z' WHERE id = '1'"
expect_status 0 evbus sweep --sent-older-than 7d --outbox sqlite:app.db --format tsv
expect_out $'sent\t1'
expect_equal "$(sqlite3 app.db 'SELECT id FROM outbox ORDER BY seq' | paste -sd ,)" '2,3' 'what is left'
expect_status 0 evbus sweep --sent-older-than 0 --format tsv
expect_out $'sent\t1'
unset EVBUS_OUTBOX

t 'nothing named is a usage error that tells what there is'
expect_status 64 evbus sweep
expect_err_has --sent-older-than
expect_err_has --inbox-older-than
expect_err_has --dlq-older-than
for options in '--dry-run' '--dlq-older-than soon' '--dlq-older-than -1' '--dlq-older-than 1d x'; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus sweep $options
done

t 'no bus, and a bus without a store'
fresh
needs_sqlite
expect_status 66 evbus sweep --dlq-older-than 1d
expect_true 'no bus was made' test ! -e event_bus
echo '{"id":"1"}' | evbus publish -q -t orders
expect_status 0 evbus sweep --dlq-older-than 1d --inbox-older-than 99999999999d --format tsv
expect_true 'no store was made' test ! -e event_bus/.evbus/state.db

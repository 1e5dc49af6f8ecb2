#!/usr/bin/env bash
# The runbook of evbus-runbooks(7) that drains an outbox in Postgres, carried out as it is written. Only the address of the
# server is another, and where the password is.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 2

serve database server postgres || {
	echo "1..0 # SKIP $WHY"
	exit 0
}
read -r owner with_password <<<"$ANSWER"
drainer=$(sed 's/:[^/@]*@/@/' <<<"$with_password")
printf '127.0.0.1:*:*:tester:s3cret\n' >"$HOME/.pgpass"
chmod 600 "$HOME/.pgpass"

sql() {
	psql -XAtq -v ON_ERROR_STOP=1 -d "$owner" -c "$1"
}
sql "CREATE TABLE events (id bigserial PRIMARY KEY, kind text NOT NULL, customer_id int, body jsonb NOT NULL)"
sql "GRANT SELECT, UPDATE, DELETE ON events TO tester"
sql "INSERT INTO events (kind, customer_id, body) VALUES ('placed', 1, '{\"old\": true}')"

t 'each step ends with 0'
steps 'Drain an outbox in Postgres' >written
sed -e "s|postgresql://drainer[^ ]*|$drainer|; s|postgresql://postgres[^ ]*|$owner|" written >steps
expect_true 'there are steps' test "$(grep -c ^evbus steps)" = 5
while read -r step; do
	case $step in *--dry-run) sql "INSERT INTO events (kind, customer_id, body) SELECT 'placed', n % 2, '{}' FROM generate_series(1, 20) n" ;; esac
	eval "$step" >"$OUT" 2>"$ERR" </dev/null
	expect_equal $? 0 "$step ($(head -c 500 "$ERR"))"
	case $step in
	*--dry-run) expect_out 20 ;;
	*--wrap) expect_lines 20 ;;
	esac
done <steps

t 'what is old is as it was, and what is new was published in order'
expect_equal "$(sql 'SELECT count(*) FROM events WHERE receipt IS NULL')" 1 'old rows'
expect_equal "$(sql "SELECT count(*) FROM pg_trigger WHERE tgname = 'evbus_outbox'")" 1 'the trigger'
evbus replay -q -t crm.placed --format '{/event_id}\n' >log
sql 'SELECT id FROM events WHERE id > 1 ORDER BY id' | expect_same log -

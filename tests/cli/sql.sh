#!/usr/bin/env bash
# SQL in every field: it is stored and given back verbatim, chooses what it says and nothing else, and is never run.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
. "${0%/*}/lib.sh"
plan 5

quick=${EVBUS_TEST_QUICK:-}
db=event_bus/.evbus/state.db
# shellcheck disable=SC1003 # a backslash alone
texts=("'; DROP TABLE outbox; --" '"; DROP TABLE dlq; --' "' OR '1'='1" "\\'; DELETE FROM dlq; --" '%' '_' '*' '\' "'" '"' '`' '[a]' '?1' ':id' '@x' '$1'
	"x'); DROP TABLE inbox; --" "' UNION SELECT payload FROM dlq --" 'NULL' 'null' '0' '9223372036854775807' '-9223372036854775808'
	'9223372036854775808' '1e3' ' ' 'a,b=c' '{id}' $'tab\there' 'é' $'\U10ffff')
[ -z "$quick" ] || texts=("${texts[@]:RANDOM % 20:6}")

# The number of rows of each table, and what the tables are.
tables() {
	sqlite3 "$db" .schema | sort
}
json() { # TEXT
	jq -cn --arg text "$1" '$text'
}

t 'fields of events go through the outbox, the log, the inbox, the event keys and the letters as they are'
evbus outbox-init -q >/dev/null
evbus topic-create -q o >/dev/null
echo '{"id":"first","event_type":"a"}' | evbus publish -q -t o --idempotent
evbus consume -q -t o -g g --inbox -- true
before=$(tables)
ran=0
for text in "${texts[@]}"; do
	quoted=$(json "$text")
	printf '{"id":%s,"event_type":%s,"tenant_id":%s,"event_key":%s,"correlation_id":%s,"n":%d}\n' "$quoted" "$quoted" "$quoted" "$quoted" "$quoted" "$ran" >event
	expect_status 0 evbus outbox-add -t o -k "$text" event
	expect_equal "$(evbus outbox-list --format json --tenant "$text" | jq -c '[.id, .tenant_id, .event_type, .event_key, .partition_key]')" \
		"$(jq -cn --arg text "$text" '[$text, $text, $text, $text, $text]')" "the row of $text"
	expect_equal "$(sqlite3 -json "$db" "SELECT id, tenant_id, event_type, event_key, partition_key FROM outbox ORDER BY seq DESC LIMIT 1" | jq -r '.[0][]' | sort -u)" \
		"$(printf '%s\n' "$text")" "the columns of $text"
	expect_status 0 evbus outbox-drain
	for option in --tenant --event-key --correlation-id; do
		expect_equal "$(evbus tail -t o -o beginning --count "$option" "$text")" 1 "records with $option $text"
	done
	expect_equal "$(evbus tail -t o -o beginning --count --where "/id=$text")" 1 "records with the id $text"
	expect_equal "$(evbus tail -t o -n 1 --format json | jq -r .partition_key)" "$text" 'the key on the log'
	expect_status 0 evbus publish -q -t o --idempotent event
	ran=$((ran + 1))
done
expect_equal "$(evbus tail -t o -o beginning --count)" $((ran + 1)) 'records: each once'
ran 'texts as fields' "$ran" ${#texts[@]}

t 'the inbox and the letters have them as they are, and are asked for them'
expect_status 0 evbus verify --rebuild-keys
expect_equal "$(sqlite3 "$db" 'SELECT count(*) FROM event_keys')" $((ran + 1)) 'event keys'
expect_status 0 evbus consume -t o -g g --inbox -- true
expect_equal "$(sqlite3 "$db" 'SELECT count(*) FROM inbox')" $((ran + 1)) 'inbox'
evbus checkpoint-set -q -t o -g g -o beginning >/dev/null
expect_status 0 evbus consume -t o -g g --inbox -- false
expect_err_has "$((ran + 1)) done before"
expect_status 1 evbus consume -q -t o -g dead -- sh -c 'jq -r .id >&2; exit 65'
for text in "${texts[@]}"; do
	expect_equal "$(evbus dlq-list --tenant "$text" --format json | jq -c '[.event_id, .event_type, .tenant_id, .correlation_id, .partition_key]')" \
		"$(jq -cn --arg text "$text" '[$text, $text, $text, $text, $text]')" "the letter of $text"
	# A message is what it is without the blanks and tabs around it.
	[[ $text == *[$' \t']* ]] || expect_equal "$(evbus dlq-list --tenant "$text" --format json | jq -r .error)" "$text" "the reason of $text"
	expect_equal "$(evbus dlq-discard --all --tenant "$text" --format tsv | wc -l)" 1 "discarded of $text"
done
expect_equal "$(sqlite3 "$db" "SELECT count(*) FROM dlq WHERE state = 'DISCARDED'")" "$ran" 'letters that were discarded'

t 'where a name is wanted, nothing else is taken, and nothing is run'
for text in "${texts[@]}"; do
	for words in 'dlq-list --source' 'checkpoint-get -t o -g' 'checkpoint-list -g' 'dlq-list --id' 'dlq-list --reason' 'dlq-list --state' 'dlq-list --by' \
		'outbox-list --state' 'dlq-retry --older-than' 'tail -t o -o' 'sweep --dlq-older-than' 'outbox-drain --batch'; do
		status=0
		# shellcheck disable=SC2086 # several words
		evbus $words "$text" >"$OUT" 2>"$ERR" || status=$?
		ok
		[[ $status == @(0|64|66) ]] || fail "$words $text: exit status $status: $(<"$ERR")"
	done
done
expect_equal "$(tables)" "$before" 'the tables are as they were'
expect_equal "$(sqlite3 "$db" 'PRAGMA integrity_check')" ok

t 'names of tables and columns that are none are refused; those that are words of SQL work'
ran=0 names=0
for text in "${texts[@]}" 'a"b' 'a b' "outbox; DROP TABLE x" 'sqlite_master"' "$(printf '%064d' 0)" ''; do
	[[ $text == @(NULL|null) ]] && continue
	# A state may be named as nearly everything; the others are of letters and digits.
	[[ $text =~ ^[A-Za-z0-9_]+$ ]] || names=$((names + 3))
	[[ $text =~ ^[A-Za-z0-9_.:\ -]+$ ]] || names=$((names + 1))
	for name in table payload id state.SENT; do
		[[ $name == state.SENT && $text =~ ^[A-Za-z0-9_.:\ -]+$ ]] && continue
		[[ $name != state.SENT && $text =~ ^[A-Za-z0-9_]+$ ]] && continue
		expect_status 64 evbus outbox-init --outbox sqlite:x.db --map "$name=$text"
		ran=$((ran + 1))
	done
done
expect_true 'no database was made' test ! -e x.db
fresh
map='table=select,id=order,tenant_id=group,event_type=where,payload=values,state=table,attempts=index,seq=primary,state.SENT=drop table'
expect_status 0 evbus outbox-init --outbox sqlite:x.db --map "$map"
echo '{"id":"1","event_type":"a","tenant_id":"A"}' | expect_status 0 evbus outbox-add -t o --outbox sqlite:x.db --map "$map"
expect_status 0 evbus outbox-drain --outbox sqlite:x.db --map "$map"
expect_lines 1
expect_equal "$(sqlite3 x.db 'SELECT "order", "group", "where", "table" FROM "select"')" '1|A|a|drop table'
expect_status 0 evbus outbox-list --outbox sqlite:x.db --map "$map" --tenant A --format tsv
expect_lines 1
ran 'names that are none' "$ran" "$names"

t 'rows that somebody else wrote are given out as they are, to the bounds of 64 bits'
fresh
evbus outbox-init -q >/dev/null
sqlite3 "$db" "INSERT INTO outbox (seq, id, topic, event_type, payload) VALUES (9223372036854775806, '''; --', 'o', '\"%', '{\"id\":\"1\"}');
	INSERT INTO outbox (id, topic, event_type, payload, attempts) VALUES (x'ff00fe', 'o', x'00', '{}', 9223372036854775807);
	INSERT INTO outbox (seq, id, topic, event_type, payload, attempts) VALUES (-9223372036854775807, 'low', 'o', 'a', '{}', -5)"
expect_status 0 evbus outbox-list --format json
expect_equal "$(jq -c . "$OUT" | wc -l)" 3 'rows as JSON'
for format in table tsv; do expect_status 0 evbus outbox-list --format $format; done
timeout 20 evbus outbox-drain >"$OUT" 2>"$ERR"
expect_equal "$(evbus tail -t o -o beginning --where /id=1 --count)" 1
expect_equal "$(sqlite3 "$db" "SELECT count(*) FROM outbox WHERE state = 'PROCESSING'")" 0
ok
! LC_ALL=C grep -aq $'[\001-\011\013-\037\177]' "$ERR" || fail "control characters: $(cat -v "$ERR")"

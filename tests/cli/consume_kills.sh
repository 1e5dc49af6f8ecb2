#!/usr/bin/env bash
# A handler that fails for some events, dies, hangs and is killed; consumers that are killed at random. Fifty kills; over
# Postgres half of them, with EVBUS_TEST_QUICK=1 a few. EVBUS_TEST_SEED chooses another course.
# shellcheck disable=SC2016 # what stands in '' is for the shell of the command
. "${0%/*}/lib.sh"
plan 10

RANDOM=${EVBUS_TEST_SEED:-3}
kills=50 each=250
[ -z "$tests_database" ] || kills=25 each=125
[ -z "${EVBUS_TEST_QUICK:-}" ] || kills=6 each=20
partitions=3 events=$((partitions * each))
retries=1
poisons=(poison.refuses poison.dies poison.hangs)


is_alive() { # PID
	[ -d "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status"
}

# Every 20th event is poisoned, in one of three ways; of the others every 20th fails at first.
publish() {
	evbus topic-create -q --partitions $partitions work >/dev/null
	for ((partition = 0; partition < partitions; partition++)); do
		for ((i = 0; i < each; i++)); do
			case $((i % 20)) in
			7) kind=$((i / 20 + partition)) && kind=${poisons[kind % 3]} ;;
			13) kind=flaky ;;
			*) kind=good ;;
			esac
			printf '{"id":"%s","type":"%s"}\n' $((partition * each + i)) "$kind"
		done | evbus publish -q -t work -p $partition
	done
}

# What ends badly, and in which way. effect ID is the caller's.
cat >common <<'X'
echo "$EVENT_ID $EVENT_TYPE $EVENT_ATTEMPT" >>runs
case $EVENT_TYPE$EVENT_ATTEMPT in
poison.refuses* | flaky1) echo "refuses $EVENT_ID" >&2; exit 3 ;;
poison.dies*) kill -KILL $$ ;;
poison.hangs*) exec sleep 30 ;;
esac
X

patience=1s
[ -z "$tests_database" ] || patience=3s # psql takes longer to begin than what is killed then takes to be seen
consumer=(evbus consume -q -t work -g g --inbox --retry-max "$retries" --retry-delay 10ms --retry-cap 20ms
	--handler-timeout "$patience" -- sh ./handler)

# What is behind the checkpoint is done or dead. The checkpoint is read first: what it says was true before.
check_checkpoints() {
	sql "SELECT partition_id, next_offset FROM checkpoints" | while IFS='|' read -r partition next; do
		{ effects && sql "SELECT event_id FROM dlq"; } | sort -u >settled
		seq $((partition * each)) $((partition * each + next - 1)) | sort >behind
		[ "$next" = 0 ] || comm -23 behind settled
	done >passed
	[ ! -s passed ] || fail "the checkpoint passed $(tr '\n' ' ' <passed)"
}

# Two consumers share the partitions; at random times one of them is killed and begun anew, or what it runs is killed.
run_and_kill() {
	local pids=() victim children
	killed=0
	"${consumer[@]}" 2>/dev/null & pids[0]=$!
	"${consumer[@]}" 2>/dev/null & pids[1]=$!
	while [ $killed -lt $kills ] && { is_alive "${pids[0]}" || is_alive "${pids[1]}"; }; do
		sleep "0.$((RANDOM % 15 + 10))"
		victim=$((RANDOM % 2))
		is_alive "${pids[victim]}" || continue
		read -r children 2>/dev/null <"/proc/${pids[victim]}/task/${pids[victim]}/children" || children=
		if ((RANDOM % 4 == 0)) && [ "$children" ]; then
			# shellcheck disable=SC2086 # a list of numbers
			kill -KILL $children 2>/dev/null
			continue
		fi
		{ kill -KILL "${pids[victim]}" && wait "${pids[victim]}"; } 2>/dev/null
		killed=$((killed + 1))
		check_checkpoints
		"${consumer[@]}" 2>/dev/null & pids[victim]=$!
	done
	wait "${pids[@]}"
	expect_true "only $killed were killed before all was done" test $killed -ge $((kills / 2))
	expect_status 0 "${consumer[@]}" # and nothing is left to be done
}

expect_outcome() {
	local poisoned
	poisoned=$(evbus replay -t work --type 'poison.*' --count)

	t "$1: every event is done or dead, and nothing is left over"
	for ((partition = 0; partition < partitions; partition++)); do
		expect_equal "$(sql "SELECT next_offset FROM checkpoints WHERE partition_id = $partition")" $each "the checkpoint of partition $partition"
	done
	expect_equal "$(effects | sort -nu)" "$(evbus replay -t work --format '{/type} {/id}\n' | grep -v ^poison | cut -d ' ' -f 2 | sort -n)" 'what took effect'
	expect_equal "$(sql 'SELECT count(*) FROM retries')" 0 'rows of retries'

	t "$1: every poisoned event is one dead letter with its attempts, and no other is"
	expect_equal "$(sql 'SELECT event_id FROM dlq ORDER BY CAST(event_id AS INTEGER)')" \
		"$(evbus replay -t work --format '{/type} {/id}\n' | grep ^poison | cut -d ' ' -f 2 | sort -n)" 'the letters'
	expect_equal "$(sql 'SELECT DISTINCT attempts FROM dlq')" $((retries + 1)) 'their attempts'
	# A last attempt of any may have been one that we killed.
	expect_equal "$(sql "SELECT DISTINCT event_type, reason FROM dlq WHERE reason <> 'signal' OR event_type = 'poison.dies'
		ORDER BY event_type" | grep -vxE 'poison.refuses\|retries|poison.hangs\|timeout')" 'poison.dies|signal' 'their reasons'

	t "$1: attempts that were counted are not run again"
	expect_true "$(grep -c poison runs) runs of poisoned events, $killed kills" \
		test "$(grep -c poison runs)" -le $(((retries + 1) * poisoned + killed))
}

if ! command -v sqlite3 >/dev/null; then
	for ((i = 0; i < 10; i++)); do
		t "case $i"
		skip 'no sqlite3 here'
	done
	exit 0
fi

# ---- an effect outside -------------------------------------------------------------------------------------------

t 'effects outside: the checkpoint never passes what is neither done nor dead'
common=$PWD/common
fresh
{ cat "$common" && echo 'echo "$EVENT_ID" >>effects.log; sleep 0.0$((EVENT_OFFSET % 5))'; } >handler
: >effects.log
effects() {
	cat effects.log
}
publish
ok
run_and_kill
expect_outcome 'effects outside'

t 'effects outside: no more of them are repeated than consumers were killed'
repeated=$(($(wc -l <effects.log) - $(sort -u effects.log | wc -l)))
echo "# $events events, $killed kills, $repeated repeated effects"
expect_true "$repeated repeated effects" test $repeated -le $killed

# ---- an effect in the store's own database -----------------------------------------------------------------------

t 'effects in the store: the checkpoint never passes what is neither done nor dead'
fresh
in_the_store="sqlite3 -bail -cmd '.timeout 20000' event_bus/.evbus/state.db"
if [ -n "$tests_database" ]; then
	in_the_store="PGOPTIONS='-c search_path=$tests_schema' psql -Xq -v ON_ERROR_STOP=1 -d '$tests_database' -c"
fi
{
	cat "$common"
	printf '%s "BEGIN%s;\n' "$in_the_store" "$([ -n "$tests_database" ] || echo ' IMMEDIATE')"
	cat <<'X'
	INSERT INTO inbox (group_name, tenant_id, topic, event_id, processed_at)
		VALUES ('$EVENT_GROUP', '', '$EVENT_TOPIC', '$EVENT_ID', '$EVENT_PUBLISHED_AT_UTC');
	INSERT INTO effects VALUES ('$EVENT_ID');
	COMMIT;"
sleep 0.0$((EVENT_OFFSET % 5))
X
} >handler
effects() {
	sql 'SELECT event_id FROM effects'
}
publish
evbus consume -q -t work -g other --max 1 -- true
sql 'CREATE TABLE effects (event_id TEXT); DELETE FROM checkpoints' >/dev/null
ok
run_and_kill
expect_outcome 'effects in the store'

t 'effects in the store: none is repeated'
expect_equal "$(effects | sort | uniq -d)" '' 'repeated effects'
[ -n "$tests_database" ] || expect_equal "$(sql 'PRAGMA integrity_check')" ok 'the store'

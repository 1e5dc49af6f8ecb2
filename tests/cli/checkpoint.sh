#!/usr/bin/env bash
# checkpoint-list, checkpoint-get, checkpoint-set, checkpoint-remove.
. "${0%/*}/lib.sh"
plan 22

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
# at GROUP TOPIC [PARTITION]: the offset
at() {
	evbus checkpoint-get -g "$1" -t "$2" ${3:+-p "$3"} --format tsv | cut -f 4
}
# set_to GROUP TOPIC POSITION [OPTIONS...]
set_to() {
	evbus checkpoint-set -q -g "$1" -t "$2" -o "$3" "${@:4}" >/dev/null
}

# ---- set ---------------------------------------------------------------------------------------------------------

t 'set prints where it was and is'
events 0 9 | evbus publish -q -t orders
expect_status 0 evbus checkpoint-set -g billing -t orders -o 4
expect_out 'GROUP    TOPIC   PARTITION_ID  BEFORE  AFTER  OFFSET_KIND
billing  orders             0       -      4  file_line'
expect_err_has 'made the store'
expect_status 0 evbus checkpoint-set -g billing -t orders -o 6 --format json
expect_out '{"group":"billing","topic":"orders","partition_id":0,"before":"4","after":"6","offset_kind":"file_line"}'
expect_err ''
expect_status 0 evbus checkpoint-set -g billing -t orders -p 0 -o 5 --format tsv
expect_out $'billing\torders\t0\t6\t5\tfile_line'
expect_equal "$(at billing orders)" 5 'the checkpoint'

t 'every way to name a position'
for case in 0=0 10=10 beginning=0 end=10 -3=7 -99=0 @-1h=0 @2026-01-01T00:00:00Z=0; do
	expect_status 0 evbus checkpoint-set -g billing -t orders -o "${case%%=*}" --format tsv
	expect_equal "$(cut -f 5 "$OUT")" "${case#*=}" "-o ${case%%=*}"
done
expect_status 64 evbus checkpoint-set -g billing -t orders -o stored
expect_status 64 evbus checkpoint-set -g billing -t orders -o middle

t '--dry-run prints the same and changes nothing'
set_to billing orders 5
expect_status 0 evbus checkpoint-set -g billing -t orders -o 7 --dry-run --format tsv
expect_out $'billing\torders\t0\t5\t7\tfile_line'
expect_err_has 'dry run'
expect_equal "$(at billing orders)" 5 'the checkpoint'
expect_status 0 evbus checkpoint-set -g new -t orders -o 7 --dry-run --format tsv
expect_out $'new\torders\t0\t\\N\t7\tfile_line'
expect_status 66 evbus checkpoint-get -g new -t orders
expect_status 76 evbus checkpoint-set -g billing -t orders -o 11 --dry-run

t 'beyond the end is refused, and what is not there'
expect_status 76 evbus checkpoint-set -g billing -t orders -o 11
expect_err_has 'from 0 to 10'
expect_equal "$(at billing orders)" 5 'the checkpoint'
expect_status 66 evbus checkpoint-set -g billing -t nothing -o 0
expect_err_has "'nothing'"
expect_status 66 evbus checkpoint-set -g billing -t orders -p 1 -o 0
expect_err_has 'partition 1'
expect_status 66 evbus checkpoint-set -b nowhere -g billing -t orders -o 0
expect_true 'no bus was made' test ! -e nowhere

t 'what is not of its form, or missing, is a usage error'
for options in '-g a -t orders' '-g a -o 1' '-t orders -o 1' '-g a/b -t orders -o 1' '-g a -t > -o 1' '-g a -t orders -o 1 x' \
	'--from-file x -g a' '--from-file x -o 1' '--from-file x -t a' '--from-file x -p 0' ''; do
	# shellcheck disable=SC2086 # several words
	expect_status 64 evbus checkpoint-set $options
done

t 'all partitions are moved together'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
for p in 0 1 2; do events 0 $((p * 2)) | evbus publish -q -t orders -p $p; done
expect_status 0 evbus checkpoint-set -g billing -t orders -o end --format tsv
expect_out $'billing\torders\t0\t\\N\t1\tfile_line
billing\torders\t1\t\\N\t3\tfile_line
billing\torders\t2\t\\N\t5\tfile_line'
expect_status 0 evbus checkpoint-set -g billing -t orders -o -2 --format tsv
expect_out $'billing\torders\t0\t1\t0\tfile_line
billing\torders\t1\t3\t1\tfile_line
billing\torders\t2\t5\t3\tfile_line'
expect_status 0 evbus checkpoint-set -g billing -t orders -o beginning --dry-run --format tsv
expect_equal "$(cut -f 4,5 "$OUT" | paste -sd ' ')" $'0\t0 1\t0 3\t0' 'before and after'
expect_equal "$(at billing orders | paste -sd ' ')" '0 1 3' 'the checkpoints'
set_to billing orders @-1h
expect_equal "$(at billing orders | paste -sd ' ')" '0 0 0' 'the checkpoints'

t 'a bare number is one of one partition'
expect_status 64 evbus checkpoint-set -g billing -t orders -o 1
expect_err_has --partition
expect_status 0 evbus checkpoint-set -g billing -t orders -p 1 -o 1 --format tsv
expect_equal "$(at billing orders | paste -sd ' ')" '0 1 0' 'the checkpoints'

# A group that is being consumed: who holds the lock is this program.
t 'a group that is being consumed is not moved, and the process is named'
fresh
events 0 9 | evbus publish -q -t orders
set_to billing orders 5
cat >hold.c <<'C'
#include <evbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
	struct evbus_options options = { .store = getenv("EVBUS_STORE") };
	struct evbus *bus;
	struct evbus_claim *claim;
	struct evbus_err err;

	if (evbus_open("event_bus", &options, &bus, &err) || evbus_claim_take(bus, "billing", "orders", 0, &claim, &err))
		return fprintf(stderr, "%s\n", err.text), 1;
	puts("held");
	fflush(stdout);
	pause();
}
C
build=${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}
read -ra cc <<<"${EVBUS_TEST_CC:-cc} ${EVBUS_TEST_CFLAGS:-}"
if "${cc[@]}" -I"$ROOT/lib" hold.c -o holder -L"$build/lib" -levbus -Wl,-rpath,"$build/lib" 2>"$ERR"; then
	./holder >held &
	holder=$!
	wait_for 5 grep -q held held
	expect_status 75 evbus checkpoint-set -g billing -t orders -o 1
	expect_err_has "$holder"
	[ -n "$tests_database" ] || expect_err_has "$holder (holder)"
	expect_status 75 evbus checkpoint-remove -g billing -t orders
	expect_err_has "$holder"
	evbus checkpoint-list --format json >saved
	expect_status 75 evbus checkpoint-set --from-file saved
	expect_status 0 evbus checkpoint-set -g other -t orders -o 1
	expect_equal "$(at billing orders)" 5 'the checkpoint'
	kill $holder
	wait $holder 2>/dev/null
	expect_status 0 evbus checkpoint-set -g billing -t orders -o 1
else
	fail "cannot compile: $(cat "$ERR")"
fi

# ---- list and get ------------------------------------------------------------------------------------------------

t 'list tells all there is to know, in every format'
fresh
events 0 9 | evbus publish -q -t orders
set_to billing orders 4
log_id=$(sed -n 's/.*"log_id":"\([0-9a-f]*\)".*/\1/p' event_bus/orders/topic.json)
crc=$(sed -n '4s/{"crc32c":"\([0-9a-f]*\)".*/\1/p' event_bus/orders/partition=0.jsonl)
expect_status 0 evbus checkpoint-list
expect_out_like "GROUP  *TOPIC  *PARTITION_ID  *NEXT_OFFSET  *OFFSET_KIND  *LAG_RECORDS  *LAG_SECONDS  *LOG_ID  *FINGERPRINT  *UPDATED_AT_UTC
billing  orders  *  0  *  4  file_line  *  6  *  $log_id  $crc  *  20*Z"
expect_status 0 evbus checkpoint --format json
expect_out_like "{\"group\":\"billing\",\"topic\":\"orders\",\"partition_id\":0,\"next_offset\":\"4\",\"offset_kind\":\"file_line\",\"lag_records\":6,\"lag_seconds\":?,\"log_id\":\"$log_id\",\"fingerprint\":\"$crc\",\"updated_at_utc\":\"20??-??-??T??:??:??.??????Z\"}"
expect_status 0 evbus checkpoint list --format tsv
expect_out_like $'billing\torders\t0\t4\tfile_line\t6\t?\t'"$log_id"$'\t'"$crc"$'\t20*Z'
expect_status 64 evbus checkpoint-list --format payload

t 'list is sorted, and chooses by group, pattern and partition'
evbus topic-create -q crm.lead --partitions 2 >/dev/null
events 0 1 | evbus publish -q -t crm.lead -p 1
set_to billing crm.lead end
set_to audit orders 1
expect_status 0 evbus checkpoint-list --format tsv
expect_equal "$(cut -f 1-4 "$OUT" | tr '\t' ' ')" 'audit orders 0 1
billing crm.lead 0 0
billing crm.lead 1 2
billing orders 0 4' 'what is listed'
expect_status 0 evbus checkpoint-list -g audit --format tsv
expect_lines 1
expect_status 0 evbus checkpoint-list -t 'crm.>' --format tsv
expect_lines 2
expect_status 0 evbus checkpoint-list -t '*.lead' -p 1 -g billing --format tsv
expect_lines 1
expect_status 0 evbus checkpoint-list -g nobody --format json
expect_out ''
expect_status 0 evbus checkpoint-list -t 'no.*' --format tsv
expect_out ''
expect_status 64 evbus checkpoint-list -t 'a..b'

t 'where nothing was ever set the list is empty, and reading makes no store'
fresh
needs_sqlite
events 0 1 | evbus publish -q -t orders
expect_status 0 evbus checkpoint-list --format tsv
expect_out ''
expect_true 'no store was made' test ! -e event_bus/.evbus/state.db
expect_status 66 evbus checkpoint-list -b nowhere

t 'get prints one, or all partitions; what is not there is 66'
fresh
evbus topic-create -q crm.lead --partitions 3 >/dev/null
set_to billing crm.lead beginning
expect_status 0 evbus checkpoint-get -g billing -t crm.lead --format tsv
expect_lines 3
expect_status 0 evbus checkpoint-get -g billing -t crm.lead -p 2 --format tsv
expect_out_like $'billing\tcrm.lead\t2\t0\tfile_line\t0\t0\t*\t\\\\N\t20*Z'
expect_status 0 evbus checkpoint-get -g billing -t crm.lead -p 2 --format json
expect_out_has '"fingerprint":null'
expect_status 66 evbus checkpoint-get -g nobody -t crm.lead
expect_err_has "'nobody'"
expect_status 66 evbus checkpoint-get -g billing -t other
expect_status 66 evbus checkpoint-get -g billing -t crm.lead -p 3
expect_err_has 'partition 3'
expect_status 64 evbus checkpoint-get -g billing -t 'crm.>'
expect_status 64 evbus checkpoint-get -g billing
expect_status 64 evbus checkpoint-get -t crm.lead

t 'lag is null where the log is gone or another one'
fresh
events 0 9 | evbus publish -q -t gone
events 0 9 | evbus publish -q -t anew
events 0 9 | evbus publish -q -t cut
for topic in gone anew cut; do set_to billing $topic 7; done
rm -r event_bus/gone event_bus/anew event_bus/cut
events 0 9 | evbus publish -q -t anew
expect_status 0 evbus checkpoint-list --format json
expect_equal "$(grep -c '"lag_records":null,"lag_seconds":null' "$OUT")" 3 'unknown lags'
expect_status 0 evbus checkpoint-list --format tsv
expect_equal "$(cut -f 6,7 "$OUT" | sort -u)" $'\\N\t\\N' 'unknown lags'
expect_status 0 evbus checkpoint-list
expect_lines 4

t 'lag counts what is not done, and how old the first of it is'
fresh
events 0 0 | evbus publish -q -t orders
sleep 1.1
events 1 2 | evbus publish -q -t orders
set_to billing orders 0
expect_equal "$(evbus checkpoint-list --format tsv | cut -f 6,7)" $'3\t1' 'lag'
set_to billing orders 1
expect_equal "$(evbus checkpoint-list --format tsv | cut -f 6,7)" $'2\t0' 'lag'
set_to billing orders end
expect_equal "$(evbus checkpoint-list --format tsv | cut -f 6,7)" $'0\t0' 'lag'

t 'where the log is damaged the list is whole and the status is not 0'
fresh
events 0 9 | evbus publish -q -t damaged
events 0 9 | evbus publish -q -t whole
set_to billing damaged 5
set_to billing whole 5
printf X | dd of=event_bus/damaged/partition=0.jsonl bs=1 seek=$(($(head -n 5 event_bus/damaged/partition=0.jsonl | wc -c) - 5)) conv=notrunc status=none
expect_status 74 evbus checkpoint-list --format tsv
expect_equal "$(cut -f 2,4,6 "$OUT" | tr '\t' ' ')" 'damaged 5 \N
whole 5 5' 'what is listed'
expect_err_has "'damaged'"

# ---- as a file ---------------------------------------------------------------------------------------------------

# ageless [FILE]: without lag_seconds: how old what is not done is, goes on.
ageless() {
	cut -f 1-6,8-10 "$@" | sed -E 's/"lag_seconds":[0-9]*//'
}

t 'what was listed is taken back, byte for byte, in both formats'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
for p in 0 1 2; do events 0 9 | evbus publish -q -t orders -p $p; done
events 0 9 | evbus publish -q -t crm.lead
set_to billing orders end
set_to audit orders beginning
set_to audit crm.lead end
for format in json tsv; do
	evbus checkpoint-list --format $format >saved
	set_to billing orders beginning
	set_to audit crm.lead 3
	expect_status 0 evbus checkpoint-set --from-file saved
	expect_status 0 evbus checkpoint-list --format $format
	expect_same <(ageless "$OUT") <(ageless saved)
	expect_status 0 evbus checkpoint-remove -g billing -t orders
	expect_status 0 sh -c 'evbus checkpoint-set --from-file - <saved'
	expect_equal "$(evbus checkpoint-list --format $format | ageless)" "$(ageless saved)" "the list as $format"
done

t 'list into set loses nothing, also of logs that are gone'
rm -r event_bus/crm.lead
evbus checkpoint-list --format json >before
evbus checkpoint-list --format json | expect_status 0 evbus checkpoint-set --from-file - --format tsv
expect_lines 7
expect_same <(evbus checkpoint-list --format json | sed 's/"lag_seconds":[0-9]*//') <(sed 's/"lag_seconds":[0-9]*//' before)

t 'a store can be moved to another one'
evbus checkpoint-list --format tsv | expect_status 0 evbus checkpoint-set --store other.db --from-file -
expect_same <(evbus checkpoint-list --store other.db --format tsv | cut -f 1-5,8-10) <(evbus checkpoint-list --format tsv | cut -f 1-5,8-10)

t '--from-file says where each was, and --dry-run changes nothing'
evbus checkpoint-list -g billing --format json >saved
set_to billing orders 4 -p 1
expect_status 0 evbus checkpoint-set --from-file saved --dry-run --format tsv
expect_equal "$(cut -f 3-5 "$OUT" | tr '\t' ' ')" '0 10 10
1 4 10
2 10 10' 'before and after'
expect_equal "$(at billing orders 1)" 4 'the checkpoint'
expect_status 0 evbus checkpoint-set --from-file /dev/null --format tsv
expect_out ''

t 'a line that is not so is named, and then nothing is changed'
good=$(head -n 1 saved)
set_to billing orders 4 -p 0
refuse() { # LINE WHAT
	printf '%s\n%s\n' "$good" "$1" >bad
	expect_status 65 evbus checkpoint-set --from-file bad
	expect_err_has "$2"
	expect_equal "$(at billing orders 0)" 4 'the checkpoint'
}
refuse "${good/\"group\":\"billing\"/\"group\":\"a\/b\"}" 'line 2'
refuse "${good/\"topic\":\"orders\"/\"topic\":\"or*\"}" 'line 2'
refuse "${good/\"partition_id\":0/\"partition_id\":\"x\"}" 'line 2'
refuse "${good/\"partition_id\":0/\"partition_id\":1024}" 'line 2'
refuse "${good/\"next_offset\":\"10\"/\"next_offset\":\"-1\"}" 'line 2'
refuse "${good/\"next_offset\":\"10\"/\"next_offset\":\"$(printf '%0130d' 1)\"}" 'line 2'
refuse "${good/\"updated_at_utc\":\"20/\"updated_at_utc\":\"x\"}" 'line 2'
refuse "${good/\"log_id\"/\"log\"}" log_id
refuse "${good/\"log_id\":\"?/\"log_id\":\"}" "line 2: it is no log_id, of 32 hexadecimal digits: '"
refuse "${good/\"log_id\":\"?/\"log_id\":\"x}" "line 2: it is no log_id, of 32 hexadecimal digits: 'x"
refuse "${good/\"log_id\":\"*\",\"fingerprint/\"log_id\":null,\"fingerprint}" "line 2: it is no log_id, of 32 hexadecimal digits: ''"
refuse "${good/\"fingerprint\":\"?/\"fingerprint\":\"G}" "line 2: it is no fingerprint, of 8 hexadecimal digits: 'G"
refuse "${good/\"fingerprint\":\"?/\"fingerprint\":\"}" "line 2: it is no fingerprint, of 8 hexadecimal digits: '"
refuse "${good%\}}" 'line 2'
refuse 'GROUP TOPIC' 'line 2'
refuse $'billing\torders\t0' 'line 2'
refuse "$good" 'two checkpoints'
expect_status 66 evbus checkpoint-set --from-file nowhere
expect_err_has "'nowhere'"

# ---- remove ------------------------------------------------------------------------------------------------------

t 'remove prints what it removes, and that brings it back'
fresh
evbus topic-create -q orders --partitions 3 >/dev/null
set_to billing orders end
set_to audit orders end
evbus checkpoint-list --format json >before
expect_status 0 evbus checkpoint-remove -g billing -t orders -p 1 --dry-run --format json
expect_lines 1
expect_same <(evbus checkpoint-list --format json) before
expect_status 0 evbus checkpoint-remove -g billing -t orders -p 1 --format json
expect_lines 1
cp "$OUT" removed
expect_status 66 evbus checkpoint-get -g billing -t orders -p 1
expect_status 0 evbus checkpoint-set --from-file removed --format tsv
expect_same <(evbus checkpoint-list --format json) before
expect_status 0 evbus checkpoint-remove -g billing -t '>' --format tsv
expect_lines 3
expect_status 0 evbus checkpoint-list -g billing --format tsv
expect_out ''

t 'removing what is not there is 66, by a pattern it is not'
expect_status 66 evbus checkpoint-remove -g billing -t orders
expect_err_has "'billing'"
expect_status 66 evbus checkpoint-remove -g audit -t orders -p 3
expect_status 66 evbus checkpoint-remove -g audit -t orders -p 3 --dry-run
expect_status 0 evbus checkpoint-remove -g billing -t '*'
expect_status 64 evbus checkpoint-remove -g billing
expect_status 64 evbus checkpoint-remove -t orders
rm -r event_bus/orders
expect_status 0 evbus checkpoint-remove -g audit -t orders --format tsv
expect_lines 3

#!/usr/bin/env bash
# `make platform-smoke BUS=… STORE=…`: the same script on every bus, with either store.
. "${0%/*}/../cli/lib.sh"
# shellcheck source=tests/servers/lib.sh
. "$ROOT/tests/servers/lib.sh"
plan 5

export TMPDIR=$PWD
serve database server postgres && export STORE=${ANSWER%% *}

# smoke URL: the last line says which topic stays.
smoke() {
	BUS=$1 expect_status 0 "$ROOT/tests/smoke" "$EVBUS"
	expect_out_has 'and every byte is in the log'
	expect_out_has 'replayed byte for byte'
	expect_out_has 'verify: whole: 1 topic, '
}
# smoke_on NAME...: a server, which may be missing.
smoke_on() {
	if ! evbus version | grep -qw "$1"; then
		skip "this build has no backend '$1'"
	elif serve "$1" server "${@:2}"; then
		AWS_SHARED_CREDENTIALS_FILE=$SERVED/credentials AWS_CONFIG_FILE=/dev/null smoke "${ANSWER%% *}"
	else
		skip "$WHY"
	fi
}

t 'files, and a store in Postgres'
[ -n "${STORE:-}" ] || skip "$WHY"
[ -z "${STORE:-}" ] || {
	expect_status 0 "$ROOT/tests/smoke" "$EVBUS"
	expect_out_has 'and every byte is in the log'
	expect_out_has 'replayed byte for byte'
}

t 'NATS'
smoke_on nats nats

t 'Kafka'
smoke_on kafka kafka

t 'Kinesis'
smoke_on kinesis kinesis

t 'a store that is a file, and a topic of its own each time'
unset STORE
smoke "file:$PWD/bus"
smoke "file:$PWD/bus"
expect_status 0 evbus topic-list -b "file:$PWD/bus" --format tsv
expect_lines 2

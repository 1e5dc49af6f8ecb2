#!/usr/bin/env bash
# The cases of the store, of programs with Criterion, over one Postgres for all of them: tests/servers/stored.sh PROGRAM...
set -u
here=${0%/*}
dir=$(mktemp -d "${TMPDIR:-/tmp}/evbus-stored.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT

coproc served { exec "$here/server" postgres "$dir/files"; }
read -r word url rest <&"${served[0]}" || word=error url='it is gone'
case $word in
ok) ;;
skip)
	printf 'TAP version 13\n1..0 # SKIP %s %s\n' "$url" "$rest"
	exit 0
	;;
*)
	echo "the server does not start: $url $rest" >&2
	exit 1
	;;
esac
psql -Xqw -v ON_ERROR_STOP=1 -d "$url" -f "$here/dialect.sql" || exit 1

export EVBUS_TEST_STORE=$url
# run PROGRAM: its cases, and what is said of each; and one more where it ends otherwise than by one that failed.
run() {
	local status=0 tap=$dir/${1##*/}.tap
	: >"$tap"
	CRITERION_OUTPUTS=tap:$tap "$1" >"$tap.said" 2>&1 || status=$?
	sed -i '/^TAP version /d; /^1\.\./d; /^#/d; /^$/d' "$tap"
	[ "$status" = 0 ] || grep -q '^not ok' "$tap" || echo "not ok - ${1##*/} ends with $status" >>"$tap"
	[ "$status" = 0 ] || cat "$tap.said" >&2
}
# They wait for the server more than they work.
running=0 pids=()
for program; do
	[ $((running++)) -lt 2 ] || wait -n
	run "$program" &
	pids+=($!)
done
wait "${pids[@]}"
echo 'TAP version 13'
cat "$dir"/*.tap
echo "1..$(cat "$dir"/*.tap | grep -cE '^(not )?ok ')"

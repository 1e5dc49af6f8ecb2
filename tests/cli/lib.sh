# shellcheck shell=bash
# lib.sh: tests of the command line in bash. Each file of tests is a program that prints TAP.
#
#	. "${0%/*}/lib.sh"
#	plan 3
#
#	t 'a receipt is printed for each line'
#	printf '{"id":"1"}\n{"id":"2"}\n' | expect_status 0 evbus publish -t orders
#	expect_lines 2
#	expect_out_has '"offset":"1"'
#
#	t 'a topic that is not there is said so'
#	expect_status 66 evbus tail -t nothing
#	expect_out ''
#	expect_err_has "'nothing'"
#
#	t 'a directory that cannot be written is refused'
#	if [ "$(id -u)" = 0 ]; then
#		skip 'root may write everywhere'
#	else
#		…
#	fi
#
# A case begins with t and ends where the next one begins. It passes if it expected something (or said ok) and nothing
# failed. plan says how many cases there are: another number is a failure, so a file that stops half-way is noticed.
#
# A file runs in a scratch directory of its own, which goes when it ends (KEEP=1: stays, and is named); fresh enters a
# new empty one below it. evbus is the one of $EVBUS. The environment holds none of evbus's variables, and a HOME of its
# own. ROOT is the source tree, DATA its tests/data, WEBHOOKS a file of real events, or empty. What the last expect_status left: $OUT, $ERR (files).
#
# EVBUS_TEST_STORE=postgres: the state is in a Postgres that ends with the file, a schema for each directory that is entered,
# instead of in the bus. sql STATEMENT asks that, or the SQLite of the bus; what is about SQLite's files says `needs_sqlite`.
# use_app: the outbox is in an application's database `app.db`, in the same Postgres or a file; app STATEMENT asks it.
set -u
# Who is started in the background of a script, "make test &", ignores these for ever, and so would those that are to be
# stopped by them here.
if [ $((0x$(sed -n 's/^SigIgn:[[:blank:]]*//p' "/proc/$$/status") & 6)) != 0 ] &&
	[ -z "${EVBUS_TEST_CALM:-}${BASH_EXECUTION_STRING:-}" ]; then
	EVBUS_TEST_CALM=1 exec env --default-signal=INT,QUIT bash "$0" "$@"
fi
shopt -s lastpipe       # the last part of a pipe runs in this shell
export LC_ALL=C TZ='<+0530>-5:30'
ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
: "${EVBUS:=$ROOT/build/cmd/evbus}"
export EVBUS PATH="${EVBUS%/*}:$PATH"
# shellcheck disable=SC2034 # for the files of tests
DATA=$ROOT/tests/data
WEBHOOKS=${EVBUS_TEST_WEBHOOKS:-$ROOT/../shared/data/github-webhooks.jsonl}
[ -r "$WEBHOOKS" ] || WEBHOOKS=
: "${EVBUS_TEST_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/evbus-tests}"    # what was downloaded once, see tests/servers
export EVBUS_TEST_CACHE
for tests_name in "${!EVBUS_@}" "${!XDG_@}"; do
	[[ $tests_name == EVBUS_TEST_* ]] || unset "$tests_name"
done

tests_dir=$(mktemp -d "${TMPDIR:-/tmp}/evbus-test.XXXXXX") || exit 1
tests_planned=0 tests_begun=0 tests_failures=0 tests_sentence=
OUT=$tests_dir/out ERR=$tests_dir/err
mkdir "$tests_dir/home" "$tests_dir/scratch"
export HOME=$tests_dir/home
cd "$tests_dir/scratch" || exit 1
tests_database='' tests_app=''

# plan N: how many cases there are.
plan() {
	tests_planned=$1
	echo 'TAP version 13'
}

# t SENTENCE: begins a case.
t() {
	tests_end_case
	tests_sentence=${1//$'\n'/; }
	tests_sentence=${tests_sentence//#/\\#}
	tests_begun=$((tests_begun + 1))
}

# What happens in a case is kept in files, so that expectations work in subshells too.
ok() {
	echo >>"$tests_dir/expected"
}
# fail REASON: the case fails; it goes on, so that one run shows all that is wrong.
fail() {
	[ ! -e "$tests_dir/excused" ] || return 0
	printf '%s\n' "$1" >>"$tests_dir/failed"
	echo >"$tests_dir/shown"
}
# skip WHY: the case is not judged, and says why.
skip() {
	printf '%s' "$1" >"$tests_dir/skipped"
}

# expect_status N COMMAND...: runs it with stdout to $OUT and stderr to $ERR.
expect_status() {
	local wanted=$1 status=0
	shift
	"$@" >"$OUT" 2>"$ERR" || status=$?
	ok
	[ "$status" = "$wanted" ] || fail "exit status $status, expected $wanted: $*$(tests_show "$OUT" stdout)$(tests_show "$ERR" stderr)"
}

# Of stdout: exactly this text and a newline ('' for nothing); it contains this text; the whole matches this glob.
expect_out() {
	tests_is "$OUT" stdout "$1"
}
expect_out_has() {
	tests_has "$OUT" stdout "$1"
}
expect_out_like() {
	tests_like "$OUT" stdout "$1"
}
# Of stderr.
expect_err() {
	tests_is "$ERR" stderr "$1"
}
expect_err_has() {
	tests_has "$ERR" stderr "$1"
}
expect_err_like() {
	tests_like "$ERR" stderr "$1"
}

# expect_lines N: stdout has so many.
expect_lines() {
	expect_equal "$(wc -l <"$OUT")" "$1" 'lines of stdout'
}

# expect_equal VALUE WANTED [WHAT]
expect_equal() {
	ok
	[ "$1" = "$2" ] || fail "${3:-value}: '$1', expected '$2'"
}

# expect_same FILE WANTED: byte for byte.
expect_same() {
	local difference
	ok
	difference=$(cmp "$1" "$2" 2>&1) || fail "$difference$(tests_show "$1" "$1")$(tests_show "$2" "$2")"
}

# expect_order_of_keys <LINES: those of a key, of lines KEY NUMBER, have rising numbers.
expect_order_of_keys() {
	ok
	sort -s -k 1,1 | awk '$1 == key && $2 <= n { print "after " n ": " $0 } { key = $1; n = $2 }' >"$tests_dir/disorder"
	[ ! -s "$tests_dir/disorder" ] || fail "out of order: $(head "$tests_dir/disorder")"
}

# expect_true SENTENCE COMMAND...: it exits with 0.
expect_true() {
	ok
	"${@:2}" || fail "not so: $1"
}

# ran WHAT N OF: says how many were tried; fewer is a failure.
ran() {
	printf '%s: ran %s of %s\n' "$1" "$2" "$3" >&2
	expect_equal "$2" "$3" "$1"
}

# wait_for SECONDS COMMAND...: tries it every 20 ms until it exits with 0; a failure if it never does.
wait_for() {
	local until=$((SECONDS + $1 + 1))
	shift
	ok
	until "$@" 2>/dev/null; do
		[ "$SECONDS" -lt "$until" ] || {
			fail "waited in vain: $*"
			return 1
		}
		sleep 0.02
	done
}

# hold_lock FILE: another process has the lock on it, until $holder is killed. hold_keys TOPIC: that of those who publish
# idempotently to it.
hold_lock() {
	rm -f held
	python3 -uc 'import fcntl, struct, sys, time
lock = open(sys.argv[1], "a")
fcntl.fcntl(lock, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))    # F_OFD_SETLK
open("held", "w")
time.sleep(60)' "$1" &
	holder=$!
	wait_for 10 test -e held
}
hold_keys() {
	hold_lock "event_bus/$1/keys.lock"
}
release_lock() {
	kill "$holder"
	wait "$holder" 2>/dev/null || true    # killed, as it was to be
}

# fresh: a new empty directory to work in.
fresh() {
	cd "$(mktemp -d "$tests_dir/scratch/XXXXXX")" || exit 1
	[ -z "$tests_database" ] || tests_set_store "${PWD##*/}"
	[ -z "$tests_app" ] || tests_set_app
}

# sql STATEMENT: to the store, in words that both databases read; columns have | between them.
sql() {
	if [ -n "$tests_database" ]; then
		PGOPTIONS="-c search_path=$tests_schema" psql -XAtq -v ON_ERROR_STOP=1 -d "$tests_database" -c "$1"
	else
		sqlite3 -batch -cmd '.timeout 20000' event_bus/.evbus/state.db "$1"
	fi
}
# use_app: EVBUS_OUTBOX is the database of an application, in each directory another one. app STATEMENT: to it; of what SQLite
# has and Postgres has not, tests/servers/dialect.sql has some.
use_app() {
	tests_app=sqlite:app.db
	[ -z "$tests_database" ] || {
		psql -XAtqw -v ON_ERROR_STOP=1 -d "$tests_database" -c 'CREATE DATABASE "app.db"'
		tests_app=${tests_database%/*}/app.db
		psql -XAtqw -v ON_ERROR_STOP=1 -d "$tests_app" -f "$ROOT/tests/servers/dialect.sql"
	} || exit 1
	tests_set_app
}
app() {
	if [ -n "$tests_database" ]; then
		PGOPTIONS="-c search_path=$tests_schema,public" psql -XAtqw -v ON_ERROR_STOP=1 -d "$tests_app" -c "$1"
	else
		sqlite3 -batch -cmd '.timeout 10000' app.db "$1"
	fi
}
# bytes_of COLUMN: in a statement, a payload as text.
bytes_of() {
	if [ -n "$tests_database" ]; then echo "convert_from($1, 'UTF8')"; else echo "$1"; fi
}
# needs_sqlite, and not_on_postgres WHY: with another store the case is not judged, whatever it does.
not_on_postgres() {
	[ -n "$tests_database" ] || return 0
	skip "$1"
	echo >"$tests_dir/excused"
}
needs_sqlite() {
	not_on_postgres 'it is about the files of SQLite'
}

tests_set_app() {
	export EVBUS_OUTBOX=$tests_app
	[ -n "$tests_database" ] || return 0
	app "CREATE SCHEMA $tests_schema"
	EVBUS_OUTBOX="$tests_app?schema=${tests_schema//\"/}"
}
tests_set_store() { # NAME
	tests_schema=\"$1\" EVBUS_STORE="$tests_database?schema=$1"
	export EVBUS_STORE
}

# What a file holds, where nothing failed in this case before: once is enough.
tests_show() { # FILE NAME
	[ ! -e "$tests_dir/shown" ] || return 0
	printf '\n%s: %s bytes\n' "$2" "$(wc -c <"$1")"
	head -c 2000 "$1" | head -n 20 | cat -v
}
tests_is() { # FILE NAME TEXT
	ok
	if [ -n "$3" ]; then printf '%s\n' "$3"; fi | cmp -s - "$1" || fail "$2 is not exactly: $3$(tests_show "$1" "$2")"
}
tests_has() {
	ok
	grep -aqF -e "$3" "$1" || fail "$2 does not contain: $3$(tests_show "$1" "$2")"
}
tests_like() {
	ok
	# shellcheck disable=SC2053 # it is a glob
	[[ $(tr -d '\0' <"$1") == $3 ]] || fail "$2 is not like: $3$(tests_show "$1" "$2")"
}

tests_end_case() {
	[ "$tests_begun" -gt 0 ] || return 0
	if [ ! -e "$tests_dir/failed" ] && [ -e "$tests_dir/skipped" ]; then
		printf 'ok %d - %s # SKIP %s\n' "$tests_begun" "$tests_sentence" "$(<"$tests_dir/skipped")"
	else
		[ -e "$tests_dir/expected" ] || fail 'expected nothing'
		if [ -e "$tests_dir/failed" ]; then
			printf 'not ok %d - %s\n' "$tests_begun" "$tests_sentence"
			printf '%s: %s\n' "${0##*/}" "$tests_sentence" >&2
			sed 's/^/    /' "$tests_dir/failed" >&2
			tests_failures=$((tests_failures + 1))
		else
			printf 'ok %d - %s\n' "$tests_begun" "$tests_sentence"
		fi
	fi
	rm -f "$tests_dir/failed" "$tests_dir/skipped" "$tests_dir/expected" "$tests_dir/shown" "$tests_dir/excused"
}

tests_end() {
	local status=$? jobs
	trap - EXIT
	# A child that a signal meets before it has let go of our traps.
	[ "$BASHPID" = $$ ] || exit "$status"
	tests_end_case
	printf '1..%d\n' "$tests_planned"
	jobs=$(jobs -p)
	# shellcheck disable=SC2086 # a list of numbers
	[ -z "$jobs" ] || { kill -9 $jobs && wait $jobs; } 2>/dev/null
	cd / && if [ -n "${KEEP:-}" ]; then echo "# kept: $tests_dir"; else rm -rf "$tests_dir"; fi
	if [ "$tests_begun" != "$tests_planned" ]; then
		echo "${0##*/}: ran $tests_begun of $tests_planned cases" >&2
		exit 1
	fi
	[ "$tests_failures" = 0 ] || exit 1
	exit "$status"
}
trap tests_end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 141' PIPE

if [ "${EVBUS_TEST_STORE:-}" = postgres ]; then
	# shellcheck source=tests/servers/lib.sh
	. "$ROOT/tests/servers/lib.sh"
	serve store server postgres || { echo "1..0 # SKIP $WHY" && exit 0; }
	disown # for wait
	tests_database=${ANSWER%% *}
	tests_set_store scratch
fi

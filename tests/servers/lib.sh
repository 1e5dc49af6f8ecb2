# shellcheck shell=bash
# lib.sh: servers and proxies for tests in bash, to be read after tests/cli/lib.sh.
#
#	serve broker server nats || skip "$WHY"        # its answer is in $ANSWER: nats://127.0.0.1:PORT
#	serve net proxy "${ANSWER##*:}"
#	tell broker kill                               # a command, as `tests/servers/server --help` and `proxy --help` have them
#	tell net cut down 10
#
# Each ends with the test, in whatever way that ends.
declare -A servers_to servers_from
# shellcheck disable=SC2034 # for the files of tests
ANSWER='' WHY='' SERVED=''

# serve NAME server|proxy ARGUMENT...: starts it as NAME, and waits until it answers; the files of a server are in $SERVED.
# Fails, and leaves the reason in $WHY, where it cannot be had.
serve() {
	local name=$1 program=$2 to from
	shift 2
	# shellcheck disable=SC2154 # of tests/cli/lib.sh
	SERVED=$(mktemp -d "$tests_dir/served.XXXXXX") || return
	mkfifo "$SERVED/to" "$SERVED/from" || return
	[ "$program" = proxy ] || set -- "$@" "$SERVED/files"
	"$ROOT/tests/servers/$program" "$@" <"$SERVED/to" >"$SERVED/from" &
	exec {to}>"$SERVED/to" {from}<"$SERVED/from"
	servers_to[$name]=$to servers_from[$name]=$from
	SERVED=$SERVED/files
	servers_answer "$name"
}

# must_serve MODULE NAME server ARGUMENT...: the same, for all cases of a file: where there is no server, or no module of evbus
# for it, this case and those that were to come say so, and it is over.
must_serve() {
	if serve "${@:2}" && [ -e "${EVBUS%/*}/../lib/libevbus-$1.so" ]; then
		ok
		return
	fi
	WHY=${WHY:-evbus was built without its module '$1'}
	skip "$WHY"
	# shellcheck disable=SC2154 # of tests/cli/lib.sh
	while [ "$tests_begun" -lt "$tests_planned" ]; do
		t "case $((tests_begun + 1))"
		skip "$WHY"
	done
	exit
}

# begin: an empty directory, and topics of its own on the broker at $url, by $prefix; with $url_options.
servers_begun=0 url_options=
begin() {
	fresh
	servers_begun=$((servers_begun + 1))
	prefix=t$servers_begun
	export EVBUS_BUS="${url:?}?prefix=$prefix${url_options:+&$url_options}" EVBUS_STORE=sqlite:state.db
}

# within SECONDS COMMAND...: takes no longer. took SECONDS: no more went by since SECONDS=0.
within() {
	local start=$SECONDS most=$1
	"${@:2}"
	expect_true "within $most s" test $((SECONDS - start)) -le "$most"
}
took() {
	expect_true "it took $SECONDS s, $1 at most" test "$SECONDS" -le "$1"
}

# tell NAME COMMAND...: has it do that; what it answers is in $ANSWER.
tell() {
	printf '%s\n' "${*:2}" >&"${servers_to[$1]}"
	servers_answer "$1"
}

# steps TITLE: the commands of a section of evbus-runbooks(7).
steps() {
	# shellcheck disable=SC2154 # of tests/cli/lib.sh
	awk -v title="$1" '/^\.S[sh] / { within = $0 == ".Ss " title } within && sub(/^\$ /, "")' "$ROOT/man/evbus-runbooks.7"
}

# shellcheck disable=SC2034 # for the files of tests
servers_answer() { # NAME
	local word rest
	read -r word rest <&"${servers_from[$1]}" || {
		word=error rest='it is gone'
	}
	ANSWER='' WHY=$rest
	case $word in
	ok) ANSWER=$rest WHY='' ;;
	skip) return 77 ;;
	*)
		fail "$1: $rest"
		return 1
		;;
	esac
}

#!/usr/bin/env bash
# Nothing outside the bus is opened for writing, and of what is inside nothing through a link, whatever topics, groups and
# all else are called; what is made belongs to its owner alone, whatever the umask; no password reaches a child.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
. "${0%/*}/lib.sh"
plan 7

quick=${EVBUS_TEST_QUICK:-}
# The leak checker cannot work in a process that is traced.
export ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0

# ---- what is opened ----------------------------------------------------------------------------------------------

# traced DIRECTORY COMMAND...: what of the file system it and its children use, with where each descriptor leads to; a file
# for each process.
traced() {
	mkdir "$1"
	strace -ff -y -qq -s 1024 --seccomp-bpf -e trace=%file -e signal=none -o "$1/of" "${@:2}"
}

# count_runs DIRECTORY: of a program of ours.
count_runs() {
	cat "$1"/* | grep -c '^execve("[^"]*/evbus", .* = 0$'
}

# strays DIRECTORY BUS: what a program of ours did outside of the bus, and opened in it through a path that may be a link.
# System files may be read, and the directory that the bus was made in synced.
strays() {
	awk -v bus="$2" -v parent="${2%/*}" -v program="$EVBUS" '
	function inside(path) { return path == bus || index(path, bus "/") == 1 }
	function leads(text) { return match(text, /<[^<>]*>/) ? substr(text, RSTART + 1, RLENGTH - 2) : "" }
	FNR == 1 { ours = 0 }
	/^execve\(/ && / = 0$/ { ours = index($0, "(\"" program "\",") > 0; next }
	!ours || / = -1 E/ { next }
	/^(openat|open|creat)\(/ {
		looked++
		match($0, /<[^<>]*>$/)
		path = substr($0, RSTART + 1, RLENGTH - 2)
		sub(/ \(deleted\)$/, "", path)
		writes = /O_WRONLY|O_RDWR|O_CREAT/
		if (inside(path)) {
			if (!/AT_FDCWD/ && !/O_NOFOLLOW/ && !/, "\.\.?", / && path != bus)
				print "may follow a link: " $0
		} else if (writes || (path !~ /^\/(usr|lib|lib64|etc|proc|sys|dev)\// && index(path, root) != 1 && path != parent))
			print "opened: " $0
		next
	}
	/^(mkdirat|mknodat|unlinkat|linkat|renameat2?|symlinkat|fchmodat)\(/ {
		looked++
		path = leads($0)
		if (!inside(path) && !(path == parent && /^mkdirat/) && !/AT_FDCWD<[^<>]*>, "\/proc\/self\/fd\//)
			print "changed: " $0
		next
	}
	/^(mkdir|mknod|unlink|rename|link|symlink|truncate|rmdir)\("/ {
		looked++
		if (!match($0, /\("[^"]*"/) || !inside(substr($0, RSTART + 2, RLENGTH - 3)))
			print "changed: " $0
	}
	END { if (!looked) print "nothing was traced" }' root="$(dirname "$(dirname "$EVBUS")")/" "$1"/*
}

t 'each command opens for writing only what is in the bus, and nothing there through a link'
cat >commands <<'END'
evbus topic-create -q o --segment-size 1K
seq 1 20 | sed 's/.*/{"id":"&","event_type":"a"}/' | evbus publish -q -t o
echo '{"id":"n"}' | evbus publish -q -t new --idempotent
echo '{"id":"n"}' | evbus publish -q -t o --atomic
evbus tail -t o -n 100
evbus tail -t '>' -o beginning
evbus replay -t o --to-topic copy
evbus consume -t o -g g --max 1 -- true
evbus consume -t o -g g --max 1 -- sh -c 'exit 65'
evbus consume -t o -g g --inbox --max 2 -- true
evbus checkpoint-list
evbus checkpoint-get -g g -t o
evbus checkpoint-set -g g -t o -o 2
evbus checkpoint-remove -g g -t o
evbus outbox-init
echo '{"id":"r","event_type":"a"}' | evbus outbox-add -t o
evbus outbox-list
evbus outbox-drain
evbus dlq-list
evbus dlq-show 1
evbus dlq-retry --all --dry-run
evbus dlq-retry --all --republish
evbus dlq-discard --all
evbus sweep --inbox-older-than 1d --sent-older-than 1d --dlq-older-than 1d
evbus topic-list
evbus topic-describe o
printf torn >>event_bus/o/partition=0.jsonl
evbus verify --repair
evbus verify --rebuild-keys
evbus config
END
traced trace "$BASH" -c '. ./commands' >/dev/null 2>&1
expect_equal "$(strays trace "$PWD/event_bus")" ''
ran 'commands that were traced' "$(count_runs trace)" "$(grep -cw evbus commands)"

t 'what strays is noticed'
mkdir strayed
cat >strayed/of.1 <<END
execve("$EVBUS", ["evbus"], 0x1 /* 1 var */) = 0
openat(AT_FDCWD</>, "/x/bus/../f", O_RDONLY) = 3</x/f>
openat(3</x/bus>, "f", O_RDONLY) = 3</x/bus/f>
openat(3</x/bus>, "f", O_WRONLY|O_CREAT|O_NOFOLLOW, 0600) = 3</etc/f>
mkdirat(3</y>, "f", 0700) = 0
unlink("/y/f") = 0
openat(3</x/bus>, "f", O_RDWR|O_NOFOLLOW) = 3</x/bus/f>
END
echo 'unlink("/y/f") = 0' >strayed/of.2
expect_equal "$(strays strayed /x/bus | wc -l)" 5

# ---- names -------------------------------------------------------------------------------------------------------

long() { # COUNT
	printf "%0$1d" 0
}
names=(.. . ../x a/../b /x x/ .x -x a..b a. '' ' ' 'a b' $'a\nb' $'a\tb' $'\033[31m' $'a\177' 'a*b' 'é' $'\xff' $'\xc0\xae'
	$'\xed\xa0\x80' '％2e' '%2e%2e' 'a\b' '$(touch x)' '`touch x`' '; touch x' "'" '"' '~' '\0' "$(long 250)" "$(long 255)"
	"$(long 256)" "$(long 5000)")
# With these before them; a pattern is none of the names, and is one where patterns may stand.
takers=('publish -t' 'publish --idempotent -t' 'consume -t o -g' 'topic-create' 'checkpoint-get -t o -g'
	'checkpoint-set -t o -o 0 -g' 'checkpoint-remove -t o -g' 'outbox-add -t' 'replay -t o --to-topic')
pattern_takers=('topic-describe' 'topic-list' 'checkpoint-set -g g -o 0 -t' 'tail -t' 'replay --count -t' 'consume -g g -t' 'verify -t' 'dlq-list -t' 'outbox-list --topic')

# try_names STATUSES TAKER...: each name behind each of them. In a process of its own, which is traced.
try_names() {
	local name taker
	for name in "${names[@]}"; do
		for taker in "${@:2}"; do
			local status=0
			# shellcheck disable=SC2086 # several words
			case $taker in
			consume*) "$EVBUS" $taker "$name" -- true ;;
			topic-*) "$EVBUS" $taker -- "$name" ;;
			*) "$EVBUS" $taker "$name" ;;
			esac <../event >../out 2>../err || status=$?
			[[ " $1 " == *" $status "* ]] || printf '%s %s %q\n' "$status" "$taker" "$name"
			[ "$(LC_ALL=C tr -d '\n' <../err | tr -d '[:print:]\200-\377' | wc -c)" = 0 ] || printf 'control characters: %s %q\n' "$taker" "$name"
		done
	done
}
# expect_names STATUSES TAKER...: they end so, nothing is made, and nothing is opened outside.
expect_names() {
	local before
	before=$(find . | sort)
	{ declare -p names && declare -f try_names; } >../names.bash
	rm -rf ../trace
	expect_equal "$(traced ../trace "$BASH" -c '. ../names.bash; try_names "$@"' - "$@" 2>&1)" ''
	expect_equal "$(find . | sort)" "$before" 'what is there'
	expect_equal "$(strays ../trace "$PWD/event_bus")" ''
	tried=$((tried + $(count_runs ../trace)))
	of=$((of + ${#names[@]} * ($# - 1)))
}

fresh
tried=0 of=0
mkdir in
echo '{"id":"1","event_type":"a"}' >event
cd in || exit 1
evbus publish -q -t o ../event
evbus consume -q -t o -g g -- true 2>/dev/null
evbus outbox-init -q >/dev/null
if [ "$quick" ]; then
	RANDOM=${EVBUS_TEST_SEED:-$$}
	names=("${names[RANDOM % ${#names[@]}]}" "${names[RANDOM % ${#names[@]}]}" "${names[RANDOM % ${#names[@]}]}")
fi

t 'a name that is none is refused, where one is named and where a pattern may stand'
expect_names 64 "${takers[@]}" "${pattern_takers[@]}"

t 'a pattern is no name, and one that matches nothing opens nothing'
names=('*' '>' 'o.*' 'o.>' '*.o')
expect_names 64 "${takers[@]}"
expect_names '0 64 66' "${pattern_takers[@]}"

t 'what is no name of a file may be called anything'
[ -z "$quick" ] || names=(../x $'\033[31m')
[ "$quick" ] || names=(.. ../x /x -x $'a\nb' $'\033[31m' 'é' "'; DROP TABLE dlq;--" '%s%n' '*' '$(touch x)')
expect_names '0 1' 'tail -t o -n 1 --tenant' 'replay -t o --count --event-key' 'dlq-list --tenant' 'outbox-list --tenant' \
	'consume -t o -g g --correlation-id' 'publish -t o --key' 'dlq-discard --all --tenant'
expect_names '0 64 66' 'dlq-list --source' 'dlq-list --by' 'dlq-show'
ran 'names' "$tried" "$of"

# ---- modes -------------------------------------------------------------------------------------------------------

# all_kinds MODE: makes a file of each kind: segments, copies of what was torn, the store and its journal, claims.
all_kinds() {
	evbus topic-create -q o --segment-size 1K --file-mode "$1" -b deep/er/bus >/dev/null
	seq 1 20 | sed 's/.*/{"id":"&"}/' | evbus publish -q -t o --idempotent -b deep/er/bus
	printf torn >>deep/er/bus/o/partition=0.jsonl
	echo '{"id":"x"}' | evbus publish -q -t o -b deep/er/bus
	evbus consume -q -t o -g g -b deep/er/bus --max 1 -- sh -c 'exit 65'
	evbus outbox-init -q -b deep/er/bus
	evbus checkpoint-set -q -t o -g h -o 1 -b deep/er/bus --store sqlite:a/b/other.db
	evbus outbox-init -q -b deep/er/bus --outbox sqlite:c/app.db
	echo no | evbus publish -q -t o -b deep/er/bus --on-error skip --rejects rejects
}

t 'files are their owner'"'"'s alone, whatever the umask, or of the group as it was asked for'
masks='000 022 077 0777' modes='600,700 640,750 660,770'
[ -z "$quick" ] || masks='022 0777' modes=640,750
ran=0
for mask in $masks; do
	for mode in $modes; do
		fresh
		dirs=${mode#*,} files=${mode%,*}
		(umask "$mask" && all_kinds "0$files") >../said 2>&1
		expect_true "all kinds of files are made with umask $mask: $(head -n 3 ../said)" test "$(find . -type f | wc -l)" -ge 14
		expect_equal "$(find deep/er/bus/o -type f ! -perm "$files" -o -type d ! -perm "$dirs")" '' "of a topic with $mode and umask $mask"
		expect_equal "$(find deep -path deep/er/bus/.evbus -prune -o -type d ! -perm "$dirs" -print)" '' "on the way to it with $mode and umask $mask"
		expect_equal "$(find . -path ./deep/er/bus/o -prune -o -path './deep*' ! -path '*/.evbus*' -o -type f ! -name rejects ! -perm 600 -print -o -type d ! -perm 700 ! -name . -print)" '' "of all else with umask $mask"
		expect_equal "$(find rejects -perm /077)" '' 'a file that was asked for is no one else'"'"'s'
		ran=$((ran + 1))
	done
done
ran 'umasks and modes' "$ran" "$(($(wc -w <<<"$masks") * $(wc -w <<<"$modes")))"

# ---- secrets -----------------------------------------------------------------------------------------------------

t 'a password in a URL is in no environment of a command, no message, and no argument of a child'
fresh
echo '{"id":"1"}' | evbus publish -q -t o
secret=s3cr3t-$RANDOM
cat >handler <<END
#!/bin/sh
cat >/dev/null
env | grep -F "$secret"
tr '\0' ' ' <"/proc/\$\$/cmdline" | grep -F "$secret"
exit 0
END
chmod +x handler
for url in "postgresql://user:$secret@host/db" "nats://user:$secret@host" "x://h?password=$secret"; do
	EVBUS_OUTBOX=$url EVBUS_TO_BUS=$url EVBUS_X=$url expect_status 0 evbus consume -t o -g "g$RANDOM" -- ./handler
	expect_equal "$(cat "$OUT" "$ERR" | grep -cF "$secret")" 0 "lines with it, $url"
	EVBUS_OUTBOX=$url EVBUS_TO_BUS=$url expect_status 0 evbus replay -t o -- ./handler
	expect_equal "$(cat "$OUT" "$ERR" | grep -cF "$secret")" 0 "lines with it, $url"
	for option in --store --bus --outbox; do
		evbus dlq-list "$option" "$url" >"$OUT" 2>"$ERR" && fail "$option $url works"
		ok
		evbus dlq-list --log json "$option" "$url" >>"$OUT" 2>>"$ERR"
		expect_equal "$(cat "$OUT" "$ERR" | grep -cF "$secret")" 0 "messages with it, $option $url"
	done
done

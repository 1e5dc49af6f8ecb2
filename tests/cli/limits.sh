#!/usr/bin/env bash
# What the system refuses: room on the disk, the right to write, descriptors, memory, standard descriptors. Every command
# does what it should or says why not; nothing acknowledged is lost, and afterwards all is well.
. "${0%/*}/lib.sh"
plan 14

sanitized=${EVBUS_TEST_CFLAGS:-}

# every FULL QUICK: how far the values that are tried lie apart.
every() {
	if [ "${EVBUS_TEST_QUICK:-}" = 1 ]; then echo "$2"; else echo "$1"; fi
}

# A bus with 40 events in topic o, a group that has done 5 of them and refused one, and an outbox with 9 rows to send.
make_bus() {
	fresh
	echo '{"id":"one"}' >one
	seq 1 40 | sed 's/.*/{"id":"&","pad":"0123456789012345678901234567890123456789"}/' >many
	{
		evbus publish -q -t o many
		evbus consume -q -t o -g g --max 6 --retry-max 0 -- sh -c '[ "$EVENT_OFFSET" != 3 ] || exit 65'
		evbus outbox-init -q --outbox sqlite:app.db
		seq 1 9 | sed 's/.*/{"id":"row-&","type":"t"}/' | evbus outbox-add -q --outbox sqlite:app.db -t o
	} >/dev/null 2>&1
	cp many acknowledged
}

commands=('publish -t o one' 'publish -t o many' 'publish -t o --atomic many' 'publish -t o --idempotent one' 'publish -t new one'
	'tail -t o -n 3' 'replay -t o --from-offset 0' 'consume -t o -g g --max 3 -- true' 'consume -t o -g g --max 1 -- sh -c exit\ 65'
	'outbox-drain --outbox sqlite:app.db' 'dlq-list' 'checkpoint-list' 'verify' 'topic-list')

[ "${EVBUS_TEST_QUICK:-}" != 1 ] ||
	commands=('publish -t o one' 'publish -t o --idempotent one' 'tail -t o -n 3' 'consume -t o -g g --max 1 -- sh -c exit\ 65'
		'outbox-drain --outbox sqlite:app.db' 'verify')

# run COMMAND [PREFIX...]: its status in $status, what it said in ./said. What it acknowledged is noted in ./acknowledged.
run() {
	local words
	eval "words=($1)"
	shift
	status=0
	# Pipes, for files may not grow.
	{ { timeout 20 "$@" evbus "${words[@]}" 2>&3 </dev/null 4>&-; echo $? >&4; } | cat >receipts; } 3>&1 4>status | cat >said
	status=$(<status)
	ok
	[ "${words[0]}" != publish ] || grep -a '"published_at_utc":"[^"]*"}$' receipts | cut -d '"' -f 4,14,18 >>receipts.all
}

# It did it, or said why not, in a line of its own.
expect_clean() {
	case $status in
	0 | 1) ;;
	64 | 69 | 70) fail "$1: exit status $status$(tests_show said stderr)" ;;
	6[5-9] | 7[0-9]) grep -q '^evbus[ :]' said || fail "$1: exit status $status, and nothing is said$(tests_show said stderr)" ;;
	*) fail "$1: exit status $status$(tests_show said stderr)" ;;
	esac
}

# The logs are whole, hold what was there and what receipts were given for, and all can be used.
expect_well() {
	expect_status 0 evbus verify
	expect_equal "$(evbus replay -t o --format payload | head -n 40 | cmp - acknowledged 2>&1)" '' 'the first events'
	if [ -s receipts.all ]; then
		evbus replay -t '>' --format '{topic} {offset} {published_at_utc}\n' 2>/dev/null | sort -u >there
		tr '"' ' ' <receipts.all | sort -u | comm -23 - there >lost
		expect_equal "$(head lost)" '' 'acknowledged, and lost'
		rm receipts.all
	fi
	expect_status 0 evbus publish -q -t o one
	expect_status 0 evbus consume -q -t o -g g --max 1 -- true
	expect_status 0 evbus outbox-drain -q --outbox sqlite:app.db
}

# sweep WHAT VALUE...: each command with each value of a limit.
sweep() {
	local what=$1 value command ran=0 of
	shift
	make_bus
	of=$(($# * ${#commands[@]}))
	for value; do
		for command in "${commands[@]}"; do
			run "$command" prlimit "--$what=$value"
			# The loader found no room for the program.
			[ "$status" != 127 ] || ! grep -q 'shared librar\|shared object\|cannot \(map\|create\)' said || status=0
			expect_clean "$command with $what=$value"
			ran=$((ran + 1))
		done
	done
	echo "# $what: ran $ran of $of" >&2
	expect_equal "$ran" "$of" 'ran'
	expect_well
}

t 'descriptors that run out are said, whatever their number'
# shellcheck disable=SC2046 # numbers
sweep nofile $(seq 3 "$(every 1 9)" 40)

t 'memory that runs out is said, whatever its amount'
if [ -n "$sanitized" ]; then
	skip 'a sanitizer takes more memory than there is'
else
	least=$((3 << 20))
	fresh
	until prlimit --as=$least evbus version >/dev/null 2>&1; do least=$((least + (1 << 18))); done
	# shellcheck disable=SC2046
	sweep as $(seq $least $(($(every 1048576 6291456))) $((least + (16 << 20))))
fi

t 'a heap that may not grow is said, whatever its size'
if [ -n "$sanitized" ]; then
	skip 'a sanitizer takes more memory than there is'
else
	least=$((1 << 18))
	fresh
	until (prlimit --data=$least evbus version; exit) >/dev/null 2>&1; do least=$((least + (1 << 16))); done
	# shellcheck disable=SC2046
	sweep data $(seq $least $(($(every 524288 2097152))) $((least + (5 << 20))))
fi

t 'files that may not grow are said, whatever their size'
# shellcheck disable=SC2046
sweep fsize $(seq 0 $(($(every 4000 25000))) 60000)

# ---- room ----

# Each in a mount namespace of its own, so that nothing is left mounted.
may_mount() {
	unshare "${unshare_as[@]}" sh -c 'mkdir -p probe && mount -t tmpfs -o size=16k none probe' 2>/dev/null
}
unshare_as=(-m)
[ "$(id -u)" = 0 ] || unshare_as=(-rm)

# Within the namespace; says one line for each thing that is wrong.
fill_levels='
step=$1
mkdir full
mount -t tmpfs -o size=512k none full || exit 9
cp -r event_bus app.db full
cd full || exit 9
bus=file:event_bus outbox=sqlite:app.db ran=0
free() { df -k --output=avail . | tail -n 1 | tr -d " "; }
try() {
	status=0
	timeout 20 evbus "$@" >../receipts 2>../said </dev/null || status=$?
	ran=$((ran + 1))
	case $status in
	0 | 1) ;;
	73 | 74 | 75) grep -q "^evbus" ../said || echo "$*: $status, and nothing is said" ;;
	*) echo "$*: exit status $status, $left KiB free: $(cat ../said)" ;;
	esac
	[ "$1" != publish ] || grep -a "published_at_utc\":\"[^\"]*\"}$" ../receipts | cut -d "\"" -f 4,14,18 >>../receipts.all
}
all=$(free)
left=0
while [ "$left" -lt 60 ]; do
	head -c $(((all - left) * 1024)) /dev/zero >filler 2>/dev/null
	left_now=$(free)
	try publish -t o ../one
	try publish -t o ../many
	try publish -t o --atomic ../many
	try publish -t o --idempotent ../one
	try publish -t "new$left" ../one
	try consume -t o -g g --max 2 -- true
	try consume -t o -g g --max 1 -- sh -c "exit 65"
	try outbox-drain --outbox sqlite:app.db
	try tail -t o -n 2
	try replay -t o
	try dlq-list
	try verify
	rm filler
	evbus publish -q -t o ../one 2>../said || echo "after room was made: $(cat ../said)"
	left=$((left + step))
done
evbus verify >../said 2>&1 || echo "verify: $(cat ../said)"
evbus replay -t "*" --format "{topic} {offset} {published_at_utc}\n" | sort -u >../there
evbus replay -t o --format payload | head -n 40 | cmp - ../acknowledged
echo "ran $ran"'

t 'a disk that is full is said at each level, and when there is room all goes on'
if ! may_mount; then
	skip 'no file system can be mounted here'
else
	make_bus
	step=$(every 2 30)
	unshare "${unshare_as[@]}" sh -c "$fill_levels" sh "$step" >found 2>&1
	levels=$(((60 + step - 1) / step))
	expect_equal "$(cat found)" "ran $((levels * 12))" 'found'
	echo "# full disk: $(cat found)" >&2
	tr '"' ' ' <receipts.all | sort -u | comm -23 - there >lost
	expect_equal "$(head lost)" '' 'acknowledged, and lost'
fi

t 'a file system that is read-only is read, and writing is refused'
if ! may_mount; then
	skip 'no file system can be mounted here'
else
	make_bus
	unshare "${unshare_as[@]}" sh -c '
		mount --bind event_bus event_bus && mount -o remount,bind,ro event_bus || exit 9
		evbus tail -t o -n 40 --format payload | cmp - acknowledged
		evbus verify >said 2>&1 || echo "verify: $(cat said)"
		evbus dlq-list >said 2>&1 || echo "dlq-list: $(cat said)"
		evbus checkpoint-list >said 2>&1 || echo "checkpoint-list: $(cat said)"
		for command in "publish -t o one" "publish -t new one" "consume -t o -g g -- true" "outbox-drain --outbox sqlite:app.db" \
			"topic-create new" "checkpoint-set -g g -t o -o 1" "dlq-discard 1"; do
			evbus $command >receipts 2>said
			status=$?
			case $status in 73 | 74 | 77 | 69) grep -q "^evbus" said || echo "$command says nothing" ;;
			*) echo "$command: $status: $(cat said)" ;; esac
		done' >found 2>&1
	expect_equal "$(cat found)" '' 'found'
	expect_well
fi

# ---- standard descriptors ----

t 'a standard descriptor that is closed lets nothing be printed into a file'
make_bus
ran=0
all_closed=('>&-' '2>&-' '<&-' '<&- >&-' '<&- 2>&-' '>&- 2>&-' '<&- >&- 2>&-')
for ((i = 0; i < 7; i += $(every 1 6))); do
	closed=${all_closed[i]}
	for command in "${commands[@]}" 'publish -t o nowhere' 'publish -t o' 'tail -t nowhere' 'publish -t o --log json -v one'; do
		timeout 20 bash -c "evbus $command $closed" >/dev/null 2>&1 </dev/null
		status=$?
		[ "$status" -lt 124 ] || fail "evbus $command $closed: $status"
		ran=$((ran + 1))
	done
done
expect_equal "$ran" $((($(every 6 1) + 1) * (${#commands[@]} + 4))) 'ran'
expect_well
expect_equal "$(grep -ahvc '^{"crc32c":".*}$' event_bus/*/partition=0.jsonl | sort -u)" 0 'lines that are none'
expect_equal "$(grep -alr 'evbus publish:' event_bus app.db)" '' 'files with messages in them'

t 'a standard descriptor that is closed and cannot be filled ends it without a crash'
if [ -n "$sanitized" ]; then
	skip 'a sanitizer needs descriptors of its own'
else
	expect_status 74 bash -c 'prlimit --nofile=2 evbus version <&- 2>&-'
fi

t 'what cannot be printed is a failure'
make_bus
for command in 'publish -t o one' 'publish -t o many' 'tail -t o' 'replay -t o' 'outbox-drain --outbox sqlite:app.db' 'dlq-list' \
	'checkpoint-list' 'verify' 'topic-list' 'topic-describe o' 'outbox-list --outbox sqlite:app.db' 'help' 'version' 'publish --help' \
	'completion bash'; do
	expect_status 74 bash -c "evbus $command >/dev/full"
	expect_err_has 'cannot write to stdout: No space left on device'
done
expect_equal "$(evbus replay -t o --count)" 90 'events that were made durable'

t 'receipts that nobody reads are a failure, and the events are durable'
make_bus
expect_status 74 bash -c 'set -o pipefail; for i in $(seq 300); do cat many; done | evbus publish -t o | true'
expect_err_has 'Broken pipe'
expect_true 'events were made durable' [ "$(evbus replay -t o --count)" -gt 40 ]
expect_status 0 evbus verify

t 'a log that may not grow says so instead of dying of a signal'
make_bus
size=$(stat -c %s event_bus/o/partition=0.jsonl)
expect_status 74 prlimit "--fsize=$((size + 10))" evbus publish -t o one
expect_err_has 'File too large'
expect_equal "$(stat -c %s event_bus/o/partition=0.jsonl)" "$size" 'the size of the log'

t 'and a handler dies of it as ever'
expect_status 1 evbus consume -t o -g h --max 1 --retry-max 0 -- sh -c 'ulimit -f 0; echo x >file'
expect_err_has 'signal'

# ---- what cannot be ours ----

t 'a bus that is full of names of nobody is not in the way'
make_bus
: >event_bus/.stray
mkdir event_bus/.dir event_bus/o/dir
: >event_bus/o/partition=0.jsonl.swp
expect_well

t 'an input that never ends a line is refused when the limit is reached'
fresh
head -c 50000000 /dev/zero | tr '\0' x | expect_status 65 evbus publish -t o
expect_err_has 'stdin:1:1: the line has more than'

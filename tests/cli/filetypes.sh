#!/usr/bin/env bash
# What is no file of ours in the place of each file of a bus: links, FIFOs, sockets, devices, directories, other names of
# files elsewhere. Each command that needs the file refuses it, and says which it is and what; none waits, none writes
# outside; those that do not need it work.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
. "${0%/*}/lib.sh"

outside=$PWD/outside
quick=${EVBUS_TEST_QUICK:-}
seed=${EVBUS_TEST_SEED:-$$}

# ---- the bus -----------------------------------------------------------------------------------------------------

# Several segments, a group with a checkpoint in the first one and a dead letter, a row in the outbox, event keys.
mkdir base
cd base || exit 1
evbus topic-create -q o --segment-size 1K >/dev/null
evbus topic-create -q other >/dev/null
seq 1 20 | sed 's/.*/{"id":"&","event_type":"a"}/' | evbus publish -q -t o --idempotent
{
	evbus consume -q -t o -g g --max 1 -- true
	evbus consume -q -t o -g g --max 1 -- sh -c 'exit 65'
	evbus outbox-init -q
	echo '{"id":"r","event_type":"a"}' | evbus outbox-add -q -t o
} >/dev/null 2>&1
cd ..

# Letters for the commands, in an order in which none takes away what a later one needs. All find one event on stdin.
echo '{"id":"n","event_type":"a"}' >event
letters=PITFRCslgioaDqwrdzLKEVWBx
declare -A words=(
	[P]='publish -t o'
	[I]='publish -t o --idempotent'
	[T]='tail -t o -n 100'
	[F]='tail -t o -n 100 -f --timeout 50ms'
	[R]='replay -t o --count'
	[C]='consume -t o -g g -- true'
	[l]='checkpoint-list'
	[g]='checkpoint-get -g g -t o'
	[s]='checkpoint-set -g g -t o -o 2'
	[x]='checkpoint-remove -g g -t o'
	[i]='outbox-init'
	[o]='outbox-list'
	[a]='outbox-add -t o'
	[D]='outbox-drain'
	[q]='dlq-list'
	[w]='dlq-show 1'
	[r]='dlq-retry --all'
	[d]='dlq-discard --all'
	[z]='sweep --inbox-older-than 1d'
	[L]='topic-list'
	[K]='topic-create o'
	[E]='topic-describe o'
	[V]='verify'
	[W]='verify --repair'
	[B]='verify --rebuild-keys'
)

segment=event_bus/o/partition=0/00000000000000000000.jsonl
state=event_bus/.evbus
# Who refuses what stands in the place of a file, and behind a slash who does where it is a file that has another name
# elsewhere: only who writes to it.
log=PITFRCsDKEVWB
store=ICslgxioaDqwrdzVWB
declare -A refusing=(
	[event_bus/o]=$log
	[event_bus/o/topic.json]=L$log/
	[event_bus/o/partition=0.jsonl]=L$log/PIDWB
	[event_bus/o/partition=0.lock]=L$log/PIDWB
	[event_bus/o/partition=0]=L$log
	[$segment]=LITFRCsDKEVWB/
	[event_bus/o/keys.lock]=IDB/IDB
	[$state]=$store
	[$state/state.db]=$store/$store
	[$state/state.db-journal]=$store/$store
	[$state/claims]=Csx
	[$state/claims/g]=Csx
	[$state/claims/g/o=0]=Csx/Csx
)

# ---- things ------------------------------------------------------------------------------------------------------

kinds='link_outside link_inside link_to_nothing link_to_itself fifo socket other hard'
mknod device c 1 5 2>/dev/null && kinds="$kinds device"
plan "$(wc -w <<<"$kinds")"
[[ $kinds == *device ]] || echo '# no device: making one needs root'
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'

# put KIND FILE: it stands in the place of the file, which lies in $outside.
put() {
	local name=${2##*/}
	rm -rf "$outside"
	mkdir "$outside"
	cp -a "$2" "$outside/$name"
	if [ "$1" = link_inside ]; then mv "$2" "$2.moved"; else rm -rf "$2"; fi
	case $1 in
	link_outside) ln -s "$outside/$name" "$2" ;;
	link_inside) ln -s "$name.moved" "$2" ;;
	link_to_nothing) ln -s "$outside/nothing" "$2" ;;
	link_to_itself) ln -s "$name" "$2" ;;
	fifo) mkfifo "$2" ;;
	socket) ln ../socket "$2" ;;
	device) ln ../device "$2" ;;
	other) if [ -d "$outside/$name" ]; then : >"$2"; else mkdir "$2"; fi ;;
	hard) ln "$outside/$name" "$2" ;;
	esac
}

# What is said of a thing: a glob.
said_of() { # KIND FILE
	case $1 in
	link_*) echo "*'*${2##*/}' is a symbolic link*" ;;
	hard) echo "*'*${2##*/}' has 2 names*" ;;
	*) echo "*'*${2##*/}' is *not a*" ;;
	esac
}

look_outside() {
	find "$outside" -type f -exec cksum {} + -o -printf '%p %y\n' | sort
}

# ---- all of them -------------------------------------------------------------------------------------------------

ran=0
# judge LETTER KIND FILE STATUS REFUSING
judge() {
	local said wanted=0 about="${words[$1]} with $2 for $3"
	said=$(<"$ERR")
	ok
	if [[ $5 == *$1* ]]; then
		wanted=76
		# It tells of damage on stdout, and is no failure itself.
		[[ $1 == [VWB] && $4 == 1 ]] && wanted=1 && said+=$(<"$OUT")
		# shellcheck disable=SC2053 # it is a glob
		[[ $said == $(said_of "$2" "$3") ]] || fail "$about: it says: $said"
	elif [ "$1" = F ]; then
		wanted=75
	elif [[ $1 == [VWB] && $3 == event_bus/o ]]; then
		wanted=1
		[[ $(<"$OUT") == *"group 'g' has a checkpoint here, and the topic is gone"* ]] || fail "$about: $(<"$OUT")"
	fi
	[ "$4" = "$wanted" ] || fail "$about: exit status $4, expected $wanted: $said"
	[[ $said != *[$'\001'-$'\011\013'-$'\037']* ]] || fail "$about: control characters: $said"
}

# try_file KIND FILE LETTERS
try_file() {
	local who=${refusing[$2]} letter status before
	if [ "$1" = hard ]; then who=${who#*/}; else who=${who%/*}; fi
	# What is neither a directory nor a link is nobody's topic.
	[[ $2 == event_bus/o && $1 != link_* ]] && who=${who%VWB}
	rm -rf work
	cp -a base work
	cd work || exit 1
	put "$1" "$2"
	before=$(look_outside)
	for ((i = 0; i < ${#3}; i++)); do
		letter=${3:i:1}
		status=0
		# shellcheck disable=SC2086 # several words
		timeout -s KILL 20 "$EVBUS" ${words[$letter]} <../event >"$OUT" 2>"$ERR" || status=$?
		judge "$letter" "$1" "$2" "$status" "$who"
		ran=$((ran + 1))
	done
	expect_equal "$(look_outside)" "$before" "what is outside, with $1 for $2"
	cd ..
}

# A quick run has each thing in the place of each file tried by some commands, by chance: all of them in the long run.
some_letters() {
	local chosen='' i
	if [ -z "$quick" ]; then
		chosen=$letters
	else
		for ((i = RANDOM % 16; i < ${#letters}; i += 16)); do chosen+=${letters:i:1}; done
	fi
	echo "$chosen"
}

RANDOM=$seed
of=0
for kind in $kinds; do
	t "$kind in the place of each file is refused by who needs it (EVBUS_TEST_SEED=$seed)"
	for file in "${!refusing[@]}"; do
		[ "$kind" = hard ] && [ -d "base/$file" ] && continue
		some=$(some_letters)
		of=$((of + ${#some}))
		try_file "$kind" "$file" "$some"
	done
done
ran 'commands that met what is no file of ours' "$ran" "$of"

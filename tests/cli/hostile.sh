#!/usr/bin/env bash
# Hostile input, by every way that input comes: what is wrong is refused with its place and leaves nothing behind, what is
# right is kept byte for byte, and no message has a control character of what it quotes. Limits hold to the byte.
[ -w /dev/shm ] && export TMPDIR=/dev/shm
. "${0%/*}/lib.sh"
plan 9

quick=${EVBUS_TEST_QUICK:-}
ran=0 of=0

rep() { # COUNT TEXT
	if [ ${#2} = 1 ]; then head -c "$1" /dev/zero | tr '\0' "$2"; else head -c "$1" /dev/zero | sed "s/\x00/$2/g"; fi
}
# quiet: what was said has no control character but newlines, in text and in JSON.
quiet() { # ABOUT
	ok
	LC_ALL=C grep -aq $'[\001-\011\013-\037\177]' "$ERR" && fail "control characters from $1: $(head -c 300 "$ERR" | cat -v)"
	[ "$(tr -dc '\0' <"$ERR" | wc -c)" = 0 ] || fail "a NUL from $1"
}
payloads() {
	[ ! -s event_bus/o/partition=0.jsonl ] || sed -E 's/^\{"crc32c":.*,"payload"://; s/\}$//' event_bus/o/partition=0.jsonl
}

# wanted COUNT: of a full run; how many were chosen of a quick one.
wanted() {
	if [ "$quick" ]; then echo "$of"; else echo "$1"; fi
}

# ---- events ------------------------------------------------------------------------------------------------------

# good NAME, bad NAME: what stdin holds is one event in one line, without its newline.
mkdir good bad
good() { cat >"good/$1"; }
bad() { cat >"bad/$1"; }
deep() { # LEVELS of arrays in an object
	printf '{"a":' && rep "$1" '[' && rep "$1" ']' && printf '}'
}
deep 127 | good 'as deep as may be'
deep 128 | bad 'one level too deep'
deep 100000 | bad '100,000 levels'
{ rep 100000 '{"a":' && printf 1 && rep 100000 '}'; } | bad '100,000 objects'
rep 100000 '[' | bad '100,000 brackets that stay open'
printf '{"n":%s}' "$(rep 2000 9)" | good 'a number of 2000 digits'
printf '{"n":-1.%se-%s}' "$(rep 500 0)" "$(rep 100 9)" | good 'a number below all that there are'
printf '{"n":1e999999999}' | good 'a number beyond all that there are'
printf '{"a":1,"a":2,"a":[]}' | good 'a member three times'
printf '{"id":"1","id":"2"}' | good 'an id that stands twice'
printf '{"":"","\\u0000":"\\u0000"}' | good 'an escaped NUL'
printf '{"a":"\0"}' | bad 'a NUL'
printf '{"a":1}\0' | bad 'a NUL behind the event'
printf '\0{"a":1}' | bad 'a NUL before the event'
printf '{"a":"\xc0\xaf"}' | bad 'an overlong slash'
printf '{"a":"\xe0\x80\xaf"}' | bad 'an overlong slash of three bytes'
printf '{"a":"\xf0\x80\x80\xaf"}' | bad 'an overlong slash of four bytes'
printf '{"a":"\xed\xa0\x80"}' | bad 'a surrogate'
printf '{"a":"\xe2\x82"}' | bad 'a character that is cut'
printf '{"a":"\x80"}' | bad 'a continuation alone'
printf '{"a":"\xf4\x90\x80\x80"}' | bad 'a character beyond the last'
printf '{"a\xff":1}' | bad 'a byte that is no text in a name'
printf '{"a":"\xf4\x8f\xbf\xbf\xee\x80\x80\xc2\x80"}' | good 'the last character, a private one and a C1 control'
printf '\xef\xbb\xbf{"a":1}' | bad 'a BOM'
printf '{"a":"\xef\xbb\xbf"}' | good 'a BOM in a text'
printf '{"a":\r1}' | good 'a carriage return between tokens'
printf '{"a":"\r"}' | bad 'a carriage return in a text'
printf '{"a":"\033]0;x\007\033[2J"}' | bad 'escape sequences'
printf '\033[2J' | bad 'an escape sequence for an event'
printf '{"a":"\\u001b[2J\\u0007"}' | good 'escape sequences, escaped'
printf '{"\033[31m":1}' | bad 'an escape sequence for a name'
printf '{"a":1}{"a":2}' | bad 'two events'
printf '[]' | bad 'an array'
printf 'null' | bad 'null'
printf '{"a":1,}' | bad 'a comma too many'
printf "{'a':1}" | bad 'single quotes'
printf '{"a":"%s"}' "$(rep 1048568 x)" | good 'as long as may be'
printf '{"a":"%s"}' "$(rep 1048569 x)" | bad 'a byte too long'
printf '{"a":"%s' "$(rep 3000000 x)" | bad 'far too long, and without an end'

t 'each way in refuses what is no event, says where, and takes nothing of it'
ways=('publish -t o' 'publish -t o FILE' 'publish -t o --atomic' 'publish -t o --idempotent --event-key-from /id' 'publish -t o --multiline'
	'publish -t o --log json' 'publish -t o --key-from /a' 'outbox-add -t o --id i --type a' 'outbox-add -t o --log json --id i --type a')
# Where an event may go over several lines, what is behind one in its line is the next one.
is_wrong() { # FILE WAY
	[[ $2 != *--multiline || $1 != *@('two events'|'NUL behind the event') ]]
}
try_bad() { # FILE WAY
	local status=0
	is_wrong "$1" "$2" || return 0
	of=$((of + 1))
	# shellcheck disable=SC2086 # several words
	if [[ $2 == *FILE ]]; then
		timeout 20 "$EVBUS" ${2%FILE} "$1" >"$OUT" 2>"$ERR" || status=$?
	else
		timeout 20 "$EVBUS" $2 <"$1" >"$OUT" 2>"$ERR" || status=$?
	fi
	ok
	[ "$status" = 65 ] || fail "$2 with $1: exit status $status: $(head -c 300 "$ERR")"
	[ ! -s "$OUT" ] || fail "$2 with $1: it prints $(head -c 200 "$OUT")"
	[ "$(wc -l <"$ERR")" = 1 ] || fail "$2 with $1: it says $(head -c 500 "$ERR")"
	quiet "$2 with $1"
	ran=$((ran + 1))
}
evbus topic-create -q o >/dev/null
evbus outbox-init -q >/dev/null
seed=${EVBUS_TEST_SEED:-$$}
RANDOM=$seed
for way in "${ways[@]}"; do
	for file in bad/*; do
		[ "$quick" ] && [ $((RANDOM % 6)) != 0 ] && continue
		try_bad "$file" "$way"
	done
done
expect_equal "$(payloads)" ''
expect_equal "$(evbus outbox-list --format tsv | wc -l)" 0
ran "refused events (EVBUS_TEST_SEED=$seed)" "$ran" "$of"

t 'each way in keeps what is right byte for byte'
ran=0
count=$(find good -type f | wc -l)
# With and without a newline at the end, with CRLF, between empty lines and blanks.
for file in good/*; do
	for ends in '' '\n' '\r\n' ' \t \r\n\n\r\n   \n'; do
		{ printf ' \n\n\r\n  ' && cat "$file" && printf '%b' "$ends"; } >event
		evbus publish -q -t "way.$ran" event >"$OUT" 2>"$ERR" || fail "$file with '$ends': $(head -c 300 "$ERR")"
		evbus tail -t "way.$ran" -o beginning --format payload >got
		{ cat "$file" && echo; } | cmp -s - got || fail "$file with '$ends' is not what was published"
		ok
		[[ $ends || $file == *'stands twice' ]] || { evbus outbox-add -q -t "way.$ran" --id "$ran" --type a --tenant-id t --event-key "k$ran" event >/dev/null 2>"$ERR" && evbus outbox-drain -q 2>>"$ERR"; } || fail "outbox with $file: $(head -c 300 "$ERR")"
		ran=$((ran + 1))
		[ -z "$quick" ] || break
	done
done
for file in good/*; do [[ $file == *'stands twice' ]] || { cat "$file" && echo; }; done >all
evbus tail -t 'way.>' -o beginning --tenant t --format payload >drained
if [ "$quick" ]; then wanted=$count; else wanted=$((4 * count)); fi
expect_equal "$(sort drained | md5sum)" "$(sort all | md5sum)" 'what went through the outbox'
expect_status 0 evbus verify --deep
ran 'good events' "$ran" "$wanted"

t 'a row that somebody else wrote and that is no event becomes a dead letter that says why'
fresh
evbus outbox-init -q >/dev/null
n=0
for file in ../bad/*; do
	n=$((n + 1))
	[[ $file == *'far too long'* ]] && continue
	sqlite3 event_bus/.evbus/state.db "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('$n', 'o', 'a', CAST(readfile('$file') AS TEXT))"
done
rows=$(sqlite3 event_bus/.evbus/state.db 'SELECT count(*) FROM outbox')
expect_status 1 evbus outbox-drain --retry-max 0
quiet outbox-drain
expect_out ''
expect_equal "$(sqlite3 event_bus/.evbus/state.db "SELECT count(*) FROM outbox WHERE state = 'FAILED' AND length(last_error) > 10")" "$rows" 'rows that are FAILED'
for format in table json tsv; do
	expect_status 0 evbus dlq-list --format $format --payload
	[ $format = json ] && expect_equal "$(jq -c . "$OUT" 2>/dev/null | wc -l)" "$rows" 'letters as JSON'
	[ $format = table ] || expect_lines "$rows"
done
expect_equal "$(evbus tail -t o -o beginning --count 2>/dev/null)" ''

# ---- limits ------------------------------------------------------------------------------------------------------

# edge STATUS COMMAND...: one byte more than the last that works.
edge() {
	expect_status "$1" "${@:2}"
	quiet "${*:2:5}"
	ran=$((ran + 1))
}

t 'limits hold to the byte'
fresh
ran=0
of_length() { rep "$1" x; }
echo '{"id":"1","event_type":"a"}' >event
edge 0 evbus publish -q -t "$(of_length 249)" event
edge 64 evbus publish -q -t "$(of_length 250)" event
edge 0 evbus publish -q -t o -k "$(of_length 1024)" event
edge 64 evbus publish -q -t o -k "$(of_length 1025)" event
edge 0 evbus publish -q -t o -k "$(printf '\001%.0s' {1..1024})" event
edge 65 evbus publish -q -t o -k $'\xff' event
for member in event_key:1024 tenant_id:256 id:1024; do
	printf '{"%s":"%s","x":1}\n' "${member%:*}" "$(of_length "${member#*:}")" | sed 's/^{"tenant/{"id":"1","tenant/' >exact
	sed 's/x",/xx",/' exact >above
	edge 0 evbus publish -q -t k --idempotent exact
	edge 65 evbus publish -q -t k --idempotent above
	edge 0 evbus publish -q -t k above
done
printf '{"a":"%s"}' "$(of_length 3145720)" >exact
printf '{"a":"%s"}' "$(of_length 3145721)" >above
edge 0 evbus publish -q -t o --max-payload 3M -k "$(printf '\001%.0s' {1..1024})" exact
edge 65 evbus publish -q -t o --max-payload 3M above
edge 65 evbus publish -q -t o exact
edge 64 evbus publish -q -t o --max-payload 3145729 exact
edge 65 evbus outbox-add -q -t o --id a --type a --max-payload 3M above
# A batch of four lines of which one makes the rest.
lines() { # BYTES of the last
	printf '{"a":"%s"}\n' "$(of_length 1000000)" "$(of_length 1000000)" "$(of_length 1000000)" "$(of_length "$1")"
}
lines 1000 >four
edge 0 evbus publish -q -t batch --atomic four
left=$((4194304 - $(stat -c %s event_bus/batch/partition=0.jsonl)))
# What a line may have at most beside its payload is counted.
lines $((1000 + left - 4 * 512)) >four
edge 0 evbus publish -q -t exact --max-payload 3M --atomic four
lines $((1001 + left)) >four
edge 65 evbus publish -q -t above --max-payload 3M --atomic four
expect_equal "$(wc -c <event_bus/above/partition=0.jsonl)" 0
edge 64 evbus topic-create -q many --partitions 1025
edge 0 evbus topic-create -q many --partitions 1024
edge 64 evbus publish -q -t many -p 1024 event
edge 0 evbus publish -q -t many -p 1023 event
edge 64 evbus consume -t o -g "$(of_length 250)" -- true
edge 0 evbus consume -q -t batch -g "$(of_length 249)" -- true
edge 0 evbus tail -t o --where "/$(of_length 1023)=1"
edge 64 evbus tail -t o --where "/$(of_length 1024)=1"
edge 64 evbus tail -t o --format "$(of_length 4097){offset}"
edge 64 evbus dlq-show "$(of_length 400):1"
for number in 18446744073709551615 18446744073709551616 99999999999999999999999 -9223372036854775809 0x10 1e3 '١' ' 1' '1 ' ''; do
	edge 64 evbus tail -t batch -n "$number"
	edge 64 evbus publish -q -t batch -p "$number" event
done
ran 'limits' "$ran" 53

# ---- what else is read -------------------------------------------------------------------------------------------

# each_line COMMAND: with each line of stdin, which are in the notation of printf, in ../line; in a quick run with some.
each_line() {
	local line
	of=0
	while IFS= read -r line; do
		[ "$quick" ] && [ $((RANDOM % 3)) != 0 ] && continue
		printf '%b' "$line" >../line
		"$@" "$line"
		ran=$((ran + 1))
		of=$((of + 1))
	done
}

t 'an answer of a coprocess that is none stops the consumer, and nothing moves'
fresh
ran=0
printf '{"id":"1"}\n{"id":"2"}\n' | evbus publish -q -t o
cat >answer <<'END'
#!/bin/sh
read -r record
cat ../line
cat >/dev/null
END
chmod +x answer
no_answer() {
	expect_status 78 timeout 20 evbus consume -t o -g g --coprocess -- ./answer
	quiet "the answer $1"
	expect_true "of the answer $1 nothing is stored" test -z "$(evbus checkpoint-list --format tsv 2>/dev/null)"
}
each_line no_answer <<'END'
\n
OK\n
ok \n
 ok\n
okok\n
ok\r\n
deadly\n
\0ok\n
ok\0\n
\033[2J\033]0;title\007\n
\xff\xfe\n
null\n
{"ok":true}\n
\xef\xbb\xbfok\n
END
rep 70000 x >../line
no_answer 'of 70,000 bytes'
ran 'answers' "$ran" "$(wanted 14)"

t 'a reason may be anything: it is kept as text, and told without control characters'
ran=0
some_reason() {
	rm -rf event_bus/.evbus
	expect_status 1 timeout 20 evbus consume -t o -g g --max 1 --coprocess -- ./answer
	quiet "the reason $1"
	expect_status 0 evbus dlq-list --format json
	expect_true "the letter of $1 is JSON in UTF-8" jq -se '.[0].reason == "refused" and (.[0].error | length) < 4097' "$OUT" >../shown
	expect_status 0 evbus dlq-list
	ok
	LC_ALL=C grep -aq $'[\001-\011\013-\037\177]' "$OUT" && fail "a table with control characters, of $1: $(cat -v "$OUT")"
}
each_line some_reason <<'END'
dead\n
dead \n
dead \033[2J\033]0;title\007\n
dead \xff\xfe\xc0\xaf\xed\xa0\x80\n
dead it\'s; DROP TABLE dlq; --"\\\n
dead \t\v\f\b\r\n
dead %s%n%d\n
END
{ printf 'dead ' && rep 30000 'é' && echo; } >../line
some_reason 'of 30,000 characters'
printf '#!/bin/sh\ncat >/dev/null\ncat ../line >&2\nexit 65\n' >handler
chmod +x handler
printf '\033[2J\0\xff\r\n\t\007 end' >../line
rm -rf event_bus/.evbus
expect_status 1 evbus consume -t o -g g --max 1 -- ./handler
sed -i '/^evbus /!d' "$ERR"
quiet 'what is said of a command'
expect_status 1 evbus consume -t o -g h --max 1 --log json -- ./handler
jq -c .message "$ERR" >../shown
expect_equal "$(wc -l <../shown)" "$(wc -l <"$ERR")" 'messages as JSON'
quiet 'what a command says, as JSON'
ran 'reasons' "$ran" "$(wanted 7)"

t 'a file of checkpoints with a bad line changes nothing'
fresh
ran=0
seq 1 5 | sed 's/.*/{"id":"&"}/' | evbus publish -q -t o
evbus checkpoint-set -q -t o -g g -o 3 >/dev/null
right=$(evbus checkpoint-list --format json)
before=$(evbus checkpoint-list --format tsv | cut -f 1-4)
bad_checkpoint() {
	{ printf '%s\n' "$right" | sed 's/"next_offset":"3"/"next_offset":"1"/' && cat ../line; } >checkpoints
	expect_status 65 timeout 20 evbus checkpoint-set --from-file checkpoints
	quiet "the checkpoint $1"
	expect_equal "$(evbus checkpoint-list --format tsv | cut -f 1-4)" "$before" "the checkpoints after $1"
}
each_line bad_checkpoint <<'END'
{}\n
{"group":"g","topic":"o"\n
{"group":"../g","topic":"o","partition_id":0,"next_offset":"1"}\n
{"group":"g","group":"h","topic":"o","partition_id":0,"next_offset":"1"}\n
{"group":"g","topic":"o","partition_id":-1,"next_offset":"1"}\n
{"group":"g","topic":"o","partition_id":0,"next_offset":"99999999999999999999999"}\n
{"group":"g","topic":"o","partition_id":0,"next_offset":"\0331"}\n
\0\n
\033[2J\n
\xff\tg\n
g\to\n
\xef\xbb\xbfg\to\t0\t1\n
[]\n
END
{ rep 100000 '{"a":' && echo; } >../line
bad_checkpoint 'of 100,000 levels'
ran 'files of checkpoints' "$ran" "$(wanted 13)"

t 'a file of ids with a bad line changes nothing'
ran=0
evbus consume -q -t o -g g -- sh -c 'exit 65' 2>/dev/null
bad_ids() {
	{ echo 1 && cat ../line; } >ids
	expect_status 65 timeout 20 evbus dlq-discard --ids-from ids
	quiet "the id $1"
	expect_equal "$(evbus dlq-list --state all --format tsv | cut -f 2 | uniq)" DEAD "after the id $1"
}
each_line bad_ids <<'END'
{}\n
{"id":1}\n
{"id":"1","id":"2"}\n
1 OR 1=1\n
1;DROP TABLE dlq\n
-1\n
0x1\n
99999999999999999999999\n
\0331\n
1\0\n
\xef\xbb\xbf1\n
{"id":"a"}\n
END
{ printf '{"id":"' && rep 3000000 1 && echo '"}'; } >../line
bad_ids 'of 3,000,000 digits'
ran 'files of ids' "$ran" "$(wanted 12)"

t 'a configuration that is none is refused, with its place'
ran=0
bad_config() {
	expect_status 78 timeout 20 evbus topic-list --config ../line
	quiet "the configuration $1"
	expect_err_has 'line'
}
each_line bad_config <<'END'
bus: [file:x\n
bus: file:x\nbus: file:y\n
bus: &a [*a]\n
\tbus: x\n
bus: "\033[2J"\n
bus: \0\n
"bus\033[31m": x\n
\xff\xfe\n
bus: \xed\xa0\x80\n
- a\n- b\n
bus: {a: b}\n
"\\x1b[2J": x\n
store: file:x\nnonsense: 1\n
outboxes: {"../x": {url: "sqlite:x"}}\n
partitioning: {a: {topics: ["../x"], key_from: [/a]}}\n
END
for levels in 64 65 100000; do
	{ printf 'other: ' && rep $levels '[' && rep $levels ']' && echo; } >../line
	if [ $levels = 100000 ]; then bad_config "of $levels levels"; fi
done
{ printf 'bus: file:event_bus\n#' && rep 1048554 x && echo; } >../line
expect_equal "$(stat -c %s ../line)" 1048576
expect_status 0 evbus topic-list --config ../line
echo >>../line
bad_config 'a byte too long'
ran 'configurations' "$ran" "$(wanted 15)"

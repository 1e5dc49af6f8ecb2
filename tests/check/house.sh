#!/usr/bin/env bash
# The rules of the house, checked over the files as they lie and the library as it was built. Each check gathers what
# is wrong, as FILE:LINE where there is one, and fails if that is anything.
. "${0%/*}/../cli/lib.sh"
plan 22

build=${EVBUS_TEST_BUILD:-$ROOT/build}
read -ra cc <<<"${EVBUS_TEST_CC:-cc}"
read -ra cflags <<<"${EVBUS_TEST_CFLAGS:-}"
cd "$ROOT" || exit 1

# The files that are ours: what git knows or would take, or everything, where this is no checkout.
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
	git ls-files --cached --others --exclude-standard
else
	find . -name 'build*' -prune -o -name .git -prune -o -type f -print | sed 's|^\./||'
fi | while read -r file; do [ ! -f "$file" ] || echo "$file"; done | sort >"$tests_dir/files"

# ours REGEX: those that match.
ours() {
	grep -E -e "$1" "$tests_dir/files"
}
# none WHAT: stdin is empty.
none() {
	local found
	found=$(cat)
	ok
	[ -z "$found" ] || fail "$1:
$found"
}
# includes FILE...: "FILE LINE HEADER" for each, HEADER with its quotes or brackets.
includes() {
	awk '{ line = $0 } sub(/^[ \t]*#[ \t]*include[ \t]*/, "", line) { sub(/[ \t].*/, "", line); print FILENAME, FNR, line }' "$@" /dev/null
}
# code FILE: without its comments, the lines where they were.
code() {
	"${cc[@]}" -fpreprocessed -dD -E -x c "$1" 2>/dev/null | awk '/^# [0-9]+ "/ { want = $2; next } { while (line + 1 < want) { print ""; line++ } print; line++ }'
}

mapfile -t c_files < <(ours '^(cmd|lib|tests)/.*\.[ch]$')
mapfile -t product < <(ours '^(cmd|lib)/.*\.[ch]$')
mapfile -t library < <(ours '^lib/.*\.[ch]$')
mapfile -t program < <(ours '^cmd/.*\.[ch]$')
mapfile -t headers < <(ours '^(cmd|lib|tests)/.*\.h$')
mapfile -t scripts < <(ours '^tests/.*\.sh$|^tests/(deps|lint|smoke|fault/branches|fuzz/run|servers/jars)$|^\.ci/run$')

# Whoever may use more than what is below has a higher rank. backend may use log and store, which know nothing of each
# other. Of the library, the program sees evbus.h alone.
t 'folders only look down: cmd, bus, delivery, backend, store and log, event, base'
includes "${library[@]}" | awk '
	BEGIN {
		split("base 1 event 2 log 3 store 3 backend 4 delivery 5 bus 6", word, " ")
		for (i = 1; i in word; i += 2) rank[word[i]] = word[i + 1]
	}
	function layer(path, part) {
		sub(/^lib\//, "", path)
		if (path == "evbus.h") return ""
		if (path == "backend.h") return "backend"
		return split(path, part, "/") > 1 ? part[1] : "bus"
	}
	$3 ~ /^"/ {
		from = layer($1); header = substr($3, 2, length($3) - 2)
		if (header !~ /\//) { # beside the file, or at the root of lib
			beside = $1; sub(/[^\/]*$/, "", beside); beside = beside header
			if (beside != "lib/" header && (getline dummy < beside) >= 0) header = substr(beside, 5)
			close(beside)
		}
		to = layer(header)
		if (to == "") next
		if (from == "") from = "evbus.h"
		if (!(to in rank)) print $1 ":" $2 ": " to " is no folder of the library"
		else if (from != to && rank[from] <= rank[to]) print $1 ":" $2 ": " from " looks at " to " (" $3 ")"
	}' | none 'looks up'

t 'the program sees only evbus.h and its own headers'
includes "${program[@]}" | while read -r file line header; do
	case $header in
	'"evbus.h"' | '<'*) ;;
	*/*) echo "$file:$line: $header" ;;
	*)
		header=${file%/*}/$(tr -d '"' <<<"$header")
		[ -f "$header" ] || [ -f "$header.in" ] || echo "$file:$line: $header"
		;;
	esac
done | none 'sees into the library'

# The library is a part of the program, so the linker would not tell.
t 'the program calls of the library what evbus.h has, and shares no name with it'
globals() {
	nm -g "$@" 2>"$ERR" | awk 'NF > 1 { print $NF }' | grep -v '^__' | sort -u
}
globals --defined-only "$build"/cmd/evbus.p/*.o >"$tests_dir/defined"
globals --undefined-only "$build"/cmd/evbus.p/*.o >"$tests_dir/called"
globals --defined-only "$build/lib/libevbus-core.a" >"$tests_dir/inside"
expect_true 'both define something' test -s "$tests_dir/defined" -a -s "$tests_dir/inside"
comm -12 "$tests_dir/defined" "$tests_dir/inside" | none 'in both'
comm -12 "$tests_dir/called" "$tests_dir/inside" | grep -v '^evbus_' | none 'not for the program'

t 'an outside library has one place'
standard='^<(assert|ctype|errno|float|inttypes|limits|locale|math|setjmp|signal|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|stdnoreturn|string|time|threads|wchar|dirent|dlfcn|fcntl|fnmatch|getopt|glob|libgen|poll|pthread|pwd|regex|sched|semaphore|spawn|strings|termios|unistd|wordexp|endian|byteswap|err|sysexits|cpuid|[a-z]*mmintrin|immintrin|arm_acle|arm_neon|((sys|linux|net|netinet|arpa|asm)/[a-z0-9_/]*))\.h>$'
includes "${product[@]}" | awk '$3 ~ /^</ && $3 != "<evbus.h>" { print $3, $1 }' | sort -u | grep -vE "${standard%?}" |
	awk '{ n[$1]++; where[$1] = where[$1] " " $2 } END { for (h in n) if (n[h] > 1) print h ":" where[h] }' | none 'in several places'
includes "${product[@]}" | awk '$3 == "<sqlite3.h>" && $1 != "lib/store/sqlite_journal.h" { print $1 ":" $2 }' | none 'sqlite3.h outside lib/store/sqlite_journal.h'

t 'the library exports evbus_ and nothing else'
library_file=$(find "$build/lib" -name 'libevbus.so*' -type f ! -name '*.p' ! -name '*.symbols' 2>/dev/null | head -n 1)
nm -D --defined-only "$library_file" 2>"$ERR" | awk '{ print $3 }' | sort >"$tests_dir/exported"
if expect_true "libevbus.so is in $build/lib and exports something" test -s "$tests_dir/exported"; then
	grep -vE '^evbus_|^__(asan|odr_asan|ubsan|tsan)' "$tests_dir/exported" | none 'exported'
fi

# What they are linked with is loaded at each start. Sanitizers add libraries of their own.
t 'the program and the library are linked with the C library alone'
for file in "$build/cmd/evbus" "$library_file"; do
	readelf -d "$file" 2>"$ERR" | sed -n "s|.*(NEEDED).*\[\(.*\)\]|$file: \1|p"
done >"$tests_dir/needed"
expect_true 'readelf says something' grep -q libc.so "$tests_dir/needed"
grep -vE ': (libc|libm|ld-linux[a-z0-9-]*|lib[a-z]*san)\.so' "$tests_dir/needed" | none 'linked with'

t 'every function of evbus.h is exported, and nothing that evbus.h does not have'
code lib/evbus.h | tr '\n' ' ' | tr ';' '\n' | sed -n 's/.*EVBUS_\(API\|CHECKED\)[^(]*[ *]\(evbus_[a-z0-9_]*\)(.*/\2/p' | sort >"$tests_dir/declared"
expect_true 'evbus.h has functions' test -s "$tests_dir/declared"
comm -23 "$tests_dir/declared" "$tests_dir/exported" | none 'declared and not exported'
grep '^evbus_' "$tests_dir/exported" | comm -13 "$tests_dir/declared" - | none 'exported and not declared'

t 'every header compiles alone'
read -ra postgres <<<"$(pkg-config --cflags libpq 2>"$ERR")" # of all, it alone is in no usual place
for header in "${headers[@]}"; do
	"${cc[@]}" -std=c17 -D_GNU_SOURCE -DEVBUS_VERSION='""' -Wall -Wextra -Wpedantic -Werror -Ilib -Icmd -Itests -I"${header%/*}" "${postgres[@]}" \
		-fsyntax-only -x c "$header" 2>&1 | head -n 5
done | none 'does not compile'

t 'evbus.h compiles as C99 without extensions'
echo '#include <evbus.h>' | "${cc[@]}" -std=c99 -Wall -Wextra -pedantic-errors -Werror -Ilib -fsyntax-only -x c - 2>&1 | none 'evbus.h'

t 'evbus.h compiles as C++'
if command -v g++ >/dev/null; then
	echo '#include <evbus.h>' | g++ -std=c++11 -Wall -Wextra -pedantic-errors -Werror -Ilib -fsyntax-only -x c++ - 2>&1 | none 'evbus.h'
else
	skip 'no g++ here'
fi

# By the command that evbus.h names, against the library as it was built.
t 'the program on the first page of evbus.h works as shipped'
fresh
sed -n '/^ \*\t#include/,/^ \*\t}/p' "$ROOT/lib/evbus.h" | sed 's/^ \*\t\{0,1\}//' >hello.c
command=$(sed -n 's/^ \*\t\(cc hello\.c .*\)/\1/p' "$ROOT/lib/evbus.h")
expect_true 'evbus.h has a program' test -s hello.c
expect_true 'evbus.h says how to compile it' test -n "$command"
(
	# shellcheck disable=SC2317 # called by the command
	cc() {
		command "${cc[@]}" -Wall -Wextra -Wpedantic -Werror "${cflags[@]}" "$@"
	}
	export PKG_CONFIG_PATH=$build/meson-uninstalled
	eval "$command"
) >"$OUT" 2>&1 || fail "cannot compile it: $(cat "$OUT")"
for offset in 0 1; do
	expect_status 0 env LD_LIBRARY_PATH="${library_file%/*}" ./a.out
	expect_out "durable at offset $offset"
done
expect_status 0 evbus replay -b file:event_bus -t orders --format payload
expect_out '{"id":"1"}
{"id":"1"}'
cd "$ROOT" || exit 1

# A test stops a process at one of them by its name.
t 'each place at which a test may stop a process is listed, and each one listed is there'
sed -n 's/^\tPOINT("\([^"]*\)").*/\1/p' lib/base/points.h >"$tests_dir/points"
sort "$tests_dir/points" | uniq -d | none 'listed twice'
grep -ho 'os\.point("[^"]*")' "${library[@]}" | cut -d '"' -f 2 | sort -u >"$tests_dir/reached"
expect_true 'there are some' test -s "$tests_dir/reached"
sort "$tests_dir/points" | comm -23 - "$tests_dir/reached" | none 'listed and not there'
sort "$tests_dir/points" | comm -13 - "$tests_dir/reached" | none 'there and not listed'

t 'no function is longer than 70 lines'
awk 'FNR == 1 { begin = 0 } /^[a-zA-Z_].*\(/ { name = $0 } /^\{/ { begin = FNR } /^}/ && begin {
	if (FNR - begin + 1 > 70) printf "%s:%d: %d lines: %s\n", FILENAME, begin, FNR - begin + 1, name
	begin = 0
}' "${c_files[@]}" | none 'too long'

# The public header is one story, and programs include one file.
t 'no file but evbus.h is longer than 500 lines'
awk 'FNR > n[FILENAME] { n[FILENAME] = FNR } END { for (f in n) if (n[f] > 500 && f != "lib/evbus.h") print f ": " n[f] " lines" }' "${c_files[@]}" "${scripts[@]}" | none 'too long'

# Most files need no second look, without their comments.
t 'no function that cannot be used safely is called'
unsafe='(^|[^a-zA-Z0-9_>.])(strcpy|strcat|v?sprintf|strtok|atoi|atol|gets)[ \t]*\('
grep -lE "$unsafe" "${c_files[@]}" | while read -r file; do
	code "$file" | grep -nE "$unsafe" | sed "s|^|$file:|"
done | none 'called'

t 'nothing is left to be done later'
ours . | grep -v '^tests/data/' | xargs -d '\n' grep -nIwE 'TO[D]O|FIX[M]E|X[X]X' /dev/null | none 'left over'

t 'no file has the path of a home directory'
ours . | grep -v '^tests/data/' | xargs -d '\n' grep -nIE '/ho[m]e/[A-Za-z]|/Use[r]s/|/roo[t]/' /dev/null | none 'home directory'

# What ninja compiles, and what the lists of scripts name.
t 'every file of the library, the program and the tests is built and run'
sed -n 's/^ *"file": "\(.*\)".*/\1/p' "$build/compile_commands.json" | sort -u >"$tests_dir/built"
expect_true 'something is built' test -s "$tests_dir/built"
ours '^(lib|cmd|tests)/.*\.c$' | while read -r file; do
	grep -qE "(^|/)$file\$" "$tests_dir/built" || echo "$file"
done | none 'not built'
ours '^tests/(cli|check)/.*\.sh$' | while read -r script; do
	name=${script##*/}
	[ "$name" = lib.sh ] || grep -qF "'${name%.sh}'" "${script%/*}/meson.build" || echo "$script"
done | none 'in no meson.build'

t 'every script that is run is executable and says what runs it'
for script in "${scripts[@]}"; do
	[ "${script##*/}" = lib.sh ] && continue
	[ -x "$script" ] || echo "$script is not executable"
	IFS= read -rN 2 begins <"$script"
	[ "$begins" = '#!' ] || echo "$script has no #!"
done | none 'scripts'

t 'manual pages and completions say what the declarations say'
expect_status 0 man/update "$EVBUS" "$ROOT" "$tests_dir/printed"
find "$tests_dir/printed" -type f -printf '%P\n' | sort >"$tests_dir/pages"
expect_true 'something is printed' test -s "$tests_dir/pages"
while read -r page; do
	cmp -s "$page" "$tests_dir/printed/$page" || echo "$page"
done <"$tests_dir/pages" | none 'stale (meson compile -C build docs)'
ours '^(man/evbus-.*\.1|completions/_?evbus.*)$' | sort | comm -23 - "$tests_dir/pages" | none 'of no command'

t 'the manual is clean'
pages=$(ours '^man/.*\.[1-8]$')
expect_true 'there are manual pages' test -n "$pages"
if command -v mandoc >/dev/null; then
	# A reference to one of our own pages is judged by whether that page is here.
	xargs mandoc -T lint -W style <<<"$pages" 2>/dev/null | while read -r finding; do
		case $finding in
		*'referenced manual not found: Xr '*)
			read -r name section _ <<<"${finding##*Xr }"
			[[ $name != evbus* && $name != libevbus* ]] || [ -f "man/$name.$section" ] || echo "$finding"
			;;
		*) echo "$finding" ;;
		esac
	done | none 'mandoc -T lint'
else
	skip 'no mandoc here'
fi

t 'the sample events are what they are said to be'
expect_equal "$(wc -l <tests/data/events.jsonl)" 216 'events.jsonl'
expect_equal "$(wc -l <tests/data/awkward.jsonl)" 86 'awkward.jsonl'
expect_equal "$(LC_ALL=C wc -l <tests/data/bad.jsonl)" "$(wc -l <tests/data/bad.txt)" 'bad.jsonl against bad.txt'
expect_true 'each line is an object without blanks around it' sh -c '! grep -avq "^{.*}$" tests/data/events.jsonl tests/data/awkward.jsonl'

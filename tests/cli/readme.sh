#!/usr/bin/env bash
# The tour of the README, run as it is printed. Times, ids and checksums are different each time.
. "${0%/*}/lib.sh"
plan 1

# The lines of the block: "$ COMMAND", and what it prints on both streams.
tour=$(sed -n '/^```console$/,/^```$/ { /^```/d; p; }' "$ROOT/README.md")

masked() {
	sed -E 's/[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{15}Z/TIME/g; s/"crc32c":"[0-9a-f]{8}"/CRC/g; s/\b[0-9a-f]{32}\b/ID/g; s/ +[0-9]+s  / AGE  /g'
}
run_tour() {
	local line
	while IFS= read -r line; do
		case $line in
		'$ '*)
			printf '%s\n' "$line"
			bash -c "${line#'$ '}" 2>&1
			;;
		esac
	done <<<"$tour"
}

t 'the tour of the README prints what it shows'
run_tour | masked >"$tests_dir/is"
printf '%s\n' "$tour" | masked >"$tests_dir/wanted"
ok
[ -s "$tests_dir/is" ] || fail 'there is no tour'
diff -u "$tests_dir/wanted" "$tests_dir/is" >"$tests_dir/diff" || fail "$(cat "$tests_dir/diff")"

#!/usr/bin/env bash
# Every example that help and the manual show: it runs, ends with 0 and prints what is shown. Those of one command run in
# turn in one empty directory; … stands for any text.
. "${0%/*}/lib.sh"

examples=$tests_dir/examples
evbus doc examples >"$examples" || exit 1
plan $(($(wc -l <"$examples") + 1))

t 'there are examples'
expect_true 'there are' test -s "$examples"

previous=
while IFS=$'\t' read -r command run prints <&3; do
	printf -v run %b "$run"
	printf -v prints %b "$prints"
	t "$command: $run"
	[ "$command" = "$previous" ] || fresh
	previous=$command
	expect_status 0 sh -c "$run" </dev/null
	for special in $'\\' '*' '?' '['; do
		prints=${prints//"$special"/"\\$special"}
	done
	expect_out_like "${prints//…/*}"
done 3<"$examples"

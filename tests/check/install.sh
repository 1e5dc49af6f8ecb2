#!/usr/bin/env bash
# What is installed is whole, and works from where it was put.
. "${0%/*}/../cli/lib.sh"
plan 6

build=${EVBUS_TEST_BUILD:-$ROOT/build}
read -ra cc <<<"${EVBUS_TEST_CC:-cc}"
read -ra cflags <<<"${EVBUS_TEST_CFLAGS:-}"
stage=$tests_dir/stage

t 'it installs below DESTDIR'
expect_status 0 env DESTDIR="$stage" meson install -C "$build" --no-rebuild --quiet
find "$stage" ! -type d -printf '/%P\n' | sort >"$tests_dir/installed"
expect_true 'files are there' test -s "$tests_dir/installed"

# The one installed file whose path ends so.
installed() {
	local path
	path=$(grep -E -e "$1\$" "$tests_dir/installed")
	expect_equal "$(wc -l <<<"$path")" 1 "files that end with $1"
	[ -z "$path" ] || echo "$stage$path"
}

t 'the program runs'
program=$(installed '/bin/evbus')
expect_status 0 "$program" version
expect_out "$(evbus version)"

t 'publishing and a checkpoint work, so the store is found'
fresh
echo '{"id":"1"}' | expect_status 0 "$program" publish -t orders
expect_status 0 "$program" checkpoint-set -g readers -t orders -o 1

t 'every command is a link to the program'
"$program" doc commands >"$tests_dir/commands"
expect_true 'there are commands' test -s "$tests_dir/commands"
while read -r command; do
	expect_true "evbus-$command is a link to evbus" test "$(readlink "$(installed "/bin/evbus-$command")")" = evbus
done <"$tests_dir/commands"
expect_status 0 "${program%/*}/evbus-topic-list" --format json
expect_out_has '"topic":"orders"'

t 'the manual and the completions are there'
for page in man1/evbus.1 man7/evbus.7 man5/evbus-log.5 man3/libevbus.3; do
	expect_true "$page" test -s "$(installed "/man/$page")"
done
while read -r command; do
	expect_true "evbus-$command(1)" test -s "$(installed "/man/man1/evbus-$command.1")"
done <"$tests_dir/commands"
for completion in bash-completion/completions/evbus zsh/site-functions/_evbus fish/vendor_completions.d/evbus.fish; do
	expect_true "$completion" test -s "$(installed "/$completion")"
done

t 'a program is compiled against what pkg-config says, links with it, and finds the store'
fresh
echo '{"id":"1"}' | expect_status 0 "$program" publish -t orders
cat >hello.c <<'END'
#include <evbus.h>
int main(void)
{
	struct evbus_err err;
	struct evbus_checkpoint before, after;
	struct evbus *bus = 0;
	int failed = evbus_open("event_bus", 0, &bus, &err) ||
		evbus_checkpoint_set(bus, "readers", "orders", 0, "1", 0, &before, &after, &err);
	evbus_close(bus);
	return failed || evbus_version()[0] != EVBUS_TEST;
}
END
pc=$(installed '/pkgconfig/evbus.pc')
export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$stage
# shellcheck disable=SC2046 # flags
expect_status 0 "${cc[@]}" "${cflags[@]}" -DEVBUS_TEST="'$("$program" version | cut -d " " -f 2 | head -c 1)'" hello.c $(pkg-config --cflags --libs evbus)
unset PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
library=$(installed '/libevbus.so')
expect_status 0 env LD_LIBRARY_PATH="${library%/*}" ./a.out
expect_status 0 "$program" checkpoint-get -g readers -t orders --format json
expect_out_has '"next_offset":"1"'

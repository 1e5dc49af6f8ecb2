#!/usr/bin/env bash
# version, help, and what is said to words that are no command.
. "${0%/*}/lib.sh"
plan 10

version=$(sed -n "s/.*version: '\([0-9.]*\)'.*/\1/p" "$ROOT/meson.build" | head -n 1)

t 'version prints the name and the number, the backends and the stores'
expect_status 0 evbus version
expect_equal "$(head -n 1 "$OUT")" "evbus $version"
expect_out_like '*
backends: file memory*
stores: *'
expect_lines 3
expect_err ''

t 'a module that lies there is a backend or a store, in JSON too'
prefix=$PWD/prefix
mkdir -p "$prefix/bin" "$prefix/lib"
cp "$EVBUS" "$prefix/bin/evbus"
: >"$prefix/lib/libevbus-kafka.so"
: >"$prefix/lib/libevbus-postgres.so"
expect_status 0 "$prefix/bin/evbus" version
expect_equal "$(tail -n 2 "$OUT")" 'backends: file memory kafka; not installed: nats kinesis amqp
stores: postgres; not installed: sqlite'
expect_status 0 "$prefix/bin/evbus" version --format json
expect_equal "$(jq -r '.version, ([.backends, .stores] | map([.[] | select(.installed).name] | join(" ")) | .[])' "$OUT")" "$version
file memory kafka
postgres"
expect_equal "$(jq -r '(.backends + .stores)[] | .name' "$OUT" | paste -sd' ')" 'file memory nats kafka kinesis amqp sqlite postgres' names

t 'the option and the command print the same'
evbus version >by-command
expect_status 0 evbus --version
expect_same "$OUT" by-command

t 'help names every command of the design'
expect_status 0 evbus help
for command in publish tail replay checkpoint-list checkpoint-get checkpoint-set checkpoint-remove \
	topic-list topic-create topic-describe verify help version completion; do
	expect_out_has "$command"
done
expect_err ''

t 'help of a command has its options'
expect_status 0 evbus help publish
expect_out_has '--topic'
expect_out_has '--expect-offset'

t 'the option and the command give the same help'
evbus help publish >by-command
expect_status 0 evbus publish --help
expect_same "$OUT" by-command

t 'help of a word that is no command is a usage error'
expect_status 64 evbus help nonsense
expect_out ''
expect_err_has "'nonsense'"

t 'a word that is no command is a usage error in one line'
expect_status 64 evbus nonsense
expect_out ''
expect_err_has "'nonsense'"
expect_equal "$(wc -l <"$ERR")" 1 'lines of stderr'

t 'no command at all is a usage error that says where help is'
expect_status 64 evbus
expect_out ''
expect_err_has 'evbus help'

t 'a full disk under stdout is not a success'
if [ -c /dev/full ]; then
	expect_status 74 sh -c 'evbus version >/dev/full'
else
	skip 'no /dev/full here'
fi

#!/usr/bin/env bash
# The configuration: where it is found, what it may say, what beats what, and evbus config.
. "${0%/*}/lib.sh"
plan 26

if ! ls "${EVBUS_TEST_BUILD:-${EVBUS%/cmd/*}}"/lib/libevbus-yaml.so >/dev/null 2>&1; then
	for i in $(seq 25); do t "case $i" && skip 'built without libyaml'; done
	exit 0
fi

# write [FILE]: stdin is the configuration; nobody but us may write it, whatever the umask.
write() {
	mkdir -p "$(dirname "${1:-evbus.yaml}")"
	cat >"${1:-evbus.yaml}"
	chmod 644 "${1:-evbus.yaml}"
}
# in_force SETTING [OPTION...]: its value and where that comes from.
in_force() {
	evbus config --format tsv "${@:2}" | sed -n "s/^$1\t//p" | tr '\t' ' '
}
# wrong LINE:COLUMN TEXT: stdin is refused there, with TEXT in the message, and nothing is done.
wrong() {
	write
	echo '{"id":"1"}' | expect_status 78 evbus publish -t orders
	expect_out ''
	expect_err_has "evbus publish: evbus.yaml:$1: "
	expect_err_has "$2"
	expect_equal "$(wc -l <"$ERR")" 1 'lines of stderr'
	expect_true 'nothing was made' test ! -e event_bus
}

# ---- where it is found -------------------------------------------------------------------------------------------

t 'without a configuration all is as declared'
expect_status 0 evbus config --format tsv
expect_out_has $'bus\tfile:event_bus\tdefault'
expect_out_has $'store\t\\N\tdefault'
expect_out_has $'config\t\\N\tdefault'
expect_status 66 evbus config --path
expect_out ''

t 'the first that is there is read: the working directory, the home of configurations, no other'
echo 'bus: file:of-home' | write "$HOME/.config/evbus/config.yaml"
expect_equal "$(in_force bus)" "file:of-home $HOME/.config/evbus/config.yaml:1"
export XDG_CONFIG_HOME=$PWD/xdg
expect_equal "$(in_force bus)" 'file:event_bus default'
echo 'bus: file:of-xdg' | write xdg/evbus/config.yaml
expect_equal "$(in_force bus)" "file:of-xdg $PWD/xdg/evbus/config.yaml:1"
expect_equal "$(XDG_CONFIG_HOME=xdg in_force bus)" "file:of-home $HOME/.config/evbus/config.yaml:1" 'a relative one'
echo 'store: sqlite:here.db' | write
expect_equal "$(in_force bus)" 'file:event_bus default' 'one file only'
expect_equal "$(in_force config)" 'evbus.yaml found'
expect_status 0 evbus config --path
expect_out evbus.yaml
rm -r xdg "$HOME/.config"
unset XDG_CONFIG_HOME
expect_status 0 env -u HOME evbus config --path

t 'one that is named is read, /dev/null is none, and one that is not there is 78'
echo 'bus: file:named' | write named.yaml
expect_equal "$(in_force bus --config named.yaml)" 'file:named named.yaml:1'
expect_equal "$(in_force config --config named.yaml)" 'named.yaml option --config'
expect_equal "$(EVBUS_CONFIG=named.yaml in_force bus)" 'file:named named.yaml:1'
expect_equal "$(EVBUS_CONFIG=named.yaml in_force config)" 'named.yaml variable EVBUS_CONFIG'
expect_equal "$(EVBUS_CONFIG=named.yaml in_force bus --config /dev/null)" 'file:event_bus default'
expect_status 66 evbus config --path --config /dev/null
expect_status 78 evbus config --config nowhere.yaml
expect_err_has "there is no configuration 'nowhere.yaml'"
expect_status 78 evbus config --config named.yaml/x
expect_status 78 env EVBUS_CONFIG=nowhere.yaml evbus topic-list
expect_status 78 evbus config --config ''
expect_err_has /dev/null
rm evbus.yaml

t 'what only prints reads none, and help is there for who has a broken one'
echo '}' | write
expect_status 0 evbus version
expect_status 0 evbus help
expect_status 0 evbus publish --help
expect_status 64 evbus version --config x
expect_status 78 evbus topic-list
expect_status 64 evbus topic-list --nonsense
expect_err_has "unknown option '--nonsense'"
rm evbus.yaml

t 'every command that has a bus reads one'
evbus doc commands | while read -r command; do
	evbus help "$command" | grep -q -- '--bus' || continue
	expect_status 0 evbus help "$command"
	expect_out_has '--config FILE'
	expect_out_has '--profile NAME'
done

t 'only a regular file of at most 1 MiB that not everybody may write is read'
mkdir evbus.yaml
expect_status 78 evbus topic-list
expect_err_has 'not a regular file'
rmdir evbus.yaml
mkfifo evbus.yaml
expect_status 78 timeout 5 evbus topic-list
expect_err_has 'not a regular file'
rm evbus.yaml
echo 'bus: file:x' | write
chmod o+w evbus.yaml
expect_status 78 evbus topic-list
expect_err_has 'everybody'
expect_status 78 evbus topic-list --config evbus.yaml
chmod o-w evbus.yaml
expect_status 0 evbus config
head -c 1048577 /dev/zero | tr '\0' '#' | write
expect_status 78 evbus topic-list
expect_err_has '1 MiB'
head -c 1048576 /dev/zero | tr '\0' '#' | write
expect_status 0 evbus config
echo 'bus: file:linked' | write named.yaml
ln -sf named.yaml evbus.yaml
expect_equal "$(in_force bus)" 'file:linked evbus.yaml:1'
rm evbus.yaml

t "another user's is only read where it is named"
echo 'bus: file:x' | write
if [ "$(id -u)" != 0 ]; then
	skip 'only root can give files away'
else
	chown 4711 evbus.yaml
	expect_status 78 evbus topic-list
	expect_err_has 'belongs to another user'
	expect_status 0 evbus config --config evbus.yaml
fi
rm -f evbus.yaml

t 'one that may not be read is 77, and the next one is not taken instead; one that is out of reach is none'
open=$(mktemp -d "${TMPDIR:-/tmp}/evbus-test.XXXXXX")
chmod 755 "$open"
other=()
[ "$(id -u)" != 0 ] || other=(setpriv --reuid 65534 --clear-groups)
if ! (cd "$open" && "${other[@]}" env "$EVBUS" version) >/dev/null 2>&1; then
	skip 'there is no other user to be'
else
	here=$PWD
	cd "$open" || exit 1
	mkdir -m 755 evbus
	echo 'bus: file:x' >evbus/config.yaml
	chmod 000 evbus/config.yaml
	expect_status 77 "${other[@]}" env XDG_CONFIG_HOME="$open" "$EVBUS" topic-list
	expect_err_has "cannot open the configuration '$open/evbus/config.yaml'"
	chmod 000 evbus
	expect_status 66 "${other[@]}" env XDG_CONFIG_HOME="$open" "$EVBUS" config --path
	expect_status 77 "${other[@]}" "$EVBUS" topic-list --config evbus/config.yaml
	chmod 755 evbus
	cd "$here" || exit 1
fi
rm -rf "$open"

# ---- what beats what ---------------------------------------------------------------------------------------------

t 'option, variable, profile, top level, default'
fresh
write <<'YAML'
bus: file:top
store: sqlite:top.db
max-payload: 2K
profiles:
  dev:
    bus: file:dev
    log: json
  prod: {store: "sqlite:prod.db"}
  local:
YAML
expect_equal "$(in_force bus)" 'file:top evbus.yaml:1'
expect_equal "$(in_force bus --profile dev)" 'file:dev evbus.yaml:6, profile dev'
expect_equal "$(EVBUS_PROFILE=dev in_force bus)" 'file:dev evbus.yaml:6, profile dev'
expect_equal "$(EVBUS_PROFILE=dev in_force bus --profile prod)" 'file:top evbus.yaml:1'
expect_equal "$(EVBUS_PROFILE=dev in_force profile)" 'dev variable EVBUS_PROFILE'
expect_equal "$(EVBUS_BUS=file:var in_force bus --profile dev)" 'file:var variable EVBUS_BUS'
expect_equal "$(EVBUS_BUS=file:var in_force bus --profile dev -b file:opt)" 'file:opt option --bus'
expect_equal "$(EVBUS_BUS='' in_force bus)" 'file:top evbus.yaml:1' 'an empty variable'
expect_equal "$(in_force store --profile prod)" 'sqlite:prod.db evbus.yaml:8, profile prod'
expect_equal "$(in_force store --profile dev)" 'sqlite:top.db evbus.yaml:2'
expect_equal "$(in_force bus --profile local)" 'file:top evbus.yaml:1'
expect_equal "$(in_force log)" 'text default'
expect_equal "$(in_force log --profile dev)" 'json evbus.yaml:7, profile dev'

t 'it is what commands go by'
echo '{"id":"1"}' | expect_status 0 evbus publish -t orders
expect_true 'the bus of the top level' test -d top/orders
echo '{"id":"2"}' | expect_status 0 evbus publish -t orders --profile dev
expect_true 'the bus of the profile' test -d dev/orders
expect_err_has '"message":"made the bus'
head -c 3000 /dev/zero | tr '\0' ' ' | sed 's/.*/{"id":"&"}/' | expect_status 65 evbus publish -t orders
expect_err_has '2048'
expect_status 0 evbus checkpoint-set -q -g readers -t orders -o 1
expect_true 'the store' test -s top.db

t 'a profile that is not there is 78, also where there is no configuration'
expect_status 78 evbus topic-list --profile staging
expect_err_has "no profile 'staging'"
expect_status 78 env EVBUS_PROFILE=staging evbus topic-list
expect_status 78 evbus topic-list --profile dev --config /dev/null
expect_err_has "no profile 'dev'"
for profiles in dev '[dev]' '[dev, {}]' '{[dev]: {}}' '{dev: []}' '{dev: x}'; do
	write <<<"profiles: $profiles"
	expect_status 78 evbus topic-list --profile dev
	expect_err_has 'evbus.yaml:1:1'
done

t "in a platform's file only what stands under evbus counts"
write <<'YAML'
defaults: &defaults {a: [1, 2], <<: {b: !custom c}}
bus: {not: ours}
service: *defaults
? [odd, key]
: !!int 5
evbus:
  bus: file:ours
  profiles: {dev: {bus: 'file:dev'}}
bus: twice
YAML
expect_equal "$(in_force bus)" 'file:ours evbus.yaml:7'
expect_equal "$(in_force bus --profile dev)" 'file:dev evbus.yaml:8, profile dev'
echo 'evbus:' | write
expect_equal "$(in_force bus)" 'file:event_bus default'
wrong 3:6 'unknown key' <<'YAML'
other: 1
evbus: {
     buss: file:x}
YAML
wrong 1:8 "'evbus' is a text, and should be a map" <<<'evbus: file:x'
wrong 3:1 'twice' <<<$'evbus:\nother:\nevbus:'

t 'JSON is read, and so is a file of comments or nothing, or with a byte order mark'
printf '{\n\t"bus": "file:js\\u006fn",\n\t"profiles": {"dev": {}}\n}\n' | write
expect_equal "$(in_force bus)" 'file:json evbus.yaml:2'
echo '# nothing' | write
expect_equal "$(in_force bus)" 'file:event_bus default'
: | write
expect_equal "$(in_force bus)" 'file:event_bus default'
printf '\357\273\277bus: file:bom\r\n' | write
expect_equal "$(in_force bus)" 'file:bom evbus.yaml:1'

t 'event_bus_kind and event_bus_root are the longer way to say which bus'
fresh
write <<'YAML'
event_bus_kind: file
event-bus-root: /var/lib/events
event_bus_address: one:4222,two:4222?timeout=5s
profiles:
  kind: {event_bus_kind: file}
  root: {event_bus_root: ./mine}
  url: {bus: "file:url"}
  nats: {event_bus_kind: nats}
  kafka: {event_bus_kind: kafka, event_bus_address: "three:9092"}
  address: {event_bus_address: "four:1"}
YAML
expect_equal "$(in_force bus)" 'file:/var/lib/events evbus.yaml:2'
expect_equal "$(in_force bus --profile kind)" 'file:/var/lib/events evbus.yaml:5, profile kind'
expect_equal "$(in_force bus --profile root)" 'file:./mine evbus.yaml:6, profile root'
expect_equal "$(in_force bus --profile url)" 'file:url evbus.yaml:7, profile url'
expect_equal "$(in_force bus --profile nats)" 'nats://one:4222,two:4222?timeout=5s evbus.yaml:8, profile nats'
expect_equal "$(in_force bus --profile kafka)" 'kafka://three:9092 evbus.yaml:9, profile kafka'
expect_equal "$(in_force bus --profile address)" 'file:/var/lib/events evbus.yaml:2'
echo 'event_bus_kind: memory' | write
expect_equal "$(in_force bus)" 'memory: evbus.yaml:1'
echo 'event_bus_address: nowhere:1' | write
expect_equal "$(in_force bus)" 'file:event_bus default'
wrong 1:17 "'event_bus_kind: nats' needs 'event_bus_address: HOST:PORT'" <<<'event_bus_kind: nats'
wrong 2:1 "both 'bus' and 'event_bus_address'" <<<$'bus: file:x\nevent_bus_address: y:1'
echo 'event_bus_kind: file' | write
expect_equal "$(in_force bus)" 'file:event_bus evbus.yaml:1'
wrong 1:17 'not one of file|memory|nats|kafka|kinesis' <<<'event_bus_kind: pulsar'
for kind in amqp amqps rabbitmq; do
	wrong 3:29 "'event_bus_kind': RabbitMQ is a target, which cannot be read, and no kind of bus: give amqp://HOST to --to-bus, or" \
		<<<$'bus: amqp://h\nprofiles:\n  forward: {event_bus_kind: '"$kind}"
done
wrong 2:1 "both 'bus' and 'event_bus_root'" <<<$'bus: file:x\nevent_bus_root: y'

# ---- what cannot be ----------------------------------------------------------------------------------------------

t 'an unknown key is an error at its place, with what was probably meant'
fresh
wrong 2:1 "unknown key 'stroe'; did you mean 'store'?" <<<$'bus: file:x\nstroe: sqlite:x'
wrong 1:1 "did you mean 'max_payload'?" <<<'max-paylod: 1'
wrong 1:1 "did you mean 'retry_max'?" <<<'retrymax: 3'
wrong 1:1 "did you mean 'partitionings'?" <<<'partitioning: {}'
wrong 1:1 "unknown key 'topic'" <<<'topic: orders'
wrong 1:1 "unknown key 'config'" <<<'config: other.yaml'
wrong 3:5 "did you mean 'bus'?" <<<$'profiles:\n  dev:\n    buss: file:x'
wrong 1:18 "did you mean 'url'?" <<<'outboxes: {crm: {uri: x}}'
wrong 1:27 "did you mean 'topics'?" <<<'partitionings: {traffic: {topic: x}}'
wrong 3:3 'not merged' <<<$'profiles:\n dev:\n  <<: {bus: x}'

t 'what is of the wrong shape, or there twice, is an error at its place'
wrong 1:6 "'bus' is a map, and should be a text" <<<'bus: {a: b}'
wrong 1:6 "'bus' is a list" <<<'bus: [a]'
wrong 1:5 "'bus' has no value" <<<'bus:'
wrong 1:6 "'bus' has no value" <<<'bus: ~'
wrong 1:8 "'store' has no value" <<<'store: null'
wrong 1:6 "'bus' is empty" <<<'bus: ""'
wrong 1:11 "'profiles' is a text" <<<'profiles: dev'
wrong 1:17 "'dev' is a list" <<<'profiles: {dev: []}'
wrong 2:1 "stands here twice, first in line 1" <<<$'bus: file:a\nbus: file:b'
wrong 2:1 "stands here twice" <<<$'max-payload: 1K\nmax_payload: 2K'
wrong 1:18 'a profile has no profiles' <<<'profiles: {dev: {profiles: {}}}'
wrong 1:1 'should be a map' <<<'- bus'
wrong 1:1 'should be a map' <<<'bus'
wrong 1:1 'a key is a text' <<<'[bus]: x'
wrong 2:8 'aliases are not followed' <<<$'bus: &a file:x\nstore: *a'
wrong 1:6 'tags are not read' <<<'bus: !!str file:x'
wrong 2:1 'second document' <<<$'bus: file:x\n---\nbus: file:y'
wrong 1:12 'letters, digits' <<<'profiles: {"a b": {}}'
wrong 1:6 'NUL' <<<'bus: "a\0b"'

t 'what is not YAML is an error at its place'
wrong 2:1 'not YAML' <<<$'bus: [a\n}'
wrong 2:9 'not YAML' <<<$'bus: file:x\nstore: a: b'
wrong 2:9 'not YAML' < <(printf 'bus: file:x\nstore: "\377"\n')
wrong 1:1 'not YAML' < <(printf '\376\377\0b\0u\0s')

t 'a value is checked as the option is, and its place is told'
for value in 0x10 1e3 '~x' no 12:30 -1 '"1 K"'; do
	write <<<"max_payload: $value"
	echo '{"id":"1"}' | expect_status 78 evbus publish -t orders
	expect_err_has "evbus.yaml:1:14: 'max-payload': '"
	expect_err_has 'is not a SIZE'
	expect_status 0 evbus config --path
	expect_status 78 evbus config
	expect_out_has max-payload
	expect_err_has 'evbus.yaml:1:14'
done
write <<<'max_payload: 0777'
echo '{"id":"1"}' | expect_status 0 evbus publish -q -t orders
expect_equal "$(in_force max-payload)" '0777 evbus.yaml:1'
write <<<'log: yes'
expect_status 78 evbus topic-list
expect_err_has "evbus.yaml:1:6: 'log': 'yes' is not one of text|json"
expect_status 64 evbus topic-list --nonsense
expect_err_has nonsense
expect_equal "$(wc -l <"$ERR")" 1 'lines of stderr'

t 'a setting of other commands is not in the way, and evbus config checks it'
write <<<'retry-max: 0x10'
expect_status 0 evbus topic-list
expect_status 78 evbus outbox-drain --dry-run
expect_err_has "evbus.yaml:1:12: 'retry-max': '0x10' is not a number"
expect_status 78 evbus config
expect_err_has "evbus.yaml:1:12: 'retry-max': '0x10' is not a number"
write <<<'retry_max: 7'
expect_equal "$(RETRY_MAX=9 in_force retry-max)" '9 variable RETRY_MAX'
expect_equal "$(in_force retry-max)" '7 evbus.yaml:1'
rm evbus.yaml

# ---- partitionings -----------------------------------------------------------------------------------------------

t 'a partitioning chooses where nothing else does'
fresh
write <<'YAML'
partitionings:
  traffic: {topics: ["fp.bus.traffic.>", orders], key_from: [/merchant_id, /event_id]}
  rest: {topics: "*", key_from: "/a~1b,/id"}
profiles:
  dev:
    partitionings: {traffic: {topics: [orders], key_from: /other}}
YAML
for topic in orders fp.bus.traffic.eu other; do evbus topic-create -q $topic --partitions 8 >/dev/null; done
# key TOPIC EVENT [OPTION...]
key() {
	echo "$2" | evbus publish -t "$1" --format '{partition_key}\n' "${@:3}"
}
expect_equal "$(key orders '{"merchant_id":"m","event_id":"e"}')" m
expect_equal "$(key orders '{"event_id":"e"}')" e
expect_equal "$(key fp.bus.traffic.eu '{"event_id":"e"}')" e
expect_equal "$(key other '{"event_id":"e","id":7,"a/b":"x"}')" x
expect_equal "$(key orders '{"merchant_id":"m","other":"o"}' --profile dev)" o
expect_equal "$(key orders '{"merchant_id":"m"}' -k mine)" mine
expect_equal "$(key orders '{"merchant_id":"m","x":"y"}' --key-from /x)" y
expect_equal "$(key orders '{"merchant_id":"m"}' -p 3)" ''
echo '{"none":1}' | expect_status 64 evbus publish -t orders
expect_err_has '8 partitions'
evbus topic-create -q single >/dev/null
expect_equal "$(key single '{"none":1}')" '' 'one partition needs none'
expect_equal "$(key single '{"id":1}')" 1

t '--partitioning names one'
expect_equal "$(key other '{"merchant_id":"m","id":"i"}' --partitioning traffic)" m
echo '{"none":1}' | expect_status 65 evbus publish -t single --partitioning traffic
echo '{"id":"1"}' | expect_status 78 evbus publish -t orders --partitioning nothing
expect_err_has "no partitioning 'nothing'"
echo '{"id":"1"}' | expect_status 78 evbus publish -t orders --partitioning x --config /dev/null
for other in '-k k' '--key-from /k' '-p 1'; do
	# shellcheck disable=SC2086 # several words
	echo '{"id":"1"}' | expect_status 64 evbus publish -t orders --partitioning traffic $other
done
fresh
wrong 1:17 "lacks 'topics'" <<<'partitionings: {a: {key_from: /x}}'
wrong 1:17 "lacks 'key_from'" <<<'partitionings: {a: {topics: x}}'
wrong 1:29 "'topics' is empty" <<<'partitionings: {a: {topics: []}}'
wrong 1:33 'empty token' <<<'partitionings: {a: {topics: [x, y..z], key_from: /x}}'
wrong 1:42 'JSON pointers' <<<'partitionings: {a: {topics: x, key_from: x}}'
wrong 1:30 "'topics' is a map" <<<'partitionings: {a: {topics: [{}], key_from: /x}}'

# ---- outboxes, secrets -------------------------------------------------------------------------------------------

t 'outboxes have names, and what is theirs is checked'
fresh
write <<'YAML'
outboxes:
  crm:
    url: sqlite:app.db
    map: {payload: body, topic: "crm.{type}", state.SENT: COMPLETED}
    wrap: true
  own:
  text: {map: "payload=body,topic='x.{type}'"}
profiles: {dev: {outboxes: {crm: {url: "sqlite:dev.db"}}}}
YAML
expect_equal "$(in_force outboxes.crm.url)" 'sqlite:app.db evbus.yaml:2'
expect_equal "$(in_force outboxes.crm.map)" "payload=body,topic='crm.{type}',state.SENT=COMPLETED evbus.yaml:2"
expect_equal "$(in_force outboxes.crm.wrap)" 'true evbus.yaml:2'
expect_equal "$(in_force outboxes.crm.url --profile dev)" 'sqlite:dev.db evbus.yaml:8, profile dev'
expect_equal "$(in_force outboxes.crm.map --profile dev)" '\N evbus.yaml:8, profile dev'
expect_equal "$(in_force outboxes.own.url)" '\N evbus.yaml:6'
expect_equal "$(in_force outboxes.text.map)" "payload=body,topic='x.{type}' evbus.yaml:7"
wrong 1:24 "'wrap': 'yes' is not one of true|false" <<<'outboxes: {crm: {wrap: yes}}'
wrong 1:12 'letters, digits' <<<'outboxes: {"a:b": {}}'
wrong 1:30 "'body' is a list" <<<'outboxes: {crm: {map: {body: []}}}'
wrong 1:24 'no name of a column' <<<'outboxes: {crm: {map: {"a,b": c}}}'
wrong 1:31 'quote' <<<$'outboxes: {crm: {map: {topic: "it\'s"}}}'

t '--outbox takes a name, and what was given with it beats what stands there'
fresh
write <<'YAML'
outbox: crm
outboxes:
  crm: {url: "sqlite:app.db", map: {table: events, payload: body}, wrap: true}
  bad: {url: "sqlite:app.db", map: {nothing: x}}
  own:
YAML
echo '{"id":"1"}' | evbus publish -q -t orders
expect_status 0 evbus outbox-init -q
expect_true 'the database is made' test -s app.db
expect_status 0 evbus outbox-init --outbox crm
expect_out_has events
expect_out_has body
echo '{"id":"1","type":"t"}' | expect_status 0 evbus outbox-add -t orders --id o-1 --type made
expect_status 0 evbus outbox-list --outbox crm --counts --format json
expect_out_has '{"outbox":"crm","pending":1,'
expect_status 0 evbus outbox-drain --format payload
expect_out_like '{*"o-1"*"made"*:{"id":"1","type":"t"}}'
expect_status 0 evbus outbox-init -q --map table=others
expect_status 0 evbus outbox-list --map table=others --counts --format json
expect_out_has '"pending":0,"processing":0,"sent":0'
expect_status 64 evbus outbox-list --outbox bad
expect_err_has "evbus.yaml:4:3: outbox 'bad': "
expect_status 0 evbus outbox-init -q --outbox own
expect_status 0 evbus outbox-list --outbox own --counts --format json
expect_out_has '{"outbox":"own","pending":0'
expect_status 66 evbus outbox-list --outbox ./crm

t 'passwords are not shown'
write <<'YAML'
bus: file:x
store: "postgres://app:pa/s:s@word@db/app?sslpassword=hidden&x=1"
outboxes: {a: {url: "postgres://token@db/app"}, b: {url: "host=db password=hidden user=u"}}
YAML
expect_equal "$(in_force store)" 'postgres://app:***@db/app?sslpassword=***&x=1 evbus.yaml:2'
expect_equal "$(in_force outboxes.a.url)" 'postgres://***@db/app evbus.yaml:3'
expect_equal "$(in_force outboxes.b.url)" 'host=db password=*** user=u evbus.yaml:3'
write <<'YAML'
store: "kafka://h:1?sasl.password=hid;den hidden&x=1"
outboxes: {a: {url: "host=db password='hid den\\' hidden' user=u"}, b: {url: "amqp://u:hid/d?e#n@hidden@h/v"}, c: {url: "x://h?Secret=hidden"}}
YAML
expect_equal "$(in_force store)" 'kafka://h:1?sasl.password=***&x=1 evbus.yaml:1'
expect_equal "$(in_force outboxes.a.url)" 'host=db password=*** user=u evbus.yaml:2'
expect_equal "$(in_force outboxes.b.url)" 'amqp://u:***@h/v evbus.yaml:2'
expect_equal "$(in_force outboxes.c.url)" 'x://h?Secret=*** evbus.yaml:2'
expect_status 0 evbus config --format json -b 'nats://u:hidden@h'
expect_out_has '{"setting":"bus","value":"nats://u:***@h","origin":"option --bus"}'
EVBUS_STORE='x://u:hidden@h' expect_status 0 evbus config
expect_true 'nothing of them' sh -c "! grep -q 'hidden\|pa/s\|token' $OUT"

t 'options of a bus on servers are put into its URL'
: | write
shown() { evbus config --format json "$@" | jq -r 'select(.setting == "bus").value'; }
expect_status 0 evbus config --format json -b nats://h -X timeout=5s --bus-option 'a b=c&%'
expect_equal "$(shown -b nats://h -X timeout=5s --bus-option 'a b=c&%')" 'nats://h?timeout=5s&a%20b=c%26%25'
expect_equal "$(shown -b 'nats://h?x=1' -X 'sasl.password=hidden')" 'nats://h?x=1&sasl.password=***'
expect_equal "$(shown -b memory: -X bytes=4194304)" 'memory:?bytes=4194304'
expect_status 64 evbus topic-list -b file:x -X a=b
expect_err_has "the bus 'file:x' is files, and has no options"
expect_status 64 evbus topic-list -b ./a:b -X a=b
expect_status 64 evbus topic-list -b nats://h -X a
expect_err_has "'a' is not NAME=VALUE"
expect_status 64 evbus topic-list -b nats://h -X =a

t 'the example of the manual is one'
sed -n '/^\.Bd/,/^\.Ed/{/^\./!p}' "$ROOT/man/evbus-config.5" | write
expect_status 0 evbus config --profile prod
expect_out_has 'file:/var/lib/evbus'
expect_out_has 'partitionings.traffic.key_from'

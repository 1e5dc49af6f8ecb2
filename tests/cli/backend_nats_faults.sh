#!/usr/bin/env bash
# NATS when servers are not there, do not let us in, die, stop, and come back, and when the network loses things.
. "${0%/*}/lib.sh"
. "$ROOT/tests/servers/lib.sh"
plan 16
url_options=timeout=5s

events() { # FIRST LAST
	seq "$1" "$2" | sed 's/.*/{"id":"&"}/'
}
ids() { # TOPIC
	evbus tail -t "$1" -o beginning --format '{event_id}\n'
}
# through OPTIONS: the bus, by way of the proxy
through() {
	printf 'nats://127.0.0.1:%s?prefix=%s&%s' "$net" "$prefix" "$1"
}
# Receipts in the file `receipts`, of the events 1, 2, ... in their order, say where they stand: so they do in the log.
expect_receipts_hold() {
	evbus tail -t t -o beginning --format '{offset} {event_id}\n' >log
	jq -r .offset receipts | awk '{ print $1, NR }' >wanted
	sort wanted >w && sort log >l
	expect_equal "$(comm -23 w l | wc -l)" 0 'receipts that do not hold'
}
# Each event is there, first in its order, and again only if more was not known: at most so many times in all.
expect_order() { # OF REPEATS
	cut -d ' ' -f 2 log | awk '!seen[$0]++' >firsts
	expect_same firsts <(seq 1 "$1")
	expect_true 'few repeats' test $(($(wc -l <log) - $1)) -le "$2"
}

t 'there is a server, a proxy, and the module'
must_serve nats broker server nats
url=$ANSWER
expect_true 'a proxy' serve net proxy "${url##*:}"
net=$ANSWER

# ---- who is not let in ---------------------------------------------------------------------------------------------

t 'a server that is not there is told at once'
begin
tell net refuse
within 3 expect_status 69 evbus topic-list -b "$(through timeout=2s)"
expect_err_has "nats://127.0.0.1:$net"
within 3 expect_status 69 evbus publish -t t -b "$(through timeout=2s)" <<<'{}'
expect_out ''
within 3 expect_status 69 evbus consume -t t -g g -b "$(through timeout=2s)" -- cat
tell net pass

t 'a server that does not answer is waited for no longer than asked'
begin
tell net silent
within 4 expect_status 69 evbus topic-list -b "$(through timeout=1s)"
tell net pass
tell net hole down
within 4 expect_status 69 evbus topic-list -b "$(through timeout=1s)"
tell net pass

t 'user and password open the door, and are told to nobody'
begin
expect_true 'a server with a user' serve guarded server nats --user
guarded=$ANSWER
expect_status 0 evbus publish -b "$guarded" -t t <<<'{}'
expect_status 0 evbus tail -b "$guarded" -t t --format payload
expect_out '{}'
for wrong in "${guarded/s3cret/wr0ng}" "nats://${guarded#*@}" "nats://wr0ng@${guarded#*@}" "nats://${guarded#*@}?token=wr0ng"; do
	within 12 expect_status 77 evbus topic-list -b "$wrong"
	expect_err_has 'uthorization'
	expect_true 'no secret is told' test -z "$(grep -e wr0ng -e tester "$ERR")"
done
expect_status 69 evbus tail -b "${guarded%:*}:1" -t t
expect_true 'no secret is told' test -z "$(grep -e s3cret -e tester "$ERR")"

t 'TLS: with its authority, its name, and not without'
begin
expect_true 'a server with TLS' serve tls server nats --tls
tls=$ANSWER files=$SERVED
tls=nats://localhost:${tls##*:}
expect_status 0 evbus publish -b "$tls?tls_ca=$files/ca.pem" -t t <<<'{}'
expect_status 0 evbus tail -b "$tls?tls_ca=$files/ca.pem" -t t --format payload
expect_out '{}'
expect_status 69 evbus tail -b "$tls?tls_ca=$files/stranger-ca.pem" -t t
expect_err_has 'unable to get local issuer certificate'
expect_status 69 evbus tail -b "$tls?tls_ca=$files/ca.pem&tls_name=example.org" -t t
expect_err_has 'hostname mismatch'
expect_status 69 evbus tail -b "$tls" -t t
expect_status 69 evbus tail -b "$url?tls=1" -t t
expect_err_has 'TLS'

t 'TLS: the server wants a certificate of the client'
begin
expect_true 'a server with TLS' serve mutual server nats --mutual
tls=nats://localhost:${ANSWER##*:} files=$SERVED
expect_status 0 evbus publish -b "$tls?tls_ca=$files/ca.pem&tls_cert=$files/client.pem&tls_key=$files/client.key" -t t <<<'{}'
within 12 expect_status 69 evbus publish -b "$tls?tls_ca=$files/ca.pem&timeout=3s" -t t <<<'{}'
within 12 expect_status 69 evbus publish -b "$tls?tls_ca=$files/ca.pem&timeout=3s&tls_cert=$files/stranger.pem&tls_key=$files/stranger.key" -t t <<<'{}'
expect_out ''

# ---- servers that stop ---------------------------------------------------------------------------------------------

t 'a server that was paused: 69 within the time-out, and it goes on when it does'
begin
events 1 5 | evbus publish -q -t t
tell broker pause
within 4 expect_status 69 evbus tail -b "$url?prefix=$prefix&timeout=1s" -t t
tell broker resume
expect_equal "$(ids t | paste -sd ' ')" '1 2 3 4 5' 'the events'
mkfifo in
EVBUS_BUS="$url?prefix=$prefix&timeout=1s" evbus publish -t t <in >receipts 2>err &
publisher=$!
exec 5>in
events 6 6 >&5
wait_for 10 test -s receipts
tell broker pause
events 7 40000 >&5 2>/dev/null &
exec 5>&-
within 6 wait "$publisher"
wait "$publisher"
expect_equal $? 69 'the status'
tell broker resume

t 'it was paused for less than that: nothing is lost, and nothing is there twice'
begin
evbus topic-create -q -t t >/dev/null
evbus publish -t t < <(events 1 10000; sleep 0.3; events 10001 20000) >receipts &
publisher=$!
wait_for 10 test -s receipts
tell broker pause
sleep 1
tell broker resume
expect_true 'it did' wait "$publisher"
expect_receipts_hold
expect_order 20000 0

t 'the server is killed in the middle of a publish of 20,000 events, and comes back'
begin
evbus topic-create -q -t t >/dev/null
evbus publish -t t < <(for i in 0 1 2 3 4 5 6 7 8 9; do
	events $((i * 2000 + 1)) $((i * 2000 + 2000))
	sleep 0.05
done) >receipts 2>err &
publisher=$!
wait_for 10 test -s receipts
tell broker kill
sleep 0.5
tell broker start
wait "$publisher"
expect_equal "$? $(cat err)" '0 ' 'the status'
expect_equal "$(wc -l <receipts)" 20000 'receipts'
expect_receipts_hold
expect_order 20000 0

t 'the server is killed in the middle of a publish, and stays away: 69, and what has a receipt is there'
begin
evbus topic-create -q -t t >/dev/null
EVBUS_BUS="$url?prefix=$prefix&timeout=1s" evbus publish -t t < <(events 1 15000; sleep 1; events 15001 20000) >receipts 2>err &
publisher=$!
wait_for 10 test -s receipts
tell broker kill
within 8 wait "$publisher"
wait "$publisher"
expect_equal $? 69 'the status'
expect_true 'it says why' grep -q "not known what became of\|cannot" err
tell broker start
expect_receipts_hold
expect_true 'some have one' test -s receipts

t 'who reads goes on when the server comes back'
begin
events 1 30000 | evbus publish -q -t t
evbus replay -t t --rate 20000/s --format '{event_id}\n' >seen 2>err &
reader=$!
wait_for 10 test -s seen
tell broker kill
tell broker start
wait "$reader"
expect_equal "$? $(cat err)" '0 ' 'the status'
expect_same seen <(seq 1 30000)

t 'who follows goes on when the server comes back'
begin
evbus topic-create -q -t t >/dev/null
evbus tail -f -t t -o beginning --max 4 --timeout 30s --format '{event_id}\n' >seen 2>err &
reader=$!
events 1 2 | evbus publish -q -t t
wait_for 10 grep -q 2 seen
tell broker kill
tell broker start
events 3 4 | evbus publish -q -t t
wait "$reader"
expect_equal "$? $(cat err)" '0 ' 'the status'
expect_same seen <(seq 1 4)

# ---- a network that loses ------------------------------------------------------------------------------------------

t 'connections that break while it is published'
begin
evbus topic-create -q -t t >/dev/null
evbus publish -b "$(through timeout=10s)" -t t < <(for i in 0 1 2 3 4 5 6 7 8 9; do
	events $((i * 2000 + 1)) $((i * 2000 + 2000))
	sleep 0.1
done) >receipts 2>err &
publisher=$!
wait_for 10 test -s receipts
for way in 'up 0' 'down 10' 'up 1000' 'down 777' 'both 5000'; do
	# shellcheck disable=SC2086 # two words
	tell net cut $way
	sleep 0.2
done
tell net drop
wait "$publisher"
expect_equal "$? $(cat err)" '0 ' 'the status'
expect_equal "$(wc -l <receipts)" 20000 'receipts'
expect_receipts_hold
expect_order 20000 0
tell net pass

t 'answers that are late, and pieces that come twice'
begin
evbus topic-create -q -t t >/dev/null
tell net delay both 30
events 1 3000 >made
expect_status 0 evbus publish -b "$(through timeout=20s)" -t t made
cp "$OUT" receipts
tell net pass
expect_receipts_hold
expect_order 3000 0
for way in down up; do
	tell net pass
	begin
	evbus topic-create -q -t t >/dev/null
	evbus publish -b "$(through timeout=10s)" -t t < <(events 1 1000; sleep 0.4; events 1001 3000) >receipts 2>err &
	publisher=$!
	wait_for 10 test -s receipts
	tell net double "$way" 3
	wait "$publisher"
	status=$?
	tell net pass
	expect_true "done, or it is said that it is not ($status)" test "$status" = 0 -o "$status" = 69
	expect_receipts_hold
done

t 'connections that break, and pieces that come twice, while it is read'
begin
events 1 30000 | evbus publish -q -t t
paste -d ' ' <(seq 1 30000) <(seq 1 30000) >wanted
for harm in 'drop' 'cut down 70000' 'cut down 500001' 'double down 2' 'cut up 100'; do
	rm -f seen
	evbus replay -b "$(through timeout=10s)" -t t --rate 30000/s --format '{offset} {event_id}\n' >seen 2>err &
	reader=$!
	wait_for 10 test -s seen
	# shellcheck disable=SC2086 # words
	tell net $harm
	wait "$reader"
	expect_equal "$? $(cat err)" '0 ' "the status of $harm"
	expect_equal "$(diff wanted seen | head -n 5)" '' "what was read other than it is, of $harm"
	tell net pass
done

# ---- streams that go -----------------------------------------------------------------------------------------------

t 'a topic that is removed, and made again, while it is read and published to'
begin
events 1 3 | evbus publish -q -t t
evbus tail -f -t t -o beginning --timeout 20s >seen 2>err &
reader=$!
mkfifo in
evbus publish -t t <in >receipts 2>perr &
publisher=$!
exec 5>in
events 4 6 >&5
wait_for 10 grep -q '"6"' receipts
wait_for 10 grep -q '"6"' seen
# shellcheck disable=SC2016 # it is the server's
tell broker request "\$JS.API.STREAM.DELETE.$prefix=t=0"
events 1 1 | evbus publish -q -t t
wait "$reader"
expect_equal "$? $(grep -c removed err)" '76 1' "the status of tail: $(cat err)"
events 7 7 >&5
exec 5>&-
wait "$publisher"
expect_equal $? 76 'the status of publish'

/* The power goes while a group consumes, dead letters are queued, tried again and discarded, and what is old is swept:
 * what is done, dead and next changes together, in the store, or not at all; and nothing that was saved is lost. SQLite's
 * own writes are recorded as ours are. */
#include "power_bus.h"

#include <criterion/criterion.h>
#include <stdlib.h>

TestSuite(power_store, .timeout = 36000);

#define EVENTS 6u
#define GROUP "ledger"
#define STATES_MAX 5u

static const struct evbus_slice no = { "no", 2 };

/* What the client did with a letter, one after the other, and when that was durable. */
#define GONE (-1)
struct history {
	int state[STATES_MAX]; /* enum evbus_letter_state, or GONE */
	size_t at[STATES_MAX];
	unsigned count;
};

/* In memory that is shared with who is killed. */
struct promises {
	size_t saved_at[EVENTS]; /* the outcome of an event */
	struct history letters[EVENTS]; /* of it */
};

static struct promises *promised;

/* ---- the client ---- */

/* What becomes of an event, by its number. */
static bool is_dead(uint64_t n)
{
	return n % 3 != 0;
}

static struct evbus_consumer *consume(struct evbus *bus)
{
	const struct evbus_consumer_options options = { .group = GROUP,
							.topic = TOPIC,
							.partition_id = EVBUS_PARTITION_ALL,
							.inbox = true,
							.retry = { .max = 0, .factor = 2 } };
	struct evbus_consumer *consumer;

	CHECK_OK(evbus_consumer_open(bus, &options, &consumer, ERR));
	return consumer;
}

/* Handles one event, and says which; EVENTS: there was none. */
static uint64_t handle(struct evbus_consumer *consumer)
{
	struct evbus_delivery *delivery;

	CHECK_OK(evbus_consumer_next(consumer, 0, &delivery, ERR));
	if (!delivery)
		return EVENTS;
	uint64_t n = number_at(delivery->record->offset.data);
	if (n % 3 == 1)
		CHECK_OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, no, ERR));
	else if (n % 3 == 2)
		CHECK_OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, no, NULL, ERR));
	else
		CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
	CHECK_OK(evbus_consumer_commit(consumer, ERR));
	return n;
}

static void publish_events(void)
{
	struct evbus *bus = bus_open("live");
	char payload[64];

	for (unsigned n = 0; n < EVENTS; n++) {
		promised->saved_at[n] = NEVER;
		promised->letters[n].count = 0;
		snprintf(payload, sizeof payload, "{\"id\":\"e%u\"}", n);
		CHECK_OK(evbus_publish(bus, TOPIC, payload, NULL, ERR));
	}
	evbus_close(bus);
}

static void consume_all(void)
{
	struct evbus *bus = bus_open("live");
	struct evbus_consumer *consumer = consume(bus);

	for (uint64_t n; (n = handle(consumer)) < EVENTS;)
		promised->saved_at[n] = disk_changes();
	evbus_consumer_close(consumer);
	evbus_close(bus);
}

/* ---- letters ---- */

static void note_state(unsigned n, int state)
{
	struct history *history = &promised->letters[n];

	if (!disk_is_recording())
		return;
	history->state[history->count] = state;
	history->at[history->count++] = disk_changes();
}

static const char *id_of(unsigned n)
{
	/* Letters are numbered as they are made. */
	static const char *const ids[EVENTS] = { NULL, "1", "2", NULL, "3", "4" };

	return ids[n];
}

static void change(struct evbus *bus, unsigned n, enum evbus_letter_change change, int state)
{
	CHECK_OK(evbus_letter_change(bus, NULL, 0, id_of(n), change, EVBUS_REASON_RETRIES, no, "test", ERR));
	note_state(n, state);
}

/* The queued ones are tried: the first succeeds, the second fails again. */
static void try_queued(struct evbus *bus)
{
	struct evbus_consumer *consumer = consume(bus);
	struct evbus_delivery *delivery;

	for (;;) {
		CHECK_OK(evbus_consumer_next(consumer, 0, &delivery, ERR));
		if (!delivery)
			break;
		unsigned n = (unsigned)number_at(delivery->record->offset.data);
		CHECK(delivery->letter, "event %u is delivered, and is no letter", n);
		if (n == 1)
			CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
		else
			CHECK_OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, no, ERR));
		CHECK_OK(evbus_consumer_commit(consumer, ERR));
		note_state(n, n == 1 ? EVBUS_LETTER_RETRIED : EVBUS_LETTER_DEAD);
	}
	evbus_consumer_close(consumer);
}

static void sweep(struct evbus *bus)
{
	const struct evbus_sweep_options options = { .letters_before_us = os_now_us() + 1000000 };
	struct evbus_sweep_result result;

	CHECK_OK(evbus_sweep(bus, NULL, 0, &options, &result, ERR));
	for (unsigned n = 0; n < EVENTS; n++) {
		struct history *history = &promised->letters[n];
		int state = history->count ? history->state[history->count - 1] : GONE;
		if (state == EVBUS_LETTER_RETRIED || state == EVBUS_LETTER_DISCARDED)
			note_state(n, GONE);
	}
}

static void work_on_letters(void)
{
	struct evbus *bus = bus_open("live");

	for (unsigned n = 0; n < EVENTS; n++)
		if (is_dead(n))
			note_state(n, EVBUS_LETTER_DEAD);
	change(bus, 1, EVBUS_LETTER_QUEUE, EVBUS_LETTER_QUEUED);
	change(bus, 2, EVBUS_LETTER_QUEUE, EVBUS_LETTER_QUEUED);
	change(bus, 4, EVBUS_LETTER_DISCARD, EVBUS_LETTER_DISCARDED);
	try_queued(bus);
	sweep(bus);
	evbus_close(bus);
}

/* ---- the oracle ---- */

static uint64_t checkpoint_of(struct evbus *bus)
{
	struct evbus_checkpoint checkpoint;
	struct evbus_err err;
	enum evbus_code code = evbus_checkpoint_get(bus, GROUP, TOPIC, 0, &checkpoint, &err);

	CHECK(!code || code == EVBUS_NONE, "the checkpoint: %d: %s", (int)code, err.text);
	return code ? 0 : strtoull(checkpoint.next_offset, NULL, 10);
}

struct found {
	unsigned letters[EVENTS];
	int state[EVENTS];
};

static enum evbus_code take_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct found *found = context;
	uint64_t n = EVENTS;

	(void)err;
	CHECK(decimal_parse(letter->offset, &n) && n < EVENTS, "a letter of event %ju", (uintmax_t)n);
	found->letters[n]++;
	found->state[n] = (int)letter->state;
	return EVBUS_OK;
}

static void find_letters(struct evbus *bus, struct found *found)
{
	const struct evbus_letter_filter filter = { .reason = -1, .state = -1 };

	memset(found, 0, sizeof *found);
	for (unsigned n = 0; n < EVENTS; n++)
		found->state[n] = GONE;
	CHECK_OK(evbus_letter_list(bus, NULL, 0, &filter, take_letter, found, ERR));
}

static void check_inbox(const char *path, uint64_t next)
{
	char file[64];

	snprintf(file, sizeof file, "%s/bus/.evbus/state.db", path);
	if (access(file, F_OK))
		return;
	sqlite3 *db = database_open(file);
	bool there = database_ask(db, "SELECT count(*) FROM sqlite_master WHERE name = 'inbox'", 0);
	for (uint64_t n = 0; n < EVENTS && there; n++) {
		bool found = database_ask(db, "SELECT count(*) FROM inbox WHERE event_id = 'e' || ?", (int64_t)n);
		CHECK(is_dead(n) || found == (n < next), "the checkpoint is %ju, and event %ju is%s in the inbox",
		      (uintmax_t)next, (uintmax_t)n, found ? "" : " not");
	}
	database_check(db);
	sqlite3_close(db);
}

static void check_outcomes(struct evbus *bus, const char *path, uint64_t next)
{
	struct found found;

	find_letters(bus, &found);
	for (uint64_t n = 0; n < EVENTS; n++)
		CHECK(found.letters[n] == (n < next && is_dead(n)),
		      "the checkpoint is %ju, and event %ju has %u letters", (uintmax_t)next, (uintmax_t)n,
		      found.letters[n]);
	check_inbox(path, next);
}

static void check_consumed(const char *path, size_t changes)
{
	restart_machine();
	struct evbus *bus = bus_open(path);
	uint64_t next = checkpoint_of(bus);
	for (uint64_t n = 0; n < EVENTS; n++)
		CHECK(!was_promised(promised->saved_at[n], changes) || next > n,
		      "event %ju was saved, and the checkpoint is %ju", (uintmax_t)n, (uintmax_t)next);
	check_outcomes(bus, path, next);
	struct evbus_consumer *consumer = consume(bus);
	for (uint64_t n; (n = handle(consumer)) < EVENTS; next++) {
		CHECK(n == next, "event %ju is delivered, and %ju is the next one", (uintmax_t)n, (uintmax_t)next);
		if (disk_is_recording())
			promised->saved_at[n] = disk_changes();
	}
	CHECK(next == EVENTS, "event %ju is not delivered", (uintmax_t)next);
	evbus_consumer_close(consumer);
	check_outcomes(bus, path, EVENTS);
	evbus_close(bus);
}

/* In the last state that was told, or, for a step may have been done before it was told, in the next one. */
static bool may_be(const struct history *history, int state, size_t changes)
{
	unsigned told = 0;

	while (told + 1 < history->count && was_promised(history->at[told + 1], changes))
		told++;
	return state == (history->count ? history->state[told] : GONE) ||
	       (told + 1 < history->count && state == history->state[told + 1]);
}

static void check_letters(const char *path, size_t changes)
{
	struct found found;

	restart_machine();
	struct evbus *bus = bus_open(path);
	find_letters(bus, &found);
	for (unsigned n = 0; n < EVENTS; n++) {
		CHECK(found.letters[n] <= 1, "event %u has %u letters", n, found.letters[n]);
		CHECK(may_be(&promised->letters[n], found.state[n], changes), "the letter of event %u is in state %d",
		      n, found.state[n]);
	}
	CHECK(checkpoint_of(bus) == EVENTS, "the checkpoint has moved");
	check_inbox(path, EVENTS);
	/* And it goes on. */
	sweep(bus);
	find_letters(bus, &found);
	for (unsigned n = 0; n < EVENTS; n++)
		CHECK(found.state[n] != EVBUS_LETTER_RETRIED && found.state[n] != EVBUS_LETTER_DISCARDED,
		      "the letter of event %u is still there", n);
	evbus_close(bus);
}

/* ---- what happens ---- */

static void keep_consumed(const char *path, size_t changes)
{
	static struct promises own;

	own = *promised;
	promised = &own;
	promises_keep(promised->saved_at, EVENTS, changes);
	check_consumed(path, 0);
}

static void begin(void)
{
	states_begin();
	promised = notes_share(sizeof *promised);
}

Test(power_store, goes_while_a_group_consumes)
{
	begin();
	const struct states states = { .ready = bus_ready,
				       .check = check_consumed,
				       .drawn = 4,
				       .parts = 1,
				       .every = run_count(40, 60),
				       .before = "" };
	publish_events();
	disk_record("live");
	size_t first = disk_changes();
	consume_all();
	disk_stop();
	states_check(&states, first);
	states_check_twice(&states, first, run_count(4, 1), keep_consumed);
	states_end("a group that consumes");
}

Test(power_store, goes_while_dead_letters_are_tried_again_discarded_and_swept)
{
	begin();
	const struct states states = { .ready = bus_ready,
				       .check = check_letters,
				       .drawn = 4,
				       .parts = 1,
				       .every = run_count(20, 60),
				       .before = "" };
	publish_events();
	consume_all();
	disk_record("live");
	size_t first = disk_changes();
	work_on_letters();
	disk_stop();
	states_check(&states, first);
	states_end("dead letters");
}

Test(power_store, goes_after_a_consumer_was_killed_at_any_change)
{
	char before[64];
	unsigned kills = 0;
	bool killed = true;

	begin();
	const struct states states = { .ready = bus_ready,
				       .check = check_consumed,
				       .drawn = 1,
				       .parts = 20,
				       .every = run_count(300, 400),
				       .before = before };
	/* At each of the first, which make the store, and then at some. */
	for (size_t at = 1; killed; at += at < 16 ? run_count(1, 5) : run_count(7, 40), kills++) {
		snprintf(before, sizeof before, "killed at change %zu, ", at);
		size_t changes = states_record_killed(at, publish_events, consume_all, consume_all, &killed);
		states_check(&states, changes);
	}
	CHECK(kills >= run_count(20, 4), "%u kills are too few", kills);
	states_end("killed consumers");
}

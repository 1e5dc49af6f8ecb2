/* The schedules of idempotent publishers, drainers and consumers that were found on paper; schedules.c has the list of all.
 *
 * Nobody waits here until a lease is over: the clock of all actors is set on. */
#include "points.h"
#include "stores.h"

#include "bus.h"
#include "delivery/keys.h"

#include <criterion/criterion.h>
#include <stdarg.h>

#define ROWS 6u
#define LEASE_MS 60000
#define GROUP "ledger"

#define QUICK_STEP 3u

enum { FIRST = 1, SECOND, THIRD, WHO };

/* What all processes see. */
static struct shared {
	_Atomic int64_t shift_us; /* of the clock */
	struct evbus_drain_result result[WHO];
	uint32_t batch[WHO];
	uint64_t offset[WHO]; /* of the receipt */
	bool duplicate[WHO];
	_Atomic unsigned effects[ROWS];
} * shared;

static int shifted_clock(clockid_t clock, struct timespec *now)
{
	int result = clock_gettime(clock, now);

	now->tv_sec += atomic_load(&shared->shift_us) / 1000000;
	return result;
}

static void setup(void)
{
	run_begin(IN_MEMORY);
	os.clock_gettime = shifted_clock;
	shared = notes_share(sizeof *shared);
}

TestSuite(schedules_store, .init = setup, .fini = run_end, .timeout = 120);

/* What the case is, for the message of a failure. */
static void begin(const char *what, ...) __attribute__((format(printf, 1, 2)));
static void begin(const char *what, ...)
{
	va_list args;

	va_start(args, what);
	vsnprintf(run.where, sizeof run.where - 2, what, args);
	va_end(args);
	memcpy(run.where + strlen(run.where), ": ", sizeof ": ");
	memset(shared, 0, sizeof *shared);
	case_begin(0, 0);
}

static void run_cases(const char *what, void (*run_one)(unsigned i), unsigned count)
{
	unsigned ran = 0;

	for (unsigned i = 0; i < count; i++) {
		if (!case_is_wanted(i, QUICK_STEP))
			continue;
		run_one(i);
		ran++;
	}
	run.where[0] = '\0';
	run_ran(what, ran, cases_wanted(count, QUICK_STEP));
}

static void let_lease_end(void)
{
	atomic_fetch_add(&shared->shift_us, (LEASE_MS + 1000) * 1000ll);
}

static void must(struct actor *actor, enum evbus_code code)
{
	enum evbus_code came = actor_end(actor);

	CHECK(came == code, "actor %u came to %d, not %d: %s", actor->index, (int)came, (int)code, actor->err.text);
}

static uint64_t lines(void)
{
	struct log_image log;

	log_read(0, &log);
	free(log.lines);
	return log.count;
}

/* ---- an outbox ----------------------------------------------------------------------------------------------------- */

static void insert(sqlite3 *db, unsigned writer, unsigned event, const char *key)
{
	char payload[PAYLOAD_MAX], statement[PAYLOAD_MAX + 300];
	size_t len = payload_make(payload, writer, event, 0, 1);

	snprintf(statement, sizeof statement,
		 "INSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES ('%u-%u', '" TOPIC
		 "', 't', '%s', '%.*s')",
		 writer, event, key, (int)len, payload);
	run_sql(db, statement);
}

/* The events of writer 0 are on one key, those of writer 1 on another. */
static void make_outbox(unsigned others)
{
	struct evbus_outbox *outbox;
	bool made, wal;

	if (access("app.db", F_OK) == 0)
		run_remove("app.db");
	struct evbus *bus = open_bus();
	CHECK_OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, ERR));
	CHECK_OK(evbus_outbox_init(outbox, &made, &wal, ERR));
	evbus_outbox_close(outbox);
	evbus_close(bus);
	sqlite3 *db = open_db("app.db");
	for (unsigned i = 0; i < ROWS; i++)
		insert(db, 0, i, "hot");
	for (unsigned i = 0; i < others; i++)
		insert(db, 1, i, "other");
	sqlite3_close(db);
}

static enum evbus_code take_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *err)
{
	unsigned writer, at, of;
	uint64_t event;

	(void)context;
	(void)err;
	CHECK(payload_parse(receipt->payload, &writer, &event, &at, &of), "a receipt of nothing that was published");
	note_receipt(writer, event, receipt);
	return EVBUS_OK;
}

static enum evbus_code drain(unsigned index, struct evbus_err *err)
{
	const struct evbus_drain_options options = { .batch = shared->batch[index],
						     .lease_ms = LEASE_MS,
						     .retry = EVBUS_RETRY_DEFAULT,
						     .receipt = take_receipt };
	struct evbus *bus = open_bus();
	struct evbus_outbox *outbox;

	CHECK_OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, ERR));
	enum evbus_code code = evbus_outbox_drain(outbox, &options, &shared->result[index], err);
	evbus_outbox_close(outbox);
	evbus_close(bus);
	return code;
}

static struct actor *start_drain(unsigned index, uint32_t batch, const char *point)
{
	shared->batch[index] = batch;
	return actor_start(drain, index, point);
}

/* Whatever is left is drained; then each event is on the log once, in the order of its key. */
static void drain_rest(void)
{
	for (unsigned i = 0; i < 5 && ask_db("app.db", "SELECT COUNT(*) FROM outbox WHERE state <> 'SENT'"); i++) {
		let_lease_end();
		must(start_drain(THIRD, 100, NULL), EVBUS_OK);
	}
	CHECK(ask_db("app.db", "SELECT COUNT(*) FROM outbox WHERE state <> 'SENT' OR attempts <> 0") == 0,
	      "rows are not sent, or an attempt was counted");
	CHECK(check_everything() == (uint64_t)ask_db("app.db", "SELECT COUNT(*) FROM outbox"), "events are missing");
	CHECK(case_look() == lines(), "not all of them are shown");
}

/* ---- a drainer that is stopped past its lease ----------------------------------------------------------------------- */

/* Before the write it gives its rows back. Behind it, or where the second one was not kept waiting, it finds its events in
 * the log, and rows that are another's. */
static const struct stop {
	const char *point;
	bool there;
} stops[] = {
	{ "outbox/claimed", true }, { "keys/locked", false },     { "keys/read", false },  { "append/locked", false },
	{ "append/checked", true }, { "append/written", true },   { "append/done", true }, { "sync/begins", true },
	{ "sync/ended", true },     { "outbox/published", true },
};
#define STOPS (sizeof stops / sizeof *stops)

static void stop_past_the_lease(unsigned i)
{
	const struct stop *stop = &stops[i / 2];
	bool kill = i % 2;

	begin("%s, %s", stop->point, kill ? "killed" : "goes on");
	make_outbox(0);
	struct actor *first = start_drain(FIRST, ROWS / 2, stop->point);
	actor_stands(first);
	let_lease_end();
	struct actor *second = start_drain(SECOND, ROWS, NULL);
	bool waits = actor_rest(second) == ACTOR_WAITS;
	/* It waits where the first one has the lock of those that publish idempotently. */
	CHECK(waits == (strncmp(stop->point, "outbox/", 7) != 0), "the second one %s",
	      waits ? "waits" : "does not wait");
	if (kill) {
		actor_kill(first);
	} else {
		actor_go(first, NULL);
		must(first, stop->there ? EVBUS_OK : EVBUS_AGAIN);
		CHECK(shared->result[FIRST].sent == 0, "it marked rows that are another's");
	}
	must(second, EVBUS_OK);
	CHECK(shared->result[SECOND].sent == ROWS, "the second one sent %u rows",
	      (unsigned)shared->result[SECOND].sent);
	drain_rest();
}

Test(schedules_store, drainers_that_are_stopped_past_their_lease_publish_and_mark_nothing_that_is_anothers)
{
	run_cases("drainers stopped past their lease", stop_past_the_lease, 2 * STOPS);
}

/* ---- two drainers on one hot key ------------------------------------------------------------------------------------ */

/* Within the lease the second one has only what is on another key; after it, all. Then they go on in either order. */
static void share_a_key(unsigned i)
{
	static const char *const points[] = { "outbox/claimed", "outbox/published" };
	const char *point = points[i % 2], *later = points[i / 2 % 2];
	bool first_goes_first = i / 4 == 0;

	begin("%s and %s, %s first", point, later, first_goes_first ? "first" : "second");
	make_outbox(2);
	struct actor *first = start_drain(FIRST, 2, point);
	actor_stands(first);
	must(start_drain(SECOND, 100, NULL), EVBUS_OK);
	CHECK(shared->result[SECOND].claimed == 2 && shared->result[SECOND].sent == 2,
	      "within the lease %u rows were claimed", (unsigned)shared->result[SECOND].claimed);
	let_lease_end();
	struct actor *second = start_drain(SECOND, 3, later);
	actor_stands(second);
	CHECK(shared->result[SECOND].claimed == 3, "%u rows were claimed", (unsigned)shared->result[SECOND].claimed);
	for (unsigned k = 0; k < 2; k++) {
		struct actor *next = (k == 0) == first_goes_first ? first : second;
		actor_go(next, NULL);
		enum evbus_code code = actor_end(next);
		CHECK(code == EVBUS_OK || (next == first && code == EVBUS_AGAIN), "%d: %s", (int)code, next->err.text);
	}
	CHECK(shared->result[FIRST].sent == 0 && shared->result[SECOND].sent == 3, "the first sent %u, the second %u",
	      (unsigned)shared->result[FIRST].sent, (unsigned)shared->result[SECOND].sent);
	drain_rest();
}

Test(schedules_store, drainers_of_one_hot_key_keep_its_order)
{
	run_cases("drainers on one hot key", share_a_key, 8);
}

/* ---- idempotent publishers ------------------------------------------------------------------------------------------ */

/* The event 0 of writer 0, whoever publishes it. */
static enum evbus_code publish_once(unsigned index, struct evbus_err *err)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	char payload[PAYLOAD_MAX];
	struct evbus_event event = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ANY, .event_key = { "k", 1 } };
	struct evbus_publisher *publisher;
	struct evbus *bus = open_bus();

	event.payload = (struct evbus_slice){ payload, payload_make(payload, 0, 0, 0, 1) };
	CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
	enum evbus_code code = evbus_publisher_add(publisher, &event, err);
	if (!code)
		code = evbus_publisher_flush(publisher, err);
	const struct evbus_record *receipt = evbus_publisher_next(publisher);
	CHECK(code ? !receipt : receipt && decimal_parse(receipt->offset, &shared->offset[index]), "%s",
	      receipt ? "a receipt after a failure" : "no receipt");
	shared->duplicate[index] = receipt && receipt->duplicate;
	evbus_publisher_close(publisher);
	evbus_close(bus);
	return code;
}

/* All keys of the topic stand in the store now. */
static void store_keys(void)
{
	struct evbus *bus = open_bus();
	struct backend_topic *topic;
	uint64_t count;
	bool fitted;

	CHECK_OK(bus_reach(bus, false, ERR));
	CHECK_OK(bus_store(bus, ERR));
	CHECK_OK(bus->backend->ops->topic_open(bus->backend, TOPIC, &topic, ERR));
	CHECK_OK(keys_rebuild(topic, bus->store, NULL, &count, &fitted, ERR));
	backend_topic_close(&topic);
	evbus_close(bus);
	CHECK(count == 1, "the store has %u keys", (unsigned)count);
}

static void make_topic_anew(void)
{
	run_remove("bus/" TOPIC);
	make_topic(1, 0);
	atomic_store(&notes->seen[0][0].count, 0);
}

static void publish_to_another_log(bool stored)
{
	begin("keys are %s", stored ? "stored" : "not stored");
	must(actor_start(publish_once, FIRST, NULL), EVBUS_OK);
	if (stored)
		store_keys();
	make_topic_anew();
	must(actor_start(publish_once, SECOND, NULL), EVBUS_OK);
	CHECK(!shared->duplicate[SECOND] && lines() == 1, "the key of the other log was believed");
	must(actor_start(publish_once, THIRD, NULL), EVBUS_OK);
	CHECK(shared->duplicate[THIRD] && lines() == 1, "it is there twice");
	check_everything();
}

/* Who has appended when that happens has a receipt of the log that was removed. */
static const struct stop made_anew_at[] = {
	{ "keys/locked", false },    { "keys/read", false },   { "append/locked", false }, { "append/checked", false },
	{ "append/written", false }, { "append/done", false }, { "sync/begins", true },    { "sync/ended", true },
};
#define ANEW (sizeof made_anew_at / sizeof *made_anew_at)

/* It has the topic open, and stands there, when the topic is removed and made again. */
static void make_anew_at(unsigned i)
{
	const struct stop *stop = &made_anew_at[i / 2];
	bool before = i % 2;

	begin("%s%s", stop->point, before ? ", and once before that" : "");
	if (before) {
		must(actor_start(publish_once, FIRST, NULL), EVBUS_OK);
		store_keys();
		make_topic_anew();
	}
	struct actor *first = actor_start(publish_once, FIRST, stop->point);
	actor_stands(first);
	make_topic_anew();
	must(actor_start(publish_once, SECOND, NULL), EVBUS_OK);
	CHECK(!shared->duplicate[SECOND], "the key of the other log was believed");
	actor_go(first, NULL);
	must(first, stop->there ? EVBUS_OK : EVBUS_CONFLICT);
	must(actor_start(publish_once, THIRD, NULL), EVBUS_OK);
	CHECK(shared->duplicate[THIRD] && lines() == 1 && case_look() == 1, "it is there %u times", (unsigned)lines());
	check_everything();
}

Test(schedules_store, topics_that_were_removed_and_made_again_know_nothing_of_the_keys_of_before)
{
	publish_to_another_log(false);
	publish_to_another_log(true);
	run_cases("topics made again", make_anew_at, 2 * ANEW);
}

/* The lock file of those that publish idempotently is safe to delete as well. */
static void remove_keys_lock_at(unsigned i)
{
	const char *point = made_anew_at[i / 2].point;
	bool kill = i % 2;

	begin("%s, %s", point, kill ? "killed" : "goes on");
	struct actor *first = actor_start(publish_once, FIRST, point);
	actor_stands(first);
	run_remove("bus/" TOPIC "/keys.lock");
	struct actor *second = actor_start(publish_once, SECOND, NULL);
	actor_rest(second);
	case_look();
	if (kill)
		actor_kill(first);
	else
		actor_go(first, NULL);
	must(second, EVBUS_OK);
	if (!kill) {
		must(first, EVBUS_OK);
		CHECK(shared->offset[FIRST] == shared->offset[SECOND] &&
			      shared->duplicate[FIRST] != shared->duplicate[SECOND],
		      "the receipts have %u and %u", (unsigned)shared->offset[FIRST], (unsigned)shared->offset[SECOND]);
	}
	CHECK(lines() == 1 && case_look() == 1, "it is there %u times", (unsigned)lines());
	check_everything();
}

Test(schedules_store, keys_whose_lock_file_is_removed_are_in_the_log_once)
{
	run_cases("lock files of keys removed", remove_keys_lock_at, 2 * ANEW);
}

/* ---- consumers ------------------------------------------------------------------------------------------------------ */

static enum evbus_code consume(unsigned index, struct evbus_err *err)
{
	const struct evbus_consumer_options options = { .group = GROUP,
							.topic = TOPIC,
							.partition_id = EVBUS_PARTITION_ALL,
							.inbox = true,
							.retry = EVBUS_RETRY_DEFAULT };
	struct evbus *bus = open_bus();
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	(void)index;
	CHECK_OK(evbus_consumer_open(bus, &options, &consumer, ERR));
	while (!evbus_consumer_finished(consumer)) {
		TRY(evbus_consumer_next(consumer, 1000, &delivery, err));
		if (!delivery)
			continue;
		atomic_fetch_add(&shared->effects[number_at(delivery->record->offset.data)], 1);
		TRY(evbus_consumer_done(consumer, delivery, err));
	}
	evbus_consumer_close(consumer);
	evbus_close(bus);
	return EVBUS_OK;
}

static void publish_events_with_ids(void)
{
	struct evbus *bus = open_bus();
	char payload[40];

	for (unsigned i = 0; i < ROWS; i++) {
		snprintf(payload, sizeof payload, "{\"event_id\":\"e%u\"}", i);
		CHECK_OK(evbus_publish(bus, TOPIC, payload, NULL, ERR));
	}
	evbus_close(bus);
}

static uint64_t checkpoint(void)
{
	struct evbus_checkpoint found;
	struct evbus *bus = open_bus();
	struct evbus_err err;
	enum evbus_code code = evbus_checkpoint_get(bus, GROUP, TOPIC, 0, &found, &err);

	CHECK(!code || code == EVBUS_NONE, "the checkpoint: %s", err.text);
	evbus_close(bus);
	return code ? 0 : number_at(found.next_offset);
}

/* The event is done, and nobody knows: once for a kill its effect is repeated, and that of no other event. */
static void stop_before_it_is_recorded(unsigned i)
{
	unsigned event = i / 2;
	bool kill = i % 2;

	begin("event %u, %s", event, kill ? "killed" : "goes on");
	publish_events_with_ids();
	struct actor *first = actor_start_nth(consume, FIRST, "consume/handled", event + 1);
	actor_stands(first);
	CHECK(checkpoint() == event, "the checkpoint is %u, with %u events recorded", (unsigned)checkpoint(), event);
	struct actor *second = actor_start(consume, SECOND, NULL);
	pause_us(2000);
	CHECK(atomic_load(&shared->effects[event]) == 1, "two handle one partition");
	if (kill)
		actor_kill(first);
	else
		actor_go(first, NULL);
	if (!kill)
		must(first, EVBUS_OK);
	must(second, EVBUS_OK);
	CHECK(checkpoint() == ROWS, "the checkpoint is %u", (unsigned)checkpoint());
	for (unsigned k = 0; k < ROWS; k++)
		CHECK(atomic_load(&shared->effects[k]) == (kill && k == event ? 2 : 1), "event %u was done %u times", k,
		      atomic_load(&shared->effects[k]));
}

Test(schedules_store, consumers_that_are_killed_between_an_effect_and_its_record_repeat_that_effect_alone)
{
	run_cases("consumers between an effect and its record", stop_before_it_is_recorded, 2 * ROWS);
}

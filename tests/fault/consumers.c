/* Consumers of one group share the partitions of a topic and are killed at random. With an inbox an event's effect is
 * repeated at most once for each kill; every poisoned event is one dead letter; the checkpoints never pass an event
 * that had neither; and counts of attempts outlive the kills. */
#include "stores.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>

#define CONSUMERS 4u
#define PARTITIONS 4u
#define EVENTS_MAX 4000u
#define ATTEMPTS 3u
#define POISONED_EVERY 20u
#define GROUP "g"

/* What the handlers did, in memory that outlives them. */
static struct effects {
	_Atomic uint32_t attempts[EVENTS_MAX]; /* that failed */
	_Atomic uint32_t effects[EVENTS_MAX];
	_Atomic uint32_t busy; /* who had the last one */
} *effects;

static unsigned event_count;

static void setup(void)
{
	run_begin(IN_MEMORY);
	effects = notes_share(sizeof *effects);
}

TestSuite(consumers, .init = setup, .fini = run_end, .timeout = 300);

static void publish_all(void)
{
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	char payload[64], key[16];

	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	for (unsigned i = 0; i < event_count; i++) {
		int len = snprintf(payload, sizeof payload, "{\"id\":\"%u\"}", i);
		int key_len = snprintf(key, sizeof key, "k%u", i % 50);
		struct evbus_event event = { .topic = TOPIC,
					     .payload = { payload, (size_t)len },
					     .key = { key, (size_t)key_len },
					     .partition_id = EVBUS_PARTITION_ANY };
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	evbus_publisher_close(publisher);
	evbus_close(bus);
}

static unsigned event_of(const struct evbus_record *record)
{
	return (unsigned)number_at(record->payload.data + sizeof "{\"id\":\"" - 1);
}

static bool is_poisoned(unsigned event)
{
	return event % POISONED_EVERY == 7;
}

/* The handler, and what it says. */
static void handle(unsigned index, struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	unsigned event = event_of(delivery->record);

	CHECK(delivery->attempt <= ATTEMPTS, "event %u is tried for the %uth time", event, delivery->attempt);
	/* What was saved is known; an attempt whose outcome was not saved is not counted, and may be made again. */
	CHECK(delivery->attempt - 1 <= atomic_load(&effects->attempts[event]),
	      "event %u has attempts that were never made", event);
	atomic_store(&effects->busy, index);
	pause_us(100);
	if (is_poisoned(event)) {
		atomic_fetch_add(&effects->attempts[event], 1);
		CHECK_OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, SLICE("poison"), NULL, ERR));
		return;
	}
	atomic_fetch_add(&effects->effects[event], 1);
	CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
}

static void consume(unsigned index)
{
	struct evbus *bus = open_bus();
	struct evbus_consumer_options options = { .group = GROUP,
						  .topic = TOPIC,
						  .partition_id = EVBUS_PARTITION_ALL,
						  .inbox = true,
						  .retry = { ATTEMPTS - 1, 1, 2, 5 },
						  .concurrency = index % 2 ? 3 : 1 };
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	CHECK_OK(evbus_consumer_open(bus, &options, &consumer, ERR));
	while (!evbus_consumer_finished(consumer)) {
		CHECK_OK(evbus_consumer_next(consumer, 1000, &delivery, ERR));
		if (delivery)
			handle(index, consumer, delivery);
	}
	evbus_consumer_close(consumer);
	evbus_close(bus);
}

/* ---- the oracle ---- */

/* The events of each partition, in order. */
static unsigned order[PARTITIONS][EVENTS_MAX], counts[PARTITIONS];

static void read_order(void)
{
	struct evbus *bus = open_bus();
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;

	memset(counts, 0, sizeof counts);
	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	for (;;) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		order[record->partition_id][counts[record->partition_id]++] = event_of(record);
	}
	evbus_reader_close(reader);
	evbus_close(bus);
}

static void check_checkpoints(struct evbus *bus, bool at_end)
{
	struct evbus_checkpoint checkpoint;
	struct evbus_err err;

	for (unsigned lane = 0; lane < PARTITIONS; lane++) {
		enum evbus_code code = evbus_checkpoint_get(bus, GROUP, TOPIC, (int32_t)lane, &checkpoint, &err);
		CHECK(code == EVBUS_OK || (code == EVBUS_NONE && !at_end), "checkpoint: %s", err.text);
		unsigned next = code ? 0 : (unsigned)strtoul(checkpoint.next_offset, NULL, 10);
		for (unsigned i = 0; i < next; i++) {
			unsigned event = order[lane][i];
			CHECK(is_poisoned(event) ? atomic_load(&effects->attempts[event]) >= ATTEMPTS
						 : atomic_load(&effects->effects[event]) >= 1,
			      "the checkpoint %u of partition %u passed event %u", next, lane, event);
		}
		CHECK(!at_end || next == counts[lane], "partition %u ends at %u, not %u", lane, next, counts[lane]);
	}
}

static void check_count(const char *sql, int64_t expected)
{
	int64_t found = ask_db(STATE_DB, "%s", sql);

	CHECK(found == expected, "%s: %lld, not %lld", sql, (long long)found, (long long)expected);
}

static void check_effects(unsigned kills)
{
	unsigned poisoned = 0, repeated = 0, repeated_attempts = 0;

	for (unsigned i = 0; i < event_count; i++) {
		unsigned done = atomic_load(&effects->effects[i]), failed = atomic_load(&effects->attempts[i]);
		poisoned += is_poisoned(i);
		CHECK(is_poisoned(i) ? done == 0 && failed >= ATTEMPTS : done >= 1 && failed == 0,
		      "event %u was done %u times and failed %u times", i, done, failed);
		repeated += is_poisoned(i) ? 0 : done - 1;
		repeated_attempts += is_poisoned(i) ? failed - ATTEMPTS : 0;
	}
	fprintf(stderr, "consumers: %u kills, %u effects repeated, %u attempts repeated\n", kills, repeated,
		repeated_attempts);
	CHECK(repeated + repeated_attempts <= kills, "%u effects and %u attempts were repeated, with %u kills",
	      repeated, repeated_attempts, kills);
	check_count("SELECT count(*) FROM inbox", event_count - poisoned);
	check_count("SELECT count(*) FROM dlq WHERE state = 'DEAD' AND attempts = 3", poisoned);
	check_count("SELECT count(*) FROM dlq", poisoned);
	check_count("SELECT count(*) FROM retries", 0);
}

/* ---- the test ---- */

/* Kills one of them, if it has not ended by itself, and puts another in its place. */
static unsigned kill_one(pid_t *consumer, unsigned index)
{
	kill(*consumer, SIGKILL);
	int status = child_reap(*consumer);
	child_check();
	*consumer = child_start(consume, index);
	return WIFSIGNALED(status) ? 1 : 0;
}

Test(consumers, killed_at_random_repeat_no_more_effects_than_there_are_kills)
{
	unsigned kills = 0, wanted = run_count(100, 25);
	uint64_t dice = run.seed;
	pid_t consumers[CONSUMERS];

	event_count = run_count(EVENTS_MAX, EVENTS_MAX / 4);
	make_topic(PARTITIONS, 0);
	publish_all();
	read_order();
	for (unsigned i = 0; i < CONSUMERS; i++)
		consumers[i] = child_start(consume, i);
	struct evbus *bus = open_bus();
	for (unsigned i = 0; i < wanted; i++) {
		pause_us((int64_t)(random_next(&dice) % 20000));
		/* Mostly one that has the partitions; the others wait for them. */
		unsigned victim = random_next(&dice) % 4 ? atomic_load(&effects->busy)
							 : (unsigned)(random_next(&dice) % CONSUMERS);
		kills += kill_one(&consumers[victim], victim);
		check_checkpoints(bus, false);
	}
	for (unsigned i = 0; i < CONSUMERS; i++)
		child_join(consumers[i]);
	check_checkpoints(bus, true);
	check_effects(kills);
	evbus_close(bus);
	run_ran("consumers", wanted, wanted);
}

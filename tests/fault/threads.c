/* One handle a thread is enough: threads of one process exclude each other as processes do, and share nothing else.
 *
 * Made for a build with -Db_sanitize=thread, where a report ends it. Criterion cannot run there, so this prints its TAP
 * itself. */
#include "stores.h"

#include <pthread.h>

#define WRITERS 6u
#define READERS 2u

static void *write_in_thread(void *index)
{
	write_events(*(unsigned *)index);
	return NULL;
}

static void *follow_in_thread(void *index)
{
	follow_events(*(unsigned *)index);
	return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *index), unsigned *index)
{
	CHECK(pthread_create(thread, NULL, body, index) == 0, "cannot start a thread");
}

static void run_threads(const char *what, enum way way, unsigned lanes, uint64_t segment_max_bytes, unsigned events)
{
	static unsigned numbers[] = { 0, 1, 2, 3, 4, 5 };
	pthread_t writers[WRITERS], readers[READERS];

	notes_new(WRITERS, events, READERS, lanes);
	plan = (struct plan){ .way = way, .keyed = lanes > 1 };
	make_topic(lanes, segment_max_bytes);
	for (unsigned i = 0; i < READERS; i++)
		start(&readers[i], follow_in_thread, &numbers[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		start(&writers[i], write_in_thread, &numbers[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	child_check();
	run_ran(what, check_everything(), (uint64_t)WRITERS * events);
}

/* ---- idempotent publishers and a group of consumers, also in threads of one process ---------------------------- */

#define ONCE 5u /* threads of a kind; with both there are more than 8 */
#define LANES 3u

static unsigned once_events;
static _Atomic uint32_t *handled;

static void *publish_once(void *index)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	char payload[64];
	(void)index;

	CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
	for (unsigned i = 0; i < once_events; i++) {
		struct evbus_event event = { .topic = TOPIC, .partition_id = (int32_t)(i % LANES) };
		event.payload.data = payload;
		event.payload.len = (size_t)snprintf(payload, sizeof payload, "{\"id\":\"%u\"}", i);
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		if (i % 50 == 49)
			CHECK_OK(evbus_publisher_flush(publisher, ERR));
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	evbus_publisher_close(publisher);
	evbus_close(bus);
	return NULL;
}

/* Three of them share the partitions of a group, the others are a group each. */
static void *consume(void *index)
{
	unsigned number = *(unsigned *)index, last = 0;
	char group[16];
	const struct evbus_consumer_options options = { .group = group,
							.topic = TOPIC,
							.partition_id = EVBUS_PARTITION_ALL,
							.follow = true,
							.inbox = true,
							.commit_every = 50,
							.retry = EVBUS_RETRY_DEFAULT };
	struct evbus *bus = open_bus();
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	snprintf(group, sizeof group, "g%u", number < LANES ? 0 : number);
	unsigned slot = number < LANES ? 0 : number;
	CHECK_OK(evbus_consumer_open(bus, &options, &consumer, ERR));
	while (last < once_events) {
		CHECK_OK(evbus_consumer_next(consumer, 20, &delivery, ERR));
		if (delivery) {
			unsigned event = (unsigned)number_at(delivery->record->payload.data + sizeof "{\"id\":\"" - 1);
			CHECK(event < once_events, "what is event %u?", event);
			atomic_fetch_add(&handled[slot * once_events + event], 1);
			atomic_fetch_add(&notes->counters[slot], 1);
			CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
		}
		last = (unsigned)atomic_load(&notes->counters[slot]);
	}
	CHECK_OK(evbus_consumer_commit(consumer, ERR));
	evbus_consumer_close(consumer);
	evbus_close(bus);
	return NULL;
}

static void run_once(const char *what, unsigned events)
{
	static unsigned numbers[] = { 0, 1, 2, 3, 4 };
	pthread_t publishers[ONCE], consumers[ONCE];
	uint64_t ran = 0;

	notes_new(1, 1, 0, 1);
	once_events = events;
	handled = notes_share(ONCE * events * sizeof *handled);
	make_topic(LANES, 20000);
	for (unsigned i = 0; i < ONCE; i++)
		start(&consumers[i], consume, &numbers[i]);
	for (unsigned i = 0; i < ONCE; i++)
		start(&publishers[i], publish_once, &numbers[i]);
	for (unsigned i = 0; i < ONCE; i++)
		pthread_join(publishers[i], NULL);
	for (unsigned i = 0; i < ONCE; i++)
		pthread_join(consumers[i], NULL);
	child_check();
	for (unsigned i = 0; i < ONCE * events; i++)
		ran += handled[i] == 1;
	check_db(STATE_DB);
	run_ran(what, ran, (uint64_t)(ONCE - LANES + 1) * events);
}

/* ---- readers of a long log, each with a thread that reads ahead of it ------------------------------------------- */

#define LONG_EVENTS 20u
#define LONG_PAYLOAD (900u * 1024)

static void publish_long(void)
{
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	static char payload[LONG_PAYLOAD];

	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	memset(payload, 'x', sizeof payload);
	memcpy(payload, "{\"x\":\"", 6);
	memcpy(payload + sizeof payload - 2, "\"}", 2);
	for (unsigned i = 0; i < LONG_EVENTS; i++) {
		struct evbus_event event = { .topic = TOPIC, .payload = { payload, sizeof payload } };
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	evbus_publisher_close(publisher);
	evbus_close(bus);
}

/* Every second one leaves in the middle. */
static void *read_long(void *index)
{
	unsigned number = *(unsigned *)index, wanted = number % 2 ? LONG_EVENTS / 2 : LONG_EVENTS, came = 0;
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL };
	struct evbus_verify_result result;
	struct evbus *bus = open_bus();
	const struct evbus_record *record;
	struct evbus_reader *reader;

	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	for (; came < wanted; came++) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		CHECK(record && record->payload.len == LONG_PAYLOAD, "record %u is another one", came);
	}
	evbus_reader_close(reader);
	CHECK_OK(evbus_verify(bus, TOPIC, &options, &result, ERR));
	CHECK(result.records == LONG_EVENTS && !result.damages, "%ju records", (uintmax_t)result.records);
	evbus_close(bus);
	atomic_fetch_add(&notes->counters[0], came == wanted);
	return NULL;
}

static void run_long(const char *what)
{
	static unsigned numbers[] = { 0, 1, 2, 3 };
	pthread_t readers[4];

	notes_new(1, 1, 0, 1);
	make_topic(1, 0);
	publish_long();
	for (unsigned i = 0; i < 4; i++)
		start(&readers[i], read_long, &numbers[i]);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(readers[i], NULL);
	child_check();
	run_ran(what, atomic_load(&notes->counters[0]), 4);
}

static const struct stage {
	const char *name;
	enum way way;
	unsigned lanes;
	uint64_t segment_max_bytes;
	unsigned events, quick;
} stages[] = {
	{ "threads with a handle each publish and follow one log", SINGLES, 1, 0, 2000, 400 },
	{ "threads with streams have a thread each beside them", STREAM, 1, 0, 15000, 8000 },
	{ "threads with everything on many partitions share nothing else", MIXED, LANES_MAX, 200000, 3000, 500 },
};
#define COUNT (sizeof stages / sizeof *stages)
#define ONCE_NAME "threads that publish the same events once and consume them in groups share nothing else"
#define LONG_NAME "threads read and verify a long log, each with one that reads ahead of it"

int main(void)
{
	run.bare = true;
	printf("1..%zu\n", COUNT + 2);
	for (size_t i = 0; i < COUNT; i++) {
		const struct stage *stage = &stages[i];
		run_begin(IN_MEMORY);
		run_slow_syncs(200);
		run_threads(stage->name, stage->way, stage->lanes, stage->segment_max_bytes,
			    run_count(stage->events, stage->quick));
		run_end();
		printf("ok %zu - %s\n", i + 1, stage->name);
	}
	run_begin(IN_MEMORY);
	run_once(ONCE_NAME, run_count(3000, 300));
	run_end();
	printf("ok %zu - %s\n", COUNT + 1, ONCE_NAME);
	run_begin(IN_MEMORY);
	run_long(LONG_NAME);
	run_end();
	printf("ok %zu - %s\n", COUNT + 2, LONG_NAME);
	return 0;
}

/* What the tests of the consumer have in common: a bus in a scratch directory, short ways to publish and to consume,
 * and to look into the store behind the library's back. */
#ifndef EVBUS_TESTS_CONSUMER_HELPERS_H
#define EVBUS_TESTS_CONSUMER_HELPERS_H

#include "bus.h"
#include "scratch.h"
#include "stored.h"

#include <sys/wait.h>

#ifndef STATE
#define STATE "bus/.evbus/state.db"
#endif

static char scratch[64];
static char modules[PATH_MAX];
static struct evbus *bus;
static struct evbus_err err;
static struct os real_os;
static char noticed[512];          /* the last notice */
static int notices;

static inline void take_notice(void *context, const char *text)
{
	(void)context;
	notices++;
	snprintf(noticed, sizeof noticed, "%s", text);
}

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)

/* ---- the bus ---- */

static inline struct evbus *open_bus(void)
{
	struct evbus_options options = { .notice = take_notice, .store = stored_on_server() ? stored_url(STATE) : NULL };
	struct store_options store = { .module_dir = modules };
	struct evbus *opened;

	OK(evbus_open("bus", &options, &opened, &err));
	/* The module is looked for beside the library, and there is none here. */
	if (opened->root->fd >= 0)
		OK(store_open(opened->root->fd, stored_on_server() ? stored_url(STATE) : "sqlite:.evbus/state.db", &store, &opened->store, &err));
	return opened;
}

static inline void make_topic(const char *name, uint32_t partitions)
{
	struct evbus_topic_options options = { .partitions = partitions };
	bool created;

	OK(evbus_topic_create(bus, name, &options, &created, &err));
}

/* On a memory file system, where there is one: a commit is five syncs. */
static inline void enter(void)
{
	real_os = os;
	scratch_find_modules(modules);
	snprintf(scratch, sizeof scratch, "%s/evbus-unit-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	cr_assert(mkdtemp(scratch) && !chdir(scratch));
	bus = open_bus();
	make_topic("t", 1);
	evbus_close(bus);
	bus = open_bus();
}

static inline void leave(void)
{
	os = real_os;
	evbus_close(bus);
	scratch_leave(scratch);
}

/* ---- publishing ---- */

/* key NULL: none. */
static inline void publish_to(const char *name, int32_t partition, const char *key, const char *payload)
{
	struct evbus_publisher *publisher;
	struct evbus_event event = { .topic = name,
				     .payload = { payload, strlen(payload) },
				     .key = { key, key ? strlen(key) : 0 },
				     .partition_id = partition };

	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
}

/* {"id":"N","n":N} for count of them, keys k0 … by n modulo keys, without any where that is 0. */
static inline void publish_many(const char *name, int32_t partition, int first, int count, int keys)
{
	struct evbus_publisher *publisher;
	char payload[64], key[16];

	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	for (int n = first; n < first + count; n++) {
		int len = snprintf(payload, sizeof payload, "{\"id\":\"%d\",\"n\":%d}", n, n);
		int key_len = snprintf(key, sizeof key, "k%d", keys ? n % keys : 0);
		struct evbus_event event = { .topic = name,
					     .payload = { payload, (size_t)len },
					     .key = { keys ? key : NULL, keys ? (size_t)key_len : 0 },
					     .partition_id = partition };
		OK(evbus_publisher_add(publisher, &event, &err));
	}
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
}

static inline void publish(int first, int count)
{
	publish_many("t", 0, first, count, 0);
}

/* ---- consuming ---- */

/* What a test does not say: the group g on all of the topic t, three attempts without a delay between them. */
static inline struct evbus_consumer_options options_with(struct evbus_consumer_options options)
{
	options.group = options.group ? options.group : "g";
	options.topic = options.topic ? options.topic : "t";
	if (options.retry.factor == 0)
		options.retry = (struct evbus_retry){ .max = 2, .factor = 1 };
	return options;
}

#define OPTIONS(...) options_with((struct evbus_consumer_options){ .partition_id = EVBUS_PARTITION_ALL, __VA_ARGS__ })

static inline struct evbus_consumer *consumer_with(struct evbus_consumer_options options)
{
	struct evbus_consumer *consumer = NULL;

	OK(evbus_consumer_open(bus, &options, &consumer, &err));
	return consumer;
}

#define CONSUMER(...) consumer_with(OPTIONS(__VA_ARGS__))

/* What opening one says. */
static inline enum evbus_code opening(struct evbus_consumer_options options)
{
	struct evbus_consumer *consumer;
	enum evbus_code code = evbus_consumer_open(bus, &options, &consumer, &err);

	if (!code)
		evbus_consumer_close(consumer);
	return code;
}

#define OPENING(...) opening(OPTIONS(__VA_ARGS__))

static inline struct evbus_delivery *next_within(struct evbus_consumer *consumer, int timeout_ms)
{
	struct evbus_delivery *delivery;

	OK(evbus_consumer_next(consumer, timeout_ms, &delivery, &err));
	return delivery;
}

static inline struct evbus_delivery *next(struct evbus_consumer *consumer)
{
	return next_within(consumer, 1000);
}

static inline int number_of(const struct evbus_delivery *delivery)
{
	struct evbus_slice payload = delivery->record->payload;
	const char *n = memmem(payload.data, payload.len, "\"n\":", 4);

	return n ? (int)scratch_number(n + 4) : -1;
}

/* There is a delivery, and it is this one. */
static inline struct evbus_delivery *expect(struct evbus_consumer *consumer, int number, uint32_t attempt)
{
	struct evbus_delivery *delivery = next(consumer);

	cr_assert_not_null(delivery, "nothing came, and %d was expected", number);
	cr_assert_eq(number_of(delivery), number, "%d came, and not %d", number_of(delivery), number);
	cr_assert_eq(delivery->attempt, attempt, "attempt %u, and not %u", delivery->attempt, attempt);
	return delivery;
}

static inline void done(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	OK(evbus_consumer_done(consumer, delivery, &err));
}

static inline bool failed(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	bool dead;

	OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, SLICE("it broke"), &dead, &err));
	return dead;
}

static inline void refused(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, SLICE("no good"), &err));
}

static inline void expect_end(struct evbus_consumer *consumer)
{
	struct evbus_delivery *delivery = next(consumer);

	cr_assert_null(delivery, "%d came", delivery ? number_of(delivery) : 0);
	cr_assert(evbus_consumer_finished(consumer));
}

/* Everything up to the end is done; how many there were. */
static inline int finish(struct evbus_consumer *consumer)
{
	int count = 0;

	for (struct evbus_delivery *delivery; (delivery = next(consumer)); count++)
		done(consumer, delivery);
	cr_assert(evbus_consumer_finished(consumer));
	evbus_consumer_close(consumer);
	return count;
}

/* ---- the store ---- */

/* The last row, or "". */
static inline const char *sql(const char *text)
{
	return stored_sql(STATE, text);
}

static inline int count_of(const char *what)
{
	char text[256];

	snprintf(text, sizeof text, "SELECT count(*) FROM %s", what);
	return (int)strtol(sql(text), NULL, 10);
}

/* The stored position of group g, -1 where there is none. */
static inline int stored_of(const char *topic, int32_t partition)
{
	struct evbus_checkpoint checkpoint;
	enum evbus_code code = evbus_checkpoint_get(bus, "g", topic, partition, &checkpoint, &err);

	cr_assert(code == EVBUS_OK || code == EVBUS_NONE, "%s", err.text);
	return code ? -1 : (int)strtol(checkpoint.next_offset, NULL, 10);
}

static inline int stored(void)
{
	return stored_of("t", 0);
}

static inline int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif

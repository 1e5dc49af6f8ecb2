/* The power goes while a bus and its topics are made from nothing, and after who made them was killed at any change: a
 * topic is there whole, with all its partitions and options, or not at all, and can be made then; and what another one
 * published to it is there, whoever made it. */
#include "power_bus.h"

#include <criterion/criterion.h>

TestSuite(power_create, .timeout = 36000);

#define FAR "/far/away" /* directories that are not there either */
#define TOPICS 2u

static const struct evbus_topic_options options[TOPICS] = { { .partitions = 2, .segment_max_bytes = 12345 },
							    { .partitions = 1, .segment_max_bytes = 54321 } };
static const char *const names[TOPICS] = { TOPIC, "bills" };

/* In memory that is shared with who is killed. */
struct promises {
	size_t made_at[TOPICS], published_at[TOPICS];
};

static struct promises *promised;

static struct evbus *open_far(const char *path)
{
	char far[64];

	snprintf(far, sizeof far, "%s" FAR, path);
	return bus_open(far);
}

static void make_topics(struct evbus *bus)
{
	bool created;

	for (unsigned i = 0; i < TOPICS; i++) {
		CHECK_OK(evbus_topic_create(bus, names[i], &options[i], &created, ERR));
		if (disk_is_recording())
			promised->made_at[i] = disk_changes();
	}
}

/* To the last partition of each. */
static void publish(struct evbus *bus)
{
	struct evbus_publisher *publisher;

	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	for (unsigned i = 0; i < TOPICS; i++) {
		const struct evbus_event event = { .topic = names[i],
						   .payload = { "{\"id\":\"e1\"}", 11 },
						   .partition_id = (int32_t)options[i].partitions - 1 };
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		CHECK_OK(evbus_publisher_flush(publisher, ERR));
		if (disk_is_recording())
			promised->published_at[i] = disk_changes();
	}
	evbus_publisher_close(publisher);
}

static void prepare(void)
{
	for (unsigned i = 0; i < TOPICS; i++)
		promised->made_at[i] = promised->published_at[i] = NEVER;
}

static void make_all(void)
{
	struct evbus *bus = open_far("live");

	make_topics(bus);
	publish(bus);
	evbus_close(bus);
}

/* ---- the oracle ---- */

static void ready(const char *path)
{
	char far[64];

	snprintf(far, sizeof far, "%s" FAR, path);
	bus_ready(far);
	snprintf(far, sizeof far, "%s" FAR "/bus/bills/partition=0.lock", path);
	mend_page(far);
}

static void check_topic(struct evbus *bus, unsigned i, size_t changes)
{
	struct evbus_partition_info info;
	struct evbus_err err;
	const int32_t last = (int32_t)options[i].partitions - 1;

	enum evbus_code code = evbus_topic_describe(bus, names[i], last, &info, &err);
	bool made = was_promised(promised->made_at[i], changes);
	CHECK(!code || (code == EVBUS_NONE && !made), "topic '%s' is%s made, and describing it: %d: %s", names[i],
	      made ? "" : " not", (int)code, err.text);
	CHECK(code || evbus_topic_describe(bus, names[i], last + 1, &info, &err) == EVBUS_NONE,
	      "'%s' has more partitions", names[i]);
}

struct count {
	const char *topic;
	unsigned events;
};

static unsigned count_events(struct evbus *bus, const char *topic)
{
	const struct evbus_selection selection = { .topic = topic, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	unsigned count = 0;

	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	do {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		count += record != NULL;
	} while (record);
	evbus_reader_close(reader);
	return count;
}

static void check(const char *path, size_t changes)
{
	unsigned before[TOPICS];

	restart_machine();
	struct evbus *bus = open_far(path);
	for (unsigned i = 0; i < TOPICS; i++)
		check_topic(bus, i, changes);
	make_topics(bus);
	for (unsigned i = 0; i < TOPICS; i++) {
		before[i] = count_events(bus, names[i]);
		CHECK(before[i] || !was_promised(promised->published_at[i], changes),
		      "what was published to '%s' is gone", names[i]);
	}
	publish(bus);
	for (unsigned i = 0; i < TOPICS; i++)
		CHECK(count_events(bus, names[i]) == before[i] + 1, "publishing to '%s' added %u", names[i],
		      count_events(bus, names[i]) - before[i]);
	evbus_close(bus);
}

/* ---- what happens ---- */

static void begin(void)
{
	states_begin();
	promised = notes_share(sizeof *promised);
}

static void keep(const char *path, size_t changes)
{
	static struct promises own;

	own = *promised;
	promised = &own;
	promises_keep(promised->made_at, TOPICS, changes);
	promises_keep(promised->published_at, TOPICS, changes);
	check(path, 0);
}

Test(power_create, of_a_bus_and_topics_leaves_whole_topics_or_none)
{
	begin();
	const struct states states = {
		.ready = ready, .check = check, .drawn = 12, .parts = 1, .every = run_count(3, 12), .before = ""
	};
	prepare();
	disk_record("live");
	make_all();
	disk_stop();
	states_check(&states, 0);
	states_check_twice(&states, 0, run_count(6, 1), keep);
	states_end("creation");
}

Test(power_create, by_who_is_killed_at_any_change_leaves_topics_that_another_can_use)
{
	char before[64];
	unsigned kills = 0;
	bool killed = true;

	begin();
	const struct states states = {
		.ready = ready, .check = check, .drawn = 1, .parts = 40, .every = run_count(12, 40), .before = before
	};
	for (size_t at = 1; killed; at += run_count(1, 4), kills++) {
		snprintf(before, sizeof before, "killed at change %zu, ", at);
		size_t changes = states_record_killed(at, prepare, make_all, make_all, &killed);
		states_check(&states, changes);
	}
	CHECK(kills >= run_count(40, 10), "%u kills are too few", kills);
	states_end("killed creators");
}

/* What publishes, reads and mends logs is killed at each of its calls (scenes.h). */
#include "scenes.h"

#include <criterion/criterion.h>

/* ---- publishing ------------------------------------------------------------------------------------------------ */

static unsigned before[EVENTS];

static void prepare_events(unsigned round)
{
	write_ids("in", round, EVENTS);
}

static void prepare_rolling(unsigned round)
{
	make_topic(1, 300);
	prepare_events(round);
}

static void prepare_lanes(unsigned round)
{
	if (round == 1)
		make_topic(3, 0);
	prepare_events(round);
}

static void killed_publish(unsigned round)
{
	for (unsigned i = 0; i < EVENTS; i++) {
		before[i] = on_log(TOPIC, round, i);
		CHECK(before[i] <= 1, "an event is there %u times", before[i]);
	}
}

/* In one partition, what comes later is there only if all before it is. */
static void killed_in_order(unsigned round)
{
	killed_publish(round);
	for (unsigned i = 1; i < EVENTS; i++)
		CHECK(before[i] <= before[i - 1], "event %u is there, and that before it is not", i);
}

static void killed_atomic(unsigned round)
{
	killed_publish(round);
	for (unsigned i = 1; i < EVENTS; i++)
		CHECK(before[i] == before[0], "half of a batch is there");
}

/* What was appended and not synced was not shown; the next one takes it over, or cuts it off. */
static void done_publish(unsigned round)
{
	for (unsigned i = 0; i < EVENTS; i++) {
		unsigned count = on_log(TOPIC, round, i);
		CHECK(count == before[i] + 1 || count == 2, "event %u is there %u times, and was before %u", i, count,
		      before[i]);
	}
}

static void done_atomic(unsigned round)
{
	done_publish(round);
	for (unsigned i = 1; i < EVENTS; i++)
		CHECK(on_log(TOPIC, round, i) == on_log(TOPIC, round, 0), "half of a batch is there");
}

/* So many that a thread writes them. */
#define MANY 9000u

static void prepare_many(unsigned round)
{
	write_ids("in", round, MANY);
}

/* From its first to its last, in their order, up to the `end`th record. */
static void check_many(unsigned round, unsigned from, unsigned end)
{
	char id[24];

	for (unsigned i = from; i < end; i++) {
		snprintf(id, sizeof id, "%u-%u", round, i - from);
		CHECK(!strcmp(log_id_at(i), id), "%s stands where %s should", log_id_at(i), id);
	}
}

static void killed_many(unsigned round)
{
	check_many(round, 0, log_count());
}

static void done_many(unsigned round)
{
	unsigned count = log_count();

	CHECK(count >= MANY, "there are %u events", count);
	check_many(round, 0, count - MANY);
	check_many(round, count - MANY, count);
}

static void done_read(unsigned round)
{
	done_once(round);
	CHECK(check_receipts("out") == EVENTS * round, "not all was read");
}

static void prepare_replay(unsigned round)
{
	if (round == 1)
		program_must(0, NULL, NULL, "topic-create -q copy");
	prepare_published(round);
}

static void done_replay(unsigned round)
{
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK(on_log("copy", round, i) >= 1 && on_log("copy", round, i) <= 2, "event %u was copied %u times", i,
		      on_log("copy", round, i));
}

static void done_topic(unsigned round)
{
	struct evbus_partition_info info;
	struct evbus *bus = open_bus();
	char topic[24];

	snprintf(topic, sizeof topic, "topic%u", round);
	CHECK_OK(evbus_topic_describe(bus, topic, 2, &info, ERR));
	CHECK(info.partitions == 3, "it has %u partitions", info.partitions);
	evbus_close(bus);
}

/* ---- a log that was torn --------------------------------------------------------------------------------------- */

#define TORN "{\"crc32c\":\"0badcafe\",\"offset\":\""

static void prepare_torn(unsigned round)
{
	prepare_published(round);
	CHECK(!unlink("bus/" TOPIC "/partition=0.lock"), "there is no lock file");
	FILE *log = fopen("bus/" TOPIC "/partition=0.jsonl", "a");
	CHECK(log && fprintf(log, TORN "%u", round) > 0 && !fclose(log), "cannot tear the log");
}

static void done_torn(unsigned round)
{
	char command[200];

	done_once(round);
	snprintf(command, sizeof command, "grep -qxF '" TORN "%u' bus/" TOPIC "/*.torn-*", round);
	CHECK(system(command) == 0, "what was cut off is nowhere"); // NOLINT(cert-env33-c)
}

/* ---- the scenes ------------------------------------------------------------------------------------------------ */

static const struct scene scenes[] = {
	{ .name = "publish, no bus",
	  .fresh = true,
	  .receipts = true,
	  .prepare = prepare_events,
	  .in = "in",
	  .words = "publish -t " TOPIC RECEIPT,
	  .killed = killed_in_order,
	  .done = done_publish },
	{ .name = "publish",
	  .all = true,
	  .every = 3,
	  .receipts = true,
	  .prepare = prepare_events,
	  .in = "in",
	  .words = "publish -t " TOPIC RECEIPT,
	  .killed = killed_in_order,
	  .done = done_publish },
	{ .name = "publish --atomic",
	  .receipts = true,
	  .prepare = prepare_events,
	  .in = "in",
	  .words = "publish --atomic -t " TOPIC RECEIPT,
	  .killed = killed_atomic,
	  .done = done_atomic },
	{ .name = "publish, rolling",
	  .fresh = true,
	  .receipts = true,
	  .prepare = prepare_rolling,
	  .in = "in",
	  .words = "publish -t " TOPIC RECEIPT,
	  .killed = killed_in_order,
	  .done = done_publish },
	{ .name = "publish by key",
	  .receipts = true,
	  .prepare = prepare_lanes,
	  .in = "in",
	  .words = "publish --key-from /id -t " TOPIC RECEIPT,
	  .killed = killed_publish,
	  .done = done_publish },
	{ .name = "publish --idempotent, no bus",
	  .fresh = true,
	  .receipts = true,
	  .prepare = prepare_events,
	  .in = "in",
	  .words = "publish --idempotent -t " TOPIC RECEIPT,
	  .killed = killed_in_order,
	  .done = done_once },
	{ .name = "publish --idempotent, rolling",
	  .fresh = true,
	  .receipts = true,
	  .prepare = prepare_rolling,
	  .in = "in",
	  .words = "publish --idempotent -t " TOPIC RECEIPT,
	  .killed = killed_in_order,
	  .done = done_once },
	{ .name = "publish, many",
	  .fresh = true,
	  .receipts = true,
	  .every = 3,
	  .prepare = prepare_many,
	  .in = "in",
	  .words = "publish -t " TOPIC RECEIPT,
	  .killed = killed_many,
	  .done = done_many },
	{ .name = "tail",
	  .receipts = true,
	  .prepare = prepare_published,
	  .words = "tail -o 0 -t " TOPIC RECEIPT,
	  .done = done_read },
	{ .name = "replay --to-topic",
	  .receipts = true,
	  .prepare = prepare_replay,
	  .words = "replay -t " TOPIC " -o -4 --to-topic copy" RECEIPT,
	  .done = done_replay },
	{ .name = "topic-create", .words = "topic-create -q topic%u --partitions 3", .done = done_topic },
	{ .name = "verify --repair", .prepare = prepare_torn, .words = "verify --repair -q", .done = done_torn },
};

TestSuite(kill_each, .init = scenes_begin, .fini = run_end, .timeout = 600);

Test(kill_each, call_of_what_changes_a_log_leaves_one_that_is_whole_and_goes_on)
{
	for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
		scene_run(&scenes[i], 29);
}

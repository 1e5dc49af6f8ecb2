/* Many processes publish the same events idempotently, are killed at any call, have syncs that fail, and their lock file
 * deleted under them: the log holds each key once, and whoever has a receipt for it has the same. */
#include "doom.h"
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>

#define WRITERS 8u
#define KEYS 1000u               /* so few that nobody stores them: the store has its own tests */
#define KEYS_LOCK "bus/" TOPIC "/keys.lock"

static uint64_t dice;
static bool deletes, kills, fails;

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(100);
}

TestSuite(once, .init = setup, .fini = run_end, .timeout = 300);

/* ---- the writers ---- */

enum counter {
	STARTED,
	DONE,                    /* writers that have a receipt for each event */
	KILLED,
	DELETED,
	SYNCS_FAILED,
	REPEATED,
};

/* The receipts of an event are all the same, whoever got them. */
static void note(const struct evbus_record *receipt, unsigned key)
{
	uint64_t offset, none = 0;

	CHECK(decimal_parse(receipt->offset, &offset), "the receipt has no offset");
	uint64_t place = place_of(receipt->partition_id, offset) + 1;
	if (!atomic_compare_exchange_strong(&notes->places[key], &none, place))
		CHECK(none == place, "event %u has a receipt for place %llx and one for %llx", key,
		      (unsigned long long)none, (unsigned long long)place);
	if (receipt->duplicate)
		atomic_fetch_add(&notes->counters[REPEATED], 1);
}

static unsigned key_of(struct evbus_slice payload)
{
	unsigned key = KEYS;

	CHECK(payload.len < 64 && sscanf(payload.data, "{\"id\":\"%u\"}", &key) == 1 && key < KEYS, "what is that: %.*s",
	      (int)payload.len, payload.data);
	return key;
}

static int failing_sync(int fd)
{
	if (random_next(&dice) % 5 == 0) {
		atomic_fetch_add(&notes->counters[SYNCS_FAILED], 1);
		errno = EIO;
		return -1;
	}
	return fdatasync(fd);
}

static enum evbus_code publish_some(struct evbus_publisher *publisher, unsigned *key, struct evbus_err *err)
{
	unsigned count = 1 + (unsigned)(random_next(&dice) % 40), last = *key;
	const struct evbus_record *receipt;
	enum evbus_code code = EVBUS_OK;

	for (; last < KEYS && last < *key + count && !code; last++) {
		char payload[64];
		struct evbus_event event = { .topic = TOPIC,
					     .partition_id = (int32_t)(random_next(&dice) % notes->lanes) };
		event.payload.data = payload;
		event.payload.len = (size_t)snprintf(payload, sizeof payload, "{\"id\":\"%u\"}", last);
		code = evbus_publisher_add(publisher, &event, err);
	}
	if (!code)
		code = evbus_publisher_flush(publisher, err);
	while ((receipt = evbus_publisher_next(publisher))) {
		CHECK(key_of(receipt->payload) == *key, "a receipt out of order");
		note(receipt, (*key)++);
	}
	CHECK(code || *key == last, "%u receipts are missing", last - *key);
	return code;
}

static void publish_all(unsigned writer)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	struct evbus_err err;
	unsigned key = 0;

	dice = run.seed ^ writer << 8 ^ atomic_fetch_add(&notes->counters[STARTED], 1) << 20;
	if (fails)
		os.fdatasync = failing_sync;
	if (kills)
		doom_at(1 + random_next(&dice) % 6000);
	while (key < KEYS) {
		CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
		while (key < KEYS) {
			if (publish_some(publisher, &key, &err) == EVBUS_OK)
				continue;
			CHECK(fails && (err.code == EVBUS_IO || err.code == EVBUS_CONFLICT), "%d: %s", (int)err.code,
			      err.text);
			break;
		}
		evbus_publisher_close(publisher);
	}
	evbus_close(bus);
	atomic_fetch_add(&notes->counters[DONE], 1);
}

/* ---- what is done to them ---- */

static void delete_lock(unsigned index)
{
	(void)index;
	while (atomic_load(&notes->counters[DONE]) < WRITERS) {
		if (!unlink(KEYS_LOCK))
			atomic_fetch_add(&notes->counters[DELETED], 1);
		pause_us(200);
	}
}

static bool was_killed(int status)
{
	child_check();
	CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
	      "a writer ended with status %x", (unsigned)status);
	return WIFSIGNALED(status);
}

/* Those that were killed begin anew, at last without being killed. */
static void run_writers(void)
{
	pid_t writers[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(publish_all, i);
	for (unsigned i = 0; i < WRITERS; i++)
		while (was_killed(child_reap(writers[i]))) {
			kills = kills && atomic_fetch_add(&notes->counters[KILLED], 1) < run_count(200, 60);
			writers[i] = child_start(publish_all, i);
		}
}

/* ---- the oracle ---- */

static void check_log(void)
{
	struct evbus *bus = open_bus();
	struct evbus_selection all = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	unsigned count = 0;
	uint64_t offset;

	CHECK_OK(evbus_reader_open(bus, &all, &reader, ERR));
	for (;; count++) {
		CHECK_OK(evbus_reader_next(reader, -1, &record, ERR));
		if (!record)
			break;
		unsigned key = key_of(record->payload);
		CHECK(decimal_parse(record->offset, &offset), "no offset");
		CHECK(atomic_load(&notes->places[key]) == place_of(record->partition_id, offset) + 1,
		      "event %u stands at %d/%llu too", key, record->partition_id, (unsigned long long)offset);
	}
	CHECK(count == KEYS, "the log holds %u events", count);
	evbus_reader_close(reader);
	evbus_close(bus);
}

static void publish_the_same(const char *what, unsigned lanes, uint64_t segment_max_bytes)
{
	notes_new(1, KEYS, 0, lanes);
	make_topic(lanes, segment_max_bytes);
	pid_t deleter = deletes ? child_start(delete_lock, 0) : 0;
	run_writers();
	if (deletes)
		child_join(deleter);
	check_log();
	CHECK(atomic_load(&notes->counters[REPEATED]) > KEYS, "hardly any event was a repeat");
	CHECK(!deletes || atomic_load(&notes->counters[DELETED]) > 10, "the lock file was hardly ever deleted");
	run_ran(what, KEYS, KEYS);
}

Test(once, the_same_events_of_many_processes_are_in_the_log_once_and_have_one_receipt_each)
{
	publish_the_same("together", 1, 0);
}

Test(once, also_where_each_sends_an_event_to_another_partition)
{
	publish_the_same("three partitions", 3, 20000);
}

Test(once, also_while_they_are_killed_at_any_call)
{
	kills = true;
	publish_the_same("killed", 3, 20000);
	CHECK(atomic_load(&notes->counters[KILLED]) > 20, "hardly any was killed");
}

Test(once, also_while_the_lock_file_is_deleted_under_them)
{
	deletes = true;
	publish_the_same("deleted lock", 2, 0);
}

Test(once, also_while_syncs_fail)
{
	fails = true;
	publish_the_same("failing syncs", 2, 0);
	CHECK(atomic_load(&notes->counters[SYNCS_FAILED]) > 0, "no sync failed");
}

Test(once, also_while_all_of_it_happens_at_once)
{
	kills = deletes = fails = true;
	publish_the_same("all at once", 2, 20000);
}

/* The power goes while a group consumes: what is done, dead and next changes together, in the store, or not at all; and
 * nothing that was saved is lost. SQLite's own writes are recorded as ours are. */
#include "disk.h"
#include "fault.h"

#include "bus.h"

#include <errno.h>
#include <criterion/criterion.h>
#include <sqlite3.h>
#include <sys/stat.h>

TestSuite(power_store, .timeout = 600);

#define EVENTS 6u
#define REGULAR_VARIANTS 6u
#define GROUP "ledger"

static size_t saved_at[EVENTS]; /* when the outcome of an event was durable; SIZE_MAX: it was not */
static uint64_t states, expected;
static char modules[PATH_MAX];

/* The build puts modules into lib, and this program into tests/fault. */
static void find_modules(void)
{
	static const char from_tests[] = "/../../lib";
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof exe - sizeof from_tests);

	CHECK(len > 0, "readlink: %s", strerror(errno));
	exe[len] = '\0';
	memcpy(strrchr(exe, '/'), from_tests, sizeof from_tests);
	CHECK(realpath(exe, modules), "there is no '%s'", exe);
}

static struct evbus *open_state(const char *path)
{
	const struct store_options store = { .module_dir = modules };
	struct evbus *bus;

	CHECK_OK(evbus_open(path, NULL, &bus, ERR));
	CHECK_OK(store_open(bus->root.fd, "sqlite:.evbus/state.db", &store, &bus->store, ERR));
	return bus;
}

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
	const struct evbus_slice why = { "no", 2 };
	struct evbus_delivery *delivery;

	CHECK_OK(evbus_consumer_next(consumer, 0, &delivery, ERR));
	if (!delivery)
		return EVENTS;
	uint64_t n = number_at(delivery->record->offset.data);
	if (n % 3 == 1)
		CHECK_OK(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, why, ERR));
	else if (n % 3 == 2)
		CHECK_OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, why, NULL, ERR));
	else
		CHECK_OK(evbus_consumer_done(consumer, delivery, ERR));
	CHECK_OK(evbus_consumer_commit(consumer, ERR));
	return n;
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

struct letters {
	unsigned of[EVENTS];
};

static enum evbus_code count_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	struct letters *letters = context;
	uint64_t n;
	CHECK(decimal_parse(letter->offset, &n), "a letter without an offset");

	(void)err;
	CHECK(n < EVENTS, "a letter of event %ju", (uintmax_t)n);
	letters->of[n]++;
	return EVBUS_OK;
}

static bool is_in_inbox(const char *path, uint64_t n)
{
	char file[128];
	sqlite3 *db;
	sqlite3_stmt *statement;

	snprintf(file, sizeof file, "%s/.evbus/state.db", path);
	if (access(file, F_OK))
		return false;
	CHECK(!sqlite3_open(file, &db), "cannot open '%s'", file);
	if (sqlite3_prepare_v2(db, "SELECT 1 FROM inbox WHERE event_id = 'e' || ?", -1, &statement, NULL)) {
		sqlite3_close(db);
		return false;
	}
	sqlite3_bind_int64(statement, 1, (int64_t)n);
	bool found = sqlite3_step(statement) == SQLITE_ROW;
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return found;
}

static void check_outcomes(struct evbus *bus, const char *path, uint64_t next)
{
	const struct evbus_letter_filter filter = { .reason = -1, .state = -1 };
	struct letters letters = { { 0 } };

	CHECK_OK(evbus_letter_list(bus, NULL, 0, &filter, count_letter, &letters, ERR));
	for (uint64_t n = 0; n < EVENTS; n++) {
		bool dead = n < next && is_dead(n);
		CHECK(letters.of[n] == dead, "the checkpoint is %ju, and event %ju has %u letters", (uintmax_t)next,
		      (uintmax_t)n, letters.of[n]);
		CHECK(is_in_inbox(path, n) == (n < next && !is_dead(n)),
		      "the checkpoint is %ju, and event %ju is%s in the inbox", (uintmax_t)next, (uintmax_t)n,
		      n < next && !is_dead(n) ? " not" : "");
	}
}

static void check_state(size_t changes, unsigned variant, uint64_t seed)
{
	snprintf(run.where, sizeof run.where, "after change %zu, variant %u, drawn by %ju: ", changes, variant,
		 (uintmax_t)seed);
	if (!access("state", F_OK))
		run_remove("state");
	CHECK(!mkdir("state", 0700), "cannot make a directory");
	disk_build(changes, variant, seed, "state");
	struct evbus *bus = open_state("state/bus");
	uint64_t next = checkpoint_of(bus);
	for (uint64_t n = 0; n < EVENTS; n++)
		CHECK(saved_at[n] > changes || next > n, "event %ju was saved, and the checkpoint is %ju", (uintmax_t)n,
		      (uintmax_t)next);
	check_outcomes(bus, "state/bus", next);
	struct evbus_consumer *consumer = consume(bus);
	while (next < EVENTS)
		CHECK(handle(consumer) == next++, "another event than the next one");
	CHECK(handle(consumer) == EVENTS, "an event more than there are");
	evbus_consumer_close(consumer);
	check_outcomes(bus, "state/bus", EVENTS);
	evbus_close(bus);
	states++;
	run.where[0] = '\0';
}

Test(power_store, goes_while_a_group_consumes)
{
	char payload[64];

	run_begin(IN_MEMORY);
	notes_new(1, 1, 0, 1);
	find_modules();
	CHECK(!mkdir("live", 0700), "cannot make a directory");
	struct evbus *publisher;
	CHECK_OK(evbus_open("live/bus", NULL, &publisher, ERR));
	for (unsigned n = 0; n < EVENTS; n++) {
		saved_at[n] = SIZE_MAX;
		snprintf(payload, sizeof payload, "{\"id\":\"e%u\"}", n);
		CHECK_OK(evbus_publish(publisher, TOPIC, payload, NULL, ERR));
	}
	evbus_close(publisher);
	disk_record("live");
	size_t begin = disk_changes();
	struct evbus *bus = open_state("live/bus");
	struct evbus_consumer *consumer = consume(bus);
	for (uint64_t n; (n = handle(consumer)) < EVENTS;)
		saved_at[n] = disk_changes();
	evbus_consumer_close(consumer);
	evbus_close(bus);
	disk_stop();
	size_t end = disk_changes();
	unsigned drawn = run_count(4, 0);
	for (size_t i = begin; i <= end; i += run_count(1, 3)) {
		unsigned variants = disk_uncertain(i) ? REGULAR_VARIANTS + drawn : 1;
		expected += variants;
		for (unsigned variant = 0; variant < variants; variant++)
			check_state(i, variant, run.seed * 1000003 + i * 1009 + variant);
	}
	run_ran("a group that consumes", states, expected);
	run_end();
}

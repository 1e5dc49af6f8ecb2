/* The power goes while an application writes outbox rows and a drainer publishes them, with the application's database
 * in either journal mode: a committed row is published, once, one that was rolled back never, and no row is marked that
 * is not on the log. The same where the drainer was killed before, and in the recovery of both. */
#include "power_bus.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(power_outbox, .timeout = 36000);

#define ROWS 12u
#define APP "/app.db"
#define LATE_US 60000000 /* after a restart all leases are over */

static struct {
	const char *journal_mode, *synchronous; /* the application's */
} setting;

/* In memory that is shared with who is killed. Every fourth row is rolled back. */
struct promises {
	size_t committed_at[ROWS], sent_at[ROWS];
	int64_t late_us;
};

static struct promises *promised;
static struct os real_os;

static bool is_rolled_back(uint64_t n)
{
	return n % 4 == 3;
}

static int late_clock(clockid_t clock, struct timespec *now)
{
	int rc = real_os.clock_gettime(clock, now);

	now->tv_sec += (time_t)(promised->late_us / 1000000);
	return rc;
}

/* ---- the application ---- */

static sqlite3 *open_app(const char *path)
{
	char name[64];

	snprintf(name, sizeof name, "%s" APP, path);
	return database_open(name);
}

/* FULL removes the rollback journal without syncing its directory (sqlite.org/pragma.html#pragma_synchronous): the last
 * commit may be undone, and only that it was not published before it was safe can be asked for. */
static bool commits_are_durable(void)
{
	return !strcmp(setting.journal_mode, "WAL") || !strcmp(setting.synchronous, "EXTRA");
}

/* Two rows in a transaction, on one key of three. */
static void insert(sqlite3 *db, unsigned first)
{
	char sql[300];

	database_run(db, "BEGIN IMMEDIATE");
	for (unsigned n = first; n < first + 2; n++) {
		snprintf(sql, sizeof sql,
			 "%sINSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES ('e%u', '" TOPIC
			 "', 't', 'k%u', '{\"id\":\"e%u\"}')%s",
			 is_rolled_back(n) ? "SAVEPOINT s; " : "", n, n % 3, n,
			 is_rolled_back(n) ? "; ROLLBACK TO s" : "");
		database_run(db, sql);
	}
	database_run(db, "COMMIT");
	for (unsigned n = first; n < first + 2; n++)
		promised->committed_at[n] = is_rolled_back(n) || !commits_are_durable() ? NEVER : disk_changes();
}

/* ---- the drainer ---- */

static enum evbus_code take_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *err)
{
	uint64_t n = number_at(receipt->payload.data + 8);

	(void)context;
	(void)err;
	CHECK(n < ROWS, "a receipt for row %ju", (uintmax_t)n);
	if (disk_is_recording())
		promised->sent_at[n] = disk_changes();
	return EVBUS_OK;
}

static void drain(struct evbus_outbox *outbox)
{
	const struct evbus_drain_options options = { .batch = 2,
						     .receipt = take_receipt,
						     .retry = EVBUS_RETRY_DEFAULT };
	struct evbus_drain_result result;

	do {
		CHECK_OK(evbus_outbox_drain(outbox, &options, &result, ERR));
		CHECK(!result.lost && !result.retried && !result.failed, "%ju rows lost, %ju retried, %ju failed",
		      (uintmax_t)result.lost, (uintmax_t)result.retried, (uintmax_t)result.failed);
	} while (result.claimed);
}

static struct evbus_outbox *open_outbox(struct evbus *bus, const char *path)
{
	struct evbus_outbox *outbox;
	char url[80];

	snprintf(url, sizeof url, "sqlite:%s" APP, path);
	CHECK_OK(evbus_outbox_open(bus, url, NULL, &outbox, ERR));
	return outbox;
}

static void drain_all(const char *path)
{
	struct evbus *bus = bus_open(path);
	struct evbus_outbox *outbox = open_outbox(bus, path);

	drain(outbox);
	evbus_outbox_close(outbox);
	evbus_close(bus);
}

/* ---- the oracle ---- */

struct on_log {
	sqlite3 *db;
	unsigned times[ROWS];
	uint64_t last[3]; /* by key */
};

static void check_record(void *context, const struct evbus_record *record, uint64_t n)
{
	struct on_log *seen = context;

	(void)record;
	CHECK(n < ROWS && !is_rolled_back(n), "row %ju was rolled back, and is on the log", (uintmax_t)n);
	CHECK(!seen->times[n]++, "row %ju is on the log twice", (uintmax_t)n);
	CHECK(n >= seen->last[n % 3], "row %ju stands behind row %ju of its key", (uintmax_t)n,
	      (uintmax_t)seen->last[n % 3]);
	seen->last[n % 3] = n;
	CHECK(database_ask(seen->db, "SELECT count(*) FROM outbox WHERE id = 'e' || ?", (int64_t)n) == 1,
	      "row %ju is on the log, and not in the database", (uintmax_t)n);
}

static void check_log(struct evbus *bus, struct on_log *seen)
{
	memset(seen->times, 0, sizeof seen->times);
	memset(seen->last, 0, sizeof seen->last);
	bus_read(bus, check_record, seen);
}

static void check_rows(struct on_log *seen, size_t changes)
{
	for (unsigned n = 0; n < ROWS; n++) {
		bool sent =
			database_ask(seen->db, "SELECT count(*) FROM outbox WHERE state = 'SENT' AND id = 'e' || ?", n);
		bool there = database_ask(seen->db, "SELECT count(*) FROM outbox WHERE id = 'e' || ?", n);
		CHECK(there || !was_promised(promised->committed_at[n], changes),
		      "row %u was committed and is not there", n);
		CHECK(!there || !is_rolled_back(n), "row %u was rolled back and is there", n);
		CHECK(!sent || seen->times[n], "row %u is marked, and is not on the log", n);
		CHECK(seen->times[n] || !was_promised(promised->sent_at[n], changes),
		      "row %u was published and is not there", n);
	}
}

static void check(const char *path, size_t changes)
{
	struct on_log seen = { .db = NULL };

	restart_machine();
	promised->late_us += LATE_US;
	seen.db = open_app(path);
	struct evbus *bus = bus_open(path);
	check_log(bus, &seen);
	check_rows(&seen, changes);
	database_check(seen.db);
	evbus_close(bus);
	sqlite3_close(seen.db);
	drain_all(path);
	bus = bus_open(path);
	seen.db = open_app(path);
	check_log(bus, &seen);
	CHECK(!database_ask(seen.db, "SELECT count(*) FROM outbox WHERE state <> 'SENT'", 0), "rows are left");
	for (unsigned n = 0; n < ROWS; n++)
		CHECK(seen.times[n] == database_ask(seen.db, "SELECT count(*) FROM outbox WHERE id = 'e' || ?", n),
		      "row %u is not on the log", n);
	sqlite3_close(seen.db);
	evbus_close(bus);
}

static void recover_recorded(const char *path, size_t changes)
{
	static struct promises own;

	own = *promised;
	promised = &own;
	promises_keep(promised->committed_at, ROWS, changes);
	promises_keep(promised->sent_at, ROWS, changes);
	check(path, 0);
}

/* ---- what happens ---- */

static void make_outbox(void)
{
	char sql[60];
	bool made, wal, created;

	for (unsigned n = 0; n < ROWS; n++)
		promised->committed_at[n] = promised->sent_at[n] = NEVER;
	promised->late_us = 0;
	sqlite3 *db = open_app("live");
	snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s; CREATE TABLE own (n)", setting.journal_mode);
	database_run(db, sql);
	sqlite3_close(db);
	struct evbus *bus = bus_open("live");
	struct evbus_outbox *outbox = open_outbox(bus, "live");
	CHECK_OK(evbus_outbox_init(outbox, &made, &wal, ERR));
	CHECK(made && wal == !strcmp(setting.journal_mode, "WAL"), "made %d, wal %d", made, wal);
	CHECK_OK(evbus_topic_create(bus, TOPIC, NULL, &created, ERR));
	evbus_outbox_close(outbox);
	evbus_close(bus);
}

static void work(void)
{
	sqlite3 *db = open_app("live");
	char sql[60];

	snprintf(sql, sizeof sql, "PRAGMA synchronous = %s", setting.synchronous);
	database_run(db, sql);
	struct evbus *bus = bus_open("live");
	struct evbus_outbox *outbox = open_outbox(bus, "live");

	for (unsigned n = 0; n < ROWS; n += 4) {
		insert(db, n);
		insert(db, n + 2);
		drain(outbox);
	}
	evbus_outbox_close(outbox);
	evbus_close(bus);
	sqlite3_close(db);
}

static void work_on(void)
{
	promised->late_us += LATE_US;
	drain_all("live");
}

static void begin(const char *journal_mode, const char *synchronous)
{
	states_begin();
	setting.journal_mode = journal_mode;
	setting.synchronous = synchronous;
	promised = notes_share(sizeof *promised);
	real_os = os;
	os.clock_gettime = late_clock;
}

static void cut(const char *journal_mode, const char *synchronous, const char *what)
{
	begin(journal_mode, synchronous);
	const struct states states = {
		.ready = bus_ready, .check = check, .drawn = 4, .parts = 1, .every = run_count(12, 200), .before = ""
	};
	empty_directory("live");
	make_outbox();
	disk_record("live");
	size_t first = disk_changes();
	work();
	disk_stop();
	states_check(&states, first);
	states_check_twice(&states, first, run_count(3, 1), recover_recorded);
	states_end(what);
}

Test(power_outbox, goes_while_an_outbox_is_drained)
{
	cut("DELETE", "EXTRA", "an outbox");
}

Test(power_outbox, goes_while_an_outbox_in_wal_mode_is_drained)
{
	cut("WAL", "FULL", "an outbox in WAL mode");
}

Test(power_outbox, goes_after_a_drainer_was_killed_at_any_change)
{
	char before[64];
	unsigned kills = 0;
	bool killed = true;

	begin("DELETE", "FULL");
	const struct states states = { .ready = bus_ready,
				       .check = check,
				       .drawn = 1,
				       .parts = 15,
				       .every = run_count(60, 300),
				       .before = before };
	for (size_t at = 1 + run.seed % run_count(11, 40); killed; at += run_count(11, 40), kills++) {
		snprintf(before, sizeof before, "killed at change %zu, ", at);
		size_t changes = states_record_killed(at, make_outbox, work, work_on, &killed);
		states_check(&states, changes);
	}
	CHECK(kills >= run_count(15, 4), "%u kills are too few", kills);
	states_end("killed drainers");
}

/* Applications write outbox rows, drainers are killed and stopped, somebody checkpoints, the bus is full: the log has
 * each committed event once, each key in order, and none that was rolled back. */
#include "outbox.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#define DRAINERS 3u
#define APP_KEYS 7u /* of each application's own; and one that all of them share */
#define LEASE_MS 300
#define LATE_US 120000000 /* by then everything is on the log */

_Atomic unsigned char *known[APPS];
struct setting setting;

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(1000);
	notes_new(1, 1, 0, 1);
	for (unsigned i = 0; i < APPS; i++)
		known[i] = notes_share(EVENTS_MAX);
}

TestSuite(outbox, .init = setup, .fini = run_end, .timeout = 400);

/* ---- the database ---------------------------------------------------------------------------------------------- */

sqlite3 *open_app(void)
{
	return open_db("app.db");
}

static int64_t ask(const char *statement)
{
	return ask_db("app.db", "%s", statement);
}

static void make_outbox(void)
{
	struct evbus *bus = open_bus();
	struct evbus_outbox *outbox;
	bool made, wal;
	char statement[80];

	sqlite3 *db = open_app();
	snprintf(statement, sizeof statement, "PRAGMA journal_mode = %s; CREATE TABLE own (n)", setting.journal);
	run_sql(db, statement);
	sqlite3_close(db);
	CHECK_OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, ERR));
	CHECK_OK(evbus_outbox_init(outbox, &made, &wal, ERR));
	CHECK(made && wal == !strcmp(setting.journal, "WAL"), "made %d, wal %d", made, wal);
	evbus_outbox_close(outbox);
	evbus_close(bus);
}

/* ---- applications ---------------------------------------------------------------------------------------------- */

static void insert(sqlite3 *db, unsigned app, unsigned n, uint64_t *dice)
{
	char statement[300], key[20];
	unsigned lane = (unsigned)(random_next(dice) % (APP_KEYS + 3));

	snprintf(key, sizeof key, lane < APP_KEYS ? "'k%u-%u'" : lane == APP_KEYS ? "NULL" : "'hot'", app, lane);
	snprintf(statement, sizeof statement,
		 "INSERT INTO outbox (id, topic, event_type, partition_key, payload) VALUES ('%u-%u', '%s', 't', %s, "
		 "'{\"id\":\"%u-%u\"}')",
		 app, n, n % 4 ? TOPIC : "bills", setting.hot ? "'hot'" : key, app, n);
	run_sql(db, statement);
}

/* Transactions of 1 to 5 rows beside a row of its own; a third of them is rolled back. */
static void run_application(unsigned app)
{
	uint64_t dice = run.seed + 1000 * app;
	sqlite3 *db = open_app();

	for (unsigned n = 0; n < setting.rows;) {
		unsigned first = n, count = 1 + (unsigned)(random_next(&dice) % 5);
		bool back = random_next(&dice) % 3 == 0;
		run_sql(db, "BEGIN IMMEDIATE; INSERT INTO own VALUES (1)");
		for (; n < first + count && n < setting.rows; n++)
			insert(db, app, n, &dice);
		run_sql(db, back ? "ROLLBACK" : "COMMIT");
		for (unsigned i = first; i < n; i++)
			atomic_store(&known[app][i], back ? ROLLED_BACK : COMMITTED);
		pause_us((int64_t)(random_next(&dice) % 1500));
	}
	sqlite3_close(db);
}

static void checkpoint_in_a_loop(unsigned index)
{
	static const char *const ways[] = { "PASSIVE", "FULL", "RESTART", "TRUNCATE" };
	sqlite3 *db = open_app();
	char statement[60];
	(void)index;

	for (unsigned i = 0; !atomic_load(&notes->stop); i++) {
		snprintf(statement, sizeof statement, "PRAGMA wal_checkpoint(%s)", ways[i % 4]);
		sqlite3_exec(db, statement, NULL, NULL, NULL);
		pause_us(3000);
	}
	sqlite3_close(db);
}

/* ---- drainers -------------------------------------------------------------------------------------------------- */

/* counters[0]: the log takes nothing; [1]: outages; [2]: rows sent; [3]: rows that were lost to others; [4]: those
 * that were late; [5]: drainers so far; [6]: writes to an application's WAL. */
static ssize_t write_to_full_disk(int fd, const void *data, size_t len, off_t at)
{
	if (atomic_load(&notes->counters[0]) && len > 100 && memcmp(data, "{\"crc32c\"", 9) == 0) {
		errno = ENOSPC;
		return -1;
	}
	return pwrite(fd, data, len, at);
}

/* In WAL mode only a checkpoint writes to the database itself, and that is the application's to make. */
static ssize_t (*real_pwrite)(int fd, const void *data, size_t len, off_t at);

static ssize_t write_but_no_checkpoint(int fd, const void *data, size_t len, off_t at)
{
	char link[40], path[PATH_MAX];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path);
	CHECK(n < 7 || memcmp(path + n - 7, "/app.db", 7) != 0, "a drainer has checkpointed the application's WAL");
	atomic_fetch_add(&notes->counters[6], 1);
	return real_pwrite(fd, data, len, at);
}

static void watch_writes(void)
{
	static const char *const names[] = { "pwrite64", "pwrite" };
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	for (size_t i = 0; i < 2 && !real_pwrite; i++)
		real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))vfs->xGetSystemCall(vfs, names[i]);
	CHECK(real_pwrite, "SQLite writes in another way");
	for (size_t i = 0; i < 2; i++)
		vfs->xSetSystemCall(vfs, names[i], (sqlite3_syscall_ptr)write_but_no_checkpoint);
}

static bool may_be_late;
static uint64_t late_dice;

/* Between claiming and publishing: one in twenty comes when its lease is over. */
static int lock_late(int fd, int cmd, struct flock *lock)
{
	if (may_be_late && random_next(&late_dice) % 20 == 0) {
		atomic_fetch_add(&notes->counters[4], 1);
		pause_us(setting.lease_ms * 1300);
	}
	may_be_late = false;
	return fcntl(fd, cmd, lock);
}

/* One after the other until it fails: then everything is opened anew. */
static void drain_for_a_while(struct evbus_outbox *outbox, const struct evbus_drain_options *options)
{
	struct evbus_drain_result result;
	struct evbus_err err;

	while (!atomic_load(&notes->stop)) {
		may_be_late = true;
		enum evbus_code code = evbus_outbox_drain(outbox, options, &result, &err);
		atomic_fetch_add(&notes->counters[2], result.sent);
		atomic_fetch_add(&notes->counters[3], result.lost);
		CHECK(!result.failed && !result.retried, "%u rows were refused",
		      (unsigned)(result.failed + result.retried));
		CHECK(!code || code == EVBUS_AGAIN || code == EVBUS_IO || code == EVBUS_UNAVAILABLE, "%d: %s",
		      (int)code, err.text);
		atomic_fetch_add(&notes->counters[1], code && result.outage);
		if (code)
			return;
		if (!result.claimed)
			pause_us(2000);
	}
}

static void run_drainer(unsigned index)
{
	const struct evbus_drain_options options = { .batch = setting.batch,
						     .lease_ms = setting.lease_ms,
						     .retry = EVBUS_RETRY_DEFAULT };

	late_dice = run.seed ^ (atomic_fetch_add(&notes->counters[5], 1) << 20 | index);
	os.pwrite = write_to_full_disk;
	os.lock = lock_late;
	if (!strcmp(setting.journal, "WAL"))
		watch_writes();
	while (!atomic_load(&notes->stop)) {
		struct evbus *bus = open_bus();
		struct evbus_outbox *outbox;
		CHECK_OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, ERR));
		drain_for_a_while(outbox, &options);
		evbus_outbox_close(outbox);
		evbus_close(bus);
		pause_us(5000);
	}
}

/* ---- what must hold -------------------------------------------------------------------------------------------- */

static void wait_until_sent(void)
{
	int64_t start = now_us();

	while (ask("SELECT COUNT(*) FROM outbox WHERE state <> 'SENT'")) {
		child_check();
		CHECK(now_us() - start < LATE_US, "%lld rows are not sent",
		      (long long)ask("SELECT COUNT(*) FROM outbox WHERE state <> 'SENT'"));
		pause_us(100000);
	}
}

/* ---- the runs -------------------------------------------------------------------------------------------------- */

struct crew {
	pid_t apps[APPS], drainers[DRAINERS], checkpointer;
	unsigned drainer_count;
};

static void start(struct crew *crew, unsigned drainers, bool checkpoints)
{
	make_outbox();
	*crew = (struct crew){ .drainer_count = drainers };
	for (unsigned i = 0; i < APPS; i++)
		crew->apps[i] = child_start(run_application, i);
	for (unsigned i = 0; i < drainers; i++)
		crew->drainers[i] = child_start(run_drainer, i);
	if (checkpoints)
		crew->checkpointer = child_start(checkpoint_in_a_loop, 0);
}

static void finish(struct crew *crew)
{
	for (unsigned i = 0; i < APPS; i++)
		child_join(crew->apps[i]);
	wait_until_sent();
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < crew->drainer_count; i++)
		child_join(crew->drainers[i]);
	if (crew->checkpointer)
		child_join(crew->checkpointer);
	check_all();
}

static void kill_one(struct crew *crew, uint64_t *dice)
{
	unsigned victim = (unsigned)(random_next(dice) % crew->drainer_count);

	kill(crew->drainers[victim], SIGKILL);
	int status = child_reap(crew->drainers[victim]);
	child_check();
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a drainer ended with status %x", (unsigned)status);
	crew->drainers[victim] = child_start(run_drainer, victim);
}

/* For longer than its lease: others take its rows, and it wakes up and thinks that they are its own. */
static void stop_one(struct crew *crew, uint64_t *dice)
{
	unsigned victim = (unsigned)(random_next(dice) % crew->drainer_count);

	kill(crew->drainers[victim], SIGSTOP);
	pause_us(setting.lease_ms * 1500);
	kill(crew->drainers[victim], SIGCONT);
}

static void kill_and_stop(const char *what, const char *journal, unsigned kills, unsigned stops)
{
	struct crew crew;
	uint64_t dice = run.seed;
	unsigned killed = 0, stopped = 0;

	setting.rows = run_count(5000, 1000);
	setting.batch = 40;
	setting.lease_ms = LEASE_MS;
	setting.journal = journal;
	start(&crew, DRAINERS, !strcmp(journal, "WAL"));
	while (killed < kills) {
		pause_us((int64_t)(random_next(&dice) % 120000));
		kill_one(&crew, &dice);
		killed++;
		if (killed % (kills / stops) == 0) {
			stop_one(&crew, &dice);
			stopped++;
		}
	}
	finish(&crew);
	CHECK(atomic_load(&notes->counters[4]) > 0, "none was ever late");
	CHECK(strcmp(journal, "WAL") != 0 || atomic_load(&notes->counters[6]) > 100,
	      "the writes of drainers are not seen");
	run_ran(what, killed + stopped, kills + stops);
}

Test(outbox, drainers_that_are_killed_and_stopped_publish_each_committed_event_once_and_in_order)
{
	kill_and_stop("kills and stops of drainers, WAL, with checkpoints", "WAL", run_count(100, 20),
		      run_count(10, 2));
}

Test(outbox, the_same_with_a_rollback_journal)
{
	kill_and_stop("kills and stops of drainers, rollback journal", "DELETE", run_count(40, 10), run_count(4, 1));
}

Test(outbox, two_on_one_hot_key_keep_its_order)
{
	struct crew crew;
	uint64_t dice = run.seed;
	unsigned stops = run_count(20, 5);

	setting.rows = run_count(1500, 400);
	setting.batch = 10;
	setting.lease_ms = 100;
	setting.hot = true;
	setting.journal = "WAL";
	start(&crew, 2, true);
	for (unsigned i = 0; i < stops; i++) {
		pause_us((int64_t)(random_next(&dice) % 30000));
		stop_one(&crew, &dice);
	}
	finish(&crew);
	run_ran("stops of drainers on one key", stops, stops);
}

Test(outbox, while_the_bus_is_full_no_attempt_is_counted_and_nothing_is_marked)
{
	struct crew crew;
	unsigned rounds = run_count(10, 3), full = 0;

	setting.rows = run_count(3000, 800);
	setting.batch = 40;
	setting.lease_ms = LEASE_MS;
	setting.journal = "WAL";
	start(&crew, DRAINERS, false);
	for (; full < rounds; full++) {
		pause_us(100000);
		atomic_store(&notes->counters[0], 1);
		uint64_t outages = atomic_load(&notes->counters[1]);
		while (atomic_load(&notes->counters[1]) < outages + 10) {
			child_check();
			pause_us(1000);
			if (!ask("SELECT COUNT(*) FROM outbox WHERE state <> 'SENT'"))
				break;
		}
		CHECK(!ask("SELECT COUNT(*) FROM outbox WHERE attempts <> 0 OR state = 'FAILED'"),
		      "an attempt was counted");
		atomic_store(&notes->counters[0], 0);
	}
	finish(&crew);
	run_ran("outages", full, rounds);
}

/* ---- a bus that is away for ten minutes of simulated time ------------------------------------------------------ */

#define AWAY_S 600
static int64_t ahead_s;
static bool is_away;

static int clock_ahead(clockid_t clock, struct timespec *now)
{
	int failed = clock_gettime(clock, now);

	now->tv_sec += ahead_s;
	return failed;
}

/* The directory of the application's database has an absolute path. */
static int open_unless_away(int dir, const char *path, int flags, mode_t mode)
{
	if (!is_away || *path == '/' || strstr(path, "app.db"))
		return openat(dir, path, flags, mode);
	errno = EHOSTDOWN;
	return -1;
}

static ssize_t write_unless_away(int fd, const void *data, size_t len, off_t at)
{
	if (is_away)
		errno = EHOSTDOWN;
	return is_away ? -1 : pwrite(fd, data, len, at);
}

/* What `outbox-drain --follow` does: again and again, a second later each time. */
static void drain_while_away(struct evbus_outbox *outbox)
{
	const struct evbus_drain_options options = { .batch = 40, .retry = EVBUS_RETRY_DEFAULT };
	struct evbus_drain_result result;
	struct evbus_err err;

	for (unsigned i = 0; i < AWAY_S; i++, ahead_s++) {
		enum evbus_code code = evbus_outbox_drain(outbox, &options, &result, &err);
		CHECK(code && result.outage, "the bus is away, and it was not noticed: %d: %s", (int)code, err.text);
		CHECK(!result.sent && !result.retried && !result.failed, "rows were sent or refused");
	}
}

static void drain_all(struct evbus_outbox *outbox)
{
	const struct evbus_drain_options options = { .batch = 40, .retry = EVBUS_RETRY_DEFAULT };
	struct evbus_drain_result result;

	do
		CHECK_OK(evbus_outbox_drain(outbox, &options, &result, ERR));
	while (result.claimed);
}

Test(outbox, a_bus_that_is_away_for_ten_minutes_costs_no_attempt_and_marks_nothing)
{
	struct evbus_outbox *outbox;

	setting.rows = run_count(500, 100);
	setting.journal = "DELETE";
	make_outbox();
	struct evbus *bus = open_bus();
	CHECK_OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, ERR));
	for (unsigned i = 0; i < APPS; i++)
		child_join(child_start(run_application, i));
	os.clock_gettime = clock_ahead;
	os.openat = open_unless_away;
	os.pwrite = write_unless_away;
	is_away = true;
	drain_while_away(outbox);
	CHECK(ask("SELECT COUNT(*) FROM outbox WHERE state <> 'PENDING' OR attempts <> 0 OR last_error IS NOT NULL") ==
		      0,
	      "something was marked");
	is_away = false;
	drain_all(outbox);
	evbus_outbox_close(outbox);
	evbus_close(bus);
	check_all();
	run_ran("seconds of a bus that is away", (uint64_t)ahead_s, AWAY_S);
}

/* The store: what it refuses, and what it survives. */
#include "store_helpers.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(store_faults, .init = setup, .fini = teardown, .timeout = 120);

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for(pid_t child)
{
	int status;

	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

/* ---- what it refuses ------------------------------------------------------------------------------------------- */

Test(store_faults, of_a_newer_version_is_refused_also_while_it_is_in_use)
{
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	sql("state.db", "UPDATE evbus_schema SET version = 99");
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "has tables of version 99, and this evbus knows them up to 3: use a newer evbus"),
		  "%s", err.text);
	store_close(store);
	cr_assert_eq(get_code("state.db"), EVBUS_CONFIG);
	cr_assert_eq(put_code("state.db"), EVBUS_CONFIG);
	sql("state.db", "UPDATE evbus_schema SET version = 3");
	store = open_store("state.db");
	cr_assert_eq(position(store, 0), 1);
	store_close(store);
}

Test(store_faults, in_wal_mode_is_refused_also_while_it_is_in_use)
{
	OF_FILES;
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	sql("state.db", "PRAGMA journal_mode=WAL; CREATE TABLE x(y)");
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "WAL mode"), "%s", err.text);
	store_close(store);
	cr_assert_eq(get_code("state.db"), EVBUS_CONFIG);
	sql("state.db", "PRAGMA journal_mode=DELETE");
	store = open_store("state.db");
	cr_assert_eq(position(store, 0), 1);
	store_close(store);
}

Test(store_faults, lives_beside_the_tables_of_an_application)
{
	stored_empty("app.db");
	sql("app.db", "CREATE TABLE orders(id BIGINT); INSERT INTO orders VALUES (1)");
	if (!stored_on_server())
		sql("app.db", "PRAGMA user_version = 77");
	cr_assert_eq(get_code("app.db"), EVBUS_NONE);
	cr_assert_eq(put_code("app.db"), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(sql("app.db", "SELECT count(*) FROM orders"), "1");
	cr_assert(stored_on_server() || !strcmp(sql("app.db", "PRAGMA user_version"), "77"));
	stored_empty("other.db");
	sql("other.db", "CREATE TABLE checkpoints(id BIGINT)");
	cr_assert_eq(put_code("other.db"), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "checkpoints"), "%s", err.text);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "wb");

	cr_assert(file && fwrite(data, 1, len, file) == len && !fclose(file));
}

Test(store_faults, that_is_no_database_is_named)
{
	OF_FILES;
	char junk[8192];

	memset(junk, 'x', sizeof junk);
	write_file("junk.db", junk, sizeof junk);
	cr_assert_eq(put_code("junk.db"), EVBUS_IO);
	cr_assert(strstr(err.text, "junk.db' is not an SQLite database"), "%s", err.text);
	cr_assert_eq(get_code("junk.db"), EVBUS_IO);
	write_file("empty.db", junk, 0);
	cr_assert_eq(get_code("empty.db"), EVBUS_NONE);
	cr_assert_eq(put_code("empty.db"), EVBUS_OK, "%s", err.text);
}

/* 100 % detected or harmless. */
Test(store_faults, with_a_flipped_bit_in_its_header_is_refused_or_reads_as_before)
{
	OF_FILES;
	unsigned char image[65536];
	struct evbus_checkpoint c;

	cr_assert_eq(put_code("state.db"), EVBUS_OK);
	FILE *file = fopen("state.db", "rb");
	size_t len = fread(image, 1, sizeof image, file);
	cr_assert(!fclose(file) && len >= 4096);
	for (size_t bit = 0; bit < 100u * 8; bit++) {
		image[bit / 8] ^= (unsigned char)(1u << bit % 8);
		write_file("flipped.db", image, len);
		image[bit / 8] ^= (unsigned char)(1u << bit % 8);
		struct store *store = open_store("flipped.db");
		enum evbus_code code = store_checkpoint_get(store, "g", "t", 0, &c, &err);
		cr_assert(code || !strcmp(c.next_offset, "1"), "bit %zu", bit);
		cr_assert(code != EVBUS_NONE && code != EVBUS_BUG, "bit %zu: %s", bit, err.text);
		store_close(store);
	}
}

Test(store_faults, on_a_full_disk_says_so_and_works_on_once_there_is_room)
{
	OF_FILES;
	struct rlimit limit, small;
	struct evbus_checkpoint some[400];
	struct store *store = open_store("state.db");

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	for (int i = 0; i < 400; i++)
		some[i] = checkpoint("g", "t", i, 2);
	cr_assert(!getrlimit(RLIMIT_FSIZE, &limit));
	small = limit;
	small.rlim_cur = 16384;
	cr_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && !setrlimit(RLIMIT_FSIZE, &small));
	enum evbus_code code = store_checkpoint_put(store, some, 400, &err);
	cr_assert(!setrlimit(RLIMIT_FSIZE, &limit));
	cr_assert_eq(code, EVBUS_IO);
	cr_assert(strstr(err.text, "state.db") && err.sys_errno == EFBIG, "%s", err.text);
	cr_assert(position(store, 0) == 1 && position(store, 1) == -1);
	cr_assert_eq(store_checkpoint_put(store, some, 400, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position(store, 399), 2);
	store_close(store);
	assert_whole("state.db");
}

Test(store_faults, with_a_missing_driver_names_the_package)
{
	struct store_options options = { .module_dir = scratch };
	struct store *store;

	cr_assert_eq(store_open(AT_FDCWD, stored_url("state.db"), &options, &store, &err), EVBUS_OK);
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_CONFIG);
	cr_assert(strstr(err.text, stored_on_server() ? "install evbus-postgres (or build with libpq-dev)"
						      : "install evbus-sqlite (or build with libsqlite3-dev)"),
		  "%s", err.text);
	store_close(store);
}

/* ---- several processes ----------------------------------------------------------------------------------------- */

static void put_in_child(int child, int rounds)
{
	struct store *store = open_store("state.db");

	for (int i = 1; i <= rounds; i++) {
		if (put(store, "g", "t", child, i)) {
			dprintf(2, "child %d round %d: %s\n", child, i, err.text);
			_exit(1);
		}
		if (position(store, child) != i)
			_exit(2);
	}
	store_close(store);
	_exit(0);
}

/* All of them race for making it, too. */
Test(store_faults, is_written_by_several_processes_at_once)
{
	pid_t children[8];
	struct evbus_checkpoint *list;
	size_t count;

	for (int i = 0; i < 8; i++)
		if (!(children[i] = fork()))
			put_in_child(i, 50);
	for (int i = 0; i < 8; i++)
		wait_for(children[i]);
	struct store *store = open_store("state.db");
	cr_assert_eq(store_checkpoint_list(store, "g", &list, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(count, 8);
	for (size_t i = 0; i < count; i++)
		cr_assert_str_eq(list[i].next_offset, "50");
	free(list);
	store_close(store);
	assert_whole("state.db");
}

/* Writes pairs of checkpoints with one value, and says each value once it is durable. */
static void put_pairs(int to, int value)
{
	struct store *store = open_store("state.db");

	for (;; value++) {
		struct evbus_checkpoint pair[] = { checkpoint("g", "t", 0, value), checkpoint("g", "t", 1, value) };
		if (store_checkpoint_put(store, pair, 2, &err) || write(to, &value, sizeof value) != sizeof value)
			_exit(1);
	}
}

/* Kills a writer delay_us after it began, or if settled after its first value. Returns the last value that it said, or
 * before where it said none. */
static int kill_writer(int before, bool settled, long delay_us)
{
	int pipe_fds[2], said;

	cr_assert(!pipe(pipe_fds));
	pid_t child = fork();
	if (!child) {
		close(pipe_fds[0]);
		put_pairs(pipe_fds[1], before + 1);
	}
	close(pipe_fds[1]);
	struct timespec delay = { .tv_nsec = delay_us * 1000 };
	struct pollfd first = { .fd = pipe_fds[0], .events = POLLIN };
	if (settled)
		poll(&first, 1, 5000);
	nanosleep(&delay, NULL);
	cr_assert(!kill(child, SIGKILL) && waitpid(child, NULL, 0) == child);
	while (read(pipe_fds[0], &said, sizeof said) == sizeof said)
		before = said;
	close(pipe_fds[0]);
	return before;
}

/* Seen together: a server may come to a commit when who asked for it is gone. 0: there are none. */
static int position_of_both(struct store *store)
{
	struct evbus_checkpoint *list;
	size_t count;

	cr_assert_eq(store_checkpoint_list(store, "g", &list, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 0 || (count == 2 && !strcmp(list[0].next_offset, list[1].next_offset)));
	int both = count ? (int)strtol(list[0].next_offset, NULL, 10) : 0;
	free(list);
	return both;
}

Test(store_faults, keeps_what_was_acknowledged_when_its_writer_is_killed)
{
	int said = 0;
	/* Delays that look random and repeat. */
	unsigned delay_us = 4711;
	int rounds = stored_on_server() ? 16 : 80;

	for (int i = 0; i < rounds; i++) {
		delay_us = delay_us * 1103515245u + 12345u;
		said = kill_writer(said, i % 2, (long)(delay_us >> 16) % 6000);
		struct store *store = open_store("state.db");
		int first = position_of_both(store);
		cr_assert(first == said || first == said + 1, "%d said, %d there", said, first);
		said = first;
		store_close(store);
		assert_whole("state.db");
	}
	/* Every second one said something. */
	cr_assert(said >= rounds / 2, "%d", said);
}

/* Holds the locks that a statement takes until the parent closes its end of the pipe. */
static pid_t hold_lock(const char *sql, int *release)
{
	int ready[2], done[2];
	char c = 0;

	cr_assert(!pipe(ready) && !pipe(done));
	pid_t child = fork();
	if (!child) {
		sqlite3 *db;
		close(done[1]);
		if (sqlite3_open("state.db", &db) || sqlite3_exec(db, sql, NULL, NULL, NULL) ||
		    write(ready[1], &c, 1) != 1 || read(done[0], &c, 1))
			_exit(1);
		_exit(0);
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(ready[1]);
	close(done[0]);
	*release = done[1];
	return child;
}

Test(store_faults, that_others_hold_is_waited_for_five_seconds)
{
	ONLY_SQLITE("who reads from a server waits for nobody");
	struct store *store = open_store("state.db");
	struct evbus_checkpoint c;
	int release;

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	pid_t holder = hold_lock("BEGIN EXCLUSIVE", &release);
	int64_t start = now_ms();
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_AGAIN);
	int64_t took = now_ms() - start;
	cr_assert(strstr(err.text, "state.db' is busy"), "%s", err.text);
	cr_assert(took >= 4900 && took < 7000, "%jd ms", (intmax_t)took);
	cr_assert_eq(store_checkpoint_get(store, "g", "t", 0, &c, &err), EVBUS_AGAIN);
	close(release);
	wait_for(holder);
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_OK, "%s", err.text);
	store_close(store);
}

/* A reader keeps nobody from writing, but from committing. */
Test(store_faults, works_on_after_a_commit_for_which_it_was_busy)
{
	OF_FILES;
	struct store *store = open_store("state.db");
	int release;

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	pid_t reader = hold_lock("BEGIN; SELECT * FROM checkpoints", &release);
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_AGAIN, "%s", err.text);
	close(release);
	wait_for(reader);
	cr_assert_eq(position(store, 0), 1);
	cr_assert_eq(put(store, "g", "t", 0, 3), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position(store, 0), 3);
	store_close(store);
}

static bool others_can_write(void)
{
	int status;
	pid_t child = fork();

	if (!child) {
		/* SQLite's RESERVED byte. SQLite itself would believe in this child to be its parent. */
		struct flock lock = { .l_type = F_WRLCK, .l_start = 0x40000001, .l_len = 1 };
		int fd = open("state.db", O_RDWR);
		_exit(fd < 0 || fcntl(fd, F_GETLK, &lock) || lock.l_type != F_UNLCK);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	return WEXITSTATUS(status) == 0;
}

/* Closing a descriptor of the file drops SQLite's locks on it, so nobody may open it but SQLite. */
Test(store_faults, keeps_its_locks_when_another_handle_is_opened_and_closed)
{
	OF_FILES;
	struct store *store = open_store("state.db");
	struct evbus_checkpoint c = checkpoint("g", "t", 0, 2);

	cr_assert_eq(store_checkpoint_put(store, &c, 1, &err), EVBUS_OK);
	cr_assert(others_can_write());
	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_not(others_can_write());
	cr_assert_eq(get_code("state.db"), EVBUS_OK, "%s", err.text);
	cr_assert_not(others_can_write());
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert(others_can_write());
	store_close(store);
}

/* sql: what the parent is in the middle of. */
static void fork_within(const char *sql, int changed)
{
	struct store *store = open_store("state.db");
	struct query change = { .sql = sql };

	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK);
	cr_assert_eq(table_begin(store, &err), EVBUS_OK);
	cr_assert_eq(table_write(store, &change, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(change.changed, changed);
	pid_t child = fork();
	if (!child) {
		enum evbus_code code = put(store, "g", "t", 0, 7);
		store_close(store);
		_exit(code != EVBUS_BUG);
	}
	wait_for(child);
	cr_assert_eq(table_commit(store, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position(store, 0), 2);
	store_close(store);
	assert_whole("state.db");
}

Test(store_faults, is_left_alone_by_a_forked_child)
{
	fork_within("UPDATE checkpoints SET next_offset = '2'", 1);
}

/* More than fits into the cache: what is not committed stands in the file already, and the journal leads back. */
Test(store_faults, is_left_alone_by_a_forked_child_in_the_middle_of_much)
{
	OF_FILES;
	fork_within("WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 79999) "
		    "INSERT OR REPLACE INTO checkpoints SELECT 'g', CASE i WHEN 0 THEN 't' ELSE 't' || i END, 0, '2', "
		    "'file_line', '', '', CASE i WHEN 0 THEN '' ELSE printf('%0200d', i) END FROM n",
		    80000);
}

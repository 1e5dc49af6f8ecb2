/* store/sqlite.c: what each failure of the database is told as, and that it is over with the next call. */
#include "faulty.h"
#include "store_helpers.h"

#include <sys/wait.h>
#include <unistd.h>

TestSuite(store_database, .init = setup, .fini = teardown, .timeout = 60);

static struct store *store;

/* Of the connection; no transaction. */
static void set(const char *pragma)
{
	struct query query = { .sql = pragma };

	cr_assert_eq(table_read(store, &query, &err), EVBUS_OK, "%s", err.text);
}

static enum evbus_code run(const char *text)
{
	struct query query = { .sql = text };

	cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
	enum evbus_code code = table_write(store, &query, &err);
	if (!code)
		return table_commit(store, &err);
	table_rollback(store);
	return code;
}

static void assert_works_on(void)
{
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_OK, "%s", err.text);
	cr_assert_eq(position(store, 0), 2);
	store_close(store);
	assert_whole("state.db");
}

static void open_with_a_row(void)
{
	store = open_store("state.db");
	cr_assert_eq(put(store, "g", "t", 0, 1), EVBUS_OK, "%s", err.text);
}

Test(store_database, that_is_read_only_is_a_matter_of_permission)
{
	open_with_a_row();
	set("PRAGMA query_only = 1");
	cr_assert_eq(put(store, "g", "t", 0, 2), EVBUS_PERMISSION);
	cr_assert(strstr(err.text, "cannot write '") && strstr(err.text, "/state.db': it is read-only for us"), "%s",
		  err.text);
	cr_assert_eq(position(store, 0), 1);
	set("PRAGMA query_only = 0");
	assert_works_on();
}

Test(store_database, takes_no_value_that_is_too_large)
{
	open_with_a_row();
	cr_assert_eq(run("SELECT zeroblob(2000000000)"), EVBUS_DATA);
	cr_assert(strstr(err.text, "a value is too large for the database '") && strstr(err.text, "/state.db'"), "%s",
		  err.text);
	assert_works_on();
}

/* Nothing of ours asks for what SQLite says so. */
Test(store_database, that_says_what_it_never_says_to_us_is_quoted)
{
	open_with_a_row();
	cr_assert_eq(run("CREATE TABLE n (i INTEGER PRIMARY KEY)"), EVBUS_OK, "%s", err.text);
	cr_assert_eq(run("INSERT INTO n VALUES ('x')"), EVBUS_BUG);
	cr_assert(strstr(err.text, "/state.db' fails: datatype mismatch"), "%s", err.text);
	assert_works_on();
}

/* Full as SQLite itself says it, of which the system knows nothing. */
Test(store_database, that_may_not_grow_is_full)
{
	open_with_a_row();
	set("PRAGMA max_page_count = 1");
	cr_assert_eq(run("CREATE TABLE large AS SELECT zeroblob(100000)"), EVBUS_IO);
	cr_assert(strstr(err.text, "cannot write '") && err.sys_errno == ENOSPC, "%s", err.text);
	set("PRAGMA max_page_count = 100000");
	assert_works_on();
}

/* ---- the journal ---- */

static int journal_writes;
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);

static ssize_t count_journal_writes(int fd, const void *data, size_t len, off_t at)
{
	static const char end[] = "-journal";
	char link[40], path[PATH_MAX];

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof path);
	journal_writes += n > 8 && !memcmp(path + n - 8, end, 8);
	return real_pwrite(fd, data, len, at);
}

static void watch_writes(void)
{
	static const char *const names[] = { "pwrite64", "pwrite" };
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	for (size_t i = 0; i < 2 && !real_pwrite; i++)
		real_pwrite = (ssize_t(*)(int, const void *, size_t, off_t))vfs->xGetSystemCall(vfs, names[i]);
	for (size_t i = 0; i < 2; i++)
		vfs->xSetSystemCall(vfs, names[i], (sqlite3_syscall_ptr)count_journal_writes);
}

#define PAGES 2000 /* four times what SQLite keeps in memory */

static void fill_pages(void)
{
	char text[200];

	open_with_a_row();
	cr_assert_eq(run("CREATE TABLE pages (n INTEGER PRIMARY KEY, x)"), EVBUS_OK, "%s", err.text);
	snprintf(text, sizeof text,
		 "WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < %d) INSERT INTO pages "
		 "SELECT n, printf('%%.3000c', 'a') FROM i",
		 PAGES);
	cr_assert_eq(run(text), EVBUS_OK, "%s", err.text);
}

/* Three for each page would be 6000. */
Test(store_database, has_its_journal_written_in_large_pieces)
{
	fill_pages();
	watch_writes();
	journal_writes = 0;
	cr_assert_eq(run("UPDATE pages SET x = printf('%.3000c', 'b')"), EVBUS_OK, "%s", err.text);
	cr_assert(journal_writes >= PAGES / 16 && journal_writes < PAGES / 10, "%d", journal_writes);
	assert_works_on();
}

static int64_t pages_of(char letter)
{
	int64_t count = 0;
	char text[100];
	sqlite3_stmt *statement;
	sqlite3 *db;

	snprintf(text, sizeof text, "SELECT count(*) FROM pages WHERE x = printf('%%.3000c', '%c')", letter);
	cr_assert_eq(sqlite3_open("state.db", &db), SQLITE_OK);
	cr_assert_eq(sqlite3_prepare_v2(db, text, -1, &statement, NULL), SQLITE_OK);
	cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
	count = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	sqlite3_close(db);
	return count;
}

/* Few pages, all of which are still to be written to the journal; and so many that some are in the database already. */
Test(store_database, is_rolled_back_whatever_of_its_journal_is_written)
{
	static const char *const changes[] = { "UPDATE pages SET x = 'b' WHERE n < 5", "UPDATE pages SET x = 'b'" };

	fill_pages();
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
		struct query query = { .sql = changes[i] };
		cr_assert_eq(table_begin(store, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(table_write(store, &query, &err), EVBUS_OK, "%s", err.text);
		table_rollback(store);
		cr_assert_eq(pages_of('a'), PAGES);
	}
	assert_works_on();
}

/* One that dies in the middle leaves it to the next to open. */
Test(store_database, is_rolled_back_by_the_next_where_one_died)
{
	int status;

	fill_pages();
	store_close(store);
	pid_t child = fork();
	if (child == 0) {
		struct query query = { .sql = "UPDATE pages SET x = 'b'" };
		store = open_store("state.db");
		_exit(table_begin(store, &err) || table_write(store, &query, &err));
	}
	cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	cr_assert_eq(pages_of('a'), PAGES);
	store = open_store("state.db");
	assert_works_on();
}

/* Every call of SQLite to its files. Why a journal that it has closed could not be synced it does not tell. */
Test(store_database, on_a_disk_that_is_full_keeps_what_it_had)
{
	unsigned at = 0, failures = 0;
	bool hit;

	faulty_sqlite();
	do {
		open_with_a_row();
		faulty_begin(++at, ENOSPC);
		faulty.scope = FAULTY_FILES_OF_SQLITE;
		faulty.plausible = true;
		enum evbus_code code = put(store, "g", "t", 0, 2);
		hit = faulty.failed != NULL;
		faulty_end();
		cr_assert(!code || (code == EVBUS_IO && strstr(err.text, "/state.db'")), "call %u, %s: %d, %s", at,
			  faulty.failed, code, err.text);
		if (code && !strstr(faulty.failed, "sync"))
			cr_assert_eq(err.sys_errno, ENOSPC, "call %u, %s: %s", at, faulty.failed, err.text);
		failures += code != EVBUS_OK;
		assert_works_on();
	} while (hit);
	cr_assert_geq(failures, 3, "%u of %u", failures, at);
}

/* ---- the name of the journal ----------------------------------------------------------------------------------- */

static sqlite3_vfs *below, watching;
static unsigned journals, made_anew;

/* SQLite syncs the directory of a file that it may have made. */
static int open_watched(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *given)
{
	(void)vfs;
	journals += (flags & SQLITE_OPEN_MAIN_JOURNAL) != 0;
	made_anew += (flags & SQLITE_OPEN_MAIN_JOURNAL) && (flags & SQLITE_OPEN_CREATE);
	return below->xOpen(below, name, file, flags, given);
}

/* Its directory is synced by who makes it and not by who finds it as he left it. */
static void assert_next_put(bool anew, int next)
{
	journals = made_anew = 0;
	cr_assert_eq(put(store, "g", "t", 0, next), EVBUS_OK, "%s", err.text);
	cr_assert(journals && made_anew == anew, "%d: %u of %u", next, made_anew, journals);
}

Test(store_database, syncs_the_directory_again_only_for_another_journal)
{
	below = sqlite3_vfs_find(NULL);
	watching = *below;
	watching.zName = "watching";
	watching.xOpen = open_watched;
	cr_assert_eq(sqlite3_vfs_register(&watching, 1), SQLITE_OK);
	open_with_a_row();
	assert_next_put(false, 2);
	assert_next_put(false, 3);
	cr_assert(!unlink("state.db-journal"));
	assert_next_put(true, 4);
	assert_next_put(false, 5);
	/* The same to look at, and another file. */
	cr_assert(!system("cp -p state.db-journal copy && mv copy state.db-journal"));
	assert_next_put(true, 6);
	assert_next_put(false, 7);
	/* Who opens the store has not left it. */
	store_close(store);
	store = open_store("state.db");
	assert_next_put(true, 8);
	cr_assert_eq(position(store, 0), 8);
	store_close(store);
	assert_whole("state.db");
	sqlite3_vfs_unregister(&watching);
}

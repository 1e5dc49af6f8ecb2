/* store/sqlite.c: what each failure of the database is told as, and that it is over with the next call. */
#include "faulty.h"
#include "store_helpers.h"

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

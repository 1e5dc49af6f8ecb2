/* An application's database: whatever it is set to, it stays so, and its WAL is nobody's to checkpoint but its own. */
#include "outbox_helpers.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>

TestSuite(outbox_guest, .init = setup, .fini = teardown, .timeout = 60);

static off_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -1 : st.st_size;
}

/* The checkpoint sequence number of a WAL (https://www.sqlite.org/fileformat2.html#walformat): it grows when the WAL is
 * begun anew, which takes a checkpoint. */
static uint32_t wal_sequence(void)
{
	unsigned char header[32] = { 0 };
	FILE *file = fopen("app.db-wal", "r");

	cr_assert(file && fread(header, 1, sizeof header, file) == sizeof header);
	fclose(file);
	return (uint32_t)header[12] << 24 | (uint32_t)header[13] << 16 | (uint32_t)header[14] << 8 | header[15];
}

static void add_many(int count)
{
	static int added;
	char id[20];

	for (int i = 0; i < count; i++) {
		snprintf(id, sizeof id, "w%d", added++);
		const struct evbus_outbox_row row = {
			.id = text(id), .topic = IS("orders"), .event_type = IS("t"), .payload = IS("{}")
		};
		cr_assert_eq(evbus_outbox_add(outbox, &row, &err), EVBUS_OK, "%s", err.text);
	}
}

Test(outbox_guest, init_warns_of_a_wal_and_keeps_it)
{
	bool made, wal = false;

	sql("PRAGMA journal_mode = WAL; CREATE TABLE own (x)");
	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_OK, "%s", err.text);
	cr_assert(made && wal);
	cr_assert_str_eq(sql("PRAGMA journal_mode"), "wal");
}

/* 1200 commits are more than the thousand pages at which SQLite would checkpoint by itself. */
Test(outbox_guest, a_wal_is_never_checkpointed_while_we_work)
{
	sqlite3 *keeper;

	sql("PRAGMA journal_mode = WAL; CREATE TABLE own (x)");
	keeper = open_app();
	cr_assert_eq(sqlite3_db_config(keeper, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
	cr_assert_eq(
		sqlite3_exec(keeper, "PRAGMA wal_autocheckpoint = 0; INSERT INTO own VALUES (1)", NULL, NULL, NULL),
		SQLITE_OK);
	init(outbox);
	off_t database = size_of("app.db"), wal = size_of("app.db-wal");
	uint32_t sequence = wal_sequence();
	add_many(1200);
	for (int i = 0; i < 3; i++)
		drain();
	cr_assert_eq(size_of("app.db"), database);
	cr_assert_gt(size_of("app.db-wal"), wal + 1200 * 4096);
	cr_assert_eq(wal_sequence(), sequence);
	sqlite3_close(keeper);
}

Test(outbox_guest, nor_when_the_last_connection_to_it_is_ours)
{
	init(outbox);
	/* From here on no other connection closes behind ours. */
	evbus_outbox_close(outbox);
	sqlite3 *db = open_app();
	cr_assert_eq(sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE own (x)",
				  NULL, NULL, NULL),
		     SQLITE_OK);
	sqlite3_close(db);
	outbox = open_with(APP, NULL, false);
	add_many(3);
	drain();
	off_t database = size_of("app.db");
	uint32_t sequence = wal_sequence();
	evbus_outbox_close(outbox);
	cr_assert_eq(size_of("app.db"), database);
	cr_assert_gt(size_of("app.db-wal"), 0);
	cr_assert_eq(wal_sequence(), sequence);
	outbox = open_with(APP, NULL, false);
	cr_assert_str_eq(states(), "SENT SENT SENT");
	cr_assert_str_eq(sql("PRAGMA integrity_check"), "ok");
}

static int first_byte_of(const char *path)
{
	FILE *file = fopen(path, "r");
	int byte = file ? getc(file) : EOF;

	if (file)
		fclose(file);
	return byte;
}

Test(outbox_guest, who_writes_much_keeps_the_journal_until_he_ends)
{
	init(outbox);
	add_many(1);
	cr_assert_eq(size_of("app.db-journal"), -1);
	add_many(5);
	cr_assert_gt(size_of("app.db-journal"), 512);
	cr_assert_eq(first_byte_of("app.db-journal"), 0, "it would be rolled back");
	/* Whatever the application does with it. */
	cr_assert_str_eq(states(), "PENDING PENDING PENDING PENDING PENDING PENDING");
	sql("CREATE TABLE own (x)");
	cr_assert_eq(size_of("app.db-journal"), -1);
	drain();
	cr_assert_eq(result.sent, 6);
	cr_assert_eq(first_byte_of("app.db-journal"), 0);
	evbus_outbox_close(outbox);
	outbox = NULL;
	cr_assert_eq(size_of("app.db-journal"), -1);
	cr_assert_str_eq(states(), "SENT SENT SENT SENT SENT SENT");
	cr_assert_str_eq(sql("PRAGMA integrity_check; PRAGMA journal_mode"), "ok delete");
}

Test(outbox_guest, a_wal_that_comes_meanwhile_stays_one)
{
	init(outbox);
	add_many(8);
	sql("PRAGMA journal_mode = WAL");
	add_many(2);
	evbus_outbox_close(outbox);
	outbox = NULL;
	cr_assert_str_eq(sql("PRAGMA integrity_check; PRAGMA journal_mode; SELECT COUNT(*) FROM outbox"), "ok wal 10");
	outbox = open_with(APP, NULL, false);
	add_many(8);
	cr_assert_str_eq(sql("PRAGMA journal_mode"), "wal");
}

Test(outbox_guest, a_journal_that_is_locked_in_is_left_to_who_has_the_lock)
{
	init(outbox);
	add_many(8);
	sqlite3 *db = open_app();
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE; CREATE TABLE own (x)", NULL, NULL, NULL), SQLITE_OK);
	evbus_outbox_close(outbox);
	outbox = NULL;
	cr_assert_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(size_of("app.db-journal"), -1);
	sqlite3_close(db);
	cr_assert_str_eq(sql("PRAGMA integrity_check; SELECT COUNT(*) FROM outbox"), "ok 8");
}

/* It would be another user's, and the application that is not root could not open it. */
Test(outbox_guest, no_journal_is_kept_that_would_not_be_the_applications)
{
	if (geteuid())
		cr_skip("only root can be somebody else");
	init(outbox);
	cr_assert(!chmod(".", 0777) && !chmod("app.db", 0666));
	cr_assert(!seteuid(65534));
	struct evbus_outbox *other = open_with(APP, NULL, false);
	for (int i = 0; i < 8; i++) {
		const struct evbus_outbox_row row = { .id = text((char[]){ (char)('a' + i), 0 }),
						      .topic = IS("t"),
						      .event_type = IS("t"),
						      .payload = IS("{}") };
		cr_assert_eq(evbus_outbox_add(other, &row, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(size_of("app.db-journal"), -1);
	}
	evbus_outbox_close(other);
	cr_assert(!seteuid(0));
}

Test(outbox_guest, commits_are_durable_in_every_mode)
{
	static const char *const modes[] = { "DELETE", "TRUNCATE", "PERSIST", "WAL" };
	char statement[100];

	init(outbox);
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		int64_t level = -1;
		struct query query = { .sql = "PRAGMA synchronous", .row = outbox_take_integer, .context = &level };
		snprintf(statement, sizeof statement, "PRAGMA journal_mode = %s", modes[i]);
		sql(statement);
		cr_assert_eq(table_read(outbox->store, &query, &err), EVBUS_OK);
		cr_assert_eq(level, 3);
	}
}

Test(outbox_guest, no_setting_and_no_other_table_is_touched)
{
	sql("PRAGMA page_size = 1024; PRAGMA auto_vacuum = 1; PRAGMA user_version = 7; PRAGMA application_id = 99; "
	    "CREATE TABLE own (x)");
	init(outbox);
	add_many(2);
	drain();
	cr_assert_str_eq(sql("PRAGMA page_size; PRAGMA auto_vacuum; PRAGMA user_version; PRAGMA application_id; "
			     "PRAGMA journal_mode"),
			 "1024 1 7 99 delete");
	cr_assert_str_eq(sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1"),
			 "outbox own sqlite_sequence");
}

Test(outbox_guest, a_path_may_lead_through_links)
{
	struct evbus_outbox *linked;

	init(outbox);
	cr_assert(!mkdir("deep", 0700) && !symlink("../app.db", "deep/link.db") && !symlink("deep", "way"));
	linked = open_with("sqlite:way/link.db", NULL, false);
	add_many(1);
	cr_assert_eq(drain_by(linked), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 1);
	cr_assert_eq(access("deep/link.db-journal", F_OK), -1);
	evbus_outbox_close(linked);
}

Test(outbox_guest, a_busy_database_is_told_after_a_while)
{
	sqlite3 *db;
	struct timespec from, to;

	init(outbox);
	fill(1, 0);
	db = open_app();
	cr_assert_eq(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
	clock_gettime(CLOCK_MONOTONIC, &from);
	cr_assert_eq(drain_by(outbox), EVBUS_AGAIN);
	clock_gettime(CLOCK_MONOTONIC, &to);
	cr_assert(strstr(err.text, "busy") && !result.outage, "%s", err.text);
	cr_assert(to.tv_sec - from.tv_sec >= 4 && to.tv_sec - from.tv_sec <= 7);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	sqlite3_close(db);
	drain();
	cr_assert_eq(result.sent, 1);
}

static int sleep_no_more(sqlite3_vfs *vfs, int us)
{
	(void)vfs;
	return us;
}

/* Byte 120 of the index of a WAL is locked by who writes, and its header stands there twice
 * (https://www.sqlite.org/walformat.html): one that was stopped between the two. */
static void stop_while_writing_wal(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 120, .l_len = 1 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int fd = open("app.db-shm", O_RDWR);

	if (fd >= 0 && !fcntl(fd, F_SETLK, &lock) && pwrite(fd, "half of it", 10, 8) == 10)
		raise(SIGSTOP);
	_exit(1);
}

Test(outbox_guest, a_wal_that_is_being_written_by_one_that_was_stopped_is_busy)
{
	int status;

	/* Ten seconds, and then it gives up. */
	sqlite3_vfs_find(NULL)->xSleep = sleep_no_more;
	sql("PRAGMA journal_mode = WAL; CREATE TABLE own (x)");
	init(outbox);
	add_many(3);
	sqlite3 *keeper = open_app();
	cr_assert_eq(sqlite3_exec(keeper, "SELECT * FROM own", NULL, NULL, NULL), SQLITE_OK);
	pid_t child = fork();
	if (child == 0)
		stop_while_writing_wal();
	cr_assert(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
	cr_assert_eq(evbus_outbox_drain(outbox, &options, &result, &err), EVBUS_AGAIN, "%d: %s", (int)err.code,
		     err.text);
	cr_assert(strstr(err.text, "does not go on"), "%s", err.text);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	drain();
	cr_assert_eq(result.sent, 3);
	sqlite3_close(keeper);
}

Test(outbox_guest, a_database_that_is_replaced_is_not_written_to)
{
	init(outbox);
	fill(1, 0);
	cr_assert(!rename("app.db", "old.db"));
	sql("CREATE TABLE own (x)");
	cr_assert_eq(drain_by(outbox), EVBUS_CONFLICT);
	cr_assert_str_eq(sql_in("old.db", "SELECT state FROM outbox"), "PENDING");
}

Test(outbox_guest, what_is_no_database_is_told)
{
	FILE *file = fopen("app.db", "w");
	bool made, wal;

	cr_assert(file &&
		  fwrite("this is a text and no database, and it is long enough to have a header", 1, 70, file) == 70 &&
		  !fclose(file));
	cr_assert_eq(evbus_outbox_init(outbox, &made, &wal, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "not an SQLite database"), "%s", err.text);
}

Test(outbox_guest, a_url_of_another_kind_is_refused)
{
	struct evbus_outbox *other = NULL;

	cr_assert_eq(evbus_outbox_open(bus, "mysql://user:secret@host/db", NULL, &other, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "no outbox of the kind 'mysql'") && !strstr(err.text, "secret"), "%s", err.text);
	cr_assert_eq(evbus_outbox_open(bus, "sqlite:", NULL, &other, &err), EVBUS_CONFIG);
}

/* A statement that is gone may have had its address. */
Test(outbox_guest, statements_of_one_outbox_are_not_taken_for_those_of_another)
{
	for (int i = 0; i < 20; i++) {
		struct evbus_outbox *one = open_with(APP, i % 2 ? "table=one" : "table=two", false);
		init(one);
		evbus_outbox_close(one);
	}
	cr_assert_str_eq(
		sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY 1"),
		"one two");
}

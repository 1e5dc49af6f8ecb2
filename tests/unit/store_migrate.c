/* A store of an older version becomes one of ours, whole or not at all, and keeps its checkpoints. */
#include "base/os.h"
#include "store/schema.h"
#include "store_helpers.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

TestSuite(store_migrate, .init = setup, .fini = teardown, .timeout = 120);

#define TIME "2026-01-29T12:00:00.123456Z"

/* As the evbus that knew version 1 made it. */
static void make_version_1(void)
{
	stored_empty("state.db");
	if (!stored_on_server())
		sql("state.db", "PRAGMA journal_mode=PERSIST");
	sql("state.db",
	    "CREATE TABLE IF NOT EXISTS evbus_schema (id BIGINT PRIMARY KEY, version BIGINT NOT NULL); "
	    "CREATE TABLE checkpoints (group_name TEXT NOT NULL, topic TEXT NOT NULL, partition_id BIGINT NOT NULL, "
	    "next_offset TEXT NOT NULL, offset_kind TEXT NOT NULL, log_id TEXT NOT NULL, fingerprint TEXT NOT NULL, "
	    "updated_at TEXT NOT NULL, PRIMARY KEY (group_name, topic, partition_id)); "
	    "INSERT INTO evbus_schema (id, version) VALUES (1, 1); "
	    "INSERT INTO checkpoints VALUES ('g', 't', 0, '5', 'file_line', 'l', '9ae0daaf', '" TIME "'), "
	    "('g', 't', 1, '18446744073709551615', 'file_line', 'l', '', '" TIME "')");
}

static int ask(const char *text)
{
	return (int)strtol(sql("state.db", text), NULL, 10);
}

static int version(void)
{
	return ask("SELECT version FROM evbus_schema");
}

static int tables(void)
{
	return ask(
		stored_on_server()
			? "SELECT COUNT(*) FROM pg_class AS c WHERE relnamespace = current_schema()::regnamespace AND "
			  "relkind IN ('r', 'i') AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)"
			: "SELECT COUNT(*) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'");
}

/* What our version has, as a store that was made by it. */
static int tables_of_a_new_store(void)
{
	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
	int count = tables();
	stored_empty("state.db");
	return count;
}

static void assert_checkpoints_kept(void)
{
	struct evbus_checkpoint *list;
	struct store *store = open_store("state.db");
	size_t count;

	cr_assert_eq(store_checkpoint_list(store, NULL, &list, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert(count == 2 && list[0].partition_id == 0 && list[1].partition_id == 1);
	cr_assert_str_eq(list[0].next_offset, "5");
	cr_assert_str_eq(list[0].fingerprint, "9ae0daaf");
	cr_assert_str_eq(list[1].next_offset, "18446744073709551615");
	cr_assert_str_eq(list[1].updated_at_utc, TIME);
	free(list);
	store_close(store);
}

Test(store_migrate, brings_a_store_of_version_1_to_ours_with_its_checkpoints)
{
	int expected = tables_of_a_new_store();

	make_version_1();
	cr_assert_eq(tables(), 2);
	assert_checkpoints_kept();
	cr_assert(version() == SCHEMA_VERSION && tables() == expected);
	/* And once more there is nothing to be done. */
	assert_checkpoints_kept();
	assert_whole("state.db");
}

Test(store_migrate, has_the_event_keys_of_version_2_read_from_the_log_again)
{
	int expected = tables_of_a_new_store();

	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
	sql("state.db", "DROP TABLE event_keys; CREATE TABLE event_keys (topic TEXT NOT NULL, tenant_id TEXT NOT NULL, "
			"event_key TEXT NOT NULL, log_id TEXT NOT NULL, partition_id BIGINT NOT NULL, record_offset "
			"TEXT NOT NULL, published_at TEXT NOT NULL, PRIMARY KEY (topic, tenant_id, event_key)); "
			"CREATE INDEX event_keys_age ON event_keys (published_at); "
			"INSERT INTO event_keys VALUES ('t', 'x', 'k', 'l', 1, '17', '" TIME "'); "
			"INSERT INTO key_progress VALUES ('t', 1, 'l', '18', '9ae0daaf'); "
			"UPDATE evbus_schema SET version = 2");
	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
	cr_assert(version() == SCHEMA_VERSION && tables() == expected);
	cr_assert_eq(ask("SELECT (SELECT COUNT(*) FROM event_keys) + (SELECT COUNT(*) FROM key_progress)"), 0);
	assert_whole("state.db");
}

Test(store_migrate, is_done_by_a_writer_too)
{
	int expected = tables_of_a_new_store();

	make_version_1();
	cr_assert_eq(put_code("state.db"), EVBUS_OK, "%s", err.text);
	cr_assert(version() == SCHEMA_VERSION && tables() == expected);
	cr_assert_eq(ask("SELECT COUNT(*) FROM checkpoints"), 2);
}

/* What a child does: it asserts nothing, as whoever would hear of it may be dead by then. */
static enum evbus_code use_store(int index)
{
	struct store_options options = { .module_dir = modules };
	struct evbus_checkpoint other = checkpoint("other", "t", index, 1), found;
	struct store *store;

	TRY(store_open(AT_FDCWD, stored_url("state.db"), &options, &store, &err));
	enum evbus_code code = index % 2 ? store_checkpoint_put(store, &other, 1, &err)
					 : store_checkpoint_get(store, "g", "t", 0, &found, &err);
	store_close(store);
	return code;
}

/* Waits until the pipe is closed, which starts all of them at once. */
static pid_t start(const int go[2], int index)
{
	char byte;
	pid_t child = fork();

	if (child)
		return child;
	close(go[1]);
	_exit(read(go[0], &byte, 1) ? 1 : (int)use_store(index));
}

Test(store_migrate, by_several_processes_at_once_is_done_once)
{
	int expected = tables_of_a_new_store(), go[2], status;
	pid_t children[4];

	for (int round = 0; round < 5; round++) {
		make_version_1();
		cr_assert(!pipe(go));
		for (int i = 0; i < 4; i++)
			children[i] = start(go, i);
		close(go[0]);
		close(go[1]);
		for (int i = 0; i < 4; i++)
			cr_assert(waitpid(children[i], &status, 0) == children[i] && status == 0, "%d: %x", i, status);
		cr_assert(version() == SCHEMA_VERSION && tables() == expected);
		cr_assert_eq(ask("SELECT COUNT(*) FROM checkpoints"), 4);
		assert_whole("state.db");
	}
}

/* A process that may not write beyond `most` bytes of any file: it is killed there, or told so. */
static int migrate_up_to(rlim_t most, bool killed)
{
	struct rlimit limit = { most, most };
	int status;
	pid_t child = fork();

	if (!child) {
		signal(SIGXFSZ, killed ? SIG_DFL : SIG_IGN);
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
		setrlimit(RLIMIT_FSIZE, &limit);
		_exit(use_store(0) ? 1 : 0);
	}
	cr_assert(child > 0 && waitpid(child, &status, 0) == child);
	return status;
}

static int stopped_somewhere(bool killed)
{
	int expected = tables_of_a_new_store(), stopped = 0;

	for (rlim_t most = 512;; most += 4096) {
		make_version_1();
		int status = migrate_up_to(most, killed);
		if (!status)
			break;
		cr_assert(killed ? WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ : WEXITSTATUS(status) == 1);
		stopped++;
		assert_whole("state.db");
		cr_assert_eq(version(), 1);
		cr_assert_eq(tables(), 2);
		assert_checkpoints_kept();
		cr_assert(version() == SCHEMA_VERSION && tables() == expected);
		assert_whole("state.db");
	}
	cr_assert(version() == SCHEMA_VERSION && tables() == expected);
	return stopped;
}

Test(store_migrate, that_is_killed_anywhere_is_not_half_done_and_is_done_by_the_next)
{
	OF_FILES;
	int stopped = stopped_somewhere(true);
	cr_assert(stopped > 10, "%d", stopped);
}

Test(store_migrate, on_a_full_disk_is_not_half_done)
{
	OF_FILES;
	int stopped = stopped_somewhere(false);
	cr_assert(stopped > 10, "%d", stopped);
}

/* ---- a version that is not as it must be ------------------------------------------------------------------------- */

Test(store_migrate, leaves_a_store_alone_whose_version_is_no_number)
{
	static const char *const versions[][2] = {
		{ "'x'", "TEXT" }, { "-1", "BIGINT" }, { "NULL", "BIGINT" }, { "1.5", "NUMERIC" }
	};
	char text[200];

	for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
		make_version_1();
		snprintf(text, sizeof text,
			 "DROP TABLE evbus_schema; CREATE TABLE evbus_schema (id BIGINT, version %s); "
			 "INSERT INTO evbus_schema VALUES (1, %s)",
			 versions[i][1], versions[i][0]);
		sql("state.db", text);
		cr_assert_eq(put_code("state.db"), EVBUS_IO, "%s", versions[i][0]);
		cr_assert_str_eq(err.text, "the version of the tables is not a number: restore the store");
		cr_assert_eq(get_code("state.db"), EVBUS_IO);
		cr_assert_eq(tables(), 2);
	}
}

static bool upgraded;

/* Between our look and our transaction a newer evbus makes its tables. */
static int upgrade_first(int fd)
{
	if (!upgraded)
		sql("state.db", "CREATE TABLE evbus_schema (id BIGINT PRIMARY KEY, version BIGINT NOT NULL); "
				"INSERT INTO evbus_schema VALUES (1, 4)");
	upgraded = true;
	return fsync(fd);
}

Test(store_migrate, makes_no_tables_in_a_store_that_a_newer_evbus_made_meanwhile)
{
	OF_FILES;
	const struct os real = os;

	sql("state.db", "PRAGMA user_version = 0");
	int fd = open("state.db", O_WRONLY | O_CREAT, 0600);
	cr_assert(fd >= 0 && !close(fd));
	os.fsync = upgrade_first;
	cr_assert_eq(put_code("state.db"), EVBUS_CONFIG);
	os = real;
	cr_assert(strstr(err.text, "has tables of version 4, and this evbus knows them up to 3: use a newer evbus"),
		  "%s", err.text);
	cr_assert(upgraded && tables() == 1 && version() == 4);
}

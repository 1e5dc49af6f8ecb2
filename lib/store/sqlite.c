/* sqlite.c: the store in an SQLite file. The only file that knows SQLite; a module of its own.
 *
 * What follows goes for our own store. In an application's database, where we are a guest, its journal is what it is,
 * but for what journal_keep() does, and a WAL is written to and never checkpointed: neither after a commit nor at the
 * end of the last connection.
 *
 * No WAL: SQLite before 3.51.3 (3.50.7 and 3.44.6 have the mend) can corrupt a WAL database when one connection
 * checkpoints while another commits, and distributions have older ones. With a rollback journal there is no checkpoint.
 * A commit then ends when the journal is made invalid, and that has to be durable, too, or a power cut brings the state
 * before it back. PERSIST overwrites the journal's header and syncs it, and leaves the directory alone. EXTRA costs it
 * nothing; it is there for somebody else's connection that deletes the journal between two of our commits.
 *
 * Commits of one row per second, on ext4, with 2 cores and SQLite 3.40.1, all processes in a loop without a pause
 * (medians of 5; in brackets the longest that one of them waited; syncs of one commit):
 *
 *	                 syncs   1 process   8 processes    32 processes
 *	DELETE EXTRA         5         990     800 (0.8 s)     540 (1.1 s)
 *	TRUNCATE FULL        5        1390    1010 (0.7 s)     610 (1.0 s)
 *	PERSIST EXTRA        5        1380    1200 (0.5 s)     670 (0.7 s)    this one
 *	WAL FULL             1        6600    5950 (0.3 s)    1880 (0.3 s)
 *	PERSIST EXTRA, sqlite3_busy_timeout():
 *	                     5        1380    2700 (6.2 s)
 *
 * The last line is why we do our own waiting: SQLite's sleeps up to 100 ms between two tries and finds the lock taken
 * each time by the one who just had it. That makes more commits, but 8 processes are enough to keep one of them waiting
 * beyond the limit. */
#include "store/driver.h"
#include "store/sqlite_journal.h"

#include "base/module.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define KEPT_MAX 32u
#define JOURNAL_KEPT_FROM 5u /* the transaction from which on a guest keeps it: who drains one batch has less */

struct kept {
	const char *sql;
	sqlite3_stmt *statement;
};

struct sqlite {
	struct db db;              /* first: what callers hold */
	sqlite3 *handle;
	int64_t waiting_since_ms;
	struct kept kept[KEPT_MAX];
	size_t kept_next;
	bool guest;
	unsigned begun;            /* transactions of a guest, as far as that matters */
	bool keeps_journal;
	bool running;              /* a row callback: no other query may push its statement out of kept */
	struct journal_vfs journal;
	char path[];
};

static struct sqlite *of(struct db *db)
{
	return (struct sqlite *)(void *)db;
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

/* What went wrong with the database file, or else with its journal. sqlite3_system_errno() does not know it where it
 * happens at a commit. */
static int last_errno(const struct sqlite *db)
{
	sqlite3_file *journal = NULL;
	int found = 0;

	sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_LAST_ERRNO, &found);
	if (!found && !sqlite3_file_control(db->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &journal) && journal &&
	    journal->pMethods)
		journal->pMethods->xFileControl(journal, SQLITE_FCNTL_LAST_ERRNO, &found);
	return found ? found : sqlite3_system_errno(db->handle);
}

static enum evbus_code system_failed(const struct sqlite *db, int rc, struct evbus_err *err)
{
	int sys_errno = last_errno(db);
	const char *verb = (rc & 0xff) == SQLITE_CANTOPEN ? "open" : "read or write";

	if ((rc & 0xff) == SQLITE_FULL)
		return err_set(err, EVBUS_IO, sys_errno ? sys_errno : ENOSPC, "cannot write '%s'", db->path);
	if ((rc & 0xff) == SQLITE_NOMEM)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read or write '%s'", db->path);
	if (sys_errno)
		return err_set(err, err_code_of(sys_errno), sys_errno, "cannot %s '%s'", verb, db->path);
	return err_set(err, EVBUS_IO, 0, "cannot %s '%s': %s", verb, db->path, sqlite3_errstr(rc));
}

static enum evbus_code failed(const struct sqlite *db, int rc, struct evbus_err *err)
{
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(err, EVBUS_AGAIN, 0,
			       "the database '%s' is busy: others kept us waiting for %d s: try again", db->path,
			       STORE_WAIT_MS / 1000);
	case SQLITE_PROTOCOL:
		return err_set(err, EVBUS_AGAIN, 0,
			       "the database '%s' is busy: another process has begun to write its WAL and does not go on: "
			       "try again",
			       db->path);
	case SQLITE_NOTADB:
		return err_set(err, EVBUS_IO, 0, "'%s' is not an SQLite database, or its header is damaged: restore it",
			       db->path);
	case SQLITE_CORRUPT:
		return err_set(err, EVBUS_IO, 0, "the database '%s' is damaged (%s): restore it", db->path,
			       sqlite3_errmsg(db->handle));
	case SQLITE_FULL:
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
	case SQLITE_NOMEM:
		return system_failed(db, rc, err);
	case SQLITE_READONLY:
	case SQLITE_PERM:
		return err_set(err, EVBUS_PERMISSION, 0, "cannot write '%s': it is read-only for us", db->path);
	case SQLITE_CONSTRAINT:
		return err_set(err, EVBUS_CONFLICT, 0, "the database '%s' refuses the row: %s", db->path,
			       sqlite3_errmsg(db->handle));
	case SQLITE_TOOBIG:
		return err_set(err, EVBUS_DATA, 0, "a value is too large for the database '%s'", db->path);
	case SQLITE_ERROR:
		return err_set(err, EVBUS_CONFIG, 0, "the tables of the database '%s' are not as they must be: %s",
			       db->path, sqlite3_errmsg(db->handle));
	default:
		return err_set(err, EVBUS_BUG, 0, "the database '%s' fails: %s", db->path, sqlite3_errmsg(db->handle));
	}
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Called by SQLite while another process has the lock: short sleeps of uneven length, up to the limit. */
static int wait_for_others(void *context, int times)
{
	struct sqlite *db = context;
	uint32_t random;

	if (!times)
		db->waiting_since_ms = now_ms();
	if (now_ms() - db->waiting_since_ms >= STORE_WAIT_MS)
		return 0;
	sqlite3_randomness(sizeof random, &random);
	struct timespec pause = { .tv_nsec = 250000 + (long)(random % 500000) };
	nanosleep(&pause, NULL);
	return 1;
}

/* ---- queries --------------------------------------------------------------------------------------------------- */

static enum evbus_code prepare(struct sqlite *db, const char *sql, sqlite3_stmt **statement, struct evbus_err *err)
{
	for (size_t i = 0; i < KEPT_MAX; i++)
		/* Another text may stand where one was that is gone. */
		if (db->kept[i].sql == sql && !strcmp(sqlite3_sql(db->kept[i].statement), sql)) {
			*statement = db->kept[i].statement;
			return EVBUS_OK;
		}
	struct kept new = { .sql = sql };
	int rc = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &new.statement, NULL);
	if (rc)
		return failed(db, rc, err);
	struct kept *place = &db->kept[db->kept_next++ % KEPT_MAX];
	sqlite3_finalize(place->statement);
	*place = new;
	*statement = new.statement;
	return EVBUS_OK;
}

static int bind_one(sqlite3_stmt *statement, int at, const struct value *value)
{
	/* A NULL pointer would be bound as NULL, and empty is not NULL. */
	const char *data = value->bytes.data ? value->bytes.data : "";

	switch (value->kind) {
	case VALUE_INTEGER:
		return sqlite3_bind_int64(statement, at, value->integer);
	case VALUE_TEXT:
		return sqlite3_bind_text64(statement, at, data, value->bytes.len, SQLITE_STATIC, SQLITE_UTF8);
	case VALUE_BLOB:
		return sqlite3_bind_blob64(statement, at, data, value->bytes.len, SQLITE_STATIC);
	case VALUE_NULL:
		break;
	}
	return sqlite3_bind_null(statement, at);
}

static enum evbus_code bind_all(struct sqlite *db, sqlite3_stmt *statement, const struct query *query,
				struct evbus_err *err)
{
	assert((size_t)sqlite3_bind_parameter_count(statement) == query->arg_count);
	for (size_t i = 0; i < query->arg_count; i++) {
		int rc = bind_one(statement, (int)i + 1, &query->args[i]);
		if (rc)
			return failed(db, rc, err);
	}
	return EVBUS_OK;
}

/* false: there was no memory for it. */
static bool read_column(sqlite3_stmt *statement, int at, struct value *value)
{
	*value = (struct value){ .kind = VALUE_NULL };
	switch (sqlite3_column_type(statement, at)) {
	case SQLITE_NULL:
		return true;
	case SQLITE_INTEGER:
		value->kind = VALUE_INTEGER;
		value->integer = sqlite3_column_int64(statement, at);
		return true;
	case SQLITE_BLOB:
		value->kind = VALUE_BLOB;
		value->bytes.data = sqlite3_column_blob(statement, at);
		value->bytes.len = (size_t)sqlite3_column_bytes(statement, at);
		return value->bytes.data || !value->bytes.len;
	default:
		value->kind = VALUE_TEXT;
		value->bytes.data = (const char *)sqlite3_column_text(statement, at);
		value->bytes.len = (size_t)sqlite3_column_bytes(statement, at);
		return value->bytes.data;
	}
}

static enum evbus_code give_row(struct sqlite *db, sqlite3_stmt *statement, const struct query *query,
				struct evbus_err *err)
{
	struct value columns[COLUMNS_MAX];
	int count = sqlite3_column_count(statement);

	if (!query->row)
		return EVBUS_OK;
	assert((size_t)count <= COLUMNS_MAX);
	for (int i = 0; i < count; i++)
		if (!read_column(statement, i, &columns[i]))
			return failed(db, SQLITE_NOMEM, err);
	db->running = true;
	enum evbus_code code = query->row(query->context, columns, (size_t)count, err);
	db->running = false;
	return code;
}

static enum evbus_code step_all(struct sqlite *db, sqlite3_stmt *statement, struct query *query, struct evbus_err *err)
{
	int rc;

	while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
		TRY(give_row(db, statement, query, err));
	if (rc != SQLITE_DONE)
		return failed(db, rc, err);
	query->changed = sqlite3_stmt_readonly(statement) ? 0 : sqlite3_changes(db->handle);
	return EVBUS_OK;
}

static enum evbus_code connect_to(struct sqlite *db, struct evbus_err *err);

static enum evbus_code run(struct sqlite *db, struct query *query, struct evbus_err *err)
{
	sqlite3_stmt *statement = NULL;

	assert(!db->running);
	if (!db->handle)
		TRY(connect_to(db, err));
	TRY(prepare(db, query->sql, &statement, err));
	enum evbus_code code = bind_all(db, statement, query, err);
	if (!code)
		code = step_all(db, statement, query, err);
	sqlite3_reset(statement);
	/* The arguments are the caller's and may be gone by the next use. */
	sqlite3_clear_bindings(statement);
	return code;
}

static enum evbus_code run_text(struct sqlite *db, const char *sql, struct evbus_err *err)
{
	return run(db, &(struct query){ .sql = sql }, err);
}

static enum evbus_code query(struct db *db, struct query *query, struct evbus_err *err)
{
	return run(of(db), query, err);
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static enum evbus_code compare_mode(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)err;
	bool *wal = context;
	*wal = count == 1 && columns[0].kind == VALUE_TEXT && columns[0].bytes.len == 3 &&
	       !memcmp(columns[0].bytes.data, "wal", 3);
	return EVBUS_OK;
}

static enum evbus_code in_danger(struct db *db, bool *danger, struct evbus_err *err)
{
	*danger = false;
	return run(of(db), &(struct query){ .sql = "PRAGMA journal_mode", .row = compare_mode, .context = danger },
		   err);
}

static enum evbus_code refuse_wal(struct sqlite *db, struct evbus_err *err)
{
	bool wal;

	TRY(in_danger(&db->db, &wal, err));
	if (wal)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the database '%s' is in WAL mode, in which SQLite can damage it: set PRAGMA "
			       "journal_mode=DELETE with sqlite3",
			       db->path);
	return EVBUS_OK;
}

static void disconnect(struct sqlite *db)
{
	if (db->keeps_journal && sqlite3_get_autocommit(db->handle))
		journal_remove(db->handle);
	db->keeps_journal = false;
	db->begun = 0;
	for (size_t i = 0; i < KEPT_MAX; i++)
		sqlite3_finalize(db->kept[i].statement);
	memset(db->kept, 0, sizeof db->kept);
	sqlite3_close(db->handle);
	db->handle = NULL;
}

/* Some failures have done it already. When it fails itself, as without memory, the transaction would stay open and keep
 * everybody out: then the connection goes, and what its end leaves the next one to open the database rolls back. */
static void rollback(struct db *db)
{
	struct sqlite *sqlite = of(db);

	if (sqlite->handle && !sqlite3_get_autocommit(sqlite->handle) && run_text(sqlite, "ROLLBACK", NULL) &&
	    !sqlite3_get_autocommit(sqlite->handle))
		disconnect(sqlite);
}

static enum evbus_code begin(struct db *db, struct evbus_err *err)
{
	struct sqlite *sqlite = of(db);

	TRY(run_text(sqlite, "BEGIN IMMEDIATE", err));
	if (sqlite->guest && sqlite->begun < JOURNAL_KEPT_FROM && ++sqlite->begun == JOURNAL_KEPT_FROM)
		sqlite->keeps_journal = journal_keep(sqlite->handle);
	/* Any program may have set it since we opened. */
	enum evbus_code code = of(db)->guest ? EVBUS_OK : refuse_wal(of(db), err);
	if (code)
		rollback(db);
	return code;
}

static enum evbus_code commit(struct db *db, struct evbus_err *err)
{
	enum evbus_code code = run_text(of(db), "COMMIT", err);
	if (code)
		rollback(db);
	return code;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static void close_db(struct db *db)
{
	struct sqlite *sqlite = of(db);

	disconnect(sqlite);
	sqlite3_free(sqlite);
}

/* Of the connection, all of them: the database keeps none. */
static enum evbus_code settle_as_guest(struct sqlite *db, struct evbus_err *err)
{
	static const char *const settings[] = {
		"PRAGMA wal_autocheckpoint=0",
		"PRAGMA synchronous=EXTRA",        /* with a WAL the same as FULL */
		"PRAGMA cell_size_check=ON",
		"PRAGMA temp_store=MEMORY",
		"PRAGMA cache_size=-8192",         /* KiB: of a batch of rows that are claimed, for when they are marked */
	};
	int rc = sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);

	if (rc)
		return failed(db, rc, err);
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
		TRY(run_text(db, settings[i], err));
	return EVBUS_OK;
}

static enum evbus_code settle_as_owner(struct sqlite *db, struct evbus_err *err)
{
	static const char *const settings[] = {
		"PRAGMA journal_mode=PERSIST",
		"PRAGMA journal_size_limit=1048576",
		"PRAGMA synchronous=EXTRA",
		"PRAGMA cell_size_check=ON",       /* finds damage before it is acted upon */
		"PRAGMA temp_store=MEMORY",        /* no payload in a temporary file elsewhere */
		/* KiB: a thousand random event ids change as many pages, and what does not fit costs syncs. */
		"PRAGMA cache_size=-16384",
	};

	TRY(refuse_wal(db, err));
	for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
		TRY(run_text(db, settings[i], err));
	return EVBUS_OK;
}

static enum evbus_code settle(struct sqlite *db, struct evbus_err *err)
{
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_handler(db->handle, wait_for_others, db);
	return db->guest ? settle_as_guest(db, err) : settle_as_owner(db, err);
}

static enum evbus_code connect_to(struct sqlite *db, struct evbus_err *err)
{
	const sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
	/* No SQLITE_OPEN_URI: "?", "#" and "%" in a name mean themselves. NOFOLLOW goes for every part of the path. */
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;

	if (vfs && strlen(db->path) + sizeof "-journal" > (size_t)vfs->mxPathname)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the path of the database is %zu bytes long, and SQLite takes %d: keep the store "
			       "elsewhere (--store)",
			       strlen(db->path), vfs->mxPathname - (int)sizeof "-journal");
	int rc = journal_vfs_show(&db->journal);
	if (!rc)
		rc = sqlite3_open_v2(db->path, &db->handle, flags, db->journal.name);
	journal_vfs_hide(&db->journal);
	if (!db->handle)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open '%s'", db->path);
	enum evbus_code code = rc ? failed(db, rc, err) : settle(db, err);
	if (code)
		disconnect(db);
	return code;
}

static enum evbus_code open_db(const char *path, bool guest, struct db **db, struct evbus_err *err);

static const struct store_driver driver = {
	.table_exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
	.index_exists = "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?",
	/* Once somebody has run ANALYZE it may take the primary key instead, and go through all that is done. */
	.index_hint = " INDEXED BY ",
	/* The other one leaves generated columns out. */
	.table_columns = "SELECT name FROM pragma_table_xinfo(?)",
	.row_number = "rowid",
	.serial_type = "INTEGER PRIMARY KEY AUTOINCREMENT",
	/* It knows milliseconds. */
	.now_text = "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')",
	.open = open_db,
	.close = close_db,
	.begin = begin,
	.commit = commit,
	.rollback = rollback,
	.in_danger = in_danger,
	.query = query,
};

static enum evbus_code open_db(const char *path, bool guest, struct db **db, struct evbus_err *err)
{
	assert(path[0] == '/');
	size_t size = strlen(path) + 1;
	struct sqlite *opened = sqlite3_malloc64(sizeof *opened + size);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open '%s'", path);
	memset(opened, 0, sizeof *opened);
	opened->db.driver = &driver;
	opened->guest = guest;
	memcpy(opened->path, path, size);
	enum evbus_code code = connect_to(opened, err);
	if (code) {
		close_db(&opened->db);
		return code;
	}
	*db = &opened->db;
	return EVBUS_OK;
}

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "sqlite", .ops = &driver };

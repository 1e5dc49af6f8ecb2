/* postgres.c: the store in a schema of a Postgres database. What knows libpq is here and in postgres_*.c; a module of its
 * own.
 *
 * Statements go in pipeline mode: BEGIN waits for the first of its transaction and goes with it, as does what prepares a
 * statement with its first use. Parameters have no type: the server takes that of the column, so that a text may be a
 * time, a UUID or a value of an enum where an application's table has these.
 *
 * Writers of a store exclude each other by an advisory lock on its schema, which lasts as long as the transaction; each
 * statement sees what was committed before it began, so all of them see what the holder before did. In an application's
 * database, where we are a guest, there is none: what is to be excluded are the application's own writers, and those are
 * not to wait. */
#include "store/postgres.h"

#include "base/module.h"
#include "base/os.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Of what has no schema of its own, the claims are the database's. */
#define CLAIM_KEY "hashtextextended(current_setting('search_path') || ' evbus ' || ?, 0)"

static const char unclaim_text[] = "SELECT pg_advisory_unlock(" CLAIM_KEY ")";

static struct pg *of(struct db *db)
{
	return (struct pg *)(void *)db;
}

/* ---- queries --------------------------------------------------------------------------------------------------- */

/* What was refused before it was sent leaves nothing behind it but what came before. */
static enum evbus_code fly(struct pg *pg, struct query *query, struct evbus_err *err)
{
	enum evbus_code code = pg_send_query(pg, query, err);
	bool later = query->later && pg->flight.count < PG_LATER_MAX;

	if (!pg->conn || !pg->flight.count || (later && !code && pg->transaction == PG_WITHIN))
		return code;
	enum evbus_code landed = pg_land(pg, code ? NULL : err);
	return code ? code : landed;
}

static enum evbus_code lost_within(struct pg *pg, struct evbus_err *err)
{
	return err_set(err, EVBUS_UNAVAILABLE, 0,
		       "the connection to '%s' was lost in the middle of a transaction: nothing of it was done",
		       pg->shown);
}

/* A connection that breaks outside a transaction, or with the statement that a transaction begins with, is made anew. */
static enum evbus_code run(struct pg *pg, struct query *query, struct evbus_err *err)
{
	int64_t deadline_us = os_monotonic_us() + (int64_t)pg->timeout_ms * 1000;
	enum pg_transaction before = pg->transaction;

	assert(!pg->running);
	query->changed = 0;
	if (before == PG_LOST)
		return lost_within(pg, err);
	for (bool again = false;; again = true) {
		if (!pg->conn)
			TRY(pg_connect(pg, again || pg->connections, deadline_us, err));
		enum evbus_code code = fly(pg, query, err);
		if (pg->conn)
			return code;
		pg->transaction = before == PG_WITHIN ? PG_LOST : before;
		bool late = pg->silent || os_monotonic_us() >= deadline_us;
		if (before == PG_WITHIN || pg->flight.given || late || code != EVBUS_UNAVAILABLE)
			return code;
	}
}

static enum evbus_code query(struct db *db, struct query *query, struct evbus_err *err)
{
	return run(of(db), query, err);
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static enum evbus_code begin(struct db *db, struct evbus_err *err)
{
	(void)err;
	assert(of(db)->transaction == PG_OUTSIDE);
	of(db)->transaction = PG_ASKED;
	return EVBUS_OK;
}

static enum evbus_code run_alone(struct pg *pg, const char *text, struct evbus_err *err)
{
	TRY(pg_send_text(pg, PG_ALONE, text, err));
	return pg_land(pg, err);
}

static void rollback(struct db *db)
{
	struct pg *pg = of(db);

	/* What is under way, and was not asked for yet, is to be rolled back as well. Of a connection that cannot even do this
	 * nothing is left. */
	if (pg->transaction == PG_WITHIN && pg->conn && pg->flight.count)
		(void)!pg_land(pg, NULL);
	if (pg->transaction == PG_WITHIN && pg->conn && run_alone(pg, "ROLLBACK", NULL))
		pg_disconnect(pg);
	pg->transaction = PG_OUTSIDE;
}

static enum evbus_code commit(struct db *db, struct evbus_err *err)
{
	struct pg *pg = of(db);

	if (pg->transaction == PG_LOST) {
		pg->transaction = PG_OUTSIDE;
		return lost_within(pg, err);
	}
	if (pg->transaction == PG_ASKED)
		pg->transaction = PG_OUTSIDE;
	if (pg->transaction == PG_OUTSIDE)
		return EVBUS_OK;
	enum evbus_code code = run_alone(pg, "COMMIT", err);
	if (!pg->conn)
		code = err_set(err, EVBUS_IO, 0,
			       "the connection to '%s' was lost during a commit, which may have happened", pg->shown);
	else if (!code && !pg->flight.committed)
		code = err_set(err, EVBUS_BUG, 0, "a transaction of '%s' had failed and was rolled back", pg->shown);
	/* Where something before it failed, the server has not come to it. */
	if (pg->conn && PQtransactionStatus(pg->conn) != PQTRANS_IDLE)
		rollback(db);
	pg->transaction = PG_OUTSIDE;
	return code;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static enum evbus_code in_danger(struct db *db, bool *danger, struct evbus_err *err)
{
	(void)db;
	(void)err;
	*danger = false;
	return EVBUS_OK;
}

static void close_db(struct db *db)
{
	struct pg *pg = of(db);

	pg_disconnect(pg);
	/* It may have a password in it. */
	if (pg->url)
		explicit_bzero(pg->url, strlen(pg->url));
	free(pg->url);
	free(pg->shown);
	free(pg->schema);
	buf_release(&pg->args);
	free(pg);
}

static enum evbus_code open_db(const char *url, bool guest, struct db **db, struct evbus_err *err);
static enum evbus_code make(struct db *db, struct evbus_err *err);

static uint64_t session(const struct db *db)
{
	const struct pg *pg = (const struct pg *)(const void *)db;

	return pg->conn ? pg->connections : 0;
}

/* One try: with the connection the lock goes, too. */
static void unclaim(struct db *db, const char *name)
{
	const struct value text = { .kind = VALUE_TEXT, .bytes = { name, strlen(name) } };
	struct query query = { .sql = unclaim_text, ARGS(text) };

	if (of(db)->conn && fly(of(db), &query, NULL) && of(db)->conn)
		pg_disconnect(of(db));
}

/* A host may be a directory, that of a socket. */
static enum evbus_code place(struct db *db, struct buf *place, struct evbus_err *err)
{
	const struct pg *pg = of(db);
	char text[2048];
	int n = snprintf(text, sizeof text, "postgresql://%s:%s/%s%s%s", PQhost(pg->conn), PQport(pg->conn),
			 PQdb(pg->conn), pg->schema ? "?schema=" : "", pg->schema ? pg->schema : "");

	return buf_add(place, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1, err);
}

static const struct store_driver driver = {
	.table_exists = "SELECT 1 FROM pg_class WHERE oid = to_regclass(quote_ident(?)) AND relkind IN ('r', 'p')",
	.index_exists = "SELECT 1 FROM pg_class WHERE oid = to_regclass(quote_ident(?)) AND relkind IN ('i', 'I')",
	.table_columns = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(?)) "
			 "AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
	.serial_type = "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
	.now_text = "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
	.claim = "SELECT pg_try_advisory_lock(" CLAIM_KEY ")",
	.claim_holder = "WITH claim AS (SELECT " CLAIM_KEY " AS key) "
			"SELECT COALESCE(NULLIF(application_name, ''), 'another process') || "
			"COALESCE(' from ' || host(client_addr), '') "
			"FROM claim, pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid "
			"WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
			"AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
			"AND classid::bigint = key >> 32 & 4294967295 AND objid::bigint = key & 4294967295",
	.open = open_db,
	.close = close_db,
	.make = make,
	.session = session,
	.unclaim = unclaim,
	.place = place,
	.begin = begin,
	.commit = commit,
	.rollback = rollback,
	.in_danger = in_danger,
	.query = query,
	.listen = pg_listen,
	.heard = pg_heard,
};

static enum evbus_code open_db(const char *url, bool guest, struct db **db, struct evbus_err *err)
{
	int64_t now_us = os_monotonic_us();
	struct pg *opened = os.realloc(NULL, sizeof *opened);

	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a store in Postgres");
	memset(opened, 0, sizeof *opened);
	opened->db.driver = &driver;
	opened->guest = guest;
	enum evbus_code code = pg_read_url(opened, url, err);
	if (!code)
		code = pg_connect(opened, false, now_us + (int64_t)opened->timeout_ms * 1000, err);
	if (code) {
		close_db(&opened->db);
		return code;
	}
	*db = &opened->db;
	return EVBUS_OK;
}

static enum evbus_code take_existence(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)columns;
	(void)count;
	(void)err;
	*(bool *)context = true;
	return EVBUS_OK;
}

/* Asked for first: IF NOT EXISTS wants the right to make one even where it is there. */
static enum evbus_code make(struct db *db, struct evbus_err *err)
{
	struct pg *pg = of(db);
	bool exists = false;
	const struct value name = { .kind = VALUE_TEXT, .bytes = { pg->schema, strlen(pg->schema) } };
	struct query find = { .sql = "SELECT 1 FROM pg_namespace WHERE nspname = ?",
			      ARGS(name),
			      .row = take_existence,
			      .context = &exists };
	char *quoted;

	TRY(run(pg, &find, err));
	if (exists)
		return EVBUS_OK;
	quoted = PQescapeIdentifier(pg->conn, pg->schema, strlen(pg->schema));
	if (!quoted)
		return err_set(err, EVBUS_CONFIG, 0, "the store '%s': '%s' can be no name of a schema", pg->shown,
			       pg->schema);
	char text[2 * 64 + 32];
	snprintf(text, sizeof text, "CREATE SCHEMA %s", quoted);
	PQfreemem(quoted);
	return run(pg, &(struct query){ .sql = text }, err);
}

const struct evbus_module evbus_module = { .abi = EVBUS_MODULE_ABI, .name = "postgres", .ops = &driver };

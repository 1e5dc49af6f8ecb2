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
static const char begin_text[] = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
static const char lock_text[] = "SELECT pg_advisory_xact_lock(hashtextextended('evbus store ' || current_setting('search_path'), 0))";

static struct pg *of(struct db *db)
{
	return (struct pg *)(void *)db;
}

/* ---- what is under way ----------------------------------------------------------------------------------------- */

enum step {
	STEP_BEGIN,
	STEP_LOCK,
	STEP_DROP,
	STEP_PREPARE,
	STEP_QUERY,
	STEP_ALONE, /* what has no rows and no arguments: COMMIT, ROLLBACK */
	STEPS_MAX,
};

/* Statements that were sent together, whose answers come in that order. */
struct flight {
	enum step steps[STEPS_MAX];
	size_t count;
	struct pg_kept *kept; /* of STEP_PREPARE */
	struct query *query; /* of STEP_QUERY */
	bool given; /* out: a row was */
	bool committed; /* out: COMMIT did not roll back */
};

static bool send_text(struct pg *pg, struct flight *flight, enum step step, const char *text)
{
	flight->steps[flight->count++] = step;
	return PQsendQueryParams(pg->conn, text, 0, NULL, NULL, NULL, NULL, 0);
}

static bool send_begin(struct pg *pg, struct flight *flight)
{
	if (pg->transaction != PG_ASKED)
		return true;
	pg->transaction = PG_WITHIN;
	return send_text(pg, flight, STEP_BEGIN, begin_text) &&
	       (pg->guest || send_text(pg, flight, STEP_LOCK, lock_text));
}

static void name_of(const struct pg_kept *kept, char name[16])
{
	snprintf(name, 16, "evbus%u", kept->number);
}

/* The one for this text, or the place of one, whose statement goes. */
static bool send_drop(struct pg *pg, struct flight *flight, const char *sql, struct pg_kept **found)
{
	struct pg_kept *place = NULL;
	char name[16], text[32];

	for (size_t i = 0; i < PG_KEPT_MAX && !place; i++)
		if (pg->kept[i].sql == sql)
			place = &pg->kept[i];
	*found = place;
	if (place && place->ready && !strcmp(place->text, sql))
		return true;
	*found = place = place ? place : &pg->kept[pg->kept_next++ % PG_KEPT_MAX];
	free(place->text);
	place->text = NULL;
	bool was_ready = place->ready;
	name_of(place, name);
	place->sql = NULL;
	place->ready = false;
	snprintf(text, sizeof text, "DEALLOCATE %s", name);
	return !was_ready || send_text(pg, flight, STEP_DROP, text);
}

static enum evbus_code send_prepare(struct pg *pg, struct flight *flight, const char *sql, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char *text = NULL;
	char name[16];

	if (!send_drop(pg, flight, sql, &flight->kept))
		return pg_lost(pg, err);
	struct pg_kept *kept = flight->kept;
	if (kept->ready)
		return EVBUS_OK;
	TRY(pg_translate(sql, !pg->guest, &text, err));
	kept->text = os.realloc(NULL, strlen(sql) + 1);
	if (!kept->text)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot ask '%s'", pg->shown);
	memcpy(kept->text, sql, strlen(sql) + 1);
	kept->sql = sql;
	kept->number = ++pg->last_number;
	name_of(kept, name);
	flight->steps[flight->count++] = STEP_PREPARE;
	return PQsendPrepare(pg->conn, name, text, 0, NULL) ? EVBUS_OK : pg_lost(pg, err);
}

static enum evbus_code send_query(struct pg *pg, struct flight *flight, struct query *query, struct evbus_err *err)
{
	struct pg_sent sent;
	char name[16];

	TRY(pg_set_args(pg, query, &sent, err));
	if (!send_begin(pg, flight))
		return pg_lost(pg, err);
	TRY(send_prepare(pg, flight, query->sql, err));
	name_of(flight->kept, name);
	flight->steps[flight->count++] = STEP_QUERY;
	flight->query = query;
	if (!PQsendQueryPrepared(pg->conn, name, (int)query->arg_count, sent.values, sent.lengths, sent.formats, 0))
		return pg_lost(pg, err);
	return EVBUS_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static enum evbus_code give_row(struct pg *pg, PGresult *result, const struct query *query, struct evbus_err *err)
{
	struct value columns[COLUMNS_MAX];

	if (!query->row)
		return EVBUS_OK;
	size_t count = pg_read_row(result, columns);
	pg->running = true;
	enum evbus_code code = query->row(query->context, columns, count, err);
	pg->running = false;
	return code;
}

static int64_t changed_by(PGresult *result)
{
	return strncmp(PQcmdStatus(result), "SELECT", strlen("SELECT")) ? strtoll(PQcmdTuples(result), NULL, 10) : 0;
}

/* code: how it went so far; what comes after a failure is passed over. */
static enum evbus_code take_result(struct pg *pg, struct flight *flight, enum step step, PGresult *result,
				   enum evbus_code code, struct evbus_err *err)
{
	ExecStatusType status = PQresultStatus(result);

	if (code)
		return code;
	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_SINGLE_TUPLE)
		return pg_failed(pg, result, err);
	if (step == STEP_PREPARE)
		flight->kept->ready = true;
	if (step == STEP_ALONE)
		flight->committed = !strcmp(PQcmdStatus(result), "COMMIT");
	if (step != STEP_QUERY)
		return EVBUS_OK;
	if (status == PGRES_SINGLE_TUPLE) {
		flight->given = true;
		return give_row(pg, result, flight->query, err);
	}
	flight->query->changed = changed_by(result);
	return EVBUS_OK;
}

/* Rows come one by one, so that no more of them are in memory than one. */
static enum evbus_code take_step(struct pg *pg, struct flight *flight, enum step step, enum evbus_code *code,
				 struct evbus_err *err)
{
	PGresult *result;

	if (step == STEP_QUERY)
		PQsetSingleRowMode(pg->conn);
	for (;;) {
		TRY(pg_result(pg, &result, err));
		if (!result)
			return EVBUS_OK;
		*code = take_result(pg, flight, step, result, *code, err);
		PQclear(result);
	}
}

/* Ends the flight, and waits for its answers. With EVBUS_UNAVAILABLE there may be no connection any more. */
static enum evbus_code land(struct pg *pg, struct flight *flight, struct evbus_err *err)
{
	enum evbus_code code = EVBUS_OK;
	PGresult *result;

	if (!PQpipelineSync(pg->conn))
		return pg_lost(pg, err);
	for (size_t i = 0; i < flight->count; i++)
		TRY(take_step(pg, flight, flight->steps[i], &code, err));
	TRY(pg_result(pg, &result, err));
	assert(PQresultStatus(result) == PGRES_PIPELINE_SYNC);
	PQclear(result);
	return code;
}

/* ---- queries --------------------------------------------------------------------------------------------------- */

static enum evbus_code fly(struct pg *pg, struct query *query, bool *given, struct evbus_err *err)
{
	struct flight flight = { 0 };
	enum evbus_code code = send_query(pg, &flight, query, err);

	/* What was refused before it was sent leaves nothing behind it but what came before. */
	if (pg->conn && (!code || flight.count)) {
		enum evbus_code landed = land(pg, &flight, code ? NULL : err);
		code = code ? code : landed;
	}
	*given = flight.given;
	return code;
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
	bool given = false;

	assert(!pg->running);
	query->changed = 0;
	if (before == PG_LOST)
		return lost_within(pg, err);
	for (bool again = false;; again = true) {
		if (!pg->conn)
			TRY(pg_connect(pg, again || pg->connections, deadline_us, err));
		enum evbus_code code = fly(pg, query, &given, err);
		if (pg->conn)
			return code;
		pg->transaction = before == PG_WITHIN ? PG_LOST : before;
		bool late = pg->silent || os_monotonic_us() >= deadline_us;
		if (before == PG_WITHIN || given || late || code != EVBUS_UNAVAILABLE)
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

static enum evbus_code run_alone(struct pg *pg, const char *text, bool *committed, struct evbus_err *err)
{
	struct flight flight = { 0 };

	if (!send_text(pg, &flight, STEP_ALONE, text))
		return pg_lost(pg, err);
	enum evbus_code code = land(pg, &flight, err);
	*committed = flight.committed;
	return code;
}

static void rollback(struct db *db)
{
	struct pg *pg = of(db);
	bool committed;

	/* Of a connection that cannot even do this nothing is left. */
	if (pg->transaction == PG_WITHIN && pg->conn && run_alone(pg, "ROLLBACK", &committed, NULL))
		pg_disconnect(pg);
	pg->transaction = PG_OUTSIDE;
}

static enum evbus_code commit(struct db *db, struct evbus_err *err)
{
	struct pg *pg = of(db);
	enum pg_transaction transaction = pg->transaction;
	bool committed = false;

	pg->transaction = PG_OUTSIDE;
	if (transaction == PG_LOST)
		return lost_within(pg, err);
	if (transaction != PG_WITHIN)
		return EVBUS_OK;
	enum evbus_code code = run_alone(pg, "COMMIT", &committed, err);
	if (!pg->conn)
		return err_set(err, EVBUS_IO, 0,
			       "the connection to '%s' was lost during a commit, which may have happened", pg->shown);
	if (!code && !committed)
		return err_set(err, EVBUS_BUG, 0, "a transaction of '%s' had failed and was rolled back", pg->shown);
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
	bool given;

	if (of(db)->conn && fly(of(db), &query, &given, NULL) && of(db)->conn)
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

/* postgres_flight.c: statements that are sent together, and their answers.
 *
 * A flight ends with a Sync of the protocol, up to which the server passes over all that comes behind a failure. What
 * needs no answer waits for that of the statement after it, or for that of COMMIT: a transaction of a hundred rows is two
 * or three ways to the server and back. */
#include "store/postgres.h"

#include "base/os.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const char begin_text[] = "BEGIN ISOLATION LEVEL READ COMMITTED";
static const char lock_text[] =
	"SELECT pg_advisory_xact_lock(hashtextextended('evbus store ' || current_setting('search_path'), 0))";

/* ---- what is sent ---------------------------------------------------------------------------------------------- */

static struct pg_step *add_step(struct pg *pg, enum pg_what what)
{
	struct pg_step *step = &pg->flight.steps[pg->flight.count++];

	assert(pg->flight.count <= PG_STEPS_MAX);
	*step = (struct pg_step){ .what = what };
	return step;
}

static void start(struct pg *pg)
{
	if (pg->flight.count)
		return;
	pg->flight.given = false;
	pg->flight.committed = false;
	pg->flight.query = NULL;
}

enum evbus_code pg_send_text(struct pg *pg, enum pg_what what, const char *text, struct evbus_err *err)
{
	start(pg);
	add_step(pg, what);
	return PQsendQueryParams(pg->conn, text, 0, NULL, NULL, NULL, NULL, 0) ? EVBUS_OK : pg_lost(pg, err);
}

static enum evbus_code send_begin(struct pg *pg, struct evbus_err *err)
{
	if (pg->transaction != PG_ASKED)
		return EVBUS_OK;
	pg->transaction = PG_WITHIN;
	TRY(pg_send_text(pg, PG_ALONE, begin_text, err));
	return pg->guest ? EVBUS_OK : pg_send_text(pg, PG_ALONE, lock_text, err);
}

static void name_of(const struct pg_kept *kept, char name[16])
{
	snprintf(name, 16, "evbus%u", kept->number);
}

/* The one for this text, or an empty place for it, whose statement goes. */
static enum evbus_code find_place(struct pg *pg, const char *sql, struct pg_kept **found, struct evbus_err *err)
{
	struct pg_kept *place = NULL;
	char name[16], text[32];

	for (size_t i = 0; i < PG_KEPT_MAX && !place; i++)
		if (pg->kept[i].sql == sql)
			place = &pg->kept[i];
	*found = place;
	if (place && !strcmp(place->text, sql))
		return EVBUS_OK;
	*found = place = place ? place : &pg->kept[pg->kept_next++ % PG_KEPT_MAX];
	bool was_there = place->sql;
	name_of(place, name);
	free(place->text);
	*place = (struct pg_kept){ 0 };
	snprintf(text, sizeof text, "DEALLOCATE %s", name);
	return was_there ? pg_send_text(pg, PG_ALONE, text, err) : EVBUS_OK;
}

static enum evbus_code send_prepare(struct pg *pg, const char *sql, struct pg_kept **found, struct evbus_err *err)
{
	CLEANUP(free_cleanup) char *text = NULL, *copy = NULL;
	struct pg_kept *kept;
	char name[16];

	TRY(find_place(pg, sql, &kept, err));
	*found = kept;
	if (kept->sql)
		return EVBUS_OK;
	TRY(pg_translate(sql, !pg->guest, &text, err));
	copy = os.realloc(NULL, strlen(sql) + 1);
	if (!copy)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot ask '%s'", pg->shown);
	memcpy(copy, sql, strlen(sql) + 1);
	kept->sql = sql;
	kept->number = ++pg->last_number;
	GIVE(&kept->text, copy);
	name_of(kept, name);
	add_step(pg, PG_PREPARE)->number = kept->number;
	return PQsendPrepare(pg->conn, name, text, 0, NULL) ? EVBUS_OK : pg_lost(pg, err);
}

enum evbus_code pg_send_query(struct pg *pg, struct query *query, struct evbus_err *err)
{
	struct pg_sent sent;
	struct pg_kept *kept;
	char name[16];

	TRY(pg_set_args(pg, query, &sent, err));
	start(pg);
	TRY(send_begin(pg, err));
	TRY(send_prepare(pg, query->sql, &kept, err));
	name_of(kept, name);
	add_step(pg, query->later ? PG_ALONE : PG_QUERY);
	pg->flight.query = query->later ? NULL : query;
	if (!PQsendQueryPrepared(pg->conn, name, (int)query->arg_count, sent.values, sent.lengths, sent.formats, 0))
		return pg_lost(pg, err);
	return EVBUS_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static enum evbus_code give_row(struct pg *pg, PGresult *result, struct evbus_err *err)
{
	const struct query *query = pg->flight.query;
	struct value columns[COLUMNS_MAX];

	pg->flight.given = true;
	if (!query->row)
		return EVBUS_OK;
	size_t count = pg_read_row(pg, result, columns);
	pg->running = true;
	enum evbus_code code = query->row(query->context, columns, count, err);
	pg->running = false;
	return code;
}

static int64_t changed_by(PGresult *result)
{
	return strncmp(PQcmdStatus(result), "SELECT", strlen("SELECT")) ? strtoll(PQcmdTuples(result), NULL, 10) : 0;
}

static void set_ready(struct pg *pg, unsigned number)
{
	for (size_t i = 0; i < PG_KEPT_MAX; i++)
		pg->kept[i].ready = pg->kept[i].ready || pg->kept[i].number == number;
}

/* What the server has not come to is to be prepared again. */
static void forget_unprepared(struct pg *pg)
{
	for (size_t i = 0; i < PG_KEPT_MAX; i++) {
		struct pg_kept *kept = &pg->kept[i];
		if (!kept->sql || kept->ready)
			continue;
		free(kept->text);
		*kept = (struct pg_kept){ 0 };
	}
}

/* code: how it went so far; what comes after a failure is passed over. */
static enum evbus_code take_result(struct pg *pg, const struct pg_step *step, PGresult *result, enum evbus_code code,
				   struct evbus_err *err)
{
	ExecStatusType status = PQresultStatus(result);

	if (code)
		return code;
	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_SINGLE_TUPLE)
		return pg_failed(pg, result, err);
	if (step->what == PG_PREPARE)
		set_ready(pg, step->number);
	if (step->what == PG_ALONE)
		pg->flight.committed = !strcmp(PQcmdStatus(result), "COMMIT");
	if (step->what != PG_QUERY)
		return EVBUS_OK;
	if (status == PGRES_SINGLE_TUPLE)
		return give_row(pg, result, err);
	pg->flight.query->changed = changed_by(result);
	return EVBUS_OK;
}

/* Rows come one by one, so that no more of them are in memory than one. */
static enum evbus_code take_step(struct pg *pg, const struct pg_step *step, enum evbus_code *code, struct evbus_err *err)
{
	PGresult *result;

	if (step->what == PG_QUERY)
		PQsetSingleRowMode(pg->conn);
	for (;;) {
		TRY(pg_result(pg, &result, err));
		if (!result)
			return EVBUS_OK;
		*code = take_result(pg, step, result, *code, err);
		PQclear(result);
	}
}

static enum evbus_code take_all(struct pg *pg, enum evbus_code *code, struct evbus_err *err)
{
	PGresult *result;

	for (size_t i = 0; i < pg->flight.count; i++)
		TRY(take_step(pg, &pg->flight.steps[i], code, err));
	TRY(pg_result(pg, &result, err));
	assert(PQresultStatus(result) == PGRES_PIPELINE_SYNC);
	PQclear(result);
	return EVBUS_OK;
}

enum evbus_code pg_land(struct pg *pg, struct evbus_err *err)
{
	enum evbus_code code = EVBUS_OK;

	if (!PQpipelineSync(pg->conn))
		return pg_lost(pg, err);
	TRY(take_all(pg, &code, err));
	pg->flight.count = 0;
	forget_unprepared(pg);
	return code;
}

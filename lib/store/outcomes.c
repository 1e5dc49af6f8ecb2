/* outcomes.c: the tables of retries and of the inbox. */
#include "store/outcomes.h"

#include "store/table.h"

#include <assert.h>
#include <inttypes.h>

/* ---- inbox ----------------------------------------------------------------------------------------------------- */

/* One statement for a whole batch: what is paid once for each statement, the locks that reading takes among it, is more
 * than what an event costs in it. Rows of events that are not there are NULL: those are passed over. */
#define ROW(n) "(" n ", ?, ?, ?)"
#define NEXT(n) ", " ROW(n)
#define TEN(n)                                                                                                         \
	ROW(n "0")                                                                                                     \
	NEXT(n "1") NEXT(n "2") NEXT(n "3") NEXT(n "4") NEXT(n "5") NEXT(n "6") NEXT(n "7") NEXT(n "8") NEXT(n "9")
#define FIFTY(a, b, c, d, e) TEN(a) ", " TEN(b) ", " TEN(c) ", " TEN(d) ", " TEN(e)
#define HUNDRED FIFTY("0", "1", "2", "3", "4") ", " FIFTY("5", "6", "7", "8", "9")

#define BATCH(rows) "WITH batch (n, tenant_id, topic, event_id) AS (VALUES " rows ") "
#define LOOK                                                                                                           \
	"SELECT n FROM batch CROSS JOIN inbox WHERE inbox.event_id = batch.event_id AND group_name = ? "               \
	"AND inbox.tenant_id = batch.tenant_id AND inbox.topic = batch.topic"
#define ADD                                                                                                            \
	"INSERT INTO inbox (group_name, tenant_id, topic, event_id, processed_at) "                                    \
	"SELECT ?, tenant_id, topic, event_id, ? FROM batch WHERE event_id IS NOT NULL "                               \
	"ON CONFLICT (group_name, tenant_id, topic, event_id) DO NOTHING"

#define COLUMNS_OF_EVENT 3u
#define ARGS_MAX (INBOX_BATCH_MAX * COLUMNS_OF_EVENT + 2)

static const char look_one[] = BATCH(ROW("0")) LOOK;
static const char look_all[] = BATCH(HUNDRED) LOOK;
static const char add_one[] = BATCH(ROW("0")) ADD;
static const char add_all[] = BATCH(HUNDRED) ADD;

/* For a column that is never NULL. */
static struct value filled(struct evbus_slice text)
{
	return (struct value){ .kind = VALUE_TEXT, .bytes = text };
}

static enum evbus_code take_known(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct inbox_event *events = context;

	(void)err;
	assert(count == 1 && columns[0].kind == VALUE_INTEGER && columns[0].integer < INBOX_BATCH_MAX);
	events[columns[0].integer].known = true;
	return EVBUS_OK;
}

/* The events of a batch, which the statement for one takes, or that for as many as can be; returns how many arguments
 * those are. */
static size_t fill(struct value args[ARGS_MAX], const struct inbox_event *events, size_t count)
{
	assert(count <= INBOX_BATCH_MAX);
	memset(args, 0, ARGS_MAX * sizeof *args);
	for (size_t i = 0; i < count; i++) {
		struct value *arg = args + i * COLUMNS_OF_EVENT;
		arg[0] = filled(events[i].tenant_id);
		arg[1] = value_text(events[i].topic);
		arg[2] = filled(events[i].event_id);
	}
	return (count == 1 ? 1 : INBOX_BATCH_MAX) * COLUMNS_OF_EVENT;
}

enum evbus_code inbox_look(struct store *store, const char *group, struct inbox_event *events, size_t count,
			   struct evbus_err *err)
{
	struct value args[ARGS_MAX];
	size_t filled_to = fill(args, events, count);
	struct query query = { .sql = count == 1 ? look_one : look_all,
			       .args = args,
			       .arg_count = filled_to + 1,
			       .row = take_known,
			       .context = events };

	args[filled_to] = value_text(group);
	for (size_t i = 0; i < count; i++)
		events[i].known = false;
	return count ? table_read(store, &query, err) : EVBUS_OK;
}

enum evbus_code inbox_add(struct store *store, const char *group, const struct inbox_event *events, size_t count,
			  const char *now, struct evbus_err *err)
{
	struct value args[ARGS_MAX];
	size_t filled_to = fill(args, events, count);
	struct query query = {
		.sql = count == 1 ? add_one : add_all, .later = true, .args = args, .arg_count = filled_to + 2
	};

	args[filled_to] = value_text(group);
	args[filled_to + 1] = value_text(now);
	return count ? table_write(store, &query, err) : EVBUS_OK;
}

/* ---- retries --------------------------------------------------------------------------------------------------- */

/* Offsets are texts, of digits without leading zeros: the longer one is the greater one. */
static const char select_retries[] =
	"SELECT record_offset, attempts, next_attempt_at, last_error, history FROM retries "
	"WHERE group_name = ? AND topic = ? AND partition_id = ? AND log_id = ? "
	"ORDER BY length(record_offset), record_offset";
static const char upsert_retry[] =
	"INSERT INTO retries (group_name, topic, partition_id, record_offset, log_id, attempts, next_attempt_at, "
	"last_error, history) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
	"ON CONFLICT (group_name, topic, partition_id, record_offset) DO UPDATE SET log_id = excluded.log_id, "
	"attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at, last_error = excluded.last_error, "
	"history = excluded.history";
static const char delete_retry[] =
	"DELETE FROM retries WHERE group_name = ? AND topic = ? AND partition_id = ? AND record_offset = ?";
static const char delete_old_retries[] =
	"DELETE FROM retries WHERE group_name = ? AND topic = ? AND partition_id = ? AND "
	"(log_id <> ? OR length(record_offset) < ? OR (length(record_offset) = ? AND record_offset < ?))";

struct taker {
	enum evbus_code (*found)(void *context, const struct retry_row *row, struct evbus_err *err);
	void *context;
};

static enum evbus_code take_retry(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct taker *taker = context;

	assert(count == 5);
	if (columns[0].kind != VALUE_TEXT || columns[1].kind != VALUE_INTEGER || columns[1].integer < 1 ||
	    columns[2].kind != VALUE_TEXT || columns[3].kind != VALUE_TEXT || columns[4].kind != VALUE_TEXT)
		return err_set(err, EVBUS_IO, 0, "a row of the table of retries is damaged: evbus did not write it so");
	const struct retry_row row = { .offset = columns[0].bytes,
				       .attempts = columns[1].integer,
				       .next_attempt_at = columns[2].bytes,
				       .last_error = columns[3].bytes,
				       .history = columns[4].bytes };
	return taker->found(taker->context, &row, err);
}

enum evbus_code retries_list(struct store *store, const struct retry_place *place,
			     enum evbus_code (*found)(void *context, const struct retry_row *row,
						      struct evbus_err *err),
			     void *context, struct evbus_err *err)
{
	struct taker taker = { found, context };
	struct query query = { .sql = select_retries,
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), value_text(place->log_id)),
			       .row = take_retry,
			       .context = &taker };

	return table_read(store, &query, err);
}

enum evbus_code retries_put(struct store *store, const struct retry_place *place, const struct retry_row *row,
			    struct evbus_err *err)
{
	struct query query = { .sql = upsert_retry,
			       .later = true,
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), filled(row->offset), value_text(place->log_id),
				    value_integer(row->attempts), filled(row->next_attempt_at), filled(row->last_error),
				    filled(row->history)) };

	return table_write(store, &query, err);
}

enum evbus_code retries_remove(struct store *store, const struct retry_place *place, struct evbus_slice offset,
			       struct evbus_err *err)
{
	struct query query = { .sql = delete_retry,
			       .later = true,
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), filled(offset)) };

	return table_write(store, &query, err);
}

enum evbus_code retries_sweep(struct store *store, const struct retry_place *place, struct evbus_slice below,
			      struct evbus_err *err)
{
	struct query query = { .sql = delete_old_retries,
			       .later = true,
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), value_text(place->log_id),
				    value_integer((int64_t)below.len), value_integer((int64_t)below.len),
				    filled(below)) };

	return table_write(store, &query, err);
}

/* outcomes.c: the tables of retries and of the inbox. */
#include "store/outcomes.h"

#include "store/table.h"

#include <assert.h>
#include <inttypes.h>

/* ---- inbox ----------------------------------------------------------------------------------------------------- */

#define COLUMNS_OF_EVENT 4u

/* One statement for up to 32 events: each of them costs a walk down one index, and the locks that reading takes are
 * paid once. A comparison with NULL, for the events that are not asked for, is not even looked up. */
#define LOOK(n)                                                                                       \
	"SELECT " n " FROM inbox WHERE group_name = ? AND tenant_id = ? AND topic = ? AND event_id = ?"
#define AND_LOOK(n) " UNION ALL " LOOK(n)

static const char look[] =
	LOOK("0") AND_LOOK("1") AND_LOOK("2") AND_LOOK("3") AND_LOOK("4") AND_LOOK("5") AND_LOOK("6") AND_LOOK("7")
	AND_LOOK("8") AND_LOOK("9") AND_LOOK("10") AND_LOOK("11") AND_LOOK("12") AND_LOOK("13") AND_LOOK("14")
	AND_LOOK("15") AND_LOOK("16") AND_LOOK("17") AND_LOOK("18") AND_LOOK("19") AND_LOOK("20") AND_LOOK("21")
	AND_LOOK("22") AND_LOOK("23") AND_LOOK("24") AND_LOOK("25") AND_LOOK("26") AND_LOOK("27") AND_LOOK("28")
	AND_LOOK("29") AND_LOOK("30") AND_LOOK("31");
static const char look_one[] = LOOK("0");
static const char insert_inbox[] =
	"INSERT INTO inbox (group_name, tenant_id, topic, event_id, processed_at) VALUES (?, ?, ?, ?, ?) "
	"ON CONFLICT (group_name, tenant_id, topic, event_id) DO NOTHING";

/* For a column that is never NULL. */
static struct value filled(struct evbus_slice text)
{
	return (struct value){ .kind = VALUE_TEXT, .bytes = text };
}

static enum evbus_code take_known(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct inbox_event *events = context;

	(void)err;
	assert(count == 1 && columns[0].kind == VALUE_INTEGER && columns[0].integer < INBOX_LOOK_MAX);
	events[columns[0].integer].known = true;
	return EVBUS_OK;
}

enum evbus_code inbox_look(struct store *store, const char *group, struct inbox_event *events, size_t count,
			   struct evbus_err *err)
{
	struct value args[INBOX_LOOK_MAX * COLUMNS_OF_EVENT] = { 0 };
	struct query query = { .sql = count == 1 ? look_one : look,
			       .args = args,
			       .arg_count = (count == 1 ? 1 : INBOX_LOOK_MAX) * COLUMNS_OF_EVENT,
			       .row = take_known,
			       .context = events };

	assert(count <= INBOX_LOOK_MAX);
	for (size_t i = 0; i < count; i++) {
		struct value *arg = args + i * COLUMNS_OF_EVENT;
		events[i].known = false;
		arg[0] = value_text(group);
		arg[1] = filled(events[i].tenant_id);
		arg[2] = value_text(events[i].topic);
		arg[3] = filled(events[i].event_id);
	}
	return count ? table_read(store, &query, err) : EVBUS_OK;
}

enum evbus_code inbox_add(struct store *store, const char *group, const struct inbox_event *event, const char *now,
			  struct evbus_err *err)
{
	struct query query = { .sql = insert_inbox,
			       ARGS(value_text(group), filled(event->tenant_id), value_text(event->topic),
				    filled(event->event_id), value_text(now)) };

	return table_write(store, &query, err);
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
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), filled(offset)) };

	return table_write(store, &query, err);
}

enum evbus_code retries_sweep(struct store *store, const struct retry_place *place, struct evbus_slice below,
			      struct evbus_err *err)
{
	struct query query = { .sql = delete_old_retries,
			       ARGS(value_text(place->group), value_text(place->topic),
				    value_integer(place->partition_id), value_text(place->log_id),
				    value_integer((int64_t)below.len), value_integer((int64_t)below.len),
				    filled(below)) };

	return table_write(store, &query, err);
}

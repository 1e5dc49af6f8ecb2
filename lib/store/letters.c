/* letters.c: the table of dead letters. */
#include "store/letters.h"

#include "store/table.h"

#include "event/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define COLUMNS                                                                                                        \
	"id, state, group_name, tenant_id, topic, partition_id, record_offset, offset_kind, log_id, published_at, "    \
	"partition_key, event_id, event_type, correlation_id, payload, reason, error, attempts, history, returns, "    \
	"created_at, updated_at, resolved_by, result"
#define COLUMN_COUNT 24

static const char select_of_event[] = "SELECT id, history FROM dlq WHERE group_name = ? AND topic = ? AND "
				      "partition_id = ? AND record_offset = ? AND log_id = ?";
static const char count_up[] = "INSERT INTO counters (name, value) VALUES ('dlq', 1) "
			       "ON CONFLICT (name) DO UPDATE SET value = counters.value + 1";
static const char select_counter[] = "SELECT value FROM counters WHERE name = 'dlq'";
static const char insert[] = "INSERT INTO dlq (" COLUMNS ") VALUES "
			     "(?, 'DEAD', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)";
static const char die_again[] =
	"UPDATE dlq SET state = 'DEAD', attempts = attempts + ?, history = ?, reason = ?, error = ?, "
	"returns = returns + 1, updated_at = ?, resolved_by = NULL, result = NULL WHERE id = ?";
static const char select_queued[] =
	"SELECT " COLUMNS " FROM dlq WHERE group_name = ? AND state = 'QUEUED' AND topic = ? AND partition_id = ? "
	"AND id > ? AND log_id = ? ORDER BY id LIMIT 1";
static const char succeed[] = "UPDATE dlq SET state = 'RETRIED', resolved_by = ?, result = ?, updated_at = ? "
			      "WHERE id = ? AND state = 'QUEUED'";
static const char fail[] = "UPDATE dlq SET state = 'DEAD', attempts = attempts + 1, returns = returns + 1, "
			   "history = ?, reason = ?, error = ?, updated_at = ?, resolved_by = NULL, result = NULL "
			   "WHERE id = ? AND state = 'QUEUED'";
static const char select_bound[] = "SELECT (SELECT MAX(id) FROM dlq), "
				   "(SELECT MAX(updated_at) FROM dlq WHERE state = 'DEAD'), "
				   "(SELECT MAX(updated_at) FROM dlq WHERE state = 'QUEUED'), "
				   "(SELECT MAX(updated_at) FROM dlq WHERE state = 'RETRIED'), "
				   "(SELECT MAX(updated_at) FROM dlq WHERE state = 'DISCARDED')";
static const char select_some[] = "SELECT " COLUMNS " FROM dlq WHERE id > ? AND id <= ? ORDER BY id LIMIT 256";
static const char select_in_state[] =
	"SELECT " COLUMNS " FROM dlq WHERE id > ? AND id <= ? AND state = ? ORDER BY id LIMIT 256";
static const char select_one[] = "SELECT " COLUMNS " FROM dlq WHERE id = ?";
static const char select_existence[] = "SELECT id FROM dlq WHERE id = ?";
static const char change[] = "UPDATE dlq SET state = ?, reason = ?, error = ?, attempts = ?, history = ?, returns = ?, "
			     "updated_at = ?, resolved_by = ?, result = ? WHERE id = ?";
static const char select_ages[] = "SELECT id, created_at FROM dlq WHERE state = ? AND id > ? ORDER BY id LIMIT 256";

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* As in the driver, empty is not NULL. */
static bool take_bytes(const struct value *value, enum value_kind kind, bool null, struct evbus_slice *to)
{
	*to = (struct evbus_slice){ NULL, 0 };
	if (value->kind == VALUE_NULL)
		return null;
	*to = (struct evbus_slice){ value->bytes.data ? value->bytes.data : "", value->bytes.len };
	return value->kind == kind;
}

static bool take_integer(const struct value *value, int64_t most, int64_t *to)
{
	*to = value->integer;
	return value->kind == VALUE_INTEGER && value->integer >= 0 && value->integer <= most;
}

static bool take_time(const struct value *value, char text[28])
{
	if (value->kind != VALUE_TEXT || value->bytes.len != 27)
		return false;
	memcpy(text, value->bytes.data, 27);
	text[27] = '\0';
	return true;
}

static enum evbus_code damaged(const struct value *id, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0, "the dead letter '%" PRId64 "' is damaged: evbus did not write it so",
		       id->integer);
}

static bool take_where(const struct value *columns, struct letter_row *row)
{
	int64_t partition_id;
	bool whole = take_bytes(&columns[2], VALUE_TEXT, false, &row->group) &&
		     take_bytes(&columns[4], VALUE_TEXT, false, &row->topic) &&
		     take_integer(&columns[5], INT32_MAX, &partition_id) &&
		     take_bytes(&columns[6], VALUE_TEXT, false, &row->offset) &&
		     take_bytes(&columns[7], VALUE_TEXT, false, &row->offset_kind) &&
		     take_bytes(&columns[8], VALUE_TEXT, false, &row->log_id) &&
		     take_bytes(&columns[9], VALUE_TEXT, false, &row->published_at);

	row->partition_id = whole ? (int32_t)partition_id : 0;
	return whole;
}

static bool take_event(const struct value *columns, struct letter_row *row)
{
	return take_bytes(&columns[3], VALUE_TEXT, true, &row->tenant_id) &&
	       take_bytes(&columns[10], VALUE_TEXT, true, &row->partition_key) &&
	       take_bytes(&columns[11], VALUE_TEXT, true, &row->event_id) &&
	       take_bytes(&columns[12], VALUE_TEXT, true, &row->event_type) &&
	       take_bytes(&columns[13], VALUE_TEXT, true, &row->correlation_id) &&
	       take_bytes(&columns[14], VALUE_BLOB, false, &row->payload);
}

static bool take_fate(const struct value *columns, struct letter_row *row)
{
	return take_bytes(&columns[1], VALUE_TEXT, false, &row->state) &&
	       take_bytes(&columns[15], VALUE_TEXT, false, &row->reason) &&
	       take_bytes(&columns[16], VALUE_TEXT, false, &row->error) &&
	       take_integer(&columns[17], INT64_MAX, &row->attempts) &&
	       take_bytes(&columns[18], VALUE_TEXT, false, &row->history) &&
	       take_integer(&columns[19], INT64_MAX, &row->returns) &&
	       take_bytes(&columns[20], VALUE_TEXT, false, &row->created_at) &&
	       take_bytes(&columns[21], VALUE_TEXT, false, &row->updated_at) &&
	       take_bytes(&columns[22], VALUE_TEXT, true, &row->resolved_by) &&
	       take_bytes(&columns[23], VALUE_TEXT, true, &row->result);
}

enum evbus_code letter_of(const struct value *columns, size_t count, struct letter_row *row, struct evbus_err *err)
{
	assert(count == COLUMN_COUNT);
	if (!take_integer(&columns[0], INT64_MAX, &row->id) || !take_where(columns, row) || !take_event(columns, row) ||
	    !take_fate(columns, row))
		return damaged(columns, err);
	return EVBUS_OK;
}

/* For a column that is never NULL. */
static struct value filled(struct evbus_slice text)
{
	return (struct value){ .kind = VALUE_TEXT, .bytes = text };
}

/* ---- a letter is made ------------------------------------------------------------------------------------------ */

/* The letter that an event has already. */
struct known {
	int64_t id; /* 0: none */
	struct buf history;
};

static void known_release(struct known *known)
{
	buf_release(&known->history);
}

static enum evbus_code take_known(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct known *known = context;
	struct evbus_slice history;

	assert(count == 2);
	if (!take_integer(&columns[0], INT64_MAX, &known->id) || !take_bytes(&columns[1], VALUE_TEXT, false, &history))
		return damaged(columns, err);
	return buf_add(&known->history, history.data, history.len, err);
}

static enum evbus_code take_counter(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	assert(count == 1);
	if (!take_integer(&columns[0], INT64_MAX, context))
		return err_set(err, EVBUS_IO, 0, "the number of the last dead letter is damaged: restore the store");
	return EVBUS_OK;
}

static enum evbus_code next_id(struct store *store, int64_t *id, struct evbus_err *err)
{
	struct query up = { .sql = count_up, .later = true };
	struct query select = { .sql = select_counter, .row = take_counter, .context = id };

	TRY(table_write(store, &up, err));
	return table_write(store, &select, err);
}

static enum evbus_code put_new(struct store *store, const struct letter_row *row, int64_t *id, struct evbus_err *err)
{
	int64_t new = 0;

	TRY(next_id(store, &new, err));
	struct query query = {
		.sql = insert,
		.later = true,
		ARGS(value_integer(new), value_slice(row->group), value_slice(row->tenant_id), value_slice(row->topic),
		     value_integer(row->partition_id), value_slice(row->offset), value_slice(row->offset_kind),
		     value_slice(row->log_id), value_slice(row->published_at), value_slice(row->partition_key),
		     value_slice(row->event_id), value_slice(row->event_type), value_slice(row->correlation_id),
		     (struct value){ .kind = VALUE_BLOB, .bytes = row->payload }, value_slice(row->reason),
		     filled(row->error), value_integer(row->attempts), filled(row->history),
		     value_integer(row->returns), value_slice(row->updated_at), value_slice(row->updated_at))
	};
	TRY(table_write(store, &query, err));
	*id = new;
	return EVBUS_OK;
}

static enum evbus_code put_again(struct store *store, const struct known *known, const struct letter_row *row,
				 struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf history = { 0 };

	TRY(history_join(&history, (struct evbus_slice){ known->history.data, known->history.len }, row->history, err));
	struct query query = { .sql = die_again,
			       .later = true,
			       ARGS(value_integer(row->attempts),
				    value_slice((struct evbus_slice){ history.data, history.len }),
				    value_slice(row->reason), filled(row->error), value_slice(row->updated_at),
				    value_integer(known->id)) };
	return table_write(store, &query, err);
}

enum evbus_code letters_put(struct store *store, const struct letter_row *row, int64_t *id, struct evbus_err *err)
{
	CLEANUP(known_release) struct known known = { 0 };
	struct query select = { .sql = select_of_event,
				ARGS(value_slice(row->group), value_slice(row->topic), value_integer(row->partition_id),
				     value_slice(row->offset), value_slice(row->log_id)),
				.row = take_known,
				.context = &known };

	TRY(table_write(store, &select, err));
	if (!known.id)
		return put_new(store, row, id, err);
	TRY(put_again(store, &known, row, err));
	*id = known.id;
	return EVBUS_OK;
}

/* ---- what a consumer does with those that are queued ----------------------------------------------------------- */

struct taker {
	enum evbus_code (*found)(void *context, const struct letter_row *row, struct evbus_err *err);
	void *context;
};

static enum evbus_code give_found(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct taker *taker = context;
	struct letter_row row;

	TRY(letter_of(columns, count, &row, err));
	return taker->found(taker->context, &row, err);
}

enum evbus_code letters_next_queued(struct store *store, const char *group, const char *topic, int32_t partition_id,
				    const char *log_id, int64_t after_id,
				    enum evbus_code (*found)(void *context, const struct letter_row *row,
							     struct evbus_err *err),
				    void *context, struct evbus_err *err)
{
	struct taker taker = { found, context };
	struct query query = { .sql = select_queued,
			       ARGS(value_text(group), value_text(topic), value_integer(partition_id),
				    value_integer(after_id), value_text(log_id)),
			       .row = give_found,
			       .context = &taker };

	return table_read(store, &query, err);
}

enum evbus_code letters_succeeded(struct store *store, int64_t id, const char *by, const char *result, const char *now,
				  bool *changed, struct evbus_err *err)
{
	struct query query = { .sql = succeed,
			       ARGS(value_text(by), value_text(result), value_text(now), value_integer(id)) };

	TRY(table_write(store, &query, err));
	*changed = query.changed;
	return EVBUS_OK;
}

enum evbus_code letters_failed(struct store *store, int64_t id, const char *reason, struct evbus_slice error,
			       struct evbus_slice history, const char *now, bool *changed, struct evbus_err *err)
{
	struct query query = { .sql = fail,
			       ARGS(filled(history), value_text(reason), filled(error), value_text(now),
				    value_integer(id)) };

	TRY(table_write(store, &query, err));
	*changed = query.changed;
	return EVBUS_OK;
}

/* ---- for operators --------------------------------------------------------------------------------------------- */

static enum evbus_code take_bound(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct letters_bound *bound = context;

	(void)err;
	bound->id = columns[0].kind == VALUE_INTEGER ? columns[0].integer : 0;
	for (size_t i = 1; i < count; i++) {
		char text[28];
		if (take_time(&columns[i], text) && strcmp(text, bound->updated_at) > 0)
			memcpy(bound->updated_at, text, sizeof text);
	}
	return EVBUS_OK;
}

enum evbus_code letters_bound(struct store *store, struct letters_bound *bound, struct evbus_err *err)
{
	struct query query = { .sql = select_bound, .row = take_bound, .context = bound };

	*bound = (struct letters_bound){ 0 };
	return table_read(store, &query, err);
}

enum evbus_code letters_page(struct store *store, const char *state, int64_t after_id, int64_t last_id,
			     struct page *page, struct evbus_err *err)
{
	struct query all = { .sql = select_some, ARGS(value_integer(after_id), value_integer(last_id)) };
	struct query some = { .sql = select_in_state,
			      ARGS(value_integer(after_id), value_integer(last_id), value_text(state ? state : "")) };

	return page_read(store, state ? &some : &all, page, err);
}

enum evbus_code letters_find(struct store *store, int64_t id, struct page *page, struct evbus_err *err)
{
	struct query query = { .sql = select_one, ARGS(value_integer(id)) };

	return page_read(store, &query, page, err);
}

static enum evbus_code take_existence(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)columns;
	(void)count;
	(void)err;
	*(bool *)context = true;
	return EVBUS_OK;
}

enum evbus_code letters_exist(struct store *store, int64_t id, bool *exist, struct evbus_err *err)
{
	struct query query = {
		.sql = select_existence, ARGS(value_integer(id)), .row = take_existence, .context = exist
	};

	*exist = false;
	return table_read(store, &query, err);
}

enum evbus_code letters_change(struct store *store, const struct letter_row *row, struct evbus_err *err)
{
	struct query query = { .sql = change,
			       .later = true,
			       ARGS(value_slice(row->state), value_slice(row->reason), filled(row->error),
				    value_integer(row->attempts), filled(row->history), value_integer(row->returns),
				    value_slice(row->updated_at), value_slice(row->resolved_by),
				    value_slice(row->result), value_integer(row->id)) };

	return table_write(store, &query, err);
}

struct oldest {
	int64_t id; /* 0: none */
	char created_at[28];
};

static enum evbus_code compare_ages(const struct page *page, struct oldest *oldest, int64_t *last,
				    struct evbus_err *err)
{
	char created_at[28];

	for (size_t i = 0; i < page->count; i++) {
		const struct value *columns = page->rows[i];
		if (!take_integer(&columns[0], INT64_MAX, last) || !take_time(&columns[1], created_at))
			return damaged(columns, err);
		if (strcmp(created_at, oldest->created_at) >= 0)
			continue;
		oldest->id = *last;
		memcpy(oldest->created_at, created_at, sizeof created_at);
	}
	return EVBUS_OK;
}

/* In pages: ids are nearly in the order of age, but only nearly, and one query over a million would keep writers waiting
 * for too long. */
static enum evbus_code find_oldest(struct store *store, const char *state, struct oldest *oldest, struct evbus_err *err)
{
	CLEANUP(page_release) struct page page = { 0 };
	int64_t last = 0;

	do {
		struct query query = { .sql = select_ages, ARGS(value_text(state), value_integer(last)) };
		TRY(page_read(store, &query, &page, err));
		TRY(compare_ages(&page, oldest, &last, err));
	} while (page.count);
	return EVBUS_OK;
}

enum evbus_code letters_oldest(struct store *store, const char *before, int64_t *id, char created_at[28],
			       struct evbus_err *err)
{
	struct oldest oldest = { 0 };

	snprintf(oldest.created_at, sizeof oldest.created_at, "%s", before);
	TRY(find_oldest(store, "DEAD", &oldest, err));
	TRY(find_oldest(store, "QUEUED", &oldest, err));
	*id = oldest.id;
	memcpy(created_at, oldest.created_at, sizeof oldest.created_at);
	return EVBUS_OK;
}

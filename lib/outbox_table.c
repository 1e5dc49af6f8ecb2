/* outbox_table.c: the table of an outbox: whether it is there, what its columns are, and its rows. */
#include "outbox_table.h"

#include "base/os.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>

#define REQUIRED                                                                                                       \
	(OUTBOX_BIT(OUTBOX_SEQ) | OUTBOX_BIT(OUTBOX_ID) | OUTBOX_BIT(OUTBOX_TOPIC) | OUTBOX_BIT(OUTBOX_PAYLOAD) |      \
	 OUTBOX_BIT(OUTBOX_STATE))

/* ---- looking at it --------------------------------------------------------------------------------------------- */

static enum evbus_code take_name(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct evbus_outbox *outbox = context;
	const char nul = '\0';

	if (count != 1 || columns[0].kind != VALUE_TEXT || memchr(columns[0].bytes.data, 0, columns[0].bytes.len))
		return EVBUS_OK;
	TRY(buf_add(&outbox->names, columns[0].bytes.data, columns[0].bytes.len, err));
	return buf_add(&outbox->names, &nul, 1, err);
}

static bool is_named(const struct evbus_outbox *outbox, const char *name)
{
	for (const char *at = outbox->names.data, *end = at + outbox->names.len; at < end; at += strlen(at) + 1)
		if (!strcmp(at, name))
			return true;
	return false;
}

static uint32_t find_present(const struct evbus_outbox *outbox, const struct store_driver *driver)
{
	uint32_t present = outbox->map.topic[0] ? OUTBOX_BIT(OUTBOX_TOPIC) : 0;

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		const char *name = outbox->map.columns[i];
		if (is_named(outbox, name) || (driver->row_number && !strcmp(name, driver->row_number)))
			present |= OUTBOX_BIT(i);
	}
	return present;
}

static enum evbus_code check_columns(const struct evbus_outbox *outbox, struct evbus_err *err)
{
	uint32_t missing = (REQUIRED | outbox->map.named) & ~outbox->present;
	char names[256] = "";

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		size_t len = strlen(names);
		if (missing & OUTBOX_BIT(i))
			snprintf(names + len, sizeof names - len, "%s%s", len ? ", " : "", outbox->map.columns[i]);
	}
	if (missing)
		return err_set(
			err, EVBUS_CONFLICT, 0,
			"the table '%s' of the outbox '%s' has no column %s: say by --map OURS=THEIRS what it is "
			"called there",
			outbox->map.table, outbox->name, names);
	return EVBUS_OK;
}

enum evbus_code outbox_find_index(struct evbus_outbox *outbox, enum outbox_sql index, bool *exists,
				  struct evbus_err *err)
{
	char name[2 * OUTBOX_NAME_MAX_BYTES];

	if (outbox->server)
		return outbox_server_has(outbox, index, exists, err);
	outbox_index_name(outbox, index, name);
	struct query find = { .sql = table_driver(outbox->store)->index_exists,
			      ARGS(value_text(name)),
			      .row = outbox_take_existence,
			      .context = exists };
	*exists = false;
	return outbox_read(outbox, &find, err);
}

static enum evbus_code read_columns(struct evbus_outbox *outbox, const struct store_driver *driver,
				    struct evbus_err *err)
{
	struct query columns = {
		.sql = driver->table_columns, ARGS(value_text(outbox->map.table)), .row = take_name, .context = outbox
	};

	outbox->names.len = 0;
	return driver_is_server(driver) ? outbox_server_look(outbox, err) : outbox_read(outbox, &columns, err);
}

enum evbus_code outbox_look_if_there(struct evbus_outbox *outbox, bool *exists, struct evbus_err *err)
{
	const struct store_driver *driver;
	bool danger;

	*exists = outbox->looked;
	if (outbox->looked)
		return EVBUS_OK;
	TRY(outbox_connect(outbox, false, err));
	/* For its driver: this opens the database if it is there. */
	TRY(table_in_danger(outbox->store, &danger, err));
	driver = table_driver(outbox->store);
	if (!driver)
		return EVBUS_OK;
	TRY(read_columns(outbox, driver, err));
	if (!outbox->names.len)
		return EVBUS_OK;
	outbox->present = find_present(outbox, driver);
	TRY(check_columns(outbox, err));
	for (unsigned i = 0; i < OUTBOX_INDICES; i++)
		TRY(outbox_find_index(outbox, OUTBOX_SQL_INDEX_OPEN + i, &outbox->indices[i], err));
	TRY(outbox_sql_make(outbox, driver, err));
	outbox->looked = *exists = true;
	return EVBUS_OK;
}

enum evbus_code outbox_look(struct evbus_outbox *outbox, struct evbus_err *err)
{
	bool exists;

	TRY(outbox_look_if_there(outbox, &exists, err));
	if (!exists)
		return err_set(err, EVBUS_NONE, 0, "there is no table '%s' in the outbox '%s': run evbus outbox-init",
			       outbox->map.table, outbox->name);
	return EVBUS_OK;
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

enum evbus_code outbox_begin(struct evbus_outbox *outbox, struct evbus_err *err)
{
	if (outbox->within)
		return err_set(err, EVBUS_BUG, 0, "rows are being added to the outbox '%s': end that first",
			       outbox->name);
	TRY(table_begin(outbox->store, err));
	outbox->within = true;
	return EVBUS_OK;
}

enum evbus_code outbox_end(struct evbus_outbox *outbox, enum evbus_code code, struct evbus_err *err)
{
	outbox->within = false;
	if (!code)
		return table_commit(outbox->store, err);
	table_rollback(outbox->store);
	return code;
}

enum evbus_code outbox_read(struct evbus_outbox *outbox, struct query *query, struct evbus_err *err)
{
	return outbox->within ? table_write(outbox->store, query, err) : table_read(outbox->store, query, err);
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

struct value outbox_state_value(const struct evbus_outbox *outbox, enum evbus_outbox_state state)
{
	return value_text(outbox->map.states[state]);
}

/* A column of numbers gives numbers, whatever the map calls them. */
static struct evbus_slice text_of(const struct value *value, char digits[24])
{
	if (value->kind == VALUE_NULL)
		return (struct evbus_slice){ NULL, 0 };
	if (value->kind != VALUE_INTEGER)
		return (struct evbus_slice){ value->bytes.data ? value->bytes.data : "", value->bytes.len };
	int len = snprintf(digits, 24, "%" PRId64, value->integer);
	return (struct evbus_slice){ digits, (size_t)len };
}

enum evbus_outbox_state outbox_state_of(const struct evbus_outbox *outbox, const struct value *value)
{
	char digits[24];
	struct evbus_slice text = text_of(value, digits);

	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		if (text.len == strlen(outbox->map.states[i]) && text.data &&
		    !memcmp(text.data, outbox->map.states[i], text.len))
			return i;
	return EVBUS_OUTBOX_STATES;
}

int64_t outbox_time_of(struct evbus_slice text)
{
	char standard[64];
	int64_t time_us;

	if (!text.data || text.len < 10 || text.len > 40)
		return 0;
	if (clock_parse(text.data, text.len, &time_us))
		return time_us;
	/* SQL's own form, in UTC. */
	int len = snprintf(standard, sizeof standard, "%.*sZ", (int)text.len, text.data);
	if (standard[10] == ' ')
		standard[10] = 'T';
	return clock_parse(standard, (size_t)len, &time_us) ? time_us : 0;
}

#define MILLISECONDS_FROM INT64_C(100000000000) /* as seconds it would be the year 5138 */

int64_t outbox_attempts(const struct value *value)
{
	if (value->kind != VALUE_INTEGER || value->integer < 0)
		return 0;
	return value->integer < OUTBOX_ATTEMPTS_MAX ? value->integer : OUTBOX_ATTEMPTS_MAX;
}

int64_t outbox_time(const struct value *value)
{
	if (value->kind == VALUE_TEXT)
		return outbox_time_of(value->bytes);
	if (value->kind != VALUE_INTEGER || value->integer <= 0 || value->integer > TIME_MAX_US / 1000)
		return 0;
	return value->integer < MILLISECONDS_FROM ? value->integer * 1000000 : value->integer * 1000;
}

enum evbus_code outbox_take_integer(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)err;
	assert(count == 1);
	if (columns[0].kind == VALUE_INTEGER)
		*(int64_t *)context = columns[0].integer;
	return EVBUS_OK;
}

enum evbus_code outbox_take_existence(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)columns;
	(void)count;
	(void)err;
	*(bool *)context = true;
	return EVBUS_OK;
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static struct evbus_slice *slice_at(struct evbus_outbox_row *row, enum outbox_column column)
{
	switch (column) {
	case OUTBOX_ID:
		return &row->id;
	case OUTBOX_TENANT:
		return &row->tenant_id;
	case OUTBOX_TOPIC:
		return &row->topic;
	case OUTBOX_TYPE:
		return &row->event_type;
	case OUTBOX_EVENT_KEY:
		return &row->event_key;
	case OUTBOX_PARTITION_KEY:
		return &row->partition_key;
	case OUTBOX_PAYLOAD:
		return &row->payload;
	case OUTBOX_DUE:
		return &row->next_attempt_at;
	case OUTBOX_ERROR:
		return &row->last_error;
	case OUTBOX_OWNER:
		return &row->lease_owner;
	case OUTBOX_EXPIRES:
		return &row->lease_expires_at;
	case OUTBOX_CREATED:
		return &row->created_at;
	case OUTBOX_SENT_AT:
		return &row->sent_at;
	case OUTBOX_RECEIPT:
		return &row->receipt;
	case OUTBOX_HISTORY:
		return &row->history;
	default:
		return NULL;
	}
}

static size_t size_of(const struct value *columns, char digits[24])
{
	struct evbus_outbox_row row;
	size_t size = 1;

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		if (columns[i].kind != VALUE_NULL && slice_at(&row, i))
			size += text_of(&columns[i], digits).len + 1;
	return size;
}

/* Each text with a NUL behind it, which is not part of it. Returns where the next may stand. */
static char *copy_texts(const struct value *columns, struct outbox_held *held)
{
	char digits[24], *to = held->block;

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		struct evbus_slice *slice = slice_at(&held->row, i);
		if (!slice || columns[i].kind == VALUE_NULL)
			continue;
		struct evbus_slice text = text_of(&columns[i], digits);
		memcpy(to, text.data, text.len);
		to[text.len] = '\0';
		*slice = (struct evbus_slice){ to, text.len };
		to += text.len + 1;
	}
	return to;
}

static struct evbus_slice copy_text(const char *text, char **to)
{
	size_t len = strlen(text);
	struct evbus_slice copy = { memcpy(*to, text, len + 1), len };

	*to += len + 1;
	return copy;
}

/* Copied as well: the counts are loaded anew by whoever changes a row while this one is given out. */
static void add_kept_count(const struct outbox_count *kept, char *to, struct outbox_held *held)
{
	held->row.attempts = kept->attempts;
	if (!held->row.last_error.data)
		held->row.last_error = copy_text(kept->error, &to);
	if (!held->row.history.data)
		held->row.history = copy_text(kept->history, &to);
}

enum evbus_code outbox_hold(struct evbus_outbox *outbox, const struct value *columns, size_t count,
			    struct outbox_held *held, struct evbus_err *err)
{
	char digits[24];

	assert(count == OUTBOX_COLUMNS);
	if (columns[OUTBOX_SEQ].kind != VALUE_INTEGER)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the column '%s' of the outbox '%s' has something that is no number: say by --map "
			       "seq=COLUMN which one counts up (in SQLite, rowid does)",
			       outbox->map.columns[OUTBOX_SEQ], outbox->name);
	const struct outbox_count *kept =
		outbox_has_counts(outbox) ? NULL : outbox_counts_find(outbox, columns[OUTBOX_SEQ].integer);
	size_t more = kept ? strlen(kept->error) + strlen(kept->history) + 2 : 0;
	char *block = os.realloc(NULL, size_of(columns, digits) + more);
	if (!block)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read the outbox '%s'", outbox->name);
	*held = (struct outbox_held){ .block = block };
	held->row.seq = columns[OUTBOX_SEQ].integer;
	held->row.state = outbox_state_of(outbox, &columns[OUTBOX_STATE]);
	held->row.attempts = outbox_attempts(&columns[OUTBOX_ATTEMPTS]);
	char *end = copy_texts(columns, held);
	if (kept)
		add_kept_count(kept, end, held);
	return EVBUS_OK;
}

void outbox_held_release(struct outbox_held *held)
{
	free(held->block);
	held->block = NULL;
}

struct getting {
	struct evbus_outbox *outbox;
	struct outbox_held *held;
	bool found;
};

static enum evbus_code take_row(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct getting *getting = context;

	getting->found = true;
	return outbox_hold(getting->outbox, columns, count, getting->held, err);
}

enum evbus_code outbox_get(struct evbus_outbox *outbox, int64_t seq, struct outbox_held *held, bool *found,
			   struct evbus_err *err)
{
	struct getting getting = { .outbox = outbox, .held = held };
	struct query query = {
		.sql = outbox->sql[outbox->within ? OUTBOX_SQL_HOLD : OUTBOX_SQL_GET],
		ARGS(value_integer(seq)),
		.row = take_row,
		.context = &getting,
	};

	TRY(outbox_read(outbox, &query, err));
	*found = getting.found;
	return EVBUS_OK;
}

static void release_all(char **texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(texts[i]);
	memset(texts, 0, count * sizeof(*texts));
}

void outbox_sql_release(struct evbus_outbox *outbox)
{
	release_all(outbox->sql, OUTBOX_SQLS);
	release_all(outbox->adds, sizeof outbox->adds / sizeof *outbox->adds);
}

/* outbox_sql.c: the statements of an outbox, made once for the names and columns that its table has.
 *
 * They are written with {words}: {table}, {open}, {failed}, {STATE}, and our names of columns, which become those of the
 * table or NULL where it has none; "o." and "p." before a word qualify it. What comes in here went through
 * outbox_map_parse() and is nothing but a name; states stand in the text, and not as parameters, because a partial
 * index is used only by a statement that says so itself.
 *
 * Two indices, both partial, so that rows that are done cost nothing: what is not done, by seq, is what is claimed and
 * counted; FAILED rows are the dead letters. There is none by key: it took three times as long to keep as all the rest,
 * and most of that in the application's own transactions. */
#include "outbox_sql.h"

#include <assert.h>
#include <stdio.h>

/* ---- words ----------------------------------------------------------------------------------------------------- */

void sql_release(struct sql_maker *maker)
{
	buf_release(&maker->out);
}

enum evbus_code sql_add(struct sql_maker *maker, const char *text)
{
	return buf_add(&maker->out, text, strlen(text), maker->err);
}

static CHECKED enum evbus_code add_quoted(struct sql_maker *maker, char mark, const char *name, size_t len)
{
	TRY(buf_add(&maker->out, &mark, 1, maker->err));
	TRY(buf_add(&maker->out, name, len, maker->err));
	return buf_add(&maker->out, &mark, 1, maker->err);
}

enum evbus_code sql_add_column(struct sql_maker *maker, const char *prefix, const char *name)
{
	TRY(sql_add(maker, prefix));
	return add_quoted(maker, '"', name, strlen(name));
}

static bool table_has(const struct evbus_outbox *outbox, struct evbus_slice name)
{
	for (const char *at = outbox->names.data, *end = at + outbox->names.len; at < end; at += strlen(at) + 1)
		if (strlen(at) == name.len && !memcmp(at, name.data, name.len))
			return true;
	return false;
}

/* The column that a template means: the table's own, else the one that stands for our word. */
static const char *template_column(const struct evbus_outbox *outbox, struct evbus_slice name,
				   char room[OUTBOX_NAME_MAX_BYTES + 1])
{
	snprintf(room, OUTBOX_NAME_MAX_BYTES + 1, "%.*s", (int)name.len, name.data);
	if (table_has(outbox, name))
		return room;
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		if (i != OUTBOX_TOPIC && !strcmp(room, outbox_column_name(i)) && outbox_has(outbox, i))
			return outbox->map.columns[i];
	/* "type" is what everybody calls it. */
	if (!strcmp(room, "type") && outbox_has(outbox, OUTBOX_TYPE))
		return outbox->map.columns[OUTBOX_TYPE];
	return NULL;
}

/* On a server it may have any type, also that of numbers. */
static CHECKED enum evbus_code add_as_text(struct sql_maker *maker, const char *prefix, const char *name)
{
	TRY(sql_add(maker, maker->outbox->server ? "CAST(" : ""));
	TRY(sql_add_column(maker, prefix, name));
	return sql_add(maker, maker->outbox->server ? " AS text)" : "");
}

static CHECKED enum evbus_code add_topic(struct sql_maker *maker, const char *prefix)
{
	const char *at = maker->outbox->map.topic, *between = "(";
	char room[OUTBOX_NAME_MAX_BYTES + 1];
	struct evbus_slice part;
	bool column;

	if (!*at)
		return sql_add_column(maker, prefix, maker->outbox->map.columns[OUTBOX_TOPIC]);
	for (; outbox_template_next(&at, &part, &column); between = " || ") {
		TRY(sql_add(maker, between));
		const char *name = column ? template_column(maker->outbox, part, room) : NULL;
		if (column && !name)
			return err_set(maker->err, EVBUS_CONFLICT, 0,
				       "the table of the outbox '%s' has no column '%.*s' for the topic '%s'",
				       maker->outbox->name, (int)part.len, part.data, maker->outbox->map.topic);
		if (column)
			TRY(add_as_text(maker, prefix, name));
		else
			TRY(add_quoted(maker, '\'', part.data, part.len));
	}
	return sql_add(maker, ")");
}

static CHECKED enum evbus_code add_state(struct sql_maker *maker, enum evbus_outbox_state state)
{
	const char *value = maker->outbox->map.states[state];

	if (maker->outbox->no_state & 1u << state)
		return sql_add(maker, "NULL");
	return add_quoted(maker, '\'', value, strlen(value));
}

static CHECKED enum evbus_code add_schema(struct sql_maker *maker)
{
	const struct outbox_map *map = &maker->outbox->map;

	if (!map->schema[0])
		return EVBUS_OK;
	TRY(sql_add_column(maker, "", map->schema));
	return sql_add(maker, ".");
}

enum evbus_code sql_add_one(struct sql_maker *maker, const char *prefix, enum outbox_column column)
{
	assert(column < OUTBOX_COLUMNS);
	if (!outbox_has(maker->outbox, column))
		return sql_add(maker, "NULL");
	return column == OUTBOX_TOPIC ? add_topic(maker, prefix)
				      : sql_add_column(maker, prefix, maker->outbox->map.columns[column]);
}

static bool is_time(const struct evbus_outbox *outbox, enum outbox_column column)
{
	return !strncmp(outbox->types[column], "timestamp", strlen("timestamp"));
}

/* As it is given out: a time as evbus writes it, of which the last one stands for all that are later ("infinity"). A
 * session's times are UTC. A text of fixed length without the blanks behind it. */
static CHECKED enum evbus_code add_given(struct sql_maker *maker, enum outbox_column column)
{
	if (maker->outbox->server && column == OUTBOX_STATE)
		return add_as_text(maker, "o.", maker->outbox->map.columns[column]);
	if (!is_time(maker->outbox, column))
		return sql_add_one(maker, "o.", column);
	TRY(sql_add(maker, "CASE WHEN "));
	TRY(sql_add_one(maker, "o.", column));
	TRY(sql_add(maker, " >= '9999-12-31' THEN '9999-12-31T00:00:00.000000Z' ELSE to_char("));
	TRY(sql_add_one(maker, "o.", column));
	return sql_add(maker, ", 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') END");
}

/* What a payload takes, or, where telling that takes reading it, what it takes where it lies. */
static CHECKED enum evbus_code add_size(struct sql_maker *maker)
{
	const char *type = maker->outbox->types[OUTBOX_PAYLOAD];
	bool text = !strcmp(type, "text") || !strcmp(type, "bytea") || !strncmp(type, "character", strlen("character"));

	if (!maker->outbox->server)
		return sql_add(maker, "NULL");
	TRY(sql_add(maker, text ? "octet_length(" : "pg_column_size("));
	TRY(sql_add_one(maker, "o.", OUTBOX_PAYLOAD));
	return sql_add(maker, ")");
}

/* All columns in their order; brief: of a payload its size, and no history. */
static CHECKED enum evbus_code add_columns(struct sql_maker *maker, bool brief)
{
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		TRY(sql_add(maker, i ? ", " : ""));
		if (brief && i == OUTBOX_PAYLOAD)
			TRY(add_size(maker));
		else
			TRY(brief && i == OUTBOX_HISTORY ? sql_add(maker, "NULL") : add_given(maker, i));
	}
	return EVBUS_OK;
}

static CHECKED enum evbus_code add_open(struct sql_maker *maker, const char *prefix)
{
	TRY(sql_add_column(maker, prefix, maker->outbox->map.columns[OUTBOX_STATE]));
	TRY(sql_add(maker, " IN ("));
	TRY(add_state(maker, EVBUS_OUTBOX_PENDING));
	TRY(sql_add(maker, ", "));
	TRY(add_state(maker, EVBUS_OUTBOX_PROCESSING));
	return sql_add(maker, ")");
}

static CHECKED enum evbus_code add_failed(struct sql_maker *maker, const char *prefix)
{
	TRY(sql_add_column(maker, prefix, maker->outbox->map.columns[OUTBOX_STATE]));
	TRY(sql_add(maker, " = "));
	return add_state(maker, EVBUS_OUTBOX_FAILED);
}

static CHECKED enum evbus_code add_hint(struct sql_maker *maker, enum outbox_sql index)
{
	char name[2 * OUTBOX_NAME_MAX_BYTES];

	if (!maker->driver || !maker->driver->index_hint || !maker->outbox->indices[index - OUTBOX_SQL_INDEX_OPEN])
		return EVBUS_OK;
	outbox_index_name(maker->outbox, index, name);
	return sql_add_column(maker, maker->driver->index_hint, name);
}

static CHECKED enum evbus_code add_word(struct sql_maker *maker, const char *word, size_t len)
{
	char prefix[3] = "";

	if (len > 2 && word[1] == '.') {
		memcpy(prefix, word, 2);
		word += 2;
		len -= 2;
	}
#define IS(text) (len == sizeof(text) - 1 && !memcmp(word, text, len))
	if (IS("schema") || IS("table"))
		TRY(add_schema(maker));
	if (IS("table") || IS("bare_table"))
		return sql_add_column(maker, "", maker->outbox->map.table);
	if (IS("schema"))
		return EVBUS_OK;
	if (IS("all") || IS("brief"))
		return add_columns(maker, IS("brief"));
	/* What the server's clock says, in microseconds. */
	if (IS("clock"))
		return sql_add(maker, maker->outbox->server
					      ? ", CAST(EXTRACT(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
					      : "");
	if (IS("number"))
		return sql_add(maker, maker->outbox->server ? "CAST(? AS bigint)" : "?");
	if (IS("for_update"))
		return sql_add(maker, maker->outbox->server ? " FOR UPDATE" : "");
	if (IS("given_state"))
		return add_given(maker, OUTBOX_STATE);
	if (IS("given_sent_at"))
		return add_given(maker, OUTBOX_SENT_AT);
	if (IS("by_open"))
		return add_hint(maker, OUTBOX_SQL_INDEX_OPEN);
	if (IS("by_failed"))
		return add_hint(maker, OUTBOX_SQL_INDEX_FAILED);
	if (IS("open"))
		return add_open(maker, prefix);
	if (IS("failed"))
		return add_failed(maker, prefix);
#undef IS
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		if (len == strlen(outbox_column_name(i)) && !memcmp(word, outbox_column_name(i), len))
			return sql_add_one(maker, prefix, i);
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		if (len == strlen(evbus_outbox_state_name(i)) && !memcmp(word, evbus_outbox_state_name(i), len))
			return add_state(maker, i);
	return err_set(maker->err, EVBUS_BUG, 0, "no word '%.*s' in a statement", (int)len, word);
}

enum evbus_code sql_expand(struct sql_maker *maker, const char *text)
{
	struct evbus_slice part;
	bool word;

	while (outbox_template_next(&text, &part, &word))
		TRY(word ? add_word(maker, part.data, part.len)
			 : buf_add(&maker->out, part.data, part.len, maker->err));
	return EVBUS_OK;
}

enum evbus_code sql_finish(struct sql_maker *maker, char **sql)
{
	TRY(buf_add(&maker->out, "", 1, maker->err));
	free(*sql);
	*sql = maker->out.data;
	maker->out = (struct buf){ 0 };
	return EVBUS_OK;
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

static const char *const texts[OUTBOX_SQLS] = {
	[OUTBOX_SQL_SCAN] =
		"SELECT {brief}{clock} FROM {table} AS o{by_open} WHERE {o.open} AND {o.seq} > {number} AND "
		"{o.seq} <= {number} "
		"ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_TAKE] =
		"SELECT {all} FROM {table} AS o{by_open} WHERE {o.open} AND {o.seq} > {number} AND {o.seq} <= {number} "
		"ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_GET] = "SELECT {all} FROM {table} AS o WHERE {o.seq} = {number}",
	[OUTBOX_SQL_HOLD] = "SELECT {all} FROM {table} AS o WHERE {o.seq} = {number}{for_update}",
	[OUTBOX_SQL_LOCK] = "SELECT {all}{clock} FROM {table} AS o WHERE {o.seq} = ANY(CAST(? AS bigint[])) AND "
			    "{o.open} ORDER BY {o.seq} FOR UPDATE SKIP LOCKED",
	[OUTBOX_SQL_LIST] = "SELECT {all} FROM {table} AS o WHERE {o.seq} > {number} ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_LIST_OPEN] =
		"SELECT {all} FROM {table} AS o{by_open} WHERE {o.open} AND {o.seq} > {number} ORDER BY {o.seq} "
		"LIMIT ?",
	[OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_PENDING] = "SELECT {all} FROM {table} AS o{by_open} WHERE {o.open} AND "
							 "{o.state} = {PENDING} AND {o.seq} > {number} "
							 "ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_PROCESSING] = "SELECT {all} FROM {table} AS o{by_open} WHERE {o.open} "
							    "AND {o.state} = {PROCESSING} AND {o.seq} > {number} "
							    "ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_SENT] = "SELECT {all} FROM {table} AS o WHERE {o.state} = {SENT} AND "
						      "{o.seq} > {number} ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_FAILED] = "SELECT {all} FROM {table} AS o{by_failed} WHERE {o.failed} "
							"AND {o.seq} > {number} ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_COUNT] = "SELECT COUNT(*) FROM {table}",
	[OUTBOX_SQL_COUNT_PENDING] =
		"SELECT COUNT(*) FROM {table} AS o{by_open} WHERE {o.open} AND {o.state} = {PENDING}",
	[OUTBOX_SQL_COUNT_PROCESSING] =
		"SELECT COUNT(*) FROM {table} AS o{by_open} WHERE {o.open} AND {o.state} = {PROCESSING}",
	[OUTBOX_SQL_COUNT_FAILED] = "SELECT COUNT(*) FROM {table} AS o{by_failed} WHERE {o.failed}",
	[OUTBOX_SQL_COUNT_WAITING] =
		"SELECT COUNT(*) FROM {table} AS o{by_open} WHERE {o.open} AND {o.state} = {PENDING} AND "
		"{o.next_attempt_at} > ?",
	[OUTBOX_SQL_LAST_SEQ] = "SELECT MAX({o.seq}) FROM {table} AS o",
	[OUTBOX_SQL_HAS_ID] = "SELECT 1 FROM {table} AS o WHERE {o.id} = ?",
	[OUTBOX_SQL_TOPIC_OF] = "SELECT {o.topic} FROM {table} AS o WHERE {o.id} = ?",
	[OUTBOX_SQL_SWEEP] =
		"SELECT {o.seq}, {given_state}, {given_sent_at} FROM {table} AS o WHERE {o.seq} > {number} "
		"ORDER BY {o.seq} LIMIT ?",
	[OUTBOX_SQL_DELETE] = "DELETE FROM {table} WHERE {seq} = {number} AND {state} = {SENT}",
};

/* What each update sets, of what the table has. */
static const uint32_t sets[OUTBOX_SQLS] = {
	[OUTBOX_SQL_CLAIM] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES),
	[OUTBOX_SQL_SENT] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES) |
			    OUTBOX_BIT(OUTBOX_DUE) | OUTBOX_BIT(OUTBOX_SENT_AT) | OUTBOX_BIT(OUTBOX_RECEIPT),
	[OUTBOX_SQL_BACK] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES),
	[OUTBOX_SQL_REFUSED] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES) |
			       OUTBOX_BIT(OUTBOX_ATTEMPTS) | OUTBOX_BIT(OUTBOX_DUE) | OUTBOX_BIT(OUTBOX_ERROR) |
			       OUTBOX_BIT(OUTBOX_HISTORY),
	[OUTBOX_SQL_REQUEUE] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_ATTEMPTS) | OUTBOX_BIT(OUTBOX_DUE),
	[OUTBOX_SQL_SETTLE] = OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_SENT_AT) | OUTBOX_BIT(OUTBOX_RECEIPT),
	[OUTBOX_SQL_FAIL_AGAIN] = OUTBOX_BIT(OUTBOX_ATTEMPTS) | OUTBOX_BIT(OUTBOX_ERROR) | OUTBOX_BIT(OUTBOX_HISTORY),
};

/* Those that only the holder of the lease may do. */
static bool ends_lease(const struct evbus_outbox *outbox, enum outbox_sql update)
{
	return outbox_has_leases(outbox) &&
	       (update == OUTBOX_SQL_SENT || update == OUTBOX_SQL_BACK || update == OUTBOX_SQL_REFUSED);
}

static uint32_t set_by(const struct evbus_outbox *outbox, enum outbox_sql update)
{
	uint32_t leases = OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES);

	/* One of the two alone is not ours to write. */
	return sets[update] & outbox->present & (outbox_has_leases(outbox) ? ~0u : ~leases);
}

/* See OUTBOX_RECEIPT_NUMBER. */
static bool is_in_parts(enum outbox_sql update, unsigned column)
{
	return update == OUTBOX_SQL_SENT && column == OUTBOX_RECEIPT;
}

/* Of texts of ours that the table may have as JSON, or shorter: a cast makes them so. Other values the server takes as
 * what the column is. */
static bool is_cast(const struct evbus_outbox *outbox, unsigned column)
{
	bool text = column == OUTBOX_ERROR || column == OUTBOX_RECEIPT || column == OUTBOX_HISTORY;

	return text && outbox->types[column][0] && strcmp(outbox->types[column], "text") != 0;
}

static CHECKED enum evbus_code add_new_value(struct sql_maker *maker, enum outbox_sql update, unsigned column)
{
	bool cast = is_cast(maker->outbox, column);

	TRY(sql_add(maker, cast ? " = CAST(" : " = "));
	TRY(sql_expand(maker,
		       is_in_parts(update, column) ? "? || COALESCE(CAST({number} + {seq} AS TEXT), '') || ?" : "?"));
	if (!cast)
		return EVBUS_OK;
	TRY(sql_add(maker, " AS "));
	TRY(sql_add(maker, maker->outbox->types[column]));
	return sql_add(maker, ")");
}

static CHECKED enum evbus_code make_update(struct sql_maker *maker, enum outbox_sql update)
{
	uint32_t set = set_by(maker->outbox, update);
	const char *before = "UPDATE {table} SET ";

	if (!set)
		return EVBUS_OK;
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		if (!(set & OUTBOX_BIT(i)))
			continue;
		TRY(sql_expand(maker, before));
		TRY(sql_add_one(maker, "", i));
		TRY(add_new_value(maker, update, i));
		before = ", ";
	}
	TRY(sql_expand(maker, " WHERE {seq} >= {number} AND {seq} <= {number} AND {state} = ?"));
	if (ends_lease(maker->outbox, update))
		TRY(sql_expand(maker, " AND {lease_owner} = ?"));
	return sql_finish(maker, &maker->outbox->sql[update]);
}

/* What is set, in the order of the columns; returns how many. */
static size_t add_args(const struct evbus_outbox *outbox, enum outbox_sql update, const struct value *set,
		       struct value *args)
{
	uint32_t columns = set_by(outbox, update);
	size_t count = 0;

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		if (!(columns & OUTBOX_BIT(i)))
			continue;
		args[count++] = set[i];
		if (!is_in_parts(update, i))
			continue;
		args[count++] = set[OUTBOX_RECEIPT_NUMBER];
		args[count++] = set[OUTBOX_RECEIPT_END];
	}
	return count;
}

enum evbus_code outbox_update(struct evbus_outbox *outbox, enum outbox_sql update, const struct value set[OUTBOX_SETS],
			      const struct outbox_rows *rows, const char *owner, int64_t *changed,
			      struct evbus_err *err)
{
	struct value args[OUTBOX_SETS + 4];
	size_t count;

	*changed = rows->last - rows->first + 1;
	if (!outbox->sql[update])
		return EVBUS_OK;
	count = add_args(outbox, update, set, args);
	args[count++] = value_integer(rows->first);
	args[count++] = value_integer(rows->last);
	args[count++] = outbox_state_value(outbox, rows->from);
	if (ends_lease(outbox, update))
		args[count++] = value_text(owner);
	struct query query = { .sql = outbox->sql[update], .args = args, .arg_count = count };
	TRY(table_write(outbox->store, &query, err));
	*changed = query.changed;
	return EVBUS_OK;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

static CHECKED enum evbus_code make_all(struct sql_maker *maker)
{
	for (unsigned i = 0; i < OUTBOX_SQL_CREATE; i++) {
		TRY(sql_expand(maker, texts[i]));
		TRY(sql_finish(maker, &maker->outbox->sql[i]));
	}
	TRY(sql_make_table(maker));
	for (unsigned i = OUTBOX_SQL_CLAIM; i < OUTBOX_SQLS; i++)
		TRY(make_update(maker, i));
	return outbox_sql_insert(maker->outbox, true, 0, &maker->outbox->insert, maker->err);
}

enum evbus_code outbox_sql_make(struct evbus_outbox *outbox, const struct store_driver *driver, struct evbus_err *err)
{
	CLEANUP(sql_release) struct sql_maker maker = { .outbox = outbox, .driver = driver, .err = err };

	return make_all(&maker);
}

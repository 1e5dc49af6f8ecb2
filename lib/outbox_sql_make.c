/* outbox_sql_make.c: the statements that make the table of an outbox, and those that add to it. */
#include "outbox_sql.h"

#include <stdio.h>

/* ---- the table ------------------------------------------------------------------------------------------------- */

static CHECKED enum evbus_code add_definition(struct sql_maker *maker, enum outbox_column column)
{
	static const char *const types[OUTBOX_COLUMNS] = {
		[OUTBOX_ID] = " TEXT NOT NULL UNIQUE",
		[OUTBOX_TOPIC] = " TEXT NOT NULL",
		[OUTBOX_TYPE] = " TEXT NOT NULL",
		[OUTBOX_PAYLOAD] = " TEXT NOT NULL",
		/* Of a list of more than two SQLite makes a table, each time that a row is written: that took longer
		 * than all the rest. */
		[OUTBOX_STATE] = " TEXT NOT NULL DEFAULT {PENDING} CHECK ({open} OR {state} IN ({SENT}, {FAILED}))",
		[OUTBOX_ATTEMPTS] = " BIGINT NOT NULL DEFAULT 0",
	};

	TRY(sql_add_one(maker, "", column));
	if (column == OUTBOX_SEQ) {
		TRY(sql_add(maker, " "));
		return sql_add(maker, maker->driver->serial_type);
	}
	if (column == OUTBOX_CREATED) {
		TRY(sql_add(maker, " TEXT NOT NULL DEFAULT ("));
		TRY(sql_add(maker, maker->driver->now_text));
		return sql_add(maker, ")");
	}
	return sql_expand(maker, types[column] ? types[column] : " TEXT");
}

static CHECKED enum evbus_code make_table(struct sql_maker *maker)
{
	const char *before = "CREATE TABLE {table} (";

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++) {
		if (i == OUTBOX_TOPIC && maker->outbox->map.topic[0])
			continue;
		TRY(sql_expand(maker, before));
		TRY(add_definition(maker, i));
		before = ", ";
	}
	TRY(sql_add(maker, ")"));
	return sql_finish(maker, &maker->outbox->sql[OUTBOX_SQL_CREATE]);
}

void outbox_index_name(const struct evbus_outbox *outbox, enum outbox_sql index, char name[2 * OUTBOX_NAME_MAX_BYTES])
{
	static const char *const ends[OUTBOX_INDICES] = { "open", "failed" };

	snprintf(name, 2 * OUTBOX_NAME_MAX_BYTES, "%s_evbus_%s", outbox->map.table,
		 ends[index - OUTBOX_SQL_INDEX_OPEN]);
}

static CHECKED enum evbus_code make_index(struct sql_maker *maker, enum outbox_sql index)
{
	static const char *const ons[OUTBOX_INDICES] = {
		" ({seq}, {state}) WHERE {open}",
		" ({seq}) WHERE {failed}",
	};
	char name[2 * OUTBOX_NAME_MAX_BYTES];

	outbox_index_name(maker->outbox, index, name);
	TRY(sql_add(maker, "CREATE INDEX "));
	TRY(sql_add_column(maker, "", name));
	TRY(sql_add(maker, " ON "));
	/* SQLite has the schema before the name of the index. */
	TRY(sql_expand(maker, maker->outbox->server ? "{table}" : "{bare_table}"));
	TRY(sql_expand(maker, ons[index - OUTBOX_SQL_INDEX_OPEN]));
	return sql_finish(maker, &maker->outbox->sql[index]);
}

/* Told once a transaction, and when it is committed. */
static CHECKED enum evbus_code make_trigger(struct sql_maker *maker)
{
	TRY(sql_expand(maker, "CREATE FUNCTION {schema}" OUTBOX_CHANNEL "() RETURNS trigger LANGUAGE plpgsql AS "
			      "'BEGIN NOTIFY " OUTBOX_CHANNEL "; RETURN NULL; END'"));
	TRY(sql_finish(maker, &maker->outbox->sql[OUTBOX_SQL_FUNCTION]));
	TRY(sql_expand(maker, "CREATE TRIGGER " OUTBOX_CHANNEL " AFTER INSERT ON {table} FOR EACH STATEMENT "
			      "EXECUTE FUNCTION {schema}" OUTBOX_CHANNEL "()"));
	return sql_finish(maker, &maker->outbox->sql[OUTBOX_SQL_TRIGGER]);
}

enum evbus_code sql_make_table(struct sql_maker *maker)
{
	TRY(make_table(maker));
	for (unsigned i = OUTBOX_SQL_INDEX_OPEN; i <= OUTBOX_SQL_INDEX_FAILED; i++)
		TRY(make_index(maker, i));
	return make_trigger(maker);
}

/* ---- adding ---------------------------------------------------------------------------------------------------- */

static const enum outbox_column inserted[] = { OUTBOX_ID,     OUTBOX_TOPIC,     OUTBOX_TYPE,         OUTBOX_PAYLOAD,
					       OUTBOX_TENANT, OUTBOX_EVENT_KEY, OUTBOX_PARTITION_KEY };
#define INSERTED (sizeof inserted / sizeof *inserted)

/* The first four columns, and those of the other three that are given. */
static bool is_inserted(const struct evbus_outbox *outbox, unsigned i, enum outbox_column column, unsigned given)
{
	if (i >= 4 && !(given & 1u << (i - 4)))
		return false;
	return outbox_has(outbox, column) && !(column == OUTBOX_TOPIC && outbox->map.topic[0]);
}

enum evbus_code outbox_sql_insert(struct evbus_outbox *outbox, bool for_applications, unsigned given, char **sql,
				  struct evbus_err *err)
{
	CLEANUP(sql_release) struct sql_maker maker = { .outbox = outbox, .err = err };
	CLEANUP(buf_release) struct buf values = { 0 };
	const char *before = "";
	char value[40];

	TRY(sql_expand(&maker, "INSERT INTO {table} ("));
	for (unsigned i = 0; i < INSERTED; i++) {
		if (!is_inserted(outbox, i, inserted[i], given))
			continue;
		TRY(sql_add(&maker, before));
		TRY(sql_add_one(&maker, "", inserted[i]));
		int n = snprintf(value, sizeof value, for_applications ? "%s:%s" : "%s?", before,
				 outbox_column_name(inserted[i]));
		TRY(buf_add(&values, value, (size_t)n, err));
		before = ", ";
	}
	TRY(sql_add(&maker, ") VALUES ("));
	TRY(buf_add(&maker.out, values.data, values.len, err));
	TRY(sql_add(&maker, ")"));
	return sql_finish(&maker, sql);
}

enum evbus_code outbox_insert(struct evbus_outbox *outbox, const struct value set[OUTBOX_COLUMNS],
			      struct evbus_err *err)
{
	struct value args[INSERTED];
	size_t count = 0;
	unsigned given = 0;

	for (unsigned i = 4; i < INSERTED; i++)
		given |= set[inserted[i]].kind == VALUE_NULL ? 0 : 1u << (i - 4);
	if (!outbox->adds[given])
		TRY(outbox_sql_insert(outbox, false, given, &outbox->adds[given], err));
	for (unsigned i = 0; i < INSERTED; i++)
		if (is_inserted(outbox, i, inserted[i], given))
			args[count++] = set[inserted[i]];
	struct query query = { .sql = outbox->adds[given], .args = args, .arg_count = count };
	return table_write(outbox->store, &query, err);
}

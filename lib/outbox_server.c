/* outbox_server.c: what an outbox on a server asks of its catalog, and what locks it takes there.
 *
 * Whose tables these are decides what they look like: a time may be text or a timestamp, a state text, a number or an
 * enum, a payload text or JSON. Parameters take the type of what they are compared with or assigned to, so that it is
 * only here and there that a statement has to know it. */
#include "outbox_table.h"

#include <stdio.h>

/* The first part of the keys of our advisory locks: "evob". */
#define LOCK_CLASS 1702260578

void outbox_quoted(const struct evbus_outbox *outbox, char place[OUTBOX_PLACE_MAX_BYTES])
{
	const struct outbox_map *map = &outbox->map;

	if (map->schema[0])
		snprintf(place, OUTBOX_PLACE_MAX_BYTES, "\"%s\".\"%s\"", map->schema, map->table);
	else
		snprintf(place, OUTBOX_PLACE_MAX_BYTES, "\"%s\"", map->table);
}

/* ---- columns --------------------------------------------------------------------------------------------------- */

static const char find_columns[] =
	"SELECT a.attname, format_type(a.atttypid, a.atttypmod), CASE t.typtype WHEN 'e' THEN a.atttypid::bigint END "
	"FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
	"WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
static const char find_label[] = "SELECT 1 FROM pg_enum WHERE enumtypid = CAST(? AS bigint)::oid AND enumlabel = ?";

struct looking {
	struct evbus_outbox *outbox;
	int64_t state_enum; /* its type; 0: the column of states has none */
};

static enum evbus_code take_column(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct looking *looking = context;
	struct evbus_outbox *outbox = looking->outbox;
	char name[OUTBOX_NAME_MAX_BYTES + 1], type[OUTBOX_TYPE_MAX_BYTES];
	(void)count;

	/* What is longer than we have room for is none that a map can name, or no type that matters. */
	if (!value_take_text(&columns[0], name, sizeof name))
		return EVBUS_OK;
	TRY(buf_add(&outbox->names, name, strlen(name) + 1, err));
	if (!value_take_text(&columns[1], type, sizeof type))
		type[0] = '\0';
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		if (!strcmp(name, outbox->map.columns[i]))
			snprintf(outbox->types[i], sizeof outbox->types[i], "%s", type);
	if (!strcmp(name, outbox->map.columns[OUTBOX_STATE]) && columns[2].kind == VALUE_INTEGER)
		looking->state_enum = columns[2].integer;
	return EVBUS_OK;
}

static enum evbus_code refuse_state(const struct evbus_outbox *outbox, unsigned state, struct evbus_err *err)
{
	const char *ours = evbus_outbox_state_name(state), *theirs = outbox->map.states[state];
	const char *type = outbox->types[OUTBOX_STATE];

	return err_set(
		err, EVBUS_CONFLICT, 0,
		"the type %s of the column '%s' of the outbox '%s' has no '%s': say by --map state.%s=VALUE which "
		"one means %s, or run ALTER TYPE %s ADD VALUE '%s'",
		type, outbox->map.columns[OUTBOX_STATE], outbox->name, theirs, ours, ours, type, theirs);
}

/* The state of a row that is leased is needed only where there is a place for leases. */
static enum evbus_code look_at_states(struct evbus_outbox *outbox, int64_t type, struct evbus_err *err)
{
	bool leases = outbox->types[OUTBOX_OWNER][0] && outbox->types[OUTBOX_EXPIRES][0];

	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES && type; i++) {
		bool found = false;
		struct query query = { .sql = find_label,
				       ARGS(value_integer(type), value_text(outbox->map.states[i])),
				       .row = outbox_take_existence,
				       .context = &found };
		TRY(outbox_read(outbox, &query, err));
		if (found)
			continue;
		if (i != EVBUS_OUTBOX_PROCESSING || leases)
			return refuse_state(outbox, i, err);
		outbox->no_state |= 1u << i;
	}
	return EVBUS_OK;
}

/* Whole numbers are no times here: nobody could tell what they count. */
static enum evbus_code look_at_times(const struct evbus_outbox *outbox, struct evbus_err *err)
{
	static const enum outbox_column written[] = { OUTBOX_DUE, OUTBOX_EXPIRES, OUTBOX_SENT_AT };

	for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
		const char *type = outbox->types[written[i]];
		if (!strcmp(type, "bigint") || !strcmp(type, "integer") || !strcmp(type, "date"))
			return err_set(
				err, EVBUS_CONFLICT, 0,
				"the column '%s' of the outbox '%s' has the type %s, and evbus writes a time there: "
				"it has to be timestamptz or text",
				outbox->map.columns[written[i]], outbox->name, type);
	}
	return EVBUS_OK;
}

enum evbus_code outbox_server_look(struct evbus_outbox *outbox, struct evbus_err *err)
{
	char place[OUTBOX_PLACE_MAX_BYTES];
	struct looking looking = { .outbox = outbox };

	outbox->server = true;
	outbox->no_state = 0;
	memset(outbox->types, 0, sizeof outbox->types);
	outbox_quoted(outbox, place);
	struct query query = { .sql = find_columns, ARGS(value_text(place)), .row = take_column, .context = &looking };
	TRY(outbox_read(outbox, &query, err));
	TRY(look_at_states(outbox, looking.state_enum, err));
	return look_at_times(outbox, err);
}

/* ---- what is beside the table ---------------------------------------------------------------------------------- */

static const char find_index[] = "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
				 "WHERE i.indrelid = to_regclass(?) AND c.relname = left(?, 63) AND i.indisvalid";
/* By whatever name, on whatever function: what counts is that it tells. */
static const char find_trigger[] =
	"SELECT 1 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = to_regclass(?) AND "
	"NOT t.tgisinternal AND t.tgenabled <> 'D' AND strpos(p.prosrc, ?) > 0";
static const char find_function[] =
	"SELECT 1 FROM pg_proc p JOIN pg_class c ON c.relnamespace = p.pronamespace WHERE c.oid = to_regclass(?) AND "
	"p.proname = ?";

enum evbus_code outbox_server_has(struct evbus_outbox *outbox, enum outbox_sql what, bool *exists,
				  struct evbus_err *err)
{
	char place[OUTBOX_PLACE_MAX_BYTES], name[2 * OUTBOX_NAME_MAX_BYTES] = OUTBOX_CHANNEL;
	const char *sql = what == OUTBOX_SQL_FUNCTION ? find_function : find_trigger;

	outbox_quoted(outbox, place);
	if (what == OUTBOX_SQL_INDEX_OPEN || what == OUTBOX_SQL_INDEX_FAILED) {
		outbox_index_name(outbox, what, name);
		sql = find_index;
	}
	struct query query = {
		.sql = sql, ARGS(value_text(place), value_text(name)), .row = outbox_take_existence, .context = exists
	};
	*exists = false;
	return outbox_read(outbox, &query, err);
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

/* Of the sequences that the column belongs to, or has its default of. */
static const char find_sequence[] =
	"SELECT s.seqrelid::regclass::text, s.seqcache, s.seqincrement FROM pg_sequence s, pg_attribute a "
	"WHERE a.attrelid = to_regclass(?) AND a.attname = ? AND (s.seqcache > 1 OR s.seqincrement < 1) AND ("
	"EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND "
	"d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND "
	"d.deptype IN ('a', 'i')) OR "
	"EXISTS (SELECT 1 FROM pg_attrdef v JOIN pg_depend d ON d.objid = v.oid WHERE v.adrelid = a.attrelid AND "
	"v.adnum = a.attnum AND d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND "
	"d.refobjid = s.seqrelid))";

static enum evbus_code refuse_sequence(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct evbus_outbox *outbox = context;
	int len = (int)columns[0].bytes.len;
	const char *name = columns[0].bytes.data;
	(void)count;

	if (columns[2].integer < 1)
		return err_set(
			err, EVBUS_CONFIG, 0,
			"the sequence %.*s of the outbox '%s' counts down, and rows are published from the lowest "
			"number on: run ALTER SEQUENCE %.*s INCREMENT 1",
			len, name, outbox->name, len, name);
	return err_set(
		err, EVBUS_CONFIG, 0,
		"the sequence %.*s of the outbox '%s' gives each connection %lld numbers at once, so that a row "
		"may get a lower one than an earlier row of its key: run ALTER SEQUENCE %.*s CACHE 1, and have the "
		"application connect anew",
		len, name, outbox->name, (long long)columns[1].integer, len, name);
}

/* Rows may come into these by way of another relation, and it is that one which is locked when they get their numbers. */
static const char find_detour[] =
	"SELECT CASE WHEN c.relispartition THEN 'a partition' WHEN c.relkind IN ('r', 'p') THEN 'inherited from' "
	"ELSE 'no table' END FROM pg_class c WHERE c.oid = to_regclass(?) AND (c.relispartition OR "
	"c.relkind NOT IN ('r', 'p') OR (c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_inherits i WHERE i.inhparent = "
	"c.oid)))";

static enum evbus_code refuse_detour(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	const struct evbus_outbox *outbox = context;
	(void)count;

	return err_set(
		err, EVBUS_CONFIG, 0,
		"'%s' of the outbox '%s' is %.*s: who writes to it by another name cannot be seen, and a row may "
		"come before an earlier one of its key: name the table that is written to",
		outbox->map.table, outbox->name, (int)columns[0].bytes.len, columns[0].bytes.data);
}

enum evbus_code outbox_server_check(struct evbus_outbox *outbox, struct evbus_err *err)
{
	char place[OUTBOX_PLACE_MAX_BYTES];

	/* Where there are no keys, there is no order. */
	if (!outbox_has(outbox, OUTBOX_PARTITION_KEY))
		return EVBUS_OK;
	outbox_quoted(outbox, place);
	struct query detour = { .sql = find_detour, ARGS(value_text(place)), .row = refuse_detour, .context = outbox };
	TRY(outbox_read(outbox, &detour, err));
	struct query sequence = { .sql = find_sequence,
				  ARGS(value_text(place), value_text(outbox->map.columns[OUTBOX_SEQ])),
				  .row = refuse_sequence,
				  .context = outbox };
	return outbox_read(outbox, &sequence, err);
}

/* ---- being told ------------------------------------------------------------------------------------------------ */

enum evbus_code outbox_listen(struct evbus_outbox *outbox, struct evbus_err *err)
{
	return outbox->server ? table_listen(outbox->store, OUTBOX_CHANNEL, err) : EVBUS_OK;
}

int evbus_outbox_heard(struct evbus_outbox *outbox, bool *told)
{
	*told = false;
	return outbox->server && !bus_check(outbox->bus, NULL) ? table_heard(outbox->store, told) : -1;
}

/* ---- locks ----------------------------------------------------------------------------------------------------- */

/* The number of the table, as it fits. */
#define OF_TABLE "(to_regclass(?)::oid::bigint - 2147483648)::integer"

enum evbus_code outbox_server_alone(struct evbus_outbox *outbox, struct evbus_err *err)
{
	struct query query = { .sql = "SELECT pg_advisory_xact_lock(CAST(? AS integer), 0)",
			       ARGS(value_integer(LOCK_CLASS)) };

	return outbox->server ? table_write(outbox->store, &query, err) : EVBUS_OK;
}

enum evbus_code outbox_server_take(struct evbus_outbox *outbox, bool *taken, struct evbus_err *err)
{
	char place[OUTBOX_PLACE_MAX_BYTES];

	outbox_quoted(outbox, place);
	struct query query = { .sql = "SELECT 1 WHERE pg_try_advisory_lock(CAST(? AS integer), " OF_TABLE ")",
			       ARGS(value_integer(LOCK_CLASS), value_text(place)),
			       .row = outbox_take_existence,
			       .context = taken };
	*taken = false;
	return outbox_read(outbox, &query, err);
}

/* A connection that cannot do this any more has given it back. */
void outbox_server_give_back(struct evbus_outbox *outbox)
{
	char place[OUTBOX_PLACE_MAX_BYTES];

	outbox_quoted(outbox, place);
	struct query query = { .sql = "SELECT pg_advisory_unlock(CAST(? AS integer), " OF_TABLE ")",
			       ARGS(value_integer(LOCK_CLASS), value_text(place)) };
	if (outbox_read(outbox, &query, NULL))
		return;
}

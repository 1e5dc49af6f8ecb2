/* sweeping.c: removing rows that are done and old.
 *
 * The rows of a transaction are chosen by a subquery, as neither SQLite (as it is commonly built) nor Postgres knows
 * DELETE … LIMIT. */
#include "store/sweeping.h"

#include "store/table.h"

#include <assert.h>

#define OLD_INBOX "FROM inbox WHERE processed_at < ?"
#define OLD_KEYS "FROM event_keys WHERE published_at < ?"
#define OLD_LETTERS "FROM dlq WHERE state IN ('RETRIED', 'DISCARDED') AND updated_at < ?"

static const struct {
	const char *any, *count, *remove;
} statements[] = {
	[SWEEP_INBOX] = { "SELECT 1 " OLD_INBOX " LIMIT 1", "SELECT COUNT(*) " OLD_INBOX,
			  "DELETE FROM inbox WHERE (group_name, tenant_id, topic, event_id) IN "
			  "(SELECT group_name, tenant_id, topic, event_id " OLD_INBOX " LIMIT 1000)" },
	[SWEEP_EVENT_KEYS] = { "SELECT 1 " OLD_KEYS " LIMIT 1", "SELECT COUNT(*) " OLD_KEYS,
			       "DELETE FROM event_keys WHERE (topic, tenant_id, event_key) IN "
			       "(SELECT topic, tenant_id, event_key " OLD_KEYS " LIMIT 1000)" },
	[SWEEP_LETTERS] = { "SELECT 1 " OLD_LETTERS " LIMIT 1", "SELECT COUNT(*) " OLD_LETTERS,
			    "DELETE FROM dlq WHERE id IN (SELECT id " OLD_LETTERS " LIMIT 1000)" },
};

static enum evbus_code take_number(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	(void)err;
	assert(count == 1 && columns[0].kind == VALUE_INTEGER);
	*(int64_t *)context = columns[0].integer;
	return EVBUS_OK;
}

static enum evbus_code ask(struct store *store, const char *sql, const char *before, int64_t *number,
			   struct evbus_err *err)
{
	struct query query = { .sql = sql, ARGS(value_text(before)), .row = take_number, .context = number };

	*number = 0;
	return table_read(store, &query, err);
}

static enum evbus_code remove_some(struct store *store, const char *sql, const char *before, int64_t *removed,
				   struct evbus_err *err)
{
	struct query query = { .sql = sql, ARGS(value_text(before)) };

	TRY(table_begin(store, err));
	enum evbus_code code = table_write(store, &query, err);
	if (code) {
		table_rollback(store);
		return code;
	}
	*removed = query.changed;
	return table_commit(store, err);
}

enum evbus_code sweep_table(struct store *store, enum sweepable what, const char *before, bool dry_run, uint64_t *count,
			    struct evbus_err *err)
{
	int64_t number = 0;

	*count = 0;
	if (dry_run) {
		TRY(ask(store, statements[what].count, before, &number, err));
		*count = (uint64_t)number;
		return EVBUS_OK;
	}
	for (;;) {
		/* Asked first, as writing makes a store. */
		TRY(ask(store, statements[what].any, before, &number, err));
		if (!number)
			return EVBUS_OK;
		TRY(remove_some(store, statements[what].remove, before, &number, err));
		*count += (uint64_t)number;
	}
}

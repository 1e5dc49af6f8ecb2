/* schema.c: the tables of the store, and how a store of an older version becomes one of ours.
 *
 * The version stands in a table and not in SQLite's user_version: that belongs to the application where the store
 * shares its database, and Postgres has none. */
#include "store/schema.h"

#include "store/table.h"

#include <inttypes.h>

/* Only ever added to. The statements of a version that was released never change. */
static const struct step {
	int version;
	const char *sql;
} steps[] = {
	{ 1, "CREATE TABLE checkpoints ("
	     "group_name TEXT NOT NULL, "
	     "topic TEXT NOT NULL, "
	     "partition_id BIGINT NOT NULL, "
	     "next_offset TEXT NOT NULL, "
	     "offset_kind TEXT NOT NULL, "
	     "log_id TEXT NOT NULL, "
	     "fingerprint TEXT NOT NULL, "
	     "updated_at TEXT NOT NULL, "
	     "PRIMARY KEY (group_name, topic, partition_id))" },

	{ 2, "CREATE TABLE retries ("
	     "group_name TEXT NOT NULL, "
	     "topic TEXT NOT NULL, "
	     "partition_id BIGINT NOT NULL, "
	     "record_offset TEXT NOT NULL, "
	     "log_id TEXT NOT NULL, "
	     "attempts BIGINT NOT NULL, "
	     "next_attempt_at TEXT NOT NULL, "
	     "last_error TEXT NOT NULL, "
	     "history TEXT NOT NULL, "
	     "PRIMARY KEY (group_name, topic, partition_id, record_offset))" },

	/* The event id is first in the key, as it tells rows apart: of the other columns most rows have the same, and
	 * would be compared at each step of a search. */
	{ 2, "CREATE TABLE inbox ("
	     "group_name TEXT NOT NULL, "
	     "tenant_id TEXT NOT NULL, "
	     "topic TEXT NOT NULL, "
	     "event_id TEXT NOT NULL, "
	     "processed_at TEXT NOT NULL, "
	     "PRIMARY KEY (event_id, group_name, tenant_id, topic))" },
	{ 2, "CREATE INDEX inbox_age ON inbox (processed_at)" },

	{ 2, "CREATE TABLE key_progress ("
	     "topic TEXT NOT NULL, "
	     "partition_id BIGINT NOT NULL, "
	     "log_id TEXT NOT NULL, "
	     "indexed_to TEXT NOT NULL, "
	     "fingerprint TEXT NOT NULL, "
	     "PRIMARY KEY (topic, partition_id))" },

	/* Numbers that are given out once: MAX(id) + 1 would give a swept letter's again. */
	{ 2, "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)" },

	{ 2, "CREATE TABLE dlq ("
	     "id BIGINT PRIMARY KEY, "
	     "state TEXT NOT NULL, "
	     "group_name TEXT NOT NULL, "
	     "tenant_id TEXT, "
	     "topic TEXT NOT NULL, "
	     "partition_id BIGINT NOT NULL, "
	     "record_offset TEXT NOT NULL, "
	     "offset_kind TEXT NOT NULL, "
	     "log_id TEXT NOT NULL, "
	     "published_at TEXT NOT NULL, "
	     "partition_key TEXT, "
	     "event_id TEXT, "
	     "event_type TEXT, "
	     "correlation_id TEXT, "
	     "payload BYTEA NOT NULL, "
	     "reason TEXT NOT NULL, "
	     "error TEXT NOT NULL, "
	     "attempts BIGINT NOT NULL, "
	     "history TEXT NOT NULL, "
	     "returns BIGINT NOT NULL, "
	     "created_at TEXT NOT NULL, "
	     "updated_at TEXT NOT NULL, "
	     "resolved_by TEXT, "
	     "result TEXT, "
	     "UNIQUE (group_name, topic, partition_id, record_offset, log_id))" },
	{ 2, "CREATE INDEX dlq_state ON dlq (state, id)" },
	{ 2, "CREATE INDEX dlq_queued ON dlq (group_name, state, topic, partition_id, id)" },
	{ 2, "CREATE INDEX dlq_age ON dlq (state, updated_at)" },

	/* What operators decided about FAILED rows of outboxes, which have no state for it. */
	{ 2, "CREATE TABLE outbox_decisions ("
	     "outbox TEXT NOT NULL, "
	     "seq BIGINT NOT NULL, "
	     "state TEXT NOT NULL, "
	     "decided_by TEXT NOT NULL, "
	     "decided_at TEXT NOT NULL, "
	     "PRIMARY KEY (outbox, seq))" },

	/* The key goes first, as the event id does in the inbox. What version 2 had stands in the log, and is read from
	 * there again. */
	{ 3, "DROP TABLE IF EXISTS event_keys" },
	{ 3, "DELETE FROM key_progress" },
	{ 3, "CREATE TABLE event_keys ("
	     "topic TEXT NOT NULL, "
	     "tenant_id TEXT NOT NULL, "
	     "event_key TEXT NOT NULL, "
	     "log_id TEXT NOT NULL, "
	     "partition_id BIGINT NOT NULL, "
	     "record_offset TEXT NOT NULL, "
	     "published_at TEXT NOT NULL, "
	     "PRIMARY KEY (event_key, tenant_id, topic))" },
	{ 3, "CREATE INDEX event_keys_age ON event_keys (published_at)" },
};

static const char create_versions[] =
	"CREATE TABLE IF NOT EXISTS evbus_schema (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)";
static const char select_version[] = "SELECT version FROM evbus_schema WHERE id = 1";
static const char upsert_version[] = "INSERT INTO evbus_schema (id, version) VALUES (1, ?) "
				     "ON CONFLICT (id) DO UPDATE SET version = excluded.version";

static enum evbus_code take_version(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	if (count != 1 || columns[0].kind != VALUE_INTEGER || columns[0].integer < 0)
		return err_set(err, EVBUS_IO, 0, "the version of the tables is not a number: restore the store");
	*(int64_t *)context = columns[0].integer;
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

enum evbus_code schema_version_again(struct db *db, const char *name, int64_t *version, struct evbus_err *err)
{
	int64_t found = 0;
	struct query select = { .sql = select_version, .row = take_version, .context = &found };

	TRY(db->driver->query(db, &select, err));
	if (found > SCHEMA_VERSION)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the store '%s' has tables of version %" PRId64
			       ", and this evbus knows them up to %d: use a newer evbus",
			       name, found, SCHEMA_VERSION);
	*version = found;
	return EVBUS_OK;
}

enum evbus_code schema_version(struct db *db, const char *name, int64_t *version, struct evbus_err *err)
{
	bool exists = false;
	struct query table = { .sql = db->driver->table_exists,
			       ARGS(value_text("evbus_schema")),
			       .row = take_existence,
			       .context = &exists };

	TRY(db->driver->query(db, &table, err));
	if (exists)
		return schema_version_again(db, name, version, err);
	*version = 0;
	return EVBUS_OK;
}

static enum evbus_code run_steps(struct db *db, const char *name, struct evbus_err *err)
{
	int64_t version = 0;

	/* Asked again within the transaction: another process may have been first. */
	TRY(schema_version(db, name, &version, err));
	if (version == SCHEMA_VERSION)
		return EVBUS_OK;
	if (!version && db->driver->make)
		TRY(db->driver->make(db, err));
	TRY(db->driver->query(db, &(struct query){ .sql = create_versions }, err));
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		if (steps[i].version > version)
			TRY(db->driver->query(db, &(struct query){ .sql = steps[i].sql }, err));
	struct query set = { .sql = upsert_version, ARGS(value_integer(SCHEMA_VERSION)) };
	return db->driver->query(db, &set, err);
}

enum evbus_code schema_migrate(struct db *db, const char *name, struct evbus_err *err)
{
	TRY(db->driver->begin(db, err));
	enum evbus_code code = run_steps(db, name, err);
	if (code) {
		db->driver->rollback(db);
		return code;
	}
	return db->driver->commit(db, err);
}

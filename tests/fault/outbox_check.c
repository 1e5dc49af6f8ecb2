/* outbox_check.c: what must hold between the rows of the applications and the log. */
#include "outbox.h"

/* The log becomes a table beside the outbox, in the order of its records. */
static void store_log(sqlite3 *db)
{
	const struct evbus_selection all = { .topic = ">", .partition_id = EVBUS_PARTITION_ALL };
	struct evbus *bus = open_bus();
	struct evbus_reader *reader;
	const struct evbus_record *record;
	sqlite3_stmt *statement;

	run_sql(db, "CREATE TEMP TABLE log (n INTEGER PRIMARY KEY, topic, key, id); BEGIN");
	CHECK(!sqlite3_prepare_v2(db, "INSERT INTO log (topic, key, id) VALUES (?, ?, json_extract(?, '$.id'))", -1,
				  &statement, NULL),
	      "%s", sqlite3_errmsg(db));
	CHECK_OK(evbus_reader_open(bus, &all, &reader, ERR));
	for (;;) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		sqlite3_bind_text(statement, 1, record->topic.data, (int)record->topic.len, SQLITE_TRANSIENT);
		sqlite3_bind_text(statement, 2, record->partition_key.data, (int)record->partition_key.len,
				  SQLITE_TRANSIENT);
		sqlite3_bind_text(statement, 3, record->payload.data, (int)record->payload.len, SQLITE_TRANSIENT);
		CHECK(sqlite3_step(statement) == SQLITE_DONE, "%s", sqlite3_errmsg(db));
		sqlite3_reset(statement);
	}
	sqlite3_finalize(statement);
	run_sql(db, "COMMIT");
	evbus_reader_close(reader);
	evbus_close(bus);
}

#define NONE_OF(db, what, from)                                                                                        \
	do {                                                                                                           \
		int64_t found_ = ask_in(db, "SELECT COUNT(*) FROM " from);                                             \
		CHECK(!found_, "%lld " what, (long long)found_);                                                       \
	} while (0)

static uint64_t check_known(sqlite3 *db)
{
	char statement[200];
	uint64_t committed = 0;

	run_sql(db, "CREATE TEMP TABLE known (id TEXT PRIMARY KEY, state); BEGIN");
	for (unsigned app = 0; app < APPS; app++)
		for (unsigned n = 0; n < setting.rows; n++) {
			unsigned state = atomic_load(&known[app][n]);
			committed += state == COMMITTED;
			snprintf(statement, sizeof statement, "INSERT INTO known VALUES ('%u-%u', %u)", app, n, state);
			run_sql(db, statement);
		}
	run_sql(db, "COMMIT");
	return committed;
}

void check_all(void)
{
	sqlite3 *db = open_app();

	store_log(db);
	uint64_t committed = check_known(db);
	CHECK(committed > setting.rows, "only %llu rows were committed", (unsigned long long)committed);
	NONE_OF(db, "events are on the log more than once", "(SELECT id FROM log GROUP BY id HAVING COUNT(*) > 1)");
	NONE_OF(db, "committed events are not on the log", "known WHERE state = 1 AND id NOT IN (SELECT id FROM log)");
	NONE_OF(db, "events on the log were not committed",
		"log WHERE id NOT IN (SELECT id FROM known WHERE state = 1)");
	NONE_OF(db, "rows have another topic than their event",
		"log JOIN outbox USING (id) WHERE log.topic <> outbox.topic");
	NONE_OF(db, "events are before one that was written before them",
		"(SELECT o.seq, LAG(o.seq) OVER (PARTITION BY l.topic, l.key ORDER BY l.n) AS before FROM log AS l "
		"JOIN outbox "
		"AS o USING (id) WHERE l.key <> 'null') WHERE before > seq");
	NONE_OF(db, "rows were tried more than once, or are dead", "outbox WHERE attempts <> 0 OR state <> 'SENT'");
	sqlite3_close(db);
	check_db("app.db");
}

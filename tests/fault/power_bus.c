/* power_bus.c: what tests of a bus with a store have in common, after a power cut. */
#include "power_bus.h"

#include <errno.h>

struct evbus *bus_open(const char *path)
{
	char name[64];
	struct evbus *bus;

	snprintf(name, sizeof name, "%s/bus", path);
	CHECK_OK(evbus_open(name, NULL, &bus, ERR));
	return bus;
}

void bus_ready(const char *path)
{
	char page[96];

	for (int i = 0; i < BUS_PARTITIONS; i++) {
		snprintf(page, sizeof page, "%s/bus/" TOPIC "/partition=%d.lock", path, i);
		mend_page(page);
	}
}

void promises_keep(size_t *at, size_t count, size_t changes)
{
	for (size_t i = 0; i < count; i++)
		at[i] = at[i] <= changes ? 0 : NEVER;
}

void bus_read(struct evbus *bus, void (*record)(void *context, const struct evbus_record *record, uint64_t n),
	      void *context)
{
	const struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *read;
	struct evbus_reader *reader;

	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	do {
		CHECK_OK(evbus_reader_next(reader, 0, &read, ERR));
		if (!read)
			continue;
		CHECK(read->payload.len > 8 && !memcmp(read->payload.data, "{\"id\":\"e", 8), "what is that: %.*s",
		      (int)read->payload.len, read->payload.data);
		record(context, read, number_at(read->payload.data + 8));
	} while (read);
	evbus_reader_close(reader);
}

/* ---- databases ---- */

sqlite3 *database_open(const char *path)
{
	sqlite3 *db;

	CHECK(!sqlite3_open(path, &db), "cannot open '%s'", path);
	return db;
}

void database_run(sqlite3 *db, const char *sql)
{
	char *message = NULL;
	int rc = sqlite3_exec(db, sql, NULL, NULL, &message);

	CHECK(rc == SQLITE_OK, "%s: %d: %s", sql, rc, message);
}

int64_t database_ask(sqlite3 *db, const char *sql, int64_t n)
{
	sqlite3_stmt *statement;

	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	CHECK(rc == SQLITE_OK, "%s: %d: %s", sql, rc, sqlite3_errmsg(db));
	if (sqlite3_bind_parameter_count(statement))
		sqlite3_bind_int64(statement, 1, n);
	rc = sqlite3_step(statement);
	CHECK(rc == SQLITE_ROW, "%s: %d: %s", sql, rc, sqlite3_errmsg(db));
	int64_t number = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return number;
}

static int take_result(void *context, int count, char **values, char **names)
{
	(void)context;
	(void)names;
	CHECK(count == 1 && values[0] && !strcmp(values[0], "ok"), "the database is damaged: %s", values[0]);
	return 0;
}

void database_check(sqlite3 *db)
{
	char *message = NULL;

	CHECK(!sqlite3_exec(db, "PRAGMA integrity_check", take_result, NULL, &message), "integrity_check: %s", message);
}

/* sweep_store_run.c: what the sweeps of the store and of outboxes share. */
#include "sweep_store.h"

#include <sqlite3.h>
#include <stdlib.h>

void sweep_store_others(void)
{
	struct evbus *bus = open_bus();
	struct evbus_checkpoint before, after;

	CHECK_OK(sweep_publish(bus, ERR));
	CHECK_OK(evbus_checkpoint_set(bus, "others", TOPIC, 0, "1", false, &before, &after, ERR));
	evbus_close(bus);
}

int64_t sweep_ask_in(const char *path, const char *statement)
{
	sqlite3 *db;
	sqlite3_stmt *query;
	int64_t number = -1;

	CHECK(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
		      sqlite3_prepare_v2(db, statement, -1, &query, NULL) == SQLITE_OK,
	      "%s: %s", statement, sqlite3_errmsg(db));
	int rc = sqlite3_step(query);
	CHECK(rc == SQLITE_ROW || rc == SQLITE_DONE, "%s: %s", statement, sqlite3_errmsg(db));
	if (rc == SQLITE_ROW)
		number = sqlite3_column_int64(query, 0);
	sqlite3_finalize(query);
	CHECK(sqlite3_close(db) == SQLITE_OK, "it does not close");
	return number;
}

int64_t sweep_ask(const char *statement)
{
	return sweep_ask_in("bus/.evbus/state.db", statement);
}

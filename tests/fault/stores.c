/* stores.c: see stores.h. */
#include "stores.h"

#include <stdarg.h>

sqlite3 *open_db(const char *path)
{
	sqlite3 *db;

	CHECK(sqlite3_open(path, &db) == SQLITE_OK, "cannot open '%s'", path);
	sqlite3_busy_timeout(db, 60000);
	return db;
}

void run_sql(sqlite3 *db, const char *statement)
{
	char *message = NULL;
	int rc = sqlite3_exec(db, statement, NULL, NULL, &message);

	CHECK(rc == SQLITE_OK, "%s: %d: %s", statement, rc, message);
}

static int take_number(void *to, int count, char **values, char **names)
{
	(void)count;
	(void)names;
	*(int64_t *)to = values[0] ? strtoll(values[0], NULL, 10) : -1;
	return 0;
}

int64_t ask_in(sqlite3 *db, const char *statement)
{
	int64_t number = -1;

	CHECK(sqlite3_exec(db, statement, take_number, &number, NULL) == SQLITE_OK, "%s: %s", statement,
	      sqlite3_errmsg(db));
	return number;
}

int64_t ask_db(const char *path, const char *format, ...)
{
	char statement[1000];
	va_list args;

	va_start(args, format);
	vsnprintf(statement, sizeof statement, format, args);
	va_end(args);
	sqlite3 *db = open_db(path);
	int64_t number = ask_in(db, statement);
	sqlite3_close(db);
	return number;
}

void check_db(const char *path)
{
	sqlite3 *db = open_db(path);
	sqlite3_stmt *statement;
	char whole[100];

	CHECK(!sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL), "%s", sqlite3_errmsg(db));
	CHECK(sqlite3_step(statement) == SQLITE_ROW, "%s", sqlite3_errmsg(db));
	snprintf(whole, sizeof whole, "%s", (const char *)sqlite3_column_text(statement, 0));
	sqlite3_finalize(statement);
	sqlite3_close(db);
	CHECK(!strcmp(whole, "ok"), "'%s' is not whole: %s", path, whole);
}

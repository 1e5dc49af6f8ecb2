/* peer_sqlite.c: a table of SQLite as a log: WAL, synchronous FULL. Nobody is told of a row. */
#include "peer.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#define BUSY_MS 60000

static sqlite3 *db;
static sqlite3_stmt *insert;
static size_t unsettled;

static void must(int code)
{
	if (code == SQLITE_OK || code == SQLITE_DONE)
		return;
	fprintf(stderr, "peer: sqlite: %s\n", sqlite3_errmsg(db));
	exit(74);
}

static void run(const char *sql)
{
	must(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

static void open_file(const char *file)
{
	must(sqlite3_open(file, &db));
	must(sqlite3_busy_timeout(db, BUSY_MS));
	run("PRAGMA journal_mode=WAL");
	run("PRAGMA synchronous=FULL");
	run("CREATE TABLE IF NOT EXISTS log(seq INTEGER PRIMARY KEY, event TEXT)");
	must(sqlite3_prepare_v2(db, "INSERT INTO log(event) VALUES (?)", -1, &insert, NULL));
}

/* A connection is not for a process that is forked later. */
static void reset(const char *file)
{
	open_file(file);
	must(sqlite3_finalize(insert));
	must(sqlite3_close(db));
}

static void send(const char *event, size_t len)
{
	if (!unsettled++)
		run("BEGIN IMMEDIATE");
	must(sqlite3_bind_text(insert, 1, event, (int)len, SQLITE_STATIC));
	must(sqlite3_step(insert));
	must(sqlite3_reset(insert));
}

static void settle(size_t left)
{
	if (unsettled <= left)
		return;
	run("COMMIT");
	unsettled = 0;
}

const struct peer peer_sqlite = { "sqlite", reset, open_file, send, settle, NULL, NULL };

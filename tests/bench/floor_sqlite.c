/* floor_sqlite.c: an outbox drained by as few lines as keep the promise: read a batch, append it to a file, fdatasync, mark the
 * batch as sent.
 *
 *	floor_sqlite make ROWS DB
 *	floor_sqlite drain BATCH DB FILE
 *
 * Prints what was done, as measure.h has it. */
#include "measure.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sqlite3 *db;

static _Noreturn void db_die(const char *what)
{
	fprintf(stderr, "floor_sqlite: %s: %s\n", what, sqlite3_errmsg(db));
	exit(74);
}

static void run(const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		db_die(sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		db_die(sql);
	return statement;
}

static void make(int rows)
{
	char event[EVENT_MAX_BYTES];

	run("CREATE TABLE outbox(seq INTEGER PRIMARY KEY, payload TEXT, state TEXT)");
	run("CREATE INDEX pending ON outbox(seq) WHERE state = 'PENDING'");
	run("BEGIN");
	sqlite3_stmt *insert = prepare("INSERT INTO outbox(payload, state) VALUES (?, 'PENDING')");
	for (int i = 0; i < rows; i++) {
		event_make(event, (size_t)i);
		sqlite3_bind_text(insert, 1, event, -1, SQLITE_STATIC);
		if (sqlite3_step(insert) != SQLITE_DONE)
			db_die("insert");
		sqlite3_reset(insert);
	}
	sqlite3_finalize(insert);
	run("COMMIT");
}

/* Returns how many there were; *last: the seq of the last of them. */
static int write_batch(sqlite3_stmt *select, FILE *file, sqlite3_int64 *last)
{
	int rows = 0;

	for (; sqlite3_step(select) == SQLITE_ROW; rows++) {
		*last = sqlite3_column_int64(select, 0);
		fprintf(file, "%s\n", (const char *)sqlite3_column_text(select, 1));
	}
	sqlite3_reset(select);
	if (fflush(file) || fdatasync(fileno(file)))
		die("the file");
	return rows;
}

static void drain(int batch, const char *name)
{
	sqlite3_stmt *select = prepare("SELECT seq, payload FROM outbox WHERE state = 'PENDING' ORDER BY seq LIMIT ?");
	sqlite3_stmt *mark = prepare("UPDATE outbox SET state = 'SENT' WHERE state = 'PENDING' AND seq <= ?");
	FILE *file = fopen(name, "a");
	sqlite3_int64 last = 0;
	int rows, count = 0;
	double start = now();

	if (!file)
		die(name);
	sqlite3_bind_int(select, 1, batch);
	while ((rows = write_batch(select, file, &last)) > 0) {
		sqlite3_bind_int64(mark, 1, last);
		if (sqlite3_step(mark) != SQLITE_DONE)
			db_die("mark");
		sqlite3_reset(mark);
		count += rows;
	}
	tell((size_t)count, now() - start, NULL, 0);
	sqlite3_finalize(select);
	sqlite3_finalize(mark);
	fclose(file);
}

int main(int argc, char **argv)
{
	if (argc < 4 || sqlite3_open(argv[3], &db) != SQLITE_OK)
		return 64;
	run("PRAGMA journal_mode=WAL");
	run("PRAGMA synchronous=FULL");
	if (!strcmp(argv[1], "make"))
		make((int)strtol(argv[2], NULL, 10));
	else
		drain((int)strtol(argv[2], NULL, 10), argv[4]);
	sqlite3_close(db);
	return 0;
}

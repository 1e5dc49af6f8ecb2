/* postgres_listen.c: being told by a server that something has changed. */
#include "store/postgres.h"

#include <stdio.h>

enum evbus_code pg_listen(struct db *db, const char *channel, struct evbus_err *err)
{
	struct pg *pg = (struct pg *)(void *)db;
	char text[80];

	if (pg->conn && pg->listening == pg->connections)
		return EVBUS_OK;
	snprintf(text, sizeof text, "LISTEN %s", channel);
	TRY(db->driver->query(db, &(struct query){ .sql = text }, err));
	pg->listening = pg->connections;
	return EVBUS_OK;
}

/* What was told while an answer was waited for can be read nowhere any more: libpq has it. A connection that is gone, or was
 * made anew since, is something to be looked into, too. */
int pg_heard(struct db *db, bool *told)
{
	struct pg *pg = (struct pg *)(void *)db;
	PGnotify *note;

	*told = pg->conn && pg->listening != pg->connections;
	if (!pg->conn || *told || pg->transaction != PG_OUTSIDE)
		return -1;
	bool there = PQconsumeInput(pg->conn);
	while ((note = PQnotifies(pg->conn))) {
		*told = true;
		PQfreemem(note);
	}
	if (there)
		return PQsocket(pg->conn);
	pg_disconnect(pg);
	*told = true;
	return -1;
}

/* sqlite_journal.h: a VFS of SQLite that collects what is written to a rollback journal. */
#ifndef EVBUS_STORE_SQLITE_JOURNAL_H
#define EVBUS_STORE_SQLITE_JOURNAL_H

#include <sqlite3.h>
#include <stdbool.h>
#include <sys/stat.h>

#define JOURNAL_ROOM_BYTES 65536

/* Of one connection, which has one journal at a time. */
struct journal_vfs {
	sqlite3_vfs vfs; /* first: what SQLite holds */
	sqlite3_vfs *below;
	char name[40];
	sqlite3_int64 at; /* where what waits belongs in the file */
	int waiting;
	bool left_named; /* the last one was closed with its name durable, */
	struct stat left; /* and was this then */
	char room[JOURNAL_ROOM_BYTES];
};

/* Over the default VFS. It is known by its name from here until journal_vfs_hide(), and lives as long as the connection
 * that was opened by it. */
int journal_vfs_show(struct journal_vfs *journal);
void journal_vfs_hide(struct journal_vfs *journal);

/* Within a transaction that has written nothing yet: from now on the connection makes its rollback journal invalid at the
 * end of each, and neither removes it nor makes it anew for the next one, which takes more time than all of its syncs.
 * false: it stays as it was, as with a WAL, or where the file would not be the application's. */
bool journal_keep(sqlite3 *db);
/* Outside of one: removes it. Where the database is locked, whoever has it removes it with his own commit. */
void journal_remove(sqlite3 *db);

#endif

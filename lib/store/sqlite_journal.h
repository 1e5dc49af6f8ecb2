/* sqlite_journal.h: a VFS of SQLite that collects what is written to a rollback journal. */
#ifndef EVBUS_STORE_SQLITE_JOURNAL_H
#define EVBUS_STORE_SQLITE_JOURNAL_H

#include <sqlite3.h>

#define JOURNAL_ROOM_BYTES 65536

/* Of one connection, which has one journal at a time. */
struct journal_vfs {
	sqlite3_vfs vfs; /* first: what SQLite holds */
	sqlite3_vfs *below;
	char name[40];
	sqlite3_int64 at; /* where what waits belongs in the file */
	int waiting;
	char room[JOURNAL_ROOM_BYTES];
};

/* Over the default VFS. It is known by its name from here until journal_vfs_hide(), and lives as long as the connection
 * that was opened by it. */
int journal_vfs_show(struct journal_vfs *journal);
void journal_vfs_hide(struct journal_vfs *journal);

#endif

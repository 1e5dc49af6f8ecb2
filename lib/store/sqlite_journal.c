/* sqlite_journal.c: one write where SQLite makes three for each page of a rollback journal.
 *
 * A page goes into the journal as its number, its bytes and its checksum, one behind the other, each with a call of its
 * own. Here they wait until there are many of them, and for nothing that could miss them: SQLite lets no page of the
 * database be written before the journal is synced, and reads and measures it through the same file. Who dies before
 * the sync leaves what a power cut may leave at that time, a journal without its end and a database that was not
 * touched. Only the journal is like that: others read the WAL, and the database, without a word to us. */
#include "store/sqlite_journal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct journal_file {
	sqlite3_file base; /* first: what SQLite holds */
	struct journal_vfs *journal;
	sqlite3_file *below;
	const char *name;
	bool named; /* its name is durable */
};

static struct journal_file *of(sqlite3_file *file)
{
	return (struct journal_file *)(void *)file;
}

static int write_below(sqlite3_file *file, const void *data, int len, sqlite3_int64 at)
{
	return of(file)->below->pMethods->xWrite(of(file)->below, data, len, at);
}

/* After a failure it waits on: a rollback needs it. */
static int write_out(sqlite3_file *file)
{
	struct journal_vfs *journal = of(file)->journal;
	int rc = journal->waiting ? write_below(file, journal->room, journal->waiting, journal->at) : SQLITE_OK;

	if (!rc)
		journal->waiting = 0;
	return rc;
}

static int write_file(sqlite3_file *file, const void *data, int len, sqlite3_int64 at)
{
	struct journal_vfs *journal = of(file)->journal;
	int rc = SQLITE_OK;

	if (at != journal->at + journal->waiting || len > JOURNAL_ROOM_BYTES - journal->waiting)
		rc = write_out(file);
	if (rc || len > JOURNAL_ROOM_BYTES)
		return rc ? rc : write_below(file, data, len, at);
	if (!journal->waiting)
		journal->at = at;
	memcpy(journal->room + journal->waiting, data, (size_t)len);
	journal->waiting += len;
	return SQLITE_OK;
}

static int close_file(sqlite3_file *file)
{
	struct journal_vfs *journal = of(file)->journal;
	int rc = write_out(file), closed = of(file)->below->pMethods->xClose(of(file)->below);

	journal->waiting = 0;
	journal->left_named = of(file)->named && !stat(of(file)->name, &journal->left);
	return rc ? rc : closed;
}

/* The first one syncs the directory as well. */
static int sync_file(sqlite3_file *file, int flags)
{
	int rc = write_out(file);

	if (!rc)
		rc = of(file)->below->pMethods->xSync(of(file)->below, flags);
	of(file)->named = of(file)->named || !rc;
	return rc;
}

#define PASS(name, parameters, arguments)                                                                              \
	static int pass_##name parameters                                                                              \
	{                                                                                                              \
		return of(file)->below->pMethods->name arguments;                                                      \
	}
#define PASS_WRITTEN(name, parameters, arguments)                                                                      \
	static int pass_##name parameters                                                                              \
	{                                                                                                              \
		int rc = write_out(file);                                                                              \
		return rc ? rc : of(file)->below->pMethods->name arguments;                                            \
	}
#define BELOW of(file)->below
PASS_WRITTEN(xRead, (sqlite3_file * file, void *data, int len, sqlite3_int64 at), (BELOW, data, len, at))
PASS_WRITTEN(xTruncate, (sqlite3_file * file, sqlite3_int64 size), (BELOW, size))
PASS_WRITTEN(xFileSize, (sqlite3_file * file, sqlite3_int64 *size), (BELOW, size))
PASS(xLock, (sqlite3_file * file, int level), (BELOW, level))
PASS(xUnlock, (sqlite3_file * file, int level), (BELOW, level))
PASS(xCheckReservedLock, (sqlite3_file * file, int *held), (BELOW, held))
PASS(xFileControl, (sqlite3_file * file, int what, void *value), (BELOW, what, value))
PASS(xSectorSize, (sqlite3_file * file), (BELOW))
PASS(xDeviceCharacteristics, (sqlite3_file * file), (BELOW))

static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = close_file,
	.xRead = pass_xRead,
	.xWrite = write_file,
	.xTruncate = pass_xTruncate,
	.xSync = sync_file,
	.xFileSize = pass_xFileSize,
	.xLock = pass_xLock,
	.xUnlock = pass_xUnlock,
	.xCheckReservedLock = pass_xCheckReservedLock,
	.xFileControl = pass_xFileControl,
	.xSectorSize = pass_xSectorSize,
	.xDeviceCharacteristics = pass_xDeviceCharacteristics,
};

/* Whether it is as we left it: nobody has removed it since, or has made it anew. */
static bool is_as_left(const struct journal_vfs *journal, const char *name)
{
	const struct stat *left = &journal->left;
	struct stat st;

	return journal->left_named && name && !stat(name, &st) && st.st_dev == left->st_dev &&
	       st.st_ino == left->st_ino && st.st_size == left->st_size && st.st_ctim.tv_sec == left->st_ctim.tv_sec &&
	       st.st_ctim.tv_nsec == left->st_ctim.tv_nsec;
}

/* Other files are those of the VFS below, and none of ours. Of one that may be new SQLite syncs the directory, each time
 * that it is opened: not if it is said to be there. */
static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *given)
{
	struct journal_vfs *journal = (struct journal_vfs *)(void *)vfs;
	sqlite3_vfs *below = journal->below;

	if (!(flags & SQLITE_OPEN_MAIN_JOURNAL))
		return below->xOpen(below, name, file, flags, given);
	*of(file) = (struct journal_file){ .journal = journal,
					   .below = (sqlite3_file *)(void *)(of(file) + 1),
					   .name = name };
	int rc = SQLITE_CANTOPEN;
	if (is_as_left(journal, name))
		rc = below->xOpen(below, name, BELOW, flags & ~SQLITE_OPEN_CREATE, given);
	of(file)->named = !rc;
	if (rc)
		rc = below->xOpen(below, name, BELOW, flags, given);
	if (BELOW->pMethods)
		file->pMethods = &methods;
	return rc;
}

int journal_vfs_show(struct journal_vfs *journal)
{
	journal->below = sqlite3_vfs_find(NULL);
	journal->waiting = 0;
	if (!journal->below)
		return SQLITE_ERROR;
	journal->vfs = *journal->below;
	snprintf(journal->name, sizeof journal->name, "evbus-journal-%p", (void *)journal);
	journal->vfs.zName = journal->name;
	journal->vfs.szOsFile += (int)sizeof(struct journal_file);
	journal->vfs.xOpen = open_file;
	return sqlite3_vfs_register(&journal->vfs, 0);
}

void journal_vfs_hide(struct journal_vfs *journal)
{
	sqlite3_vfs_unregister(&journal->vfs);
}

/* ---- keeping it ------------------------------------------------------------------------------------------------ */

static int compare_mode(void *context, int count, char **columns, char **names)
{
	(void)names;
	*(bool *)context = count == 1 && columns[0] && !strcmp(columns[0], "delete");
	return 0;
}

/* SQLite gives it the mode of the database, and as root its owners. An application that can open its database and not
 * the journal beside it cannot read that either. */
static bool is_theirs(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	struct stat file, parent;
	char dir[PATH_MAX];

	if (!slash)
		return false;
	snprintf(dir, sizeof dir, "%.*s/", (int)(slash - path), path);
	if (stat(path, &file) || stat(dir, &parent))
		return false;
	gid_t group = parent.st_mode & S_ISGID ? parent.st_gid : getegid();
	return !geteuid() || (file.st_uid == geteuid() && file.st_gid == group);
}

bool journal_keep(sqlite3 *db)
{
	bool removed = false;

	/* Nobody changes the mode while we have the lock; said of a WAL it would be the end of that. */
	return !sqlite3_exec(db, "PRAGMA journal_mode", compare_mode, &removed, NULL) && removed &&
	       is_theirs(sqlite3_db_filename(db, "main")) &&
	       !sqlite3_exec(db, "PRAGMA journal_mode=PERSIST", NULL, NULL, NULL);
}

void journal_remove(sqlite3 *db)
{
	sqlite3_busy_handler(db, NULL, NULL);
	if (sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL))
		return;
	/* It may be a WAL by now, which stays. */
	sqlite3_exec(db, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
	sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}

/* faulty_sqlite.c: a VFS of SQLite, over its own, and memory for it, that fail when a test wants it. What fails fails as
 * SQLite's own VFS would say it: a code, and the errno behind it for who asks. */
#include "faulty.h"

#include <sqlite3.h>
#include <stdlib.h>

#define READING (FAULTY_IO | FAULTY_NO_MEMORY)
#define WRITING (READING | FAULTY_SPACE | FAULTY_READ_ONLY)

struct faulty_file {
	sqlite3_file base; /* first: what SQLite holds */
	int number; /* errno of what failed last; 0: ask below */
	sqlite3_file *real; /* behind this */
};

static sqlite3_vfs *real_vfs;
static sqlite3_vfs faulty_vfs;
static sqlite3_mem_methods real_memory;
static int vfs_number;

static struct faulty_file *of(sqlite3_file *file)
{
	return (struct faulty_file *)(void *)file;
}

static bool hit(struct faulty_file *file, const char *name, unsigned kinds)
{
	bool fails = faulty_hit(name, FAULTY_FILES_OF_SQLITE, kinds);

	if (fails)
		file->number = vfs_number = errno;
	return fails;
}

/* ---- a file ---- */

static int close_file(sqlite3_file *file)
{
	int rc = of(file)->real->pMethods->xClose(of(file)->real);

	free(of(file)->real);
	return rc;
}

static int write_file(sqlite3_file *file, const void *data, int len, sqlite3_int64 at)
{
	if (hit(of(file), "sqlite write", WRITING))
		return of(file)->number == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
	return of(file)->real->pMethods->xWrite(of(file)->real, data, len, at);
}

#define PASS(name, parameters, arguments)                                                                              \
	static int pass_##name parameters                                                                              \
	{                                                                                                              \
		return of(file)->real->pMethods->name arguments;                                                       \
	}
#define FAIL(name, what, kinds, code, parameters, arguments)                                                           \
	static int fail_##name parameters                                                                              \
	{                                                                                                              \
		if (hit(of(file), "sqlite " what, kinds))                                                              \
			return code;                                                                                   \
		return of(file)->real->pMethods->name arguments;                                                       \
	}
#define REAL of(file)->real
FAIL(xRead, "read", READING, SQLITE_IOERR_READ, (sqlite3_file * file, void *data, int len, sqlite3_int64 at),
     (REAL, data, len, at))
FAIL(xTruncate, "truncate", WRITING, SQLITE_IOERR_TRUNCATE, (sqlite3_file * file, sqlite3_int64 size), (REAL, size))
FAIL(xSync, "sync", WRITING, SQLITE_IOERR_FSYNC, (sqlite3_file * file, int flags), (REAL, flags))
FAIL(xFileSize, "size", READING, SQLITE_IOERR_FSTAT, (sqlite3_file * file, sqlite3_int64 *size), (REAL, size))
FAIL(xLock, "lock", READING, SQLITE_IOERR_LOCK, (sqlite3_file * file, int level), (REAL, level))
FAIL(xCheckReservedLock, "look at a lock", READING, SQLITE_IOERR_CHECKRESERVEDLOCK, (sqlite3_file * file, int *result),
     (REAL, result))
FAIL(xShmMap, "map", READING, SQLITE_IOERR_SHMMAP,
     (sqlite3_file * file, int page, int size, int extend, void volatile **to), (REAL, page, size, extend, to))
FAIL(xShmLock, "lock what is shared", READING, SQLITE_IOERR_SHMLOCK,
     (sqlite3_file * file, int offset, int n, int flags), (REAL, offset, n, flags))
PASS(xUnlock, (sqlite3_file * file, int level), (REAL, level))
PASS(xSectorSize, (sqlite3_file * file), (REAL))
PASS(xDeviceCharacteristics, (sqlite3_file * file), (REAL))
PASS(xShmUnmap, (sqlite3_file * file, int flag), (REAL, flag))
#undef PASS
#undef FAIL

static int control_file(sqlite3_file *file, int op, void *argument)
{
	if (op == SQLITE_FCNTL_LAST_ERRNO && of(file)->number) {
		*(int *)argument = of(file)->number;
		return SQLITE_OK;
	}
	return REAL->pMethods->xFileControl(REAL, op, argument);
}

static void barrier(sqlite3_file *file)
{
	REAL->pMethods->xShmBarrier(REAL);
}

/* Giving a lock back is not made to fail: it cannot. */
static const sqlite3_io_methods methods = {
	.iVersion = 2,
	.xClose = close_file,
	.xRead = fail_xRead,
	.xWrite = write_file,
	.xTruncate = fail_xTruncate,
	.xSync = fail_xSync,
	.xFileSize = fail_xFileSize,
	.xLock = fail_xLock,
	.xUnlock = pass_xUnlock,
	.xCheckReservedLock = fail_xCheckReservedLock,
	.xFileControl = control_file,
	.xSectorSize = pass_xSectorSize,
	.xDeviceCharacteristics = pass_xDeviceCharacteristics,
	.xShmMap = fail_xShmMap,
	.xShmLock = fail_xShmLock,
	.xShmBarrier = barrier,
	.xShmUnmap = pass_xShmUnmap,
};

/* ---- the VFS ---- */

static bool hit_vfs(const char *name, unsigned kinds)
{
	bool fails = faulty_hit(name, FAULTY_FILES_OF_SQLITE, kinds);

	if (fails)
		vfs_number = errno;
	return fails;
}

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *flags_out)
{
	unsigned kinds =
		READING | FAULTY_DESCRIPTORS | (flags & SQLITE_OPEN_CREATE ? FAULTY_SPACE | FAULTY_READ_ONLY : 0);
	(void)vfs;

	file->pMethods = NULL;
	if (hit_vfs("sqlite open", kinds))
		return SQLITE_CANTOPEN;
	of(file)->number = 0;
	of(file)->real = calloc(1, (size_t)real_vfs->szOsFile);
	if (!of(file)->real)
		return SQLITE_NOMEM;
	int rc = real_vfs->xOpen(real_vfs, name, of(file)->real, flags, flags_out);
	if (of(file)->real->pMethods)
		file->pMethods = &methods;
	else
		free(of(file)->real);
	return rc;
}

static int delete_file(sqlite3_vfs *vfs, const char *name, int sync)
{
	(void)vfs;
	return hit_vfs("sqlite delete", WRITING) ? SQLITE_IOERR_DELETE : real_vfs->xDelete(real_vfs, name, sync);
}

static int look_at_file(sqlite3_vfs *vfs, const char *name, int flags, int *result)
{
	(void)vfs;
	return hit_vfs("sqlite access", READING) ? SQLITE_IOERR_ACCESS
						 : real_vfs->xAccess(real_vfs, name, flags, result);
}

static int last_number(sqlite3_vfs *vfs, int size, char *text)
{
	(void)vfs;
	return vfs_number ? vfs_number : real_vfs->xGetLastError(real_vfs, size, text);
}

/* ---- memory ---- */

static void *allocate(int size)
{
	return faulty_hit("sqlite malloc", FAULTY_MEMORY_OF_SQLITE, FAULTY_NO_MEMORY) ? NULL
										      : real_memory.xMalloc(size);
}

static void *reallocate(void *block, int size)
{
	return faulty_hit("sqlite realloc", FAULTY_MEMORY_OF_SQLITE, FAULTY_NO_MEMORY)
		       ? NULL
		       : real_memory.xRealloc(block, size);
}

static void must(int rc)
{
	if (rc != SQLITE_OK)
		abort();
}

void faulty_sqlite(void)
{
	if (real_vfs)
		return;
	must(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory));
	sqlite3_mem_methods memory = real_memory;
	memory.xMalloc = allocate;
	memory.xRealloc = reallocate;
	must(sqlite3_config(SQLITE_CONFIG_MALLOC, &memory));
	must(sqlite3_initialize());
	real_vfs = sqlite3_vfs_find(NULL);
	faulty_vfs = *real_vfs;
	faulty_vfs.zName = "faulty";
	faulty_vfs.pNext = NULL;
	faulty_vfs.szOsFile = sizeof(struct faulty_file);
	faulty_vfs.xOpen = open_file;
	faulty_vfs.xDelete = delete_file;
	faulty_vfs.xAccess = look_at_file;
	faulty_vfs.xGetLastError = last_number;
	must(sqlite3_vfs_register(&faulty_vfs, 1));
}

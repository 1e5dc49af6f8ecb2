/* faulty.h: calls that fail when a test wants it: of the system (the table os), for memory, and, after faulty_sqlite(),
 * of SQLite to its files and for its memory. All go through one counter, of all threads. The one that is chosen, or all
 * from it on, fails without having been done; or only a part of it is done; or something else happens just before it. */
#ifndef EVBUS_TESTS_FAULTY_H
#define EVBUS_TESTS_FAULTY_H

#include "base/os.h"

#include <errno.h>
#include <stdatomic.h>

#define FAULTY_ANY (-1) /* as errno: EIO, or ENOMEM of a call that knows no other */

enum faulty_scope {
	FAULTY_CALLS = 1,
	FAULTY_MEMORY = 2,
	FAULTY_FILES_OF_SQLITE = 4,
	FAULTY_MEMORY_OF_SQLITE = 8,
};

/* Instead of failing, a pread or pwrite does only so many of its bytes. */
enum faulty_part {
	FAULTY_NONE,
	FAULTY_ONE,
	FAULTY_HALF,
	FAULTY_ALL_BUT_ONE,
};

struct faulty {
	struct os real;
	atomic_uint calls; /* so far */
	unsigned at; /* the call, counted from 1, that fails; 0: none */
	bool from_on; /* and all behind it, as if the process were dead, or the disk */
	int number; /* errno */
	enum faulty_part part;
	unsigned scope; /* calls of which kind are counted; the first two, unless a test says otherwise */
	bool plausible; /* only calls are counted that can fail so: no pread finds the disk full */
	_Atomic(const char *) failed; /* the name of the (last) one that failed */
	void (*instead)(void); /* instead of failing, this happens, and then the call */
	bool active;
};

extern struct faulty faulty;

/* From now on the at-th call fails. at 0: they are only counted. */
void faulty_begin(unsigned at, int number);
void faulty_end(void);

/* SQLite's default VFS and its memory become faulty ones, for the rest of the process. Before its first use. */
void faulty_sqlite(void);

/* ---- between faulty.c and faulty_sqlite.c ---- */

enum faulty_kind {
	FAULTY_IO = 1, /* EIO */
	FAULTY_SPACE = 2, /* ENOSPC, EDQUOT */
	FAULTY_READ_ONLY = 4, /* EROFS */
	FAULTY_DESCRIPTORS = 8, /* EMFILE */
	FAULTY_NO_MEMORY = 16, /* ENOMEM */
	FAULTY_SIGNAL = 32, /* EINTR */
	FAULTY_PART = 64,
};

/* Counts a call that can fail as kinds say. true: it is to fail, with errno. */
bool faulty_hit(const char *name, enum faulty_scope scope, unsigned kinds);

#endif

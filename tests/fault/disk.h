/* disk.h: a disk that forgets.
 *
 * From disk_record() on every change below a directory is noted, whoever makes it, SQLite too: bytes written and cut,
 * names made, linked, renamed and removed, and what was synced. disk_build() then makes, in an empty directory, what a
 * power cut between two of these changes may leave. What a sync covered is there; of the rest any part may be there or
 * not, in any order:
 *
 *	a write          not at all, whole, only some of its sectors, only a first or last part; where the file grew, also
 *	                 zeros or garbage in its place
 *	a cut            not at all, or whole
 *	a name           not at all, or whole, as long as its directory was not synced; a rename is whole or not there
 *	a failed sync    what it should have covered stays uncertain for ever, whatever later syncs say (Linux marks the
 *	                 pages clean)
 *
 * This is worse than any file system: none forgets the directory entry of a file that was created and synced, none
 * keeps a rename and loses the name that it was made of. */
#ifndef EVBUS_TESTS_FAULT_DISK_H
#define EVBUS_TESTS_FAULT_DISK_H

#include "base/os.h"

/* From now on what happens below the directory is noted; what is there is taken to be synced. */
void disk_record(const char *path);
/* Notes nothing any more. What was noted stays until the next disk_record(). */
void disk_stop(void);

bool disk_is_recording(void);

/* How many changes were noted so far. */
size_t disk_changes(void);

/* Kills this process at its n-th change from now on, syncs among them: before it, or in the middle of a write. What
 * children do is recorded with the rest, one process at a time. 0: never. */
void disk_kill_at(size_t n);

/* So many of the next syncs of regular files fail with EIO, after letting this many pass. */
void disk_fail_syncs(unsigned after, unsigned count);

/* What may be left: the first few variants are the regular ones (nothing, everything, one of them, …, and the last write
 * torn at its first and last byte and at each sector), the others are drawn by the seed. */
unsigned disk_variants(size_t changes); /* how many are regular; 1: nothing is uncertain */
void disk_build(size_t changes, unsigned variant, uint64_t seed, const char *to);

/* The inode that a file has in what was built last, by the one that it had when it was recorded; 0: it is not there. */
ino_t disk_built_inode(ino_t recorded);

/* How many changes of the first `changes` are uncertain. */
size_t disk_uncertain(size_t changes);

#endif

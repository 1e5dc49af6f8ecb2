/* disk_changes.h: what was noted, for disk.c (which notes it) and disk_build.c (which makes states of it). */
#ifndef EVBUS_TESTS_FAULT_DISK_CHANGES_H
#define EVBUS_TESTS_FAULT_DISK_CHANGES_H

#include "disk.h"

#define NODES_MAX 512u
#define CHANGES_MAX 16384u
#define BYTES_MAX (64u * 1024 * 1024)

enum kind {
	WRITE,
	CUT,
	NAME, /* a node gets a name; what had it before loses it */
	UNNAME,
	RENAME,
	SYNC,
	SYNC_FAILED,
};

struct change {
	enum kind kind;
	unsigned node; /* what is written, cut, named, synced; with RENAME what moves */
	unsigned dir, to_dir;
	unsigned swapped; /* with RENAME_EXCHANGE: what moves the other way; else 0 */
	char name[64], to[64];
	uint64_t at; /* of a cut: the size */
	size_t data, len; /* of the bytes within the recording */
};

struct node {
	dev_t dev;
	ino_t ino;
	bool is_dir;
};

/* In memory that the children share: one that is killed takes nothing of it with it. */
struct recording {
	size_t changes, bytes;
	unsigned nodes;
	struct node node[NODES_MAX]; /* 0: nothing; 1: the directory that is recorded */
	struct change change[CHANGES_MAX];
	char byte[BYTES_MAX];
};
extern struct recording *disk;

void disk_must(bool condition, const char *what);

#endif

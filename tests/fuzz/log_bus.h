/* log_bus.h: the partition that fuzz-log works on, in a scratch directory in memory, on a machine on which the same happens
 * every time. Paths are below the topic. */
#ifndef EVBUS_TESTS_LOG_BUS_H
#define EVBUS_TESTS_LOG_BUS_H

#include "fuzz.h"
#include "log/segment.h"

#define LIVE "partition=0.jsonl"
#define LOCK "partition=0.lock"
#define OLDER_DIR "partition=0"
#define NOW_US 1769688000500000

extern struct topic topic;
extern char boot; /* another one: the machine was started anew */
extern char older_path[SEGMENT_PATH_MAX]; /* of the older segment, if there is one */

/* The partition is empty, and everything as it was the last time. */
void bus_begin(void);

void write_file(const char *path, const void *data, size_t len);

/* Data NULL: it is not there. */
struct files {
	struct evbus_slice live, older, lock, torn;
	unsigned torn_count;
};

void files_read(struct files *files);
void files_cleanup(struct files *files);

#endif

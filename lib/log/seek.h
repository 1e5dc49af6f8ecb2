/* seek.h: the log is its own index: lines carry their offset and their time, and both only grow. */
#ifndef EVBUS_LOG_SEEK_H
#define EVBUS_LOG_SEEK_H

#include "base/buf.h"

enum seek_by {
	SEEK_OFFSET,
	SEEK_TIME,
};

struct seek {
	int fd;
	const char *name;
	uint64_t size;               /* a line begins or the file ends there */
	enum seek_by by;
	uint64_t low, high;          /* values that the first line and the end have, roughly: for aiming only */
	struct buf *buf;             /* is left with what was read last, from byte buf_at on */
	uint64_t buf_at;
	bool led;                    /* the line before the one that was found was seen whole, and has a smaller time */
};

/* *at: the byte at which the first line with a value of at least `value` begins; size where there is none. What it says
 * comes from the heads of lines: the caller proves the line it gets. EVBUS_IO also where a head cannot be read. */
CHECKED enum evbus_code seek_find(struct seek *seek, uint64_t value, uint64_t *at, struct evbus_err *err);

#endif

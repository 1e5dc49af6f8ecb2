/* extent.h: how far the lines of a file are whole, correct and contiguous. */
#ifndef EVBUS_LOG_EXTENT_H
#define EVBUS_LOG_EXTENT_H

#include "log/control.h"
#include "log/line.h"

struct extent {
	struct cell good;            /* behind the last line (or batch) that is correct and continues the one before */
	struct cell at;              /* the same, but lines of a batch count that is not whole: where the bad line begins */
	bool bad;                    /* good is not the end */
	char why[96];                /* what is wrong with it */
};

/* Reads lines from *from (whose bytes, next and time_us are those of a line's beginning) up to byte `limit`. */
CHECKED enum evbus_code extent_find(int fd, const char *name, const struct cell *from, uint64_t limit,
				    struct extent *found, struct evbus_err *err);

/* A correct line to begin at, as late as there is one at or before byte `from` or just behind it; *start where there is
 * none. Not within a batch. */
CHECKED enum evbus_code extent_start(int fd, const char *name, uint64_t from, uint64_t size, const struct cell *start,
				     struct cell *at, struct evbus_err *err);

/* Whether any line that begins at the damaged one, *at, or behind it is correct in itself; or would be if its line break
 * were as it was written. */
CHECKED enum evbus_code extent_good_behind(int fd, const char *name, const struct cell *at, uint64_t size, bool *good,
					   struct evbus_err *err);

#endif

/* scan.h: the lines of a file, one after the other, in bounded memory. */
#ifndef EVBUS_LOG_SCAN_H
#define EVBUS_LOG_SCAN_H

#include "base/buf.h"

struct ahead;

struct scan {
	int fd;
	const char *name;        /* for messages; the caller's */
	uint64_t at;             /* byte where the next line begins */
	uint64_t limit;          /* nothing is read beyond */
	char *data;              /* the bytes of the file from data_at on: in buf, or where a thread has read them */
	size_t len;
	uint64_t data_at;
	struct buf buf;
	size_t chunk;            /* how much is read at once */
	size_t step;             /* and the next time: less at first */
	bool reads_ahead;        /* whether a thread may do it, where much is left; set after scan_init */
	struct ahead *ahead;     /* NULL: none does */
	uint64_t nothing_at;     /* where the last one found that the file ends */
};

enum scan_what {
	SCAN_LINE,               /* text is a line without its newline */
	SCAN_PARTIAL,            /* text is what stands at the limit without a newline */
	SCAN_LONG,               /* text is the beginning of a line of LINE_MAX_BYTES or more: not one of ours */
	SCAN_END,
};

void scan_init(struct scan *scan, int fd, const char *name, uint64_t at, uint64_t limit, size_t chunk);
/* Before the file is closed. */
void scan_release(struct scan *scan);

/* Goes to another place, keeping what of the buffer is of use. */
void scan_seek(struct scan *scan, uint64_t at, uint64_t limit);
/* The same, with what somebody else has read from there on into scan->buf. */
void scan_adopt(struct scan *scan, uint64_t at);

/* text lives until the next call. scan->at is then behind the line; after SCAN_LONG behind text, before any newline. */
CHECKED enum evbus_code scan_next(struct scan *scan, struct evbus_slice *text, enum scan_what *what,
				  struct evbus_err *err);

/* Moves behind the next newline at or after scan->at, or to the limit. */
CHECKED enum evbus_code scan_resync(struct scan *scan, struct evbus_err *err);

#endif

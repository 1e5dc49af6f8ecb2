/* cursor.h: reading a partition from a position on, up to what is durable. Writes nothing, takes no lock. */
#ifndef EVBUS_LOG_CURSOR_H
#define EVBUS_LOG_CURSOR_H

#include "log/control.h"
#include "log/line.h"
#include "log/scan.h"
#include "log/segment.h"

struct cursor {
	const struct topic *topic;       /* outlives it */
	struct control control;          /* fd -1: there is no lock file */
	struct cell durable;             /* reading goes up to here */
	uint64_t damaged_at;             /* the byte at which the last line up to there is damaged, if `damaged` */
	uint64_t first;                  /* the oldest offset that is there */

	uint64_t base;                   /* of the segment being read */
	struct scan scan;
	size_t chunk;

	uint64_t next;                   /* offset of the next line */
	int64_t time_us;                 /* of the line before */
	struct clock_minute minute;      /* in which it was */

	int fd;                          /* of the segment being read, or -1 */
	int32_t partition;
	uint32_t word;                   /* of the futex, when durable was last read */
	bool has_page;
	bool damaged;                    /* told also to who begins behind it */
	bool live;
	bool reads_ahead;                /* a thread may do it, where much is left; may be set while no segment is open */
	bool sought;                     /* a seek came to `next`, and nothing was read since */
	char name[NAME_IN_MESSAGE];
};

/* chunk: how many bytes are read at once. At the beginning of the log. A partition that was never written to is empty. */
CHECKED enum evbus_code cursor_open(const struct topic *topic, int32_t partition, size_t chunk, struct cursor *cursor,
				    struct evbus_err *err);
void cursor_close(struct cursor *cursor);

/* To an offset from first to durable.next; EVBUS_NONE where older segments were removed. Where it fails otherwise, the
 * cursor is nowhere until it is moved again. */
CHECKED enum evbus_code cursor_seek(struct cursor *cursor, uint64_t offset, struct evbus_err *err);
/* To the first record published at or after a time. */
CHECKED enum evbus_code cursor_seek_time(struct cursor *cursor, int64_t time_us, struct evbus_err *err);

/* The next record below offset `end` and durable.next. The line lives until the next call. EVBUS_IO: it is damaged. */
CHECKED enum evbus_code cursor_next(struct cursor *cursor, uint64_t end, struct line *line, bool *got,
				    struct evbus_err *err);

/* Looks again at what is durable. EVBUS_CONFLICT: the log was cut, replaced or removed meanwhile. */
CHECKED enum evbus_code cursor_refresh(struct cursor *cursor, struct evbus_err *err);
/* Waits for a commit since the last look, at most timeout_ms; without a page for at most 100 ms. false: a signal came. */
bool cursor_wait(const struct cursor *cursor, int timeout_ms);

/* All that is durable, and what of it is not read yet. */
CHECKED enum evbus_code cursor_bytes_total(const struct cursor *cursor, uint64_t *bytes, struct evbus_err *err);
CHECKED enum evbus_code cursor_bytes_left(const struct cursor *cursor, uint64_t *bytes, struct evbus_err *err);

/* ---- between cursor.c and cursor_seek.c ---- */

/* Opens the segment that begins at offset `base`, at its beginning. */
CHECKED enum evbus_code cursor_open_segment(struct cursor *cursor, uint64_t base, struct evbus_err *err);
void cursor_close_segment(struct cursor *cursor);

#endif

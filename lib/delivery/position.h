/* position.h: POSITION as the command line and selections write it. */
#ifndef EVBUS_DELIVERY_POSITION_H
#define EVBUS_DELIVERY_POSITION_H

#include "backend.h"

enum position_kind {
	POSITION_OFFSET,             /* N */
	POSITION_BEGINNING,
	POSITION_END,
	POSITION_BEFORE_END,         /* -N */
	POSITION_TIME,               /* @TIME */
	POSITION_STORED,             /* the group's checkpoint */
};

struct position {
	enum position_kind kind;
	uint64_t number;             /* of POSITION_BEFORE_END */
	const char *text;            /* of POSITION_OFFSET: the caller's */
	int64_t time_us;
};

/* EVBUS_USAGE names the forms that there are. */
CHECKED enum evbus_code position_parse(const char *text, struct position *position, struct evbus_err *err);

/* The position that it is in a log, which for POSITION_OFFSET may lie outside; not for POSITION_STORED. May move the
 * reader. */
CHECKED enum evbus_code position_resolve(const struct position *position, struct partition_reader *reader,
					 uint64_t *offset, struct evbus_err *err);

/* EVBUS_CONFLICT: a position lies outside of what is there. */
CHECKED enum evbus_code position_check(const struct partition_reader *reader, uint64_t position, struct evbus_err *err);

/* The position of the n-th record before `stop`, or of the first that is there; *count: how many stand from there to
 * stop. What is not our own log is read for it. stop is at most reader->end. Moves the reader. */
CHECKED enum evbus_code position_before(struct partition_reader *reader, uint64_t stop, uint64_t n, uint64_t *offset,
					uint64_t *count, struct evbus_err *err);

/* How many records stand from a position to `stop`. Moves the reader. */
CHECKED enum evbus_code position_count(struct partition_reader *reader, uint64_t start, uint64_t stop, uint64_t *count,
				       struct evbus_err *err);

#endif

/* feed.h: records on their way to a coprocess: lines that are gathered, and written many at a time. */
#ifndef FEED_H
#define FEED_H

#include "cmd.h"

struct feed {
	char *text;                  /* what is not written yet stands from `at` to `len` */
	size_t at, len, size;
	uint64_t written;            /* bytes, of all that were ever added */
};

/* Adds the line of a record, as it is printed in JSON. */
CHECKED enum evbus_code feed_add(struct feed *feed, struct call *call, const struct evbus_record *record);
/* Bytes that were ever added; what was dropped does not count. */
uint64_t feed_end(const struct feed *feed);
/* Writes to fd (non-blocking) what it takes, but nothing from byte `to` on. false: nobody reads it. */
bool feed_write(struct feed *feed, int fd, uint64_t to);
/* What is not written is forgotten. */
void feed_drop(struct feed *feed);
void feed_cleanup(struct feed *feed);

#endif

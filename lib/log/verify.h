/* verify.h: whether a partition is whole: every line's shape and checksum, offsets without a gap, times that never
 * decrease, whole batches, segments that meet; up to what is durable when it starts. */
#ifndef EVBUS_LOG_VERIFY_H
#define EVBUS_LOG_VERIFY_H

#include "log/cursor.h"

struct log_verify {
	const struct topic *topic;
	int32_t partition;
	/* what: as in struct evbus_finding. byte counts over all segments. */
	void (*finding)(struct log_verify *verify, enum evbus_severity severity, const char *what, uint64_t offset,
			uint64_t byte, const char *text);
	/* Each record that is whole; may be NULL. */
	enum evbus_code (*record)(struct log_verify *verify, const struct line *line, uint64_t byte,
				  struct evbus_err *err);
	/* Every few MiB; a failure ends it. */
	enum evbus_code (*progress)(struct log_verify *verify, struct evbus_err *err);

	uint64_t records, bytes;         /* looked at so far */
	bool in_last;                    /* the newest segment is being looked at */
	uint64_t last_byte;              /* where it begins, counted over all */
};

CHECKED enum evbus_code log_verify(struct log_verify *verify, struct evbus_err *err);

#endif

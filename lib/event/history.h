/* history.h: the attempts that were made for an event, as JSON; and why they failed. */
#ifndef EVBUS_EVENT_HISTORY_H
#define EVBUS_EVENT_HISTORY_H

#include "event/json.h"

#define HISTORY_MAX 100u                 /* attempts that are kept: the latest */
#define HISTORY_ERROR_MAX_BYTES 1024u    /* of each but the last, whose error is kept beside it */

/* The end of what a handler said, at most `most` bytes, as valid UTF-8: what is none becomes U+FFFD, and NUL too. */
CHECKED enum evbus_code history_error(struct buf *out, struct evbus_slice error, size_t most, struct evbus_err *err);

/* Appends an attempt to a history: "[]" or "" (none yet), or what this has made. out is another buffer, and is set to
 * [{"attempt":1,"at":"2026-…Z","reason":"retries","error":"…"}, …]. */
CHECKED enum evbus_code history_add(struct buf *out, struct evbus_slice history, int64_t attempt, int64_t at_us,
				    enum evbus_reason reason, struct evbus_slice error, struct evbus_err *err);

/* The attempts of two histories, one after the other; out is another buffer. */
CHECKED enum evbus_code history_join(struct buf *out, struct evbus_slice first, struct evbus_slice second,
				     struct evbus_err *err);

/* What a history says of the first and of the last attempt in it. */
struct history_ends {
	int64_t first_us, last_us;
	enum evbus_reason reason; /* of the last */
	int64_t returns; /* how often the count of attempts began anew */
};

/* false: there is no attempt in it, or it was not made here. */
bool history_read(struct evbus_slice history, struct history_ends *ends);

/* false: there is no reason of that name. */
bool reason_parse(struct evbus_slice name, enum evbus_reason *reason);

#endif

/* checkpoint.h: a position of a group, tied to the log on which it was made. */
#ifndef EVBUS_DELIVERY_CHECKPOINT_H
#define EVBUS_DELIVERY_CHECKPOINT_H

#include "log/cursor.h"

/* The checkpoint of a group at an offset from cursor->first to durable.next; updated now. Moves the cursor. */
CHECKED enum evbus_code checkpoint_make(struct cursor *cursor, const char *group, uint64_t next,
					struct evbus_checkpoint *checkpoint, struct evbus_err *err);

/* Whether the log is the one that it was made on: the same log id, not shorter, and the same record before it.
 * EVBUS_CONFLICT says what was found instead. *next: its offset. Moves the cursor. */
CHECKED enum evbus_code checkpoint_check(struct cursor *cursor, const struct evbus_checkpoint *checkpoint, uint64_t *next,
					 struct evbus_err *err);

#endif

/* checkpoint.h: a position of a group, tied to the log on which it was made. */
#ifndef EVBUS_DELIVERY_CHECKPOINT_H
#define EVBUS_DELIVERY_CHECKPOINT_H

#include "backend.h"

/* The checkpoint of a group at an offset from reader->first to end; updated now. Moves the reader. */
CHECKED enum evbus_code checkpoint_make(struct partition_reader *reader, const char *group, uint64_t next,
					struct evbus_checkpoint *checkpoint, struct evbus_err *err);

/* Whether the log is the one that it was made on: the same log id, not shorter, and the same record before it.
 * EVBUS_CONFLICT says what was found instead. *next: its offset. Moves the reader. */
CHECKED enum evbus_code checkpoint_check(struct partition_reader *reader, const struct evbus_checkpoint *checkpoint,
					 uint64_t *next, struct evbus_err *err);

#endif

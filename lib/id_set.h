/* id_set.h: finding event ids that stand twice, in memory that does not grow with the log. */
#ifndef EVBUS_ID_SET_H
#define EVBUS_ID_SET_H

#include "base/err.h"

/* Where an event id stands. */
struct id_place {
	uint64_t hash;
	uint32_t partition;
	uint64_t offset, byte;
};

/* Places whose ids have hashes in the range of one pass. When it is full, what was found is told, and the range is
 * halved: further passes over the log take the rest. */
struct id_set {
	struct id_place *places;
	size_t count, size;
	unsigned shift;                  /* 2^shift passes */
	uint64_t pass;
	/* Two places whose ids have the same hash; whether they are the same says the log. */
	enum evbus_code (*twice)(struct id_set *set, const struct id_place *first, const struct id_place *again,
				 struct evbus_err *err);
};

CHECKED enum evbus_code id_set_init(struct id_set *set, size_t size, struct evbus_err *err);
void id_set_release(struct id_set *set);
CHECKED enum evbus_code id_set_add(struct id_set *set, const struct id_place *place, struct evbus_err *err);
/* Tells what stands twice and empties the set. *again: another pass over the log is needed. */
CHECKED enum evbus_code id_set_finish(struct id_set *set, bool *again, struct evbus_err *err);

#endif

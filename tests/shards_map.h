/* shards_map.h: which partition has which keys.
 *
 * Each key has a place on a circle, for ever: in the arc of the partition that murmur2 chose among the first ones, and
 * there by a second hash. A partition that is open has an arc; one that is split gives its halves to two new ones. */
#ifndef EVBUS_TESTS_SHARDS_MAP_H
#define EVBUS_TESTS_SHARDS_MAP_H

#include "backend.h"
#include "shards.h"

#include <pthread.h>

/* Held by whoever changes the map, or appends by it. */
extern pthread_mutex_t shards_mutex;

/* How many there were at first. */
extern unsigned shards_first;
void shards_begin(unsigned count);

uint64_t shards_place(struct evbus_slice key, int32_t first);
/* Which one is open there. */
int32_t shards_at(uint64_t place);

bool shards_is_closed(int32_t number);
/* How many are there. */
uint32_t shards_list(struct backend_partition list[SHARDS_MAX]);

#endif

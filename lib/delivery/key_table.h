/* key_table.h: places by the hash of what is looked for, in memory: 24 bytes each, without the keys themselves. Two keys
 * may have the same hash; which one stands at a place says the log. */
#ifndef EVBUS_DELIVERY_KEY_TABLE_H
#define EVBUS_DELIVERY_KEY_TABLE_H

#include "base/err.h"

struct key_slot {
	uint64_t hash;                   /* 0: free */
	uint64_t offset;
	uint32_t partition;
};

struct key_table {
	struct key_slot *slots;
	size_t count, size;              /* size: a power of two, or 0 */
};

void key_table_release(struct key_table *table);
void key_table_clear(struct key_table *table);
CHECKED enum evbus_code key_table_add(struct key_table *table, uint64_t hash, uint32_t partition, uint64_t offset,
				      struct evbus_err *err);
/* The next slot with this hash, in the order in which they were added, or NULL. *at: 0 to begin with. */
const struct key_slot *key_table_next(const struct key_table *table, uint64_t hash, size_t *at);

/* Never 0. tenant and key as they stand in the log between the quotes. */
uint64_t key_hash(struct evbus_slice tenant_id, struct evbus_slice event_key);

#endif

/* key_table.c: open addressing, at most half full. */
#include "delivery/key_table.h"

#include "base/hash.h"
#include "base/os.h"

#include <errno.h>
#include <string.h>

#define SIZE_MIN 64u

void key_table_release(struct key_table *table)
{
	free(table->slots);
	*table = (struct key_table){ 0 };
}

void key_table_clear(struct key_table *table)
{
	if (table->count)
		memset(table->slots, 0, table->size * sizeof *table->slots);
	table->count = 0;
}

static void put(struct key_slot *slots, size_t size, struct key_slot slot)
{
	size_t at = slot.hash & (size - 1);

	while (slots[at].hash)
		at = (at + 1) & (size - 1);
	slots[at] = slot;
}

/* Slots of the same hash keep their order: they are moved from the first of a run on. */
static enum evbus_code grow(struct key_table *table, struct evbus_err *err)
{
	size_t size = table->size ? table->size * 2 : SIZE_MIN, start = 0;
	struct key_slot *slots = os.realloc(NULL, size * sizeof(*slots));

	if (!slots)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot keep %zu event keys in mind", table->count);
	memset(slots, 0, size * sizeof *slots);
	while (start < table->size && table->slots[start].hash)
		start++;
	for (size_t i = 0; i < table->size; i++) {
		const struct key_slot *slot = &table->slots[(start + i) & (table->size - 1)];
		if (slot->hash)
			put(slots, size, *slot);
	}
	free(table->slots);
	table->slots = slots;
	table->size = size;
	return EVBUS_OK;
}

enum evbus_code key_table_add(struct key_table *table, uint64_t hash, uint32_t partition, uint64_t offset,
			      struct evbus_err *err)
{
	if (table->count * 2 >= table->size)
		TRY(grow(table, err));
	put(table->slots, table->size, (struct key_slot){ hash, offset, partition });
	table->count++;
	return EVBUS_OK;
}

const struct key_slot *key_table_next(const struct key_table *table, uint64_t hash, size_t *at)
{
	for (; table->count && *at < table->size; ++*at) {
		const struct key_slot *slot = &table->slots[(hash + *at) & (table->size - 1)];
		if (!slot->hash)
			return NULL;
		if (slot->hash == hash) {
			++*at;
			return slot;
		}
	}
	return NULL;
}

uint64_t key_hash(struct evbus_slice tenant_id, struct evbus_slice event_key)
{
	uint64_t hash = hash_add(HASH_START, tenant_id.data, tenant_id.len);

	/* A byte that is in neither. */
	hash = hash_add(hash, "\n", 1);
	hash = hash_finish(hash_add(hash, event_key.data, event_key.len));
	return hash ? hash : 1;
}

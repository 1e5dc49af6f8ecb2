/* shards_map.c: splitting and merging. */
#include "shards_map.h"

#include <assert.h>
#include <stdlib.h>

struct shard {
	uint64_t low, high; /* of its arc */
	int32_t parents[BACKEND_PARENTS];
	bool closed, gone;
};

static struct shard shards[SHARDS_MAX];
static int32_t shard_count;
unsigned shards_first;
pthread_mutex_t shards_mutex = PTHREAD_MUTEX_INITIALIZER;

static int32_t open_shard(uint64_t low, uint64_t high, int32_t parent, int32_t other)
{
	assert(shard_count < SHARDS_MAX);
	shards[shard_count] = (struct shard){ .low = low, .high = high, .parents = { parent, other } };
	return shard_count++;
}

int32_t shards_split(int32_t number)
{
	pthread_mutex_lock(&shards_mutex);
	struct shard *shard = &shards[number];
	uint64_t middle = shard->low + (shard->high - shard->low) / 2;
	shard->closed = true;
	int32_t first = open_shard(shard->low, middle, number, -1);
	(void)open_shard(middle, shard->high, number, -1);
	pthread_mutex_unlock(&shards_mutex);
	return first;
}

int32_t shards_add(int32_t number)
{
	pthread_mutex_lock(&shards_mutex);
	const struct shard *shard = &shards[number];
	int32_t added = open_shard(shard->low + (shard->high - shard->low) / 2, shard->high, -1, -1);
	pthread_mutex_unlock(&shards_mutex);
	return added;
}

int32_t shards_merge(int32_t a, int32_t b)
{
	pthread_mutex_lock(&shards_mutex);
	assert(!shards[a].closed && !shards[b].closed && a != b);
	uint64_t low = shards[a].low < shards[b].low ? shards[a].low : shards[b].low;
	uint64_t high = shards[a].high > shards[b].high ? shards[a].high : shards[b].high;
	assert(high - low == shards[a].high - shards[a].low + shards[b].high - shards[b].low);
	shards[a].closed = shards[b].closed = true;
	int32_t merged = open_shard(low, high, a, b);
	pthread_mutex_unlock(&shards_mutex);
	return merged;
}

int32_t shards_open_one(unsigned any)
{
	int32_t number = (int32_t)(any % (unsigned)shard_count);

	while (shards[number].closed)
		number = (number + 1) % shard_count;
	return number;
}

int32_t shards_neighbour(int32_t number)
{
	for (int32_t i = 0; i < shard_count; i++)
		if (!shards[i].closed && (shards[i].low == shards[number].high || shards[i].high == shards[number].low))
			return i;
	return -1;
}

void shards_forget(int32_t number)
{
	pthread_mutex_lock(&shards_mutex);
	assert(shards[number].closed);
	shards[number].gone = true;
	pthread_mutex_unlock(&shards_mutex);
}

int32_t shards_at(uint64_t place)
{
	/* What was added stands before those that it took keys from. */
	for (int32_t i = shard_count - 1; i >= 0; i--)
		if (!shards[i].closed && shards[i].low <= place && place < shards[i].high)
			return i;
	abort();
}

/* A second hash, so that keys of one partition are spread over its arc. */
uint64_t shards_place(struct evbus_slice key, int32_t first)
{
	uint64_t hash = 14695981039346656037u;

	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (unsigned char)key.data[i]) * 1099511628211u;
	return shards[first].low + hash % (shards[first].high - shards[first].low);
}

bool shards_is_closed(int32_t number)
{
	pthread_mutex_lock(&shards_mutex);
	bool closed = shards[number].closed;
	pthread_mutex_unlock(&shards_mutex);
	return closed;
}

uint32_t shards_list(struct backend_partition list[SHARDS_MAX])
{
	uint32_t count = 0;

	pthread_mutex_lock(&shards_mutex);
	for (int32_t i = 0; i < shard_count; i++)
		if (!shards[i].gone)
			list[count++] = (struct backend_partition){ i, { shards[i].parents[0], shards[i].parents[1] } };
	pthread_mutex_unlock(&shards_mutex);
	return count;
}

void shards_begin(unsigned count)
{
	uint64_t arc = UINT64_MAX / count;

	shards_first = count;
	for (unsigned i = 0; i < count; i++)
		(void)open_shard(i * arc, (i + 1) * arc, -1, -1);
}

/* partition.c: MurmurHash2 (Austin Appleby, public domain) with Kafka's seed. */
#include "event/partition.h"

#define SEED 0x9747b28cu
#define MULTIPLIER 0x5bd1e995u
#define SHIFT 24

static uint32_t load_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t murmur2(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t hash = SEED ^ (uint32_t)len;

	for (; len >= 4; p += 4, len -= 4) {
		uint32_t word = load_le32(p) * MULTIPLIER;
		word ^= word >> SHIFT;
		hash = (hash * MULTIPLIER) ^ (word * MULTIPLIER);
	}
	if (len) {
		for (size_t i = 0; i < len; i++)
			hash ^= (uint32_t)p[i] << 8 * i;
		hash *= MULTIPLIER;
	}
	hash ^= hash >> 13;
	hash *= MULTIPLIER;
	return hash ^ hash >> 15;
}

int32_t partition_of_key(const void *key, size_t len, uint32_t partitions)
{
	/* toPositive masks the sign bit: abs() would have no answer for the smallest number. */
	return (int32_t)((murmur2(key, len) & 0x7fffffff) % partitions);
}

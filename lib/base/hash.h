/* hash.h: FNV-1a, 64 bits, finished as splitmix64 does, so that every bit counts. */
#ifndef EVBUS_BASE_HASH_H
#define EVBUS_BASE_HASH_H

#include "base/err.h"

#define HASH_START 0xcbf29ce484222325u

/* Goes on with a hash that was not finished. */
static inline uint64_t hash_add(uint64_t hash, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3;
	return hash;
}

static inline uint64_t hash_finish(uint64_t hash)
{
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111eb;
	return hash ^ hash >> 31;
}

#endif

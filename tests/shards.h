/* shards.h: a bus in memory whose partitions are split, merged and forgotten, as those of Kinesis are, for tests. Offsets
 * have a hundred digits, and who publishes is told which partition took it. */
#ifndef EVBUS_TESTS_SHARDS_H
#define EVBUS_TESTS_SHARDS_H

#include "evbus.h"

#define SHARDS_MAX 64

/* In partitions with odd numbers records say that they were published so much earlier. */
extern int64_t shards_late_us;

/* Of the texts of offsets that are made or looked up, so many-th from now on cannot be; 0: each can. */
extern unsigned shards_text_fails;

/* To be called once, as gaps_wrap(). All topics have the same partitions, at first so many. */
void shards_wrap(struct evbus *bus, const char *modules, unsigned count);

/* Closes partitions; the number of the first of those that go on with their keys. Two can be merged that are next to each
 * other. */
int32_t shards_split(int32_t number);
int32_t shards_merge(int32_t a, int32_t b);

/* One more, as Kafka has it: half of the keys of another go to it from now on, and nobody is its parent. */
int32_t shards_add(int32_t number);

/* An open one, by any number; and one that it can be merged with, or -1. */
int32_t shards_open_one(unsigned any);
int32_t shards_neighbour(int32_t number);

/* A closed one is no longer there. */
void shards_forget(int32_t number);

#endif

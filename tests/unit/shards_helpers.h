/* What the tests over partitions that come and go have in common: a bus of them with the topic t. */
#ifndef EVBUS_TESTS_SHARDS_HELPERS_H
#define EVBUS_TESTS_SHARDS_HELPERS_H

#define STATE "state.db"
#include "consumer_helpers.h"
#include "shards.h"

#define FIRST_COUNT 3
#define KEYS 17

static unsigned seed = 11;

static inline void enter_shards(void)
{
	const struct evbus_options options = { .store = stored_url("sqlite:" STATE), .notice = take_notice };

	real_os = os;
	scratch_find_modules(modules);
	snprintf(scratch, sizeof scratch, "%s/evbus-unit-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	cr_assert(mkdtemp(scratch) && !chdir(scratch));
	OK(evbus_open("memory:shards", &options, &bus, &err));
	shards_wrap(bus, modules, FIRST_COUNT);
	make_topic("t", 0);
}

static inline void publish_keys(int first, int count)
{
	publish_many("t", EVBUS_PARTITION_ANY, first, count, KEYS);
}

static inline void split_or_merge(void)
{
	int32_t one = shards_open_one((unsigned)rand_r(&seed)), other = shards_neighbour(one);

	if (other >= 0 && rand_r(&seed) % 2)
		(void)shards_merge(one, other);
	else
		(void)shards_split(one);
}

static inline int number_in(const struct evbus_record *record)
{
	const struct evbus_delivery delivery = { .record = record };

	return number_of(&delivery);
}

/* Of one partition. */
#define ONLY(number, ...)                                                                                              \
	consumer_with(options_with((struct evbus_consumer_options){ .partition_id = (number), __VA_ARGS__ }))

#endif

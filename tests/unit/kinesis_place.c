/* kinesis_topic.c: where keys stand, and which shard has them. */
#include "backend/kinesis.h"
#include "event/partition.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define ALL (~(hash_key)0)

static struct evbus_err err;
static struct backend_partition list[4];

static struct evbus_slice key_of(unsigned n, char room[16])
{
	return (struct evbus_slice){ room, (size_t)snprintf(room, 16, "k%u", n) };
}

static hash_key parsed(const char *digits)
{
	hash_key value;

	cr_assert(hash_key_parse((struct evbus_slice){ digits, strlen(digits) }, &value), "%s", digits);
	return value;
}

static void expect_digits(hash_key value, const char *digits)
{
	char text[40];

	hash_key_format(value, text);
	cr_expect_str_eq(text, digits);
	cr_expect(parsed(digits) == value);
}

Test(kinesis_place, of_a_key_is_a_number_of_128_bits)
{
	hash_key value;

	expect_digits(0, "0");
	expect_digits(10, "10");
	expect_digits(ALL, "340282366920938463463374607431768211455");
	expect_digits((hash_key)1 << 127, "170141183460469231731687303715884105728");
	cr_expect_not(hash_key_parse(SLICE("340282366920938463463374607431768211456"), &value));
	cr_expect_not(hash_key_parse(SLICE("3402823669209384634633746074317682114550"), &value));
	cr_expect_not(hash_key_parse(SLICE(""), &value));
	cr_expect_not(hash_key_parse(SLICE("1-"), &value));
}

/* Wherever a service ends the shards of a new stream, off by less than there are of them, a key is in that one which is its
 * partition on every other bus. */
Test(kinesis_place, of_a_key_is_within_the_shard_of_its_partition_and_not_at_its_border)
{
	char room[16];

	for (uint32_t initial = 1; initial <= 256; initial = initial * 2 + 1) {
		hash_key width = ALL / initial;
		for (unsigned n = 0; n < 500; n++) {
			hash_key place = kinesis_place(key_of(n, room), initial), shard = place / width;
			cr_assert_lt((uint64_t)shard, initial);
			cr_assert(place - shard * width >= initial && (shard + 1) * width - place > initial, "%u of %u",
				  n, initial);
			cr_assert_eq((int32_t)shard, partition_of_key(room, strlen(room), initial));
		}
	}
}

Test(kinesis_place, of_a_key_stays_and_another_shard_that_was_asked_for_has_one_of_its_own)
{
	struct shard half = { .first = ALL / 2 + 1, .last = ALL }, one = { .first = 7, .last = 7 };
	char room[16];

	for (unsigned n = 0; n < 500; n++) {
		struct evbus_slice key = key_of(n, room);
		hash_key own = kinesis_place(key, 2), place = kinesis_place_in(&half, key, 2);
		if (own >= half.first)
			cr_assert(place == own);
		cr_assert(half.first <= place && place <= half.last);
		cr_assert(kinesis_place_in(&half, key, 2) == place);
		cr_assert(kinesis_place_in(&one, key, 2) == 7);
	}
	/* The borders belong to it. */
	struct evbus_slice key = key_of(1, room);
	hash_key own = kinesis_place(key, 1);
	cr_expect(kinesis_place_in(&(struct shard){ .first = own, .last = ALL }, key, 1) == own);
	cr_expect(kinesis_place_in(&(struct shard){ .first = 0, .last = own }, key, 1) == own);
	cr_expect(kinesis_place_in(&(struct shard){ .first = own + 1, .last = ALL }, key, 1) > own);
	cr_expect(kinesis_place_in(&half, (struct evbus_slice){ NULL, 0 }, 2) == half.first);
}

/* A topic of such shards, that began with one. */
static int32_t partition_in(struct shard *shards, uint32_t count, struct evbus_slice key)
{
	struct kinesis_topic topic = { .base = { .name = "t", .list = list, .partitions = count },
				       .stream = "t",
				       .mutex = PTHREAD_MUTEX_INITIALIZER,
				       .shards = shards,
				       .initial = 1 };
	int32_t partition = -1;

	enum evbus_code code = kinesis_partition_of(&topic.base, key, &partition, &err);
	return code == EVBUS_OK ? partition : -(int32_t)code;
}

Test(kinesis_place, is_in_the_open_shard_whose_range_has_it)
{
	char room[16];
	struct evbus_slice key = key_of(1, room), none = { NULL, 0 };
	hash_key place = kinesis_place(key, 1);
	struct shard shards[] = { { .number = 0, .last = ALL, .closed = true },
				  { .number = 1, .last = place },
				  { .number = 2, .first = place + 1, .last = ALL } };

	cr_expect_eq(partition_in(shards, 3, key), 1);
	shards[1].last--;
	shards[2].first--;
	cr_expect_eq(partition_in(shards, 3, key), 2);
	cr_expect_eq(partition_in(shards, 3, none), -EVBUS_USAGE, "it takes a key to choose");
	cr_expect_eq(partition_in(&shards[2], 1, none), -EVBUS_UNAVAILABLE,
		     "the only one that is open has not all of it");
	shards[2].first = 0;
	cr_expect_eq(partition_in(&shards[2], 1, none), 2);
	shards[2].closed = true;
	cr_expect_eq(partition_in(&shards[2], 1, key), -EVBUS_UNAVAILABLE);
}

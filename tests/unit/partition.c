/* partition.c: the hash is Kafka's, byte for byte. */
#include "event/partition.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static int32_t hash_of(const char *key)
{
	return (int32_t)murmur2(key, strlen(key));
}

/* org.apache.kafka.common.utils.UtilsTest, testMurmur2. */
Test(partition, hashes_as_kafka_does)
{
	cr_expect_eq(hash_of("21"), -973932308);
	cr_expect_eq(hash_of("foobar"), -790332482);
	cr_expect_eq(hash_of("a-little-bit-long-string"), -985981536);
	cr_expect_eq(hash_of("a-little-bit-longer-string"), -1486304829);
	cr_expect_eq(hash_of("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58897971);
	cr_expect_eq(hash_of("abc"), 479470107);
}

/* librdkafka, rdmurmur2.c, unittest_murmur2. */
Test(partition, hashes_as_librdkafka_does)
{
	cr_expect_eq(murmur2("kafka", 5), 0xd067cf64);
	cr_expect_eq(murmur2("giberish123456789", 17), 0x8f552b0c);
	cr_expect_eq(murmur2("1234", 4), 0x9fc97b14);
	cr_expect_eq(murmur2("234", 3), 0xe7c009ca);
	cr_expect_eq(murmur2("34", 2), 0x873930da);
	cr_expect_eq(murmur2("4", 1), 0x5a4b5ca1);
	cr_expect_eq(murmur2("", 0), 0x106e08d9);
	cr_expect_eq(murmur2(NULL, 0), 0x106e08d9);
}

Test(partition, does_not_look_beyond_the_key)
{
	const char *text = "merchant_17 and more";

	for (size_t len = 0; len < strlen(text); len++) {
		char copy[32];
		memcpy(copy, text, len);
		memset(copy + len, 0xaa, sizeof copy - len);
		cr_expect_eq(murmur2(text, len), murmur2(copy, len), "%zu bytes", len);
	}
}

Test(partition, gives_the_same_hash_wherever_the_key_lies)
{
	char bytes[64];
	const char *key = "a-little-bit-longer-string";

	for (size_t at = 0; at < 8; at++) {
		memcpy(bytes + at, key, strlen(key));
		cr_expect_eq((int32_t)murmur2(bytes + at, strlen(key)), -1486304829);
	}
}

Test(partition, masks_the_sign_instead_of_taking_the_absolute_value)
{
	cr_expect_eq(partition_of_key("21", 2, 10), (int32_t)((uint32_t)-973932308 & 0x7fffffff) % 10);
	cr_expect_eq(partition_of_key("abc", 3, 10), 479470107 % 10);
}

Test(partition, stays_below_the_count_and_reaches_every_partition)
{
	for (uint32_t partitions = 1; partitions <= 16; partitions++) {
		unsigned hits[16] = { 0 };
		for (unsigned i = 0; i < 2000; i++) {
			char key[16];
			int len = snprintf(key, sizeof key, "m_%u", i);
			int32_t partition = partition_of_key(key, (size_t)len, partitions);
			cr_assert(partition >= 0 && (uint32_t)partition < partitions);
			hits[partition]++;
		}
		for (uint32_t i = 0; i < partitions; i++)
			cr_expect_gt(hits[i], 2000 / partitions / 2);
	}
}

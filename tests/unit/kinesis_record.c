/* kinesis_record.c: an event as a record of Kinesis, and back. */
#include "backend/kinesis.h"

#include <criterion/criterion.h>

#define TIME_US 1769688000123456
#define TIME "2026-01-29T12:00:00.123456Z"
#define ARRIVED_US 1769688009000000

static struct evbus_err err;
static struct buf data, room;

static void teardown(void)
{
	buf_release(&data);
	buf_release(&room);
}

TestSuite(kinesis_record, .fini = teardown);

static struct evbus_slice slice(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

static void expect_slice(struct evbus_slice slice, const char *text)
{
	if (!text)
		cr_expect_null(slice.data);
	else
		cr_expect(slice.data && slice.len == strlen(text) && !memcmp(slice.data, text, slice.len),
			  "'%.*s', not '%s'", (int)slice.len, slice.data ? slice.data : "", text);
}

static void make(const struct message *message)
{
	data.len = 0;
	cr_assert_eq(record_make(message, &data, &err), EVBUS_OK, "%s", err.text);
}

static struct message read(const char *key)
{
	struct message message;

	cr_assert_eq(
		record_read((struct evbus_slice){ data.data, data.len }, slice(key), ARRIVED_US, &room, &message, &err),
		EVBUS_OK);
	return message;
}

static struct message read_text(const char *text)
{
	data.len = 0;
	cr_assert_eq(buf_add(&data, text, strlen(text) + 1, &err), EVBUS_OK);
	data.len--;
	return read("k");
}

/* What is written comes back byte for byte. */
static void expect_back(const char *payload)
{
	struct message message = { .key = SLICE("k"), .payload = slice(payload), .time_us = TIME_US };

	make(&message);
	struct message back = read("k");
	expect_slice(back.payload, payload);
	cr_expect_eq(back.time_us, TIME_US, "%s", payload);
}

Test(kinesis_record, is_the_event_with_one_member_more)
{
	make(&(struct message){ .key = SLICE("k"), .payload = SLICE("{\"id\":\"1\"}"), .time_us = TIME_US });
	expect_slice((struct evbus_slice){ data.data, data.len },
		     "{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}");
	make(&(struct message){ .payload = SLICE("{}"), .time_us = TIME_US });
	expect_slice((struct evbus_slice){ data.data, 36 }, "{\"_evbus\":{\"published_at_utc\":\"2026-");
}

Test(kinesis_record, gives_the_payload_back_byte_for_byte)
{
	expect_back("{}");
	expect_back("{ \t}");
	expect_back("{\"id\":\"1\"}");
	expect_back("{ \"a\" : { \"b\" : [ { } , {\"c\":{\"d\":{}}} ] } , \"e\" : null }");
	expect_back("{\"a\":1,\"a\":2,\"a\":{\"a\":\"}}\"}}");
	expect_back("{\"\\u00e4\":\"\\\\\\\"}}\",\"\xc3\xa4\":1.50e+03}");
	expect_back("{\"_evbus\":{\"crc32c\":\"00000000\"}}");
	expect_back("{\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}");
	expect_back("{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}");
	expect_back("{\"a\":\"\\\"_evbus\\\":{\\\"published_at_utc\\\":\\\"\"}");
}

Test(kinesis_record, of_what_is_no_object_has_its_bytes)
{
	static const char bytes[] = { 0, 1, (char)0xff, '"', '\n' };

	expect_back("");
	expect_back("[1,2]");
	expect_back("text");
	expect_back("{\"a\":1");
	expect_back("{\"a\":1} {}");
	make(&(struct message){ .key = SLICE("k"), .payload = { bytes, sizeof bytes }, .time_us = TIME_US });
	struct message back = read("k");
	cr_expect(back.payload.len == sizeof bytes && !memcmp(back.payload.data, bytes, sizeof bytes));
}

Test(kinesis_record, has_what_is_known_of_the_event)
{
	make(&(struct message){ .key = SLICE("k"),
				.tenant_id = SLICE("a\"b"),
				.event_key = SLICE("e\\1"),
				.origin = SLICE("t/0/7"),
				.returns = 3,
				.payload = SLICE("{\"tenant_id\":\"other\"}"),
				.time_us = TIME_US });
	struct message back = read("k");
	expect_slice(back.key, "k");
	expect_slice(back.tenant_id, "a\"b");
	expect_slice(back.event_key, "e\\1");
	expect_slice(back.origin, "t/0/7");
	cr_expect_eq(back.returns, 3);
	expect_slice(back.payload, "{\"tenant_id\":\"other\"}");
}

/* Of the partition key, 1 to 256 characters long, the service keeps no other. */
Test(kinesis_record, has_a_key_that_the_service_does_not_take)
{
	char longest[2 * KINESIS_KEY_MAX + 1] = "", longer[2 * KINESIS_KEY_MAX + 2] = "", key_room[8];

	for (size_t i = 0; i < KINESIS_KEY_MAX; i++)
		memcpy(longest + 2 * i, "\xc3\xa4", 2);
	snprintf(longer, sizeof longer, "%sx", longest);
	const struct {
		const char *key;
		bool itself;
	} keys[] = { { longest, true }, { longer, false }, { "", false }, { NULL, false } };
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		struct message message = { .key = slice(keys[i].key), .payload = SLICE("{}"), .time_us = TIME_US };
		make(&message);
		struct evbus_slice key = record_key(&message, key_room);
		cr_expect_eq(key.data == message.key.data, keys[i].itself);
		cr_expect(key.len > 0 && key.len <= 2 * KINESIS_KEY_MAX);
		char text[sizeof longer];
		snprintf(text, sizeof text, "%.*s", (int)key.len, key.data);
		expect_slice(read(text).key, keys[i].key);
	}
}

Test(kinesis_record, of_somebody_else_is_all_his)
{
	static const char *const texts[] = {
		"",
		"text",
		"{}",
		"{\"a\":1}",
		"}}",
		"{\"_evbus\":{}}",
		"{\"_evbus\":{\"published_at_utc\":\"\"}}",
		/* It has another sum; what else is changed has none that fits either. */
		"{\"id\":\"2\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}",
		"{\"id\":\"1\" ,\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}",
		"{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d7\"}}",
		"{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":1}}",
		"{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"x\":\"1f8d6d78\"}}",
		"{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME
		"\",\"payload_base64\":\"!\",\"crc32c\":\"1f8d6d78\"}}",
		"{\"id\":\"1\",\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}} ",
		"{\"a\":{\"_evbus\":{\"published_at_utc\":\"" TIME "\",\"crc32c\":\"1f8d6d78\"}}",
	};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct message message = read_text(texts[i]);
		expect_slice(message.payload, texts[i]);
		expect_slice(message.key, "k");
		expect_slice(message.event_key, NULL);
		cr_expect_eq(message.time_us, ARRIVED_US, "%s", texts[i]);
	}
}

/* message.c: what others have sent becomes a line, and what is a line becomes a message, byte for byte. */
#include "backend/message.h"
#include "base/os.h"
#include "event/json.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TIME_US 1769688000123456 /* 2026-01-29T12:00:00.123456Z */
#define LARGE_BYTES (3u * 1024 * 1024)

static struct evbus_err err;

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)

TestSuite(message, .timeout = 60);

static bool same(struct evbus_slice a, struct evbus_slice b)
{
	return !a.data == !b.data && a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

static void assert_is(struct evbus_slice slice, const char *text)
{
	cr_assert(slice.data && slice.len == strlen(text) && !memcmp(slice.data, text, slice.len), "'%.*s' is not '%s'",
		  (int)slice.len, slice.data ? slice.data : "", text);
}

static struct evbus_slice bytes(const void *data, size_t len)
{
	return (struct evbus_slice){ data, len };
}

/* The payload of a line that is told in base64. */
static struct evbus_slice decoded(const struct line *line, char *room, size_t size)
{
	cr_assert(!line->payload.data && line->payload_base64.data);
	cr_assert(line->payload_base64.len / 4 * 3 <= size);
	return bytes(room, evbus_base64_decode(line->payload_base64, room));
}

/* A line of these members is whole JSON, and reads back as what it was made of. */
static void assert_is_a_line(const struct line *line)
{
	struct json_fault fault;
	struct line again;

	cr_assert(json_scan_record(line->text, NULL, 0, &fault), "%s at %zu", fault.reason, fault.at);
	cr_assert(!memchr(line->text.data, '\n', line->text.len));
	cr_assert_null(line_parse(line->text, &again));
	cr_assert(again.offset == line->offset && again.time_us == line->time_us);
}

/* group -> message -> line is what the group has. */
static void assert_goes_round(const struct line_body *body)
{
	struct buf room = { 0 }, text = { 0 };
	struct group group = { .durable = false };
	struct message message;
	struct line line;

	OK(group_add(&group, body, 42, TIME_US, &err));
	OK(message_of(&group, 0, &room, &message, &err));
	cr_expect(message.offset == 42 && message.time_us == TIME_US && message.returns == body->returns);
	cr_expect(same(message.key, body->key));
	cr_expect(same(message.tenant_id, body->tenant_id) && same(message.event_key, body->event_key) &&
		  same(message.origin, body->origin));
	OK(message_line(&text, &message, &line, &err));
	cr_assert_eq(text.len, group.lines.len);
	cr_assert(!memcmp(text.data, group.lines.data, text.len));
	assert_is_a_line(&line);
	group_release(&group);
	buf_release(&room);
	buf_release(&text);
}

Test(message, of_an_event_becomes_its_line_again)
{
	static const char *const texts[] = { "m_17",
					     "",
					     "null",
					     "a\"b\\c",
					     "\b\f\n\r\t\x01\x1f\x7f",
					     "gr\xc3\xbc\xc3\x9f",
					     "\xf0\x9f\x90\x9f \xe2\x80\xa8",
					     "\\u0041",
					     "{\"payload\":{}}" };
	const size_t count = sizeof texts / sizeof *texts;

	for (size_t i = 0; i < count; i++) {
		struct evbus_slice a = bytes(texts[i], strlen(texts[i])),
				   b = bytes(texts[(i + 1) % count], strlen(texts[(i + 1) % count]));
		assert_goes_round(&(struct line_body){ .key = a, .payload = SLICE("{}") });
		assert_goes_round(
			&(struct line_body){ .tenant_id = a, .event_key = b, .payload = SLICE("{\"a\":1.10}") });
		assert_goes_round(&(struct line_body){ .key = b,
						       .origin = a,
						       .returns = UINT32_MAX,
						       .payload = SLICE("{\"a\":\"\\u00e9\", \"a\":{}}") });
	}
	assert_goes_round(&(struct line_body){ .key = bytes("a\0b", 3), .payload = SLICE("{}") });
	assert_goes_round(&(struct line_body){ .payload = SLICE("{\"payload\":null,\"payload_base64\":\"aGk=\"}") });
}

Test(message, that_is_no_json_object_is_told_in_base64_and_goes_round)
{
	static const struct {
		const char *data;
		size_t len;
		const char *base64;
	} cases[] = {
		{ "", 0, "" },
		{ "f", 1, "Zg==" },
		{ "fo", 2, "Zm8=" },
		{ "foo", 3, "Zm9v" },
		{ "foob", 4, "Zm9vYg==" },
		{ "[1,2]", 5, "WzEsMl0=" },
		{ "1.10", 4, "MS4xMA==" },
		{ "null", 4, "bnVsbA==" },
		{ "\"text\"", 6, "InRleHQi" },
		{ "{\"a\":1", 6, "eyJhIjox" },
		{ "{}{}", 4, "e317fQ==" },
		{ " \n", 2, "IAo=" },
		{ "{\"a\":\"\xff\"}", 9, "eyJhIjoi/yJ9" },
		{ "\0\xfb\xff", 3, "APv/" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct message message = { .key = SLICE("k"), .payload = { cases[i].data, cases[i].len }, .offset = 7 };
		CLEANUP(buf_release) struct buf text = { 0 };
		char room[16];
		struct line line;
		OK(message_line(&text, &message, &line, &err));
		assert_is_a_line(&line);
		assert_is(line.payload_base64, cases[i].base64);
		struct evbus_slice payload = decoded(&line, room, sizeof room);
		cr_expect(payload.len == cases[i].len && !memcmp(payload.data, cases[i].data, payload.len));
		assert_goes_round(&(struct line_body){ .key = SLICE("k"), .payload_base64 = line.payload_base64 });
	}
}

Test(message, without_a_payload_has_an_empty_one)
{
	CLEANUP(buf_release) struct buf text = { 0 };
	struct message message = { .offset = 1 };
	struct line line;

	OK(message_line(&text, &message, &line, &err));
	assert_is(line.payload_base64, "");
	assert_is(line.key, "null");
}

Test(message, that_is_json_on_several_lines_is_one_line)
{
	static const char payload[] = " \r\n{\n\t\"a\" :\r\n 1.10,\n\"b\": \"\\n\" }\n";
	struct message message = { .payload = bytes(payload, sizeof payload - 1), .offset = 9 };
	CLEANUP(buf_release) struct buf text = { 0 };
	struct line line;

	OK(message_line(&text, &message, &line, &err));
	assert_is_a_line(&line);
	assert_is(line.payload, "{ \t\"a\" :\r  1.10, \"b\": \"\\n\" }");
}

Test(message, whose_texts_are_no_utf8_says_so_in_them)
{
	static const char key[] = "a\xff\"\x00"
				  "b\xc3\xbc";
	struct message message = { .key = bytes(key, sizeof key - 1),
				   .tenant_id = SLICE("\xc0\x80"),
				   .event_key = SLICE("\xed\xa0\x80"),
				   .origin = SLICE("ok"),
				   .payload = SLICE("\xff"),
				   .offset = 9 };
	CLEANUP(buf_release) struct buf text = { 0 };
	struct line line;

	OK(message_line(&text, &message, &line, &err));
	assert_is_a_line(&line);
	assert_is(line.key, "\"a\xef\xbf\xbd\\\"\\u0000b\xef\xbf\xbd\xef\xbf\xbd\"");
	assert_is(line.tenant_id, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
	assert_is(line.event_key, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
	assert_is(line.origin, "\"ok\"");
}

Test(message, of_a_time_that_no_line_can_have_gets_the_nearest)
{
	CLEANUP(buf_release) struct buf text = { 0 };
	struct message message = { .payload = SLICE("{}"), .offset = UINT64_MAX - 1, .time_us = -1 };
	struct line line;

	OK(message_line(&text, &message, &line, &err));
	cr_expect(line.time_us == 0 && line.offset == UINT64_MAX - 1);
	message.time_us = INT64_MAX;
	OK(message_line(&text, &message, &line, &err));
	cr_expect_eq(line.time_us, TIME_MAX_US);
}

Test(message, of_three_mebibytes_goes_round)
{
	char *large = malloc(LARGE_BYTES), *base64 = malloc(EVBUS_BASE64_LEN(LARGE_BYTES));

	cr_assert(large && base64);
	memset(large, '\\', LARGE_BYTES);
	memcpy(large, "{\"a\":\"", 6);
	memcpy(large + LARGE_BYTES - 2, "\"}", 2);
	assert_goes_round(&(struct line_body){ .key = SLICE("k"), .payload = bytes(large, LARGE_BYTES) });
	for (size_t i = 0; i < LARGE_BYTES; i++)
		large[i] = (char)(i * i >> 7);
	size_t len = evbus_base64_encode(bytes(large, LARGE_BYTES), base64);
	cr_assert_eq(len, EVBUS_BASE64_LEN(LARGE_BYTES));
	assert_goes_round(&(struct line_body){ .key = SLICE("k"), .payload_base64 = bytes(base64, len) });
	/* In its own place as well. */
	cr_assert_eq(evbus_base64_decode(bytes(base64, len), base64), LARGE_BYTES);
	cr_assert(!memcmp(base64, large, LARGE_BYTES));
	free(base64);
	free(large);
}

static void assert_stamped(const struct group *group, size_t i, const char *offset, int64_t time_us)
{
	struct evbus_record record;
	struct line line;

	group_record(group, i, SLICE("t"), 0, &record);
	assert_is(record.offset, offset);
	cr_assert(!record.batch.data);
	cr_assert_null(line_parse(record.stored, &line));
	cr_assert_eq(line.time_us, time_us);
	cr_assert(same(line.payload, record.payload) && same(line.payload_base64, record.payload_base64));
}

Test(message, each_of_a_group_gets_the_offset_that_the_server_gave_it)
{
	struct group group = { .atomic = true };
	const uint64_t offsets[] = { 7, 12, 7 };
	struct buf room = { 0 };
	struct message message;

	OK(group_add(&group, &(struct line_body){ .payload = SLICE("{\"a\":1}") }, 0, TIME_US, &err));
	OK(group_add(&group, &(struct line_body){ .payload_base64 = SLICE("aGk=") }, 1, TIME_US - 5, &err));
	OK(group_add(&group, &(struct line_body){ .payload = SLICE("{\"a\":3}") }, 2, TIME_US + 5, &err));
	OK(group_stamp_each(&group, offsets, &err));
	assert_stamped(&group, 0, "7", TIME_US);
	assert_stamped(&group, 1, "12", TIME_US - 5);
	assert_stamped(&group, 2, "7", TIME_US + 5);
	OK(message_of(&group, 1, &room, &message, &err));
	assert_is(message.payload, "hi");
	cr_assert_eq(message.offset, 12);
	buf_release(&room);
	group_release(&group);
}

static void *no_memory(void *block, size_t size)
{
	(void)block;
	(void)size;
	return NULL;
}

Test(message, without_memory_is_an_error)
{
	struct message message = { .payload = SLICE("no"), .offset = 1 };
	struct buf text = { 0 }, room = { 0 };
	struct group group = { .atomic = false };
	struct line line;

	OK(group_add(&group, &(struct line_body){ .payload = SLICE("{}") }, 0, TIME_US, &err));
	os.realloc = no_memory;
	cr_expect_eq(message_line(&text, &message, &line, &err), EVBUS_IO);
	cr_expect_eq(message_of(&group, 0, &room, &message, &err), EVBUS_IO);
	const uint64_t offset = 5;
	cr_expect_eq(group_stamp_each(&group, &offset, &err), EVBUS_IO);
	cr_expect_eq(group_entry(&group, 0)->offset, 0);
	os.realloc = realloc;
	group_release(&group);
}

static int allocations;

static void *count_and_have(void *block, size_t size)
{
	allocations++;
	return realloc(block, size);
}

/* offset "": it has no place yet. */
static void assert_placed(const struct group *group, size_t i, const char *offset)
{
	struct evbus_record record;
	char number[32];

	snprintf(number, sizeof number, "%zu", i);
	group_record(group, i, SLICE("t"), 0, &record);
	cr_expect_eq(record.partition_id, *offset ? 3 : 0);
	assert_is(record.offset, *offset ? offset : number);
	assert_is(record.payload, "{\"a\":1}");
}

/* Of any number: what has no place yet stays as it is, and a failure comes before anything was changed. */
Test(message, each_of_a_group_gets_the_place_that_the_server_gave_it_or_none_does)
{
	static struct group_place places[40];
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];

	memset(offset, '9', EVBUS_OFFSET_MAX_BYTES);
	offset[EVBUS_OFFSET_MAX_BYTES] = '\0';
	for (size_t count = 1; count <= 40; count++) {
		struct group group = { .atomic = false };
		for (size_t i = 0; i < count; i++) {
			OK(group_add(&group, &(struct line_body){ .payload = SLICE("{\"a\":1}") }, i, TIME_US, &err));
			places[i].partition = 3;
			snprintf(places[i].offset, sizeof places[i].offset, "%s", i % 3 == 1 ? "" : offset);
		}
		os.realloc = no_memory;
		cr_expect_eq(group_stamp_places(&group, places, &err), EVBUS_IO);
		cr_expect(group_entry(&group, 0)->offset == 0 && group_entry(&group, 0)->partition == -1);
		os.realloc = count_and_have;
		allocations = 0;
		OK(group_stamp_places(&group, places, &err));
		cr_expect_eq(allocations, 1, "of %zu", count);
		os.realloc = realloc;
		for (size_t i = 0; i < count; i++)
			assert_placed(&group, i, places[i].offset);
		group_release(&group);
	}
}

/* The same of offsets that follow each other, with a batch, which make a line as much longer as they can. */
Test(message, each_of_a_group_gets_its_offset_and_the_batch_or_none_does)
{
	for (size_t count = 1; count <= 40; count++) {
		struct group group = { .atomic = true };
		for (size_t i = 0; i < count; i++)
			OK(group_add(&group, &(struct line_body){ .payload = SLICE("{\"a\":1}") }, 0, TIME_US, &err));
		os.realloc = no_memory;
		cr_expect_eq(group_stamp(&group, UINT64_MAX - 100, 0, &err), EVBUS_IO);
		for (size_t i = 0; i < count; i++)
			assert_stamped(&group, i, "0", TIME_US);
		os.realloc = count_and_have;
		allocations = 0;
		OK(group_stamp(&group, UINT64_MAX - 100, 0, &err));
		cr_expect_eq(allocations, 1, "of %zu", count);
		os.realloc = realloc;
		for (size_t i = 0; i < count; i++) {
			char number[32];
			struct evbus_record record;
			struct line line;
			snprintf(number, sizeof number, "%" PRIu64, UINT64_MAX - 100 + i);
			group_record(&group, i, SLICE("t"), 0, &record);
			assert_is(record.offset, number);
			assert_is(record.payload, "{\"a\":1}");
			cr_assert_null(line_parse(record.stored, &line));
			cr_expect(line.batch_first == UINT64_MAX - 100 && line.batch_last == UINT64_MAX - 101 + count);
		}
		group_release(&group);
	}
}

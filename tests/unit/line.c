/* line.c: what a line looks like, byte for byte, and that nothing else passes for one. */
#include "base/crc32c.h"
#include "base/os.h"
#include "log/line.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct evbus_err err;

#define TIME_US 1769688000123456 /* 2026-01-29T12:00:00.123456Z */

static void line_release(struct buf *buf)
{
	buf_release(buf);
}

static struct evbus_slice text_of(const struct buf *line)
{
	cr_assert(line->len && line->data[line->len - 1] == '\n');
	return (struct evbus_slice){ line->data, line->len - 1 };
}

static void assert_is(struct evbus_slice slice, const char *text)
{
	cr_assert(slice.data && slice.len == strlen(text) && !memcmp(slice.data, text, slice.len), "'%.*s' is not '%s'",
		  (int)slice.len, slice.data ? slice.data : "", text);
}

/* A line around these members, with the checksum that they have. */
static struct evbus_slice sealed(char text[1024], const char *members)
{
	int len = snprintf(text, 1024, "{\"crc32c\":\"%08x\",%s", crc32c(0, members, strlen(members)), members);

	return (struct evbus_slice){ text, (size_t)len };
}

static const char *why_not(const char *members)
{
	char text[1024];
	struct line line;

	return line_parse(sealed(text, members), &line);
}

#define HEAD "\"offset\":\"42\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_key\":"

/* ---- writing ---- */

Test(line, is_written_exactly_as_the_format_says)
{
	CLEANUP(line_release) struct buf out = { 0 };
	struct line_body body = { .key = SLICE("m_17"), .payload = SLICE("{\"id\":1.10}") };
	char expected[1024];
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, 42, TIME_US, &split, &err), EVBUS_OK);
	sealed(expected, HEAD "\"m_17\",\"payload\":{\"id\":1.10}}");
	assert_is(text_of(&out), expected);
	cr_assert_eq(LINE_CRC_AT, 11);
	cr_assert(!memcmp(out.data + LINE_MEMBERS_AT, "\"offset\"", 8));
	assert_is((struct evbus_slice){ out.data + split, 11 }, ",\"payload\":");
}

/* Against the polynomial, bit by bit. */
Test(line, has_the_castagnoli_checksum_over_its_members)
{
	static const char members[] = HEAD "null,\"payload\":{}}";

	uint32_t crc = 0xffffffff;
	for (const char *at = members; *at; at++) {
		crc ^= (unsigned char)*at;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	cr_assert_eq(crc ^ 0xffffffff, crc32c(0, members, sizeof members - 1));
}

Test(line, without_a_key_has_null_and_members_in_their_order)
{
	CLEANUP(line_release) struct buf out = { 0 }, again = { 0 };
	struct line_body body = { .origin = SLICE("a.b/3/77"), .returns = 2, .payload = SLICE("{}") };
	char expected[1024];
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, 42, TIME_US, &split, &err), EVBUS_OK);
	sealed(expected, HEAD "null,\"origin\":\"a.b/3/77\",\"returns\":2,\"payload\":{}}");
	assert_is(text_of(&out), expected);
	uint32_t first = split;
	struct evbus_slice old = { out.data, out.len };
	cr_assert_eq(line_readd(&again, old, &split, 42, TIME_US, 42, 43, &err), EVBUS_OK);
	sealed(expected, HEAD "null,\"batch\":\"42-43\",\"origin\":\"a.b/3/77\",\"returns\":2,\"payload\":{}}");
	assert_is(text_of(&again), expected);
	cr_assert_eq(split, first);
}

Test(line, has_tenant_and_event_key_between_partition_key_and_batch)
{
	CLEANUP(line_release) struct buf out = { 0 }, again = { 0 };
	struct line_body body = { .key = SLICE("k"), .origin = SLICE("a/0/1"), .payload = SLICE("{}"),
				  .tenant_id = SLICE("t\"1"), .event_key = SLICE("e") };
	char expected[1024];
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, 42, TIME_US, &split, &err), EVBUS_OK);
	sealed(expected, HEAD "\"k\",\"tenant_id\":\"t\\\"1\",\"event_key\":\"e\",\"origin\":\"a/0/1\",\"payload\":{}}");
	assert_is(text_of(&out), expected);
	cr_assert_eq(line_readd(&again, (struct evbus_slice){ out.data, out.len }, &split, 42, TIME_US, 42, 43, &err),
		     EVBUS_OK);
	sealed(expected, HEAD "\"k\",\"tenant_id\":\"t\\\"1\",\"event_key\":\"e\",\"batch\":\"42-43\","
			      "\"origin\":\"a/0/1\",\"payload\":{}}");
	assert_is(text_of(&again), expected);
}

/* Whatever the key holds, it is read as it was written, and no part of it is taken for anything else. */
static void *no_memory(void *block, size_t size)
{
	(void)block;
	(void)size;
	return NULL;
}

/* Wherever the buffer ends, and cannot grow. */
Test(line, without_memory_is_refused)
{
	static const char text[50];
	struct line_body body = { .key = { text, 50 },
				  .origin = { text, 50 },
				  .returns = 1234567890,
				  .tenant_id = { text, 50 },
				  .event_key = { text, 50 },
				  .payload = SLICE("{}") };
	enum evbus_code code = EVBUS_IO;
	struct os real = os;
	uint32_t split;
	size_t room;

	for (room = 1; code; room++) {
		CLEANUP(line_release) struct buf out = { .data = malloc(room), .size = room };
		cr_assert_not_null(out.data);
		os.realloc = no_memory;
		code = line_add(&out, &body, 42, TIME_US, &split, &err);
		os = real;
		cr_assert(code == EVBUS_OK || (code == EVBUS_IO && err.sys_errno == ENOMEM), "%zu bytes", room);
		cr_assert_leq(out.len, room);
	}
	cr_assert_gt(room, 1200u, "a NUL takes six bytes");
}

Test(line, keeps_keys_with_quotes_escapes_and_controls)
{
	static const char *const keys[] = { "",
					    "\"",
					    "\\",
					    "\\\"",
					    "a\"b\\c",
					    "\n\r\t\b\f",
					    "\x01\x1f",
					    "null",
					    "é漢😀",
					    "\",\"payload\":{}",
					    "\x7f",
					    "/",
					    "{\"crc32c\":\"" };
	CLEANUP(line_release) struct buf out = { 0 };
	char text[64];
	struct line line;
	uint32_t split;

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		out.len = 0;
		struct line_body body = { .key = { keys[i], strlen(keys[i]) }, .payload = SLICE("{\"a\":\"}\"}") };
		cr_assert_eq(line_add(&out, &body, i, TIME_US, &split, &err), EVBUS_OK);
		cr_assert_null(memchr(out.data, '\n', out.len - 1));
		cr_assert_null(line_parse(text_of(&out), &line), "%s", keys[i]);
		cr_assert_eq(evbus_json_text(line.key, text, sizeof text), strlen(keys[i]));
		cr_assert(!memcmp(text, keys[i], strlen(keys[i])));
		assert_is(line.payload, "{\"a\":\"}\"}");
	}
}

/* ---- writing again ---- */

static void assert_readd(const struct line_body *body, uint64_t from, uint64_t to, int64_t time_us, bool batch)
{
	CLEANUP(line_release) struct buf out = { 0 }, again = { 0 }, fresh = { 0 };
	uint32_t split, fresh_split;
	struct line line;

	cr_assert_eq(line_add(&out, body, from, TIME_US, &split, &err), EVBUS_OK);
	cr_assert_eq(line_add(&fresh, body, to, time_us, &fresh_split, &err), EVBUS_OK);
	cr_assert_eq(line_readd(&again, (struct evbus_slice){ out.data, out.len }, &split, to, time_us, batch ? to : 1,
				batch ? to + 9 : 0, &err),
		     EVBUS_OK);
	cr_assert_eq(split, fresh_split);
	cr_assert_null(line_parse(text_of(&again), &line));
	cr_assert(line.offset == to && line.time_us == time_us && (line.batch.data != NULL) == batch);
	if (batch)
		cr_assert(line.batch_first == to && line.batch_last == to + 9);
	else
		cr_assert(again.len == fresh.len && !memcmp(again.data, fresh.data, fresh.len));
}

Test(line, is_written_again_with_any_other_offset_time_and_batch)
{
	static const uint64_t offsets[] = { 0, 9, 10, 99, 100, 12345678901, UINT64_MAX / 2, UINT64_MAX - 10 };
	struct line_body bodies[] = {
		{ .payload = SLICE("{}") },
		{ .key = SLICE("k\"\\"), .payload = SLICE("{\"offset\":\"1\"}") },
		{ .key = SLICE(""), .origin = SLICE("t/0/1"), .returns = UINT32_MAX, .payload = SLICE("{}") },
		{ .tenant_id = SLICE("t"), .event_key = SLICE("\"e"), .payload = SLICE("{}") }
	};

	for (size_t b = 0; b < sizeof bodies / sizeof *bodies; b++)
		for (size_t i = 0; i < 8; i++)
			for (size_t j = 0; j < 8; j++) {
				assert_readd(&bodies[b], offsets[i], offsets[j], TIME_US + 1, false);
				assert_readd(&bodies[b], offsets[i], offsets[j], 0, true);
			}
}

/* ---- reading ---- */

Test(line, with_any_single_byte_changed_is_refused)
{
	CLEANUP(line_release) struct buf out = { 0 };
	struct line_body body = {
		.key = SLICE("k\\"), .origin = SLICE("a/0/1"), .returns = 7, .payload = SLICE("{\"a\":[1,\"x\"]}")
	};
	struct line line;
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, 120, TIME_US, &split, &err), EVBUS_OK);
	for (size_t at = 0; at < out.len - 1; at++) {
		char was = out.data[at];
		for (int other = 0; other < 256; other++) {
			out.data[at] = (char)other;
			cr_assert((line_parse(text_of(&out), &line) == NULL) == ((char)other == was), "byte %zu: %d",
				  at, other);
		}
		out.data[at] = was;
	}
	for (size_t len = 0; len < out.len - 1; len++)
		cr_assert_not_null(line_parse((struct evbus_slice){ out.data, len }, &line), "%zu bytes", len);
	cr_assert_not_null(line_parse((struct evbus_slice){ out.data, out.len }, &line));
}

Test(line, passes_over_members_that_it_does_not_know)
{
	char text[1024];
	struct line line;

	cr_assert_null(line_parse(
		sealed(text,
		       HEAD "\"k\",\"new\":{\"a\":[1,2,{\"payload\":{}}]},\"tenant_id\":\"t1\",\"x\":null,"
			    "\"event_key\":\"e\",\"y\":-1.5e3,\"batch\":\"40-44\",\"origin\":\"o/0/0\",\"z\":\"}\\\"\","
			    "\"returns\":3,\"payload\":{\"p\":1}}"),
		&line));
	assert_is(line.offset_text, "42");
	assert_is(line.time_text, "2026-01-29T12:00:00.123456Z");
	assert_is(line.key, "\"k\"");
	assert_is(line.tenant_id, "\"t1\"");
	assert_is(line.event_key, "\"e\"");
	assert_is(line.batch, "\"40-44\"");
	assert_is(line.origin, "\"o/0/0\"");
	assert_is(line.payload, "{\"p\":1}");
	cr_assert(line.offset == 42 && line.time_us == TIME_US && line.batch_first == 40 && line.batch_last == 44 &&
		  line.returns == 3);
}

Test(line, with_a_good_checksum_and_wrong_members_is_refused)
{
	static const char *const wrong[] = {
		"",
		"{}",
		"\"payload\":{}}",
		HEAD,
		HEAD "null",
		HEAD "null}",
		HEAD "null,\"payload\":",
		HEAD "null,\"payload\":}",
		HEAD "null,\"payload\":[]}",
		HEAD "null,\"payload\":{}",
		HEAD "null,\"payload\":{}]",
		HEAD "nul,\"payload\":{}}",
		HEAD "\"k,\"payload\":{}}",
		HEAD ",\"payload\":{}}",
		HEAD "null,\"x\",\"payload\":{}}",
		HEAD "null,\"x\":,\"payload\":{}}",
		HEAD "null,\"batch\":\"43-44\",\"payload\":{}}",
		HEAD "null,\"batch\":\"40-41\",\"payload\":{}}",
		HEAD "null,\"batch\":\"44-40\",\"payload\":{}}",
		HEAD "null,\"batch\":\"42\",\"payload\":{}}",
		HEAD "null,\"batch\":\"-\",\"payload\":{}}",
		HEAD "null,\"batch\":42,\"payload\":{}}",
		HEAD "null,\"batch\":\"042-43\",\"payload\":{}}",
		HEAD "null,\"returns\":4294967296,\"payload\":{}}",
		HEAD "null,\"returns\":-1,\"payload\":{}}",
		HEAD "null,\"returns\":\"1\",\"payload\":{}}",
		HEAD "null,\"payload\":null}",
		HEAD "null,\"payload\":null,\"payload_base64\":null}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aGk\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aGl=\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"a===\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"====\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aG=k\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aG k\"}",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aGk=\"",
		HEAD "null,\"payload\":null,\"payload_base64\":\"aGk=\",\"x\":1}",
		" " HEAD "null,\"payload\":{}}",
		"\"offset\":\"042\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_key\":null,"
		"\"payload\":{}}",
		"\"offset\":\"\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_key\":null,"
		"\"payload\":{}}",
		"\"offset\":\"-1\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_key\":null,"
		"\"payload\":{}}",
		"\"offset\":\"18446744073709551615\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_"
		"key\":null,\"payload\":{}}",
		"\"offset\":\"1\",\"published_at_utc\":\"2026-02-30T12:00:00.123456Z\",\"partition_key\":null,"
		"\"payload\":{}}",
		"\"offset\":\"1\",\"published_at_utc\":\"2026-01-29T12:00:00.12345Z\",\"partition_key\":null,"
		"\"payload\":{}}",
		"\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"offset\":\"1\",\"partition_key\":null,"
		"\"payload\":{}}",
	};

	cr_assert_null(why_not(HEAD "null,\"payload\":{}}"));
	cr_assert_null(why_not(HEAD "null,\"payload\":null,\"payload_base64\":\"aGk=\"}"));
	cr_assert_null(why_not(HEAD "null,\"payload\":null,\"payload_base64\":\"\"}"));
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		cr_assert_not_null(why_not(wrong[i]), "%s", wrong[i]);
}

Test(line, with_a_checksum_in_capitals_is_refused)
{
	char text[1024];
	struct line line;
	int refused = 0;

	for (int c = 'a'; c <= 'z'; c++) {
		char members[256];
		snprintf(members, sizeof members, HEAD "null,\"payload\":{\"c\":\"%c\"}}", c);
		struct evbus_slice slice = sealed(text, members);
		cr_assert_null(line_parse(slice, &line));
		for (size_t i = LINE_CRC_AT; i < LINE_CRC_AT + 8; i++)
			if (text[i] >= 'a') {
				text[i] = (char)(text[i] - 32);
				cr_assert_not_null(line_parse(slice, &line));
				text[i] = (char)(text[i] + 32);
				refused++;
			}
	}
	cr_assert_gt(refused, 20);
}

Test(line, tells_its_offset_and_time_from_its_head_alone)
{
	CLEANUP(line_release) struct buf out = { 0 };
	struct line_body body = { .payload = SLICE("{\"a\":1}") };
	uint64_t offset;
	int64_t time_us;
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, UINT64_MAX - 1, TIME_US, &split, &err), EVBUS_OK);
	cr_assert_leq(split, LINE_HEAD_MAX);
	size_t enough = 0;
	for (size_t len = 0; len <= out.len; len++) {
		bool told = line_peek(out.data, len, &offset, &time_us);
		cr_assert(told || !enough, "%zu", len);
		if (told)
			cr_assert(offset == UINT64_MAX - 1 && time_us == TIME_US);
		enough = told && !enough ? len : enough;
	}
	cr_assert(enough && enough <= LINE_HEAD_MAX);
	out.data[0] = '[';
	cr_assert_not(line_peek(out.data, out.len, &offset, &time_us));
}

/* ---- records and numbers ---- */

static void assert_same(struct evbus_slice a, struct evbus_slice b)
{
	cr_assert(a.len == b.len && (a.len == 0 || !memcmp(a.data, b.data, a.len)));
}

static void assert_receipt(const struct line_body *body)
{
	CLEANUP(line_release) struct buf out = { 0 };
	struct evbus_record made, read;
	struct line line;
	uint32_t split;

	cr_assert_eq(line_add(&out, body, 1234, TIME_US, &split, &err), EVBUS_OK);
	line_receipt(text_of(&out), split, (uint32_t)body->payload.len, SLICE("t"), 5, &made);
	cr_assert_null(line_parse(text_of(&out), &line));
	line_to_record(&line, SLICE("t"), 5, &read);
	assert_same(made.topic, read.topic);
	assert_same(made.offset, read.offset);
	assert_same(made.published_at_utc, read.published_at_utc);
	assert_same(made.partition_key, read.partition_key);
	assert_same(made.tenant_id, read.tenant_id);
	assert_same(made.event_key, read.event_key);
	assert_same(made.payload, read.payload);
	assert_same(made.members, read.members);
	assert_same(made.stored, read.stored);
	assert_is(made.payload, "{\"a\":\"{}\"}");
	cr_assert(made.partition_id == 5 && read.partition_id == 5 && !strcmp(made.offset_kind, "file_line"));
}

Test(line, that_was_just_made_gives_the_receipt_that_reading_it_gives)
{
	struct evbus_slice payload = SLICE("{\"a\":\"{}\"}");
	struct line_body bodies[] = {
		{ .key = SLICE("a\"b"), .origin = SLICE("x/0/1"), .payload = payload },
		{ .event_key = SLICE("e,\"\n"), .payload = payload },
		{ .key = SLICE("null"), .tenant_id = SLICE("\\"), .event_key = SLICE("e"), .payload = payload },
		{ .key = SLICE("nu"), .payload = payload },
		{ .payload = payload },
	};

	for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
		assert_receipt(&bodies[i]);
}

static void assert_offset(uint64_t offset)
{
	CLEANUP(buf_release) struct buf out = { 0 };
	const struct line_body body = { .payload = SLICE("{}") };
	struct line line;
	uint32_t split;

	cr_assert_eq(line_add(&out, &body, offset, 0, &split, NULL), EVBUS_OK);
	cr_assert_null(line_parse((struct evbus_slice){ out.data, out.len - 1 }, &line));
	cr_assert_eq(line.offset, offset);
}

Test(line, offsets_of_any_length_are_read)
{
	uint64_t digits = 1234567890123456789u;

	for (uint64_t power = 1; power <= 10000000000000000000u / 10; power *= 10) {
		assert_offset(power - 1);
		assert_offset(power);
		assert_offset(digits / power);
		assert_offset(9 * power);
	}
	assert_offset(UINT64_MAX - 1);
	/* None of the bytes that stand around the digits is taken for one. */
	for (int byte = 1; byte < 256; byte++) {
		char members[256], text[1024];
		snprintf(members, sizeof members,
			 "\"offset\":\"4%c2\",\"published_at_utc\":\"2026-01-29T12:00:00.123456Z\",\"partition_key\":null,"
			 "\"payload\":{}}",
			 byte);
		struct line line;
		bool is_digit = byte >= '0' && byte <= '9';
		cr_assert_eq(!line_parse(sealed(text, members), &line), is_digit, "%d", byte);
	}
}

static void assert_digits(uint64_t value)
{
	char text[20], known[21];
	uint64_t read;

	struct evbus_slice digits = { text, decimal_format(value, text) };
	snprintf(known, sizeof known, "%llu", (unsigned long long)value);
	assert_is(digits, known);
	cr_assert(decimal_parse(digits, &read) && read == value);
}

Test(line, numbers_are_plain_decimal_digits)
{
	static const char *const wrong[] = { "",
					     "00",
					     "01",
					     "+1",
					     "-1",
					     " 1",
					     "1 ",
					     "1a",
					     "0x1",
					     "18446744073709551615",
					     "18446744073709551616",
					     "99999999999999999999",
					     "184467440737095516140" };
	uint64_t value, random = 1;

	for (uint64_t power = 1; power < 10000000000000000000u; power *= 10)
		for (int i = 0; i < 100; i++, random = random * 6364136223846793005 + 1442695040888963407)
			assert_digits(i < 2 ? power - (uint64_t)i : random % (power * 10));
	assert_digits(18446744073709551614u);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		cr_assert_not(decimal_parse((struct evbus_slice){ wrong[i], strlen(wrong[i]) }, &value), "%s",
			      wrong[i]);
}

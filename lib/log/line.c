/* line.c: writing and reading one line of the log. */
#include "log/line.h"

#include "base/crc32c.h"
#include "event/json.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#define HEAD_A "{\"crc32c\":\""
#define HEAD_B "\",\"offset\":\""
#define HEAD_C "\",\"published_at_utc\":\""
#define HEAD_D "\",\"partition_key\":"
#define PAYLOAD ",\"payload\":"
#define NO_JSON "null,\"payload_base64\":\""
#define OFFSET_AT (LINE_MEMBERS_AT + sizeof "\"offset\":\"" - 1)

/* Eight lower-case digits, all at once: a byte for each half of a byte, and then the letters set apart. */
static inline void put_hex(char *to, uint32_t value)
{
	uint64_t halves = (uint64_t)(value & 0xffff0000) << 16 | (value & 0xffff);

	halves = (halves | halves << 8) & 0x00ff00ff00ff00ff;
	halves = (halves | halves << 4) & 0x0f0f0f0f0f0f0f0f;
	uint64_t letters = (halves + 0x0606060606060606) >> 4 & 0x0101010101010101;
	uint64_t digits = htobe64(halves + 0x3030303030303030 + letters * ('a' - '9' - 1));
	memcpy(to, &digits, sizeof digits);
}

/* Lower case only: what we never wrote is not a checksum. */
static bool is_hex(const char *digits)
{
	for (int i = 0; i < 8; i++)
		if ((digits[i] < '0' || digits[i] > '9') && (digits[i] < 'a' || digits[i] > 'f'))
			return false;
	return true;
}

/* ---- writing ---- */

static char *put(char *to, const void *from, size_t len)
{
	memcpy(to, from, len);
	return to + len;
}

#define PUT(to, literal) put(to, literal, sizeof(literal) - 1)

/* text: in place of the offset; data NULL: none. */
static char *put_head(char *to, uint64_t offset, struct evbus_slice text, int64_t time_us, struct clock_second *second)
{
	to = PUT(to, HEAD_A "00000000" HEAD_B);
	to = text.data ? put(to, text.data, text.len) : to + decimal_format(offset, to);
	to = PUT(to, HEAD_C);
	clock_format_near(time_us, second, to);
	return to + TIME_TEXT_LEN;
}

static void seal(char *line, size_t len)
{
	assert(len > LINE_MEMBERS_AT + 1 && line[len - 1] == '\n' && line[len - 2] == '}');
	put_hex(line + LINE_CRC_AT, crc32c(0, line + LINE_MEMBERS_AT, len - 1 - LINE_MEMBERS_AT));
}

static enum evbus_code add_text(struct buf *out, struct evbus_slice head, struct evbus_slice text,
				struct evbus_err *err)
{
	if (!text.data)
		return EVBUS_OK;
	TRY(buf_add(out, head.data, head.len, err));
	return json_quote(out, text, err);
}

/* What stands between partition_key and batch. */
static enum evbus_code add_identity(struct buf *out, const struct line_body *body, struct evbus_err *err)
{
	TRY(add_text(out, SLICE(",\"tenant_id\":"), body->tenant_id, err));
	return add_text(out, SLICE(",\"event_key\":"), body->event_key, err);
}

/* What stands between batch and payload. */
static enum evbus_code add_extras(struct buf *out, const struct line_body *body, struct evbus_err *err)
{
	TRY(add_text(out, SLICE(",\"origin\":"), body->origin, err));
	if (body->returns) {
		char digits[20];
		TRY(buf_add(out, ",\"returns\":", 11, err));
		TRY(buf_add(out, digits, decimal_format(body->returns, digits), err));
	}
	return EVBUS_OK;
}

/* The last member, and the end of the line; there is room. */
static char *put_payload(char *to, const struct line_body *body)
{
	if (body->payload.data) {
		to = PUT(to, PAYLOAD);
		to = put(to, body->payload.data, body->payload.len);
	} else {
		to = PUT(to, PAYLOAD NO_JSON);
		to = put(to, body->payload_base64.data, body->payload_base64.len);
		*to++ = '"';
	}
	return PUT(to, "}\n");
}

enum evbus_code line_add_near(struct buf *out, const struct line_body *body, uint64_t offset, int64_t time_us,
			      struct clock_second *second, uint32_t *split, struct evbus_err *err)
{
	size_t start = out->len, payload_len = (body->payload.data ? body->payload : body->payload_base64).len;

	TRY(buf_reserve(out, LINE_HEAD_MAX + 64 + body->offset_text.len + payload_len, err));
	char *to = PUT(put_head(out->data + start, offset, body->offset_text, time_us, second), HEAD_D);
	if (!body->key.data)
		to = PUT(to, "null");
	out->len = (size_t)(to - out->data);
	if (body->key.data)
		TRY(json_quote(out, body->key, err));
	if (body->tenant_id.data || body->event_key.data)
		TRY(add_identity(out, body, err));
	*split = (uint32_t)(out->len - start);
	if (body->origin.data || body->returns)
		TRY(add_extras(out, body, err));
	TRY(buf_reserve(out, payload_len + 64, err));
	out->len = (size_t)(put_payload(out->data + out->len, body) - out->data);
	seal(out->data + start, out->len - start);
	return EVBUS_OK;
}

static enum evbus_code readd(struct buf *out, struct evbus_slice old, uint32_t *split, uint64_t offset,
			     struct evbus_slice offset_text, int64_t time_us, uint64_t batch_first,
			     uint64_t batch_last, struct evbus_err *err)
{
	size_t start = out->len;
	const char *rest = memchr(old.data + OFFSET_AT, '"', old.len - OFFSET_AT);
	struct clock_second second = { .us = 0 };

	assert(rest);
	rest += sizeof HEAD_C - 1 + TIME_TEXT_LEN;    /* from the quote that ends published_at_utc */
	TRY(buf_reserve(out, old.len + LINE_HEAD_MAX + 64 + offset_text.len, err));
	char *to = put_head(out->data + start, offset, offset_text, time_us, &second);
	to = put(to, rest, (size_t)(old.data + *split - rest));
	uint32_t new_split = (uint32_t)(to - out->data - (ptrdiff_t)start);
	if (batch_first <= batch_last) {
		to = PUT(to, ",\"batch\":\"");
		to += decimal_format(batch_first, to);
		*to++ = '-';
		to += decimal_format(batch_last, to);
		*to++ = '"';
	}
	to = put(to, old.data + *split, old.len - *split);
	*split = new_split;
	out->len = (size_t)(to - out->data);
	seal(out->data + start, out->len - start);
	return EVBUS_OK;
}

enum evbus_code line_readd(struct buf *out, struct evbus_slice old, uint32_t *split, uint64_t offset, int64_t time_us,
			   uint64_t batch_first, uint64_t batch_last, struct evbus_err *err)
{
	static const struct evbus_slice none = { NULL, 0 };

	return readd(out, old, split, offset, none, time_us, batch_first, batch_last, err);
}

enum evbus_code line_readd_text(struct buf *out, struct evbus_slice old, uint32_t *split, struct evbus_slice offset_text,
				int64_t time_us, struct evbus_err *err)
{
	return readd(out, old, split, 0, offset_text, time_us, 1, 0, err);
}

/* ---- reading ---- */

struct scan {
	const char *at, *end;
	bool texts;                    /* an offset may be any number of digits */
};

static inline bool expect(struct scan *scan, const char *text, size_t len)
{
	if ((size_t)(scan->end - scan->at) < len || memcmp(scan->at, text, len) != 0)
		return false;
	scan->at += len;
	return true;
}

#define EXPECT(scan, literal) expect(scan, literal, sizeof(literal) - 1)

/* Up to a quote that is not escaped: the text without quotes. */
static bool take_plain(struct scan *scan, struct evbus_slice *text)
{
	const char *quote = memchr(scan->at, '"', (size_t)(scan->end - scan->at));

	if (!quote)
		return false;
	*text = (struct evbus_slice){ scan->at, (size_t)(quote - scan->at) };
	scan->at = quote;
	return true;
}

static bool take_value(struct scan *scan, struct evbus_slice *value)
{
	struct evbus_slice rest = { scan->at, (size_t)(scan->end - scan->at) };

	*value = (struct evbus_slice){ scan->at, json_value_len(rest) };
	scan->at += value->len;
	return value->len > 0;
}

static bool take_key(struct scan *scan, struct line *line)
{
	if (scan->end - scan->at >= 5 && memcmp(scan->at, "null,", 5) == 0) {
		line->key = (struct evbus_slice){ scan->at, 4 };
		scan->at += 4;
		return true;
	}
	return take_value(scan, &line->key);
}

static bool parse_batch(struct line *line)
{
	const char *text = line->batch.data + 1;
	size_t len = line->batch.len;

	if (len < 5 || line->batch.data[0] != '"')
		return false;
	len -= 2;
	const char *dash = memchr(text, '-', len);
	if (!dash)
		return false;
	struct evbus_slice first = { text, (size_t)(dash - text) };
	struct evbus_slice last = { dash + 1, len - first.len - 1 };
	return decimal_parse(first, &line->batch_first) && decimal_parse(last, &line->batch_last) &&
	       line->batch_first <= line->offset && line->offset <= line->batch_last;
}

static bool is(struct evbus_slice name, const char *text)
{
	return name.len == strlen(text) && memcmp(name.data, text, name.len) == 0;
}

/* One member between partition_key and payload; what is not known is passed over, for later versions. */
static bool take_extra(struct scan *scan, struct line *line)
{
	struct evbus_slice name, value;
	uint64_t returns;

	if (!EXPECT(scan, ",\"") || !take_plain(scan, &name) || !EXPECT(scan, "\":") || !take_value(scan, &value))
		return false;
	if (is(name, "tenant_id"))
		line->tenant_id = value;
	else if (is(name, "event_key"))
		line->event_key = value;
	else if (is(name, "origin"))
		line->origin = value;
	else if (is(name, "batch")) {
		line->batch = value;
		return parse_batch(line);
	} else if (is(name, "returns")) {
		if (!decimal_parse(value, &returns) || returns > UINT32_MAX)
			return false;
		line->returns = (uint32_t)returns;
	}
	return true;
}

/* How many of eight bytes are digits before one that is none, and their value, all at once; 8 stands for more as well. */
static inline unsigned leading_digits(const char *text, uint64_t *value)
{
	uint64_t bytes;

	memcpy(&bytes, text, sizeof bytes);
	bytes = le64toh(bytes) ^ 0x3030303030303030;
	uint64_t others = (bytes | (bytes + 0x7676767676767676)) & 0x8080808080808080;
	if (!others)
		return 8;
	unsigned count = (unsigned)__builtin_ctzll(others) / 8;
	/* Zeros in front of them; then pairs, fours and all of them are put together. */
	bytes = count ? bytes << 8 * (8 - count) : 0;
	bytes = (bytes * 10 + (bytes >> 8)) & 0x00ff00ff00ff00ff;
	bytes = (bytes * 100 + (bytes >> 16)) & 0x0000ffff0000ffff;
	*value = (bytes * 10000 + (bytes >> 32)) & 0xffffffff;
	return count;
}

static inline bool take_offset(struct scan *scan, struct line *line)
{
	const char *end = scan->at;
	unsigned count = scan->end - end < 8 ? 8 : leading_digits(end, &line->offset);

	if (count < 8)
		end += count;
	else
		while (end < scan->end && (unsigned char)(*end - '0') < 10)
			end++;
	line->offset_text = (struct evbus_slice){ scan->at, (size_t)(end - scan->at) };
	scan->at = end;
	/* Fewer than eight digits are a number, and none that is too great. */
	if (count < 8 && line->offset_text.len && line->offset_text.data[0] != '0')
		return true;
	if (decimal_parse(line->offset_text, &line->offset))
		return true;
	return scan->texts && line->offset_text.len && line->offset_text.data[0] != '0' &&
	       line->offset_text.len <= EVBUS_OFFSET_MAX_BYTES;
}

static inline bool take_time(struct scan *scan, struct clock_minute *minute, struct line *line)
{
	if (scan->end - scan->at < (ptrdiff_t)TIME_TEXT_LEN)
		return false;
	line->time_text = (struct evbus_slice){ scan->at, TIME_TEXT_LEN };
	scan->at += TIME_TEXT_LEN;
	return clock_parse_near(line->time_text.data, minute, &line->time_us);
}

static bool take_head(struct scan *scan, struct clock_minute *minute, struct line *line)
{
	return EXPECT(scan, "\"offset\":\"") && take_offset(scan, line) && EXPECT(scan, HEAD_C) &&
	       take_time(scan, minute, line) && EXPECT(scan, HEAD_D);
}

/* The digits of the checksum are made and compared: reading those that stand there would take a branch for each, which
 * no processor can foresee. NULL: they are right. */
static const char *check_sum(struct evbus_slice text)
{
	char digits[8];

	put_hex(digits, crc32c(0, text.data + LINE_MEMBERS_AT, text.len - LINE_MEMBERS_AT));
	if (!memcmp(text.data + LINE_CRC_AT, digits, sizeof digits))
		return NULL;
	return is_hex(text.data + LINE_CRC_AT) ? "its checksum does not match" : "it does not begin with a checksum";
}

/* What is no JSON object: `null` and base64, to the end of the line. */
static bool take_base64(struct scan *scan, struct line *line)
{
	if (!EXPECT(scan, NO_JSON) || !take_plain(scan, &line->payload_base64))
		return false;
	line->payload = (struct evbus_slice){ NULL, 0 };
	return EXPECT(scan, "\"}") && scan->at == scan->end && evbus_base64_decode(line->payload_base64, NULL) != SIZE_MAX;
}

static const char *take_payload(struct scan *scan, struct line *line)
{
	if (scan->end - scan->at >= 3 && scan->at[0] == '{' && scan->end[-1] == '}') {
		line->payload = (struct evbus_slice){ scan->at, (size_t)(scan->end - 1 - scan->at) };
		return NULL;
	}
	return take_base64(scan, line) ? NULL : "its payload is not an object";
}

/* What every line has is set later: to clear all of it first would cost as much as to read it. */
static inline void begin(struct line *line, struct evbus_slice text)
{
	static const struct evbus_slice absent = { NULL, 0 };

	line->text = text;
	line->tenant_id = line->event_key = line->batch = line->origin = line->payload = line->payload_base64 = absent;
	line->returns = 0;
}

static inline const char *parse(struct evbus_slice text, struct clock_minute *minute, bool texts, struct line *line)
{
	struct scan scan = { text.data, text.data + text.len, texts };

	begin(line, text);
	if (!EXPECT(&scan, HEAD_A) || text.len < LINE_MEMBERS_AT)
		return "it does not begin with a checksum";
	const char *why = check_sum(text);
	if (why)
		return why;
	scan.at += 8;
	if (!EXPECT(&scan, "\",") || !take_head(&scan, minute, line) || !take_key(&scan, line))
		return "its members are not those of a record";
	while (!EXPECT(&scan, PAYLOAD))
		if (!take_extra(&scan, line))
			return "its members are not those of a record";
	return take_payload(&scan, line);
}

const char *line_parse_near(struct evbus_slice text, struct clock_minute *minute, struct line *line)
{
	return parse(text, minute, false, line);
}

const char *line_parse(struct evbus_slice text, struct line *line)
{
	struct clock_minute minute = { .us = 0 };

	return line_parse_near(text, &minute, line);
}

const char *line_parse_text(struct evbus_slice text, uint64_t position, struct line *line)
{
	struct clock_minute minute = { .us = 0 };
	const char *why = parse(text, &minute, true, line);

	line->offset = position;
	return why;
}

bool line_peek(const char *text, size_t len, uint64_t *offset, int64_t *time_us)
{
	struct scan scan = { text, text + len, false };
	struct clock_minute minute = { .us = 0 };
	struct line line;

	if (!EXPECT(&scan, HEAD_A) || scan.end - scan.at < 8)
		return false;
	scan.at += 8;
	if (!EXPECT(&scan, "\",") || !take_head(&scan, &minute, &line))
		return false;
	*offset = line.offset;
	*time_us = line.time_us;
	return true;
}

/* Heads that are payload come behind the line's own: so many are looked at. */
#define HEADS_MAX 64

bool line_parse_last(struct evbus_slice text, struct line *line)
{
	const char *at = text.data, *end = text.data + text.len;

	for (int i = 0; i < HEADS_MAX && at < end; i++) {
		at = memmem(at + 1, (size_t)(end - at - 1), HEAD_A, sizeof HEAD_A - 1);
		if (!at)
			return false;
		if (!line_parse((struct evbus_slice){ at, (size_t)(end - at) }, line))
			return true;
	}
	return false;
}

static inline void fill(struct evbus_record *record, const struct line *line, struct evbus_slice topic, int32_t partition)
{
	/* One by one: all at once would be cleared before. */
	record->topic = topic;
	record->partition_id = partition;
	record->offset_kind = "file_line";
	record->offset = line->offset_text;
	record->published_at_utc = line->time_text;
	record->partition_key = line->key;
	record->tenant_id = line->tenant_id;
	record->event_key = line->event_key;
	record->batch = line->batch;
	record->origin = line->origin;
	record->returns = line->returns;
	record->duplicate = false;
	record->payload = line->payload;
	record->payload_base64 = line->payload_base64;
	record->members = (struct evbus_slice){ line->text.data + LINE_MEMBERS_AT, line->text.len - LINE_MEMBERS_AT };
	record->stored = line->text;
}

void line_to_record(const struct line *line, struct evbus_slice topic, int32_t partition, struct evbus_record *record)
{
	fill(record, line, topic, partition);
}

/* From a partition key up to where a batch would stand: the key, and what a line of idempotent publishing has there. */
static void take_identity(struct evbus_slice text, struct line *line)
{
	struct scan scan = { text.data, text.data + text.len + 1, false };    /* a comma follows */
	bool got = take_key(&scan, line);

	while (got && scan.at < text.data + text.len)
		got = take_extra(&scan, line);
	assert(got);
}

/* The line may have been written just now: who reads many bytes of it at once waits until they all are in their place. */
void line_receipt(struct evbus_slice text, uint32_t split, uint32_t payload_len, struct evbus_slice topic,
		  int32_t partition, struct evbus_record *record)
{
	const char *offset = text.data + OFFSET_AT, *quote = offset;

	assert(split < text.len && payload_len + 1 < text.len);
	while (*quote != '"')
		quote++;
	const char *key = quote + sizeof HEAD_C - 1 + TIME_TEXT_LEN + sizeof HEAD_D - 1;
	struct line line;
	begin(&line, text);
	line.key = (struct evbus_slice){ key, (size_t)(text.data + split - key) };
	if (line.key.len != 4 || *key != 'n') {
		struct line identity = { .batch = { NULL, 0 } };
		take_identity(line.key, &identity);
		line.key = identity.key;
		line.tenant_id = identity.tenant_id;
		line.event_key = identity.event_key;
	}
	line.offset_text = (struct evbus_slice){ offset, (size_t)(quote - offset) };
	line.time_text = (struct evbus_slice){ quote + sizeof HEAD_C - 1, TIME_TEXT_LEN };
	if (text.data[text.len - 2] == '"')
		line.payload_base64 = (struct evbus_slice){ text.data + text.len - 2 - payload_len, payload_len };
	else
		line.payload = (struct evbus_slice){ text.data + text.len - 1 - payload_len, payload_len };
	fill(record, &line, topic, partition);
}

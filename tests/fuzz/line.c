/* line.c: a stored line is what was written, or it is refused.
 *
 * The first byte of the input chooses: 0, a line as it lies; 1, the same with its checksum made right, so that what is
 * behind the checksum is reached; else, the members of a record, which is written, read, and written again elsewhere. */
#include "fuzz.h"

#include "base/crc32c.h"
#include "event/json.h"
#include "log/line.h"

static void parse_must(struct evbus_slice text, struct line *line)
{
	const char *why = line_parse(text, line);

	if (why)
		fprintf(stderr, "%s: %.*s\n", why, (int)text.len, text.data);
	MUST(why == NULL);
}

static void seal(struct block *text)
{
	char digits[9];

	if (text->len < LINE_MEMBERS_AT)
		return;
	snprintf(digits, sizeof digits, "%08x", crc32c(0, text->data + LINE_MEMBERS_AT, text->len - LINE_MEMBERS_AT));
	memcpy(text->data + LINE_CRC_AT, digits, 8);
}

/* Everything that a line says of itself. */
static void check_parsed(const struct line *line)
{
	const struct evbus_slice parts[] = { line->offset_text, line->time_text, line->key,    line->tenant_id,
					     line->event_key,   line->batch,     line->origin, line->payload };
	char text[TIME_TEXT_LEN];
	uint64_t offset;
	int64_t time_us;

	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		MUST(within(parts[i], line->text));
	MUST(same((struct evbus_slice){ text, decimal_format(line->offset, text) }, line->offset_text));
	clock_format(line->time_us, text);
	MUST(same((struct evbus_slice){ text, sizeof text }, line->time_text));
	MUST(line->payload.len >= 2 && line->payload.data[0] == '{');
	MUST(line_peek(line->text.data, line->text.len, &offset, &time_us));
	MUST(offset == line->offset && time_us == line->time_us);
	MUST(!line->batch.data || (line->batch_first <= offset && offset <= line->batch_last));
}

/* No line is still a line with one of its bytes changed. */
static void check_change(struct evbus_slice text, uint64_t at, uint8_t to)
{
	CLEANUP(block_cleanup) struct block changed = block_of(text.data, text.len);
	struct line line;

	at %= text.len;
	changed.data[at] = (char)(changed.data[at] == (char)to ? to + 1 : to);
	MUST(line_parse(slice_of(&changed), &line) != NULL);
}

static void try_text(struct input *input, bool sealed)
{
	uint64_t at = input_number(input, 2);
	uint8_t to = input_byte(input);
	CLEANUP(block_cleanup) struct block text = input_rest(input, SIZE_MAX);
	uint64_t offset;
	int64_t time_us;
	struct line line;

	if (sealed)
		seal(&text);
	line_peek(text.data, text.len, &offset, &time_us);
	if (line_parse(slice_of(&text), &line))
		return;
	check_parsed(&line);
	check_change(line.text, at, to);
}

/* ---- written and read ---- */

struct made {
	struct block key, origin, tenant, event_key, payload;
	struct line_body body;
};

static void made_cleanup(struct made *made)
{
	block_cleanup(&made->key);
	block_cleanup(&made->origin);
	block_cleanup(&made->tenant);
	block_cleanup(&made->event_key);
	block_cleanup(&made->payload);
}

static struct evbus_slice text_or_none(const struct block *block, bool there)
{
	return there && utf8_valid(slice_of(block)) ? slice_of(block) : (struct evbus_slice){ NULL, 0 };
}

static void make(struct input *input, uint8_t choice, struct made *made)
{
	made->key = input_text(input);
	made->origin = input_text(input);
	made->tenant = input_text(input);
	made->event_key = input_text(input);
	made->payload = input_rest(input, SIZE_MAX);
	if (made->payload.len < 2) {
		block_cleanup(&made->payload);
		made->payload = block_of("{}", 2);
	}
	made->payload.data[0] = '{';
	made->payload.data[made->payload.len - 1] = '}';
	made->body = (struct line_body){
		.key = text_or_none(&made->key, choice & 4),
		.origin = text_or_none(&made->origin, choice & 8),
		.tenant_id = text_or_none(&made->tenant, choice & 16),
		.event_key = text_or_none(&made->event_key, choice & 32),
		.returns = choice & 64 ? (uint32_t)made->key.len : 0,
		.payload = slice_of(&made->payload),
	};
}

static bool is_text(struct evbus_slice value, struct evbus_slice text)
{
	return text.data ? json_equals(value, text) && value.data[0] == '"' : !value.data;
}

static void check_members(const struct line *line, const struct line_body *body)
{
	MUST(body->key.data ? is_text(line->key, body->key) : same(line->key, SLICE("null")));
	MUST(is_text(line->tenant_id, body->tenant_id) && is_text(line->event_key, body->event_key));
	MUST(is_text(line->origin, body->origin) && line->returns == body->returns);
	MUST(same(line->payload, body->payload));
}

/* The receipt of a line that was just made, and the record that is read from it, say the same. */
static void check_receipt(const struct line *line, uint32_t split)
{
	struct evbus_record receipt, record;

	line_receipt(line->text, split, (uint32_t)line->payload.len, SLICE("t"), 3, &receipt);
	line_to_record(line, SLICE("t"), 3, &record);
	MUST(same(receipt.offset, record.offset) && same(receipt.published_at_utc, record.published_at_utc));
	MUST(same(receipt.partition_key, record.partition_key) && same(receipt.payload, record.payload));
	MUST(same(receipt.tenant_id, record.tenant_id) && same(receipt.event_key, record.event_key));
	MUST(same(receipt.members, record.members) && same(receipt.stored, record.stored));
	MUST(receipt.partition_id == 3 && record.partition_id == 3);
}

static struct evbus_slice line_text(const struct buf *lines, size_t from)
{
	MUST(lines->len > from && lines->data[lines->len - 1] == '\n');
	return (struct evbus_slice){ lines->data + from, lines->len - from - 1 };
}

static void check_made(const struct buf *lines, size_t from, uint32_t split, const struct line_body *body,
		       uint64_t offset, int64_t time_us)
{
	struct line line;

	parse_must(line_text(lines, from), &line);
	check_parsed(&line);
	check_members(&line, body);
	check_receipt(&line, split);
	MUST(line.offset == offset && line.time_us == time_us);
}

static void try_record(struct input *input, uint8_t choice)
{
	uint64_t offset = input_number(input, 8) % (UINT64_MAX - 1), again = input_number(input, 8) % (UINT64_MAX - 1);
	int64_t time_us = (int64_t)(input_number(input, 8) % (TIME_MAX_US + 1ull)), time_again = TIME_MAX_US - time_us;
	uint64_t first = again - again % 7, most = UINT64_MAX - 1 - again, more = input_byte(input) % 8u;
	uint64_t last = again + (more < most ? more : most);
	CLEANUP(made_cleanup) struct made made;
	CLEANUP(buf_release) struct buf lines = { 0 }, direct = { 0 };
	struct evbus_err err;
	uint32_t split, split_direct;
	bool batch = choice & 128;

	make(input, choice, &made);
	MUST(line_add(&lines, &made.body, offset, time_us, &split, &err) == EVBUS_OK);
	check_made(&lines, 0, split, &made.body, offset, time_us);
	size_t len = lines.len;
	check_change(line_text(&lines, 0), offset ^ again, choice);
	struct block old = block_of(lines.data, len);
	MUST(line_readd(&lines, slice_of(&old), &split, again, time_again, batch ? first : 1, batch ? last : 0, &err) ==
	     EVBUS_OK);
	block_cleanup(&old);
	check_made(&lines, len, split, &made.body, again, time_again);
	if (batch)
		return;
	MUST(line_add(&direct, &made.body, again, time_again, &split_direct, &err) == EVBUS_OK);
	MUST(split == split_direct && same(line_text(&direct, 0), line_text(&lines, len)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	uint8_t choice = input_byte(&input);

	if (choice < 2)
		try_text(&input, choice);
	else
		try_record(&input, choice);
	return 0;
}

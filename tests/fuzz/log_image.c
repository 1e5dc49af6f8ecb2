/* log_image.c: a log from a recipe. Each step is a byte that says what, and those that say how much. */
#include "log_image.h"

#include "base/crc32c.h"

static void add(struct image *image, const void *data, size_t len)
{
	struct evbus_err err;

	if (image->log.len + len <= IMAGE_MAX_BYTES)
		MUST(buf_add(&image->log, data, len, &err) == EVBUS_OK);
}

static void add_bytes(struct image *image, char byte, size_t count)
{
	while (count--)
		add(image, &byte, 1);
}

/* The writer goes on behind what he wrote; a batch is one write. */
static void step(struct image *image, bool whole)
{
	image->now.next++;
	image->line_count++;
	image->now.bytes = image->log.len;
	if (!whole || image->place_count == PLACES_MAX)
		return;
	image->astray[image->place_count] = image->now.next != image->places[0].next + image->line_count;
	image->places[image->place_count++] = image->now;
}

static void add_line(struct image *image, size_t pad, uint64_t batch_first, uint64_t batch_last)
{
	CLEANUP(buf_release) struct buf payload = { 0 }, line = { 0 };
	struct cell at = image->now;
	struct evbus_err err;
	uint32_t split;

	MUST(buf_add(&payload, "{\"pad\":\"", 8, &err) == EVBUS_OK);
	for (size_t i = 0; i < pad; i++)
		MUST(buf_add(&payload, "x", 1, &err) == EVBUS_OK);
	MUST(buf_add(&payload, "\"}", 2, &err) == EVBUS_OK);
	struct line_body body = { .payload = { payload.data, payload.len } };
	MUST(line_add(&line, &body, at.next, at.time_us, &split, &err) == EVBUS_OK);
	if (batch_first <= batch_last) {
		struct block old = block_of(line.data, line.len);
		line.len = 0;
		MUST(line_readd(&line, slice_of(&old), &split, at.next, at.time_us, batch_first, batch_last, &err) ==
		     EVBUS_OK);
		block_cleanup(&old);
	}
	add(image, line.data, line.len);
	step(image, batch_last <= at.next);
}

static void add_lines(struct image *image, struct input *input, bool batch)
{
	uint8_t how = input_byte(input);
	size_t pad = input_byte(input);
	unsigned count = 1 + how % 8;
	uint64_t first = image->now.next, last = first + count - 1;

	for (unsigned i = 0; i < count; i++) {
		image->now.time_us += how >> 3;
		add_line(image, pad, batch ? first : 1, batch ? last : 0);
	}
}

/* Text of the input as a line whose checksum is right. */
static void add_sealed(struct image *image, struct input *input)
{
	static const char head[] = "{\"crc32c\":\"00000000\",";
	CLEANUP(block_cleanup) struct block text = input_rest(input, input_byte(input));
	char digits[9];
	size_t at = image->log.len;

	for (size_t i = 0; i < text.len; i++)
		text.data[i] = text.data[i] == '\n' ? ' ' : text.data[i];
	snprintf(digits, sizeof digits, "%08x", crc32c(0, text.data, text.len));
	add(image, head, sizeof head - 1);
	add(image, text.data, text.len);
	add(image, "\n", 1);
	if (image->log.len > at + LINE_MEMBERS_AT)
		memcpy(image->log.data + at + LINE_CRC_AT, digits, 8);
	step(image, true);
}

static void take_step(struct image *image, struct input *input)
{
	uint8_t what = input_byte(input);

	switch (what % 8) {
	case 0:
	case 1:
		add_lines(image, input, what % 8);
		return;
	case 2: /* offsets jump */
		image->now.next += (uint64_t)(int64_t)(int8_t)input_byte(input);
		image->now.next %= UINT64_C(1) << 63;
		return;
	case 3: /* and so do times */
		image->now.time_us += (int8_t)input_byte(input);
		image->now.time_us = image->now.time_us < 0 ? 0 : image->now.time_us;
		return;
	case 4: {
		CLEANUP(block_cleanup) struct block raw = input_rest(input, input_byte(input));
		add(image, raw.data, raw.len);
		return;
	}
	case 5: { /* a byte is another one */
		size_t at = input_number(input, 2);
		if (image->log.len)
			image->log.data[at % image->log.len] ^= (char)input_byte(input);
		return;
	}
	case 6: { /* the end was never written, or not yet with what belongs there */
		size_t cut = input_byte(input);
		image->log.len -= cut < image->log.len ? cut : image->log.len;
		add_bytes(image, '\0', what & 8 ? cut : 0);
		return;
	}
	default:
		add_sealed(image, input);
	}
}

static struct cell wild_cell(struct input *input)
{
	return (struct cell){ input_number(input, 8), input_number(input, 8), input_number(input, 8),
			      input_number(input, 8), input_number(input, 8), (int64_t)input_number(input, 8) };
}

static void take_page(struct image *image, struct input *input, size_t end, size_t durable, size_t split)
{
	end %= image->place_count;
	durable %= image->place_count;
	image->end = image->places[end];
	image->durable = image->places[durable];
	image->split = image->flags & IMAGE_ROLLED ? image->places[split % image->place_count].bytes : 0;
	image->split = image->split < image->log.len ? image->split : image->log.len;
	uint8_t more = input_byte(input);
	image->wild = more & (WILD_END | WILD_DURABLE);
	if (image->astray[end] || image->astray[durable])
		image->wild |= WILD_ASTRAY;
	if (more & WILD_END)
		image->end = wild_cell(input);
	if (more & WILD_DURABLE)
		image->durable = wild_cell(input);
	image->page_change_count = more & 3;
	for (size_t i = 0; i < image->page_change_count; i++) {
		image->page_changes[i].at = (uint16_t)(input_number(input, 2) % 400);
		image->page_changes[i].change = input_byte(input);
	}
}

void image_make(struct image *image, struct input *input)
{
	*image = (struct image){ .flags = input_byte(input) };
	uint8_t end = input_byte(input), durable = input_byte(input), split = input_byte(input);
	uint64_t base = input_byte(input);
	struct input steps = *input;

	image->now = (struct cell){ .epoch = 1, .next = base % 16 ? 0 : base, .time_us = 1769688000000000 };
	image->places[image->place_count++] = image->now;
	/* What the page is to be stands behind a step of all ones, if there is one. */
	while (input_left(&steps) && *steps.at != 0xff)
		take_step(image, &steps);
	input_byte(&steps);
	take_page(image, &steps, end, durable, split);
}

void image_release(struct image *image)
{
	buf_release(&image->log);
}

/* ---- a slow opinion ---- */

static bool continues_batch(const struct line *line, const struct line *first)
{
	return line->batch.data && line->batch_first == first->batch_first;
}

struct prefix image_prefix(struct evbus_slice log, uint64_t next, int64_t time_us)
{
	struct prefix prefix = { .next = next, .time_us = time_us };
	struct line line, first = { .text = { NULL, 0 } };
	bool in_batch = false, over = false;

	for (size_t at = 0; at < log.len;) {
		const char *newline = memchr(log.data + at, '\n', log.len - at);
		size_t len = newline ? (size_t)(newline - log.data) - at : log.len - at;
		bool whole = newline && !line_parse((struct evbus_slice){ log.data + at, len }, &line);

		over = over || !whole || line.offset != next || line.time_us < time_us ||
		       (in_batch ? !continues_batch(&line, &first)
				 : line.batch.data && line.batch_first != line.offset);
		prefix.good_behind |= over && whole;
		at += len + 1;
		if (over)
			continue;
		first = in_batch ? first : line;
		in_batch = line.batch.data && line.batch_last != line.offset;
		next++;
		time_us = line.time_us;
		if (!in_batch)
			prefix = (struct prefix){ at, next, time_us, false };
	}
	return prefix;
}

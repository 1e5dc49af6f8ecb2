/* Each bit of a log of 64 lines is flipped, and each bit of its control page: a reader, verify and a publisher find it and
 * name the line, or nothing came of it.
 *
 * One thing cannot be told: without a page, a last line that is damaged is what an interrupted write leaves. It is cut off
 * by the next publisher, who says so and keeps a copy. */
#include "damage.h"

#include <criterion/criterion.h>

TestSuite(damage, .timeout = 600);

#define PAGE_USED_BYTES 384u /* evbus-log(5) */

static void flip(struct hurt *hurt, struct buf *copy, size_t bit)
{
	copy->data[bit / 8] ^= (char)(1 << bit % 8);
	hurt->with = (struct evbus_slice){ copy->data, copy->len };
	damage_try(hurt, "bit", bit);
	copy->data[bit / 8] ^= (char)(1 << bit % 8);
}

/* Each bit once, each byte with every page. */
static void flip_lines(enum shape shape, const char *path)
{
	damage_begin(shape);
	const struct buf *file = strcmp(path, LIVE) ? &whole.older : &whole.live;
	CLEANUP(buf_release) struct buf copy = buf_of_file(path);
	struct hurt hurt = { .path = path };
	uint64_t last_bits = 0;

	for (size_t bit = damage_first(); bit < copy.len * 8; bit += damage_step()) {
		hurt.line = damage_line_at(file, bit / 8, &hurt.byte);
		hurt.page = (bit + run.seed) % PAGES;
		hurt.may_end = hurt.page == NO_PAGE && hurt.line == LINES - 1;
		last_bits += hurt.may_end;
		flip(&hurt, &copy, bit);
	}
	CHECK(verdicts[HARMLESS] == 0 && verdicts[INTERRUPTED] == last_bits, "a bit of a line went unseen");
	damage_tell(path, damage_share(copy.len * 8));
	damage_end();
}

Test(damage, of_each_bit_of_a_log_is_named)
{
	flip_lines(ONE_SEGMENT, LIVE);
}

Test(damage, of_each_bit_of_an_older_segment_is_named)
{
	flip_lines(TWO_SEGMENTS, OLDER);
}

static void flip_page(enum shape shape, enum page page, size_t bytes)
{
	damage_begin(shape);
	CLEANUP(buf_release) struct buf copy = buf_of_file(PAGE);
	struct hurt hurt = { .path = PAGE, .page = page, .line = LINES, .is_harmless = true };

	for (size_t bit = damage_first(); bit < bytes * 8; bit += damage_step())
		flip(&hurt, &copy, bit);
	damage_tell(PAGE, damage_share(bytes * 8));
	damage_end();
}

Test(damage, of_each_bit_of_the_control_page_is_harmless)
{
	flip_page(ONE_SEGMENT, PAGE_OF_THIS_BOOT, 4096);
	flip_page(ONE_SEGMENT, PAGE_OF_ANOTHER_BOOT, PAGE_USED_BYTES);
	flip_page(TWO_SEGMENTS, PAGE_OF_THIS_BOOT, PAGE_USED_BYTES);
	flip_page(TWO_SEGMENTS, PAGE_OF_ANOTHER_BOOT, PAGE_USED_BYTES);
}

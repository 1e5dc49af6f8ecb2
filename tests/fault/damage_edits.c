/* What else becomes of files: a log of 64 lines is cut at every length, lines are swapped, doubled, removed, brought from
 * another log, bytes are put in, zeroed or lost, and so are those of the control page and of topic.json.
 *
 * Which line has to be named follows from the first byte that is another. */
#include "damage.h"

#include "log/line.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

TestSuite(damage_edits, .timeout = 600);

#define RANDOM_TRIES 2000u

static struct evbus_slice slice_of(const struct buf *buf)
{
	return (struct evbus_slice){ buf->data, buf->len };
}

static void add(struct buf *buf, const void *data, size_t len)
{
	CHECK_OK(buf_add(buf, data, len, ERR));
}

/* ---- cut ---- */

static void cut_everywhere(enum shape shape, const char *path, bool may_end, bool is_harmless)
{
	damage_begin(shape);
	CLEANUP(buf_release) struct buf file = buf_of_file(path);
	struct hurt hurt = { .path = path, .line = LINES, .is_harmless = is_harmless };

	for (hurt.page = PAGE_OF_THIS_BOOT; hurt.page <= (strcmp(path, PAGE) ? NO_PAGE : PAGE_OF_ANOTHER_BOOT);
	     hurt.page++) {
		hurt.may_end = may_end && hurt.page == NO_PAGE;
		for (size_t len = damage_first(); len < file.len; len += damage_step()) {
			hurt.with = (struct evbus_slice){ file.data, len };
			damage_try(&hurt, "cut to byte", len);
		}
		if (!hurt.may_end)
			CHECK(!verdicts[is_harmless ? DETECTED : HARMLESS] && !verdicts[INTERRUPTED],
			      "a cut went unseen");
		damage_tell(path, damage_share(file.len));
	}
	damage_end();
}

Test(damage_edits, that_cut_a_log_are_found_or_known_to_nobody)
{
	cut_everywhere(ONE_SEGMENT, LIVE, true, false);
}

Test(damage_edits, that_cut_an_older_segment_are_found)
{
	cut_everywhere(TWO_SEGMENTS, OLDER, false, false);
}

Test(damage_edits, that_cut_the_control_page_are_harmless)
{
	cut_everywhere(ONE_SEGMENT, PAGE, false, true);
}

/* ---- lines and bytes ---- */

static size_t begin_of(unsigned line)
{
	return line < LINES ? (size_t)(whole.lines[line].data - whole.live.data) : whole.live.len;
}

/* With every page. */
static uint64_t try_content(const char *what, size_t at, const struct buf *content)
{
	const struct buf *file = &whole.live;
	struct hurt hurt = { .path = LIVE, .with = slice_of(content) };
	unsigned line = LINES;
	size_t same = 0;

	while (same < file->len && same < content->len && file->data[same] == content->data[same])
		same++;
	if (same < content->len && same < file->len)
		line = damage_line_at(file, same, &hurt.byte);
	for (hurt.page = 0; hurt.page < PAGES; hurt.page++) {
		hurt.may_end = hurt.page == NO_PAGE;
		/* A file that is shorter than what was acknowledged is refused as such; and without a page it is the lines
		 * behind the first that tell its offset. */
		bool named = hurt.may_end ? same >= begin_of(1) : content->len >= file->len;
		hurt.line = named ? line : LINES;
		hurt.is_harmless = same == file->len && hurt.page != NO_PAGE;
		damage_try(&hurt, what, at);
	}
	return PAGES;
}

/* The log with bytes [from, to) replaced. */
static struct buf edited(size_t from, size_t to, const void *data, size_t len)
{
	struct buf buf = { 0 };

	add(&buf, whole.live.data, from);
	add(&buf, data, len);
	add(&buf, whole.live.data + to, whole.live.len - to);
	return buf;
}

static uint64_t try_edit(const char *what, size_t at, size_t from, size_t to, const void *data, size_t len)
{
	CLEANUP(buf_release) struct buf buf = edited(from, to, data, len);

	return try_content(what, at, &buf);
}

static uint64_t try_swapped(unsigned line)
{
	CLEANUP(buf_release) struct buf two = { 0 };

	add(&two, whole.lines[line + 1].data, whole.lines[line + 1].len);
	add(&two, whole.lines[line].data, whole.lines[line].len);
	return try_edit("swapped line", line, begin_of(line), begin_of(line + 2), two.data, two.len);
}

/* Whole and right in itself, and of another log: with another offset, or from before. */
static uint64_t try_foreign(unsigned line, uint64_t offset, int64_t time_us)
{
	CLEANUP(buf_release) struct buf foreign = { 0 };
	struct line_body body = { .payload = SLICE("{\"foreign\":true}") };
	uint32_t split;

	CHECK_OK(line_add(&foreign, &body, offset, time_us, &split, ERR));
	return try_edit("foreign line", line, begin_of(line), begin_of(line + 1), foreign.data, foreign.len);
}

/* Without a page a log may begin at any offset, for older segments may be removed: the first line is left in its place. */
static uint64_t try_line(unsigned line)
{
	size_t begin = begin_of(line), end = begin_of(line + 1), middle = (begin + end) / 2;
	uint64_t ran = 0;

	if (line > 0)
		ran += try_edit("removed line", line, begin, end, "", 0);
	if (line > 0 && line + 1 < LINES)
		ran += try_swapped(line);
	ran += try_edit("doubled line", line, end, end, whole.live.data + begin, end - begin);
	if (line > 0)
		ran += try_foreign(line, line + 100, os_now_us()) + try_foreign(line, line, 1000000);
	ran += try_edit("newline lost of line", line, end - 1, end, "", 0);
	ran += try_edit("CR in line", line, end - 1, end - 1, "\r", 1);
	ran += try_edit("NUL in line", line, middle, middle, "", 1);
	ran += try_edit("NUL for a byte of line", line, middle, middle + 1, "", 1);
	ran += try_edit("BOM before line", line, begin, begin, "\xef\xbb\xbf", 3);
	ran += try_edit("empty line before line", line, begin, begin, "\n", 1);
	ran += try_edit("newline in line", line, middle, middle, "\n", 1);
	ran += try_edit("first half lost of line", line, begin, middle, "", 0);
	return ran + try_edit("second half lost of line", line, middle, end, "", 0);
}

Test(damage_edits, of_lines_are_named)
{
	uint64_t of = 0, ran = 0;

	damage_begin(ONE_SEGMENT);
	unsigned step = run_count(1, 13), first = (unsigned)(run.seed % step);
	for (unsigned line = first; line < LINES; line += step) {
		of += PAGES * (14u - (line == 0 ? 4 : line == LINES - 1));
		ran += try_line(line);
	}
	CHECK(ran == of, "ran %llu of %llu", (unsigned long long)ran, (unsigned long long)of);
	damage_tell("lines", of);
	damage_end();
}

Test(damage_edits, of_all_newlines_are_named)
{
	CLEANUP(buf_release) struct buf crlf = { 0 }, one_line = { 0 };

	damage_begin(ONE_SEGMENT);
	for (unsigned line = 0; line < LINES; line++) {
		add(&crlf, whole.lines[line].data, whole.lines[line].len - 1);
		add(&crlf, "\r\n", 2);
		add(&one_line, whole.lines[line].data, whole.lines[line].len - 1);
	}
	try_content("CRLF", 0, &crlf);
	try_content("no newline", 0, &one_line);
	damage_tell("newlines", 2 * PAGES);
	damage_end();
}

Test(damage_edits, of_any_bytes_are_named)
{
	char bytes[400];

	damage_begin(ONE_SEGMENT);
	unsigned tries = run_count(RANDOM_TRIES, 30);
	uint64_t state = run.seed;
	for (unsigned i = 0; i < tries; i++) {
		size_t from = random_next(&state) % whole.live.len, lost = random_next(&state) % sizeof bytes,
		       len = random_next(&state) % sizeof bytes;
		size_t to = from + lost < whole.live.len ? from + lost : whole.live.len;
		bool zeros = random_next(&state) % 3 == 0;
		if (zeros)
			len = to - from;
		for (size_t at = 0; at < len; at++)
			bytes[at] = zeros ? 0 : (char)random_next(&state);
		try_edit("bytes at", from, from, to, bytes, len);
	}
	damage_tell("bytes", (uint64_t)tries * PAGES);
	damage_end();
}

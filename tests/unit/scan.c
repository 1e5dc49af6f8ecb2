/* scan.c: lines come out as they lie, whatever the size of the chunks, and in bounded memory. */
#include "log/scan.h"
#include "log/line.h"
#include "log_helpers.h"

TestSuite(scan, .init = enter, .fini = leave, .timeout = 60);

#define FILE_NAME "lines"

static int file = -1;

static void open_file(const struct buf *content)
{
	if (file >= 0)
		close(file);
	store_buf(FILE_NAME, content);
	file = open(FILE_NAME, O_RDONLY);
	cr_assert(file >= 0);
}

/* Against a plain walk over the bytes. */
static void assert_lines(const struct buf *content, uint64_t from, uint64_t limit, size_t chunk)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what;

	scan_init(&scan, file, FILE_NAME, from, limit, chunk);
	uint64_t end = limit < content->len ? limit : content->len;
	for (uint64_t at = from;;) {
		cr_assert_eq(scan_next(&scan, &text, &what, &err), EVBUS_OK);
		if (at >= end) {
			cr_assert(what == SCAN_END && text.len == 0 && scan.at == at);
			break;
		}
		const char *newline = memchr(content->data + at, '\n', end - at);
		size_t len = newline ? (size_t)(newline - content->data) - at : end - at;
		cr_assert_eq(what, newline ? SCAN_LINE : SCAN_PARTIAL);
		cr_assert(text.len == len && !memcmp(text.data, content->data + at, len));
		at += len + (newline != NULL);
		cr_assert_eq(scan.at, at);
	}
}

Test(scan, gives_each_line_once_with_any_chunk_limit_and_beginning)
{
	static const char text[] = "a\n\nbcd\n0123456789\n\n\n{\"x\":1}\nlast without end";
	CLEANUP(buf_release) struct buf content = { 0 };

	add(&content, text, sizeof text - 1);
	open_file(&content);
	for (size_t chunk = 1; chunk < 20; chunk++)
		for (uint64_t from = 0; from <= content.len; from++)
			for (uint64_t limit = from; limit <= content.len + 2; limit++)
				assert_lines(&content, from, limit, chunk);
}

static void add_line(struct buf *content, size_t len)
{
	cr_assert_eq(buf_reserve(content, len, &err), EVBUS_OK);
	memset(content->data + content->len, 'x', len - 1);
	content->data[content->len + len - 1] = '\n';
	content->len += len;
}

Test(scan, tells_a_line_that_is_too_long_and_goes_on_behind_it)
{
	CLEANUP(buf_release) struct buf content = { 0 };
	CLEANUP(scan_release) struct scan scan;
	static const size_t lens[] = { 3, LINE_MAX_BYTES - 1, 4, LINE_MAX_BYTES, 5, 3 * (size_t)LINE_MAX_BYTES, 6 };
	struct evbus_slice text;
	enum scan_what what;

	for (size_t i = 0; i < 7; i++)
		add_line(&content, lens[i]);
	open_file(&content);
	scan_init(&scan, file, FILE_NAME, 0, content.len, 65536);
	for (size_t i = 0; i < 7; i++) {
		cr_assert_eq(scan_next(&scan, &text, &what, &err), EVBUS_OK);
		cr_assert_eq(what, lens[i] < LINE_MAX_BYTES ? SCAN_LINE : SCAN_LONG, "%zu", lens[i]);
		if (what == SCAN_LINE)
			cr_assert_eq(text.len, lens[i] - 1);
		else
			cr_assert_eq(scan_resync(&scan, &err), EVBUS_OK);
	}
	cr_assert_eq(scan_next(&scan, &text, &what, &err), EVBUS_OK);
	cr_assert(what == SCAN_END && scan.at == content.len);
	/* A long line does not make the buffer long. */
	cr_assert_leq(scan.buf.size, 4 * (size_t)LINE_MAX_BYTES);
}

Test(scan, resync_goes_behind_the_next_newline_or_to_the_limit)
{
	static const char text[] = "ab\ncd\nef";
	static const uint64_t behind[] = { 3, 3, 3, 6, 6, 6, 8, 8, 8 };
	CLEANUP(buf_release) struct buf content = { 0 };

	add(&content, text, sizeof text - 1);
	open_file(&content);
	for (size_t chunk = 1; chunk < 10; chunk++)
		for (uint64_t from = 0; from <= 8; from++) {
			CLEANUP(scan_release) struct scan scan;
			scan_init(&scan, file, FILE_NAME, from, 8, chunk);
			cr_assert_eq(scan_resync(&scan, &err), EVBUS_OK);
			cr_assert_eq(scan.at, behind[from]);
		}
}

/* A follower: the limit moves on, and what lay in the buffer behind it was not looked at before. */
Test(scan, goes_on_when_the_limit_grows_and_to_any_other_place)
{
	static const char text[] = "one\ntwo\nthree\nfour\n";
	CLEANUP(buf_release) struct buf content = { 0 };
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice line;
	enum scan_what what;

	add(&content, text, sizeof text - 1);
	open_file(&content);
	scan_init(&scan, file, FILE_NAME, 0, 4, 4096);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_END);
	scan.limit = content.len;
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE && !memcmp(line.data, "two", 3));
	for (uint64_t to = 0; to < content.len; to++) {
		scan_seek(&scan, to, content.len);
		cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE);
		cr_assert(line.data[line.len] == '\n' && !memcmp(line.data, content.data + to, line.len));
	}
}

/* What lies in the buffer behind a limit is not there. */
Test(scan, keeps_to_a_limit_that_became_smaller)
{
	static const char text[] = "one\ntwo\nthree\n";
	CLEANUP(buf_release) struct buf content = { 0 };
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice line;
	enum scan_what what;

	add(&content, text, sizeof text - 1);
	open_file(&content);
	scan_init(&scan, file, FILE_NAME, 0, content.len, 4096);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE);
	scan_seek(&scan, 0, 6);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_PARTIAL && line.len == 2);
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_END);
}

static ssize_t no_pread(int fd, void *data, size_t len, off_t at)
{
	(void)fd;
	(void)data;
	(void)len;
	(void)at;
	errno = EIO;
	return -1;
}

Test(scan, says_which_file_cannot_be_read)
{
	CLEANUP(buf_release) struct buf content = { 0 };
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice line;
	enum scan_what what;

	add(&content, "a\n", 2);
	open_file(&content);
	scan_init(&scan, file, FILE_NAME, 0, 2, 4096);
	os.pread = no_pread;
	cr_assert_eq(scan_next(&scan, &line, &what, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "cannot read 'lines': "), "%s", err.text);
	os = real_os;
	cr_assert(!scan_next(&scan, &line, &what, &err) && what == SCAN_LINE);
}

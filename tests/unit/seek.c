/* seek.c and cursor_seek.c: any offset and any time is found, with few reads, also across segments and past damage. */
#include "log/seek.h"
#include "faulty.h"
#include "log_helpers.h"

TestSuite(seek, .init = enter, .fini = leave, .timeout = 120);

#define LINES 5000u
#define READS_MAX 20
#define FIRST_US 1769688000000000

static struct log_writer writer;
static int64_t time_of[LINES + 1];
static int64_t fake_us = FIRST_US;
static int reads;

/* Numbers that look random and repeat. */
static uint64_t seed = 4711;

static uint64_t any(uint64_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (seed >> 33) % below;
}

static int fake_clock(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){ fake_us / 1000000, fake_us % 1000000 * 1000 };
	return 0;
}

static ssize_t count_pread(int fd, void *data, size_t len, off_t at)
{
	reads++;
	return real_os.pread(fd, data, len, at);
}

/* ---- the log ---- */

/* Payloads of 1 byte (or nearly) to 1 MiB: each power of two is as likely as any other, up to a bound that is high for
 * one line in fifty. */
static size_t any_size(void)
{
	size_t bits = any(50) ? any(14) : any(21);

	return (size_t)any((uint64_t)1 << bits) + 1;
}

static void write_group(struct group *group)
{
	struct mark mark;

	if (!group_count(group))
		return;
	cr_assert_eq(writer_append(&writer, group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_commit(&writer, &mark, group, &err), EVBUS_OK, "%s", err.text);
	group_clear(group);
}

/* Runs of equal times, most of them short and some of them very long. What is written together has one time: a group
 * whose clock has gone on by a second would get the later one. */
static void write_log(uint64_t count, size_t (*size)(void), uint64_t longest_run)
{
	CLEANUP(group_release) struct group group = { 0 };
	uint64_t run = 0;

	os.clock_gettime = fake_clock;
	must_open(&writer);
	for (uint64_t n = 0; n < count; n++) {
		if (run-- == 0) {
			write_group(&group);
			run = any(any(longest_run) + 1);
			fake_us += (int64_t)any(3000000) + 2;
		}
		time_of[n] = fake_us;
		add_event(&group, &writer, n, size());
		if (group.lines.len >= 500000 || n + 1 == count)
			write_group(&group);
	}
	time_of[count] = fake_us + 1;
	writer_close(&writer);
	os.clock_gettime = real_os.clock_gettime;
}

/* ---- what is asked ---- */

static uint64_t next_offset(struct cursor *cursor)
{
	struct line line;
	bool got;

	enum evbus_code code = cursor_next(cursor, UINT64_MAX, &line, &got, &err);
	cr_assert_eq(code, EVBUS_OK, "%s", err.text);
	cr_assert(!got || event_number(&line) == line.offset);
	return got ? line.offset : cursor->durable.next;
}

static void assert_seek(struct cursor *cursor, uint64_t offset, int reads_max)
{
	reads = 0;
	cr_assert_eq(cursor_seek(cursor, offset, &err), EVBUS_OK, "%ju: %s", (uintmax_t)offset, err.text);
	cr_assert_leq(reads, reads_max, "offset %ju took %d reads", (uintmax_t)offset, reads);
	cr_assert_eq(next_offset(cursor), offset);
}

/* The first record at or behind the time, by looking at all of them. */
static void assert_seek_time(struct cursor *cursor, int64_t time_us, uint64_t count, int reads_max)
{
	uint64_t low = 0, high = count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		if (time_of[middle] < time_us)
			low = middle + 1;
		else
			high = middle;
	}
	reads = 0;
	cr_assert_eq(cursor_seek_time(cursor, time_us, &err), EVBUS_OK, "%s", err.text);
	cr_assert_leq(reads, reads_max, "time %jd took %d reads", (intmax_t)time_us, reads);
	cr_assert_eq(next_offset(cursor), low, "time %jd", (intmax_t)time_us);
}

static void assert_all(uint64_t count, int reads_max)
{
	CLEANUP(cursor_close) struct cursor cursor;

	os.pread = count_pread;
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK, "%s", err.text);
	for (uint64_t n = 0; n <= count; n += sweep_step())
		assert_seek(&cursor, n, reads_max);
	/* From anywhere to anywhere. */
	for (uint64_t i = 0; i < 2000 && i < 8 * count; i++)
		assert_seek(&cursor, any(count), reads_max);
	for (uint64_t n = 0; n <= count; n += sweep_step()) {
		if (n && time_of[n] == time_of[n - 1])
			continue;
		assert_seek_time(&cursor, time_of[n] - 1, count, reads_max);
		assert_seek_time(&cursor, time_of[n], count, reads_max);
		assert_seek_time(&cursor, time_of[n] + 1, count, reads_max);
	}
	assert_seek_time(&cursor, 0, count, reads_max);
	assert_seek_time(&cursor, -5, count, reads_max);
	assert_seek_time(&cursor, TIME_MAX_US, count, reads_max);
	os.pread = real_os.pread;
}

Test(seek, finds_every_offset_and_time_among_lines_of_1_byte_to_1_mib_with_few_reads)
{
	write_log(LINES, any_size, 300);
	assert_all(LINES, READS_MAX);
}

static size_t big_size(void)
{
	return 700000 + (size_t)any(348000);
}

Test(seek, finds_every_offset_and_time_among_lines_that_are_all_big)
{
	write_log(40, big_size, 5);
	assert_all(40, READS_MAX + 2);
}

static size_t small_size(void)
{
	return 1;
}

Test(seek, finds_every_offset_and_time_among_lines_that_are_all_small)
{
	write_log(LINES, small_size, 1000);
	assert_all(LINES, READS_MAX);
}

static size_t lopsided_size(void)
{
	static int n;

	return n++ < 4800 ? 1 : 100000;
}

Test(seek, finds_every_offset_and_time_where_nearly_all_bytes_are_at_one_end)
{
	write_log(LINES, lopsided_size, 50);
	assert_all(LINES, READS_MAX);
}

Test(seek, finds_the_only_line_and_the_end_of_an_empty_log)
{
	CLEANUP(cursor_close) struct cursor cursor;

	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
	cr_assert_eq(cursor_seek(&cursor, 0, &err), EVBUS_OK);
	cr_assert_eq(next_offset(&cursor), 0);
	cr_assert_eq(cursor_seek_time(&cursor, 0, &err), EVBUS_OK);
	cr_assert_eq(next_offset(&cursor), 0);
	cursor_close(&cursor);
	write_log(1, small_size, 1);
	assert_all(1, READS_MAX);
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
}

/* ---- across segments ---- */

/* Each search reads no more than in one file; a time needs a look at the heads of a few segments as well. */
Test(seek, finds_every_offset_and_time_across_segments)
{
	CLEANUP(cursor_close) struct cursor cursor;
	struct segments older;

	open_rolling(500000);
	write_log(LINES, any_size, 300);
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	cr_assert_geq(older.count, 8u);
	segments_release(&older);
	os.pread = count_pread;
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK);
	for (uint64_t n = 0; n <= LINES; n += sweep_step())
		assert_seek(&cursor, n, READS_MAX);
	cursor_close(&cursor);
	assert_all(LINES, READS_MAX + 4);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK);
}

Test(seek, by_time_goes_to_the_next_segment_from_a_gap_between_two)
{
	CLEANUP(cursor_close) struct cursor cursor;

	open_rolling(1000);
	write_log(60, small_size, 1);
	assert_all(60, READS_MAX);
	/* A follower that seeks behind the end goes on with what is appended there. */
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
	cr_assert_eq(cursor_seek_time(&cursor, fake_us + 1, &err), EVBUS_OK);
	cr_assert_eq(next_offset(&cursor), 60);
	must_publish(60, 5);
	cr_assert_eq(cursor_refresh(&cursor, &err), EVBUS_OK);
	for (uint64_t n = 60; n < 65; n++)
		cr_assert_eq(next_offset(&cursor), n);
}

/* ---- damage on the way ---- */

/* Reading goes to the record that is asked for, or says that there is damage; it never gives a later one. */
static void assert_not_hidden(struct cursor *cursor, uint64_t damaged, uint64_t count)
{
	struct line line;
	bool got;

	for (uint64_t n = 0; n < count; n += 1 + n % 3) {
		cr_assert_eq(cursor_seek(cursor, n, &err), EVBUS_OK, "%ju: %s", (uintmax_t)n, err.text);
		enum evbus_code code = cursor_next(cursor, UINT64_MAX, &line, &got, &err);
		if (n == damaged)
			cr_assert_eq(code, EVBUS_IO);
		else
			cr_assert(code == EVBUS_OK && got && line.offset == n, "%ju, damaged %ju: %s", (uintmax_t)n,
				  (uintmax_t)damaged, err.text);
	}
	for (uint64_t n = 0; n < count; n += 1 + n % 3) {
		cr_assert_eq(cursor_seek_time(cursor, time_of[n], &err), EVBUS_OK, "%s", err.text);
		enum evbus_code code = cursor_next(cursor, UINT64_MAX, &line, &got, &err);
		uint64_t first = n;
		while (first && time_of[first - 1] == time_of[n])
			first--;
		bool told = code == EVBUS_IO && (damaged == first || damaged + 1 == first);
		cr_assert(told || (code == EVBUS_OK && got && line.offset == first), "time of %ju, damaged %ju: %s",
			  (uintmax_t)n, (uintmax_t)damaged, code ? err.text : "another record");
	}
}

static void damage_each_line(const char *text, size_t at)
{
	CLEANUP(cursor_close) struct cursor cursor;

	write_log(300, any_size, 20);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK);
	int fd = open(LIVE, O_RDWR);
	for (uint64_t damaged = 0; damaged < 299; damaged += 11 * sweep_step()) {
		off_t place = (off_t)(line_at(&whole, damaged) + at);
		cr_assert_eq(pwrite(fd, text, strlen(text), place), (ssize_t)strlen(text));
		assert_not_hidden(&cursor, damaged, 300);
		cr_assert_eq(pwrite(fd, whole.data + place, strlen(text), place), (ssize_t)strlen(text));
	}
	close(fd);
}

Test(seek, goes_past_a_line_whose_head_is_none)
{
	damage_each_line("[]", 0);
}

/* The offset stands behind {"crc32c":"12345678","offset":" and the time behind that. */
Test(seek, is_not_misled_by_a_line_with_another_offset)
{
	damage_each_line("9\"", 31);
}

Test(seek, is_not_misled_by_a_line_with_another_year)
{
	static const char *const years[] = { "1999", "9999" };
	CLEANUP(cursor_close) struct cursor cursor;

	write_log(300, small_size, 20);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK);
	int fd = open(LIVE, O_RDWR);
	for (uint64_t damaged = 0; damaged < 299; damaged += 3 * sweep_step()) {
		size_t begin = line_at(&whole, damaged);
		const char *year = strstr(whole.data + begin, "_utc\":\"");
		cr_assert_not_null(year);
		off_t place = year + 7 - whole.data;
		cr_assert_eq(pwrite(fd, years[damaged % 2], 4, place), 4);
		assert_not_hidden(&cursor, damaged, 300);
		cr_assert_eq(pwrite(fd, whole.data + place, 4, place), 4);
	}
	close(fd);
}

/* The same where the search has to bisect: 300 lines of 1 byte are read in one piece. */
Test(seek, is_not_misled_in_a_log_that_is_larger_than_one_read)
{
	CLEANUP(cursor_close) struct cursor cursor;

	write_log(LINES, small_size, 3);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK);
	int fd = open(LIVE, O_RDWR);
	/* Many are damaged, so that the search meets some of them. */
	for (uint64_t n = 1; n < LINES; n += 2) {
		const char *year = strstr(whole.data + line_at(&whole, n), "_utc\":\"");
		cr_assert_eq(pwrite(fd, n % 4 == 1 ? "1999" : "9999", 4, year + 7 - whole.data), 4);
	}
	struct line line;
	bool got;
	for (uint64_t n = 0; n < LINES - 1; n += 98) {
		cr_assert_eq(cursor_seek_time(&cursor, time_of[n], &err), EVBUS_OK, "%s", err.text);
		enum evbus_code code = cursor_next(&cursor, UINT64_MAX, &line, &got, &err);
		cr_assert(code == EVBUS_IO ? cursor.next <= n : got && line.offset <= n, "%ju: %ju", (uintmax_t)n,
			  (uintmax_t)cursor.next);
	}
	close(fd);
}

/* ---- faults ---- */

static size_t medium_size(void)
{
	return 1500 + (size_t)any(3000);
}

/* One that cannot be read on the way is gone round. */
static void fail_each_call(uint64_t count, size_t (*size)(void))
{
	CLEANUP(cursor_close) struct cursor cursor;

	write_log(count, size, 10);
	cr_assert_eq(cursor_open(&topic, 0, 65536, &cursor, &err), EVBUS_OK, "%s", err.text);
	for (uint64_t n = 0; n < count; n += sweep_step()) {
		unsigned at = 0;
		do {
			cursor_close_segment(&cursor);
			faulty_begin(++at, FAULTY_ANY);
			enum evbus_code code =
				n % 2 ? cursor_seek(&cursor, n, &err) : cursor_seek_time(&cursor, time_of[n], &err);
			faulty_end();
			cr_assert(code == EVBUS_OK || (faulty.failed && code == EVBUS_IO && err.sys_errno),
				  "call %u, %s: %s", at, faulty.failed, err.text);
			uint64_t next = code ? 0 : next_offset(&cursor);
			cr_assert(code || (n % 2 ? next == n : time_of[next] == time_of[n]), "call %u, %s", at,
				  faulty.failed);
		} while (faulty.failed);
		cr_assert_gt(at, 3u);
	}
}

Test(seek, is_right_or_says_so_when_any_call_fails)
{
	fail_each_call(300, medium_size);
}

/* Of which the search reads only the beginning. */
static size_t long_size(void)
{
	return 20000 + (size_t)any(20000);
}

Test(seek, is_right_or_says_so_when_any_call_fails_among_long_lines)
{
	fail_each_call(30, long_size);
}

/* 8 KiB are read at once, 16 KiB below where the line is thought to be: of a line that is a little longer than 8 KiB the
 * end is in it, and of the next one's head only a part. */
static size_t awkward_size(void)
{
	return 8110;
}

static int heads;

static ssize_t count_heads(int fd, void *data, size_t len, off_t at)
{
	heads += len == LINE_HEAD_MAX;
	return real_os.pread(fd, data, len, at);
}

Test(seek, says_so_when_any_head_cannot_be_read)
{
	unsigned failures = 0;

	write_log(300, awkward_size, 10);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	int fd = open(LIVE, O_RDONLY | O_CLOEXEC);
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct seek seek = { .fd = fd, .name = LIVE, .size = file.len, .by = SEEK_OFFSET, .high = 300, .buf = &buf };
	os.pread = count_heads;
	for (uint64_t n = 0; n < 300; n += sweep_step()) {
		unsigned at = 0;
		do {
			uint64_t found = 0;
			faulty_begin(++at, FAULTY_ANY);
			enum evbus_code code = seek_find(&seek, n, &found, &err);
			faulty_end();
			cr_assert_eq(code, faulty.failed ? EVBUS_IO : EVBUS_OK, "call %u, %s", at, faulty.failed);
			cr_assert(code ? err.sys_errno != 0 : found == line_at(&file, n), "call %u: %s", at, err.text);
			failures += code != EVBUS_OK;
		} while (faulty.failed);
	}
	cr_assert_gt(failures, 600u / sweep_step());
	cr_assert_gt(heads, 0);
	close(fd);
}

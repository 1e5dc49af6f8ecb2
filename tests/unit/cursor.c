/* cursor.c: committed reads: what is shown is durable, stays, and is all there is; while writers append, roll, fail and
 * die. Recovery's side of it is in recover_*.c, rolls that were killed in segment.c, seeking in seek.c. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(cursor, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;
static struct cursor cursor;

static void open_cursor(void)
{
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "%s", err.text);
}

/* The next records are the events first … next - 1, and that is all. */
static void assert_reads(uint64_t first, uint64_t next)
{
	static struct reading reading;

	read_on(&cursor, &reading);
	cr_assert_eq(reading.code, EVBUS_OK, "%s", err.text);
	cr_assert(reading.first == first && reading.count == next - first, "%ju records from %ju",
		  (uintmax_t)reading.count, (uintmax_t)reading.first);
	for (uint64_t i = 0; i < reading.count; i++)
		cr_assert_eq(reading.n[i], first + i);
}

static void refresh(void)
{
	cr_assert_eq(cursor_refresh(&cursor, &err), EVBUS_OK, "%s", err.text);
}

/* ---- what is durable ---- */

Test(cursor, sees_nothing_in_a_partition_that_was_never_written_to)
{
	open_cursor();
	assert_reads(0, 0);
	must_publish(0, 3);
	assert_reads(0, 0);
	refresh();
	assert_reads(0, 3);
	cursor_close(&cursor);
}

Test(cursor, shows_a_record_only_after_its_sync)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	append_only(&writer, 1);
	open_cursor();
	assert_reads(0, 1);
	refresh();
	assert_reads(1, 1);
	cr_assert_eq(publish(&writer, 2), EVBUS_OK);
	assert_reads(1, 1);
	refresh();
	assert_reads(1, 3);
	cursor_close(&cursor);
	writer_close(&writer);
}

/* Lines stand behind the end that the page knows, of a writer who was killed: another time a reader syncs and shows them.
 * But a sync may have failed unheard, and one of his own would succeed and prove nothing. */
Test(cursor, shows_nothing_of_what_a_sync_has_failed_of)
{
	must_publish(0, 3);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	struct cell durable = cell_at(&file, line_at(&file, 1)), end = cell_at(&file, line_at(&file, 2));
	struct control control;

	make_page(&end, &durable);
	assert_log(3);
	for (int flag = 0; flag < 2; flag++) {
		cr_assert_eq(control_open(&topic, 0, true, &control, &err), EVBUS_OK, "%s", err.text);
		set_flag(&control, CONTROL_SYNCING, flag == CONTROL_SYNCING);
		set_flag(&control, CONTROL_HALT, flag == CONTROL_HALT);
		control_close(&control);
		assert_log(1);
	}
}

Test(cursor, ends_where_it_is_told_to)
{
	struct line line;
	bool got;

	must_publish(0, 10);
	open_cursor();
	cr_assert_eq(cursor_seek(&cursor, 4, &err), EVBUS_OK);
	for (uint64_t n = 4; n < 7; n++)
		cr_assert(!cursor_next(&cursor, 7, &line, &got, &err) && got && line.offset == n);
	cr_assert(!cursor_next(&cursor, 7, &line, &got, &err) && !got);
	cr_assert(!cursor_next(&cursor, 8, &line, &got, &err) && got && line.offset == 7);
	cursor_close(&cursor);
}

static int syncs;
static uint64_t live_inode;

static int count_sync(int fd)
{
	struct stat st;

	cr_assert(!fstat(fd, &st));
	syncs += st.st_ino == live_inode;
	return real_os.fdatasync(fd);
}

Test(cursor, without_a_page_syncs_what_it_shows)
{
	must_publish(0, 5);
	cr_assert(!unlink(LOCK));
	live_inode = inode(LIVE);
	os.fdatasync = count_sync;
	open_cursor();
	cr_assert_eq(syncs, 1);
	assert_reads(0, 5);
	cursor_close(&cursor);
	cr_assert(!is_there(LOCK));
	restart_machine();
	must_publish(5, 1);
	restart_machine();
	syncs = 0;
	open_cursor();
	cr_assert_eq(syncs, 1);
	assert_reads(0, 6);
	cursor_close(&cursor);
}

static int no_sync(int fd)
{
	(void)fd;
	errno = EIO;
	return -1;
}

Test(cursor, without_a_page_shows_nothing_that_it_cannot_sync)
{
	must_publish(0, 5);
	cr_assert(!unlink(LOCK));
	os.fdatasync = no_sync;
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_IO);
	cr_assert(strstr(err.text, "cannot sync 't/partition=0.jsonl' for reading"), "%s", err.text);
}

/* A reader without a page, then a power cut: what it saw is still there, for only what it synced may be kept. */
Test(cursor, without_a_page_shows_half_of_nothing)
{
	static struct reading reading;

	must_open(&writer);
	for (uint64_t n = 0; n < 3; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 3, 4, true, 0), EVBUS_OK);
	writer_close(&writer);
	cr_assert(!unlink(LOCK));
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	for (size_t len = 0; len <= whole.len; len++) {
		store(LIVE, whole.data, len);
		size_t lines = 0;
		while (lines < 7 && line_at(&whole, lines + 1) <= len)
			lines++;
		read_log(&reading);
		cr_assert_eq(reading.code, EVBUS_OK, "%zu: %s", len, err.text);
		cr_assert_eq(reading.count, lines > 3 && lines < 7 ? 3 : lines, "%zu", len);
	}
}

/* ---- following ---- */

Test(cursor, follows_over_rolls)
{
	open_rolling(400);
	open_cursor();
	must_open(&writer);
	for (uint64_t n = 0; n < 60; n++) {
		cr_assert_eq(publish(&writer, n), EVBUS_OK, "%s", err.text);
		if (n % 7)
			continue;
		uint64_t next = cursor.next;
		refresh();
		assert_reads(next, n + 1);
	}
	cursor_close(&cursor);
	writer_close(&writer);
}

Test(cursor, reads_on_to_its_end_when_the_segment_that_it_reads_was_rolled)
{
	struct line line;
	bool got;

	open_rolling(100000);
	must_open(&writer);
	for (uint64_t n = 0; n < 10; n++)
		cr_assert_eq(publish(&writer, n), EVBUS_OK);
	open_cursor();
	for (uint64_t n = 0; n < 3; n++)
		cr_assert(!cursor_next(&cursor, UINT64_MAX, &line, &got, &err) && got);
	cr_assert_eq(publish_group(&writer, 10, 1, false, 99000), EVBUS_OK);
	cr_assert_eq(publish(&writer, 11), EVBUS_OK);
	cr_assert(is_there("partition=0/00000000000000000000.jsonl"));
	assert_reads(3, 10);
	refresh();
	assert_reads(10, 12);
	cursor_close(&cursor);
	writer_close(&writer);
}

Test(cursor, goes_on_when_the_lock_file_is_removed_under_it)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	open_cursor();
	assert_reads(0, 1);
	cr_assert(!unlink(LOCK));
	refresh();
	cr_assert_not(cursor.has_page);
	int64_t start = os_now_us();
	cr_assert(cursor_wait(&cursor, 60));
	cr_assert_geq(os_now_us() - start, 50000, "it waits, and does not spin");
	cr_assert_eq(publish(&writer, 1), EVBUS_OK);
	refresh();
	assert_reads(1, 2);
	cr_assert(cursor.has_page);
	cursor_close(&cursor);
	writer_close(&writer);
}

Test(cursor, tells_when_what_it_read_is_gone)
{
	must_publish(0, 5);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	open_cursor();
	assert_reads(0, 5);
	/* A shorter log, and a page that fits it. */
	cr_assert(!unlink(LOCK) && !truncate(LIVE, (off_t)line_at(&whole, 3)));
	must_publish(100, 1);
	cr_assert_eq(cursor_refresh(&cursor, &err), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "was cut, restored or replaced while it was read"), "%s", err.text);
	cursor_close(&cursor);
}

Test(cursor, tells_when_the_log_was_replaced_by_a_longer_one)
{
	must_publish(0, 5);
	open_cursor();
	assert_reads(0, 5);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	cr_assert(!unlink(LOCK));
	replace(LIVE, whole.data, whole.len);
	must_publish(5, 3);
	cr_assert_eq(cursor_refresh(&cursor, &err), EVBUS_CONFLICT);
	cursor_close(&cursor);
}

/* ---- rolls in the middle of anything ---- */

static uint64_t rolled_to;

static void roll_now(void)
{
	struct os mine = os;

	os = faulty.real;
	rolled_to = 1000;
	must_publish(10, 8);
	os = mine;
}

/* While a reader opens, seeks and reads, between any two of its calls, events are appended and segments rolled. */
Test(cursor, is_right_when_the_log_is_rolled_between_any_two_of_its_calls)
{
	static struct reading reading;
	unsigned at = 0;

	do {
		open_rolling(500);
		must_publish(0, 10);
		faulty_begin(++at, 0);
		faulty.instead = roll_now;
		cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "call %u: %s", at, err.text);
		cr_assert_eq(cursor_seek(&cursor, 9, &err), EVBUS_OK, "call %u: %s", at, err.text);
		read_on(&cursor, &reading);
		cr_assert(reading.code == EVBUS_OK && reading.first == 9 && reading.count >= 1, "call %u: %s", at,
			  err.text);
		cr_assert_eq(cursor_seek(&cursor, 0, &err), EVBUS_OK, "call %u: %s", at, err.text);
		read_on(&cursor, &reading);
		faulty_end();
		cr_assert_eq(reading.code, EVBUS_OK, "call %u, %s: %s", at, faulty.failed, err.text);
		cr_assert(reading.count == 10 || reading.count == 18, "call %u: %ju", at, (uintmax_t)reading.count);
		refresh();
		if (faulty.failed)
			assert_reads(reading.count, 18);
		cursor_close(&cursor);
		cr_assert(!fchdir(root.fd));
		topic_close(&topic);
		scratch_remove("rolling");
	} while (faulty.failed);
	cr_assert_gt(at, 40u);
	open_topic("t", NULL);
}

/* ---- damage ---- */

Test(cursor, names_the_damaged_line_and_shows_all_before_it)
{
	static struct reading reading;
	char named[128];

	must_publish(0, 6);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	for (size_t at = 0; at < whole.len; at++) {
		CLEANUP(buf_release) struct buf file = { 0 };
		add(&file, whole.data, whole.len);
		file.data[at] ^= 8;
		store_buf(LIVE, &file);
		size_t line = 0;
		while (line < 5 && line_at(&whole, line + 1) <= at)
			line++;
		snprintf(named, sizeof named,
			 "topic 't', partition 0 is damaged at offset %zu, byte %zu of 't/partition=0.jsonl': ", line,
			 line_at(&whole, line));
		read_log(&reading);
		cr_assert(reading.code == EVBUS_IO && reading.count == line && strstr(err.text, named), "%zu: %s", at,
			  err.text);
	}
}

Test(cursor, names_the_offset_of_a_line_that_is_missing)
{
	static struct reading reading;

	must_publish(0, 6);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	for (size_t i = 1; i < 5; i++) {
		size_t at = line_at(&file, i), end = line_at(&file, i + 1);
		CLEANUP(buf_release) struct buf rest = { 0 };
		/* Of the length that was acknowledged, or the page would tell. */
		add(&rest, file.data, at);
		add(&rest, file.data + end, file.len - end);
		add(&rest, file.data, end - at);
		store_buf(LIVE, &rest);
		read_log(&reading);
		cr_assert(reading.code == EVBUS_IO && reading.count == i &&
				  strstr(err.text, "a line is missing before it"),
			  "%zu: %s", i, err.text);
	}
}

/* It stands before the line that is asked for: who begins at that line hears of it, too, as reading goes no further. */
Test(cursor, reports_what_is_no_line_before_the_one_that_it_begins_at)
{
	static struct reading reading;

	must_publish(0, 4);
	CLEANUP(buf_release) struct buf whole = load(LIVE);
	for (size_t line = 0; line < 4; line++) {
		CLEANUP(buf_release) struct buf file = { 0 };
		size_t at = line_at(&whole, line);
		add(&file, whole.data, at);
		add(&file, "\n", 1);
		add(&file, whole.data + at, whole.len - at);
		store_buf(LIVE, &file);
		cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "%s", err.text);
		cr_assert_eq(cursor_seek(&cursor, line, &err), EVBUS_OK, "%s", err.text);
		read_on(&cursor, &reading);
		cr_assert(reading.code == EVBUS_IO && reading.count == 0, "%zu: %ju", line, (uintmax_t)reading.count);
		cr_assert(strstr(err.text, "damaged at offset"), "%s", err.text);
		cursor_close(&cursor);
	}
}

/* Damage within a batch, and no page: the batch is not shown in part without a word. */
Test(cursor, without_a_page_reports_damage_within_the_last_batch)
{
	static struct reading reading;

	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK);
	cr_assert_eq(publish_group(&writer, 1, 3, true, 0), EVBUS_OK);
	writer_close(&writer);
	cr_assert(!unlink(LOCK));
	CLEANUP(buf_release) struct buf file = load(LIVE);
	file.data[line_at(&file, 2) + 100] ^= 1;
	store_buf(LIVE, &file);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && strstr(err.text, "damaged at offset 2"), "%d: %s", reading.code,
		  err.text);
}

/* ---- calls that fail ---- */

/* What it gives is right, or it says that it failed. */
static void assert_right_or_failed(unsigned at)
{
	static struct reading reading;

	enum evbus_code code = cursor_open(&topic, 0, 4096, &cursor, &err);
	if (code)
		return;
	read_on(&cursor, &reading);
	cr_assert(reading.code || reading.count == 20, "call %u, %s: %ju", at, faulty.failed, (uintmax_t)reading.count);
	for (uint64_t n = 0; n <= 20; n += 5) {
		if (cursor_seek(&cursor, n, &err))
			continue;
		read_on(&cursor, &reading);
		cr_assert(reading.code || reading.count == 20 - n, "call %u, %s", at, faulty.failed);
	}
	if (!cursor_seek_time(&cursor, 1, &err)) {
		read_on(&cursor, &reading);
		cr_assert(reading.code || reading.count == 20, "call %u, %s", at, faulty.failed);
	}
	code = cursor_refresh(&cursor, &err);
	cr_assert(code == EVBUS_OK || faulty.failed, "call %u: %s", at, err.text);
	cursor_close(&cursor);
}

Test(cursor, is_right_or_says_so_when_any_call_fails)
{
	open_rolling(1000);
	must_publish(0, 20);
	for (int page = 0; page < 2; page++) {
		unsigned at = 0;
		do {
			int files = open_files();
			faulty_begin(++at, EIO);
			assert_right_or_failed(at);
			faulty_end();
			cr_assert_eq(open_files(), files, "call %u, %s: a descriptor leaks", at, faulty.failed);
		} while (faulty.failed);
		cr_assert_gt(at, 60u);
		unlink(LOCK);
	}
}

/* ---- bytes that are there and left ---- */

Test(cursor, knows_how_many_bytes_there_are_and_how_many_are_left)
{
	struct line line;
	uint64_t bytes, total;
	bool got;

	open_rolling(500);
	must_publish(0, 20);
	open_cursor();
	cr_assert_eq(cursor_bytes_total(&cursor, &total, &err), EVBUS_OK);
	uint64_t left = total;
	for (int i = 0; i < 20; i++) {
		cr_assert_eq(cursor_bytes_left(&cursor, &bytes, &err), EVBUS_OK);
		cr_assert_eq(bytes, left, "%d: %ju, not %ju", i, (uintmax_t)bytes, (uintmax_t)left);
		cr_assert(!cursor_next(&cursor, UINT64_MAX, &line, &got, &err) && got);
		left -= line.text.len + 1;
	}
	cr_assert_eq(left, 0);
	cr_assert(!cursor_bytes_left(&cursor, &bytes, &err) && bytes == 0);
	cursor_close(&cursor);
}

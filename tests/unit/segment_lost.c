/* segment.c: segments that are missing, empty or damaged. */
#include "log_helpers.h"

TestSuite(segment_lost, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static void make_segments(void)
{
	open_rolling(400);
	must_publish(0, 20);
	CLEANUP(segments_release) struct segments older = { 0 };
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	cr_assert_geq(older.count, 5u);
}

Test(segment_lost, that_is_the_oldest_may_be_removed_and_the_log_begins_behind_it)
{
	static struct reading reading;
	CLEANUP(cursor_close) struct cursor cursor;
	char path[SEGMENT_PATH_MAX];
	struct segments older;

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	for (size_t i = 0; i < older.count; i++) {
		segment_path(0, older.bases[i], path);
		cr_assert(!unlink(path));
		read_log(&reading);
		cr_assert_eq(reading.code, EVBUS_OK, "%s", err.text);
		cr_assert(reading.first > older.bases[i] && reading.first + reading.count == 20);
		cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
		cr_assert_eq(cursor_seek(&cursor, 0, &err), EVBUS_NONE);
		cr_assert(strstr(err.text, "has no offset 0 any more: it begins at"), "%s", err.text);
		cursor_close(&cursor);
	}
	segments_release(&older);
	must_publish(20, 1);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.first + reading.count == 21 && reading.n[0] == reading.first);
	cr_assert(!unlink(LOCK));
	must_publish(21, 1);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.first + reading.count == 22, "%s", err.text);
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
}

Test(segment_lost, that_is_missing_in_the_middle_is_named_and_what_is_behind_it_can_be_read)
{
	static struct reading reading;
	CLEANUP(cursor_close) struct cursor cursor;
	struct segments older;
	char path[SEGMENT_PATH_MAX], named[64];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[2], path);
	cr_assert(!unlink(path));
	read_log(&reading);
	snprintf(named, sizeof named, "the segment with offset %ju is missing", (uintmax_t)older.bases[2]);
	cr_assert(reading.code == EVBUS_IO && reading.count == older.bases[2], "%s", err.text);
	cr_assert(strstr(err.text, named), "%s", err.text);
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
	cr_assert_eq(cursor_seek(&cursor, older.bases[3], &err), EVBUS_OK, "%s", err.text);
	read_on(&cursor, &reading);
	cr_assert(reading.code == EVBUS_OK && reading.first + reading.count == 20, "%s", err.text);
	segments_release(&older);
	must_publish(20, 1);
}

/* With the page and without it, for readers and writers, whichever byte of it is another. */
Test(segment_lost, that_is_the_newest_older_one_does_not_hide_what_follows_when_its_last_line_is_damaged)
{
	static struct reading reading;
	CLEANUP(cursor_close) struct cursor cursor;
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	segments_release(&older);
	CLEANUP(buf_release) struct buf whole = load(path);
	for (size_t at = line_at(&whole, 1); at < whole.len; at += 5) {
		CLEANUP(buf_release) struct buf file = { 0 };
		add(&file, whole.data, whole.len);
		file.data[at] ^= 1;
		store_buf(path, &file);
		if (at % 2)
			unlink(LOCK);
		read_log(&reading);
		cr_assert(reading.code == EVBUS_IO && strstr(err.text, "damaged at offset"), "%zu: %s", at, err.text);
		cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "%zu: %s", at, err.text);
		cr_assert_eq(cursor_seek(&cursor, cursor.durable.base, &err), EVBUS_OK, "%zu: %s", at, err.text);
		read_on(&cursor, &reading);
		cr_assert_eq(reading.code, EVBUS_OK, "%zu: %s", at, err.text);
		cursor_close(&cursor);
		must_open(&writer);
		writer_close(&writer);
	}
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK);
}

/* The live one is empty when all of it was cut off. */
Test(segment_lost, that_is_empty_and_has_no_older_ones_begins_where_the_page_says)
{
	static struct reading reading;

	must_publish(0, 1);
	cr_assert(!truncate(LIVE, 0));
	struct cell cell = { .epoch = 1, .base = 7, .next = 7, .ino = inode(LIVE) };
	make_page(&cell, &cell);
	must_open(&writer);
	cr_assert_eq(writer.base, 7);
	writer_close(&writer);
	restart_machine();
	must_publish(7, 1);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_OK && reading.first == 7 && reading.count == 1, "%s", err.text);
}

/* Readers would begin behind the end, and say that there is nothing. */
Test(segment_lost, that_has_the_name_of_another_is_refused)
{
	static struct reading reading;
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	segments_release(&older);
	cr_assert(!rename(path, "partition=0/00000000000000001000.jsonl"));
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && strstr(err.text, "another segment's name"), "%s", err.text);
	cr_assert_eq(open_writer(&writer), EVBUS_IO);
}

/* As many lines as there were cannot be counted any more: readers used to look a thousand times, and refused. */
Test(segment_lost, that_is_the_newest_older_one_does_not_hide_what_follows_when_its_last_lines_are_one)
{
	static struct reading reading;
	CLEANUP(cursor_close) struct cursor cursor;
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	segments_release(&older);
	CLEANUP(buf_release) struct buf file = load(path);
	memset(file.data + line_at(&file, 1), 'x', file.len - 1 - line_at(&file, 1));
	store_buf(path, &file);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && strstr(err.text, "damaged at offset"), "%s", err.text);
	cr_assert_eq(cursor_open(&topic, 0, 4096, &cursor, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(cursor_seek(&cursor, cursor.durable.base, &err), EVBUS_OK, "%s", err.text);
	read_on(&cursor, &reading);
	cr_assert_eq(reading.code, EVBUS_OK, "%s", err.text);
}

/* Whatever that line has become: the page says what begins behind it. */
Test(segment_lost, that_is_the_newest_older_one_does_not_hide_what_follows_when_its_last_line_is_two)
{
	static struct reading reading;
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	segments_release(&older);
	CLEANUP(buf_release) struct buf file = load(path);
	file.data[file.len - 10] = '\n';
	store_buf(path, &file);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && strstr(err.text, "damaged at offset"), "%s", err.text);
	must_publish(20, 1);
}

Test(segment_lost, whose_first_two_lines_have_become_one_begins_where_it_began)
{
	static struct reading reading;

	must_publish(0, 4);
	CLEANUP(buf_release) struct buf file = load(LIVE);
	file.data[line_at(&file, 1) - 1] ^= 1;
	store_buf(LIVE, &file);
	cr_assert(!unlink(LOCK));
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && strstr(err.text, "damaged at offset 0, byte 0"), "%s", err.text);
}

/* The log ends with an older segment: its last line stands there twice. */
Test(segment_lost, that_goes_on_behind_its_end_is_damaged_though_nothing_follows_it)
{
	static struct reading reading;
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert(!truncate(LIVE, 0) && !unlink(LOCK));
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segment_path(0, older.bases[older.count - 1], path);
	segments_release(&older);
	read_log(&reading);
	cr_assert_eq(reading.code, EVBUS_OK, "%s", err.text);
	size_t count = reading.count;
	CLEANUP(buf_release) struct buf whole = load(path), file = load(path);
	add(&file, whole.data + line_at(&whole, 1), whole.len - line_at(&whole, 1));
	store_buf(path, &file);
	read_log(&reading);
	cr_assert(reading.code == EVBUS_IO && reading.count == count, "%zu: %s", (size_t)reading.count, err.text);
	cr_assert(strstr(err.text, "the live segment begins with this offset"), "%s", err.text);
}

/* Its last line is gone, and the page is as no roll leaves it. */
Test(segment_lost, that_does_not_reach_the_live_one_is_refused_each_time)
{
	struct segments older;
	char path[SEGMENT_PATH_MAX];

	make_segments();
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	uint64_t last = older.bases[older.count - 1];
	segment_path(0, last, path);
	segments_release(&older);
	CLEANUP(buf_release) struct buf file = load(path);
	size_t lines = 1;
	while (line_at(&file, lines) < file.len)
		lines++;
	size_t at = line_at(&file, lines - 1);
	cr_assert(!truncate(path, (off_t)at) && !truncate(LIVE, 0));
	struct cell durable = { .epoch = 1, .base = last, .next = last + lines - 1, .bytes = at, .ino = inode(path) };
	struct cell end = { .epoch = 1, .base = last + lines, .next = last + lines, .ino = inode(LIVE) };
	make_page(&end, &durable);
	for (int i = 0; i < 2; i++)
		cr_assert_eq(open_writer(&writer), EVBUS_CONFLICT, "%d: %s", i, err.text);
}

/* repair.c: a damaged log is cut where its damage was named, after copying what is cut, and nowhere else. */
#include "faulty.h"
#include "log_helpers.h"

TestSuite(repair, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;
static struct buf whole, damaged;

static void write_damaged(size_t line)
{
	must_publish(0, 8);
	whole = load(LIVE);
	add(&damaged, whole.data, whole.len);
	damaged.data[line_at(&whole, line) + 60] ^= 1;
	store_buf(LIVE, &damaged);
}

static void end_damaged(void)
{
	buf_release(&whole);
	buf_release(&damaged);
}

static enum evbus_code cut(uint64_t offset, uint64_t byte)
{
	return recover_cut(&topic, 0, offset, byte, &err);
}

static void assert_copied(size_t from)
{
	struct buf rest = { .data = damaged.data + from, .len = damaged.len - from };
	char name[256];

	cr_assert_eq(torn_copies(name), 1);
	assert_file(name, &rest);
	remove_torn();
}

Test(repair, cuts_at_the_damaged_line_after_copying_the_rest)
{
	for (int i = 0; i < 3; i++) {
		unlink(LIVE);
		unlink(LOCK);
		write_damaged(3);
		size_t byte = line_at(&whole, 3);
		if (i == 1)
			unlink(LOCK);
		if (i == 2)
			restart_machine();
		cr_assert_eq(cut(3, byte), EVBUS_OK, "%s", err.text);
		cr_assert(strstr(noticed, "kept as 't/partition=0.torn-3-"), "%s", noticed);
		assert_copied(byte);
		assert_log(3);
		must_publish(3, 2);
		assert_log(5);
		end_damaged();
	}
}

Test(repair, cuts_nowhere_else)
{
	write_damaged(3);
	for (uint64_t line = 0; line <= 8; line++)
		for (uint64_t offset = 0; offset <= 8; offset++)
			if (line != 3 || offset != 3)
				cr_assert_neq(cut(offset, line_at(&whole, line)), EVBUS_OK, "%ju at %ju",
					      (uintmax_t)offset, (uintmax_t)line);
	for (uint64_t byte = 0; byte <= whole.len + 1; byte++)
		if (byte != line_at(&whole, 3))
			cr_assert_neq(cut(3, byte), EVBUS_OK, "byte %ju", (uintmax_t)byte);
	assert_file(LIVE, &damaged);
	char name[256];
	cr_assert_eq(torn_copies(name), 0);
	cr_assert_eq(cut(3, line_at(&whole, 3)), EVBUS_OK, "%s", err.text);
	end_damaged();
}

Test(repair, cuts_no_log_that_is_whole)
{
	must_publish(0, 4);
	whole = load(LIVE);
	for (uint64_t line = 0; line <= 4; line++) {
		cr_assert_eq(cut(line, line_at(&whole, line)), EVBUS_CONFLICT, "%s", err.text);
		cr_assert(strstr(err.text, "is not damaged at offset"), "%s", err.text);
	}
	assert_file(LIVE, &whole);
	end_damaged();
	assert_log(4);
}

Test(repair, cuts_at_the_first_line_and_at_the_last)
{
	write_damaged(0);
	cr_assert_eq(cut(0, 0), EVBUS_OK, "%s", err.text);
	assert_copied(0);
	assert_log(0);
	end_damaged();
	unlink(LIVE);
	unlink(LOCK);
	write_damaged(7);
	cr_assert_eq(cut(7, line_at(&whole, 7)), EVBUS_OK, "%s", err.text);
	assert_copied(line_at(&whole, 7));
	assert_log(7);
	end_damaged();
}

/* Offsets go on where the log was cut, in the live segment of several. */
Test(repair, cuts_a_log_of_several_segments)
{
	open_rolling(1000);
	must_publish(0, 20);
	whole = load(LIVE);
	struct segments older;
	cr_assert_eq(segments_list(&topic, 0, &older, &err), EVBUS_OK);
	segments_release(&older);
	struct control_view view;
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	uint64_t base = view.end.base;
	cr_assert(base > 0 && view.end.next >= base + 3);
	add(&damaged, whole.data, whole.len);
	damaged.data[line_at(&whole, 1) + 50] ^= 1;
	store_buf(LIVE, &damaged);
	cr_assert_eq(cut(base + 1, line_at(&whole, 1)), EVBUS_OK, "%s", err.text);
	assert_copied(line_at(&whole, 1));
	assert_log(base + 1);
	must_publish(base + 1, 3);
	assert_log(base + 4);
	end_damaged();
}

/* With the damage in a batch, the batch goes: its beginning is copied too. */
Test(repair, leaves_no_half_of_a_batch)
{
	char name[256];

	must_publish(0, 2);
	must_open(&writer);
	cr_assert_eq(publish_group(&writer, 2, 4, true, 0), EVBUS_OK);
	cr_assert_eq(publish(&writer, 6), EVBUS_OK);
	writer_close(&writer);
	cr_assert(!unlink(LOCK));
	CLEANUP(buf_release) struct buf file = load(LIVE);
	file.data[line_at(&file, 4) + 60] ^= 1;
	store_buf(LIVE, &file);
	cr_assert_eq(open_writer(&writer), EVBUS_IO);
	cr_assert(strstr(err.text, "--repair --cut-at 4"), "%s", err.text);
	cr_assert_eq(cut(4, line_at(&file, 4)), EVBUS_OK, "%s", err.text);
	cr_assert_eq(torn_copies(name), 2);
	assert_log(2);
	must_publish(2, 1);
	assert_log(3);
}

Test(repair, waits_for_no_publisher)
{
	write_damaged(3);
	must_open(&writer);
	cr_assert_eq(cut(3, line_at(&whole, 3)), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "is open for publishing"), "%s", err.text);
	writer_close(&writer);
	assert_file(LIVE, &damaged);
	end_damaged();
}

/* Killed at any call, it can be done again, and every byte is somewhere. */
static bool killed_cut(unsigned at, size_t line)
{
	unlink(LIVE);
	unlink(LOCK);
	remove_torn();
	write_damaged(line);
	size_t byte = line_at(&whole, line);
	int files = open_files();
	faulty_begin(at, EIO);
	faulty.from_on = true;
	enum evbus_code code = cut(line, byte);
	faulty_end();
	cr_assert_eq(open_files(), files, "call %u", at);
	cr_assert(!faulty.failed || code != EVBUS_OK, "call %u", at);
	CLEANUP(buf_release) struct buf left = load(LIVE);
	char name[256];
	cr_assert(same(&left, &damaged) || (left.len == byte && torn_copies(name)), "call %u", at);
	if (left.len > byte)
		cr_assert_eq(cut(line, byte), EVBUS_OK, "call %u: %s", at, err.text);
	assert_log(line);
	must_publish(line, 1);
	assert_log(line + 1);
	end_damaged();
	return faulty.failed != NULL;
}

Test(repair, can_be_done_again_after_a_kill_at_any_call)
{
	for (size_t line = 0; line <= 3; line += 3) {
		unsigned at = 1;
		while (killed_cut(at, line))
			at++;
		cr_assert_gt(at, 25u);
	}
}

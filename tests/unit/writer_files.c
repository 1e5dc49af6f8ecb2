/* writer.c and commit.c: files that others have put away under a writer who has them open, and in which order he says what
 * he has done. */
#include "log_helpers.h"

TestSuite(writer_files, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer, other;

Test(writer_files, of_a_log_that_was_replaced_before_the_sync_give_no_receipt)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	add_event(&group, &writer, 1, 0);
	writer.alone = false; /* who is has looked already, with both locks */
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	struct buf log = load(LIVE);
	replace(LIVE, log.data, log.len);
	buf_release(&log);
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_CONFLICT, "%s", err.text);
	writer_close(&writer);
}

/* ---- a roll that was killed when the files had changed places ---- */

static int exchange_and_die(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	_exit(real_os.renameat2(from_dir, from, to_dir, to, flags) ? 1 : 7);
}

Test(writer_files, that_a_killed_roll_has_closed_are_not_appended_to)
{
	open_rolling(400);
	must_publish(0, 1);
	must_open(&writer);
	struct buf closed = load(LIVE);
	pid_t child = fork();
	if (!child) {
		os.renameat2 = exchange_and_die;
		_exit(open_writer(&other) || publish_group(&other, 1000, 1, false, 300) ? 2 : 3);
	}
	cr_assert_eq(wait_for(child), 7);
	/* For a small one there was room. */
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_file("partition=0/00000000000000000000.jsonl", &closed);
	buf_release(&closed);
	assert_log(2);
}

/* ---- a roll over what others have not synced yet ---- */

static struct stat synced_file;
static unsigned exchanges;

static int note_sync(int fd)
{
	cr_assert(!fstat(fd, &synced_file));
	return real_os.fdatasync(fd);
}

static int exchange_what_is_synced(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	struct stat live;

	cr_assert(!stat(LIVE, &live));
	cr_assert(live.st_ino == synced_file.st_ino && live.st_size == synced_file.st_size,
		  "the file is rolled with lines that are not synced");
	exchanges++;
	return real_os.renameat2(from_dir, from, to_dir, to, flags);
}

Test(writer_files, are_synced_before_they_are_rolled)
{
	open_rolling(400);
	must_open(&writer);
	must_open(&other);
	append_only(&writer, 0);
	os.fdatasync = note_sync;
	os.renameat2 = exchange_what_is_synced;
	cr_assert_eq(publish_group(&other, 1, 1, false, 300), EVBUS_OK, "%s", err.text);
	cr_assert_eq(exchanges, 1u);
	writer_close(&writer);
	writer_close(&other);
	assert_log(2);
}

/* ---- a lock file that was removed ---- */

static int no_sync(int fd)
{
	(void)fd;
	errno = EIO;
	return -1;
}

/* What one of them has acknowledged the other one has to know of, before he cuts. */
Test(writer_files, of_which_one_was_removed_leave_nobody_with_a_page_of_his_own)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	cr_assert(!unlink(LOCK));
	must_open(&other);
	cr_assert_eq(publish(&other, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&writer, 2), EVBUS_OK, "%s", err.text);
	os.fdatasync = no_sync;
	cr_assert_eq(publish(&other, 1000), EVBUS_IO);
	os.fdatasync = real_os.fdatasync;
	cr_assert_eq(publish(&other, 3), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	assert_log(4);
}

/* ---- what the page says at any time ---- */

static uint64_t synced;
static unsigned looks;

static uint64_t size_of_log(void)
{
	struct stat st;

	cr_assert(!stat(LIVE, &st));
	return (uint64_t)st.st_size;
}

static void look_at_page(void)
{
	struct control_view view;

	if (read_view(&view) != CONTROL_OURS)
		return;
	looks++;
	cr_assert_leq(view.end.bytes, size_of_log(), "the page says that there is what is not written yet");
	cr_assert_leq(view.durable.bytes, synced, "the page says that there is what is not synced yet");
}

static uint64_t written_to_log;

static ssize_t look_and_write(int fd, const void *data, size_t len, off_t at)
{
	struct stat st;

	look_at_page();
	cr_assert(!fstat(fd, &st));
	written_to_log += st.st_ino == inode(LIVE) ? len : 0;
	return real_os.pwrite(fd, data, len, at);
}

static int look_and_sync(int fd)
{
	look_at_page();
	uint64_t size = size_of_log();
	int failed = real_os.fdatasync(fd);
	synced = size;
	return failed;
}

/* Others go by the page between any two steps: a leader makes durable what it says was written, a reader shows what it says
 * was synced. */
Test(writer_files, have_what_the_page_says_at_any_time)
{
	os.pwrite = look_and_write;
	os.fdatasync = look_and_sync;
	must_open(&writer);
	must_open(&other);
	for (uint64_t n = 0; n < 6; n++)
		cr_assert_eq(publish(n % 2 ? &writer : &other, n), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish_group(&writer, 6, 4, true, 100), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	cr_assert_geq(looks, 7u * 5);
}

/* Whoever appended may have been killed in a sync that failed: what it left clean reaches the disk only if it is written
 * again. */
Test(writer_files, without_a_page_are_written_again_and_synced_before_a_page_is_made)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	append_only(&writer, 1);
	writer_close(&writer);
	cr_assert(!unlink(LOCK));
	os.pwrite = look_and_write;
	os.fdatasync = look_and_sync;
	must_open(&writer);
	look_at_page();
	cr_assert_gt(looks, 0u);
	cr_assert_eq(written_to_log, size_of_log());
	writer_close(&writer);
	assert_log(2);
}

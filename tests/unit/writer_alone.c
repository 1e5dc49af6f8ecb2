/* writer.c and commit.c: who finds the end where he left it takes both locks for an append, and looks at everything once. */
#include "log_helpers.h"

TestSuite(writer_alone, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer, other;

/* ---- what it costs ---- */

static unsigned reads, writes, looks, locks, wakes;

static ssize_t count_pread(int fd, void *data, size_t len, off_t at)
{
	reads++;
	return real_os.pread(fd, data, len, at);
}

static ssize_t count_pwrite(int fd, const void *data, size_t len, off_t at)
{
	writes++;
	return real_os.pwrite(fd, data, len, at);
}

static int count_statx(int dir, const char *path, int flags, unsigned mask, struct statx *st)
{
	looks++;
	return real_os.statx(dir, path, flags, mask, st);
}

static int count_lock(int fd, int cmd, struct flock *lock)
{
	locks++;
	return real_os.lock(fd, cmd, lock);
}

static int count_wake(uint32_t *word)
{
	wakes++;
	return real_os.futex_wake(word);
}

Test(writer_alone, costs_two_looks_three_reads_four_writes_and_one_wake)
{
	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	os.pread = count_pread;
	os.pwrite = count_pwrite;
	os.statx = count_statx;
	os.lock = count_lock;
	os.futex_wake = count_wake;
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	os = real_os;
	writer_close(&writer);
	cr_assert(looks == 2 && reads == 3 && writes == 4 && locks == 4 && wakes == 1, "%u %u %u %u %u", looks, reads,
		  writes, locks, wakes);
	assert_log(2);
}

/* ---- when it is not ---- */

Test(writer_alone, is_not_who_finds_another_one_s_event_behind_his_own)
{
	must_open(&writer);
	must_open(&other);
	for (uint64_t n = 0; n < 9; n++) {
		cr_assert_eq(publish(n % 3 ? &writer : &other, n), EVBUS_OK, "%s", err.text);
		cr_assert(n % 3 == 0 || writer.alone == (n % 3 == 2), "%ju", (uintmax_t)n);
		cr_assert(!writer.leads && !other.leads);
	}
	writer_close(&writer);
	writer_close(&other);
	assert_log(9);
}

/* Another one syncs: it appends, and waits for him as everybody does. */
static int let_go(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	(void)word, (void)value, (void)timeout;
	control_unlock(other.control.fd, LOCK_SYNC);
	return 0;
}

Test(writer_alone, appends_while_another_one_has_the_sync_lock)
{
	must_open(&writer);
	must_open(&other);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_try_lock(other.control.fd, LOCK_SYNC, F_WRLCK, LOCK, &err), EVBUS_OK, "%s", err.text);
	os.futex_wait = let_go;
	struct mark mark = append_only(&writer, 1);
	cr_assert(mark.first == 1 && !writer.leads);
	cr_assert_eq(publish(&writer, 2), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	assert_log(3);
}

Test(writer_alone, gives_the_sync_lock_back_where_it_does_not_append)
{
	CLEANUP(group_release) struct group group = { 0 };
	struct mark mark;

	must_open(&writer);
	must_open(&other);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	add_event(&group, &writer, 1, 0);
	cr_assert_eq(writer_append(&writer, &group, 77, &mark, &err), EVBUS_CONFLICT);
	cr_assert(!writer.leads);
	cr_assert_eq(control_try_lock(other.control.fd, LOCK_SYNC, F_WRLCK, LOCK, &err), EVBUS_OK, "%s", err.text);
	control_unlock(other.control.fd, LOCK_SYNC);
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&other);
	assert_log(2);
}

/* ---- when it fails, or dies ---- */

/* A cut that was not finished goes first, also where the end is where he left it. */
Test(writer_alone, finishes_a_cut_before_it_appends)
{
	struct control_view view;
	enum control_state state;

	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	set_flag(&writer.control, CONTROL_HALT, true);
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_read(&writer.control, &state, &view, &err), EVBUS_OK, "%s", err.text);
	cr_assert(state == CONTROL_OURS && !view.halt && view.end.epoch > 0);
	writer_close(&writer);
	assert_log(2);
}

static int fail(int fd)
{
	(void)fd;
	os.fdatasync = real_os.fdatasync;
	errno = EIO;
	return -1;
}

Test(writer_alone, cuts_off_what_its_sync_has_failed_of)
{
	struct control_view view;

	must_open(&writer);
	cr_assert_eq(publish(&writer, 0), EVBUS_OK, "%s", err.text);
	os.fdatasync = fail;
	cr_assert_eq(publish(&writer, 77), EVBUS_IO);
	cr_assert(!writer.leads && read_view(&view) == CONTROL_OURS);
	cr_assert(view.end.next == 1 && view.end.epoch == 2 && !view.syncing && !view.halt);
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(2);
}

static int die(int fd)
{
	(void)fd;
	_exit(7);
}

/* What it appended may have been in a sync that failed: it is written again. */
static uint64_t written_from = UINT64_MAX;

static ssize_t note_pwrite(int fd, const void *data, size_t len, off_t at)
{
	struct stat st;

	cr_assert(!fstat(fd, &st));
	if (st.st_ino == inode(LIVE) && (uint64_t)at < written_from)
		written_from = (uint64_t)at;
	return real_os.pwrite(fd, data, len, at);
}

static void finish_for_who_died(bool alone)
{
	struct control_view view;

	must_open(&writer);
	pid_t child = fork();
	if (!child) {
		must_open(&other);
		cr_assert_eq(publish(&other, 0), EVBUS_OK, "%s", err.text);
		cr_assert_eq(publish(&other, 1), EVBUS_OK, "%s", err.text);
		os.fdatasync = die;
		(void)!publish(&other, 2);
		_exit(1);
	}
	cr_assert_eq(wait_for(child), 7);
	cr_assert_eq(read_view(&view), CONTROL_OURS);
	cr_assert(view.syncing && view.end.next == 3 && view.durable.next == 2);
	os.pwrite = note_pwrite;
	writer.alone = alone;
	cr_assert_eq(publish(&writer, 3), EVBUS_OK, "%s", err.text);
	os = real_os;
	cr_assert_eq(written_from, view.durable.bytes, "%ju", (uintmax_t)written_from);
	cr_assert(read_view(&view) == CONTROL_OURS && !view.syncing);
	writer_close(&writer);
	assert_log(4);
}

Test(writer_alone, is_finished_for_by_the_next_when_it_dies_in_its_sync)
{
	finish_for_who_died(false);
}

Test(writer_alone, finishes_for_one_who_died_in_its_sync)
{
	finish_for_who_died(true);
}

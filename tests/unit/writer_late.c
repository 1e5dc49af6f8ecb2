/* writer.c: records of which the time has passed while their publisher waited. */
#include "log_helpers.h"

TestSuite(writer_late, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;
static int64_t ahead_us, wait_us;

static int shifted_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);
	int64_t us = (int64_t)now->tv_sec * 1000000 + now->tv_nsec / 1000 + ahead_us;

	now->tv_sec = us / 1000000;
	now->tv_nsec = us % 1000000 * 1000;
	return result;
}

/* Another one has the append lock for so long. */
static int lock_late(int fd, int cmd, struct flock *lock)
{
	if (fd == writer.fd && lock->l_type == F_WRLCK) {
		ahead_us += wait_us;
		wait_us = 0;
	}
	return real_os.lock(fd, cmd, lock);
}

/* Two events are appended, and wait so long for it. */
static void append_after(int64_t us, struct group *group, struct buf *before)
{
	struct mark mark;

	wait_us = us;
	add_event(group, &writer, writer.expected.next, 0);
	add_event(group, &writer, writer.expected.next + 1, 0);
	add(before, group->lines.data, group->lines.len);
	cr_assert_eq(writer_append(&writer, group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_commit(&writer, &mark, group, &err), EVBUS_OK, "%s", err.text);
}

static void begin(void)
{
	os.clock_gettime = shifted_clock;
	os.lock = lock_late;
	must_open(&writer);
}

Test(writer_late, get_the_time_at_which_they_are_appended)
{
	CLEANUP(group_release) struct group group = { 0 }, next = { 0 };
	CLEANUP(buf_release) struct buf before = { 0 };

	begin();
	int64_t start_us = os_now_us();
	append_after(1500000, &group, &before);
	for (size_t i = 0; i < 2; i++)
		cr_assert_geq(group_entry(&group, i)->time_us, start_us + 1500000);
	cr_assert_not(same(&group.lines, &before));
	cr_assert_geq(writer.expected.time_us, start_us + 1500000);
	append_after(0, &next, &before);
	writer_close(&writer);
	assert_log(4);
}

Test(writer_late, are_not_encoded_again_where_it_was_not_long)
{
	CLEANUP(group_release) struct group group = { 0 };
	CLEANUP(buf_release) struct buf before = { 0 };

	begin();
	append_after(900000, &group, &before);
	cr_assert(same(&group.lines, &before));
	writer_close(&writer);
	assert_log(2);
}

/* Others appended meanwhile, with the time that it really is. */
Test(writer_late, do_not_make_it_seem_that_the_clock_went_back)
{
	CLEANUP(group_release) struct group group = { 0 }, other = { 0 };
	CLEANUP(buf_release) struct buf before = { 0 };
	struct mark mark;

	begin();
	add_event(&group, &writer, 2, 0);
	ahead_us += 100000000;
	append_after(0, &other, &before);
	notices = 0;
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(notices, 0, "%s", noticed);
	writer_close(&writer);
}

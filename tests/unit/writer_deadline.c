/* writer.c: until when something may be appended. */
#include "log_helpers.h"

TestSuite(writer_deadline, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer;

static int64_t now_us(clockid_t clock)
{
	struct timespec now;

	cr_assert(!clock_gettime(clock, &now));
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t deadline_us;

static enum evbus_code append_before(int64_t utc_us, int64_t boottime_us, uint64_t n)
{
	const struct deadline deadline = { now_us(CLOCK_REALTIME) + utc_us, now_us(CLOCK_BOOTTIME) + boottime_us };
	CLEANUP(group_release) struct group group = { .deadline = &deadline };
	struct mark mark;

	deadline_us = deadline.utc_us;
	add_event(&group, &writer, n, 0);
	enum evbus_code code = writer_append(&writer, &group, UINT64_MAX, &mark, &err);
	return code ? code : writer_commit(&writer, &mark, &group, &err);
}

Test(writer_deadline, appends_nothing_once_either_clock_has_passed_the_deadline)
{
	must_open(&writer);
	cr_assert_eq(append_before(60000000, 60000000, 0), EVBUS_OK, "%s", err.text);
	cr_assert_eq(append_before(-1, 60000000, 1), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "the lease ran out"), "%s", err.text);
	cr_assert_eq(append_before(60000000, -1, 1), EVBUS_AGAIN);
	cr_assert_eq(append_before(60000000, 60000000, 1), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	assert_log(2);
}

static int (*real_lock)(int fd, int cmd, struct flock *lock);

/* Another one holds the append lock until the deadline has passed. */
static int lock_late(int fd, int cmd, struct flock *lock)
{
	const struct timespec pause = { .tv_nsec = 1000000 };

	while (fd == writer.fd && now_us(CLOCK_REALTIME) < deadline_us)
		nanosleep(&pause, NULL);
	return real_lock(fd, cmd, lock);
}

Test(writer_deadline, asks_for_the_deadline_within_the_lock_and_not_before_it)
{
	must_open(&writer);
	real_lock = os.lock;
	os.lock = lock_late;
	cr_assert_eq(append_before(20000, 60000000, 0), EVBUS_AGAIN);
	os.lock = real_lock;
	writer_close(&writer);
	assert_log(0);
}

/* writer.c, commit.c, settle.c: waiting for a process that holds a lock, and giving up. */
#include "log_helpers.h"

TestSuite(writer_waits, .init = enter, .fini = leave, .timeout = 60);

static struct log_writer writer, holder;
static unsigned asked, asks_max;
static int64_t ahead_us, first_asked_us;
static enum control_lock let_go = LOCK_KEYS; /* of these two, when it has enough; LOCK_KEYS: of none */

/* With each look at it a tenth of a second is gone. */
static int hasty_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	if (clock == CLOCK_MONOTONIC) {
		ahead_us += 100000;
		now->tv_sec += ahead_us / 1000000;
	}
	return result;
}

static bool ask_some(void *context)
{
	(void)context;
	first_asked_us = asked++ ? first_asked_us : ahead_us;
	if (asked < asks_max)
		return true;
	if (let_go == LOCK_KEYS)
		return false;
	control_unlock(let_go == LOCK_APPEND ? holder.fd : holder.control.fd, let_go);
	return true;
}

static const struct waiter waiter = { .go_on = ask_some };

static void hold(enum control_lock which)
{
	must_publish(0, 1);
	must_open(&holder);
	cr_assert_eq(writer_open(&topic, 0, &waiter, &writer, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_lock(&holder, which, F_WRLCK, &err), EVBUS_OK);
	os.clock_gettime = hasty_clock;
	asked = 0;
	ahead_us = 0;
	asks_max = 3;
}

static void release(uint64_t records)
{
	control_unlock(holder.fd, LOCK_APPEND);
	control_unlock(holder.control.fd, LOCK_SYNC);
	cr_assert_eq(publish(&writer, records), EVBUS_OK, "%s", err.text);
	cr_assert_eq(publish(&holder, records + 1), EVBUS_OK, "%s", err.text);
	writer_close(&writer);
	writer_close(&holder);
	assert_log(records + 2);
}

static void assert_gave_up(enum evbus_code code, const char *name)
{
	char text[128];

	snprintf(text, sizeof text, "gave up waiting for another process that holds '%s'", name);
	cr_assert(code == EVBUS_AGAIN && err.sys_errno == EINTR && strstr(err.text, text), "%d: %s", (int)code,
		  err.text);
	cr_assert_eq(asked, asks_max);
	cr_assert_geq(first_asked_us, 1000000, "it is asked after a second");
}

Test(writer_waits, for_the_append_lock_until_the_caller_has_enough)
{
	hold(LOCK_APPEND);
	assert_gave_up(publish(&writer, 1), "t/" LIVE);
	release(1);
}

Test(writer_waits, for_the_append_lock_and_goes_on_when_it_gets_it)
{
	hold(LOCK_APPEND);
	let_go = LOCK_APPEND;
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(asked, asks_max);
	release(2);
}

/* What was appended is there, and was not acknowledged. */
Test(writer_waits, for_who_syncs_until_the_caller_has_enough)
{
	hold(LOCK_SYNC);
	assert_gave_up(publish(&writer, 1), LOCK);
	release(2);
}

/* Every second look is a try for the lock, and the others are none. */
Test(writer_waits, for_who_says_that_he_syncs_until_the_caller_has_enough)
{
	hold(LOCK_SYNC);
	set_flag(&holder.control, CONTROL_SYNCING, true);
	for (uint64_t n = 1; n < 3; n++) {
		asked = 0;
		asks_max++;
		assert_gave_up(publish(&writer, n), LOCK);
	}
	release(3);
}

Test(writer_waits, for_who_syncs_and_goes_on_when_he_is_done)
{
	hold(LOCK_SYNC);
	let_go = LOCK_SYNC;
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	cr_assert_eq(asked, asks_max);
	release(2);
}

Test(writer_waits, to_append_where_too_much_is_unsynced_until_the_caller_has_enough)
{
	hold(LOCK_SYNC);
	for (uint64_t n = 1; n < 4; n++) {
		CLEANUP(group_release) struct group group = { 0 };
		struct mark mark;
		add_event(&group, &writer, n, 2000000);
		enum evbus_code code = writer_append(&writer, &group, UINT64_MAX, &mark, &err);
		if (n < 3)
			cr_assert_eq(code, EVBUS_OK, "%s", err.text);
		else
			assert_gave_up(code, LOCK);
	}
	release(3);
}

Test(writer_waits, to_settle_until_the_caller_has_enough)
{
	struct control_view view;
	bool there;

	hold(LOCK_SYNC);
	append_only(&writer, 1);
	assert_gave_up(writer_settle(&writer, &view, &err), LOCK);
	asked = 0;
	assert_gave_up(partition_settle(&topic, 0, &waiter, &view, &there, &err), LOCK);
	release(2);
}

Test(writer_waits, to_recover_until_the_caller_has_enough)
{
	struct control_view view;
	bool there;

	hold(LOCK_SYNC);
	/* Of a writer who was killed while he wrote. */
	CLEANUP(buf_release) struct buf file = load(LIVE);
	add(&file, "{\"off", 5);
	store_buf(LIVE, &file);
	assert_gave_up(publish(&writer, 1), LOCK);
	asked = 0;
	assert_gave_up(partition_settle(&topic, 0, &waiter, &view, &there, &err), LOCK);
	release(1);
}

Test(writer_waits, to_open_until_the_caller_has_enough)
{
	struct log_writer other;

	hold(LOCK_APPEND);
	cr_assert(!truncate(LOCK, 0));
	assert_gave_up(writer_open(&topic, 0, &waiter, &other, &err), "t/" LIVE);
	control_unlock(holder.fd, LOCK_APPEND);
	cr_assert_eq(writer_open(&topic, 0, &waiter, &other, &err), EVBUS_OK, "%s", err.text);
	writer_close(&other);
	release(1);
}

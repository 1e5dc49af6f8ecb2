/* commit.c: who waits for somebody else's sync waits at once, and not for a leader that is dead. */
#include "log_helpers.h"

TestSuite(commit_waits, .init = enter, .fini = leave, .timeout = 20);

#define WAITS_MAX 10

static struct log_writer leader, writer;
static int tries, waits, tries_before_wait;

static int count_tries(int fd, int cmd, struct flock *lock)
{
	tries += fd == writer.control.fd && lock->l_type == F_WRLCK;
	return real_os.lock(fd, cmd, lock);
}

static int leader_ends(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	(void)word, (void)value, (void)timeout;
	tries_before_wait = tries;
	waits++;
	set_flag(&leader.control, CONTROL_SYNCING, false);
	control_unlock(leader.control.fd, LOCK_SYNC);
	return 0;
}

static int nobody_wakes(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	(void)word, (void)value, (void)timeout;
	cr_assert_lt(++waits, WAITS_MAX, "waits for ever");
	errno = ETIMEDOUT;
	return -1;
}

/* Publishes while the page says that the leader syncs. */
static void publish_beside_the_leader(int (*wait)(uint32_t *word, uint32_t value, const struct timespec *timeout))
{
	set_flag(&leader.control, CONTROL_SYNCING, true);
	os.futex_wait = wait;
	os.lock = count_tries;
	cr_assert_eq(publish(&writer, 1), EVBUS_OK, "%s", err.text);
	os.futex_wait = real_os.futex_wait;
	os.lock = real_os.lock;
	cr_assert_eq(waits, 1);
	writer_close(&writer);
	writer_close(&leader);
}

Test(commit_waits, for_who_syncs_without_a_try_for_the_lock)
{
	must_open(&leader);
	must_open(&writer);
	cr_assert_eq(publish(&leader, 0), EVBUS_OK, "%s", err.text);
	cr_assert_eq(control_try_lock(leader.control.fd, LOCK_SYNC, F_WRLCK, LOCK, &err), EVBUS_OK, "%s", err.text);
	publish_beside_the_leader(leader_ends);
	cr_assert_eq(tries_before_wait, 0);
}

Test(commit_waits, only_once_for_one_who_died)
{
	must_open(&leader);
	must_open(&writer);
	cr_assert_eq(publish(&leader, 0), EVBUS_OK, "%s", err.text);
	publish_beside_the_leader(nobody_wakes);
}

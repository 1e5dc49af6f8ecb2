/* keys_lock.c: waiting for the lock of idempotent publishers. */
#include "keys_helpers.h"

#include <signal.h>
#include <sys/time.h>

TestSuite(keys_lock, .init = setup, .fini = teardown, .timeout = 60);

static int holder = -1;
static unsigned asked, asks_max;
static volatile sig_atomic_t stop;

/* Somebody else has the lock. */
static void hold(void)
{
	publish_keys(0, 0, 1);
	open_keys();
	holder = open("keys.lock", O_RDWR | O_CREAT, 0600);
	cr_assert_eq(control_try_lock(holder, LOCK_KEYS, F_WRLCK, "it", &err), EVBUS_OK, "%s", err.text);
}

/* Goes on until it was asked often enough. */
static bool ask_some(void *context)
{
	(void)context;
	return ++asked < asks_max;
}

static int64_t now_ms(void)
{
	struct timespec now;

	real_os.clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void assert_gives_up(const struct waiter *waiter)
{
	cr_assert_eq(keys_enter(keys, NULL, 0, waiter, &err), EVBUS_AGAIN);
	cr_assert_eq(err.sys_errno, EINTR);
	cr_assert(strstr(err.text, "publishes idempotently to 't'"), "%s", err.text);
	close(holder);
	holder = open("keys.lock", O_RDWR);
	cr_assert_not(control_is_locked(holder, LOCK_KEYS));
	enter_keys();
	keys_leave(keys);
	close(holder);
}

Test(keys_lock, is_not_to_be_had_of_a_topic_that_was_removed)
{
	open_keys();
	cr_assert(!chdir(".."));
	scratch_remove("t");
	cr_assert_eq(keys_enter(keys, NULL, 0, NULL, &err), EVBUS_CONFLICT);
	cr_assert_str_eq(err.text, "topic 't' was removed while it was open");
}

Test(keys_lock, is_waited_for_until_the_caller_has_enough)
{
	const struct waiter waiter = { .go_on = ask_some };

	hold();
	asks_max = 3;
	int64_t start_ms = now_ms();
	assert_gives_up(&waiter);
	cr_assert_eq(asked, 3);
	cr_assert(now_ms() - start_ms >= 200);
}

/* The holder leaves while he is asked, and then he is told to stop. */
static bool let_go(void *context)
{
	(void)context;
	if (!asked++)
		control_unlock(holder, LOCK_KEYS);
	return asked == 1;
}

Test(keys_lock, is_not_kept_by_one_who_was_told_to_stop_before_he_had_it)
{
	const struct waiter waiter = { .go_on = let_go };

	hold();
	assert_gives_up(&waiter);
	cr_assert_eq(asked, 2);
}

static void on_alarm(int number)
{
	stop = number;
}

/* The 100 ms never pass. */
static int stopped_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	if (clock == CLOCK_MONOTONIC)
		*now = (struct timespec){ .tv_sec = 1000 };
	return result;
}

static bool not_stopped(void *context)
{
	(void)context;
	asked++;
	return !stop;
}

Test(keys_lock, is_given_up_at_once_after_a_signal)
{
	const struct waiter waiter = { .go_on = not_stopped };
	const struct sigaction action = { .sa_handler = on_alarm };
	const struct itimerval soon = { .it_interval = { .tv_usec = 30000 }, .it_value = { .tv_usec = 30000 } };

	hold();
	os.clock_gettime = stopped_clock;
	cr_assert(!sigaction(SIGALRM, &action, NULL) && !setitimer(ITIMER_REAL, &soon, NULL));
	assert_gives_up(&waiter);
	cr_assert_eq(asked, 2);
}

static int64_t ahead_s;

static int fast_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	now->tv_sec += clock == CLOCK_MONOTONIC ? ahead_s++ : 0;
	return result;
}

Test(keys_lock, is_said_to_be_waited_for_once_and_after_a_second)
{
	const struct waiter waiter = { .go_on = ask_some };

	hold();
	notices = 0;
	asks_max = 2;
	cr_assert_eq(keys_enter(keys, NULL, 0, &waiter, &err), EVBUS_AGAIN);
	cr_assert_eq(notices, 0);
	os.clock_gettime = fast_clock;
	for (asks_max = 6; asks_max < 20; asks_max += 6) {
		cr_assert_eq(keys_enter(keys, NULL, 0, &waiter, &err), EVBUS_AGAIN);
		cr_assert_eq(notices, 1, "%d", notices);
	}
	cr_assert_str_eq(noticed, "waiting for another process that publishes idempotently to 't'");
	close(holder);
}

static int (*real_wait)(uint32_t *word, uint32_t value, const struct timespec *timeout);
static unsigned waits, wakes;

static int wait_for_ever(uint32_t *word, uint32_t value, const struct timespec *timeout)
{
	const struct timespec long_time = { .tv_sec = 30 };

	(void)timeout;
	waits++;
	return real_wait(word, value, &long_time);
}

static int count_wakes(uint32_t *word)
{
	wakes++;
	return real_os.futex_wake(word);
}

/* So that who comes again at once is not always ahead of those that sleep. */
Test(keys_lock, wakes_those_that_wait_when_it_is_left)
{
	struct keys *other;

	publish_keys(0, 0, 1);
	cr_assert_eq(keys_open(home(), rows, &other, &err), EVBUS_OK, "%s", err.text);
	enter_keys();
	pid_t child = fork();
	if (!child) {
		real_wait = os.futex_wait;
		os.futex_wait = wait_for_ever;
		_exit(keys_enter(other, NULL, 0, NULL, &err) ? 1 : waits ? 0 : 2);
	}
	int64_t start_ms = now_ms();
	struct timespec pause = { .tv_nsec = 200000000 };
	nanosleep(&pause, NULL);
	os.futex_wake = count_wakes;
	keys_leave(keys);
	cr_assert_eq(wakes, 1);
	cr_assert_eq(wait_for(child), 0);
	keys_close(other, false);
	cr_assert(now_ms() - start_ms < 10000);
}

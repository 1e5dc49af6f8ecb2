/* wait.c: waiting for another process. */
#include "base/wait.h"

#include "base/os.h"

#include <sched.h>

#define PATIENCE_US 1000000
#define YIELDS_MAX 64u /* most hold a lock for some microseconds */
#define PAUSE_MIN_US 20
#define PAUSE_MAX_US 10000
#define PAUSE_SHARE 8 /* of the time waited: nobody loses more than that by sleeping too long */

bool wait_goes_on(struct wait *wait)
{
	if (!wait_has_end(wait->waiter))
		return true;
	int64_t now_us = os_monotonic_us();
	if (!wait->since_us)
		wait->since_us = wait->asked_us = now_us;
	if (now_us - wait->since_us < PATIENCE_US || now_us - wait->asked_us < WAIT_ASK_US)
		return true;
	wait->asked_us = now_us;
	return wait->waiter->go_on(wait->waiter->context);
}

bool wait_a_little(struct wait *wait)
{
	if (wait->yields < YIELDS_MAX) {
		wait->yields++;
		sched_yield();
		return true;
	}
	if (!wait_goes_on(wait))
		return false;
	int64_t pause_us = (os_monotonic_us() - wait->since_us) / PAUSE_SHARE;
	if (pause_us < PAUSE_MIN_US)
		pause_us = PAUSE_MIN_US;
	if (pause_us > PAUSE_MAX_US)
		pause_us = PAUSE_MAX_US;
	nanosleep(&(struct timespec){ .tv_nsec = pause_us * 1000 }, NULL);
	return true;
}

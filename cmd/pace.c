/* pace.c: so many a second, evenly. */
#include "pace.h"

#include <time.h>

#define NS_PER_S 1000000000
#define NS_PER_MS 1000000
#define LATE_MAX_NS (100ll * NS_PER_MS) /* beyond this the timetable begins anew */
#define TIMER_MS 2                   /* the end of a pause is left to a timer that is more precise */

int64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t pace_next(struct pace *pace)
{
	if (pace->rate.per_second <= 0)
		return 0;
	double interval = NS_PER_S / pace->rate.per_second;
	int64_t now = monotonic_ns(), due = pace->begin_ns + (int64_t)((double)pace->gone * interval);

	if (pace->gone == 0 || now - due > LATE_MAX_NS) {
		pace->begin_ns = now;
		pace->gone = 0;
	}
	pace->gone++;
	return pace->gone > 1 && due > now ? due : 0;
}

/* wait_readable() misses no signal, but counts in milliseconds. */
void pace_wait(int64_t due_ns)
{
	const struct timespec time = { due_ns / NS_PER_S, due_ns % NS_PER_S };

	for (;;) {
		int64_t left_ms = (due_ns - monotonic_ns()) / NS_PER_MS;

		if (left_ms <= TIMER_MS)
			break;
		left_ms = left_ms < INT32_MAX ? left_ms : INT32_MAX;
		if (wait_readable(-1, (int)left_ms - TIMER_MS) == STOPPED)
			return;
	}
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

/* thread.c: starting threads. */
#include "base/thread.h"

#include <sched.h>
#include <signal.h>

bool thread_start(pthread_t *thread, void *(*work)(void *), void *context)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int failed = pthread_create(thread, NULL, work, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return !failed;
}

/* More of them than a set has room for are enough. */
unsigned thread_processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) ? 2 : (unsigned)CPU_COUNT(&set);
}

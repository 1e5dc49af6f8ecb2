/* wait.h: waiting for another process by trying over and over, for a call that blocks until it has a lock can be ended by
 * nothing but a signal to its own thread. */
#ifndef EVBUS_BASE_WAIT_H
#define EVBUS_BASE_WAIT_H

#include "base/err.h"

#define WAIT_ASK_US 100000

/* Whom to ask whether to go on. No waiter, or no go_on: as long as it takes. */
struct waiter {
	bool (*go_on)(void *context);
	void *context;
};

/* One wait. Begins with all but the waiter 0. */
struct wait {
	const struct waiter *waiter;
	int64_t since_us, asked_us;
	unsigned yields;
};

static inline bool wait_has_end(const struct waiter *waiter)
{
	return waiter && waiter->go_on;
}

/* Asks about every 100 ms, once it took a second: a disk may take so long, and what is nearly done is better done. false:
 * to be given up. */
bool wait_goes_on(struct wait *wait);

/* Sleeps between two tries, the longer the longer it took, and asks. */
bool wait_a_little(struct wait *wait);

#endif

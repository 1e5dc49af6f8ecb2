/* retry.h: the one retry policy: when the next attempt is due, and whether there is one. */
#ifndef EVBUS_DELIVERY_RETRY_H
#define EVBUS_DELIVERY_RETRY_H

#include "base/err.h"

/* EVBUS_USAGE: a factor below 1 or not finite, a negative time. */
CHECKED enum evbus_code retry_check(const struct evbus_retry *retry, struct evbus_err *err);

/* Whether another attempt follows after `attempts` of them have failed. */
static inline bool retry_again(const struct evbus_retry *retry, int64_t attempts)
{
	return attempts <= (int64_t)retry->max;
}

/* The delay before the attempt that follows `attempts` failed ones (at least 1), in milliseconds: from 0 to
 * retry_bound_ms(), uniformly. Never overflows, whatever the policy. */
int64_t retry_delay_ms(const struct evbus_retry *retry, int64_t attempts);
int64_t retry_bound_ms(const struct evbus_retry *retry, int64_t attempts);

/* The time at which it is due. A clock that went back since does no harm: who finds a due time that is further away
 * than the bound takes it for due (retry_is_due). */
int64_t retry_due_us(const struct evbus_retry *retry, int64_t attempts, int64_t now_us);
bool retry_is_due(const struct evbus_retry *retry, int64_t attempts, int64_t due_us, int64_t now_us);

#endif

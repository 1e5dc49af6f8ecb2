/* retry.c: exponential backoff with full jitter (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog,
 * 2015): the delay is drawn evenly from zero to the bound, so that those who failed together do not come back together. */
#include "delivery/retry.h"

#include "base/os.h"

#include <math.h>

#define TIME_MAX_MS 253402300799999.0    /* the end of the year 9999 */

enum evbus_code retry_check(const struct evbus_retry *retry, struct evbus_err *err)
{
	if (!isfinite(retry->factor) || retry->factor < 1)
		return err_set(err, EVBUS_USAGE, 0, "a retry factor is a number of at least 1, not %g", retry->factor);
	if (retry->delay_ms < 0 || retry->cap_ms < 0)
		return err_set(err, EVBUS_USAGE, 0, "a retry delay is not negative");
	return EVBUS_OK;
}

/* By squaring; without libm, which every start would have to load. */
static double power(double base, int64_t exponent)
{
	double result = 1;

	for (; exponent > 0; exponent /= 2) {
		if (exponent % 2)
			result *= base;
		base *= base;
	}
	return result;
}

int64_t retry_bound_ms(const struct evbus_retry *retry, int64_t attempts)
{
	double cap = (double)retry->cap_ms < TIME_MAX_MS ? (double)retry->cap_ms : TIME_MAX_MS;
	double bound = (double)retry->delay_ms * power(retry->factor, attempts - 1);

	/* Infinity is above the cap; 0 * infinity is no number, and no delay. */
	if (isnan(bound))
		return 0;
	return (int64_t)(bound < cap ? bound : cap);
}

int64_t retry_delay_ms(const struct evbus_retry *retry, int64_t attempts)
{
	int64_t bound = retry_bound_ms(retry, attempts);
	uint64_t random = 0;

	/* Without randomness the longest delay is the safe one. */
	if (os.getrandom(&random, sizeof random, 0) != sizeof random)
		return bound;
	/* Of 2^64 values and a bound below 2^48 the unevenness is below 2^-16. */
	return (int64_t)(random % ((uint64_t)bound + 1));
}

int64_t retry_due_us(const struct evbus_retry *retry, int64_t attempts, int64_t now_us)
{
	return now_us + retry_delay_ms(retry, attempts) * 1000;
}

bool retry_is_due(const struct evbus_retry *retry, int64_t attempts, int64_t due_us, int64_t now_us)
{
	return due_us <= now_us || due_us - now_us > retry_bound_ms(retry, attempts) * 1000;
}

int64_t evbus_retry_delay_ms(const struct evbus_retry *retry, int64_t attempts)
{
	return retry_delay_ms(retry, attempts);
}

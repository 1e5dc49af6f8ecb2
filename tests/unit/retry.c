/* The retry policy: delays within their bounds, evenly drawn, whatever the numbers. */
#include "delivery/retry.h"

#include "base/os.h"

#include <criterion/criterion.h>
#include <math.h>

#define DRAWS 10000
#define YEAR_10000_US 253402300800000000

static struct evbus_err err;

static const struct evbus_retry standard = EVBUS_RETRY_DEFAULT;

Test(retry, bounds_double_up_to_the_cap)
{
	static const int64_t bounds[] = { 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000 };

	for (int64_t n = 1; n <= 8; n++)
		cr_assert_eq(retry_bound_ms(&standard, n), bounds[n - 1]);
	cr_assert_eq(retry_bound_ms(&standard, INT64_MAX), 60000);
}

Test(retry, ends_after_the_last_attempt)
{
	struct evbus_retry retry = standard;

	cr_assert(retry_again(&retry, 1) && retry_again(&retry, 5) && !retry_again(&retry, 6));
	retry.max = 0;
	cr_assert(!retry_again(&retry, 1));
	retry.max = 1;
	cr_assert(retry_again(&retry, 1) && !retry_again(&retry, 2));
	retry.max = UINT32_MAX;
	cr_assert(retry_again(&retry, UINT32_MAX) && !retry_again(&retry, (int64_t)UINT32_MAX + 1));
	cr_assert(!retry_again(&retry, INT64_MAX));
}

/* Sixteen classes of equal width, of which each is hit about as often: chi-squared with 15 degrees of freedom exceeds
 * 50 once in a hundred thousand runs. */
static void check_draws(const struct evbus_retry *retry, int64_t attempts)
{
	int64_t bound = retry_bound_ms(retry, attempts), classes[16] = { 0 };
	double chi = 0, expected = DRAWS / 16.0;
	bool low = false, high = false;

	for (int i = 0; i < DRAWS; i++) {
		int64_t delay = retry_delay_ms(retry, attempts);
		cr_assert(delay >= 0 && delay <= bound, "%lld of %lld", (long long)delay, (long long)bound);
		low = low || delay <= bound / 100;
		high = high || delay >= bound - bound / 100;
		classes[(int)((double)delay * 16 / ((double)bound + 1))]++;
	}
	cr_assert(low && high);
	for (int i = 0; bound >= 1000 && i < 16; i++)
		chi += ((double)classes[i] - expected) * ((double)classes[i] - expected) / expected;
	cr_assert(chi < 50, "attempt %lld: chi-squared is %g", (long long)attempts, chi);
}

Test(retry, ten_thousand_draws_of_each_attempt_are_within_bounds_and_even)
{
	for (int64_t attempts = 1; attempts <= 6; attempts++)
		check_draws(&standard, attempts);
}

Test(retry, draws_of_the_smallest_and_the_largest_bounds_are_within_them)
{
	struct evbus_retry retry = { 5, 0, 2, 60000 };

	check_draws(&retry, 1);
	cr_assert_eq(retry_delay_ms(&retry, 1000000), 0);
	retry = (struct evbus_retry){ 5, 1, 1, 60000 };
	check_draws(&retry, 1);
	cr_assert_eq(retry_bound_ms(&retry, INT64_MAX), 1);
	retry = (struct evbus_retry){ 5, 1000, 2, 0 };
	cr_assert_eq(retry_delay_ms(&retry, 3), 0);
	retry = (struct evbus_retry){ 5, INT64_MAX, 1e308, INT64_MAX };
	check_draws(&retry, 1);
	check_draws(&retry, 2);
	check_draws(&retry, INT64_MAX);
}

Test(retry, never_overflows)
{
	static const int64_t times[] = { 0, 1, 999, 60000, INT64_MAX / 1000, INT64_MAX - 1, INT64_MAX };
	static const double factors[] = { 1, 1.0000001, 2, 1e9, 1e308 };
	static const int64_t counts[] = { 1, 2, 63, 64, 65, 1024, UINT32_MAX, INT64_MAX };
	size_t checked = 0;

	for (size_t d = 0; d < sizeof times / sizeof *times; d++)
		for (size_t c = 0; c < sizeof times / sizeof *times; c++)
			for (size_t f = 0; f < sizeof factors / sizeof *factors; f++)
				for (size_t n = 0; n < sizeof counts / sizeof *counts; n++, checked++) {
					struct evbus_retry retry = { 5, times[d], factors[f], times[c] };
					int64_t bound = retry_bound_ms(&retry, counts[n]);
					int64_t due = retry_due_us(&retry, counts[n], YEAR_10000_US);
					cr_assert(bound >= 0 && bound <= times[c]);
					cr_assert(due >= YEAR_10000_US && due - YEAR_10000_US <= bound * 1000);
					cr_assert(!times[d] || !times[c] || bound > 0);
				}
	cr_assert_eq(checked, 7 * 7 * 5 * 8);
}

Test(retry, a_bound_never_shrinks_from_one_attempt_to_the_next)
{
	struct evbus_retry retry = { 5, 3, 1.3, 1000000 };

	for (int64_t n = 1; n < 200; n++)
		cr_assert(retry_bound_ms(&retry, n + 1) >= retry_bound_ms(&retry, n));
}

Test(retry, what_is_due_is_told_by_the_clock)
{
	cr_assert(retry_is_due(&standard, 1, 1000, 1000) && retry_is_due(&standard, 1, 1000, 2000));
	cr_assert(!retry_is_due(&standard, 1, 1001, 1000));
	cr_assert(!retry_is_due(&standard, 1, 1000000, 0), "the longest that the first may wait");
	cr_assert(!retry_is_due(&standard, 100, 60000000, 0));
}

Test(retry, a_clock_that_went_back_makes_nothing_wait_longer_than_its_bound)
{
	cr_assert(retry_is_due(&standard, 1, 1000001, 0));
	cr_assert(retry_is_due(&standard, 100, 60000001, 0));
	cr_assert(retry_is_due(&standard, 1, INT64_MAX, 0));
	cr_assert(retry_is_due(&standard, 1, YEAR_10000_US, -YEAR_10000_US));
	/* Whatever was drawn, as long as the clock stands still or goes on, it is not due before. */
	for (int i = 0; i < DRAWS; i++) {
		int64_t due = retry_due_us(&standard, 3, 5000000);
		cr_assert(due == 5000000 || !retry_is_due(&standard, 3, due, 5000000));
		cr_assert(retry_is_due(&standard, 3, due, due));
	}
}

static ssize_t no_randomness(void *data, size_t len, unsigned flags)
{
	(void)data;
	(void)len;
	(void)flags;
	return -1;
}

Test(retry, waits_longest_where_there_is_no_randomness)
{
	os.getrandom = no_randomness;
	cr_assert_eq(retry_delay_ms(&standard, 3), 4000);
}

Test(retry, policies_that_make_no_sense_are_refused)
{
	static const struct evbus_retry bad[] = { { 5, 1000, 0.99, 60000 }, { 5, 1000, 0, 60000 },
						  { 5, 1000, -2, 60000 },   { 5, 1000, NAN, 60000 },
						  { 5, 1000, INFINITY, 1 }, { 5, -1, 2, 60000 },
						  { 5, 1000, 2, -1 } };
	static const struct evbus_retry good[] = { EVBUS_RETRY_DEFAULT,
						   { 0, 0, 1, 0 },
						   { UINT32_MAX, INT64_MAX, 1e308, INT64_MAX } };

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_assert_eq(retry_check(&bad[i], &err), EVBUS_USAGE, "%zu", i);
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		cr_assert_eq(retry_check(&good[i], &err), EVBUS_OK, "%zu", i);
}

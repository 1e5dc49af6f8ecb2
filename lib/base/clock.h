/* clock.h: times as microseconds since 1970, in UTC, and as text (RFC 3339). */
#ifndef EVBUS_BASE_CLOCK_H
#define EVBUS_BASE_CLOCK_H

#include "base/err.h"

#define TIME_TEXT_LEN 27u            /* 2026-01-29T12:00:00.123456Z */
#define TIME_MAX_US 253402300799999999   /* 9999-12-31T23:59:59.999999Z; clock_format clamps into 0…this */

void clock_format(int64_t time_us, char text[TIME_TEXT_LEN]);

/* The same, where many times are written and most are of the second of the one before. second: cleared at first. */
struct clock_second {
	int64_t us;
	char text[20];                   /* 2026-01-29T12:00:00. */
};
void clock_format_near(int64_t time_us, struct clock_second *second, char text[TIME_TEXT_LEN]);

/* Exactly the form that clock_format writes (a real date). false: it is not. */
bool clock_parse_exact(const char text[TIME_TEXT_LEN], int64_t *time_us);

/* The same, where many times are read and most are of the minute of the one before. minute: cleared at first. */
struct clock_minute {
	char text[16];                   /* 2026-01-29T12:00 */
	int64_t us;
};
bool clock_parse_near(const char text[TIME_TEXT_LEN], struct clock_minute *minute, int64_t *time_us);

/* RFC 3339 with any offset and 0 to 9 digits of a second (cut to microseconds, leap second :60 taken as :59.999999);
 * false: it is not. Used for occurred_at and TIME. */
bool clock_parse(const char *text, size_t len, int64_t *time_us);

#endif

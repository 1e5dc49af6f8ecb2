/* clock.c: times as text and back, against the C library where it can say. */
#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND 1000000ll
#define NOW (1769688000ll * SECOND) /* 2026-01-29T12:00:00Z */

static const char *text_of(int64_t time_us)
{
	static char text[28];

	evbus_time_format(time_us, text);
	return text;
}

static const char *parsed(const char *text)
{
	int64_t time_us;

	return clock_parse(text, strlen(text), &time_us) ? text_of(time_us) : "none";
}

static const char *time_of(const char *text)
{
	struct evbus_err err;
	int64_t time_us;

	return evbus_time_parse(text, NOW, &time_us, &err) == EVBUS_OK ? text_of(time_us) : "none";
}

Test(clock, writes_microseconds_in_utc)
{
	cr_expect_str_eq(text_of(0), "1970-01-01T00:00:00.000000Z");
	cr_expect_str_eq(text_of(NOW + 123456), "2026-01-29T12:00:00.123456Z");
	cr_expect_str_eq(text_of(951782399 * SECOND + 999999), "2000-02-28T23:59:59.999999Z");
	cr_expect_str_eq(text_of(951782400 * SECOND), "2000-02-29T00:00:00.000000Z");
	cr_expect_str_eq(text_of(4107542400 * SECOND), "2100-03-01T00:00:00.000000Z");
}

Test(clock, clamps_what_it_cannot_write)
{
	cr_expect_str_eq(text_of(-1), "1970-01-01T00:00:00.000000Z");
	cr_expect_str_eq(text_of(INT64_MIN), "1970-01-01T00:00:00.000000Z");
	cr_expect_str_eq(text_of(TIME_MAX_US), "9999-12-31T23:59:59.999999Z");
	cr_expect_str_eq(text_of(TIME_MAX_US + 1), "9999-12-31T23:59:59.999999Z");
	cr_expect_str_eq(text_of(INT64_MAX), "9999-12-31T23:59:59.999999Z");
}

/* Every day that can be written, at a time that wanders through the day. */
Test(clock, agrees_with_the_c_library_on_every_day_and_reads_back_what_it_wrote)
{
	for (int64_t day = 0; day <= TIME_MAX_US / SECOND / 86400; day++) {
		time_t seconds = day * 86400 + day * 7919 % 86400;
		int64_t fraction = day * 104729 % SECOND, back = -1;
		struct tm tm;
		char right[64];
		gmtime_r(&seconds, &tm);
		size_t len = strftime(right, sizeof right, "%Y-%m-%dT%H:%M:%S", &tm);
		snprintf(right + len, sizeof right - len, ".%06dZ", (int)fraction);
		const char *text = text_of(seconds * SECOND + fraction);
		cr_assert_str_eq(text, right);
		cr_assert(clock_parse_exact(text, &back));
		cr_assert_eq(back, seconds * SECOND + fraction);
		cr_assert(clock_parse(text, TIME_TEXT_LEN, &back));
		cr_assert_eq(back, seconds * SECOND + fraction);
	}
}

Test(clock, takes_exactly_the_form_that_it_writes)
{
	const char good[] = "2026-01-29T12:34:56.123456Z";
	int64_t time_us = 42;

	for (size_t at = 0; at < TIME_TEXT_LEN; at++)
		for (int c = 0; c < 256; c++) {
			char text[sizeof good];
			memcpy(text, good, sizeof good);
			text[at] = (char)c;
			bool digit = good[at] >= '0' && good[at] <= '9' && c >= '0' && c <= '9';
			if (!digit && text[at] != good[at])
				cr_assert_not(clock_parse_exact(text, &time_us), "%s", text);
		}
	cr_expect_eq(time_us, 42, "an output is written on success only");
	cr_expect(clock_parse_exact(good, &time_us));
}

Test(clock, refuses_dates_and_times_that_are_not_real)
{
	static const char *const bad[] = {
		"2026-00-01T00:00:00.000000Z", "2026-13-01T00:00:00.000000Z", "2026-01-00T00:00:00.000000Z",
		"2026-01-32T00:00:00.000000Z", "2026-04-31T00:00:00.000000Z", "2026-02-29T00:00:00.000000Z",
		"2100-02-29T00:00:00.000000Z", "2026-01-01T24:00:00.000000Z", "2026-01-01T00:60:00.000000Z",
		"2026-01-01T00:00:61.000000Z", "2026-01-01T00:00:60.000000Z",
	};
	int64_t time_us;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_expect_not(clock_parse_exact(bad[i], &time_us), "%s", bad[i]);
		cr_expect_not(clock_parse(bad[i], TIME_TEXT_LEN, &time_us), "%s", bad[i]);
	}
	cr_expect(clock_parse_exact("2000-02-29T00:00:00.000000Z", &time_us));
	cr_expect_not(clock_parse_exact("1969-12-31T23:59:59.999999Z", &time_us));
	/* What stands in the minute before any was read. */
	cr_expect_not(clock_parse_exact("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0:00.000000Z", &time_us));
}

/* What was read before makes no difference: each text by itself says what it says after any other. */
Test(clock, a_time_is_read_the_same_near_another)
{
	static const char *const texts[] = {
		"2026-01-29T12:00:00.123456Z", "2026-01-29T12:00:59.999999Z", "2026-01-29T12:00:60.000000Z",
		"2026-01-29T12:01:00.000000Z", "2026-01-29T12:00:07.12345ZZ", "2026-01-29T12:00:0x.123456Z",
		"2026-01-29T12:00-00.123456Z", "2026-01-29T12:00:00,123456Z", "2026-01-29T12:00:00.123456z",
		"2026-01-29T12:00:00.12345x\x5a", "2026-02-30T12:00:00.000000Z", "2026-01-29 12:00:00.123456Z",
		"2025-01-29T12:00:00.123456Z", "2026-01-29T24:00:00.000000Z", "1969-12-31T23:59:59.999999Z",
		"1970-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z",
	};
	const size_t count = sizeof texts / sizeof *texts;

	for (size_t i = 0; i < count * count; i++) {
		struct clock_minute minute = { .us = 0 };
		int64_t alone = -1, near = -1;
		cr_assert_eq(strlen(texts[i / count]), TIME_TEXT_LEN);
		(void)clock_parse_near(texts[i / count], &minute, &near);
		near = -1;
		bool is_time = clock_parse_exact(texts[i % count], &alone);
		cr_assert_eq(clock_parse_near(texts[i % count], &minute, &near), is_time, "%s", texts[i % count]);
		cr_assert_eq(near, alone, "%s", texts[i % count]);
	}
}

/* Whatever was written before, and whether the time after it is later or earlier. */
Test(clock, a_time_is_written_the_same_near_another)
{
	static const int64_t noon = 1769688000000000;
	static const int64_t times[] = {
		noon,    noon + 1, noon + 999999, noon + 1000000, noon - 1,        noon - 1000000, 0, 1, 999999,
		1000000, -1,       INT64_MIN,     TIME_MAX_US,    TIME_MAX_US + 1, INT64_MAX
	};
	const size_t count = sizeof times / sizeof *times;

	for (size_t i = 0; i < count * count; i++) {
		struct clock_second second = { .us = 0 };
		char alone[TIME_TEXT_LEN], near[TIME_TEXT_LEN];
		clock_format(times[i % count], alone);
		clock_format_near(times[i / count], &second, near);
		clock_format_near(times[i % count], &second, near);
		cr_assert_arr_eq(near, alone, TIME_TEXT_LEN, "%.27s, %.27s", near, alone);
	}
}

Test(clock, reads_rfc_3339_with_any_offset)
{
	cr_expect_str_eq(parsed("2026-01-29T12:00:00Z"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-29t12:00:00z"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-29 12:00:00Z"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00+01:00"), "2026-01-29T11:00:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00-05:30"), "2026-01-29T17:30:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00-00:00"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(parsed("2025-12-31T23:30:00-01:00"), "2026-01-01T00:30:00.000000Z");
	cr_expect_str_eq(parsed("2026-01-01T00:30:00+23:59"), "2025-12-31T00:31:00.000000Z");
}

Test(clock, cuts_what_is_finer_than_a_microsecond)
{
	cr_expect_str_eq(parsed("2026-01-29T12:00:00.1Z"), "2026-01-29T12:00:00.100000Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00.123Z"), "2026-01-29T12:00:00.123000Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00.1234567+00:00"), "2026-01-29T12:00:00.123456Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00.999999999Z"), "2026-01-29T12:00:00.999999Z");
	cr_expect_str_eq(parsed("2026-01-29T12:00:00.9999999999Z"), "none");
}

Test(clock, takes_a_leap_second_as_the_last_microsecond_before_it)
{
	cr_expect_str_eq(parsed("2016-12-31T23:59:60Z"), "2016-12-31T23:59:59.999999Z");
	cr_expect_str_eq(parsed("2016-12-31T23:59:60.5Z"), "2016-12-31T23:59:59.999999Z");
	cr_expect_str_eq(parsed("2016-12-31T15:59:60-08:00"), "2016-12-31T23:59:59.999999Z");
	cr_expect_str_eq(parsed("2016-12-31T12:30:60Z"), "none");
	cr_expect_str_eq(parsed("2016-12-31T23:59:60-08:00"), "none");
}

Test(clock, reads_times_before_1970)
{
	int64_t time_us;

	cr_assert(clock_parse("1969-12-31T23:59:59.5Z", 22, &time_us));
	cr_expect_eq(time_us, -500000);
	cr_assert(clock_parse("0000-01-01T00:00:00Z", 20, &time_us));
	cr_expect_eq(time_us, -62167219200 * SECOND);
}

Test(clock, refuses_what_is_not_rfc_3339)
{
	static const char *const bad[] = {
		"",
		"Z",
		"2026-01-29",
		"2026-01-29T12:00:00",
		"2026-01-29T12:00Z",
		"2026-01-29T12:00:00.Z",
		"2026-01-29T12:00:00+0100",
		"2026-01-29T12:00:00+01",
		"2026-01-29T12:00:00+24:00",
		"2026-01-29T12:00:00+01:60",
		"2026-01-29T12:00:00+1:00",
		"2026-01-29T12:00:00 Z",
		"2026-01-29T12:00:00ZZ",
		"2026-01-29T12:00:00Z ",
		" 2026-01-29T12:00:00Z",
		"2026-1-29T12:00:00Z",
		"2026/01/29T12:00:00Z",
		"2026-01-29_12:00:00Z",
		"2026-01-29T12:00:00,5Z",
		"2026-01-29T12:00:0 Z",
		"20260129T120000Z",
		"+2026-01-29T12:00:00Z",
		"2026-01-29T12:00:00.5",
		"2026-01-29T12:00:00+",
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_expect_str_eq(parsed(bad[i]), "none", "'%s'", bad[i]);
}

Test(clock, takes_every_form_of_time_on_the_command_line)
{
	cr_expect_str_eq(time_of("2026-01-29T13:00:00+01:00"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(time_of("-90s"), "2026-01-29T11:58:30.000000Z");
	cr_expect_str_eq(time_of("-15m"), "2026-01-29T11:45:00.000000Z");
	cr_expect_str_eq(time_of("-2h"), "2026-01-29T10:00:00.000000Z");
	cr_expect_str_eq(time_of("-3d"), "2026-01-26T12:00:00.000000Z");
	cr_expect_str_eq(time_of("-1w"), "2026-01-22T12:00:00.000000Z");
	cr_expect_str_eq(time_of("-0s"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(time_of("1769688000"), "2026-01-29T12:00:00.000000Z");
	cr_expect_str_eq(time_of("1769688000.25"), "2026-01-29T12:00:00.250000Z");
	cr_expect_str_eq(time_of("1769688000.1234567"), "2026-01-29T12:00:00.123456Z");
	cr_expect_str_eq(time_of("0"), "1970-01-01T00:00:00.000000Z");
	cr_expect_str_eq(time_of("253402300799"), "9999-12-31T23:59:59.000000Z");
}

Test(clock, refuses_any_other_form_and_names_those_it_takes)
{
	static const char *const bad[] = { "",
					   "-",
					   "now",
					   "yesterday",
					   "15m",
					   "-15",
					   "-15M",
					   "-15mm",
					   "-m",
					   "--15m",
					   "-1.5h",
					   "-15 m",
					   "+15m",
					   "-1y",
					   "1769688000.",
					   ".5",
					   "1e9",
					   "0x10",
					   " 1",
					   "1 ",
					   "1.1234567890",
					   "253402300800",
					   "1769688000000",
					   "99999999999999999999",
					   "-999999999999w",
					   "-9999999999999s",
					   "2026-01-29",
					   "12:00",
					   "@1769688000" };
	struct evbus_err err;
	int64_t time_us = 42;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		cr_expect_eq(evbus_time_parse(bad[i], NOW, &time_us, &err), EVBUS_USAGE, "'%s'", bad[i]);
		cr_expect(strstr(err.text, "RFC 3339") && strstr(err.text, "-15m") && strstr(err.text, "Unix seconds"));
	}
	cr_expect_eq(time_us, 42);
}

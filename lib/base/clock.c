/* clock.c: times as text and back.
 *
 * Days and dates are turned into each other by arithmetic alone: a year begins in March there, so that the leap day is
 * its last one (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"). clock_format runs once an event;
 * gmtime and snprintf would cost more than the checksum of the event. */
#include "base/clock.h"

#include "base/decimal.h"

#include <endian.h>
#include <string.h>

#define SECOND_US 1000000
#define DAY_SECONDS 86400
#define DAY_US ((int64_t)DAY_SECONDS * SECOND_US)
#define ERA_DAYS 146097 /* 400 years, after which the calendar repeats */
#define ERA_YEARS 400
#define EPOCH_DAYS 719468 /* from 0000-03-01 to 1970-01-01 */
#define DATE_TIME_LEN 19u /* 2026-01-29T12:00:00 */
#define SHOWN_MAX_BYTES 64
#define MINUTE_TEXT_LEN 16u /* 2026-01-29T12:00 */
#define SECOND_TEXT_LEN 20u /* 2026-01-29T12:00:00. */

struct civil {
	unsigned year, month, day, hour, minute, second;
};

/* ---- dates ----------------------------------------------------------------------------------------------------- */

static inline int64_t days_of(const struct civil *c)
{
	/* One era up and down again, so that January of year 0 stays in what is not negative. */
	unsigned year = c->year + ERA_YEARS - (c->month <= 2);
	unsigned year_of_era = year % ERA_YEARS;
	unsigned day_of_year = (153 * (c->month > 2 ? c->month - 3 : c->month + 9) + 2) / 5 + c->day - 1;
	unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
	return ((int64_t)(year / ERA_YEARS) - 1) * ERA_DAYS + day_of_era - EPOCH_DAYS;
}

/* Neri and Schneider, "Euclidean affine functions and their application to calendar algorithms", 2022, figure 12: each
 * division by the length of a year or a month is a multiplication whose low half carries the remainder on. */
static void date_of(uint32_t days, struct civil *c)
{
	uint32_t quarters = 4 * (days + EPOCH_DAYS) + 3;
	uint32_t century = quarters / ERA_DAYS;
	uint64_t years = (uint64_t)2939745 * (quarters % ERA_DAYS | 3);
	uint32_t day_of_year = (uint32_t)years / 2939745 / 4;
	uint32_t months = 2141 * day_of_year + 197913;
	bool next_year = day_of_year >= 306; /* from the first of January on */

	c->year = 100 * century + (uint32_t)(years >> 32) + next_year;
	c->month = (months >> 16) - (next_year ? 12 : 0);
	c->day = (months & 0xffff) / 2141 + 1;
}

static inline bool is_real(const struct civil *c)
{
	static const uint8_t month_days[] = { 0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	if (c->month < 1 || c->month > 12 || c->hour > 23 || c->minute > 59 || c->second > 59)
		return false;
	bool leap_day = c->month == 2 && c->year % 4 == 0 && (c->year % 100 != 0 || c->year % 400 == 0);
	return c->day >= 1 && c->day <= month_days[c->month] + (unsigned)leap_day;
}

static inline int64_t seconds_of(const struct civil *c)
{
	return days_of(c) * DAY_SECONDS + (int64_t)(c->hour * 3600 + c->minute * 60 + c->second);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* value < 100 */
static inline void put_two(char *at, uint32_t value)
{
	uint32_t tens = value * 103 >> 10; /* value / 10, exact up to 178 */

	at[0] = (char)('0' + tens);
	at[1] = (char)('0' + (value - 10 * tens));
}

static void format_second(uint64_t seconds, char text[SECOND_TEXT_LEN])
{
	uint32_t of_day = (uint32_t)(seconds % DAY_SECONDS);
	struct civil c;

	date_of((uint32_t)(seconds / DAY_SECONDS), &c);
	memcpy(text, "0000-00-00T00:00:00.", SECOND_TEXT_LEN);
	put_two(text, c.year / 100);
	put_two(text + 2, c.year % 100);
	put_two(text + 5, c.month);
	put_two(text + 8, c.day);
	put_two(text + 11, of_day / 3600);
	put_two(text + 14, of_day / 60 % 60);
	put_two(text + 17, of_day % 60);
}

void clock_format_near(int64_t time_us, struct clock_second *second, char text[TIME_TEXT_LEN])
{
	int64_t us = time_us < 0 ? 0 : time_us > TIME_MAX_US ? TIME_MAX_US : time_us;

	if (!second->text[0] || us < second->us || us - second->us >= SECOND_US) {
		second->us = us - us % SECOND_US;
		format_second((uint64_t)us / SECOND_US, second->text);
	}
	/* Six digits and a Z. In few pieces: what is read of it at once, for the checksum, is there sooner. */
	uint64_t rest = decimal_eight((uint32_t)(us - second->us)) >> 16 | (uint64_t)'Z' << 48;
	rest = htole64(rest);
	memcpy(text, second->text, SECOND_TEXT_LEN);
	memcpy(text + SECOND_TEXT_LEN, &rest, TIME_TEXT_LEN - SECOND_TEXT_LEN);
}

void clock_format(int64_t time_us, char text[TIME_TEXT_LEN])
{
	struct clock_second second = { .us = 0 };

	clock_format_near(time_us, &second, text);
}

void evbus_time_format(int64_t time_us, char text[28])
{
	clock_format(time_us, text);
	text[TIME_TEXT_LEN] = '\0';
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Two digits; *bad is set where they are none. */
static inline unsigned two(const char *at, bool *bad)
{
	unsigned tens = (unsigned)(unsigned char)at[0] - '0';
	unsigned ones = (unsigned)(unsigned char)at[1] - '0';

	*bad |= (tens > 9) | (ones > 9);
	return tens * 10 + ones;
}

#define BYTES_OF(c) (0x0101010101010101u * (c))

/* Eight bytes that have a digit where form has a 0, and elsewhere what form has, all at once; *bad is set where they are
 * not so. Byte i of the result, from the lowest, is the number of two digits that begins at i, where one does. */
static inline uint64_t pairs(const char *text, const char form[8], bool *bad)
{
	uint64_t bytes, expected;

	memcpy(&bytes, text, sizeof bytes);
	memcpy(&expected, form, sizeof expected);
	/* What is above 9, and what is not 0 where no digit is expected, reaches the highest bit of its byte. */
	uint64_t digits = bytes ^ expected, others = (expected ^ BYTES_OF('0')) + BYTES_OF(0x7f);
	uint64_t room = BYTES_OF(0x76) + (others >> 7 & BYTES_OF(1)) * 9;
	*bad |= ((digits | (digits + room)) & BYTES_OF(0x80)) != 0;
	digits = le64toh(digits);
	return digits * 10 + (digits >> 8);
}

static inline unsigned pair(uint64_t pairs, unsigned at)
{
	return (unsigned)(pairs >> 8 * at & 0xff);
}

/* 2026-01-29, any byte, 12:00:00; that they are a real date is for is_real() to say. */
static inline struct civil read_civil(const char *text, bool *bad)
{
	uint64_t date = pairs(text, "0000-00-", bad), time = pairs(text + 11, "00:00:00", bad);

	return (struct civil){
		.year = pair(date, 0) * 100 + pair(date, 2),
		.month = pair(date, 5),
		.day = two(text + 8, bad),
		.hour = pair(time, 0),
		.minute = pair(time, 3),
		.second = pair(time, 6),
	};
}

bool clock_parse_near(const char text[TIME_TEXT_LEN], struct clock_minute *minute, int64_t *time_us)
{
	/* The T also where the minute is the same, for the one before any has none. */
	bool bad = (text[10] != 'T') | (text[TIME_TEXT_LEN - 1] != 'Z');
	uint64_t part = pairs(text + MINUTE_TEXT_LEN, ":00.0000", &bad);
	unsigned second = pair(part, 1), rest = two(text + 24, &bad);

	if (memcmp(minute->text, text, MINUTE_TEXT_LEN) != 0) {
		struct civil c = read_civil(text, &bad);
		if (bad || c.year < 1970 || !is_real(&c))
			return false;
		memcpy(minute->text, text, MINUTE_TEXT_LEN);
		minute->us = (seconds_of(&c) - c.second) * SECOND_US;
	}
	if (bad || second > 59)
		return false;
	*time_us = minute->us + (int64_t)second * SECOND_US + (pair(part, 4) * 10000 + pair(part, 6) * 100 + rest);
	return true;
}

bool clock_parse_exact(const char text[TIME_TEXT_LEN], int64_t *time_us)
{
	struct clock_minute minute = { .us = 0 };

	return clock_parse_near(text, &minute, time_us);
}

/* A point and 1 to 9 digits at *text, or nothing, as microseconds; what is finer is cut. */
static bool read_fraction(const char **text, const char *end, int64_t *us)
{
	int64_t unit = SECOND_US / 10;
	const char *p = *text;

	*us = 0;
	if (p == end || *p != '.')
		return true;
	const char *first = ++p;
	for (; p < end && *p >= '0' && *p <= '9'; p++, unit /= 10)
		*us += (*p - '0') * unit;
	*text = p;
	return p - first >= 1 && p - first <= 9;
}

/* Z, or +hh:mm, or -hh:mm, and nothing after it. */
static bool read_offset(const char *text, const char *end, int64_t *seconds)
{
	bool bad = false;

	*seconds = 0;
	if (end - text == 1)
		return *text == 'Z' || *text == 'z';
	if (end - text != 6 || (text[0] != '+' && text[0] != '-') || text[3] != ':')
		return false;
	unsigned hours = two(text + 1, &bad), minutes = two(text + 4, &bad);
	*seconds = (text[0] == '-' ? -1 : 1) * (int64_t)(hours * 3600 + minutes * 60);
	return !bad && hours <= 23 && minutes <= 59;
}

bool clock_parse(const char *text, size_t len, int64_t *time_us)
{
	bool bad = false;
	int64_t us, offset;

	if (len <= DATE_TIME_LEN)
		return false;
	const char *at = text + DATE_TIME_LEN, *end = text + len;
	struct civil c = read_civil(text, &bad);
	/* RFC 3339, section 5.6: t and z may be lower-case, and a blank may stand for the T. */
	if (bad || (text[10] != 'T' && text[10] != 't' && text[10] != ' '))
		return false;
	bool leap_second = c.second == 60;
	c.second -= leap_second;
	if (!is_real(&c) || !read_fraction(&at, end, &us) || !read_offset(at, end, &offset))
		return false;
	int64_t seconds = seconds_of(&c) - offset;
	/* They are inserted at the end of a day in UTC, nowhere else. */
	if (leap_second && (seconds + 1) % DAY_SECONDS != 0)
		return false;
	*time_us = seconds * SECOND_US + (leap_second ? SECOND_US - 1 : us);
	return true;
}

/* Decimal digits at *text, at most 12 of them. */
static bool read_number(const char **text, int64_t *value)
{
	const char *p = *text;

	for (*value = 0; *p >= '0' && *p <= '9' && p - *text < 12; p++)
		*value = *value * 10 + (*p - '0');
	bool some = p > *text;
	*text = p;
	return some;
}

/* -15m and the like, without the minus. */
static bool parse_ago(const char *text, int64_t now_us, int64_t *time_us)
{
	static const char units[] = "smhdw";
	static const int64_t unit_us[] = { SECOND_US, 60ll * SECOND_US, 3600ll * SECOND_US, DAY_US, 7 * DAY_US };
	int64_t count, back, then;

	if (!read_number(&text, &count) || !text[0] || text[1])
		return false;
	const char *unit = strchr(units, text[0]);
	if (!unit || __builtin_mul_overflow(count, unit_us[unit - units], &back) ||
	    __builtin_sub_overflow(now_us, back, &then))
		return false;
	*time_us = then;
	return true;
}

/* Seconds since 1970, with up to 9 digits after the point. */
static bool parse_unix(const char *text, int64_t *time_us)
{
	int64_t seconds, us;

	if (!read_number(&text, &seconds) || !read_fraction(&text, text + strlen(text), &us) || *text ||
	    seconds > TIME_MAX_US / SECOND_US)
		return false;
	*time_us = seconds * SECOND_US + us;
	return true;
}

enum evbus_code evbus_time_parse(const char *text, int64_t now_us, int64_t *time_us, struct evbus_err *err)
{
	if (text[0] == '-' ? parse_ago(text + 1, now_us, time_us)
			   : clock_parse(text, strlen(text), time_us) || parse_unix(text, time_us))
		return EVBUS_OK;
	return err_set(err, EVBUS_USAGE, 0,
		       "'%.*s' is not a time: use RFC 3339 (2026-01-29T12:00:00Z), a time ago (-30s -15m -2h -3d -1w) "
		       "or Unix seconds (1769688000.5)",
		       SHOWN_MAX_BYTES, text);
}

/* time.c: times and positions, against the calendar of the C library.
 * The input: eight bytes of a time, then a text. */
#include "fuzz.h"

#include "base/clock.h"
#include "delivery/position.h"

#include <limits.h>
#include <time.h>

#define NOW_US 1769688000000000

/* Of texts that clock_parse() has taken: the same by timegm(). A leap second is the last microsecond of the one before. */
static int64_t slow_time(const char *text, size_t len)
{
	struct tm tm = { 0 };
	char zone = 'Z', fraction[10] = "000000000";
	int hours = 0, minutes = 0;

	MUST(sscanf(text, "%4d-%2d-%2d%*c%2d:%2d:%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
		    &tm.tm_sec) == 6);
	const char *at = text + 19;
	for (size_t i = 0; *at == '.' || (*at >= '0' && *at <= '9'); at++)
		if (*at != '.') {
			MUST(i < 9);
			fraction[i++] = *at;
		}
	zone = *at;
	if (zone == '+' || zone == '-')
		MUST(sscanf(at + 1, "%2d:%2d", &hours, &minutes) == 2 && at + 6 == text + len);
	else
		MUST((zone == 'Z' || zone == 'z') && at + 1 == text + len);
	bool leap = tm.tm_sec == 60;
	tm.tm_sec -= leap;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	struct tm real = tm;
	int64_t seconds = timegm(&real) - (zone == '-' ? -1 : 1) * (hours * 3600 + minutes * 60);
	MUST(real.tm_mday == tm.tm_mday && real.tm_mon == tm.tm_mon && real.tm_hour == tm.tm_hour);
	fraction[6] = '\0';
	return seconds * 1000000 + (leap ? 999999 : strtol(fraction, NULL, 10));
}

static void check_text(const struct block *text)
{
	int64_t time_us, again;
	char back[TIME_TEXT_LEN];

	bool right = clock_parse(text->data, text->len, &time_us);
	if (right)
		MUST(time_us == slow_time(text->data, text->len));
	if (text->len != TIME_TEXT_LEN || !clock_parse_exact(text->data, &again))
		return;
	MUST(right && time_us == again);
	clock_format(again, back);
	MUST(!memcmp(back, text->data, TIME_TEXT_LEN));
}

static void check_number(int64_t time_us)
{
	char text[TIME_TEXT_LEN];
	int64_t back, shown = time_us < 0 ? 0 : time_us > TIME_MAX_US ? TIME_MAX_US : time_us;

	clock_format(time_us, text);
	MUST(clock_parse_exact(text, &back) && back == shown);
	MUST(slow_time(text, sizeof text) == shown);

	/* What the C library prints is read. */
	char printed[64];
	time_t seconds = shown / 1000000;
	struct tm tm;
	MUST(gmtime_r(&seconds, &tm));
	size_t len = strftime(printed, sizeof printed, shown % 2 ? "%FT%TZ" : "%Ft%T+00:00", &tm);
	MUST(clock_parse(printed, len, &back) && back == shown - shown % 1000000);
}

static void check_forms(const char *text)
{
	struct evbus_err err;
	int64_t time_us;
	enum evbus_code code = evbus_time_parse(text, NOW_US, &time_us, &err);

	if (code)
		check_err(&err, EVBUS_USAGE);
	else if (text[0] == '-')
		MUST(time_us <= NOW_US);
	else
		MUST(time_us <= TIME_MAX_US + 86400000000);
}

#define PRINTED_MAX (EVBUS_OFFSET_MAX_BYTES + 1)

static void print_position(const struct position *position, char text[PRINTED_MAX])
{
	char time[28];

	evbus_time_format(position->time_us, time);
	switch (position->kind) {
	case POSITION_OFFSET:
		snprintf(text, PRINTED_MAX, "%s", position->text);
		return;
	case POSITION_BEFORE_END:
		snprintf(text, PRINTED_MAX, "-%llu", (unsigned long long)position->number);
		return;
	case POSITION_TIME:
		snprintf(text, PRINTED_MAX, "@%s", time);
		return;
	default:
		snprintf(text, PRINTED_MAX, "%s",
			 position->kind == POSITION_BEGINNING ? "beginning"
			 : position->kind == POSITION_END     ? "end"
							      : "stored");
	}
}

/* A position that is printed is the same one when it is read. */
static void check_position(const char *text)
{
	struct position position, again;
	struct evbus_err err;
	char printed[PRINTED_MAX];
	enum evbus_code code = position_parse(text, &position, &err);

	if (code) {
		check_err(&err, EVBUS_USAGE);
		return;
	}
	print_position(&position, printed);
	MUST(position_parse(printed, &again, &err) == EVBUS_OK && again.kind == position.kind);
	MUST(again.number == position.number);
	if (position.kind == POSITION_TIME)
		MUST(again.time_us == position.time_us || position.time_us < 0 || position.time_us > TIME_MAX_US);
	else
		MUST(!strcmp(printed, text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	int64_t number = (int64_t)input_number(&input, 8);
	CLEANUP(block_cleanup) struct block rest = input_rest(&input, SIZE_MAX);
	struct input again = { (const uint8_t *)rest.data, (const uint8_t *)rest.data + rest.len };
	CLEANUP(block_cleanup) struct block text = input_text(&again);

	check_number(number);
	check_number(number % (TIME_MAX_US + 1));
	check_text(&text);
	check_forms(text.data);
	check_position(text.data);
	return 0;
}

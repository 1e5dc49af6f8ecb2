/* value.c: the forms of values of options, one function a type. */
#include "opt.h"
#include "template.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
	const char *name;
	int64_t factor;
};

static bool digits(const char **at, int64_t *value)
{
	const char *begin = *at;

	for (*value = 0; **at >= '0' && **at <= '9'; (*at)++)
		if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, **at - '0', value))
			return false;
	return *at != begin;
}

/* Digits and the name of one unit; units end with a NULL. */
static bool with_unit(const char *text, const struct unit *units, int64_t *value)
{
	if (!digits(&text, value))
		return false;
	for (; units->name; units++)
		if (!strcmp(units->name, text))
			return !__builtin_mul_overflow(*value, units->factor, value);
	return false;
}

bool word_is_one_of(const char *words, const char *word, size_t len)
{
	size_t word_len = strlen(word);
	const char *end = words + len;

	for (const char *at = words; at <= end;) {
		const char *bar = memchr(at, '|', (size_t)(end - at));
		size_t n = (size_t)((bar ? bar : end) - at);

		if (n == word_len && !memcmp(at, word, n))
			return true;
		at += n + 1;
	}
	return false;
}

static bool parse_text(const struct opt *opt, const char *text, void *to, char *why)
{
	if (opt->words[0] && !word_is_one_of(opt->words, text, strlen(opt->words))) {
		snprintf(why, WHY_MAX_BYTES, "is not one of %s", opt->words);
		return false;
	}
	*(const char **)to = text;
	return true;
}

static bool parse_number(const struct opt *opt, const char *text, void *to, char *why)
{
	int64_t value, max = opt->max ? opt->max : INT64_MAX;
	bool negative = text[0] == '-';
	const char *at = text + negative;
	bool right = digits(&at, &value) && !*at;

	value = right && negative ? -value : value;
	if (right && value >= opt->min && value <= max) {
		*(int64_t *)to = value;
		return true;
	}
	if (max == INT64_MAX)
		snprintf(why, WHY_MAX_BYTES, "is not a number from %lld on", (long long)opt->min);
	else
		snprintf(why, WHY_MAX_BYTES, "is not a number from %lld to %lld", (long long)opt->min, (long long)max);
	return false;
}

static bool parse_duration(const struct opt *opt, const char *text, void *to, char *why)
{
	static const struct unit units[] = {
		{ "ms", 1 },      { "", 1000 },      { "s", 1000 }, { "m", 60000 },
		{ "h", 3600000 }, { "d", 86400000 }, { NULL, 0 },
	};

	(void)opt;
	if (with_unit(text, units, &((struct duration *)to)->ms))
		return true;
	snprintf(why, WHY_MAX_BYTES, "is not a DURATION; write 500ms, 10s, 5m, 2h, 3d or a number of seconds");
	return false;
}

static bool parse_size(const struct opt *opt, const char *text, void *to, char *why)
{
	static const struct unit units[] = {
		{ "", 1 },
		{ "K", 1ll << 10 },
		{ "KiB", 1ll << 10 },
		{ "M", 1ll << 20 },
		{ "MiB", 1ll << 20 },
		{ "G", 1ll << 30 },
		{ "GiB", 1ll << 30 },
		{ "T", 1ll << 40 },
		{ "TiB", 1ll << 40 },
		{ NULL, 0 },
	};

	int64_t bytes, max = opt->max ? opt->max : INT64_MAX;
	char most[48] = "on";

	if (with_unit(text, units, &bytes) && bytes >= opt->min && bytes <= max) {
		((struct size *)to)->bytes = bytes;
		return true;
	}
	if (opt->max)
		snprintf(most, sizeof most, "to %lld", (long long)max);
	snprintf(why, WHY_MAX_BYTES, "is not a SIZE from %lld %s; write 4096, 64K, 1M or 1GiB (powers of 1024)",
		 (long long)opt->min, most);
	return false;
}

static bool parse_rate(const struct opt *opt, const char *text, void *to, char *why)
{
	static const struct unit units[] = { { "", 3600 }, { "/s", 3600 }, { "/m", 60 }, { "/h", 1 }, { NULL, 0 } };
	int64_t per_hour;

	(void)opt;
	if (with_unit(text, units, &per_hour) && per_hour > 0) {
		((struct rate *)to)->per_second = (double)per_hour / 3600.0;
		return true;
	}
	snprintf(why, WHY_MAX_BYTES, "is not a RATE; write 100 or 100/s, 30/m, 1000/h");
	return false;
}

/* strtod() alone would also read inf, nan and 0x1p4. */
static bool parse_factor(const struct opt *opt, const char *text, void *to, char *why)
{
	char *end;
	double value = strtod(text, &end);

	(void)opt;
	if (text[0] && !text[strspn(text, "0123456789.")] && !*end && value >= 1 && isfinite(value)) {
		((struct factor *)to)->value = value;
		return true;
	}
	snprintf(why, WHY_MAX_BYTES, "is not a factor; write a number from 1 on: 2, 1.5");
	return false;
}

static bool parse_mode(const struct opt *opt, const char *text, void *to, char *why)
{
	uint32_t bits = 0;
	size_t len = strlen(text);

	(void)opt;
	for (size_t i = 0; i < len && len <= 4; i++)
		bits = text[i] >= '0' && text[i] <= '7' ? bits * 8 + (uint32_t)(text[i] - '0') : 0777777;
	/* Who publishes also reads; to execute a log means nothing. */
	if (!len || len > 4 || (bits & ~0666u) || (bits & 0600u) != 0600u) {
		snprintf(why, WHY_MAX_BYTES, "is not a MODE of a file; write 0600, 0640, 0660 or the like");
		return false;
	}
	((struct mode *)to)->bits = bits;
	return true;
}

static bool parse_list(const struct opt *opt, const char *text, void *to, char *why)
{
	struct list *list = to;

	(void)opt;
	if (list->count == LIST_MAX) {
		snprintf(why, WHY_MAX_BYTES, "is one too many; there may be %u", LIST_MAX);
		return false;
	}
	list->items[list->count++] = text;
	return true;
}

#define TIME_FORMS "2026-01-29T12:00:00Z, -15m, -2h, -3d or Unix seconds"

static bool is_time(const char *text)
{
	struct evbus_err err;
	int64_t time_us;

	return !evbus_time_parse(text, evbus_time_now(), &time_us, &err);
}

static bool parse_moment(const struct opt *opt, const char *text, void *to, char *why)
{
	(void)opt;
	if (is_time(text)) {
		((struct moment *)to)->text = text;
		return true;
	}
	snprintf(why, WHY_MAX_BYTES, "is not a TIME; write " TIME_FORMS);
	return false;
}

static bool is_position(const char *text)
{
	static const char words[] = "beginning|end|stored";

	if (text[0] == '@')
		return is_time(text + 1);
	if (word_is_one_of(words, text, sizeof words - 1))
		return true;
	text += text[0] == '-';
	return text[0] && text[strspn(text, "0123456789")] == '\0';
}

static bool parse_position(const struct opt *opt, const char *text, void *to, char *why)
{
	(void)opt;
	if (is_position(text)) {
		((struct position *)to)->text = text;
		return true;
	}
	snprintf(why, WHY_MAX_BYTES,
		 "is not a POSITION; write N, beginning, end, -N, stored or @TIME, where TIME is " TIME_FORMS);
	return false;
}

static bool parse_record_format(const struct opt *opt, const char *text, void *to, char *why)
{
	(void)opt;
	((struct record_format *)to)->text = text;
	return record_format_check(text, why, WHY_MAX_BYTES);
}

/* ---- what is not to be shown ----------------------------------------------------------------------------------- */

struct masked {
	char *text;
	size_t len;
};

static void show(struct masked *masked, const char *text, size_t len)
{
	size_t room = MASKED_MAX_BYTES - 1 - masked->len;

	len = len < room ? len : room;
	memcpy(masked->text + masked->len, text, len);
	masked->len += len;
	masked->text[masked->len] = '\0';
}

/* Whether "HOST:PORT,HOST:PORT", perhaps with a path, is what stands there. */
static bool are_servers(const char *text, const char *end)
{
	while (text < end && *text != '/') {
		const char *bracket = *text == '[' ? memchr(text, ']', (size_t)(end - text)) : NULL;

		text = bracket ? bracket : text;
		text += strcspn(text, ":,/?");
		if (*text == ':')
			text += 1 + strspn(text + 1, "0123456789");
		if (!strchr(",/?", *text))
			return false;
		text += *text == ',';
	}
	return true;
}

/* A password may have any character, also those that end it elsewhere; then what stands before them is no server, or
 * what stands behind them no option. */
static bool has_user_with_password(const char *authority)
{
	const char *at = strrchr(authority, '@'), *colon = strchr(authority, ':');
	const char *options = authority + strcspn(authority, "?");
	const char *before = memrchr(authority, '@', (size_t)(options - authority));

	if (!at || !colon || colon > at)
		return false;
	if (before && colon < before)
		return true;
	/* host:4222?user=me@there */
	size_t name = at > options ? strcspn(options + 1, "=&@") : 0;
	return at > options &&
	       (!name || options[1 + name] != '=' || !are_servers(before ? before + 1 : authority, options));
}

bool holds_password(const char *url)
{
	static const char *const names[] = { "password=", "passwd=", "pwd=", "secret=", "token=" };
	const char *authority = strstr(url, "://");

	for (size_t i = 0; i < COUNT(names); i++)
		if (strcasestr(url, names[i]))
			return true;
	/* A path may have all of it. */
	if (!authority || authority - url < 4 || !strncasecmp(authority - 4, "file", 4))
		return false;
	return has_user_with_password(authority + 3);
}

/* Of what stands between :// and the last @ (a password may have any character) the name of a user with a password is
 * shown; a name alone may be a token. Returns what follows. */
static const char *mask_user(struct masked *masked, const char *text)
{
	const char *user = strstr(text, "://"), *end = strrchr(text, '@');

	if (!user || !end || end < user + 3)
		return text;
	user += 3;
	const char *colon = memchr(user, ':', (size_t)(end - user));
	show(masked, text, (size_t)((colon ? colon + 1 : user) - text));
	show(masked, "***", 3);
	return end;
}

/* The length of a name that ends in one of these and "=", with that; 0: there is none here. */
static size_t secret_name_len(const char *text)
{
	static const char *const names[] = { "password=", "passwd=", "pwd=", "secret=", "token=", "key=" };

	for (size_t i = 0; i < COUNT(names); i++)
		if (!strncasecmp(text, names[i], strlen(names[i])))
			return strlen(names[i]);
	return 0;
}

/* In a URL up to the next option, else as libpq has it: up to a blank that does not stand in quotes. */
static size_t secret_len(const char *text, bool of_url)
{
	size_t len = 0;

	if (of_url)
		return strcspn(text, "&");
	for (bool quoted = false; text[len] && (quoted || text[len] != ' '); len++) {
		quoted ^= text[len] == '\'';
		len += text[len] == '\\' && text[len + 1];
	}
	return len;
}

void mask_secrets(const char *text, char masked[MASKED_MAX_BYTES])
{
	struct masked out = { .text = masked };
	bool of_url = strstr(text, "://");

	masked[0] = '\0';
	text = mask_user(&out, text);
	while (*text) {
		size_t len = secret_name_len(text);

		show(&out, text, len ? len : 1);
		text += len ? len : 1;
		if (len) {
			show(&out, "***", 3);
			text += secret_len(text, of_url);
		}
	}
}

bool value_parse(const struct opt *opt, const char *text, void *at, char why[WHY_MAX_BYTES])
{
	static bool (*const parsers[])(const struct opt *, const char *, void *, char *) = {
		[KIND_TEXT] = parse_text,         [KIND_NUMBER] = parse_number,
		[KIND_DURATION] = parse_duration, [KIND_SIZE] = parse_size,
		[KIND_RATE] = parse_rate,         [KIND_MODE] = parse_mode,
		[KIND_LIST] = parse_list,         [KIND_POSITION] = parse_position,
		[KIND_MOMENT] = parse_moment,     [KIND_RECORD_FORMAT] = parse_record_format,
		[KIND_FACTOR] = parse_factor,
	};

	return parsers[opt->kind](opt, text, at, why);
}

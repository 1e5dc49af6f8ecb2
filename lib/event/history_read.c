/* history_read.c: what a history of attempts says. It may stand in an application's table: anything may be in there. */
#include "event/history.h"

#include "base/clock.h"

#include <string.h>

/* A string without escapes, without its quotes. */
static struct evbus_slice inside(struct evbus_slice string)
{
	if (string.len < 2 || string.data[0] != '"')
		return (struct evbus_slice){ "", 0 };
	return (struct evbus_slice){ string.data + 1, string.len - 2 };
}

static bool read_number(struct evbus_slice digits, int64_t *number)
{
	*number = 0;
	for (size_t i = 0; i < digits.len; i++) {
		if (digits.data[i] < '0' || digits.data[i] > '9' || i >= 18)
			return false;
		*number = *number * 10 + (digits.data[i] - '0');
	}
	return digits.len;
}

static bool read_entry(struct evbus_slice entry, int64_t *attempt, int64_t *at_us, enum evbus_reason *reason)
{
	struct evbus_slice at = inside(evbus_json_find(entry, "/at", NULL));

	return at.len == TIME_TEXT_LEN && clock_parse_exact(at.data, at_us) &&
	       read_number(evbus_json_find(entry, "/attempt", NULL), attempt) &&
	       reason_parse(inside(evbus_json_find(entry, "/reason", NULL)), reason);
}

/* What stands between two entries: a comma, and blanks where a database has written it anew (jsonb). */
static struct evbus_slice to_next(struct evbus_slice left)
{
	while (left.len && (left.data[0] == ',' || left.data[0] == ' '))
		left = (struct evbus_slice){ left.data + 1, left.len - 1 };
	return left;
}

bool history_read(struct evbus_slice history, struct history_ends *ends)
{
	struct history_ends read = { 0 };
	int64_t attempt, before = 0;
	bool first = true;

	if (history.len < 4 || history.data[0] != '[' || json_value_len(history) != history.len)
		return false;
	struct evbus_slice left = { history.data + 1, history.len - 2 };
	for (; left.len; first = false) {
		size_t len = json_value_len(left);
		if (!len || !read_entry((struct evbus_slice){ left.data, len }, &attempt, &read.last_us, &read.reason))
			return false;
		if (first)
			read.first_us = read.last_us;
		else
			read.returns += attempt <= before;
		before = attempt;
		left = to_next((struct evbus_slice){ left.data + len, left.len - len });
	}
	*ends = read;
	return true;
}

/* subject.c: names and patterns against matchers that are slow and written another way.
 * The input: a pattern, a NUL, a subject. */
#include "fuzz.h"

#include "event/subject.h"

static bool slow_is_alnum(char c)
{
	return c && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", c);
}

/* The token of [A-Za-z0-9_-] at the beginning. */
static size_t slow_token(const char *name)
{
	size_t len = 0;

	while (slow_is_alnum(name[len]) || name[len] == '_' || name[len] == '-')
		len++;
	return len;
}

static bool slow_is_name(const char *name, bool pattern)
{
	const char *begin = name;

	if (strlen(name) > EVBUS_TOPIC_MAX_BYTES)
		return false;
	for (;;) {
		bool star = pattern && *name == '*', rest = pattern && *name == '>';
		size_t len = star || rest ? 1 : slow_token(name);

		if (!len || (name == begin && !star && !rest && !slow_is_alnum(*name)))
			return false;
		name += len;
		if (!*name)
			return true;
		if (rest || *name++ != '.')
			return false;
	}
}

/* Of a well-formed pattern, token by token, by recursion. */
static bool slow_matches(const char *pattern, struct evbus_slice subject)
{
	size_t wanted = strcspn(pattern, "."), len = 0;

	if (!strcmp(pattern, ">"))
		return true;
	while (len < subject.len && subject.data[len] != '.')
		len++;
	if (!(wanted == 1 && *pattern == '*') && (wanted != len || memcmp(pattern, subject.data, len) != 0))
		return false;
	bool more = len < subject.len;
	if (!pattern[wanted] || !more)
		return !pattern[wanted] && !more;
	return slow_matches(pattern + wanted + 1,
			    (struct evbus_slice){ subject.data + len + 1, subject.len - len - 1 });
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	CLEANUP(block_cleanup) struct block pattern = input_text(&input);
	CLEANUP(block_cleanup) struct block rest = input_rest(&input, SIZE_MAX);
	struct evbus_slice subject = slice_of(&rest), self = { pattern.data, pattern.len };
	struct evbus_err err;

	bool is_name = subject_check_name("topic", pattern.data, &err) == EVBUS_OK;
	if (!is_name)
		check_err(&err, EVBUS_USAGE);
	bool is_pattern = subject_check_pattern("topic", pattern.data, &err) == EVBUS_OK;
	if (!is_pattern)
		check_err(&err, EVBUS_USAGE);
	MUST(is_name == slow_is_name(pattern.data, false) && is_pattern == slow_is_name(pattern.data, true));
	MUST(is_name == (is_pattern && !subject_is_pattern(pattern.data)));
	MUST(subject_matches(pattern.data, subject) == slow_matches(pattern.data, subject));
	MUST(subject_matches(pattern.data, self) || !is_pattern);
	MUST(!is_name || subject_matches(pattern.data, subject) == same(subject, self));
	MUST(subject_matches(">", subject));
	return 0;
}

/* The attempts of an event, as JSON, whatever the handlers said. */
#include "event/history.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct evbus_err err;
static struct buf history, next, text;

static void release(void)
{
	buf_release(&history);
	buf_release(&next);
	buf_release(&text);
}

TestSuite(history, .fini = release);

static struct evbus_slice slice_of(const struct buf *buf)
{
	return (struct evbus_slice){ buf->data ? buf->data : "", buf->len };
}

static bool is(const struct buf *buf, const char *expected)
{
	return buf->len == strlen(expected) && (!buf->len || !memcmp(buf->data, expected, buf->len));
}

static void add(int64_t attempt, enum evbus_reason reason, struct evbus_slice error)
{
	cr_assert_eq(history_add(&next, slice_of(&history), attempt, 1000000 * attempt, reason, error, &err), EVBUS_OK);
	struct buf old = history;
	history = next;
	next = old;
	cr_assert_eq(json_value_len(slice_of(&history)), history.len);
	cr_assert(utf8_valid(slice_of(&history)));
}

/* What is kept of an error. */
static const struct buf *kept(const char *bytes, size_t len, size_t most)
{
	text.len = 0;
	cr_assert_eq(history_error(&text, (struct evbus_slice){ bytes, len }, most, &err), EVBUS_OK);
	cr_assert(utf8_valid(slice_of(&text)));
	return &text;
}

#define KEPT(literal, most) kept(literal, sizeof(literal) - 1, most)

Test(history, grows_by_an_attempt)
{
	add(1, EVBUS_REASON_RETRIES, SLICE("a \"b\"\n"));
	cr_assert(is(&history, "[{\"attempt\":1,\"at\":\"1970-01-01T00:00:01.000000Z\",\"reason\":\"retries\","
			       "\"error\":\"a \\\"b\\\"\\n\"}]"));
	add(2, EVBUS_REASON_TIMEOUT, SLICE(""));
	cr_assert(is(&history, "[{\"attempt\":1,\"at\":\"1970-01-01T00:00:01.000000Z\",\"reason\":\"retries\","
			       "\"error\":\"a \\\"b\\\"\\n\"},{\"attempt\":2,\"at\":\"1970-01-01T00:00:02.000000Z\","
			       "\"reason\":\"timeout\",\"error\":\"\"}]"));
}

Test(history, begins_anew_where_there_is_none)
{
	static const char *const none[] = { "", "[]", "[", "nonsense", "{}" };

	for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
		cr_assert_eq(history_add(&next, (struct evbus_slice){ none[i], strlen(none[i]) }, 1, 0,
					 EVBUS_REASON_SIGNAL, SLICE("x"), &err),
			     EVBUS_OK);
		cr_assert(is(&next, "[{\"attempt\":1,\"at\":\"1970-01-01T00:00:00.000000Z\",\"reason\":\"signal\","
				    "\"error\":\"x\"}]"),
			  "%zu: %.*s", i, (int)next.len, next.data);
	}
}

Test(history, keeps_the_latest_hundred)
{
	char first[64];

	for (int i = 1; i <= 250; i++) {
		add(i, EVBUS_REASON_RETRIES, SLICE("],[{\"}"));
		int begin = i > (int)HISTORY_MAX ? i - (int)HISTORY_MAX + 1 : 1;
		int len = snprintf(first, sizeof first, "[{\"attempt\":%d,", begin);
		cr_assert(!memcmp(history.data, first, (size_t)len), "after %d", i);
	}
	size_t count = 0;
	for (const char *at = history.data; (at = memmem(at, (size_t)(history.data + history.len - at), "\"at\":", 5));
	     at++)
		count++;
	cr_assert_eq(count, HISTORY_MAX);
}

Test(history, keeps_the_latest_hundred_where_a_database_has_put_blanks_between_them)
{
	CLEANUP(buf_release) struct buf blanks = { 0 };
	size_t count = 0;

	for (int64_t i = 1; i <= (int64_t)HISTORY_MAX; i++)
		add(i, EVBUS_REASON_RETRIES, SLICE(""));
	for (size_t i = 0; i < history.len; i++) {
		cr_assert_eq(buf_add(&blanks, history.data + i, 1, &err), EVBUS_OK);
		if (history.data[i] == ',' && history.data[i + 1] == '{')
			cr_assert_eq(buf_add(&blanks, " ", 1, &err), EVBUS_OK);
	}
	cr_assert_eq(history_add(&next, slice_of(&blanks), 101, 0, EVBUS_REASON_RETRIES, SLICE(""), &err), EVBUS_OK);
	for (size_t i = 0; i < next.len; i++)
		count += next.data[i] == '{';
	cr_assert_eq(count, HISTORY_MAX, "%zu", count);
	cr_assert_eq(json_value_len(slice_of(&next)), next.len);
}

Test(history, is_bounded_whatever_was_said)
{
	static char said[100000];

	for (int i = 1; i <= 200; i++) {
		memset(said, i % 32, sizeof said); /* each of these is six bytes when quoted */
		add(i, EVBUS_REASON_RETRIES, (struct evbus_slice){ said, sizeof said });
	}
	cr_assert(history.len < HISTORY_MAX * (HISTORY_ERROR_MAX_BYTES * 6 + 200));
}

Test(history, does_not_change_what_it_is_made_of)
{
	static const char before[] = "[{\"attempt\":1}]";

	cr_assert_eq(history_add(&next, SLICE("[{\"attempt\":1}]"), 2, 0, EVBUS_REASON_RETRIES, SLICE("x"), &err),
		     EVBUS_OK);
	cr_assert(!memcmp(next.data, before, sizeof before - 2) && next.data[sizeof before - 2] == ',');
}

/* ---- errors ---- */

Test(history, keeps_the_end_of_a_long_error_and_cuts_no_character)
{
	cr_assert(is(KEPT("0123456789", 4), "6789"));
	cr_assert(is(KEPT("0123456789", 10), "0123456789"));
	cr_assert(is(KEPT("0123456789", 0), ""));
	cr_assert(is(KEPT("a\xc3\xa4z", 2), "z"), "the second half of an umlaut");
	cr_assert(is(KEPT("a\xc3\xa4z", 3), "\xc3\xa4z"));
	cr_assert(is(KEPT("\xf0\x9f\x98\x80z", 4), "z"));
}

Test(history, makes_utf8_of_what_is_none)
{
	cr_assert(is(KEPT("a\xff"
			  "b",
			  100),
		     "a\xef\xbf\xbd"
		     "b"));
	cr_assert(is(KEPT("a\0b", 100), "a\xef\xbf\xbd"
					"b"));
	cr_assert(is(KEPT("\xc3", 100), "\xef\xbf\xbd"));
	cr_assert(is(KEPT("\xc0\xaf", 100), "\xef\xbf\xbd\xef\xbf\xbd"), "an overlong slash");
	cr_assert(is(KEPT("\xed\xa0\x80x", 100), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx"), "a surrogate");
	cr_assert(is(KEPT("", 100), ""));
}

Test(history, keeps_what_is_not_cut_from_its_first_byte_on)
{
	/* Nothing was cut: what begins in the middle of a character is told, not dropped. */
	cr_assert(is(KEPT("\xa4z", 100), "\xef\xbf\xbdz"));
	/* And what never was a character is not dropped without end. */
	cr_assert(is(KEPT("x\x80\x80\x80\x80\x80", 5), "\xef\xbf\xbd\xef\xbf\xbd"));
}

Test(history, of_random_bytes_is_valid)
{
	uint64_t dice = 1;
	char bytes[64];

	for (int i = 0; i < 20000; i++) {
		for (size_t k = 0; k < sizeof bytes; k++) {
			dice = dice * 6364136223846793005u + 1442695040888963407u;
			bytes[k] = (char)(dice >> 40);
		}
		kept(bytes, sizeof bytes, 1 + (size_t)i % 70);
	}
	add(1, EVBUS_REASON_RETRIES, (struct evbus_slice){ bytes, sizeof bytes });
}

/* ---- reasons ---- */

Test(history, reasons_have_names_that_are_read_back)
{
	enum evbus_reason reason;

	for (int i = 0; i < EVBUS_REASONS; i++) {
		const char *name = evbus_reason_name((enum evbus_reason)i);
		cr_assert(reason_parse((struct evbus_slice){ name, strlen(name) }, &reason) && (int)reason == i);
		cr_assert(!reason_parse((struct evbus_slice){ name, strlen(name) - 1 }, &reason));
	}
	cr_assert_str_eq(evbus_reason_name((enum evbus_reason)EVBUS_REASONS), "unknown");
	cr_assert_str_eq(evbus_reason_name((enum evbus_reason) - 1), "unknown");
	cr_assert(!reason_parse(SLICE(""), &reason) && !reason_parse(SLICE("Retries"), &reason));
}

Test(history, that_begins_with_blanks_stays_json)
{
	CLEANUP(buf_release) struct buf added = { 0 };

	cr_assert_eq(history_add(&added, SLICE("[\r\n\t []\n]"), 2, 0, EVBUS_REASON_RETRIES, SLICE("x"), &err),
		     EVBUS_OK);
	cr_assert_eq(json_value_len((struct evbus_slice){ added.data, added.len }), added.len, "%.*s", (int)added.len,
		     added.data);
}

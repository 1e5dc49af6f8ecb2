/* history.c: the attempts of a letter, which may stand in an application's table: whatever it made of them.
 * The input: a history, a NUL, another one, a NUL, what a handler said. */
#include "fuzz.h"

#include "base/clock.h"
#include "event/history.h"

#define ADDED_US 1769688000000000

static bool is_array(struct evbus_slice text)
{
	return text.len && text.data[0] == '[' && json_value_len(text) == text.len;
}

static struct evbus_slice text_of(const struct buf *buf)
{
	return (struct evbus_slice){ buf->data, buf->len };
}

/* How many entries an array has. */
static size_t count_of(struct evbus_slice array)
{
	size_t count = 0, at = 1;

	for (size_t len;
	     at < array.len && (len = json_value_len((struct evbus_slice){ array.data + at, array.len - at })); count++)
		for (at += len; at < array.len && strchr(", \t\r\n", array.data[at]);)
			at++;
	return count;
}

static void check_error(struct evbus_slice error, size_t most)
{
	CLEANUP(buf_release) struct buf kept = { 0 }, again = { 0 };
	struct evbus_err err;

	MUST(history_error(&kept, error, most, &err) == EVBUS_OK);
	MUST(kept.len <= 3 * most && utf8_valid(text_of(&kept)) && !(kept.len && memchr(kept.data, 0, kept.len)));
	/* What is valid stays as it is. */
	MUST(history_error(&again, text_of(&kept), SIZE_MAX, &err) == EVBUS_OK &&
	     same(text_of(&kept), text_of(&again)));
	if (error.len <= most && utf8_valid(error) && !(error.len && memchr(error.data, 0, error.len)))
		MUST(same(text_of(&kept), error));
}

/* A history that was made here can be read, and says what was put in last. */
static void check_add(struct evbus_slice history, struct evbus_slice error)
{
	CLEANUP(buf_release) struct buf added = { 0 }, twice = { 0 };
	struct history_ends before = { 0 }, ends;
	struct evbus_err err;
	bool was = history_read(history, &before);

	MUST(history_add(&added, history, 7, ADDED_US, EVBUS_REASON_TIMEOUT, error, &err) == EVBUS_OK);
	MUST(!is_array(history) || is_array(text_of(&added)));
	if (!was && history.len > 2)
		return;
	size_t count = was ? count_of(history) : 0;
	MUST(count_of(text_of(&added)) == (count < HISTORY_MAX ? count + 1 : HISTORY_MAX));
	MUST(history_read(text_of(&added), &ends) && ends.last_us == ADDED_US && ends.reason == EVBUS_REASON_TIMEOUT);
	MUST(ends.first_us == (was ? before.first_us : ADDED_US) || count >= HISTORY_MAX);
	MUST(history_add(&twice, text_of(&added), 8, ADDED_US + 1, EVBUS_REASON_SIGNAL, error, &err) == EVBUS_OK);
	MUST(history_read(text_of(&twice), &before) && before.last_us == ADDED_US + 1);
	MUST(before.returns <= ends.returns);
}

static void check_join(struct evbus_slice first, struct evbus_slice second)
{
	CLEANUP(buf_release) struct buf joined = { 0 };
	struct history_ends a = { 0 }, b = { 0 }, ends;
	struct evbus_err err;

	MUST(history_join(&joined, first, second, &err) == EVBUS_OK);
	if (is_array(first) && is_array(second))
		MUST(is_array(text_of(&joined)));
	if (!history_read(first, &a) || !history_read(second, &b))
		return;
	MUST(history_read(text_of(&joined), &ends) && ends.last_us == b.last_us && ends.reason == b.reason);
	size_t count = count_of(first) + count_of(second), joined_count = count_of(text_of(&joined));
	MUST(joined_count == (count < HISTORY_MAX ? count : HISTORY_MAX));
	MUST(ends.first_us == a.first_us || joined_count == HISTORY_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	CLEANUP(block_cleanup) struct block first = input_text(&input);
	CLEANUP(block_cleanup) struct block second = input_text(&input);
	CLEANUP(block_cleanup) struct block error = input_rest(&input, SIZE_MAX);
	/* Of exactly their sizes: none has a NUL behind it. */
	CLEANUP(block_cleanup) struct block a = block_of(first.data, first.len), b = block_of(second.data, second.len);
	enum evbus_reason reason;

	check_error(slice_of(&error), HISTORY_ERROR_MAX_BYTES);
	check_error(slice_of(&error), 16);
	/* A column that is NULL is none, too. */
	check_add(a.len ? slice_of(&a) : (struct evbus_slice){ NULL, 0 }, slice_of(&error));
	check_join(slice_of(&a), slice_of(&b));
	if (reason_parse(slice_of(&error), &reason))
		MUST(same(slice_of(&error),
			  (struct evbus_slice){ evbus_reason_name(reason), strlen(evbus_reason_name(reason)) }));
	return 0;
}

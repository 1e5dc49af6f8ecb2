/* json.c: the scanner against the second opinion of the unit tests, and values found, unescaped and quoted again.
 * The input: a JSON pointer, a NUL, the text. */
#include "fuzz.h"

#include "../unit/json_slow.h"

/* The bytes before the fault can still become an object, or are one. */
static void check_fault(struct evbus_slice text, const struct json_fault *fault)
{
	struct json_fault before;

	MUST(fault->at <= text.len && fault->reason);
	if (!json_scan((struct evbus_slice){ text.data, fault->at }, NULL, 0, &before))
		MUST(before.at == fault->at && !strcmp(before.reason, "unexpected end"));
}

static void check_scan(struct evbus_slice text, struct json_want *want)
{
	struct json_fault fault, again;
	bool right = slow_object(text);

	MUST(json_scan(text, NULL, 0, &fault) == right);
	MUST(json_scan(text, want, 1, &again) == right);
	size_t len = json_value_len(text);
	MUST(len <= text.len && (len == text.len && len && text.data[0] == '{') == right);
	if (!right) {
		MUST(fault.at == again.at && !strcmp(fault.reason, again.reason));
		check_fault(text, &fault);
	} else if (want->times) {
		MUST(within(want->value, text) && json_value_len(want->value) == want->value.len);
	} else {
		MUST(!want->value.data);
	}
}

/* Any text becomes a string, and that the text again. */
static void check_quote(struct evbus_slice text)
{
	CLEANUP(buf_release) struct buf quoted = { 0 };
	struct evbus_err err;

	MUST(json_quote(&quoted, text, &err) == EVBUS_OK);
	struct evbus_slice string = { quoted.data, quoted.len };
	MUST(!utf8_valid(text) || json_value_len(string) == string.len);
	struct block back = { fuzz_block(text.len), text.len };
	MUST(evbus_json_text(string, back.data, text.len) == text.len && same(slice_of(&back), text));
	MUST(json_equals(string, text));
	block_cleanup(&back);
}

static void check_value(struct evbus_slice value)
{
	size_t len = evbus_json_text(value, NULL, 0);
	struct block text = { fuzz_block(len), len };

	MUST(len <= value.len && json_value_len(value) == value.len);
	MUST(evbus_json_text(value, text.data, len) == len && json_equals(value, slice_of(&text)));
	if (value.data[0] != '"')
		MUST(same(slice_of(&text), value));
	else
		MUST(utf8_valid(slice_of(&text)));
	check_quote(slice_of(&text));
	block_cleanup(&text);
}

static void check_find(struct evbus_slice text, const char *pointer, const struct json_want *want)
{
	bool twice;
	struct evbus_slice value = evbus_json_find(text, pointer, &twice);

	MUST(within(value, text) && (!twice || !value.data));
	if (value.data)
		check_value(value);
	if (pointer[0] != '/' || strpbrk(pointer + 1, "/~"))
		return;
	MUST(twice == (want->times > 1));
	MUST(want->times == 1 ? value.data == want->value.data && value.len == want->value.len : !value.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	CLEANUP(block_cleanup) struct block pointer = input_text(&input);
	CLEANUP(block_cleanup) struct block rest = input_rest(&input, SIZE_MAX);
	struct evbus_slice text = slice_of(&rest);
	struct json_want want = { .name = { pointer.data + (pointer.len > 0), pointer.len - (pointer.len > 0) } };
	bool twice;

	check_scan(text, &want);
	if (slow_object(text))
		check_find(text, pointer.data, &want);
	else
		MUST(within(evbus_json_find(text, pointer.data, &twice), text));
	check_quote(text);
	return 0;
}

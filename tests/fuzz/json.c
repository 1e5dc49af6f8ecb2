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

/* ---- found and unescaped by a slow reading ---- */

static size_t slow_len(struct evbus_slice text)
{
	struct slow s = { .p = (const unsigned char *)text.data, .len = text.len };

	MUST(slow_value(&s));
	return s.at;
}

static struct evbus_slice slow_skip(struct evbus_slice text, size_t len)
{
	while (len < text.len && strchr(" \t\r\n", text.data[len]))
		len++;
	return (struct evbus_slice){ text.data + len, text.len - len };
}

static uint32_t slow_unit(const char *hex)
{
	char digits[5] = { hex[0], hex[1], hex[2], hex[3], '\0' };

	return (uint32_t)strtoul(digits, NULL, 16);
}

static size_t slow_put(char *to, uint32_t code)
{
	if (code < 0x80)
		return to[0] = (char)code, 1;
	if (code < 0x800)
		return to[0] = (char)(0xc0 | code >> 6), to[1] = (char)(0x80 | (code & 63)), 2;
	if (code < 0x10000)
		return to[0] = (char)(0xe0 | code >> 12), to[1] = (char)(0x80 | (code >> 6 & 63)),
		       to[2] = (char)(0x80 | (code & 63)), 3;
	return to[0] = (char)(0xf0 | code >> 18), to[1] = (char)(0x80 | (code >> 12 & 63)),
	       to[2] = (char)(0x80 | (code >> 6 & 63)), to[3] = (char)(0x80 | (code & 63)), 4;
}

/* Of a valid string; to has room for as many bytes. A surrogate alone is U+FFFD. */
static size_t slow_text(struct evbus_slice string, char *to)
{
	const char *at = string.data + 1, *end = string.data + string.len - 1;
	size_t len = 0;

	while (at < end) {
		uint32_t code = 0, low = 0;

		if (*at != '\\') {
			to[len++] = *at++;
			continue;
		}
		if (at[1] != 'u') {
			static const char from[] = "bfnrt", as[] = "\b\f\n\r\t";
			const char *known = strchr(from, at[1]);
			to[len++] = known ? as[known - from] : at[1];
			at += 2;
			continue;
		}
		code = slow_unit(at + 2);
		at += 6;
		if (code >= 0xd800 && code < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u')
			low = slow_unit(at + 2);
		if (low >= 0xdc00 && low < 0xe000) {
			code = 0x10000 + (code - 0xd800) * 0x400 + (low - 0xdc00);
			at += 6;
		}
		len += slow_put(to + len, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
	}
	return len;
}

/* ~1 is a slash and ~0 a tilde. false: it is no token. */
static bool slow_token(const char *token, size_t len, char *to, size_t *to_len)
{
	for (*to_len = 0; len--; token++) {
		if (*token == '~' && (!len || (token[1] != '0' && token[1] != '1')))
			return false;
		if (*token == '~')
			len--, token++, to[(*to_len)++] = *token == '0' ? '~' : '/';
		else
			to[(*to_len)++] = *token;
	}
	return true;
}

/* The value of a member or the element of a container; *times: how often it is there. */
static struct evbus_slice slow_child(struct evbus_slice in, const char *token, size_t token_len, unsigned *times)
{
	CLEANUP(block_cleanup) struct block name = { fuzz_block(in.len), 0 };
	struct evbus_slice found = { NULL, 0 }, rest = slow_skip(in, 1);
	bool object = in.data[0] == '{';
	char number[24];

	*times = 0;
	for (size_t i = 0; rest.data[0] != '}' && rest.data[0] != ']'; i++) {
		name.len = (size_t)snprintf(number, sizeof number, "%zu", i);
		if (object) {
			size_t len = slow_len(rest);
			name.len = slow_text((struct evbus_slice){ rest.data, len }, name.data);
			rest = slow_skip(slow_skip(rest, len), 1);
		}
		struct evbus_slice named = { object ? name.data : number, name.len };
		size_t len = slow_len(rest);
		if (same(named, (struct evbus_slice){ token, token_len }) && !(*times)++)
			found = (struct evbus_slice){ rest.data, len };
		rest = slow_skip(rest, len);
		rest = rest.data[0] == ',' ? slow_skip(rest, 1) : rest;
	}
	return found;
}

static struct evbus_slice slow_find(struct evbus_slice text, const char *pointer, bool *twice)
{
	static const struct evbus_slice nothing;
	unsigned times;

	*twice = false;
	for (; *pointer == '/'; pointer += strcspn(pointer, "/")) {
		size_t len = strcspn(++pointer, "/"), token_len;
		CLEANUP(block_cleanup) struct block token = { fuzz_block(len), 0 };
		if ((text.data[0] != '{' && text.data[0] != '[') || !slow_token(pointer, len, token.data, &token_len))
			return nothing;
		text = slow_child(text, token.data, token_len, &times);
		*twice = times > 1;
		if (times != 1)
			return nothing;
	}
	return *pointer ? nothing : text;
}

/* ---- against it ---- */

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
	if (!text.len)
		return;
	/* One byte too few: nothing is written. */
	struct block tight = { fuzz_block(text.len - 1), text.len - 1 };
	MUST(evbus_json_text(string, tight.data, tight.len) == text.len);
	block_cleanup(&tight);
}

static void check_value(struct evbus_slice value)
{
	size_t len = evbus_json_text(value, NULL, 0);
	struct block text = { fuzz_block(len), len };

	MUST(len <= value.len && json_value_len(value) == value.len);
	MUST(evbus_json_text(value, text.data, len) == len && json_equals(value, slice_of(&text)));
	if (value.data[0] != '"') {
		MUST(same(slice_of(&text), value));
	} else {
		struct block slow = { fuzz_block(value.len), 0 };
		slow.len = slow_text(value, slow.data);
		MUST(same(slice_of(&text), slice_of(&slow)) && utf8_valid(slice_of(&text)));
		block_cleanup(&slow);
	}
	check_quote(slice_of(&text));
	block_cleanup(&text);
}

static void check_find(struct evbus_slice text, const char *pointer)
{
	bool twice, twice_too;
	struct evbus_slice value = evbus_json_find(text, pointer, &twice);
	struct evbus_slice slow = slow_find(text, pointer, &twice_too);

	if (value.data)
		check_value(value);
	/* A token that has to be unescaped is at most 1024 bytes long. */
	if (strlen(pointer) > 1024)
		return;
	MUST(twice == twice_too && value.data == slow.data && value.len == slow.len);
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
		check_find(text, pointer.data);
	else
		MUST(within(evbus_json_find(text, pointer.data, &twice), text));
	check_quote(text);
	return 0;
}

/* json_value.c: single values out of a text that the scanner of json.c has accepted, and strings into one. */
#include "event/json.h"

#include "base/hex.h"

#include <string.h>

/* A token of a pointer that has to be unescaped (~0, ~1) is at most this long; another is as long as it likes. */
#define TOKEN_MAX_BYTES 1024u

#define ESCAPED_UNIT_LEN 6 /* \uXXXX */
#define REPLACEMENT_CHARACTER 0xfffd

/* ---- unescaping ------------------------------------------------------------------------------------------------ */

/* The code unit of a \uXXXX at p, -1 if there is none. */
static int32_t code_unit(const char *p, const char *end)
{
	int32_t unit = 0;

	if (end - p < ESCAPED_UNIT_LEN || p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < ESCAPED_UNIT_LEN; i++) {
		int digit = hex_value(p[i]);
		if (digit < 0)
			return -1;
		unit = unit * 16 + digit;
	}
	return unit;
}

static size_t utf8_encode(uint32_t code, char out[4])
{
	static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t len = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;

	for (size_t i = len; i-- > 1; code >>= 6)
		out[i] = (char)(0x80 | (code & 0x3f));
	out[0] = (char)(lead[len] | code);
	return len;
}

/* Takes a \uXXXX, or two where they are a surrogate pair. A lone surrogate has no UTF-8 form: it becomes U+FFFD. */
static size_t unescape_unit(const char **p, const char *end, char out[4])
{
	int32_t unit = code_unit(*p, end);

	*p += ESCAPED_UNIT_LEN;
	if (unit < 0xd800 || unit > 0xdfff)
		return utf8_encode((uint32_t)unit, out);
	int32_t low = code_unit(*p, end);
	if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff)
		return utf8_encode(REPLACEMENT_CHARACTER, out);
	*p += ESCAPED_UNIT_LEN;
	return utf8_encode(0x10000 + ((uint32_t)(unit - 0xd800) << 10) + (uint32_t)(low - 0xdc00), out);
}

/* Takes the next byte or escape and writes the bytes, 1 to 4, that it stands for. What is no escape after all stands
 * for itself, so that a text which nobody has checked is read wrongly at worst, never beyond its end. */
static size_t unescape(const char **p, const char *end, char out[4])
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";

	if (code_unit(*p, end) >= 0)
		return unescape_unit(p, end, out);
	const char *known = **p == '\\' && end - *p > 1 && (*p)[1] ? strchr(from, (*p)[1]) : NULL;
	out[0] = known ? to[known - from] : **p;
	*p += known ? 2 : 1;
	return 1;
}

/* ---- values as text -------------------------------------------------------------------------------------------- */

static bool is_string(struct evbus_slice value)
{
	return value.len >= 2 && value.data[0] == '"';
}

/* Takes the quotes of a string off, and nothing off another value. */
static struct evbus_slice inside_of(struct evbus_slice value)
{
	return is_string(value) ? (struct evbus_slice){ value.data + 1, value.len - 2 } : value;
}

static bool is_escaped(struct evbus_slice value)
{
	return is_string(value) && memchr(value.data, '\\', value.len);
}

static bool unescaped_equals(struct evbus_slice inside, struct evbus_slice text)
{
	const char *end = inside.data + inside.len;
	size_t at = 0;

	for (const char *p = inside.data; p < end;) {
		char bytes[4];
		size_t len = unescape(&p, end, bytes);
		if (text.len - at < len || memcmp(text.data + at, bytes, len) != 0)
			return false;
		at += len;
	}
	return at == text.len;
}

bool json_equals(struct evbus_slice value, struct evbus_slice text)
{
	if (!value.data)
		return false;
	struct evbus_slice inside = inside_of(value);
	if (is_escaped(value))
		return unescaped_equals(inside, text);
	return inside.len == text.len && (text.len == 0 || memcmp(inside.data, text.data, text.len) == 0);
}

/* Returns the length; text may be NULL. */
static size_t unescape_all(struct evbus_slice inside, char *text)
{
	const char *end = inside.data + inside.len;
	size_t total = 0;

	for (const char *p = inside.data; p < end;) {
		char bytes[4];
		size_t len = unescape(&p, end, bytes);
		if (text)
			memcpy(text + total, bytes, len);
		total += len;
	}
	return total;
}

size_t evbus_json_text(struct evbus_slice value, char *text, size_t size)
{
	if (!value.data)
		return 0;
	struct evbus_slice inside = inside_of(value);
	if (is_escaped(value)) {
		size_t len = unescape_all(inside, NULL);
		if (len <= size)
			unescape_all(inside, text);
		return len;
	}
	if (inside.len && inside.len <= size)
		memcpy(text, inside.data, inside.len);
	return inside.len;
}

/* What may not stand in a string as it is; \u00xx is 6 bytes. */
static size_t escape(char c, char out[ESCAPED_UNIT_LEN])
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
	const char *known = c ? strchr(from, c) : NULL;

	out[0] = '\\';
	if (known) {
		out[1] = to[known - from];
		return 2;
	}
	memcpy(out + 1, "u00", 3);
	out[4] = hex[c >> 4 & 15];
	out[5] = hex[c & 15];
	return ESCAPED_UNIT_LEN;
}

enum evbus_code json_quote(struct buf *out, struct evbus_slice text, struct evbus_err *err)
{
	size_t len = out->len;

	/* Room for the worst case first, so that a failure leaves nothing half written. */
	TRY(buf_reserve(out, text.len * ESCAPED_UNIT_LEN + 2, err));
	out->data[len++] = '"';
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '"' || c == '\\' || (unsigned char)c < 0x20)
			len += escape(c, out->data + len);
		else
			out->data[len++] = c;
	}
	out->data[len++] = '"';
	out->len = len;
	return EVBUS_OK;
}

/* ---- pointers -------------------------------------------------------------------------------------------------- */

static const struct evbus_slice nothing;

static struct evbus_slice rest_of(struct evbus_slice text, size_t from)
{
	return (struct evbus_slice){ text.data + from, text.len - from };
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static size_t blanks_len(struct evbus_slice text)
{
	size_t len = 0;

	while (len < text.len && is_blank(text.data[len]))
		len++;
	return len;
}

/* RFC 6901, section 4: ~1 is a slash and ~0 a tilde. false: a tilde before anything else, or too long. */
static bool token_unescape(struct evbus_slice token, char text[TOKEN_MAX_BYTES], size_t *len)
{
	*len = 0;
	if (token.len > TOKEN_MAX_BYTES)
		return false;
	for (size_t i = 0; i < token.len; i++) {
		char c = token.data[i];
		if (c == '~') {
			char escape = ++i < token.len ? token.data[i] : 0;
			if (escape != '0' && escape != '1')
				return false;
			c = escape == '0' ? '~' : '/';
		}
		text[(*len)++] = c;
	}
	return true;
}

static struct evbus_slice find_member(struct evbus_slice object, struct evbus_slice token, bool *ambiguous)
{
	char text[TOKEN_MAX_BYTES];
	struct json_want want = { .name = token };
	struct json_fault fault;

	if (memchr(token.data, '~', token.len)) {
		want.name.data = text;
		if (!token_unescape(token, text, &want.name.len))
			return nothing;
	}
	if (!json_scan_record(object, &want, 1, &fault) || want.times == 0)
		return nothing;
	*ambiguous = want.times > 1;
	return *ambiguous ? nothing : want.value;
}

/* An array index: digits without a leading 0. false: it is none, or beyond any array. */
static bool token_index(struct evbus_slice token, size_t *index)
{
	size_t value = 0;

	if (token.len == 0 || token.len > 9 || (token.len > 1 && token.data[0] == '0'))
		return false;
	for (size_t i = 0; i < token.len; i++) {
		if (token.data[i] < '0' || token.data[i] > '9')
			return false;
		value = value * 10 + (size_t)(token.data[i] - '0');
	}
	*index = value;
	return true;
}

static struct evbus_slice find_element(struct evbus_slice array, struct evbus_slice token)
{
	struct evbus_slice rest = array;
	size_t index;

	if (!token_index(token, &index))
		return nothing;
	for (;; index--) {
		/* Over the opening bracket or a comma. */
		rest = rest_of(rest, 1);
		rest = rest_of(rest, blanks_len(rest));
		size_t len = json_value_len(rest);
		if (len == 0)
			return nothing;
		if (index == 0)
			return (struct evbus_slice){ rest.data, len };
		rest = rest_of(rest, len);
		rest = rest_of(rest, blanks_len(rest));
		if (rest.len == 0 || rest.data[0] != ',')
			return nothing;
	}
}

static struct evbus_slice trim(struct evbus_slice json)
{
	json = rest_of(json, blanks_len(json));
	while (json.len && is_blank(json.data[json.len - 1]))
		json.len--;
	return json;
}

struct evbus_slice evbus_json_find(struct evbus_slice json, const char *pointer, bool *ambiguous)
{
	bool twice = false;
	struct evbus_slice value = json.data ? trim(json) : nothing;

	while (*pointer == '/' && value.len) {
		size_t len = strcspn(++pointer, "/");
		struct evbus_slice token = { pointer, len };
		if (value.data[0] == '{')
			value = find_member(value, token, &twice);
		else if (value.data[0] == '[')
			value = find_element(value, token);
		else
			value = nothing;
		pointer += len;
	}
	if (ambiguous)
		*ambiguous = twice;
	return *pointer || !value.len ? nothing : value;
}

/* json.c: the scanner; where nothing is asked for but whether it is right, json_blocks.c comes before it.
 *
 * An event is looked at once, from left to right, and every byte is judged where it is met: grammar, UTF-8 and depth in
 * the same pass. Two things make it fast. Most bytes of an event stand in strings and are plain there, so those are
 * passed over 16 at a time (8 without SSE2), which leaves one unpredictable branch a string. And nesting is one bit a
 * level (object or array) in a few words, so there is neither recursion nor memory to manage, and an input
 * cannot choose how deep the stack grows.
 *
 * Positions are pointers; NULL is a failure that fail() has noted. At the end of the text the next byte is taken to be
 * NUL, which is right nowhere in JSON, so every refusal takes the same way out.
 */
#include "event/json_blocks.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define KIND_WORD_BITS 64u

struct scan {
	const uint8_t *begin;
	const uint8_t *end;
	size_t escapes; /* seen so far, so that a name knows whether it has any */
	unsigned depth_max;
	struct json_fault fault;
};

struct member {
	struct evbus_slice name; /* with its quotes */
	bool escaped;
	struct evbus_slice value;
};

static struct scan scan_of(struct evbus_slice text)
{
	/* No arithmetic on NULL, not even adding 0. */
	const uint8_t *begin = (const uint8_t *)(text.data ? text.data : "");

	return (struct scan){ .begin = begin, .end = begin + (text.data ? text.len : 0), .depth_max = EVBUS_DEPTH_MAX };
}

static __attribute__((cold, noinline)) const uint8_t *fail(struct scan *s, const uint8_t *at, const char *reason)
{
	s->fault.at = (size_t)(at - s->begin);
	s->fault.reason = at == s->end ? "unexpected end" : reason;
	return NULL;
}

static inline uint8_t peek(const struct scan *s, const uint8_t *p)
{
	return p < s->end ? *p : 0;
}

static inline bool is_digit(uint8_t c)
{
	return (uint8_t)(c - '0') < 10;
}

static inline bool is_plain(uint8_t c)
{
	return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static inline const uint8_t *skip_blanks(const struct scan *s, const uint8_t *p)
{
	while (p < s->end && *p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
		p++;
	return p;
}

/* ---- strings --------------------------------------------------------------------------------------------------- */

#define BYTES_OF(c) (0x0101010101010101u * (c))

/* Whether all of 8 bytes are plain. The borrow of a subtraction can mark a byte above one that is rightly marked, never
 * one without that, so the answer for all of them together is exact, in either byte order. */
static inline bool all_plain(const uint8_t *p)
{
	uint64_t word;

	memcpy(&word, p, sizeof word);
	uint64_t quote = word ^ BYTES_OF('"');
	uint64_t backslash = word ^ BYTES_OF('\\');
	uint64_t stop = (quote - BYTES_OF(1)) | (backslash - BYTES_OF(1)) | (word - BYTES_OF(0x20)) | word;
	return !(stop & BYTES_OF(0x80));
}

/* The first byte of a string's inside that is not plain: a quote, a backslash, a control character, or beyond ASCII. */
static inline const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
	for (; end - p >= 16; p += 16) {
		__m128i block = _mm_loadu_si128((const __m128i *)p);
		/* Compared as signed: bytes from 0x80 are below 0x20, too. */
		__m128i odd = _mm_cmplt_epi8(block, _mm_set1_epi8(0x20));
		__m128i quote = _mm_cmpeq_epi8(block, _mm_set1_epi8('"'));
		__m128i backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8('\\'));
		unsigned stop = (unsigned)_mm_movemask_epi8(_mm_or_si128(odd, _mm_or_si128(quote, backslash)));
		if (stop)
			return p + __builtin_ctz(stop);
	}
#endif
	while (end - p >= 8 && all_plain(p))
		p += 8;
	while (p < end && is_plain(*p))
		p++;
	return p;
}

/* How long the sequence is that this byte begins, and what its second byte may be (RFC 3629, section 4: that alone
 * keeps overlong forms, surrogates and what is above U+10FFFF out). 0: it begins none. */
static inline size_t utf8_sequence(uint8_t lead, uint8_t *low, uint8_t *high)
{
	*low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	*high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	return lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
}

/* Past all bytes beyond ASCII that stand here together. */
static const uint8_t *utf8_end(struct scan *s, const uint8_t *p)
{
	while (peek(s, p) >= 0x80) {
		uint8_t low, high;
		size_t len = utf8_sequence(*p, &low, &high);
		if (!len)
			return fail(s, p, "invalid UTF-8");
		p++;
		for (size_t i = 1; i < len; i++, p++) {
			uint8_t c = peek(s, p);
			if (c < low || c > high)
				return fail(s, p, "invalid UTF-8");
			low = 0x80;
			high = 0xbf;
		}
	}
	return p;
}

static inline bool is_hex(uint8_t c)
{
	return is_digit(c) || (uint8_t)((c | 0x20) - 'a') < 6;
}

static const uint8_t *escape_end(struct scan *s, const uint8_t *p)
{
	s->escapes++;
	uint8_t c = peek(s, ++p);
	if (c == 'u') {
		for (int i = 0; i < 4; i++)
			if (!is_hex(peek(s, ++p)))
				return fail(s, p, "expected a hexadecimal digit");
		return p + 1;
	}
	if (!c || !strchr("\"\\/bfnrt", c))
		return fail(s, p, "unknown escape");
	return p + 1;
}

/* The rest of a string from a byte that is not plain. */
static __attribute__((noinline)) const uint8_t *string_rest(struct scan *s, const uint8_t *p)
{
	while (p && peek(s, p) != '"') {
		if (peek(s, p) == '\\')
			p = escape_end(s, p);
		else if (peek(s, p) >= 0x80)
			p = utf8_end(s, p);
		else
			return fail(s, p, "control character in a string");
		if (p)
			p = skip_plain(p, s->end);
	}
	return p ? p + 1 : NULL;
}

/* p: the opening quote. */
static inline const uint8_t *string_end(struct scan *s, const uint8_t *p)
{
	p = skip_plain(p + 1, s->end);
	return peek(s, p) == '"' ? p + 1 : string_rest(s, p);
}

bool utf8_valid(struct evbus_slice text)
{
	struct scan s = scan_of(text);
	const uint8_t *p = s.begin;

	while (p && p < s.end) {
		if (s.end - p >= 8 && all_plain(p))
			p += 8;
		else if (*p < 0x80)
			p++;
		else
			p = utf8_end(&s, p);
	}
	return p != NULL;
}

const uint8_t *json_special_end(const uint8_t *p, const uint8_t *end)
{
	struct scan s = { .begin = p, .end = end };

	return *p == '\\' ? escape_end(&s, p) : *p >= 0x80 ? utf8_end(&s, p) : NULL;
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

static inline const uint8_t *digits_end(struct scan *s, const uint8_t *p)
{
	if (!is_digit(peek(s, p)))
		return fail(s, p, "expected a digit");
	while (is_digit(peek(s, p)))
		p++;
	return p;
}

static const uint8_t *number_end(struct scan *s, const uint8_t *p)
{
	if (*p == '-')
		p++;
	if (peek(s, p) == '0' && is_digit(peek(s, p + 1)))
		return fail(s, p + 1, "a number does not begin with 0");
	p = digits_end(s, p);
	if (p && peek(s, p) == '.')
		p = digits_end(s, p + 1);
	if (p && (peek(s, p) | 0x20) == 'e') {
		p++;
		if (peek(s, p) == '+' || peek(s, p) == '-')
			p++;
		p = digits_end(s, p);
	}
	return p;
}

static inline const uint8_t *word_end(struct scan *s, const uint8_t *p, const char *word)
{
	for (; *word; word++, p++)
		if (peek(s, p) != (uint8_t)*word)
			return fail(s, p, "expected true, false or null");
	return p;
}

static inline const uint8_t *scalar_end(struct scan *s, const uint8_t *p)
{
	uint8_t c = peek(s, p);

	if (c == '"')
		return string_end(s, p);
	if (is_digit(c) || c == '-')
		return number_end(s, p);
	if (c == 't')
		return word_end(s, p, "true");
	if (c == 'f')
		return word_end(s, p, "false");
	if (c == 'n')
		return word_end(s, p, "null");
	return fail(s, p, "expected a value");
}

bool json_scalar_is_whole(const uint8_t *p, const uint8_t *end)
{
	struct scan s = { .begin = p, .end = end };

	p = scalar_end(&s, p);
	return p && p < end && (*p == ',' || *p == ' ' || *p == '}' || *p == ']');
}

/* A member's name, its colon and the blanks around them: where its value should begin. */
static inline const uint8_t *name_end(struct scan *s, const uint8_t *p)
{
	p = skip_blanks(s, p);
	if (peek(s, p) != '"')
		return fail(s, p, "expected a member name");
	p = string_end(s, p);
	if (!p)
		return NULL;
	p = skip_blanks(s, p);
	if (peek(s, p) != ':')
		return fail(s, p, "expected a colon");
	return skip_blanks(s, p + 1);
}

/* The containers that are open, outermost first. */
struct nesting {
	uint64_t objects[EVBUS_DEPTH_MAX / KIND_WORD_BITS + 1]; /* a bit each: an object, or else an array */
	unsigned depth;
};

static inline bool in_object(const struct nesting *n)
{
	return n->objects[(n->depth - 1) / KIND_WORD_BITS] >> (n->depth - 1) % KIND_WORD_BITS & 1;
}

static inline void enter(struct nesting *n, bool object)
{
	uint64_t *word = &n->objects[n->depth / KIND_WORD_BITS];
	uint64_t bit = (uint64_t)1 << n->depth % KIND_WORD_BITS;

	*word = object ? *word | bit : *word & ~bit;
	n->depth++;
}

/* After a value: leaves the containers that end here, until `outer` of them are open. Returns the end of the value as
 * a whole, or where the next value within should begin. */
static inline const uint8_t *leave(struct scan *s, const uint8_t *p, struct nesting *n, unsigned outer)
{
	while (n->depth > outer) {
		bool object = in_object(n);
		p = skip_blanks(s, p);
		uint8_t c = peek(s, p);
		if (c == ',')
			return object ? name_end(s, p + 1) : skip_blanks(s, p + 1);
		if (c != (object ? '}' : ']'))
			return fail(s, p, object ? "expected a comma or }" : "expected a comma or ]");
		p++;
		n->depth--;
	}
	return p;
}

/* The end of the value at p, which stands in `outer` containers. */
static const uint8_t *value_end(struct scan *s, const uint8_t *p, unsigned outer)
{
	struct nesting n = { .depth = outer };

	do {
		uint8_t c = peek(s, p);
		if (c == '{' || c == '[') {
			if (n.depth == s->depth_max)
				return fail(s, p, "nested too deep");
			enter(&n, c == '{');
			p = skip_blanks(s, p + 1);
			/* In ASCII a closing bracket is 2 above its opening one. An empty container is left below. */
			if (peek(s, p) != c + 2) {
				if (c == '{')
					p = name_end(s, p);
				continue;
			}
		} else {
			p = scalar_end(s, p);
		}
		if (p)
			p = leave(s, p, &n, outer);
	} while (p && n.depth > outer);
	return p;
}

size_t json_value_len(struct evbus_slice text)
{
	struct scan s = scan_of(text);
	const uint8_t *end = value_end(&s, s.begin, 0);

	return end ? (size_t)(end - s.begin) : 0;
}

/* ---- members --------------------------------------------------------------------------------------------------- */

static inline struct evbus_slice slice_of(const uint8_t *begin, const uint8_t *end)
{
	return (struct evbus_slice){ (const char *)begin, (size_t)(end - begin) };
}

/* The member that begins at p, in an object that stands at this depth. Returns the comma or brace after it. */
static inline const uint8_t *read_member(struct scan *s, const uint8_t *p, unsigned depth, struct member *m)
{
	size_t escapes = s->escapes;

	const uint8_t *name = skip_blanks(s, p);
	if (peek(s, name) != '"')
		return fail(s, name, "expected a member name");
	p = string_end(s, name);
	if (!p)
		return NULL;
	m->name = slice_of(name, p);
	m->escaped = s->escapes != escapes;
	p = skip_blanks(s, p);
	if (peek(s, p) != ':')
		return fail(s, p, "expected a colon");
	const uint8_t *value = skip_blanks(s, p + 1);
	p = value_end(s, value, depth);
	if (!p)
		return NULL;
	m->value = slice_of(value, p);
	p = skip_blanks(s, p);
	if (peek(s, p) != ',' && peek(s, p) != '}')
		return fail(s, p, "expected a comma or }");
	return p;
}

static inline bool name_is(const struct member *m, struct evbus_slice name)
{
	if (m->escaped)
		return json_equals(m->name, name);
	return m->name.len == name.len + 2 && memcmp(m->name.data + 1, name.data, name.len) == 0;
}

static inline void answer(const struct member *m, struct json_want *wants, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (name_is(m, wants[i].name) && wants[i].times++ == 0)
			wants[i].value = m->value;
}

static const uint8_t *scan_object(struct scan *s, struct json_want *wants, size_t count)
{
	const uint8_t *p = s->begin;
	struct member m = { .escaped = false };

	if (peek(s, p) != '{')
		return fail(s, p, "expected {");
	if (!count)
		return value_end(s, p, 0);
	p = skip_blanks(s, p + 1);
	if (peek(s, p) == '}')
		return p + 1;
	do {
		p = read_member(s, p, 1, &m);
		if (!p)
			return NULL;
		answer(&m, wants, count);
	} while (*p++ == ',');
	return p;
}

static bool scan_all(struct evbus_slice text, unsigned depth_max, struct json_want *wants, size_t count,
		     struct json_fault *fault)
{
	struct scan s = scan_of(text);

	s.depth_max = depth_max;
	for (size_t i = 0; i < count; i++) {
		wants[i].value = (struct evbus_slice){ 0 };
		wants[i].times = 0;
	}
	const uint8_t *p = scan_object(&s, wants, count);
	if (p && p != s.end)
		p = fail(&s, p, "more than one object");
	*fault = s.fault;
	return p != NULL;
}

bool json_scan(struct evbus_slice text, struct json_want *wants, size_t count, struct json_fault *fault)
{
	return (!count && json_blocks_pass(text)) || scan_all(text, EVBUS_DEPTH_MAX, wants, count, fault);
}

bool json_scan_line(struct evbus_slice text, struct json_fault *fault)
{
	if (json_blocks_pass(text))
		return true;
	if (!scan_all(text, EVBUS_DEPTH_MAX, NULL, 0, fault))
		return false;
	/* Between members JSON allows it. */
	const char *newline = memchr(text.data, '\n', text.len);
	if (newline)
		*fault = (struct json_fault){ (size_t)(newline - text.data), "a line break, and events are one line," };
	return !newline;
}

bool json_scan_record(struct evbus_slice text, struct json_want *wants, size_t count, struct json_fault *fault)
{
	return scan_all(text, EVBUS_DEPTH_MAX + 1, wants, count, fault);
}

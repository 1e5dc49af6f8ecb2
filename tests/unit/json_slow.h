/* json_slow.h: a second opinion on what JSON is: RFC 8259 written down without any thought of speed. */
#ifndef EVBUS_TESTS_JSON_SLOW_H
#define EVBUS_TESTS_JSON_SLOW_H

#include "event/json.h"

#include <string.h>

struct slow {
	const unsigned char *p;
	size_t at, len;
	int depth;
};

static inline int slow_now(const struct slow *s)
{
	return s->at < s->len ? s->p[s->at] : -1;
}

static inline bool slow_char(struct slow *s, const char *set)
{
	int c = slow_now(s);

	if (c <= 0 || !strchr(set, c))
		return false;
	s->at++;
	return true;
}

static inline void slow_blanks(struct slow *s)
{
	while (slow_char(s, " \t\r\n"))
		;
}

static inline bool slow_digits(struct slow *s)
{
	size_t from = s->at;

	while (slow_char(s, "0123456789"))
		;
	return s->at > from;
}

static inline bool slow_number(struct slow *s)
{
	slow_char(s, "-");
	size_t from = s->at;
	if (!slow_digits(s) || (s->p[from] == '0' && s->at - from > 1))
		return false;
	if (slow_char(s, ".") && !slow_digits(s))
		return false;
	if (!slow_char(s, "eE"))
		return true;
	slow_char(s, "+-");
	return slow_digits(s);
}

static inline bool slow_utf8(struct slow *s)
{
	int lead = slow_now(s);
	int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	uint32_t code = (uint32_t)(lead & (0x3f >> more));

	if (lead < 0xc0 || lead > 0xf7)
		return false;
	for (int i = 0; i < more; i++) {
		s->at++;
		if ((slow_now(s) & 0xc0) != 0x80 || slow_now(s) < 0)
			return false;
		code = code << 6 | (uint32_t)(slow_now(s) & 0x3f);
	}
	s->at++;
	return code >= least[more] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
}

static inline bool slow_string(struct slow *s)
{
	if (!slow_char(s, "\""))
		return false;
	while (!slow_char(s, "\"")) {
		if (slow_now(s) < 0x20)
			return false;
		if (slow_now(s) >= 0x80) {
			if (!slow_utf8(s))
				return false;
		} else if (!slow_char(s, "\\")) {
			s->at++;
		} else if (slow_char(s, "u")) {
			for (int i = 0; i < 4; i++)
				if (!slow_char(s, "0123456789abcdefABCDEF"))
					return false;
		} else if (!slow_char(s, "\"\\/bfnrt")) {
			return false;
		}
	}
	return true;
}

static inline bool slow_word(struct slow *s, const char *word)
{
	for (; *word; word++, s->at++)
		if (slow_now(s) != *word)
			return false;
	return true;
}

static inline bool slow_value(struct slow *s);

static inline bool slow_container(struct slow *s, bool object)
{
	if (++s->depth > EVBUS_DEPTH_MAX)
		return false;
	s->at++;
	slow_blanks(s);
	while (!slow_char(s, object ? "}" : "]")) {
		slow_blanks(s);
		if (object && !slow_string(s))
			return false;
		slow_blanks(s);
		if (object && !slow_char(s, ":"))
			return false;
		slow_blanks(s);
		if (!slow_value(s))
			return false;
		slow_blanks(s);
		bool comma = slow_char(s, ",");
		slow_blanks(s);
		if (comma == (slow_now(s) == (object ? '}' : ']')))
			return false;
	}
	s->depth--;
	return true;
}

static inline bool slow_value(struct slow *s)
{
	switch (slow_now(s)) {
	case '{':
		return slow_container(s, true);
	case '[':
		return slow_container(s, false);
	case '"':
		return slow_string(s);
	case 't':
		return slow_word(s, "true");
	case 'f':
		return slow_word(s, "false");
	case 'n':
		return slow_word(s, "null");
	default:
		return slow_number(s);
	}
}

static inline bool slow_object(struct evbus_slice text)
{
	struct slow s = { .p = (const unsigned char *)text.data, .len = text.len };

	return slow_now(&s) == '{' && slow_value(&s) && s.at == s.len;
}

#endif

/* json.h: a strict RFC 8259 scanner that allocates nothing and keeps no tree.
 *
 * It says whether bytes are one JSON object in valid UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above
 * U+10FFFF) and where the members that were asked for lie. It changes and rewrites nothing. \uD800-style lone
 * surrogates in escapes are grammatical JSON and pass. */
#ifndef EVBUS_EVENT_JSON_H
#define EVBUS_EVENT_JSON_H

#include "base/buf.h"

/* A top-level member that is asked for. Names are compared after unescaping ("\u0069d" is "id"). */
struct json_want {
	struct evbus_slice name;
	struct evbus_slice value;     /* out: raw bytes of the first occurrence; data NULL where absent */
	uint32_t times;               /* out: how often it stands there */
};

struct json_fault {
	size_t at;                    /* byte index of the first byte that cannot be */
	const char *reason;           /* "expected a colon", "control character in a string", … */
};

/* One object and nothing else, not even blanks around it; nested at most EVBUS_DEPTH_MAX deep (the object itself is 1).
 * wants may be NULL. On false only *fault is meaningful. */
bool json_scan(struct evbus_slice text, struct json_want *wants, size_t count, struct json_fault *fault);

/* The same of an event: it has no line break either, which in the log would end its line. */
bool json_scan_line(struct evbus_slice text, struct json_fault *fault);

/* The same for a record, which has one level more than the payload in it. */
bool json_scan_record(struct evbus_slice text, struct json_want *wants, size_t count, struct json_fault *fault);

/* The length of the JSON value (of any kind) at the beginning of text, 0 if there is none that is valid. */
size_t json_value_len(struct evbus_slice text);

/* evbus_json_find() and evbus_json_text() of evbus.h are implemented here as well. */

/* true where a raw JSON value, as text, equals these bytes ("a\u0062" equals ab; 1.10 equals 1.10 and not 1.1). */
bool json_equals(struct evbus_slice value, struct evbus_slice text);

/* Appends text (valid UTF-8) as a JSON string with its quotes: escapes only what must be, \b \f \n \r \t by name, other
 * control characters as \u00xx. */
CHECKED enum evbus_code json_quote(struct buf *out, struct evbus_slice text, struct evbus_err *err);

/* Whether bytes are valid UTF-8. */
bool utf8_valid(struct evbus_slice text);

#endif

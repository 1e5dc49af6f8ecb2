/* envelope.h: what an event says of itself, whatever its producer calls it; and filters over that. */
#ifndef EVBUS_EVENT_ENVELOPE_H
#define EVBUS_EVENT_ENVELOPE_H

#include "event/json.h"

/* evbus_envelope_read() of evbus.h is implemented here. */

/* Checks the forms of a filter once (EVBUS_USAGE). */
CHECKED enum evbus_code filter_check(const struct evbus_filter *filter, struct evbus_err *err);

/* Whether a filter asks for anything. */
bool filter_is_empty(const struct evbus_filter *filter);

/* The payload is valid JSON (it was checked when it was published). A record's own tenant_id and event_key (raw JSON,
 * data NULL where absent) win over those of the payload. */
bool filter_matches(const struct evbus_filter *filter, const struct evbus_record *record);

/* Writes the key that the first of "/a,/b" that is there gives (a string unescaped, a number or boolean as it stands;
 * null counts as absent) to key and its length to *len; *len = SIZE_MAX where none is there. EVBUS_DATA: an object,
 * an array, twice, or longer than EVBUS_KEY_MAX_BYTES. EVBUS_USAGE: the list is not one of pointers. */
CHECKED enum evbus_code envelope_key_from(struct evbus_slice payload, const char *pointers,
					  char key[EVBUS_KEY_MAX_BYTES], size_t *len, struct evbus_err *err);

#endif

/* subject.h: topic names and NATS-style patterns over their tokens.
 *
 * https://docs.nats.io/nats-concepts/subjects: "*" is exactly one token, ">" one or more and last. */
#ifndef EVBUS_EVENT_SUBJECT_H
#define EVBUS_EVENT_SUBJECT_H

#include "base/err.h"

/* Tokens of [A-Za-z0-9_-] joined by dots, none empty, the first character a letter or digit, at most
 * EVBUS_TOPIC_MAX_BYTES. EVBUS_USAGE says what is wrong with it and what to do ("crm." : a pattern needs quotes, 'crm.>'). */
CHECKED enum evbus_code subject_check_name(const char *what, const char *name, struct evbus_err *err);
CHECKED enum evbus_code subject_check_pattern(const char *what, const char *pattern, struct evbus_err *err);
bool subject_is_pattern(const char *name);

/* Any text may be matched, not only topic names: tokens are what stands between dots. */
bool subject_matches(const char *pattern, struct evbus_slice subject);

#endif

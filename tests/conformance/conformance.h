/* conformance.h: what the cases of the suite have in common: a bus of the backend that is tested, in a scratch
 * directory, with the store in a file of its own, and short ways to publish and to read. */
#ifndef EVBUS_TESTS_CONFORMANCE_H
#define EVBUS_TESTS_CONFORMANCE_H

#include "evbus.h"
#include "unit/scratch.h"

extern struct evbus *bus;
extern struct evbus_err err;

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)
#define IS(slice, text)                                                                                                \
	cr_expect(slice_is((slice), (text)), "'%.*s' is not '%s'", (int)(slice).len, (slice).data, (text))

#define EVENTS_MAX 8

bool slice_is(struct evbus_slice slice, const char *text);

/* Whether $EVBUS_CONFORMANCE_LACKS has this word: a backend that cannot do something says so, and the cases look whether
 * it is refused.
 *	expect	append only at an offset that is expected
 *	atomic	more than one event at once
 *	raw	payloads that are no JSON object
 *	bytes	know how many bytes a partition has
 *	records	nor how many records
 *	keys	keep an index of event keys in the store */
bool lacks(const char *what);

/* Offsets are numbers of any length. */
int compare_offsets(const char *a, const char *b);

void conformance_enter(void);
void conformance_leave(void);

/* Another handle on the same bus. */
struct evbus *open_again(void);

void make_topic(const char *name, uint32_t partitions);
/* Publishes and returns the receipt, which lives until the next call. */
const struct evbus_record *publish(const char *topic, const char *payload);
/* Publishes {"n":0}, {"n":1} and so on to the topic "t"; what offsets they get is the backend's business. */
struct offsets {
	char at[EVENTS_MAX][EVBUS_OFFSET_MAX_BYTES + 1];
};
struct offsets publish_numbered(int count);
/* The payloads that a selection has, with a blank behind each; bounded. */
const char *read_all(const struct evbus_selection *selection);

#endif

/* letter_ids.h: names of dead letters, from words and from files. */
#ifndef LETTER_IDS_H
#define LETTER_IDS_H

#include "cmd.h"

struct letter_ids {
	const char **items;
	size_t count, room;
};

/* EVBUS_USAGE where it is none. */
CHECKED enum evbus_code letter_ids_add(struct letter_ids *ids, struct call *call, const char *id);

/* What dlq-list, dlq-retry and dlq-discard printed in any of their formats, or one id a line; "-" is standard input.
 * EVBUS_DATA names the line that is none of these. */
CHECKED enum evbus_code letter_ids_read(struct letter_ids *ids, struct call *call, const char *file);

/* Sorts them, and drops what is there twice. */
void letter_ids_sort(struct letter_ids *ids);
void letter_ids_release(struct letter_ids *ids);

#endif

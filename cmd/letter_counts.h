/* letter_counts.h: how many dead letters there are of each kind. */
#ifndef LETTER_COUNTS_H
#define LETTER_COUNTS_H

#include "cmd.h"

struct counts {
	struct call *call;
	const char *by;              /* reason, type, topic, group or tenant */
	void *tree;                  /* of struct count, by value */
	struct count **all;
	size_t count, room;
	int64_t total;
};

/* EVBUS_USAGE where there are too many different ones. */
CHECKED enum evbus_code counts_add(struct counts *counts, const struct evbus_letter *letter);
/* Most frequent first; a table ends with the total. */
CHECKED enum evbus_code counts_print(struct counts *counts, const char *format);
void counts_release(struct counts *counts);

#endif

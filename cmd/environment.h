/* environment.h: what a command finds in its environment: ours, and EVENT_* of the event it is run for. */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

#include "cmd.h"

#define EVENT_VARIABLES 12u

/* Ours is taken once, without EVENT_* (they would be those of another event) and without variables of ours that hold a
 * password. */
struct environment {
	struct call *call;
	const char **entries;        /* ends with NULL; of the last environment_set() */
	size_t own;                  /* the first of them are ours */
	const char *traceparent;     /* ours, for events without one; NULL: none */
	const char *group;
	char *text;                  /* of the event's */
	size_t len, size;
	size_t begins[EVENT_VARIABLES];
	size_t count;
	bool no_memory;
	bool told;                   /* that a value could not be in an environment */
};

/* group: EVENT_GROUP, or NULL. */
CHECKED enum evbus_code environment_make(struct call *call, const char *group, struct environment *environment);
/* record NULL: for no event in particular. attempt 0: not said. */
CHECKED enum evbus_code environment_set(struct environment *environment, const struct evbus_record *record,
					uint32_t attempt);
void environment_cleanup(struct environment *environment);

#endif

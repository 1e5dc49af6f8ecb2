/* names.h: a list of topic names as topic_names() gives it out: sorted, ended by NULL, one block. */
#ifndef EVBUS_BACKEND_NAMES_H
#define EVBUS_BACKEND_NAMES_H

#include "base/buf.h"

/* Adds a name where it matches the pattern; NULL: all do. Begins with an empty buffer. */
CHECKED enum evbus_code names_add(struct buf *names, const char *pattern, struct evbus_slice name,
				  struct evbus_err *err);

CHECKED enum evbus_code names_give(const struct buf *names, char ***list, struct evbus_err *err);

#endif

/* sources.h: where dead letters lie: the store of the bus, and outboxes. */
#ifndef SOURCES_H
#define SOURCES_H

#include "cmd.h"

/* struct source_args sources; for SOURCE_OPTS. */
struct source_args {
	struct list outbox;
	const char *map;
};

#define SOURCE_OPTS                                                                                                \
	OPT(0, sources.outbox, "URL", "this outbox as well, sqlite:FILE; may be repeated", .env = true),           \
		OPT(0, sources.map, "OURS=THEIRS,...", "names of its table and columns, as for outbox-drain")

struct sources {
	struct evbus *bus;
	struct evbus_outbox *outboxes[LIST_MAX + 1];
	size_t outbox_count;
};

/* Opens the bus, the outboxes that are named, and the one in the store, if its table is there. */
CHECKED enum evbus_code sources_open(struct sources *sources, struct call *call, const struct source_args *args);
/* Only the store is looked at from now on. */
void sources_leave_outboxes(struct sources *sources);
void sources_close(struct sources *sources);

#endif

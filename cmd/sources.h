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
	OPT(0, sources.outbox, "URL", "this outbox as well, sqlite:FILE or a name of the configuration; may be repeated", .env = true),           \
		OPT(0, sources.map, "OURS=THEIRS,...", "names of its table and columns, as for outbox-drain")

struct sources {
	struct evbus *bus;
	struct evbus_outbox **outboxes;
	size_t outbox_count;
};

/* Opens the bus, and unless only the store is to be looked at the outbox in it, if its table is there, those that are
 * named, and those of the configuration. */
CHECKED enum evbus_code sources_open(struct sources *sources, struct call *call, const struct source_args *args,
				     bool store_only);
/* Only the store is looked at from now on. */
void sources_leave_outboxes(struct sources *sources);
void sources_close(struct sources *sources);

#endif

/* bus.h: what the public calls share. */
#ifndef EVBUS_BUS_H
#define EVBUS_BUS_H

#include "log/topic.h"
#include "store/store.h"

struct evbus {
	struct root root;            /* fd -1 until there is a bus */
	struct evbus_options options;
	char *path;
	char *store_url;             /* NULL: the default one */
	struct store *store;         /* opened when it is needed */
	unsigned char *alive;        /* a page that the kernel wipes in a forked child */
	struct evbus_publisher *publisher;    /* of evbus_publish() */
};

/* EVBUS_BUG in a forked child. */
CHECKED enum evbus_code bus_check(const struct evbus *bus, struct evbus_err *err);

/* Opens the root, or, with create and unless the options forbid it, makes it. EVBUS_NONE: there is no bus. */
CHECKED enum evbus_code bus_root(struct evbus *bus, bool create, struct evbus_err *err);

/* The store, opened. The first write makes it. EVBUS_NONE: it is the default one, and there is no bus. */
CHECKED enum evbus_code bus_store(struct evbus *bus, struct evbus_err *err);

/* A handle of its own on the same store, by the same rules, for who does not belong to the bus's thread. */
CHECKED enum evbus_code bus_open_store(struct evbus *bus, struct store **store, struct evbus_err *err);

uint32_t bus_payload_max(const struct evbus *bus);

#endif

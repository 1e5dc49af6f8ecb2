/* bus.h: what the public calls share. */
#ifndef EVBUS_BUS_H
#define EVBUS_BUS_H

#include "backend.h"
#include "log/topic.h"
#include "store/store.h"

struct evbus {
	struct backend *backend;
	struct root *root;           /* of the files, its fd -1 until there is a bus; NULL: they are elsewhere */
	struct evbus_options options;
	mode_t file_mode, dir_mode;  /* of what is made */
	char *store_url;             /* NULL: the one in the files, or it is not known yet */
	struct store *store;         /* opened when it is needed */
	unsigned char *alive;        /* a page that the kernel wipes in a forked child */
	struct evbus_publisher *publisher;    /* of evbus_publish(), */
	struct evbus_event event;    /* and what it publishes: to clear one each time would take as long as to write it */
};

/* EVBUS_BUG in a forked child. */
CHECKED enum evbus_code bus_check(const struct evbus *bus, struct evbus_err *err);

/* One line for options.notice. */
void bus_notice(const struct evbus *bus, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Opens the bus, or, with create and unless the options forbid it, makes it. EVBUS_NONE: there is none. */
CHECKED enum evbus_code bus_reach(struct evbus *bus, bool create, struct evbus_err *err);

/* The length of the scheme (RFC 3986) that a text begins with, 0 where it is a plain path. */
size_t bus_scheme_len(const char *url);

/* The directory of the state of a bus that is there, made where it is missing: claims lie in it, and the default store.
 * Where the bus is no directory, it is that of the store; where that is on a server, one of the user's. */
CHECKED enum evbus_code bus_state(struct evbus *bus, int *fd, struct evbus_err *err);

/* A claim of the group, where those who share the store find it: on its server, or in that directory, which is opened
 * unless *state is not -1. once: for who asks again and again. */
CHECKED enum evbus_code bus_claim(struct evbus *bus, int *state, const char *group, const char *topic,
				  int32_t partition_id, bool once, struct evbus_claim **claim, struct evbus_err *err);

/* EVBUS_CONFIG where topics are not files: there is nothing like this. */
CHECKED enum evbus_code bus_need_files(const struct evbus *bus, const char *what, struct evbus_err *err);

/* Whether there is one: chosen, or the default one of the backend. */
bool bus_has_store(struct evbus *bus);

/* The store, opened. The first write makes it. EVBUS_NONE: it is the default one, and there is no bus. */
CHECKED enum evbus_code bus_store(struct evbus *bus, struct evbus_err *err);

/* A handle of its own on the same store, by the same rules, for who does not belong to the bus's thread. */
CHECKED enum evbus_code bus_open_store(struct evbus *bus, struct store **store, struct evbus_err *err);

uint32_t bus_payload_max(const struct evbus *bus);

#endif

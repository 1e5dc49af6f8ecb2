/* outboxes.h: opening the outbox that --outbox names. */
#ifndef OUTBOXES_H
#define OUTBOXES_H

#include "cmd.h"

/* struct outbox_args outbox; for OUTBOX_OPTS. */
struct outbox_args {
	const char *outbox;
	const char *map;
	bool wrap;
};

#define OUTBOX_OPTS                                                                                                \
	OPT(0, outbox.outbox, "URL", "which outbox, sqlite:FILE, postgresql://... or a name of the configuration (default: a table in the store)", .env = true),    \
		OPT(0, outbox.map, "OURS=THEIRS,...", "names of the table and its columns: table=events,payload=body, " \
						      "topic='crm.{type}', state.SENT=COMPLETED"),                 \
		OPT(0, outbox.wrap, "", "the payload is only a body: build the envelope around it")

CHECKED enum evbus_code outbox_open(struct call *call, struct evbus *bus, const struct outbox_args *args,
				    struct evbus_outbox **outbox);
/* The same, with rows published to another bus, which *to has then and which is to be closed after the outbox; to_bus NULL:
 * to this one. */
CHECKED enum evbus_code outbox_open_to(struct call *call, struct evbus *bus, const struct outbox_args *args,
				       const char *to_bus, uint32_t payload_max_bytes, struct evbus **to,
				       struct evbus_outbox **outbox);
void outbox_cleanup(struct evbus_outbox **outbox);

#endif

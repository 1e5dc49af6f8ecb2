/* outboxes.c: opening the outbox that --outbox names. */
#include "outboxes.h"

enum evbus_code outbox_open(struct call *call, struct evbus *bus, const struct outbox_args *args,
			    struct evbus_outbox **outbox)
{
	const struct evbus_outbox_options options = { .map = args->map, .wrap = args->wrap };

	return evbus_outbox_open(bus, args->outbox, &options, outbox, &call->err);
}

void outbox_cleanup(struct evbus_outbox **outbox)
{
	evbus_outbox_close(*outbox);
}

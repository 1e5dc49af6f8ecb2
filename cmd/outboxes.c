/* outboxes.c: opening the outbox that --outbox names. */
#include "outboxes.h"

#include <string.h>

/* What the configuration calls so, or NULL. Its names have no colon and no slash: sqlite:crm and ./crm are files. */
static const struct evbus_outbox_setting *configured(const struct call *call, const char *name)
{
	const struct evbus_config *config = call->config;

	for (size_t i = 0; name && config && i < config->outbox_count; i++)
		if (!strcmp(config->outboxes[i].name, name))
			return &config->outboxes[i];
	return NULL;
}

static enum evbus_code open_outbox(struct call *call, struct evbus *bus, const struct outbox_args *args, struct evbus *to,
				   struct evbus_outbox **outbox)
{
	const struct evbus_outbox_setting *own = configured(call, args->outbox);
	const struct evbus_outbox_options options = {
		.name = own ? own->name : NULL,
		.map = args->map || !own ? args->map : own->map,
		.wrap = args->wrap || (own && own->wrap),
		.to = to,
	};

	enum evbus_code code = evbus_outbox_open(bus, own ? own->url : args->outbox, &options, outbox, &call->err);
	if (code && own)
		return fail_within(call, "%s:%u:%u: outbox '%s'", call->config->path, own->line, own->column, own->name);
	return code;
}

enum evbus_code outbox_open(struct call *call, struct evbus *bus, const struct outbox_args *args,
			    struct evbus_outbox **outbox)
{
	return open_outbox(call, bus, args, NULL, outbox);
}

enum evbus_code outbox_open_to(struct call *call, struct evbus *bus, const struct outbox_args *args, const char *to_bus,
			       uint32_t payload_max_bytes, struct evbus **to, struct evbus_outbox **outbox)
{
	if (to_bus)
		TRY(bus_open_other(call, to_bus, payload_max_bytes, to));
	return open_outbox(call, bus, args, *to, outbox);
}

void outbox_cleanup(struct evbus_outbox **outbox)
{
	evbus_outbox_close(*outbox);
}

/* sources.c: opening the bus and every outbox that is meant. */
#include "sources.h"
#include "outboxes.h"

#include <stdlib.h>
#include <string.h>

#define PAYLOAD_MAX_BYTES (3u * 1024 * 1024) /* what was taken once can be published once more */

/* A store without an outbox is the rule, and no failure. */
static enum evbus_code open_own(struct sources *sources, struct call *call)
{
	CLEANUP(outbox_cleanup) struct evbus_outbox *outbox = NULL;
	int64_t seq;

	TRY(outbox_open(call, sources->bus, &(struct outbox_args){ .outbox = NULL }, &outbox));
	enum evbus_code code = evbus_outbox_last_seq(outbox, &seq, &call->err);
	if (code)
		return code == EVBUS_NONE ? EVBUS_OK : code;
	sources->outboxes[sources->outbox_count++] = outbox;
	outbox = NULL;
	return EVBUS_OK;
}

static enum evbus_code open_one(struct sources *sources, struct call *call, const char *outbox, const char *map)
{
	const struct outbox_args args = { .outbox = outbox, .map = map };

	TRY(outbox_open(call, sources->bus, &args, &sources->outboxes[sources->outbox_count]));
	sources->outbox_count++;
	return EVBUS_OK;
}

static bool is_named(const struct source_args *args, const char *name)
{
	for (size_t i = 0; i < args->outbox.count; i++)
		if (!strcmp(args->outbox.items[i], name))
			return true;
	return false;
}

enum evbus_code sources_open(struct sources *sources, struct call *call, const struct source_args *args,
			     bool store_only)
{
	const struct evbus_options options = { .payload_max_bytes = PAYLOAD_MAX_BYTES };
	size_t configured = call->config ? call->config->outbox_count : 0;

	TRY(bus_open(call, &options, &sources->bus));
	if (store_only)
		return EVBUS_OK;
	sources->outboxes = calloc(1 + args->outbox.count + configured, sizeof(*sources->outboxes));
	if (!sources->outboxes)
		return fail(call, EVBUS_IO, "cannot open %zu outboxes: out of memory", args->outbox.count + configured);
	TRY(open_own(sources, call));
	for (size_t i = 0; i < args->outbox.count; i++)
		TRY(open_one(sources, call, args->outbox.items[i], args->map));
	for (size_t i = 0; i < configured; i++)
		if (!is_named(args, call->config->outboxes[i].name))
			TRY(open_one(sources, call, call->config->outboxes[i].name, NULL));
	return EVBUS_OK;
}

void sources_leave_outboxes(struct sources *sources)
{
	while (sources->outbox_count)
		evbus_outbox_close(sources->outboxes[--sources->outbox_count]);
}

void sources_close(struct sources *sources)
{
	sources_leave_outboxes(sources);
	free(sources->outboxes);
	bus_cleanup(&sources->bus);
}

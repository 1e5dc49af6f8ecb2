/* sources.c: opening the bus and every outbox that is meant. */
#include "sources.h"
#include "outboxes.h"

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

enum evbus_code sources_open(struct sources *sources, struct call *call, const struct source_args *args)
{
	const struct evbus_options options = { .no_create = true, .payload_max_bytes = PAYLOAD_MAX_BYTES };

	TRY(bus_open(call, &options, &sources->bus));
	TRY(open_own(sources, call));
	for (size_t i = 0; i < args->outbox.count; i++) {
		const struct outbox_args one = { .outbox = args->outbox.items[i], .map = args->map };

		TRY(outbox_open(call, sources->bus, &one, &sources->outboxes[sources->outbox_count]));
		sources->outbox_count++;
	}
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
	bus_cleanup(&sources->bus);
}

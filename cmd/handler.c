/* handler.c: stub. */
#include "handler.h"

enum evbus_code handler_open(struct call *call, const struct handler_options *options, struct handler **handler)
{
	(void)options;
	(void)handler;
	return fail(call, EVBUS_BUG, "not built yet");
}

void handler_cleanup(struct handler **handler)
{
	(void)handler;
}

enum evbus_code handler_run(struct handler *handler, const struct job *job, struct outcome *outcome)
{
	(void)handler;
	(void)job;
	(void)outcome;
	return EVBUS_BUG;
}

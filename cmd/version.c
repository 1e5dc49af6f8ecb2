/* version.c: evbus version */
#include "out.h"

struct args {
	struct common common;
};

COMMAND(version,
	.summary = "print the version",
	.no_bus = true,
	.opts = OPTS(TALK_OPTS),
	.examples = EXAMPLES({ "evbus version", "evbus …" }));

static enum evbus_code version_run(struct args *args, struct call *call)
{
	(void)args;
	out_text("evbus ");
	out_text(evbus_version());
	out_text("\n");
	return out_flush(call);
}

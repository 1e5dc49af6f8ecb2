/* version.c: evbus version */
#include "out.h"

struct args {
	struct common common;
};

COMMAND(version, .summary = "print the version, and which backends are there", .no_bus = true, .opts = OPTS(TALK_OPTS),
	.examples = EXAMPLES({ "evbus version", "evbus …\nbackends: file memory…" }));

/* Those that are there, or those that are not. */
static void list(bool wanted)
{
	const char *name, *before = wanted ? " " : "; not installed: ";
	bool there;

	for (size_t i = 0; (name = evbus_backend(i, &there)); i++) {
		if (there != wanted)
			continue;
		out_text(before);
		out_text(name);
		before = " ";
	}
}

static enum evbus_code version_run(struct args *args, struct call *call)
{
	(void)args;
	out_text("evbus ");
	out_text(evbus_version());
	out_text("\nbackends:");
	list(true);
	list(false);
	out_text("\n");
	return out_flush(call);
}

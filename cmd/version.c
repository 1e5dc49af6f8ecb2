/* version.c: evbus version */
#include "out.h"

#define BACKENDS_MAX 16u

struct args {
	struct common common;
};

COMMAND(version,
	.summary = "print the version, and which backends are there",
	.no_bus = true,
	.opts = OPTS(TALK_OPTS),
	.examples = EXAMPLES({ "evbus version", "evbus …\nbackends: file memory…" }));

struct backend {
	const char *name;
	bool there;
};

/* Those that are there, or those that are not. */
static void list(const struct backend *backends, bool wanted, const char *before)
{
	for (; backends->name; backends++) {
		if (backends->there != wanted)
			continue;
		out_text(before);
		out_text(backends->name);
		before = " ";
	}
}

static enum evbus_code version_run(struct args *args, struct call *call)
{
	struct backend backends[BACKENDS_MAX + 1] = { { .name = NULL } };

	(void)args;
	for (size_t i = 0; i < BACKENDS_MAX; i++)
		if (!(backends[i].name = evbus_backend(i, &backends[i].there)))
			break;
	out_text("evbus ");
	out_text(evbus_version());
	out_text("\nbackends:");
	list(backends, true, " ");
	list(backends, false, "; not installed: ");
	out_text("\n");
	return out_flush(call);
}

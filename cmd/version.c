/* version.c: evbus version */
#include "out.h"

#include <string.h>

#define PARTS_MAX 16u

struct args {
	struct common common;
	const char *format;
};

COMMAND(version,
	.summary = "print the version, and which backends and stores are there",
	.no_bus = true,
	.opts = OPTS(
		OPT(0, format, "text|json", "how to print", .words = "text|json", .preset = "text"),
		TALK_OPTS),
	.examples = EXAMPLES({ "evbus version", "evbus …\nbackends: file memory…\nstores: …" }));

struct part {
	const char *name;
	bool there;
};

struct family {
	const char *name;
	const char *(*part)(size_t index, bool *there);
};

static const struct family families[] = { { "backends", evbus_backend }, { "stores", evbus_store_kind } };

static size_t take(const struct family *family, struct part parts[PARTS_MAX])
{
	size_t count = 0;

	while (count < PARTS_MAX && (parts[count].name = family->part(count, &parts[count].there)))
		count++;
	return count;
}

/* Those that are there, or those that are not. */
static void list(const struct part *parts, size_t count, bool wanted, const char *before)
{
	for (size_t i = 0; i < count; i++) {
		if (parts[i].there != wanted)
			continue;
		out_text(before);
		out_text(parts[i].name);
		before = " ";
	}
}

static void print_text(void)
{
	struct part parts[PARTS_MAX];

	out_printf("evbus %s\n", evbus_version());
	for (size_t i = 0; i < COUNT(families); i++) {
		size_t count = take(&families[i], parts);
		out_printf("%s:", families[i].name);
		list(parts, count, true, " ");
		list(parts, count, false, "; not installed: ");
		out_text("\n");
	}
}

static void print_json(void)
{
	struct part parts[PARTS_MAX];

	out_printf("{\"version\":\"%s\"", evbus_version());
	for (size_t i = 0; i < COUNT(families); i++) {
		size_t count = take(&families[i], parts);
		out_printf(",\"%s\":[", families[i].name);
		for (size_t j = 0; j < count; j++)
			out_printf("%s{\"name\":\"%s\",\"installed\":%s}", j ? "," : "", parts[j].name,
				   parts[j].there ? "true" : "false");
		out_text("]");
	}
	out_text("}\n");
}

static enum evbus_code version_run(struct args *args, struct call *call)
{
	if (!strcmp(args->format, "json"))
		print_json();
	else
		print_text();
	return out_flush(call);
}

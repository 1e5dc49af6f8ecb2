/* config.c: evbus config: what is in force, and who said so. */
#include "opt.h"
#include "out.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct args {
	struct common common;
	bool path;
	const char *format;
};

COMMAND(config,
	.summary = "print the settings that are in force, and where each comes from",
	.no_bus = true,
	.opts = OPTS(
		OPT(0, path, "", "print only which file the configuration is"),
		LIST_FORMAT_OPT,
		COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NONE, "with --path: there is no configuration" },
		{ EVBUS_PERMISSION, "the configuration cannot be read" },
		{ EVBUS_CONFIG, "the configuration, or a variable, says what cannot be" }),
	.examples = EXAMPLES(
		{ "echo 'bus: file:events' >evbus.yaml; evbus config --format tsv | grep '^bus'",
		  "bus\tfile:events\tevbus.yaml:1" },
		{ "evbus config --path", "evbus.yaml" },
		{ "EVBUS_BUS=file:other evbus config --format tsv | grep '^bus'", "bus\tfile:other\tvariable EVBUS_BUS" }));

#define ORIGIN_MAX_BYTES 1024u

static const struct column columns[] = { { "setting", TEXT }, { "value", TEXT }, { "origin", TEXT } };

static void put(struct table *table, const char *setting, const char *value, const char *origin)
{
	char masked[MASKED_MAX_BYTES];

	table_text(table, setting);
	if (value)
		mask_secrets(value, masked);
	table_text(table, value ? masked : NULL);
	table_text(table, origin);
}

/* ---- settings -------------------------------------------------------------------------------------------------- */

static void name_place(const struct call *call, uint32_t line, bool of_profile, char origin[ORIGIN_MAX_BYTES])
{
	const struct evbus_config *config = call->config;

	assert(config);
	snprintf(origin, ORIGIN_MAX_BYTES, "%s:%u%s%s", config->path, line, of_profile ? ", profile " : "",
		 of_profile ? config->profile : "");
}

static void name_origin(const struct call *call, const struct fallback *fallback, char origin[ORIGIN_MAX_BYTES])
{
	switch (fallback->origin) {
	case FROM_VARIABLE:
		snprintf(origin, ORIGIN_MAX_BYTES, "variable %s", fallback->variable.text);
		break;
	case FROM_CONFIG:
		name_place(call, fallback->setting->line, fallback->setting->of_profile, origin);
		break;
	case FROM_PRESET:
		snprintf(origin, ORIGIN_MAX_BYTES, "default");
		break;
	}
}

/* Our own option of a name, if it was given. */
static const struct opt *given(const struct call *call, const char *name)
{
	const struct opt *opts = call->command->opts;

	for (const struct opt *opt = opts; opt->member[0]; opt++)
		if (setting_is(opt, name) && call->given >> (opt - opts) & 1)
			return opt;
	return NULL;
}

static void put_setting(struct call *call, const struct opt *opt, const char *name, struct table *table)
{
	const struct opt *own = given(call, name);
	struct fallback fallback = fallback_of(call, opt);
	struct name shown = name_of(opt->member);
	char origin[ORIGIN_MAX_BYTES];

	if (own) {
		/* Those that we have are texts. */
		const char *value = *(const char **)(void *)((char *)call->common + own->at);

		snprintf(origin, sizeof origin, "option --%s", shown.text);
		put(table, shown.text, value, origin);
		return;
	}
	name_origin(call, &fallback, origin);
	put(table, shown.text, fallback.value, origin);
}

/* The first option that has the name, of whatever command. */
static const struct opt *declared(const char *name)
{
	for (const struct command *const *each = commands; *each; each++)
		for (const struct opt *opt = (*each)->opts; opt->member[0]; opt++)
			if (setting_is(opt, name))
				return opt;
	return NULL;
}

static void put_settings(struct call *call, struct table *table)
{
	const char *names[SETTINGS_MAX + 1];

	if (call->config && !call->common->config)
		put(table, "config", call->config->path, "found");
	else
		put_setting(call, declared("config"), "config", table);
	put_setting(call, declared("profile"), "profile", table);
	setting_names(names);
	for (const char **name = names; *name; name++)
		put_setting(call, declared(*name), *name, table);
}

/* ---- outboxes and partitionings -------------------------------------------------------------------------------- */

static void put_member(struct table *table, const char *kind, const char *name, const char *member, const char *value,
		       const char *origin)
{
	char setting[256];

	snprintf(setting, sizeof setting, "%s.%s.%s", kind, name, member);
	put(table, setting, value, origin);
}

static void put_outboxes(const struct call *call, struct table *table)
{
	for (size_t i = 0; i < call->config->outbox_count; i++) {
		const struct evbus_outbox_setting *outbox = &call->config->outboxes[i];
		char origin[ORIGIN_MAX_BYTES];

		name_place(call, outbox->line, outbox->of_profile, origin);
		put_member(table, "outboxes", outbox->name, "url", outbox->url, origin);
		put_member(table, "outboxes", outbox->name, "map", outbox->map, origin);
		put_member(table, "outboxes", outbox->name, "wrap", outbox->wrap ? "true" : "false", origin);
	}
}

static void put_partitionings(const struct call *call, struct table *table)
{
	for (size_t i = 0; i < call->config->partitioning_count; i++) {
		const struct evbus_partitioning *partitioning = &call->config->partitionings[i];
		char origin[ORIGIN_MAX_BYTES];

		name_place(call, partitioning->line, partitioning->of_profile, origin);
		for (const char *const *topic = partitioning->topics; *topic; topic++)
			put_member(table, "partitionings", partitioning->name, "topics", *topic, origin);
		put_member(table, "partitionings", partitioning->name, "key_from", partitioning->key_from, origin);
	}
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

/* Each command only reads its own settings: here all are read, as each of them would. */
static enum evbus_code check_all(struct call *call)
{
	for (const struct command *const *each = commands; *each; each++)
		for (const struct opt *opt = (*each)->opts; opt->member[0]; opt++) {
			_Alignas(max_align_t) char value[sizeof(struct list)] = { 0 };
			struct fallback fallback = fallback_of(call, opt);

			if (opt->env && fallback.value)
				TRY(fallback_parse(call, opt, &fallback, value));
		}
	return EVBUS_OK;
}

static enum evbus_code print_path(struct call *call)
{
	if (!call->config)
		return fail(call, EVBUS_NONE, "there is no configuration: none is named, and none is found");
	out_data(call->config->path, strlen(call->config->path));
	out_text("\n");
	return out_flush(call);
}

static enum evbus_code config_run(struct args *args, struct call *call)
{
	CLEANUP(table_cleanup) struct table table = { .count = 0 };

	if (args->path)
		return print_path(call);
	table_start(&table, columns, COUNT(columns), args->format);
	put_settings(call, &table);
	if (call->config) {
		put_outboxes(call, &table);
		put_partitionings(call, &table);
	}
	TRY(table_end(&table, call));
	return check_all(call);
}

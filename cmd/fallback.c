/* fallback.c: what an option is where it was not given: from the environment, from the configuration, or its preset.
 *
 * In a configuration an option has its own name. The names are taken from the declarations, so a new option with `env` is
 * a new setting as well. */
#include "opt.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The library takes an underscore and a dash for the same. */
static const char *setting_name(const struct opt *opt)
{
	return own_part(opt->member);
}

bool setting_is(const struct opt *opt, const char *name)
{
	return opt->env && !strcmp(setting_name(opt), name);
}

/* Those that say which configuration it is are no settings. */
static bool is_new_setting(const char *name, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (names[i][0] == name[0] && !strcmp(names[i], name))
			return false;
	return strcmp(name, "config") != 0 && strcmp(name, "profile") != 0;
}

size_t setting_names(const char *names[SETTINGS_MAX + 1])
{
	size_t count = 0;

	for (const struct command *const *each = commands; *each; each++)
		for (const struct opt *opt = (*each)->opts; opt->member[0]; opt++) {
			const char *name = opt->env ? setting_name(opt) : NULL;

			if (!name || !is_new_setting(name, names, count))
				continue;
			assert(count < SETTINGS_MAX);
			names[count++] = name;
		}
	names[count] = NULL;
	return count;
}

enum evbus_code fallback_open(struct call *call)
{
	const char *names[SETTINGS_MAX + 1];
	const struct evbus_config_options options = { .path = call->common->config,
						      .profile = call->common->profile,
						      .settings = names };

	setting_names(names);
	return evbus_config_open(&options, &call->config, &call->err);
}

/* What a variable of an option says, NULL where there is none or nothing in it. *name: which one it is. */
static const char *from_environment(const struct opt *opt, struct name *name)
{
	const char *value;

	*name = env_name_of(opt->member);
	value = getenv(name->text);
	if ((!value || !value[0]) && opt->env_other[0]) {
		snprintf(name->text, sizeof name->text, "%s", opt->env_other);
		value = getenv(name->text);
	}
	return value && value[0] ? value : NULL;
}

static const struct evbus_setting *from_config(const struct evbus_config *config, const struct opt *opt)
{
	for (size_t i = 0; config && i < config->setting_count; i++)
		if (setting_is(opt, config->settings[i].name))
			return &config->settings[i];
	return NULL;
}

struct fallback fallback_of(const struct call *call, const struct opt *opt)
{
	struct fallback fallback = { .origin = FROM_PRESET, .value = opt->preset[0] ? opt->preset : NULL };
	const char *variable = opt->env ? from_environment(opt, &fallback.variable) : NULL;

	if (variable) {
		fallback.origin = FROM_VARIABLE;
		fallback.value = variable;
	} else if ((fallback.setting = from_config(call->config, opt))) {
		fallback.origin = FROM_CONFIG;
		fallback.value = fallback.setting->value;
	}
	return fallback;
}

enum evbus_code fallback_parse(struct call *call, const struct opt *opt, const struct fallback *fallback, void *at)
{
	const struct evbus_setting *setting = fallback->setting;
	char why[WHY_MAX_BYTES];

	if (value_parse(opt, fallback->value, at, why))
		return EVBUS_OK;
	if (fallback->origin == FROM_VARIABLE)
		return fail(call, EVBUS_CONFIG, "variable '%s': '%s' %s", fallback->variable.text, fallback->value, why);
	assert(fallback->origin == FROM_CONFIG);
	return fail(call, EVBUS_CONFIG, "%s:%u:%u: '%s': '%s' %s", call->config->path, setting->line, setting->column,
		    name_of(opt->member).text, fallback->value, why);
}

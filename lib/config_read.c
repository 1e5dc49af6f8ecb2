/* config_read.c: what a configuration may say, and what it says.
 *
 * All of it is judged, also what no profile in use refers to: a mistake is to be told when it is made, and not on the day
 * on which somebody chooses the profile. Where the top level has a key evbus, the file belongs to a platform and all
 * other keys are its own. */
#include "config_judge.h"

#include "event/subject.h"

#include <string.h>

/* ---- settings -------------------------------------------------------------------------------------------------- */

static bool is_among(const char *name, const char *const *names)
{
	for (; names && *names; names++)
		if (same_name(name, *names))
			return true;
	return false;
}

static const struct node *value_at(const struct node *map, const char *name)
{
	for (const struct node *key = map ? map->first : NULL; key; key = key->next->next)
		if (key->kind == NODE_TEXT && same_name(key->text, name))
			return key->next;
	return NULL;
}

static void keep_setting(const struct level *level, const char *name, const char *value, const struct node *at)
{
	struct config *config = level->judge->config;
	size_t *count = &config->says.setting_count;

	if (level->keep && !is_kept(config->settings, *count, sizeof *config->settings, name))
		config->settings[(*count)++] =
			(struct evbus_setting){ name, value, at->line, at->column, level->of_profile };
}

/* ---- the bus --------------------------------------------------------------------------------------------------- */

static enum evbus_code read_kind(const struct judge *judge, const struct node *value)
{
	static const char *const kinds[] = { "file", "memory", "nats", "kafka", "kinesis", NULL };

	TRY(check_shape(judge, value, "event_bus_kind", NODE_TEXT));
	for (const char *const *kind = kinds; *kind; kind++)
		if (!strcmp(*kind, value->text))
			return EVBUS_OK;
	if (!strncmp(value->text, "amqp", 4) || !strncmp(value->text, "rabbit", 6))
		return wrong(judge, value,
			     "'event_bus_kind': RabbitMQ is a target, which cannot be read, and no kind of bus: give "
			     "amqp://HOST to --to-bus, or, to publish only, write it as 'bus'");
	return wrong(judge, value, "'event_bus_kind': '%.64s' is not one of file|memory|nats|kafka|kinesis",
		     value->text);
}

/* Settings of the bus are kept back: its kind may be said on one level and its directory on the other. *taken: this was
 * one of them. */
static enum evbus_code read_bus(const struct level *level, const struct node *key, bool *taken)
{
	const struct node **place = same_name(key->text, "bus")                 ? &level->bus->url
				    : same_name(key->text, "event_bus_kind")    ? &level->bus->kind
				    : same_name(key->text, "event_bus_root")    ? &level->bus->root
				    : same_name(key->text, "event_bus_address") ? &level->bus->address
										: NULL;

	*taken = place != NULL;
	if (!place)
		return EVBUS_OK;
	if (place == &level->bus->kind)
		TRY(read_kind(level->judge, key->next));
	else
		TRY(check_shape(level->judge, key->next, key->text, NODE_TEXT));
	*place = key->next;
	if (level->bus->url && (level->bus->kind || level->bus->root || level->bus->address))
		return wrong(level->judge, key, "both 'bus' and '%s' say which bus it is: leave one out",
			     level->bus->kind   ? "event_bus_kind"
			     : level->bus->root ? "event_bus_root"
						: "event_bus_address");
	return EVBUS_OK;
}

/* kind NULL: file, as a directory was said. */
static enum evbus_code put_together(const struct judge *judge, const struct place_of_bus *bus, struct text *url)
{
	const struct node *said = bus->kind ? bus->kind : bus->root;
	const char *kind = bus->kind ? bus->kind->text : "file";

	TRY(append(judge, said, url, kind));
	TRY(append(judge, said, url, ":"));
	if (!strcmp(kind, "memory"))
		return EVBUS_OK;
	if (!strcmp(kind, "file"))
		return append(judge, said, url, bus->root ? bus->root->text : "event_bus");
	if (!bus->address)
		return wrong(judge, bus->kind, "'event_bus_kind: %s' needs 'event_bus_address: HOST:PORT'", kind);
	TRY(append(judge, said, url, "//"));
	return append(judge, said, url, bus->address->text);
}

/* What the profile says of the bus beats what the top level says, as a whole; only what a kind needs, directory or
 * address, may come from there, so that the kind alone switches. */
static enum evbus_code keep_bus(struct judge *judge)
{
	const struct place_of_bus *top = &judge->top, *profile = &judge->profile;
	bool of_profile = profile->url || profile->kind || profile->root;
	const struct place_of_bus *bus = of_profile ? profile : top;
	const struct level level = { .judge = judge, .of_profile = of_profile, .keep = true };
	const struct place_of_bus whole = {
		.kind = bus->kind,
		.root = profile->root ? profile->root : top->root,
		.address = profile->address ? profile->address : top->address,
	};
	struct text url = { .len = 0 };
	const char *kept = NULL;

	if (bus->url) {
		keep_setting(&level, "bus", bus->url->text, bus->url);
		return EVBUS_OK;
	}
	if (!bus->kind && !bus->root)
		return EVBUS_OK;
	TRY(put_together(judge, &whole, &url));
	TRY(keep_text(judge, &url, &kept));
	keep_setting(&level, "bus", kept, bus->root ? bus->root : bus->kind);
	return EVBUS_OK;
}

/* ---- levels ---------------------------------------------------------------------------------------------------- */

static const char *const own_names[] = {
	"bus",           "store", "event_bus_kind", "event_bus_root", "event_bus_address", "profiles", "outboxes",
	"partitionings", NULL
};

static enum evbus_code read_profile(const struct level *above, const struct node *key);

static enum evbus_code read_setting(const struct level *level, const struct node *key)
{
	const char *const *names = level->judge->options->settings;
	const char *name = key->text;
	bool taken;

	TRY(read_bus(level, key, &taken));
	if (taken)
		return EVBUS_OK;
	if (!same_name(name, "store") && !is_among(name, names))
		return unknown_key(level->judge, key, names, own_names);
	TRY(check_shape(level->judge, key->next, name, NODE_TEXT));
	for (; names && *names; names++)
		if (same_name(name, *names))
			name = *names;
	keep_setting(level, name, key->next->text, key->next);
	return EVBUS_OK;
}

static enum evbus_code read_level(const struct level *level, const struct node *map)
{
	for (const struct node *key = map->first; key; key = key->next->next) {
		if (same_name(key->text, "outboxes"))
			TRY(read_outboxes(level, key));
		else if (same_name(key->text, "partitionings"))
			TRY(read_partitionings(level, key));
		else if (same_name(key->text, "profiles") && level->of_profile)
			return wrong(level->judge, key, "a profile has no profiles");
		else if (same_name(key->text, "profiles"))
			TRY(read_entries(level, key, read_profile));
		else
			TRY(read_setting(level, key));
	}
	return EVBUS_OK;
}

static bool is_chosen(const struct judge *judge, const char *profile)
{
	return judge->config->says.profile && !strcmp(judge->config->says.profile, profile);
}

/* The chosen one is kept before the top level is read, all others are only judged. */
static enum evbus_code read_profile(const struct level *above, const struct node *key)
{
	struct place_of_bus unused = { .url = NULL };
	const struct level level = { .judge = above->judge, .bus = &unused, .of_profile = true };

	TRY(check_map(above->judge, key->next, key->text));
	return is_chosen(above->judge, key->text) ? EVBUS_OK : read_level(&level, key->next);
}

static enum evbus_code read_chosen(struct judge *judge, const struct node *top)
{
	const struct level level = { .judge = judge, .bus = &judge->profile, .of_profile = true, .keep = true };
	const struct node *profiles = value_at(top, "profiles");

	if (profiles)
		TRY(check_map(judge, profiles, "profiles"));
	for (const struct node *key = profiles ? profiles->first : NULL; key; key = key->next->next) {
		if (!is_chosen(judge, key->text))
			continue;
		TRY(check_map(judge, key->next, key->text));
		return read_level(&level, key->next);
	}
	return err_set(judge->err, EVBUS_CONFIG, 0, "the configuration '%s' has no profile '%s'",
		       judge->config->says.path, judge->config->says.profile);
}

/* The map that is ours, NULL where the file says nothing. */
static enum evbus_code find_top(const struct judge *judge, const struct node **top)
{
	const struct node *root = judge->config->tree.root;
	*top = NULL;
	if (!root || (root->kind == NODE_NOTHING && !root->tagged))
		return EVBUS_OK;
	TRY(check_shape(judge, root, "the configuration", NODE_MAP));
	for (const struct node *key = root->first; key; key = key->next->next) {
		if (key->kind != NODE_TEXT || strcmp(key->text, "evbus") != 0)
			continue;
		if (*top)
			return wrong(judge, key, "the key 'evbus' stands here twice");
		*top = key->next;
	}
	*top = *top ? *top : root;
	return check_map(judge, *top, "evbus");
}

enum evbus_code config_read(struct config *config, const struct evbus_config_options *options, struct evbus_err *err)
{
	struct judge judge = { .config = config, .options = options, .err = err };
	const struct level level = { .judge = &judge, .bus = &judge.top, .keep = true };
	const struct node *top;

	config->says.settings = config->settings;
	config->says.outboxes = config->outboxes;
	config->says.partitionings = config->partitionings;
	TRY(find_top(&judge, &top));
	if (config->says.profile)
		TRY(read_chosen(&judge, top));
	if (top)
		TRY(read_level(&level, top));
	return keep_bus(&judge);
}

const char *config_key_from(const struct evbus_config *config, const char *topic)
{
	if (!config)
		return NULL;
	const struct evbus_slice name = { topic, strlen(topic) };
	for (size_t i = 0; i < config->partitioning_count; i++)
		for (const char *const *pattern = config->partitionings[i].topics; *pattern; pattern++)
			if (subject_matches(*pattern, name))
				return config->partitionings[i].key_from;
	return NULL;
}

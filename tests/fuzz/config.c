/* config.c: the tree that is made of a file, and what is read from it.
 * The input: the name of a profile, or nothing, a newline, the file. */
#include "fuzz.h"

#include "base/module.h"
#include "config.h"
#include "event/envelope.h"
#include "event/subject.h"

static const char *const settings[] = { "log", "retry_max", "profile", "store", NULL };

static size_t count_nodes(const struct node *node, size_t depth)
{
	size_t count = 0, siblings = 0;

	MUST(depth <= CONFIG_DEPTH_MAX + 1);
	for (const struct node *child = node->first; child; child = child->next, siblings++) {
		MUST(node->kind == NODE_LIST || node->kind == NODE_MAP);
		MUST(child->line && child->column);
		count += 1 + count_nodes(child, depth + 1);
	}
	MUST(node->kind != NODE_MAP || siblings % 2 == 0);
	return count;
}

static bool is_setting(const char *name)
{
	for (const char *const *at = settings; *at; at++)
		if (!strcmp(*at, name))
			return true;
	return !strcmp(name, "bus");
}

static void check_settings(const struct evbus_config *says)
{
	MUST(says->setting_count <= (size_t)2 * CONFIG_KEYS_MAX);
	for (size_t i = 0; i < says->setting_count; i++) {
		const struct evbus_setting *setting = &says->settings[i];

		MUST(is_setting(setting->name) && setting->value[0] && setting->line && setting->column);
		MUST(!setting->of_profile || says->profile);
		for (size_t j = 0; j < i; j++)
			MUST(strcmp(setting->name, says->settings[j].name) != 0);
	}
}

static void check_entries(const struct evbus_config *says)
{
	char key[EVBUS_KEY_MAX_BYTES];
	struct evbus_err err;
	size_t len;

	MUST(says->outbox_count <= (size_t)2 * CONFIG_KEYS_MAX &&
	     says->partitioning_count <= (size_t)2 * CONFIG_KEYS_MAX);
	for (size_t i = 0; i < says->outbox_count; i++)
		MUST(says->outboxes[i].name[0] && strlen(says->outboxes[i].name) <= CONFIG_NAME_MAX_BYTES);
	for (size_t i = 0; i < says->partitioning_count; i++) {
		const struct evbus_partitioning *by = &says->partitionings[i];

		MUST(by->topics[0] && envelope_key_from(SLICE("{}"), by->key_from, key, &len, &err) == EVBUS_OK);
		for (const char *const *topic = by->topics; *topic; topic++)
			MUST(subject_check_pattern("topic", *topic, &err) == EVBUS_OK);
	}
	if (says->partitioning_count && !subject_is_pattern(says->partitionings[0].topics[0]))
		MUST(config_key_from(says, says->partitionings[0].topics[0]) == says->partitionings[0].key_from);
}

/* A fresh reading of the tree. */
static enum evbus_code read_config(struct config *config, struct tree tree, const char *profile, struct evbus_err *err)
{
	const struct evbus_config_options options = { .profile = profile, .settings = settings };

	config->says = (struct evbus_config){ .path = "f.yaml", .profile = profile };
	config->tree = tree;
	config->topic_count = 0;
	return config_read(config, &options, err);
}

static void check_said(const struct evbus_err *err, enum evbus_code code)
{
	check_err(err, code);
	MUST(code == EVBUS_CONFIG);
	MUST(!strncmp(err->text, "f.yaml:", 7) || strstr(err->text, "has no profile"));
}

static void judge(struct config *config, const char *profile)
{
	struct config *plain = fuzz_block(sizeof *plain);
	struct evbus_err err, err_too;
	enum evbus_code code = read_config(config, config->tree, profile, &err);

	if (code) {
		check_said(&err, code);
	} else {
		check_settings(&config->says);
		check_entries(&config->says);
	}
	/* All of it is judged, whatever is chosen; but for which bus, and how many topics, it comes to in the end. */
	plain->tree = (struct tree){ .root = NULL };
	enum evbus_code without = read_config(plain, config->tree, NULL, &err_too);
	const char *why = code ? err.text : err_too.text;
	if (!code != !without)
		MUST(strstr(why, "event_bus_address") || strstr(why, "topics in all") || strstr(why, "has no profile"));
	/* What was kept was added to the tree, and is given back with it. */
	config->tree = plain->tree;
	free(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct config_driver *driver = evbus_module.ops;
	const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
	size_t len = newline ? (size_t)(newline - data) : 0;
	struct input input = { data + len + (newline != NULL), data + size }, first = { data, data + len };
	CLEANUP(block_cleanup) struct block profile = input_text(&first);
	CLEANUP(block_cleanup) struct block text = input_rest(&input, CONFIG_MAX_BYTES);
	struct config *config = fuzz_block(sizeof *config);
	struct evbus_err err;

	config->tree = (struct tree){ .root = NULL };
	enum evbus_code code = driver->read(slice_of(&text), "f.yaml", &config->tree, &err);
	if (code) {
		check_err(&err, EVBUS_CONFIG);
		MUST(!strncmp(err.text, "f.yaml:", 7));
	} else {
		MUST(config->tree.count <= CONFIG_NODES_MAX);
		if (config->tree.root)
			MUST(1 + count_nodes(config->tree.root, 0) == config->tree.count);
		judge(config, profile.len ? profile.data : NULL);
	}
	tree_release(&config->tree);
	free(config);
	return 0;
}

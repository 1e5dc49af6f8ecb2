/* config_entries.c: the outboxes and the partitionings of a configuration. */
#include "config_judge.h"

#include "event/envelope.h"

#include <string.h>

/* ---- outboxes -------------------------------------------------------------------------------------------------- */

/* OURS=THEIRS,... as the option --map has it; what is no name is put in quotes. */
static enum evbus_code append_pair(const struct judge *judge, const struct node *key, struct text *text)
{
	const struct node *value = key->next;
	const char *good = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.";
	bool bare;

	TRY(check_shape(judge, value, key->text, NODE_TEXT));
	bare = value->text[strspn(value->text, good)] == '\0';
	if (strchr(value->text, '\''))
		return wrong(judge, value, "'%.64s': there cannot be a quote in it", key->text);
	if (key->text[strspn(key->text, good)])
		return wrong(judge, key, "'%.64s' is no name of a column", key->text);
	TRY(append(judge, key, text, text->len ? "," : ""));
	TRY(append(judge, key, text, key->text));
	TRY(append(judge, key, text, bare ? "=" : "='"));
	TRY(append(judge, value, text, value->text));
	return append(judge, value, text, bare ? "" : "'");
}

static enum evbus_code read_map_of_outbox(const struct judge *judge, const struct node *value, const char **map)
{
	struct text text = { .len = 0 };

	if (value->kind == NODE_TEXT) {
		*map = value->text;
		return check_shape(judge, value, "map", NODE_TEXT);
	}
	TRY(check_map(judge, value, "map"));
	for (const struct node *key = value->first; key; key = key->next->next)
		TRY(append_pair(judge, key, &text));
	if (!text.len)
		return EVBUS_OK;
	return keep_text(judge, &text, map);
}

static enum evbus_code read_wrap(const struct judge *judge, const struct node *value, bool *wrap)
{
	TRY(check_shape(judge, value, "wrap", NODE_TEXT));
	*wrap = !strcmp(value->text, "true");
	if (!*wrap && strcmp(value->text, "false") != 0)
		return wrong(judge, value, "'wrap': '%.64s' is not one of true|false", value->text);
	return EVBUS_OK;
}

static void keep_outbox(const struct level *level, const struct evbus_outbox_setting *outbox)
{
	struct config *config = level->judge->config;
	size_t *count = &config->says.outbox_count;

	if (level->keep && !is_kept(config->outboxes, *count, sizeof *outbox, outbox->name))
		config->outboxes[(*count)++] = *outbox;
}

static enum evbus_code read_outbox(const struct level *level, const struct node *key)
{
	static const char *const names[] = { "url", "map", "wrap", NULL };
	const struct judge *judge = level->judge;
	struct evbus_outbox_setting outbox = {
		.name = key->text, .line = key->line, .column = key->column, .of_profile = level->of_profile
	};

	TRY(check_map(judge, key->next, key->text));
	for (const struct node *own = key->next->first; own; own = own->next->next) {
		const struct node *value = own->next;

		if (same_name(own->text, "url")) {
			TRY(check_shape(judge, value, "url", NODE_TEXT));
			outbox.url = value->text;
		} else if (same_name(own->text, "map")) {
			TRY(read_map_of_outbox(judge, value, &outbox.map));
		} else if (same_name(own->text, "wrap")) {
			TRY(read_wrap(judge, value, &outbox.wrap));
		} else {
			return unknown_key(judge, own, names, NULL);
		}
	}
	keep_outbox(level, &outbox);
	return EVBUS_OK;
}

/* ---- partitionings --------------------------------------------------------------------------------------------- */

/* A text, or each of a list, of which there is one at least. */
static enum evbus_code each_text(const struct judge *judge, const struct node *value, const char *what,
				 enum evbus_code (*take)(const struct judge *, const struct node *, void *),
				 void *context)
{
	size_t count = 0;

	if (value->kind == NODE_TEXT) {
		TRY(check_shape(judge, value, what, NODE_TEXT));
		return take(judge, value, context);
	}
	TRY(check_shape(judge, value, what, NODE_LIST));
	for (const struct node *text = value->first; text; text = text->next) {
		TRY(check_shape(judge, text, what, NODE_TEXT));
		if (++count > CONFIG_KEYS_MAX)
			return wrong(judge, text, "there are more than %u in this list", CONFIG_KEYS_MAX);
		TRY(take(judge, text, context));
	}
	return count ? EVBUS_OK : wrong(judge, value, "'%s' is empty", what);
}

/* context: whether it is kept. */
static enum evbus_code take_topic(const struct judge *judge, const struct node *text, void *context)
{
	struct config *config = judge->config;
	struct evbus_err inner;

	if (evbus_topic_check(text->text, true, &inner))
		return wrong(judge, text, "%s", inner.text);
	if (!*(const bool *)context)
		return EVBUS_OK;
	if (config->topic_count + 2 > CONFIG_TOPICS_MAX)
		return wrong(judge, text, "there are more than %u topics in all partitionings", CONFIG_TOPICS_MAX);
	config->topics[config->topic_count++] = text->text;
	return EVBUS_OK;
}

/* context: the list that is made of them. */
static enum evbus_code take_pointer(const struct judge *judge, const struct node *text, void *context)
{
	struct text *list = context;
	char key[EVBUS_KEY_MAX_BYTES];
	struct evbus_err inner;
	size_t len;

	if (envelope_key_from(SLICE("{}"), text->text, key, &len, &inner))
		return wrong(judge, text, "%s", inner.text);
	TRY(append(judge, text, list, list->len ? "," : ""));
	return append(judge, text, list, text->text);
}

static enum evbus_code read_topics(const struct level *level, const struct node *value, const char *const **topics)
{
	struct config *config = level->judge->config;
	bool keep = level->keep;

	*topics = config->topics + config->topic_count;
	TRY(each_text(level->judge, value, "topics", take_topic, &keep));
	if (keep)
		config->topics[config->topic_count++] = NULL;
	return EVBUS_OK;
}

static enum evbus_code read_key_from(const struct judge *judge, const struct node *value, const char **key_from)
{
	struct text list = { .len = 0 };

	TRY(each_text(judge, value, "key_from", take_pointer, &list));
	return keep_text(judge, &list, key_from);
}

static void keep_partitioning(const struct level *level, const struct evbus_partitioning *partitioning)
{
	struct config *config = level->judge->config;
	size_t *count = &config->says.partitioning_count;

	if (level->keep && !is_kept(config->partitionings, *count, sizeof *partitioning, partitioning->name))
		config->partitionings[(*count)++] = *partitioning;
}

static enum evbus_code read_partitioning(const struct level *level, const struct node *key)
{
	static const char *const names[] = { "topics", "key_from", NULL };
	const struct judge *judge = level->judge;
	struct evbus_partitioning partitioning = {
		.name = key->text, .line = key->line, .column = key->column, .of_profile = level->of_profile
	};

	TRY(check_map(judge, key->next, key->text));
	for (const struct node *own = key->next->first; own; own = own->next->next) {
		if (same_name(own->text, "topics"))
			TRY(read_topics(level, own->next, &partitioning.topics));
		else if (same_name(own->text, "key_from"))
			TRY(read_key_from(judge, own->next, &partitioning.key_from));
		else
			return unknown_key(judge, own, names, NULL);
	}
	if (!partitioning.topics || !partitioning.key_from)
		return wrong(judge, key, "the partitioning '%s' lacks '%s'", key->text,
			     partitioning.topics ? "key_from" : "topics");
	keep_partitioning(level, &partitioning);
	return EVBUS_OK;
}

enum evbus_code read_outboxes(const struct level *level, const struct node *key)
{
	return read_entries(level, key, read_outbox);
}

enum evbus_code read_partitionings(const struct level *level, const struct node *key)
{
	return read_entries(level, key, read_partitioning);
}

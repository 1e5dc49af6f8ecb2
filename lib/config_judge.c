/* config_judge.c: what is wrong in a configuration, and where it stands. */
#include "config_judge.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- words ----------------------------------------------------------------------------------------------------- */

enum evbus_code wrong(const struct judge *judge, const struct node *node, const char *format, ...)
{
	char what[sizeof judge->err->text];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return err_set(judge->err, EVBUS_CONFIG, 0, "%s:%u:%u: %s", judge->config->says.path, node->line, node->column,
		       what);
}

static enum evbus_code no_memory(const struct judge *judge)
{
	return err_set(judge->err, EVBUS_IO, ENOMEM, "cannot read the configuration '%s'", judge->config->says.path);
}

static char plain(char c)
{
	return c == '_' ? '-' : c;
}

/* retry_max is retry-max. */
bool same_name(const char *a, const char *b)
{
	for (; *a && plain(*a) == plain(*b); a++, b++)
		continue;
	return plain(*a) == plain(*b);
}

/* Edits (insert, remove, replace) from one word to the other: Levenshtein, one row of the matrix at a time. */
static size_t edits(const char *a, const char *b)
{
	size_t row[CONFIG_NAME_MAX_BYTES], width = strlen(b);

	if (width >= CONFIG_NAME_MAX_BYTES || strlen(a) >= CONFIG_NAME_MAX_BYTES)
		return CONFIG_NAME_MAX_BYTES;
	for (size_t j = 0; j <= width; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			size_t replaced = diagonal + (plain(a[i - 1]) != plain(b[j - 1]));
			size_t best = (row[j - 1] < row[j] ? row[j - 1] : row[j]) + 1;

			diagonal = row[j];
			row[j] = replaced < best ? replaced : best;
		}
	}
	return row[width];
}

struct nearest {
	const char *word, *best;
	size_t distance;
};

static void try_names(struct nearest *nearest, const char *const *names)
{
	for (; names && *names; names++) {
		size_t distance = edits(nearest->word, *names);

		if (distance > 1 + strlen(*names) / 4 || (nearest->best && distance >= nearest->distance))
			continue;
		nearest->best = *names;
		nearest->distance = distance;
	}
}

enum evbus_code unknown_key(const struct judge *judge, const struct node *key, const char *const *names,
			    const char *const *more)
{
	struct nearest nearest = { .word = key->text };

	if (!strcmp(key->text, "<<"))
		return wrong(judge, key, "maps are not merged here: a profile need only say what differs from the rest");
	try_names(&nearest, names);
	try_names(&nearest, more);
	if (nearest.best)
		return wrong(judge, key, "unknown key '%.64s'; did you mean '%s'?", key->text, nearest.best);
	return wrong(judge, key, "unknown key '%.64s'; see evbus-config(5)", key->text);
}

/* ---- shapes ---------------------------------------------------------------------------------------------------- */

static const char *shape_of(enum node_kind kind)
{
	static const char *const shapes[] = {
		[NODE_NOTHING] = "nothing", [NODE_TEXT] = "a text",    [NODE_LIST] = "a list",
		[NODE_MAP] = "a map",       [NODE_ALIAS] = "an alias",
	};

	return shapes[kind];
}

enum evbus_code check_shape(const struct judge *judge, const struct node *value, const char *what,
			    enum node_kind wanted)
{
	if (value->kind == NODE_ALIAS)
		return wrong(judge, value, "'%.64s': aliases are not followed: write it out", what);
	if (value->tagged)
		return wrong(judge, value, "'%.64s': tags are not read: leave it away", what);
	if (value->kind == NODE_NOTHING && wanted == NODE_TEXT)
		return wrong(judge, value, "'%.64s' has no value: leave it out, or put it in quotes", what);
	if (value->kind != wanted)
		return wrong(judge, value, "'%.64s' is %s, and should be %s", what, shape_of(value->kind),
			     shape_of(wanted));
	if (wanted == NODE_TEXT && !value->text[0])
		return wrong(judge, value, "'%.64s' is empty: leave it out instead", what);
	return EVBUS_OK;
}

/* Keys are texts, and none stands there twice. */
static enum evbus_code check_keys(const struct judge *judge, const struct node *map)
{
	size_t count = 0;

	for (const struct node *key = map->first; key; key = key->next->next) {
		if (key->kind != NODE_TEXT || key->tagged)
			return wrong(judge, key, "a key is a text, and this is %s",
				     key->tagged ? "one with a tag" : shape_of(key->kind));
		if (++count > CONFIG_KEYS_MAX)
			return wrong(judge, key, "there are more than %u keys here", CONFIG_KEYS_MAX);
		for (const struct node *before = map->first; before != key; before = before->next->next)
			if (same_name(before->text, key->text))
				return wrong(judge, key, "the key '%.64s' stands here twice, first in line %u",
					     key->text, before->line);
	}
	return EVBUS_OK;
}

/* Where a map is wanted nothing is an empty one: "local:" is a profile that changes nothing. */
enum evbus_code check_map(const struct judge *judge, const struct node *value, const char *what)
{
	if (value->kind != NODE_NOTHING || value->tagged)
		TRY(check_shape(judge, value, what, NODE_MAP));
	return check_keys(judge, value);
}

/* What an operator will type after an option, and what ids of letters begin with. */
static enum evbus_code check_name(const struct judge *judge, const struct node *key)
{
	const char *good = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
	size_t len = strlen(key->text);

	if (!len || len > CONFIG_NAME_MAX_BYTES || strspn(key->text, good) != len)
		return wrong(judge, key, "the name '%.80s' is not made of at most %u letters, digits, _, - and .",
			     key->text, CONFIG_NAME_MAX_BYTES);
	return EVBUS_OK;
}

/* ---- texts that are put together ------------------------------------------------------------------------------- */

enum evbus_code keep_text(const struct judge *judge, const struct text *text, const char **kept)
{
	struct evbus_slice slice = { text->data, text->len };
	struct node *node = tree_add(&judge->config->tree, NODE_TEXT, slice);

	if (!node)
		return no_memory(judge);
	*kept = node->text;
	return EVBUS_OK;
}

enum evbus_code append(const struct judge *judge, const struct node *at, struct text *text, const char *more)
{
	size_t len = strlen(more);

	if (len > sizeof text->data - text->len)
		return wrong(judge, at, "this and what stands with it has more than %u bytes", TEXT_MAX_BYTES);
	memcpy(text->data + text->len, more, len);
	text->len += len;
	return EVBUS_OK;
}

/* The name is the first member of each. */
bool is_kept(const void *items, size_t count, size_t size, const char *name)
{
	for (size_t i = 0; i < count; i++) {
		const char *own;

		memcpy(&own, (const char *)items + i * size, sizeof own);
		if (!strcmp(own, name))
			return true;
	}
	return false;
}

enum evbus_code read_entries(const struct level *level, const struct node *key,
			     enum evbus_code (*read)(const struct level *level, const struct node *key))
{
	TRY(check_map(level->judge, key->next, key->text));
	for (const struct node *entry = key->next->first; entry; entry = entry->next->next) {
		TRY(check_name(level->judge, entry));
		TRY(read(level, entry));
	}
	return EVBUS_OK;
}

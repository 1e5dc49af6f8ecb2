/* outbox_map.c: reads "payload=body,topic='crm.{type}',state.SENT=COMPLETED".
 *
 * What comes out of here becomes part of SQL texts, so nothing but what it says is let through: no name has a quote in
 * it, or anything else that a database could take for more than a name. */
#include "outbox_map.h"

#include <stdio.h>
#include <string.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define NAME_BYTES LETTERS "0123456789_"
#define TOPIC_BYTES NAME_BYTES ".-"
#define STATE_BYTES NAME_BYTES ".:- "

/* Those that evbus writes: none of them can stand for two things. */
#define WRITTEN                                                                                                        \
	(OUTBOX_BIT(OUTBOX_STATE) | OUTBOX_BIT(OUTBOX_ATTEMPTS) | OUTBOX_BIT(OUTBOX_DUE) | OUTBOX_BIT(OUTBOX_ERROR) |  \
	 OUTBOX_BIT(OUTBOX_OWNER) | OUTBOX_BIT(OUTBOX_EXPIRES) | OUTBOX_BIT(OUTBOX_SENT_AT) |                          \
	 OUTBOX_BIT(OUTBOX_RECEIPT) | OUTBOX_BIT(OUTBOX_HISTORY))

static const char *const columns[OUTBOX_COLUMNS] = {
	[OUTBOX_SEQ] = "seq",
	[OUTBOX_ID] = "id",
	[OUTBOX_TENANT] = "tenant_id",
	[OUTBOX_TOPIC] = "topic",
	[OUTBOX_TYPE] = "event_type",
	[OUTBOX_EVENT_KEY] = "event_key",
	[OUTBOX_PARTITION_KEY] = "partition_key",
	[OUTBOX_PAYLOAD] = "payload",
	[OUTBOX_STATE] = "state",
	[OUTBOX_ATTEMPTS] = "attempts",
	[OUTBOX_DUE] = "next_attempt_at",
	[OUTBOX_ERROR] = "last_error",
	[OUTBOX_OWNER] = "lease_owner",
	[OUTBOX_EXPIRES] = "lease_expires_at",
	[OUTBOX_CREATED] = "created_at",
	[OUTBOX_SENT_AT] = "sent_at",
	[OUTBOX_RECEIPT] = "receipt",
	[OUTBOX_HISTORY] = "history",
};

static const char *const states[EVBUS_OUTBOX_STATES] = {
	[EVBUS_OUTBOX_PENDING] = "PENDING",
	[EVBUS_OUTBOX_PROCESSING] = "PROCESSING",
	[EVBUS_OUTBOX_SENT] = "SENT",
	[EVBUS_OUTBOX_FAILED] = "FAILED",
};

const char *outbox_column_name(enum outbox_column column)
{
	return columns[column];
}

const char *evbus_outbox_state_name(enum evbus_outbox_state state)
{
	return (unsigned)state < EVBUS_OUTBOX_STATES ? states[state] : "unknown";
}

/* ---- the parts ------------------------------------------------------------------------------------------------- */

/* One OURS=THEIRS; which it is: 0 the table, then the columns, then the states. */
struct item {
	struct evbus_slice ours, theirs;
	bool quoted;
	unsigned which;
};

#define FIRST_COLUMN 1u
#define FIRST_STATE (FIRST_COLUMN + OUTBOX_COLUMNS)
#define WORDS (FIRST_STATE + EVBUS_OUTBOX_STATES)

static void word_of(unsigned which, char word[32])
{
	if (which < FIRST_COLUMN)
		snprintf(word, 32, "table");
	else if (which < FIRST_STATE)
		snprintf(word, 32, "%s", columns[which - FIRST_COLUMN]);
	else
		snprintf(word, 32, "state.%s", states[which - FIRST_STATE]);
}

static enum evbus_code find_word(struct item *item, struct evbus_err *err)
{
	char word[32], all[WORDS * 32] = "";

	for (item->which = 0; item->which < WORDS; item->which++) {
		word_of(item->which, word);
		if (item->ours.len == strlen(word) && !memcmp(item->ours.data, word, item->ours.len))
			return EVBUS_OK;
		size_t len = strlen(all);
		snprintf(all + len, sizeof all - len, "%s%s", len ? " " : "", word);
	}
	return err_set(err, EVBUS_USAGE, 0, "the map has no word '%.*s': the words are %s", (int)item->ours.len,
		       item->ours.data, all);
}

static struct evbus_slice trim(struct evbus_slice text)
{
	while (text.len && text.data[0] == ' ')
		text = (struct evbus_slice){ text.data + 1, text.len - 1 };
	while (text.len && text.data[text.len - 1] == ' ')
		text.len--;
	return text;
}

/* Reads one item and moves *at behind its comma. */
static enum evbus_code read_item(const char **at, struct item *item, struct evbus_err *err)
{
	const char *from = *at, *equals = from + strcspn(from, "=,");

	if (*equals != '=')
		return err_set(err, EVBUS_USAGE, 0, "'%.*s' in the map is not OURS=THEIRS", (int)(equals - from), from);
	item->ours = trim((struct evbus_slice){ from, (size_t)(equals - from) });
	TRY(find_word(item, err));
	const char *value = equals + 1 + strspn(equals + 1, " ");
	char quote = *value == '\'' || *value == '"' ? *value : ',';
	item->quoted = quote != ',';
	value += item->quoted;
	const char *end = value;
	while (*end && *end != quote)
		end++;
	item->theirs = (struct evbus_slice){ value, (size_t)(end - value) };
	if (item->quoted && !*end)
		return err_set(err, EVBUS_USAGE, 0, "the quote after '%.*s=' in the map is not closed",
			       (int)item->ours.len, item->ours.data);
	if (item->quoted)
		end++;
	end += strspn(end, " ");
	if (*end && *end != ',')
		return err_set(err, EVBUS_USAGE, 0, "'%s' in the map is behind a closed quote: a comma is missing",
			       end);
	if (!item->quoted)
		item->theirs = trim(item->theirs);
	*at = end + (*end == ',');
	return EVBUS_OK;
}

static bool only(struct evbus_slice text, const char *bytes)
{
	for (size_t i = 0; i < text.len; i++)
		if (!text.data[i] || !strchr(bytes, text.data[i]))
			return false;
	return true;
}

static enum evbus_code bad_value(const struct item *item, const char *what, struct evbus_err *err)
{
	return err_set(err, EVBUS_USAGE, 0, "'%.*s' for '%.*s' in the map is not %s", (int)item->theirs.len,
		       item->theirs.data, (int)item->ours.len, item->ours.data, what);
}

/* ---- names, states, templates ---------------------------------------------------------------------------------- */

static bool take(struct evbus_slice text, const char *bytes, char to[OUTBOX_NAME_MAX_BYTES + 1])
{
	if (!text.len || text.len > OUTBOX_NAME_MAX_BYTES || !only(text, bytes))
		return false;
	memcpy(to, text.data, text.len);
	to[text.len] = '\0';
	return true;
}

static enum evbus_code take_table(const struct item *item, struct outbox_map *map, struct evbus_err *err)
{
	struct evbus_slice schema = item->theirs, table = item->theirs;
	const char *dot = item->theirs.len ? memchr(item->theirs.data, '.', item->theirs.len) : NULL;

	map->schema[0] = '\0';
	if (dot) {
		schema.len = (size_t)(dot - schema.data);
		table = (struct evbus_slice){ dot + 1, table.len - schema.len - 1 };
	}
	if ((dot && !take(schema, NAME_BYTES, map->schema)) || !take(table, NAME_BYTES, map->table))
		return bad_value(item, "a table: letters, digits and _, or SCHEMA.TABLE of these", err);
	return EVBUS_OK;
}

bool outbox_template_next(const char **at, struct evbus_slice *part, bool *column)
{
	if (!**at)
		return false;
	*column = **at == '{';
	const char *from = *at + *column, *end = from + strcspn(from, *column ? "}" : "{");
	*part = (struct evbus_slice){ from, (size_t)(end - from) };
	*at = end + (*column && *end);
	return true;
}

static bool is_template(const char *text)
{
	struct evbus_slice part;
	char name[OUTBOX_NAME_MAX_BYTES + 1];
	bool column;

	while (outbox_template_next(&text, &part, &column)) {
		if (column ? !take(part, NAME_BYTES, name) || text[-1] != '}' : !only(part, TOPIC_BYTES))
			return false;
	}
	return true;
}

/* A shell takes the quotes away: what can be no column is a template without them. */
static enum evbus_code take_topic(const struct item *item, struct outbox_map *map, struct evbus_err *err)
{
	char *to = map->topic;

	if (!item->quoted && take(item->theirs, NAME_BYTES, map->columns[OUTBOX_TOPIC])) {
		map->named |= OUTBOX_BIT(OUTBOX_TOPIC);
		return EVBUS_OK;
	}
	if (!item->theirs.len || item->theirs.len > EVBUS_TOPIC_MAX_BYTES)
		return bad_value(item, "a column, or a topic with {column} in it", err);
	memcpy(to, item->theirs.data, item->theirs.len);
	to[item->theirs.len] = '\0';
	if (!is_template(to))
		return bad_value(item, "a column, or a topic with {column} in it", err);
	return EVBUS_OK;
}

static enum evbus_code take_item(const struct item *item, struct outbox_map *map, struct evbus_err *err)
{
	unsigned column = item->which - FIRST_COLUMN;

	if (item->which < FIRST_COLUMN)
		return take_table(item, map, err);
	if (item->which >= FIRST_STATE)
		return take(item->theirs, STATE_BYTES, map->states[item->which - FIRST_STATE])
			       ? EVBUS_OK
			       : bad_value(item, "a state: 1 to 63 letters, digits and _ - . :", err);
	if (column == OUTBOX_TOPIC)
		return take_topic(item, map, err);
	map->named |= OUTBOX_BIT(column);
	return take(item->theirs, NAME_BYTES, map->columns[column])
		       ? EVBUS_OK
		       : bad_value(item, "a column: 1 to 63 letters, digits and _", err);
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

static enum evbus_code check_states(const struct outbox_map *map, struct evbus_err *err)
{
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		for (unsigned j = 0; j < i; j++)
			if (!strcmp(map->states[i], map->states[j]))
				return err_set(err, EVBUS_USAGE, 0, "'%s' is both state.%s and state.%s in the map",
					       map->states[i], states[j], states[i]);
	return EVBUS_OK;
}

static enum evbus_code check_columns(const struct outbox_map *map, struct evbus_err *err)
{
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		for (unsigned j = 0; j < i; j++) {
			uint32_t both = OUTBOX_BIT(i) | OUTBOX_BIT(j);
			if ((both & WRITTEN) && (map->named & both) && !strcmp(map->columns[i], map->columns[j]))
				return err_set(err, EVBUS_USAGE, 0,
					       "'%s' is both %s and %s in the map, and evbus writes it",
					       map->columns[i], columns[j], columns[i]);
		}
	return EVBUS_OK;
}

enum evbus_code outbox_map_parse(const char *text, struct outbox_map *map, struct evbus_err *err)
{
	struct outbox_map parsed = { .table = "outbox" };
	struct item item = { 0 };
	uint64_t seen = 0;

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		snprintf(parsed.columns[i], sizeof parsed.columns[i], "%s", columns[i]);
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		snprintf(parsed.states[i], sizeof parsed.states[i], "%s", states[i]);
	while (text && *text) {
		TRY(read_item(&text, &item, err));
		if (seen & UINT64_C(1) << item.which)
			return err_set(err, EVBUS_USAGE, 0, "'%.*s' stands in the map twice", (int)item.ours.len,
				       item.ours.data);
		seen |= UINT64_C(1) << item.which;
		TRY(take_item(&item, &parsed, err));
	}
	TRY(check_states(&parsed, err));
	TRY(check_columns(&parsed, err));
	*map = parsed;
	return EVBUS_OK;
}

/* map.c: the names of an outbox's table and columns, which become part of SQL: nothing but names comes through, and a map
 * that is written down again is the same one. The input: the text of --map. */
#include "fuzz.h"

#include "outbox_map.h"

#define NAME "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

static void only(const char *text, const char *bytes)
{
	MUST(text[0] && !text[strspn(text, bytes)]);
}

static void check_topic(const char *template)
{
	struct evbus_slice part;
	const char *at = template;
	bool column;
	size_t len = 0;

	while (outbox_template_next(&at, &part, &column)) {
		MUST(part.len && part.data >= template && part.data + part.len <= template + strlen(template));
		for (size_t i = 0; i < part.len; i++)
			MUST(strchr(column ? NAME : NAME ".-", part.data[i]));
		len += part.len + (column ? 2 : 0);
	}
	MUST(len == strlen(template));
}

static void check_map(const struct outbox_map *map)
{
	if (map->schema[0])
		only(map->schema, NAME);
	only(map->table, NAME);
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		only(map->columns[i], NAME);
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++) {
		only(map->states[i], NAME ".:- ");
		for (unsigned j = 0; j < i; j++)
			MUST(strcmp(map->states[i], map->states[j]) != 0);
	}
	check_topic(map->topic);
}

/* Everything that the map says, in quotes. */
static void print_map(const struct outbox_map *map, char *text, size_t size)
{
	int n = snprintf(text, size, "table='%s%s%s'", map->schema, map->schema[0] ? "." : "", map->table);

	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		if (i == OUTBOX_TOPIC && map->topic[0])
			n += snprintf(text + n, size - (size_t)n, ",topic='%s'", map->topic);
		else if (map->named & OUTBOX_BIT(i))
			n += snprintf(text + n, size - (size_t)n, ",%s=%s", outbox_column_name((enum outbox_column)i),
				      map->columns[i]);
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		n += snprintf(text + n, size - (size_t)n, ",state.%s=\"%s\"",
			      evbus_outbox_state_name((enum evbus_outbox_state)i), map->states[i]);
	MUST(n > 0 && (size_t)n < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	CLEANUP(block_cleanup) struct block text = input_text(&input);
	struct outbox_map map, again;
	struct evbus_err err;
	char printed[4096];

	enum evbus_code code = outbox_map_parse(text.data, &map, &err);
	if (code) {
		check_err(&err, EVBUS_USAGE);
		return 0;
	}
	check_map(&map);
	print_map(&map, printed, sizeof printed);
	MUST(outbox_map_parse(printed, &again, &err) == EVBUS_OK);
	MUST(!strcmp(map.schema, again.schema) && !strcmp(map.table, again.table) && !strcmp(map.topic, again.topic));
	MUST(map.named == again.named);
	for (unsigned i = 0; i < OUTBOX_COLUMNS; i++)
		MUST(!strcmp(map.columns[i], again.columns[i]));
	for (unsigned i = 0; i < EVBUS_OUTBOX_STATES; i++)
		MUST(!strcmp(map.states[i], again.states[i]));
	return 0;
}

/* table.c: lists: an aligned table for people, one JSON object a line, or tab-separated text. */
#include "out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void table_begin(struct table *table, const struct column *columns, size_t count, const char *format)
{
	*table = (struct table){ .columns = columns, .count = count };
	if (!strcmp(format, "json"))
		table->format = TABLE_JSON;
	else if (!strcmp(format, "tsv"))
		table->format = TABLE_TSV;
	for (size_t i = 0; i < count; i++)
		table->widths[i] = strlen(columns[i].name);
}

/* Characters, not bytes: what continues one in UTF-8 takes no place. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static void keep(struct table *table, const char *text)
{
	size_t len = strlen(text) + 1, width = width_of(text);

	if (len > table->size - table->len) {
		size_t size = 2 * table->size + len + 4096;
		char *cells = realloc(table->cells, size);

		if (!cells) {
			table->no_memory = true;
			return;
		}
		table->cells = cells;
		table->size = size;
	}
	memcpy(table->cells + table->len, text, len);
	table->len += len;
	if (width > table->widths[table->column])
		table->widths[table->column] = width;
}

static void put(void *context, const char *data, size_t len)
{
	(void)context;
	out_data(data, len);
}

static void put_json(struct table *table, const char *text, bool bare)
{
	out_text(table->column ? ",\"" : "{\"");
	out_text(table->columns[table->column].name);
	out_text(bare ? "\":" : "\":\"");
	json_escape((struct evbus_slice){ text, strlen(text) }, put, NULL);
	out_text(bare ? "" : "\"");
	out_text(table->column + 1 == table->count ? "}\n" : "");
}

static void put_tsv(struct table *table, const char *text)
{
	if (text)
		out_copy(text, strlen(text));
	else
		out_text("\\N");
	out_text(table->column + 1 == table->count ? "\n" : "\t");
}

/* bare: in JSON without quotes. null: what stands for it in each format. */
static void cell(struct table *table, const char *text, bool bare)
{
	if (table->format == TABLE_JSON)
		put_json(table, text ? text : "null", bare || !text);
	else if (table->format == TABLE_TSV)
		put_tsv(table, text);
	else
		keep(table, text ? text : "-");
	table->column = (table->column + 1) % table->count;
}

void table_text(struct table *table, const char *text)
{
	cell(table, text, false);
}

void table_number(struct table *table, int64_t number)
{
	char text[24];

	snprintf(text, sizeof text, "%lld", (long long)number);
	cell(table, text, true);
}

void table_boolean(struct table *table, bool value)
{
	cell(table, value ? "true" : "false", true);
}

void table_null(struct table *table)
{
	cell(table, NULL, true);
}

static void put_aligned(const struct table *table, size_t column, const char *text)
{
	enum column_kind kind = table->columns[column].kind;
	bool right = kind == NUMBER || kind == DIGITS, last = column + 1 == table->count;
	int pad = (int)(table->widths[column] - width_of(text));

	out_printf("%*s", right ? pad : 0, "");
	out_data(text, strlen(text));
	out_printf("%*s", right || last ? 0 : pad, "");
	out_text(last ? "\n" : "  ");
}

static void put_header(const struct table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		char name[64];

		snprintf(name, sizeof name, "%s", table->columns[i].name);
		for (char *at = name; *at; at++)
			*at = *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
		put_aligned(table, i, name);
	}
}

enum evbus_code table_end(struct table *table, struct call *call)
{
	size_t column = 0;

	if (table->format == TABLE_ALIGNED)
		put_header(table);
	for (const char *at = table->cells; at && at < table->cells + table->len; at += strlen(at) + 1) {
		put_aligned(table, column, at);
		column = (column + 1) % table->count;
	}
	if (table->no_memory)
		return fail(call, EVBUS_IO, "cannot print the list: out of memory");
	return out_flush(call);
}

void table_cleanup(struct table *table)
{
	free(table->cells);
}

/* table.c: lists: an aligned table for people, one JSON object a line, or tab-separated text.
 *
 * A table is kept back until its widths are known, but not more of it than KEPT_BYTES: then the rows so far are printed,
 * and those that follow are as wide, or wider where they must. So a list of a million takes no more memory than one of
 * ten thousand. */
#include "out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BYTES (1024u * 1024u)

static struct evbus_slice slice_of(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

void table_start(struct table *table, const struct column *columns, size_t count, const char *format)
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
static size_t width_of(struct evbus_slice text)
{
	size_t width = 0;

	for (size_t i = 0; i < text.len; i++)
		width += ((unsigned char)text.data[i] & 0xc0) != 0x80;
	return width;
}

static bool is_control(char byte)
{
	return (unsigned char)byte < 0x20 || byte == 0x7f;
}

/* With what stands for control characters, which would break the rows; size has room for it. */
static size_t copy_visible(char *to, size_t size, struct evbus_slice text)
{
	size_t len = 0;

	for (size_t i = 0; i < text.len; i++)
		if (is_control(text.data[i]))
			len += (size_t)snprintf(to + len, size - len, "\\u%04x", (unsigned char)text.data[i]);
		else
			to[len++] = text.data[i];
	return len;
}

/* A cell is its length and its bytes. */
static void keep(struct table *table, struct evbus_slice text)
{
	size_t most = sizeof(size_t) + 6 * text.len + 1;

	if (most > table->size - table->len) {
		size_t size = 2 * table->size + most + 4096;
		char *cells = realloc(table->cells, size);

		if (!cells) {
			table->no_memory = true;
			return;
		}
		table->cells = cells;
		table->size = size;
	}
	char *at = table->cells + table->len, *data = at + sizeof(size_t);
	size_t len = copy_visible(data, most - sizeof(size_t), text), width = width_of((struct evbus_slice){ data, len });
	memcpy(at, &len, sizeof len);
	table->len += sizeof len + len;
	if (width > table->widths[table->column])
		table->widths[table->column] = width;
}

static void put(void *context, const char *data, size_t len)
{
	(void)context;
	out_data(data, len);
}

static void put_json(struct table *table, struct evbus_slice text, bool bare)
{
	out_text(table->column ? ",\"" : "{\"");
	out_text(table->columns[table->column].name);
	out_text(bare ? "\":" : "\":\"");
	if (bare)
		out_data(text.data, text.len);
	else
		json_escape(text, put, NULL);
	out_text(bare ? "" : "\"");
	out_text(table->column + 1 == table->count ? "}\n" : "");
}

static void put_tsv(struct table *table, struct evbus_slice text)
{
	if (text.data)
		out_copy(text.data, text.len);
	else
		out_text("\\N");
	out_text(table->column + 1 == table->count ? "\n" : "\t");
}

static void put_aligned(const struct table *table, size_t column, struct evbus_slice text)
{
	enum column_kind kind = table->columns[column].kind;
	bool right = kind == NUMBER || kind == DIGITS, last = column + 1 == table->count;
	int pad = (int)(table->widths[column] - width_of(text));

	out_printf("%*s", right ? pad : 0, "");
	out_data(text.data, text.len);
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
		put_aligned(table, i, slice_of(name));
	}
}

/* Whole rows. */
static void put_kept(struct table *table)
{
	size_t column = 0, len;

	if (!table->begun)
		put_header(table);
	table->begun = true;
	for (const char *at = table->cells; at && at < table->cells + table->len; at += len) {
		memcpy(&len, at, sizeof len);
		at += sizeof len;
		put_aligned(table, column, (struct evbus_slice){ at, len });
		column = (column + 1) % table->count;
	}
	table->len = 0;
}

/* bare: in JSON without quotes. data NULL: what stands for null in each format. */
static void cell(struct table *table, struct evbus_slice text, bool bare)
{
	if (table->format == TABLE_JSON)
		put_json(table, text.data ? text : slice_of("null"), bare || !text.data);
	else if (table->format == TABLE_TSV)
		put_tsv(table, text);
	else
		keep(table, text.data ? text : slice_of("-"));
	table->column = (table->column + 1) % table->count;
	if (table->column == 0 && table->len > KEPT_BYTES)
		put_kept(table);
}

void table_slice(struct table *table, struct evbus_slice text)
{
	cell(table, text, false);
}

void table_json(struct table *table, struct evbus_slice value)
{
	cell(table, value, true);
}

void table_text(struct table *table, const char *text)
{
	cell(table, slice_of(text), false);
}

void table_number(struct table *table, int64_t number)
{
	char text[24];

	snprintf(text, sizeof text, "%lld", (long long)number);
	cell(table, slice_of(text), true);
}

void table_boolean(struct table *table, bool value)
{
	cell(table, slice_of(value ? "true" : "false"), true);
}

void table_null(struct table *table)
{
	cell(table, slice_of(NULL), true);
}

enum evbus_code table_end(struct table *table, struct call *call)
{
	if (table->format == TABLE_ALIGNED)
		put_kept(table);
	if (table->no_memory)
		return fail(call, EVBUS_IO, "cannot print the list: out of memory");
	return out_flush(call);
}

void table_cleanup(struct table *table)
{
	free(table->cells);
}

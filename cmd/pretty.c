/* pretty.c: a record for people: a head line and the payload indented. */
#include "out.h"
#include "template.h"

#include <string.h>

static void new_line(size_t depth)
{
	out_text("\n");
	for (size_t i = 0; i <= depth; i++)
		out_text("  ");
}

static size_t string_len(const char *data, size_t len)
{
	size_t at = 1;

	while (at < len && data[at] != '"')
		at += data[at] == '\\' ? 2 : 1;
	return at + 1 < len ? at + 1 : len;
}

static size_t skip_blanks(const char *data, size_t at, size_t len)
{
	while (at < len && strchr(" \t\r\n", data[at]))
		at++;
	return at;
}

/* Prints the token at data[at] and returns where the next begins. The payload is valid JSON, so that only strings need
 * care: brackets and commas outside them are structure, blanks outside them mean nothing. */
static size_t print_token(const char *data, size_t at, size_t len, size_t *depth)
{
	char byte = data[at];

	if (byte == '"') {
		size_t n = string_len(data + at, len - at);

		out_data(data + at, n);
		return at + n;
	}
	if (byte == '{' || byte == '[') {
		size_t next = skip_blanks(data, at + 1, len);

		out_bytes(&byte, 1);
		if (next < len && (data[next] == '}' || data[next] == ']')) {
			out_bytes(data + next, 1);
			return next + 1;
		}
		new_line(++*depth);
	} else if (byte == '}' || byte == ']') {
		new_line(--*depth);
		out_bytes(&byte, 1);
	} else {
		out_bytes(&byte, 1);
		if (byte == ',')
			new_line(*depth);
		if (byte == ':')
			out_text(" ");
	}
	return at + 1;
}

void pretty_print(const struct evbus_record *record)
{
	const char *data = record->payload.data;
	size_t depth = 0;

	out_data(record->topic.data, record->topic.len);
	out_printf("/%d/", record->partition_id);
	out_bytes(record->offset.data, record->offset.len);
	out_text("  ");
	out_bytes(record->published_at_utc.data, record->published_at_utc.len);
	if (record->partition_key.len && record->partition_key.data[0] == '"') {
		out_text("  key ");
		out_data(record->partition_key.data, record->partition_key.len);
	}
	out_text("\n  ");
	if (!data) {
		out_text("payload_base64 ");
		out_bytes(record->payload_base64.data, record->payload_base64.len);
	}
	for (size_t at = 0; data && at < record->payload.len; at = skip_blanks(data, at, record->payload.len))
		at = print_token(data, at, record->payload.len, &depth);
}

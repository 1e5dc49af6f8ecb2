/* letter_row.c: all that is known of a dead letter, as a line of JSON or TSV.
 *
 * Payload and history go into JSON as they stand, so each is looked at first: an application may have put anything into
 * the columns of its outbox. A payload that is no JSON object is told in base64. */
#include "letter_row.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct column columns[] = {
	{ "id", TEXT },
	{ "state", TEXT },
	{ "source", TEXT },
	{ "group", TEXT },
	{ "tenant_id", TEXT },
	{ "topic", TEXT },
	{ "partition_id", NUMBER },
	{ "offset", DIGITS },
	{ "offset_kind", TEXT },
	{ "published_at_utc", TEXT },
	{ "partition_key", TEXT },
	{ "event_id", TEXT },
	{ "event_type", TEXT },
	{ "correlation_id", TEXT },
	{ "reason", TEXT },
	{ "error", TEXT },
	{ "attempts", NUMBER },
	{ "returns", NUMBER },
	{ "created_at_utc", TEXT },
	{ "updated_at_utc", TEXT },
	{ "resolved_by", TEXT },
	{ "result", TEXT },
	{ "history", TEXT },
	{ "payload", TEXT },         /* with --payload */
	{ "payload_base64", TEXT },
};
#define PAYLOAD_COLUMNS 2u

void letter_rows_begin(struct letter_rows *rows, const char *format, bool payload)
{
	*rows = (struct letter_rows){ .payload = payload };
	table_start(&rows->table, columns, COUNT(columns) - (payload ? 0 : PAYLOAD_COLUMNS), format);
}

void letter_rows_release(struct letter_rows *rows)
{
	table_cleanup(&rows->table);
	free(rows->scratch);
}

static enum evbus_code reserve(struct letter_rows *rows, struct call *call, size_t size)
{
	if (size <= rows->size)
		return EVBUS_OK;
	char *larger = realloc(rows->scratch, size);
	if (!larger)
		return fail(call, EVBUS_IO, "cannot print a letter of %zu bytes: out of memory", size);
	rows->scratch = larger;
	rows->size = size;
	return EVBUS_OK;
}

/* A member that stands there twice is a fault of the envelope and none of the JSON; then no byte is named. */
static bool is_object(struct evbus_slice text)
{
	struct evbus_envelope envelope;
	struct evbus_err err = { .column = 0 };

	return !evbus_envelope_read(text, &envelope, &err) || !err.column;
}

/* In valid JSON a newline stands outside of strings, where it means the same as a blank. */
static void join_lines(char *text, size_t len)
{
	for (char *at = text; (at = memchr(at, '\n', (size_t)(text + len - at)));)
		*at = ' ';
}

enum evbus_code letter_history(struct letter_rows *rows, struct call *call, struct evbus_slice history,
			       struct evbus_slice *array)
{
	static const char head[] = "{\"history\":";
	size_t at = sizeof head - 1, len = at + history.len + 1;

	*array = (struct evbus_slice){ NULL, 0 };
	if (!history.len || history.data[0] != '[')
		return EVBUS_OK;
	TRY(reserve(rows, call, len));
	memcpy(rows->scratch, head, at);
	memcpy(rows->scratch + at, history.data, history.len);
	rows->scratch[len - 1] = '}';
	join_lines(rows->scratch, len);
	if (is_object((struct evbus_slice){ rows->scratch, len }))
		*array = (struct evbus_slice){ rows->scratch + at, history.len };
	return EVBUS_OK;
}

static enum evbus_code put_payload(struct letter_rows *rows, struct call *call, struct evbus_slice payload)
{
	struct table *table = &rows->table;

	if (!payload.data) {
		table_null(table);
		table_null(table);
		return EVBUS_OK;
	}
	if (!is_object(payload)) {
		/* Never NULL, which means that there is no payload. */
		TRY(reserve(rows, call, EVBUS_BASE64_LEN(payload.len) + 1));
		table_null(table);
		table_slice(table, (struct evbus_slice){ rows->scratch, evbus_base64_encode(payload, rows->scratch) });
		return EVBUS_OK;
	}
	if (memchr(payload.data, '\n', payload.len) && table->format == TABLE_JSON) {
		TRY(reserve(rows, call, payload.len));
		memcpy(rows->scratch, payload.data, payload.len);
		join_lines(rows->scratch, payload.len);
		payload.data = rows->scratch;
	}
	table_json(table, payload);
	table_null(table);
	return EVBUS_OK;
}

static void put_place(struct table *table, const struct evbus_letter *letter)
{
	table_slice(table, letter->group);
	table_slice(table, letter->tenant_id);
	table_slice(table, letter->topic);
	if (letter->partition_id < 0)
		table_null(table);
	else
		table_number(table, letter->partition_id);
	table_slice(table, letter->offset);
	table_slice(table, letter->offset_kind);
	table_slice(table, letter->published_at_utc);
	table_slice(table, letter->partition_key);
}

static void put_fate(struct table *table, const struct evbus_letter *letter)
{
	table_text(table, evbus_reason_name(letter->reason));
	table_slice(table, letter->error);
	table_number(table, letter->attempts);
	table_number(table, letter->returns);
	table_slice(table, letter->created_at);
	table_slice(table, letter->updated_at);
	table_slice(table, letter->resolved_by);
	table_slice(table, letter->result);
}

enum evbus_code letter_rows_add(struct letter_rows *rows, struct call *call, const struct evbus_letter *letter)
{
	struct table *table = &rows->table;
	struct evbus_slice history;

	table_text(table, letter->id);
	table_text(table, evbus_letter_state_name(letter->state));
	table_slice(table, letter->source);
	put_place(table, letter);
	table_slice(table, letter->event_id);
	table_slice(table, letter->event_type);
	table_slice(table, letter->correlation_id);
	put_fate(table, letter);
	TRY(letter_history(rows, call, letter->history, &history));
	if (history.data)
		table_json(table, history);
	else
		table_slice(table, letter->history);
	return rows->payload ? put_payload(rows, call, letter->payload) : EVBUS_OK;
}

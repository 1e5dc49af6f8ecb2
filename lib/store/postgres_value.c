/* postgres_value.c: rows as the store has them, and arguments as libpq takes them.
 *
 * A text of ours may be any bytes: the id of an event may have a NUL in it, or half of a surrogate pair. Postgres takes
 * neither, so such bytes stand in our tables as DLE and two hex digits, and so does DLE itself. In an application's
 * tables nobody would understand that. */
#include "store/postgres.h"

#include "base/hex.h"
#include "event/json.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* ---- values ---------------------------------------------------------------------------------------------------- */

enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23 };

/* The server writes "\x" and two digits for each byte; their bytes take their place. */
static struct evbus_slice bytes_of(char *text, size_t len)
{
	size_t count = len < 2 ? 0 : (len - 2) / 2;

	for (size_t i = 0; i < count; i++)
		text[i] = (char)((unsigned)hex_value(text[2 + 2 * i]) << 4 | (unsigned)hex_value(text[3 + 2 * i]));
	return (struct evbus_slice){ text, count };
}

#define DLE '\x10'

/* In place. */
static size_t unescape(char *text, size_t len)
{
	char *to = memchr(text, DLE, len), *end = text + len;

	if (!to)
		return len;
	for (const char *from = to; from < end; from++) {
		int high = *from == DLE && end - from > 2 ? hex_value(from[1]) : -1;
		int low = high < 0 ? -1 : hex_value(from[2]);
		*to++ = low < 0 ? *from : (char)(high << 4 | low);
		from += low < 0 ? 0 : 2;
	}
	return (size_t)(to - text);
}

static struct value read_column(const struct pg *pg, PGresult *result, int column)
{
	if (PQgetisnull(result, 0, column))
		return (struct value){ .kind = VALUE_NULL };
	char *text = PQgetvalue(result, 0, column);
	size_t len = (size_t)PQgetlength(result, 0, column);
	switch (PQftype(result, column)) {
	case OID_BOOL:
		return (struct value){ .kind = VALUE_INTEGER, .integer = text[0] == 't' };
	case OID_INT2:
	case OID_INT4:
	case OID_INT8:
		return (struct value){ .kind = VALUE_INTEGER, .integer = strtoll(text, NULL, 10) };
	case OID_BYTEA:
		return (struct value){ .kind = VALUE_BLOB, .bytes = bytes_of(text, len) };
	default:
		len = pg->guest ? len : unescape(text, len);
		return (struct value){ .kind = VALUE_TEXT, .bytes = { text, len } };
	}
}

size_t pg_read_row(const struct pg *pg, PGresult *result, struct value *columns)
{
	int count = PQnfields(result);

	assert((size_t)count <= COLUMNS_MAX);
	for (int i = 0; i < count; i++)
		columns[i] = read_column(pg, result, i);
	return (size_t)count;
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */

static bool is_plain(struct evbus_slice text)
{
	return !text.len || (!memchr(text.data, 0, text.len) && !memchr(text.data, DLE, text.len) && utf8_valid(text));
}

/* The length of the character that a text begins with, 0 if that is none or may not stand there. */
static size_t character_len(const char *text, size_t len)
{
	if (!*text || *text == DLE)
		return 0;
	for (size_t n = 1; n <= 4 && n <= len; n++)
		if (utf8_valid((struct evbus_slice){ text, n }))
			return n;
	return 0;
}

static size_t escape(char *to, struct evbus_slice text)
{
	char *at = to;

	for (size_t i = 0, n; i < text.len; i += n ? n : 1) {
		n = character_len(text.data + i, text.len - i);
		if (n)
			memcpy(at, text.data + i, n);
		else
			snprintf(at, 4, "%c%02x", DLE, (unsigned char)text.data[i]);
		at += n ? n : 3;
	}
	return (size_t)(at - to);
}

/* A number of 64 bits, or a text each of whose bytes may become three; and a NUL. */
static size_t room_for(const struct value *value)
{
	return value->kind == VALUE_TEXT ? 3 * value->bytes.len + 1 : value->kind == VALUE_INTEGER ? 24 : 0;
}

/* Where there is room: texts have to end with a NUL, which slices do not. */
static const char *set_text(const struct pg *pg, struct buf *room, const struct value *value)
{
	char *at = room->data + room->len;
	size_t len = value->bytes.len;

	if (value->kind == VALUE_INTEGER)
		len = (size_t)snprintf(at, 24, "%" PRId64, value->integer);
	else if (!pg->guest && !is_plain(value->bytes))
		len = escape(at, value->bytes);
	else if (len)
		memcpy(at, value->bytes.data, len);
	at[len] = '\0';
	room->len += len + 1;
	return at;
}

static enum evbus_code set_one(struct pg *pg, const struct value *value, struct pg_sent *sent, size_t i,
			       struct evbus_err *err)
{
	sent->values[i] = NULL;
	sent->lengths[i] = (int)value->bytes.len;
	sent->formats[i] = value->kind == VALUE_BLOB;
	if ((value->kind == VALUE_TEXT || value->kind == VALUE_BLOB) && value->bytes.len > INT32_MAX / 2)
		return err_set(err, EVBUS_DATA, 0, "a value is too large for the database '%s'", pg->shown);
	if (pg->guest && value->kind == VALUE_TEXT && value->bytes.len && memchr(value->bytes.data, 0, value->bytes.len))
		return err_set(err, EVBUS_DATA, 0, "a text has a NUL in it, which the database '%s' does not take",
			       pg->shown);
	if (value->kind == VALUE_BLOB)
		sent->values[i] = value->bytes.data ? value->bytes.data : "";
	else if (value->kind != VALUE_NULL)
		sent->values[i] = set_text(pg, &pg->args, value);
	return EVBUS_OK;
}

enum evbus_code pg_set_args(struct pg *pg, const struct query *query, struct pg_sent *sent, struct evbus_err *err)
{
	size_t room = 1;

	assert(query->arg_count <= PG_ARGS_MAX);
	for (size_t i = 0; i < query->arg_count; i++)
		room += room_for(&query->args[i]);
	pg->args.len = 0;
	TRY(buf_reserve(&pg->args, room, err));
	for (size_t i = 0; i < query->arg_count; i++)
		TRY(set_one(pg, &query->args[i], sent, i, err));
	return EVBUS_OK;
}

/* kinesis_record.c: events as records.
 *
 * A record has bytes and a partition key, and no headers. So the bytes are the event with one more member behind the others,
 * for who reads JSON the same event:
 *
 *	{"id":"1","_evbus":{"published_at_utc":"2026-01-29T12:00:00.123456Z","crc32c":"1f8d6d78"}}
 *
 * The checksum is that of the event without it. Where it is another one the record is somebody else's, and all of it is
 * his. What is no JSON object stands in the member as payload_base64, and the object has no other. */
#include "backend/kinesis.h"

#include "base/crc32c.h"
#include "event/json.h"

#include <stdio.h>

#define MEMBER "\"_evbus\":{\"published_at_utc\":\""
#define CRC ",\"crc32c\":\""
#define CRC_DIGITS 8u
#define ENDS "\"}}"
#define NO_KEY "-"

/* ---- from an event --------------------------------------------------------------------------------------------- */

/* A key as Kinesis takes it: from 1 to 256 characters. */
static bool is_partition_key(struct evbus_slice key)
{
	size_t characters = 0;

	for (size_t i = 0; i < key.len; i++)
		characters += (key.data[i] & 0xc0) != 0x80;
	return characters && characters <= KINESIS_KEY_MAX;
}

struct evbus_slice record_key(const struct message *message, char room[8])
{
	if (message->key.data && is_partition_key(message->key))
		return message->key;
	/* What is too long has all of it in the member; who else reads the stream sees which belong together. */
	return (struct evbus_slice){ room, (size_t)snprintf(room, 8, message->key.len ? "%06x" : NO_KEY,
							    crc32c(0, message->key.data, message->key.len) >> 8) };
}

static enum evbus_code add(struct buf *data, struct evbus_slice text, struct evbus_err *err)
{
	return buf_add(data, text.data, text.len, err);
}

static enum evbus_code add_text(struct buf *data, struct evbus_slice head, struct evbus_slice text,
				struct evbus_err *err)
{
	if (!text.data)
		return EVBUS_OK;
	TRY(add(data, head, err));
	return json_quote(data, text, err);
}

static enum evbus_code add_key(struct buf *data, struct evbus_slice key, struct evbus_err *err)
{
	if (!key.data)
		return add(data, SLICE(",\"partition_key\":null"), err);
	return is_partition_key(key) ? EVBUS_OK : add_text(data, SLICE(",\"partition_key\":"), key, err);
}

static enum evbus_code add_member(struct buf *data, const struct message *message, struct evbus_err *err)
{
	char time[TIME_TEXT_LEN], digits[20];

	clock_format(message->time_us, time);
	TRY(add(data, SLICE(MEMBER), err));
	TRY(buf_add(data, time, sizeof time, err));
	TRY(add(data, SLICE("\""), err));
	TRY(add_key(data, message->key, err));
	TRY(add_text(data, SLICE(",\"tenant_id\":"), message->tenant_id, err));
	TRY(add_text(data, SLICE(",\"event_key\":"), message->event_key, err));
	TRY(add_text(data, SLICE(",\"origin\":"), message->origin, err));
	if (!message->returns)
		return EVBUS_OK;
	TRY(add(data, SLICE(",\"returns\":"), err));
	return buf_add(data, digits, decimal_format(message->returns, digits), err);
}

static bool is_object(struct evbus_slice payload)
{
	struct json_fault fault;

	return payload.data && json_scan(payload, NULL, 0, &fault);
}

/* Whether nothing but blanks is in it. */
static bool is_empty(struct evbus_slice object)
{
	size_t at = object.len - 1;

	while (at > 1 && strchr(" \t\r\n", object.data[at - 1]))
		at--;
	return at == 1;
}

enum evbus_code record_make(const struct message *message, struct buf *data, struct evbus_err *err)
{
	struct evbus_slice payload = message->payload;
	bool object = is_object(payload);
	char crc[CRC_DIGITS + 1];

	TRY(buf_reserve(data, payload.len + 256, err));
	if (object)
		TRY(buf_add(data, payload.data, payload.len - 1, err));
	else
		TRY(add(data, SLICE("{"), err));
	if (object && !is_empty(payload))
		TRY(add(data, SLICE(","), err));
	TRY(add_member(data, message, err));
	if (!object) {
		TRY(add(data, SLICE(",\"payload_base64\":"), err));
		TRY(json_base64(data, payload, err));
	}
	snprintf(crc, sizeof crc, "%08x", crc32c(0, payload.data, payload.len));
	TRY(add(data, SLICE(CRC), err));
	TRY(buf_add(data, crc, CRC_DIGITS, err));
	return add(data, SLICE(ENDS), err);
}

/* ---- and back -------------------------------------------------------------------------------------------------- */

enum { TIME, KEY, TENANT, EVENT_KEY, ORIGIN, RETURNS, BASE64, SUM, MEMBERS };

static struct evbus_slice text_in(struct evbus_slice value, struct buf *room)
{
	char *to = room->data + room->len;

	if (!value.data || value.data[0] != '"')
		return (struct evbus_slice){ NULL, 0 };
	size_t len = evbus_json_text(value, to, value.len);
	room->len += len;
	return (struct evbus_slice){ to, len };
}

/* Where our member begins in it; NULL: it has none. */
static char *find_member(struct evbus_slice data)
{
	size_t len = sizeof MEMBER - 1;

	if (data.len < len + sizeof ENDS || memcmp(data.data + data.len - 2, "}}", 2) != 0)
		return NULL;
	for (const char *at = data.data + data.len - len; at > data.data; at--)
		if (*at == '"' && !memcmp(at, MEMBER, len))
			return (char *)(uintptr_t)at;
	return NULL;
}

/* The event without the member, which ends at its place in the data; or the bytes that it has. */
static struct evbus_slice payload_of(struct evbus_slice data, char *member, struct evbus_slice base64, struct buf *room)
{
	if (base64.data) {
		char *to = room->data + room->len;
		struct evbus_slice inside = { base64.data + 1, base64.len - 2 };
		size_t len = base64.data[0] == '"' ? evbus_base64_decode(inside, to) : SIZE_MAX;
		room->len += len == SIZE_MAX ? 0 : len;
		return (struct evbus_slice){ to, len == SIZE_MAX ? 0 : len };
	}
	char *end = member[-1] == ',' ? member - 1 : member;
	*end = '}';
	return (struct evbus_slice){ data.data, (size_t)(end + 1 - data.data) };
}

static bool is_sum(struct evbus_slice value, struct evbus_slice payload)
{
	char crc[CRC_DIGITS + 1];

	snprintf(crc, sizeof crc, "%08x", crc32c(0, payload.data, payload.len));
	return value.data && value.len == CRC_DIGITS + 2 && !memcmp(value.data + 1, crc, CRC_DIGITS);
}

static void take_member(const struct json_want *wants, struct buf *room, struct message *message)
{
	uint64_t returns = 0;
	int64_t time_us;

	if (wants[TIME].value.len == TIME_TEXT_LEN + 2 && clock_parse_exact(wants[TIME].value.data + 1, &time_us))
		message->time_us = time_us;
	if (wants[KEY].value.data)
		message->key = text_in(wants[KEY].value, room);
	message->tenant_id = text_in(wants[TENANT].value, room);
	message->event_key = text_in(wants[EVENT_KEY].value, room);
	message->origin = text_in(wants[ORIGIN].value, room);
	if (wants[RETURNS].value.data && decimal_parse(wants[RETURNS].value, &returns) && returns <= UINT32_MAX)
		message->returns = (uint32_t)returns;
}

enum evbus_code record_read(struct evbus_slice data, struct evbus_slice key, int64_t time_us, struct buf *room,
			    struct message *message, struct evbus_err *err)
{
	struct json_want wants[MEMBERS] = {
		[TIME] = { .name = SLICE("published_at_utc") }, [KEY] = { .name = SLICE("partition_key") },
		[TENANT] = { .name = SLICE("tenant_id") },      [EVENT_KEY] = { .name = SLICE("event_key") },
		[ORIGIN] = { .name = SLICE("origin") },         [RETURNS] = { .name = SLICE("returns") },
		[BASE64] = { .name = SLICE("payload_base64") }, [SUM] = { .name = SLICE("crc32c") },
	};
	struct json_fault fault;
	char *member = find_member(data);

	*message = (struct message){ .key = key, .time_us = time_us, .payload = data };
	if (!member)
		return EVBUS_OK;
	const char *object = member + sizeof "\"_evbus\":" - 1;
	struct evbus_slice inside = { object, (size_t)(data.data + data.len - 1 - object) };
	room->len = 0;
	/* Texts are never longer than they stand there, and what was cut off is put back. */
	TRY(buf_reserve(room, data.len + inside.len + 1, err));
	TRY(buf_add(room, inside.data, inside.len, err));
	inside.data = room->data;
	if (!json_scan(inside, wants, MEMBERS, &fault))
		return EVBUS_OK;
	char *end = member[-1] == ',' ? member - 1 : member, was = *end;
	message->payload = payload_of(data, member, wants[BASE64].value, room);
	if (is_sum(wants[SUM].value, message->payload)) {
		take_member(wants, room, message);
		return EVBUS_OK;
	}
	*end = was;
	message->payload = data;
	return EVBUS_OK;
}

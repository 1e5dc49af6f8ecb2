/* message.c: lines of the messages of a server, and messages of lines. */
#include "backend/message.h"

#include "event/json.h"

#include <assert.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
#define REPLACEMENT_LEN 3u

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct evbus_slice trim(struct evbus_slice text)
{
	for (; text.len && is_blank(text.data[0]); text.len--)
		text.data++;
	while (text.len && is_blank(text.data[text.len - 1]))
		text.len--;
	return text;
}

/* ---- to a line ---- */

/* Room was made for it: what it points to stays where it is. */
static struct evbus_slice valid_text(struct evbus_slice text, struct buf *room)
{
	/* Without room there is none that needs it. */
	if (!text.data || !room->data || utf8_valid(text))
		return text;
	char *begin = room->data + room->len, *to = begin;
	for (size_t i = 0; i < text.len; i++) {
		if ((unsigned char)text.data[i] < 0x80) {
			*to++ = text.data[i];
			continue;
		}
		memcpy(to, REPLACEMENT, REPLACEMENT_LEN);
		to += REPLACEMENT_LEN;
	}
	room->len += (size_t)(to - begin);
	return (struct evbus_slice){ begin, (size_t)(to - begin) };
}

static struct evbus_slice base64_of(struct evbus_slice bytes, struct buf *room)
{
	if (!bytes.len)
		return SLICE("");
	char *to = room->data + room->len;
	size_t len = evbus_base64_encode(bytes, to);
	room->len += len;
	return (struct evbus_slice){ to, len };
}

static struct evbus_slice one_line(struct evbus_slice payload, struct buf *room)
{
	if (!memchr(payload.data, '\n', payload.len))
		return payload;
	char *begin = memcpy(room->data + room->len, payload.data, payload.len);
	/* In valid JSON a newline stands outside of strings, where it means the same as a blank. */
	for (char *at = begin; (at = memchr(at, '\n', (size_t)(begin + payload.len - at)));)
		*at = ' ';
	room->len += payload.len;
	return (struct evbus_slice){ begin, payload.len };
}

static size_t room_for(const struct message *message, struct evbus_slice object)
{
	const struct evbus_slice texts[] = { message->key, message->tenant_id, message->event_key, message->origin };
	size_t size = 0;

	if (!object.data)
		size = EVBUS_BASE64_LEN(message->payload.len);
	else if (memchr(object.data, '\n', object.len))
		size = object.len;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (texts[i].data && !utf8_valid(texts[i]))
			size += texts[i].len * REPLACEMENT_LEN;
	return size;
}

enum evbus_code message_line(struct buf *text, const struct message *message, struct line *line, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf room = { 0 };
	struct evbus_slice object = trim(message->payload);
	struct json_fault fault;
	uint32_t split;

	if (!object.len || !json_scan(object, NULL, 0, &fault))
		object.data = NULL;
	size_t size = room_for(message, object);
	if (size)
		TRY(buf_reserve(&room, size, err));
	struct line_body body = {
		.key = valid_text(message->key, &room),
		.origin = valid_text(message->origin, &room),
		.returns = message->returns,
		.tenant_id = valid_text(message->tenant_id, &room),
		.event_key = valid_text(message->event_key, &room),
		.offset_text = message->offset_text,
	};
	if (object.data)
		body.payload = one_line(object, &room);
	else
		body.payload_base64 = base64_of(message->payload, &room);
	text->len = 0;
	TRY(line_add(text, &body, message->offset, message->time_us, &split, err));
	struct evbus_slice made = { text->data, text->len - 1 };
	const char *why = message->offset_text.data ? line_parse_text(made, message->offset, line) :
						      line_parse(made, line);
	assert(!why);
	(void)why;
	return EVBUS_OK;
}

/* ---- from a line ---- */

/* As text it is never longer, so there is room. */
static struct evbus_slice text_of(struct evbus_slice value, struct buf *room)
{
	char *to = room->data + room->len;

	if (!value.data || value.data[0] != '"')
		return (struct evbus_slice){ NULL, 0 };
	size_t len = evbus_json_text(value, to, value.len);
	room->len += len;
	return (struct evbus_slice){ to, len };
}

static struct evbus_slice bytes_of(struct evbus_slice base64, struct buf *room)
{
	char *to = room->data + room->len;
	size_t len = evbus_base64_decode(base64, to);

	assert(len != SIZE_MAX);
	room->len += len;
	return (struct evbus_slice){ to, len };
}

enum evbus_code message_of(const struct group *group, size_t i, struct buf *room, struct message *message,
			   struct evbus_err *err)
{
	const struct group_entry *entry = group_entry(group, i);
	struct line line;
	const char *why = line_parse((struct evbus_slice){ group->lines.data + entry->at, entry->len - 1 }, &line);

	if (why)
		return err_set(err, EVBUS_BUG, 0, "an event that is to be published is no line: %s", why);
	room->len = 0;
	TRY(buf_reserve(room, line.text.len, err));
	*message = (struct message){
		.key = text_of(line.key, room),
		.tenant_id = text_of(line.tenant_id, room),
		.event_key = text_of(line.event_key, room),
		.origin = text_of(line.origin, room),
		.payload = line.payload.data ? line.payload : bytes_of(line.payload_base64, room),
		.returns = line.returns,
		.offset = line.offset,
		.time_us = line.time_us,
	};
	return EVBUS_OK;
}

/* nats_message.c: messages of NATS: the payload is the body, and the rest stands in headers.
 *
 * A header is one line of text without blanks at its ends, and a key may be anything. So control characters, '%', blanks at the ends and
 * what is empty are percent-escaped (RFC 3986, section 2.1). */
#include "backend/nats.h"

#include "base/crc32c.h"
#include "base/hex.h"
#include "event/envelope.h"

#include <errno.h>
#include <string.h>

#define CHECKSUM "Evbus-Crc32c" /* of the payload: NATS has none, neither on the way nor for who reads */
#define HEADERS_BYTES 512u /* their names, the time, the id, and what NATS needs beside */
#define VALUE_MAX_BYTES 1024u /* of what others may filter by */
#define EMPTY "%00" /* a text has no NUL, so this is none */
#define ACK_TOKENS 9u /* $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING */
#define ACK_TOKENS_DOMAIN 11u /* the same with a domain and an account behind $JS.ACK */

/* ---- to a message ---------------------------------------------------------------------------------------------- */

static bool is_plain(struct evbus_slice text, size_t i)
{
	unsigned char c = (unsigned char)text.data[i];

	return c > ' ' ? c != '%' && c != 0x7f : c == ' ' && i && i + 1 < text.len;
}

/* Writes it with a NUL behind; to has room for three times as much. */
static void escape(struct evbus_slice text, char *to)
{
	static const char digits[] = "0123456789ABCDEF";

	if (!text.len)
		to = stpcpy(to, EMPTY);
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		if (is_plain(text, i)) {
			*to++ = (char)c;
			continue;
		}
		*to++ = '%';
		*to++ = digits[c >> 4];
		*to++ = digits[c & 15];
	}
	*to = '\0';
}

static natsStatus set_text(natsMsg *made, const char *name, struct evbus_slice text)
{
	char room[3 * VALUE_MAX_BYTES + 4], *value = room;

	if (!text.data)
		return NATS_OK;
	if (text.len > VALUE_MAX_BYTES)
		value = os.realloc(NULL, 3 * text.len + 4);
	if (!value)
		return NATS_NO_MEMORY;
	escape(text, value);
	natsStatus status = natsMsgHeader_Set(made, name, value);
	if (value != room)
		free(value);
	return status;
}

/* Of the payload, for others: nothing where it is not there, or too long. */
static natsStatus set_value(natsMsg *made, const char *name, struct evbus_slice value)
{
	char text[VALUE_MAX_BYTES];
	size_t len = value.data ? evbus_json_text(value, text, sizeof text) : SIZE_MAX;

	return len <= sizeof text ? set_text(made, name, (struct evbus_slice){ text, len }) : NATS_OK;
}

static void checksum_of(const void *data, size_t len, char text[9])
{
	snprintf(text, 9, "%08x", crc32c(0, data, len));
}

static natsStatus set_headers(natsMsg *made, const struct message *message, const char *id)
{
	struct evbus_envelope envelope;
	char time[TIME_TEXT_LEN + 1], returns[16], checksum[9];

	clock_format(message->time_us, time);
	time[TIME_TEXT_LEN] = '\0';
	snprintf(returns, sizeof returns, "%u", message->returns);
	natsStatus status = natsMsgHeader_Set(made, "Nats-Msg-Id", id);
	if (status == NATS_OK)
		status = natsMsgHeader_Set(made, MESSAGE_TIME, time);
	checksum_of(message->payload.data, message->payload.len, checksum);
	if (status == NATS_OK)
		status = natsMsgHeader_Set(made, CHECKSUM, checksum);
	if (status == NATS_OK)
		status = set_text(made, MESSAGE_KEY, message->key);
	if (status == NATS_OK)
		status = set_text(made, MESSAGE_TENANT, message->tenant_id);
	if (status == NATS_OK)
		status = set_text(made, MESSAGE_EVENT_KEY, message->event_key);
	if (status == NATS_OK)
		status = set_text(made, MESSAGE_ORIGIN, message->origin);
	if (status == NATS_OK && message->returns)
		status = natsMsgHeader_Set(made, MESSAGE_RETURNS, returns);
	if (status != NATS_OK || !message->payload.len || evbus_envelope_read(message->payload, &envelope, NULL))
		return status;
	status = set_value(made, MESSAGE_EVENT_ID, envelope.event_id);
	return status == NATS_OK ? set_value(made, MESSAGE_EVENT_TYPE, envelope.event_type) : status;
}

enum evbus_code nats_message_make(const struct message *message, const char *subject, const char *reply, const char *id,
				  natsMsg **made, struct evbus_err *err)
{
	natsStatus status = natsMsg_Create(made, subject, reply, message->payload.data, (int)message->payload.len);

	if (status == NATS_OK) {
		status = set_headers(*made, message, id);
		if (status != NATS_OK)
			natsMsg_Destroy(*made);
	}
	return status == NATS_OK ? EVBUS_OK
				 : err_set(err, EVBUS_IO, status == NATS_NO_MEMORY ? ENOMEM : 0,
					   "cannot make a message: %s", natsStatus_GetText(status));
}

size_t nats_message_size(const struct message *message)
{
	return message->payload.len + HEADERS_BYTES + 6 * VALUE_MAX_BYTES +
	       3 * (message->key.len + message->tenant_id.len + message->event_key.len + message->origin.len);
}

/* ---- from a message -------------------------------------------------------------------------------------------- */

/* What is no escape stands for itself. */
static struct evbus_slice unescape(const char *text, char *to)
{
	char *begin = to;

	if (!strcmp(text, EMPTY))
		return SLICE("");
	for (; *text; text++) {
		int high = *text == '%' ? hex_value(text[1]) : -1, low = high < 0 ? -1 : hex_value(text[2]);
		*to++ = low < 0 ? *text : (char)(high << 4 | low);
		text += low < 0 ? 0 : 2;
	}
	return (struct evbus_slice){ begin, (size_t)(to - begin) };
}

static enum evbus_code take_texts(natsMsg *made, struct buf *room, struct message *message, struct evbus_err *err)
{
	static const char *const names[] = { MESSAGE_KEY, MESSAGE_TENANT, MESSAGE_EVENT_KEY, MESSAGE_ORIGIN };
	struct evbus_slice *const to[] = { &message->key, &message->tenant_id, &message->event_key, &message->origin };
	const char *texts[4] = { NULL };
	size_t size = 0;

	for (size_t i = 0; i < 4; i++)
		if (natsMsgHeader_Get(made, names[i], &texts[i]) == NATS_OK)
			size += strlen(texts[i]);
	room->len = 0;
	TRY(buf_reserve(room, size + 1, err));
	for (size_t i = 0; i < 4; i++) {
		if (!texts[i])
			continue;
		*to[i] = unescape(texts[i], room->data + room->len);
		room->len += strlen(texts[i]);
	}
	return EVBUS_OK;
}

static void take_head(natsMsg *made, struct message *message)
{
	const char *text;
	uint64_t returns;

	if (natsMsgHeader_Get(made, MESSAGE_TIME, &text) == NATS_OK && strlen(text) == TIME_TEXT_LEN)
		(void)clock_parse_exact(text, &message->time_us);
	if (natsMsgHeader_Get(made, MESSAGE_RETURNS, &text) == NATS_OK &&
	    decimal_parse((struct evbus_slice){ text, strlen(text) }, &returns) && returns <= UINT32_MAX)
		message->returns = (uint32_t)returns;
}

enum evbus_code nats_message_read(natsMsg *made, struct buf *room, struct message *message, struct evbus_err *err)
{
	message->payload = (struct evbus_slice){ natsMsg_GetData(made), (size_t)natsMsg_GetDataLength(made) };
	take_head(made, message);
	return take_texts(made, room, message, err);
}

bool nats_message_is_whole(natsMsg *made)
{
	const char *text;
	char checksum[9];

	if (natsMsgHeader_Get(made, CHECKSUM, &text) != NATS_OK)
		return true;
	checksum_of(natsMsg_GetData(made), (size_t)natsMsg_GetDataLength(made), checksum);
	return !strcmp(text, checksum);
}

/* false: it is not of a number, or not the next token. */
static bool take_number(const char **at, uint64_t *number)
{
	size_t len = strcspn(*at, ".");
	bool ok = decimal_parse((struct evbus_slice){ *at, len }, number);

	*at += len + ((*at)[len] == '.');
	return ok;
}

bool nats_message_place(natsMsg *made, struct nats_delivery *delivery)
{
	const char *at = natsMsg_GetReply(made);
	unsigned tokens = 1, skip = ACK_TOKENS - 5;
	uint64_t times;

	if (!at || strncmp(at, "$JS.ACK.", 8) != 0)
		return false;
	for (const char *c = at; *c; c++)
		tokens += *c == '.';
	if (tokens != ACK_TOKENS && tokens < ACK_TOKENS_DOMAIN)
		return false;
	skip += tokens == ACK_TOKENS ? 0 : ACK_TOKENS_DOMAIN - ACK_TOKENS;
	for (; skip; skip--)
		at = strchr(at, '.') + 1;
	uint64_t time_ns;
	if (!take_number(&at, &times) || !take_number(&at, &delivery->sequence) ||
	    !take_number(&at, &delivery->number) || !take_number(&at, &time_ns) ||
	    !take_number(&at, &delivery->pending))
		return false;
	delivery->time_us = (int64_t)(time_ns / 1000);
	return true;
}

/* message.h: an event as a server keeps it, and as a line.
 *
 * On a server the body of a message is the payload, byte for byte; what evbus knows beside it stands in headers. */
#ifndef EVBUS_BACKEND_MESSAGE_H
#define EVBUS_BACKEND_MESSAGE_H

#include "log/line.h"
#include "log/writer.h"

/* Texts as they are, not as JSON; data NULL: none. */
struct message {
	struct evbus_slice key, tenant_id, event_key, origin;
	struct evbus_slice payload; /* any bytes; data NULL: no bytes */
	uint32_t returns;
	uint64_t offset;                /* the position */
	struct evbus_slice offset_text; /* data NULL: the offset is the position in decimal */
	int64_t time_us; /* when it was published */
};

/* The names of headers. The time is RFC 3339 with microseconds, as in receipts. */
#define MESSAGE_KEY "Evbus-Key"
#define MESSAGE_TIME "Evbus-Published-At"
#define MESSAGE_TENANT "Evbus-Tenant-Id"
#define MESSAGE_EVENT_KEY "Evbus-Event-Key"
#define MESSAGE_ORIGIN "Evbus-Origin"
#define MESSAGE_RETURNS "Evbus-Returns"
#define MESSAGE_EVENT_ID "Evbus-Event-Id" /* these two are for others to filter by */
#define MESSAGE_EVENT_TYPE "Evbus-Event-Type"

/* Makes the line of a message, which may be anybody's; text is written anew, and the line lives in it. What is no JSON
 * object becomes payload_base64, and line->payload.data is NULL. What is one loses the blanks around it, and its line
 * breaks become blanks, as a line has none. In a text that is no UTF-8 each byte that is not ASCII becomes U+FFFD. */
CHECKED enum evbus_code message_line(struct buf *text, const struct message *message, struct line *line,
				     struct evbus_err *err);

/* The i-th line of a group as a message, the payload byte for byte. It lives in the group and in room, which is written
 * anew. */
CHECKED enum evbus_code message_of(const struct group *group, size_t i, struct buf *room, struct message *message,
				   struct evbus_err *err);

#endif

/* amqp_message.c: messages of AMQP: the payload is the body; what is known beside it stands in properties, where AMQP has
 * one for it, and in headers of the names that they have on all servers. */
#include "backend/amqp_bus.h"

#include "event/envelope.h"

#include <string.h>

#define PERSISTENT 2
#define US_PER_SECOND 1000000

static void add_header(struct amqp_properties *properties, const char *name, struct evbus_slice text)
{
	amqp_table_t *table = &properties->basic.headers;

	if (!text.data)
		return;
	amqp_table_entry_t *entry = &properties->headers[table->num_entries++];
	entry->key = amqp_cstring_bytes(name);
	entry->value.kind = AMQP_FIELD_KIND_UTF8;
	entry->value.value.bytes = (amqp_bytes_t){ text.len, (void *)(uintptr_t)text.data };
}

/* What is longer than a property may be is left out; only an id is missed then, which stands in the payload. */
static struct evbus_slice short_text(struct evbus_slice value, char room[AMQP_SHORT_MAX])
{
	size_t len = value.data ? evbus_json_text(value, room, AMQP_SHORT_MAX) : SIZE_MAX;

	return len <= AMQP_SHORT_MAX ? (struct evbus_slice){ room, len } : (struct evbus_slice){ NULL, 0 };
}

static void set(struct amqp_properties *properties, amqp_flags_t flag, amqp_bytes_t *property, struct evbus_slice text)
{
	if (!text.data)
		return;
	properties->basic._flags |= flag;
	*property = (amqp_bytes_t){ text.len, (void *)(uintptr_t)text.data };
}

/* By which a consumer knows an event again: its id; without one its event key, or where it stood first. */
static struct evbus_slice id_of(const struct message *message, struct evbus_slice event_id)
{
	const struct evbus_slice ids[] = { event_id, message->event_key, message->origin };

	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
		if (ids[i].data && ids[i].len && ids[i].len <= AMQP_SHORT_MAX)
			return ids[i];
	return (struct evbus_slice){ NULL, 0 };
}

static void add_headers(const struct message *message, const char *topic, struct amqp_properties *properties)
{
	clock_format(message->time_us, properties->time);
	add_header(properties, "Evbus-Topic", (struct evbus_slice){ topic, strlen(topic) });
	add_header(properties, MESSAGE_TIME, (struct evbus_slice){ properties->time, TIME_TEXT_LEN });
	add_header(properties, MESSAGE_KEY, message->key);
	add_header(properties, MESSAGE_TENANT, message->tenant_id);
	add_header(properties, MESSAGE_EVENT_KEY, message->event_key);
	add_header(properties, MESSAGE_ORIGIN, message->origin);
	if (message->returns) {
		int len = snprintf(properties->returns, sizeof properties->returns, "%u", message->returns);
		add_header(properties, MESSAGE_RETURNS, (struct evbus_slice){ properties->returns, (size_t)len });
	}
}

void amqp_describe(const struct message *message, const char *topic, struct amqp_properties *properties)
{
	amqp_basic_properties_t *basic = &properties->basic;
	struct evbus_envelope envelope = { .event_id.data = NULL };
	bool json = evbus_envelope_read(message->payload, &envelope, NULL) == EVBUS_OK;

	*basic = (amqp_basic_properties_t){
		._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG,
		.delivery_mode = PERSISTENT,
		.timestamp = message->time_us > 0 ? (uint64_t)message->time_us / US_PER_SECOND : 0,
		.headers.entries = properties->headers,
	};
	add_headers(message, topic, properties);
	struct evbus_slice id = short_text(envelope.event_id, properties->id);
	struct evbus_slice type = short_text(envelope.event_type, properties->type);
	add_header(properties, MESSAGE_EVENT_ID, id);
	add_header(properties, MESSAGE_EVENT_TYPE, type);
	set(properties, AMQP_BASIC_MESSAGE_ID_FLAG, &basic->message_id, id_of(message, id));
	set(properties, AMQP_BASIC_TYPE_FLAG, &basic->type, type);
	set(properties, AMQP_BASIC_CORRELATION_ID_FLAG, &basic->correlation_id,
	    short_text(envelope.correlation_id, properties->correlation));
	set(properties, AMQP_BASIC_CONTENT_TYPE_FLAG, &basic->content_type,
	    json ? SLICE("application/json") : SLICE("application/octet-stream"));
	set(properties, AMQP_BASIC_APP_ID_FLAG, &basic->app_id, SLICE("evbus"));
}

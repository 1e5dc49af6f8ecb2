/* publisher_identity.c: what an event is known by when it is published idempotently: its tenant and its event key. */
#include "publisher.h"

#include "delivery/keys.h"
#include "event/envelope.h"

#include <string.h>

/* An event that is taken for another one is lost, so nothing here is guessed. */
static enum evbus_code check(const char *what, struct evbus_slice text, size_t most, struct evbus_err *err)
{
	if (text.len > most)
		return err_set(err, EVBUS_DATA, 0, "the %s has %zu bytes, and %zu is the most", what, text.len, most);
	if (!utf8_valid(text))
		return err_set(err, EVBUS_DATA, 0, "the %s is not valid UTF-8", what);
	return EVBUS_OK;
}

/* Half a surrogate pair has no UTF-8 form, and all of them would become the same replacement character. */
static bool may_be_torn(struct evbus_slice value, struct evbus_slice text)
{
	return memmem(text.data, text.len, "\xef\xbf\xbd", 3) &&
	       (memmem(value.data, value.len, "\\ud", 3) || memmem(value.data, value.len, "\\uD", 3));
}

/* A raw value of the payload as text: a string, or a number or a boolean as it stands. */
static enum evbus_code take_value(const char *what, struct evbus_slice value, char *room, size_t size,
				  struct evbus_slice *text, struct evbus_err *err)
{
	if (value.data[0] == '{' || value.data[0] == '[')
		return err_set(err, EVBUS_DATA, 0, "the %s is an %s", what, value.data[0] == '{' ? "object" : "array");
	size_t len = evbus_json_text(value, room, size);
	if (len > size)
		return err_set(err, EVBUS_DATA, 0, "the %s has %zu bytes, and %zu is the most", what, len, size);
	*text = (struct evbus_slice){ room, len };
	if (may_be_torn(value, *text))
		return err_set(err, EVBUS_DATA, 0, "the %s has half a surrogate pair in it", what);
	return EVBUS_OK;
}

/* "SOURCE ID": a URI-reference holds no blank, so no other source and id read the same. */
static enum evbus_code take_cloud_event(const struct evbus_envelope *envelope, struct identity *identity,
					struct evbus_err *err)
{
	struct evbus_slice source, id;
	char *room = identity->key_room;

	TRY(take_value("source", envelope->id_source, room, sizeof identity->key_room - 1, &source, err));
	if (!source.len || memchr(source.data, ' ', source.len))
		return err_set(err, EVBUS_DATA, 0, "the source is not a URI-reference, so it makes no event key");
	room[source.len] = ' ';
	TRY(take_value("event id", envelope->event_id, room + source.len + 1,
		       sizeof identity->key_room - source.len - 1, &id, err));
	identity->event_key = (struct evbus_slice){ room, source.len + 1 + id.len };
	return EVBUS_OK;
}

static enum evbus_code take_key_from(const struct evbus_publisher *publisher, const struct evbus_event *event,
				     struct identity *identity, struct evbus_err *err)
{
	size_t len;

	TRY(envelope_key_from(event->payload, publisher->event_key_from, identity->key_room, &len, err));
	if (len == SIZE_MAX)
		return err_set(err, EVBUS_DATA, 0, "the event has none of the members '%s' that give its event key",
			       publisher->event_key_from);
	identity->event_key = (struct evbus_slice){ identity->key_room, len };
	return EVBUS_OK;
}

static enum evbus_code choose_event_key(const struct evbus_publisher *publisher, const struct evbus_event *event,
					const struct evbus_envelope *envelope, struct identity *identity,
					struct evbus_err *err)
{
	if (event->event_key.data) {
		identity->event_key = event->event_key;
		return EVBUS_OK;
	}
	if (publisher->event_key_from)
		return take_key_from(publisher, event, identity, err);
	if (!envelope->event_key.data)
		return err_set(err, EVBUS_DATA, 0,
			       "the event has no event key and no event id: name the member that tells it from others "
			       "(--event-key-from)");
	/* The event id stands in where there is no key. */
	if (envelope->id_source.data && envelope->event_key.data == envelope->event_id.data)
		return take_cloud_event(envelope, identity, err);
	return take_value("event key", envelope->event_key, identity->key_room, sizeof identity->key_room,
			  &identity->event_key, err);
}

static enum evbus_code choose_tenant(const struct evbus_event *event, const struct evbus_envelope *envelope,
				     struct identity *identity, struct evbus_err *err)
{
	struct evbus_slice tenant = event->tenant_id;

	if (!tenant.data && envelope->tenant_id.data)
		TRY(take_value("tenant", envelope->tenant_id, identity->tenant_room, sizeof identity->tenant_room,
			       &tenant, err));
	/* No tenant and an empty one are the same. */
	identity->tenant_id = tenant.len ? tenant : (struct evbus_slice){ NULL, 0 };
	return check("tenant", identity->tenant_id, EVBUS_TENANT_MAX_BYTES, err);
}

enum evbus_code publisher_identify(const struct evbus_publisher *publisher, const struct evbus_event *event,
				   struct identity *identity, struct evbus_err *err)
{
	struct evbus_envelope envelope = { .event_id = { NULL, 0 } };
	bool both = event->tenant_id.data && (event->event_key.data || publisher->event_key_from);

	/* What was said is not looked for, so that a member that stands twice does no harm then. */
	if (!both && event->payload.data)
		TRY(evbus_envelope_read(event->payload, &envelope, err));
	TRY(choose_tenant(event, &envelope, identity, err));
	TRY(choose_event_key(publisher, event, &envelope, identity, err));
	if (!identity->event_key.len)
		return err_set(err, EVBUS_DATA, 0, "the event key is empty");
	return check("event key", identity->event_key, EVBUS_KEY_MAX_BYTES, err);
}

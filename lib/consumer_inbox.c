/* consumer_inbox.c: whether an event was done before.
 *
 * The store is asked before each delivery, and not only when an event is read: a handler may have written the row
 * itself, in the transaction of its work, and have been killed before it could say so. Reading the store costs its
 * locks, whatever is asked, so the events that will follow at once are looked up along; such an answer is good for two
 * milliseconds, which is less than a process needs to start. */
#include "consumer.h"

#include <string.h>

#define FRESH_US 2000
#define ID_MAX_BYTES 2048u /* of the tenant and the event id together */

enum evbus_code consumer_json_text(struct evbus_slice value, struct buf *text, struct evbus_err *err)
{
	/* As text a value is never longer. */
	TRY(buf_reserve(text, value.len, err));
	text->len += evbus_json_text(value, text->data + text->len, value.len);
	return EVBUS_OK;
}

enum evbus_code consumer_id_text(const struct evbus_envelope *envelope, struct buf *text, struct evbus_err *err)
{
	if (envelope->id_source.data) {
		TRY(consumer_json_text(envelope->id_source, text, err));
		TRY(buf_add(text, " ", 1, err));
	}
	return envelope->event_id.data ? consumer_json_text(envelope->event_id, text, err) : EVBUS_OK;
}

enum evbus_code consumer_identity(const struct entry *entry, struct buf *text, size_t *tenant_len,
				  struct evbus_err *err)
{
	const struct evbus_envelope *envelope = &entry->delivery.envelope;
	struct evbus_slice tenant = entry->record.tenant_id.data ? entry->record.tenant_id : envelope->tenant_id;

	text->len = *tenant_len = 0;
	if (!envelope->event_id.data || tenant.len + envelope->id_source.len + envelope->event_id.len > ID_MAX_BYTES)
		return EVBUS_OK;
	if (tenant.data)
		TRY(consumer_json_text(tenant, text, err));
	*tenant_len = text->len;
	TRY(consumer_id_text(envelope, text, err));
	/* An empty one would make one event of all that have it. */
	text->len = text->len > *tenant_len ? text->len : 0;
	return EVBUS_OK;
}

/* ---- looking up ---- */

struct batch {
	struct entry *entries[INBOX_BATCH_MAX];
	struct inbox_event events[INBOX_BATCH_MAX];
	size_t count;
};

struct inbox_event consumer_inbox_event(const struct queue *id)
{
	const struct backend_topic *topic = id->scope;

	return (struct inbox_event){ .topic = topic->name,
				     .tenant_id = { id->text, id->tenant_len },
				     .event_id = { id->text + id->tenant_len, id->len - id->tenant_len } };
}

static bool is_fresh(const struct entry *entry, int64_t now_us)
{
	return entry->looked_us && now_us - entry->looked_us < FRESH_US;
}

/* Not while another event of the same id comes first: what is there to be found would change. */
static void add(struct batch *batch, struct entry *entry, int64_t now_us)
{
	const struct queue *id = entry->queues[BY_ID];

	if (!id || id->done || id->first != entry || entry->state != ENTRY_WAITS || entry->is_known ||
	    is_fresh(entry, now_us) || batch->count == INBOX_BATCH_MAX)
		return;
	batch->entries[batch->count] = entry;
	batch->events[batch->count++] = consumer_inbox_event(id);
}

/* This one, those that are ready, and what comes behind it: with a concurrency of one only the first is ready. */
static void gather(const struct evbus_consumer *consumer, struct entry *entry, int64_t now_us, struct batch *batch)
{
	batch->count = 0;
	add(batch, entry, now_us);
	for (struct entry *next = consumer->ready[0].first; next && batch->count < INBOX_BATCH_MAX; next = next->next)
		add(batch, next, now_us);
	for (struct entry *next = entry->queues[BY_KEY] ? entry->behind[BY_KEY] : NULL;
	     next && batch->count < INBOX_BATCH_MAX; next = next->behind[BY_KEY])
		add(batch, next, now_us);
}

enum evbus_code consumer_is_known(struct evbus_consumer *consumer, struct entry *entry, bool *known,
				  struct evbus_err *err)
{
	const struct queue *id = entry->queues[BY_ID];
	struct batch batch;

	*known = id && (id->done || entry->is_known);
	if (!id || *known)
		return EVBUS_OK;
	int64_t now_us = consumer_now_us();
	if (is_fresh(entry, now_us))
		return EVBUS_OK;
	gather(consumer, entry, now_us, &batch);
	TRY(bus_store(consumer->bus, err));
	TRY(inbox_look(consumer->bus->store, consumer->group, batch.events, batch.count, err));
	for (size_t i = 0; i < batch.count; i++) {
		batch.entries[i]->is_known = batch.events[i].known;
		batch.entries[i]->looked_us = now_us;
	}
	*known = entry->is_known;
	return EVBUS_OK;
}

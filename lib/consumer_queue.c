/* consumer_queue.c: which entry may be handled when. */
#include "consumer.h"

#include "base/crc32c.h"
#include "base/os.h"

#include <errno.h>
#include <string.h>

#define BUCKETS_AT_FIRST 256u

/* ---- the table of queues ---- */

enum evbus_code queues_init(struct queues *queues, struct evbus_err *err)
{
	queues->buckets = os.realloc(NULL, BUCKETS_AT_FIRST * sizeof *queues->buckets);
	if (!queues->buckets)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open a consumer");
	memset(queues->buckets, 0, BUCKETS_AT_FIRST * sizeof *queues->buckets);
	queues->size = BUCKETS_AT_FIRST;
	return EVBUS_OK;
}

void queues_release(struct queues *queues)
{
	for (size_t i = 0; i < queues->size; i++)
		for (struct queue *queue = queues->buckets[i], *next; queue; queue = next) {
			next = queue->next;
			free(queue);
		}
	free(queues->buckets);
	*queues = (struct queues){ 0 };
}

/* Longer chains where there is no memory for it. */
static void grow(struct queues *queues)
{
	size_t size = queues->size * 2;
	struct queue **buckets = os.realloc(NULL, size * sizeof(*buckets));

	if (!buckets)
		return;
	memset(buckets, 0, size * sizeof(*buckets));
	for (size_t i = 0; i < queues->size; i++)
		for (struct queue *queue = queues->buckets[i], *next; queue; queue = next) {
			next = queue->next;
			queue->next = buckets[queue->hash & (size - 1)];
			buckets[queue->hash & (size - 1)] = queue;
		}
	free(queues->buckets);
	queues->buckets = buckets;
	queues->size = size;
}

static bool is(const struct queue *queue, const struct queue *wanted, const char *text)
{
	return queue->hash == wanted->hash && queue->scope == wanted->scope && queue->len == wanted->len &&
	       queue->tenant_len == wanted->tenant_len && memcmp(queue->text, text, queue->len) == 0;
}

/* The queue of this text, made if need be. */
static enum evbus_code find(struct queues *queues, const void *scope, size_t tenant_len, struct evbus_slice text,
			    struct queue **found, struct evbus_err *err)
{
	struct queue wanted = { .scope = scope, .tenant_len = tenant_len, .len = text.len };

	wanted.hash = crc32c(crc32c((uint32_t)tenant_len, &scope, sizeof scope), text.data, text.len);
	struct queue **bucket = &queues->buckets[wanted.hash & (queues->size - 1)];
	for (*found = *bucket; *found; *found = (*found)->next)
		if (is(*found, &wanted, text.data))
			return EVBUS_OK;
	if (queues->count >= queues->size) {
		grow(queues);
		bucket = &queues->buckets[wanted.hash & (queues->size - 1)];
	}
	struct queue *made = os.realloc(NULL, sizeof *made + text.len);
	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot keep events in order");
	*made = wanted;
	memcpy(made->text, text.data, text.len);
	made->next = *bucket;
	*bucket = *found = made;
	queues->count++;
	return EVBUS_OK;
}

static void drop_if_idle(struct queues *queues, struct queue *queue)
{
	struct queue **at = &queues->buckets[queue->hash & (queues->size - 1)];

	if (queue->first || queue->done)
		return;
	while (*at != queue)
		at = &(*at)->next;
	*at = queue->next;
	free(queue);
	queues->count--;
}

/* ---- an entry in its queues ---- */

static enum evbus_code queue_of_key(struct evbus_consumer *consumer, struct entry *entry, struct evbus_err *err)
{
	struct evbus_slice key = consumer->concurrency > 1 ? entry->record.partition_key : SLICE("");

	/* A record without a key is on its own. */
	if (consumer->concurrency > 1 && (!key.data || key.data[0] == 'n'))
		return EVBUS_OK;
	return find(&consumer->keys_and_ids, entry->lane, 0, key, &entry->queues[BY_KEY], err);
}

static void tell_no_id(struct evbus_consumer *consumer, const struct entry *entry)
{
	if (consumer->id_told)
		return;
	consumer->id_told = true;
	bus_notice(consumer->bus,
		   "topic '%s', partition %d, offset %.*s: the event has no event id, so the inbox cannot tell "
		   "whether it was done before",
		   entry->lane->topic->name, entry->lane->reader->partition, (int)entry->record.offset.len,
		   entry->record.offset.data);
}

static enum evbus_code queue_of_id(struct evbus_consumer *consumer, struct entry *entry, struct evbus_err *err)
{
	struct buf *text = &consumer->scratch;
	size_t tenant_len;

	if (!consumer->inbox || !entry->record.payload.data)
		return EVBUS_OK;
	TRY(consumer_identity(entry, text, &tenant_len, err));
	if (!text->len) {
		tell_no_id(consumer, entry);
		return EVBUS_OK;
	}
	return find(&consumer->keys_and_ids, entry->lane->topic, tenant_len,
		    (struct evbus_slice){ text->data, text->len }, &entry->queues[BY_ID], err);
}

/* Behind `before`, or, where that is NULL, as the first. */
static void insert(struct queue *queue, struct entry *before, struct entry *entry, enum queue_kind kind)
{
	struct entry **at = before ? &before->behind[kind] : &queue->first;

	entry->behind[kind] = *at;
	*at = entry;
	if (!entry->behind[kind])
		queue->last = entry;
	if (before)
		entry->blocked++;
	else if (entry->behind[kind])
		entry->behind[kind]->blocked++;
}

/* What it comes behind: the last one, or, if it is a letter, what is out and the letters before it. */
static struct entry *place_in(const struct queue *queue, const struct entry *entry, enum queue_kind kind)
{
	struct entry *before = NULL;

	if (!entry->delivery.letter)
		return queue->first ? queue->last : NULL;
	for (struct entry *next = queue->first; next && (next->state == ENTRY_OUT || next->delivery.letter);
	     next = next->behind[kind])
		before = next;
	return before;
}

enum evbus_code consumer_enqueue(struct evbus_consumer *consumer, struct entry *entry, struct evbus_err *err)
{
	enum evbus_code code = queue_of_key(consumer, entry, err);

	if (code == EVBUS_OK)
		code = queue_of_id(consumer, entry, err);
	for (int kind = 0; kind < QUEUE_KINDS; kind++) {
		struct queue *queue = entry->queues[kind];
		if (!queue)
			continue;
		if (code == EVBUS_OK) {
			insert(queue, place_in(queue, entry, (enum queue_kind)kind), entry, (enum queue_kind)kind);
		} else {
			drop_if_idle(&consumer->keys_and_ids, queue);
			entry->queues[kind] = NULL;
		}
	}
	return code;
}

void consumer_dequeue(struct evbus_consumer *consumer, struct entry *entry)
{
	for (int kind = 0; kind < QUEUE_KINDS; kind++) {
		struct queue *queue = entry->queues[kind];
		if (!queue)
			continue;
		struct entry *next = queue->first = entry->behind[kind];
		if (next) {
			next->blocked--;
			/* What was looked up before the one in front was done says nothing any more. */
			next->looked_us = kind == BY_ID ? 0 : next->looked_us;
			consumer_ready(consumer, next, false);
		}
		drop_if_idle(&consumer->keys_and_ids, queue);
		entry->queues[kind] = NULL;
	}
}

/* ---- those that are ready ---- */

void consumer_ready(struct evbus_consumer *consumer, struct entry *entry, bool in_front)
{
	struct ready *ready = &consumer->ready[entry->delivery.letter != 0];

	if (entry->state != ENTRY_WAITS || entry->blocked || entry->is_ready)
		return;
	entry->is_ready = true;
	entry->next = in_front ? ready->first : NULL;
	if (in_front || !ready->first)
		ready->first = entry;
	else
		ready->last->next = entry;
	if (!entry->next)
		ready->last = entry;
}

static struct entry *pop(struct ready *ready)
{
	struct entry *entry;

	while ((entry = ready->first)) {
		ready->first = entry->next;
		entry->is_ready = false;
		/* A letter may have come before it meanwhile. */
		if (!entry->blocked)
			return entry;
	}
	return NULL;
}

struct entry *consumer_pop_ready(struct evbus_consumer *consumer)
{
	struct entry *letter = pop(&consumer->ready[1]);

	return letter ? letter : pop(&consumer->ready[0]);
}

void consumer_back_off(struct evbus_consumer *consumer, struct entry *entry)
{
	entry->state = ENTRY_BACKS_OFF;
	entry->next = consumer->backoff;
	consumer->backoff = entry;
	consumer->counts.waiting++;
	if (entry->due_us < consumer->next_due_us)
		consumer->next_due_us = entry->due_us;
}

void consumer_wake_up(struct evbus_consumer *consumer)
{
	if (!consumer->backoff)
		return;
	int64_t now = consumer_now_us();
	if (now < consumer->next_due_us)
		return;
	struct entry **at = &consumer->backoff;
	consumer->next_due_us = INT64_MAX;
	for (struct entry *entry; (entry = *at);) {
		if (entry->due_us > now) {
			consumer->next_due_us = entry->due_us < consumer->next_due_us ? entry->due_us :
											consumer->next_due_us;
			at = &entry->next;
			continue;
		}
		*at = entry->next;
		consumer->counts.waiting--;
		entry->state = ENTRY_WAITS;
		consumer_ready(consumer, entry, false);
	}
}

/* ---- ids that are done ---- */

void consumer_id_done(struct evbus_consumer *consumer, struct queue *id)
{
	if (id->done)
		return;
	id->done = true;
	/* In their order: ids that grow are appended to the index of the inbox, not spliced into it. */
	id->next_done = NULL;
	*(consumer->done_ids ? &consumer->last_done_id->next_done : &consumer->done_ids) = id;
	consumer->last_done_id = id;
}

void consumer_ids_saved(struct evbus_consumer *consumer)
{
	for (struct queue *id = consumer->done_ids, *next; id; id = next) {
		next = id->next_done;
		id->done = false;
		drop_if_idle(&consumer->keys_and_ids, id);
	}
	consumer->done_ids = NULL;
}

/* consumer_save.c: what came of the events, written in one transaction: checkpoints, inbox, retries, dead letters. */
#include "consumer.h"

#include "event/history.h"
#include "store/claim.h"
#include "store/letters.h"
#include "store/table.h"

#define SAVED_ROWS_MAX 100000u /* of the inbox in one transaction, whatever the caller wants */

void consumer_note(struct evbus_consumer *consumer, struct entry *entry, enum note note)
{
	entry->note = note;
	if (!entry->is_noted) {
		entry->is_noted = true;
		entry->next_noted = consumer->noted;
		consumer->noted = entry;
	}
	consumer->urgent = consumer->urgent || note != NOTE_RETRIED;
	consumer_lane_changed(consumer, entry->lane);
}

/* ---- rows ---- */

static struct evbus_slice slice_of(const struct buf *buf)
{
	return (struct evbus_slice){ buf->data ? buf->data : "", buf->len };
}

static struct retry_place place_of(const struct evbus_consumer *consumer, const struct lane *lane)
{
	return (struct retry_place){ .group = consumer->group,
				     .topic = lane->topic->name,
				     .partition_id = lane->reader->partition,
				     .log_id = lane->topic->log_id };
}

static struct evbus_slice text_slice(const char *text)
{
	return (struct evbus_slice){ text, strlen(text) };
}

/* due_at: as in struct retry_row. */
static enum evbus_code write_retry(struct evbus_consumer *consumer, const struct entry *entry, const char *due_at,
				   struct evbus_err *err)
{
	struct retry_place place = place_of(consumer, entry->lane);
	struct retry_row row = { .offset = entry->record.offset,
				 .attempts = entry->attempts,
				 .next_attempt_at = text_slice(due_at),
				 .last_error = slice_of(&entry->error),
				 .history = slice_of(&entry->history) };
	return retries_put(consumer->bus->store, &place, &row, err);
}

static enum evbus_code remove_retry(struct evbus_consumer *consumer, const struct entry *entry, struct evbus_err *err)
{
	struct retry_place place = place_of(consumer, entry->lane);

	return entry->stored ? retries_remove(consumer->bus->store, &place, entry->record.offset, err) : EVBUS_OK;
}

/* Raw JSON as text behind what is there; absent and null are no text. The slice is valid once nothing more is added. */
struct piece {
	size_t at, len;
	bool there;
};

static enum evbus_code add_piece(struct buf *text, struct evbus_slice value, struct piece *piece, struct evbus_err *err)
{
	*piece = (struct piece){ .at = text->len, .there = value.data && value.data[0] != 'n' };
	if (piece->there)
		TRY(consumer_json_text(value, text, err));
	piece->len = text->len - piece->at;
	return EVBUS_OK;
}

static struct evbus_slice slice_at(const struct buf *text, const struct piece *piece)
{
	return (struct evbus_slice){ piece->there ? text->data + piece->at : NULL, piece->len };
}

/* What a letter says of its event. */
static enum evbus_code describe(const struct entry *entry, struct buf *text, struct letter_row *row,
				struct evbus_err *err)
{
	const struct evbus_record *record = &entry->record;
	const struct evbus_envelope *envelope = &entry->delivery.envelope;
	struct piece tenant, key, type, correlation, id = { .there = envelope->event_id.data };

	text->len = 0;
	TRY(buf_reserve(text, 1, err));
	TRY(add_piece(text, record->tenant_id.data ? record->tenant_id : envelope->tenant_id, &tenant, err));
	TRY(add_piece(text, record->partition_key, &key, err));
	TRY(add_piece(text, envelope->event_type, &type, err));
	TRY(add_piece(text, envelope->correlation_id, &correlation, err));
	id.at = text->len;
	TRY(consumer_id_text(envelope, text, err));
	id.len = text->len - id.at;
	row->tenant_id = slice_at(text, &tenant);
	row->partition_key = slice_at(text, &key);
	row->event_type = slice_at(text, &type);
	row->correlation_id = slice_at(text, &correlation);
	row->event_id = slice_at(text, &id);
	return EVBUS_OK;
}

/* Byte for byte, also of what is no JSON object. */
static enum evbus_code payload_of(const struct evbus_record *record, struct buf *room, struct evbus_slice *payload,
				  struct evbus_err *err)
{
	*payload = record->payload;
	if (payload->data)
		return EVBUS_OK;
	TRY(buf_reserve(room, record->payload_base64.len + 1, err));
	*payload = (struct evbus_slice){ room->data, evbus_base64_decode(record->payload_base64, room->data) };
	return EVBUS_OK;
}

static enum evbus_code write_letter(struct evbus_consumer *consumer, const struct entry *entry, const char *now,
				    struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf room = { 0 };
	const struct evbus_record *record = &entry->record;
	struct letter_row row = { .group = text_slice(consumer->group),
				  .topic = record->topic,
				  .partition_id = record->partition_id,
				  .offset = record->offset,
				  .offset_kind = text_slice(record->offset_kind),
				  .log_id = text_slice(entry->lane->topic->log_id),
				  .published_at = record->published_at_utc,
				  .reason = text_slice(evbus_reason_name(entry->reason)),
				  .error = slice_of(&entry->error),
				  .attempts = entry->attempts,
				  .returns = record->returns,
				  .history = slice_of(&entry->history),
				  .updated_at = text_slice(now) };
	int64_t id;

	TRY(payload_of(record, &room, &row.payload, err));
	TRY(describe(entry, &consumer->scratch, &row, err));
	TRY(letters_put(consumer->bus->store, &row, &id, err));
	if (entry->offset < entry->lane->low)
		return remove_retry(consumer, entry, err);
	/* Without this it would be tried again if we died before the checkpoint comes by. */
	entry->lane->sweep_to = entry->offset >= entry->lane->sweep_to ? entry->offset + 1 : entry->lane->sweep_to;
	return write_retry(consumer, entry, RETRY_NEVER, err);
}

/* Somebody who has discarded the letter meanwhile is right: it stays as he wants it. */
static enum evbus_code settle_letter(struct evbus_consumer *consumer, const struct entry *entry, const char *now,
				     struct evbus_err *err)
{
	char by[EVBUS_TOPIC_MAX_BYTES + 16];
	bool changed;

	snprintf(by, sizeof by, "consumer %s", consumer->group);
	if (entry->note == NOTE_LETTER_FAILED)
		return letters_failed(consumer->bus->store, entry->delivery.letter, evbus_reason_name(entry->reason),
				      slice_of(&entry->error), slice_of(&entry->history), now, &changed, err);
	return letters_succeeded(consumer->bus->store, entry->delivery.letter, by,
				 entry->note == NOTE_LETTER_KNOWN ? "done before" : "done", now, &changed, err);
}

static enum evbus_code write_entry(struct evbus_consumer *consumer, const struct entry *entry, const char *now,
				   struct evbus_err *err)
{
	char due_at[28];

	switch (entry->note) {
	case NOTE_RETRY:
		evbus_time_format(entry->due_at_us, due_at);
		return write_retry(consumer, entry, due_at, err);
	case NOTE_RETRIED:
		return remove_retry(consumer, entry, err);
	case NOTE_DEAD:
		return write_letter(consumer, entry, now, err);
	case NOTE_LETTER_DONE:
	case NOTE_LETTER_KNOWN:
	case NOTE_LETTER_FAILED:
		return settle_letter(consumer, entry, now, err);
	case NOTE_NONE:
		break;
	}
	return EVBUS_OK;
}

/* The claim went with a connection and was taken again: what was saved since may be another process's. */
static enum evbus_code check_untouched(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	char saved[EVBUS_OFFSET_MAX_BYTES + 1] = "";
	struct evbus_checkpoint there;
	enum evbus_code code = store_checkpoint_get(consumer->bus->store, consumer->group, lane->topic->name,
						    lane->reader->partition, &there, err);

	if (code != EVBUS_NONE) {
		TRY(code);
		if (lane->saved != UINT64_MAX)
			TRY(partition_offset_text(lane->reader, lane->saved, saved, err));
		if (strcmp(there.log_id, lane->topic->log_id) != 0 || strcmp(there.next_offset, saved) != 0)
			return err_set(err, EVBUS_CONFLICT, 0,
				       "the claim of the group '%s' on partition %d of the topic '%s' went with the "
				       "connection to the store, and somebody else has saved a checkpoint since",
				       consumer->group, lane->reader->partition, lane->topic->name);
	}
	lane->renewals = claim_renewals(lane->claim);
	return EVBUS_OK;
}

static enum evbus_code write_lane(struct evbus_consumer *consumer, struct lane *lane, const char *now,
				  struct evbus_err *err)
{
	struct evbus_checkpoint checkpoint = { .partition_id = lane->reader->partition };
	struct retry_place place = place_of(consumer, lane);

	/* Here, as late as can be: what another process does from now on, it does from this checkpoint on. */
	TRY(claim_check(lane->claim, consumer->state, err));
	if (claim_renewals(lane->claim) != lane->renewals)
		TRY(check_untouched(consumer, lane, err));
	TRY(partition_offset_text(lane->reader, lane->low, checkpoint.next_offset, err));
	if (lane->sweep_to)
		TRY(retries_sweep(consumer->bus->store, &place, text_slice(checkpoint.next_offset), err));
	if (lane->low == lane->saved)
		return EVBUS_OK;
	snprintf(checkpoint.group, sizeof checkpoint.group, "%s", consumer->group);
	snprintf(checkpoint.offset_kind, sizeof checkpoint.offset_kind, "%s", lane->topic->ops->offset_kind);
	snprintf(checkpoint.topic, sizeof checkpoint.topic, "%s", lane->topic->name);
	snprintf(checkpoint.log_id, sizeof checkpoint.log_id, "%s", lane->topic->log_id);
	snprintf(checkpoint.fingerprint, sizeof checkpoint.fingerprint, "%s", lane->fingerprint);
	snprintf(checkpoint.updated_at_utc, sizeof checkpoint.updated_at_utc, "%s", now);
	return outcomes_checkpoint(consumer->bus->store, &checkpoint, err);
}

static enum evbus_code write_ids(struct evbus_consumer *consumer, const char *now, struct evbus_err *err)
{
	struct inbox_event events[INBOX_BATCH_MAX];
	size_t count = 0;

	for (const struct queue *id = consumer->done_ids; id; id = id->next_done) {
		events[count++] = consumer_inbox_event(id);
		if (id->next_done && count < INBOX_BATCH_MAX)
			continue;
		TRY(inbox_add(consumer->bus->store, consumer->group, events, count, now, err));
		count = 0;
	}
	return EVBUS_OK;
}

/* ---- all of it ---- */

static enum evbus_code write_all(struct evbus_consumer *consumer, struct evbus_err *err)
{
	char now[28];

	evbus_time_format(os_now_us(), now);
	TRY(write_ids(consumer, now, err));
	for (const struct entry *entry = consumer->noted; entry; entry = entry->next_noted)
		TRY(write_entry(consumer, entry, now, err));
	for (size_t i = 0; i < consumer->lane_count; i++)
		if (consumer->lanes[i]->dirty)
			TRY(write_lane(consumer, consumer->lanes[i], now, err));
	return EVBUS_OK;
}

static void forget_saved(struct evbus_consumer *consumer)
{
	for (size_t i = 0; i < consumer->lane_count; i++) {
		struct lane *lane = consumer->lanes[i];
		if (!lane->dirty)
			continue;
		lane->dirty = false;
		lane->saved = lane->low;
		lane->sweep_to = lane->sweep_to > lane->low ? lane->sweep_to : 0;
		/* Its children may begin. */
		if (consumer_lane_is_done(lane))
			consumer->tended_us = 1;
	}
	consumer_ids_saved(consumer);
	for (struct entry *entry = consumer->noted, *next; entry; entry = next) {
		next = entry->next_noted;
		entry->is_noted = false;
		entry->note = NOTE_NONE;
		if (entry->state == ENTRY_DONE)
			consumer_free_entry(consumer, entry);
	}
	consumer->noted = NULL;
	consumer->urgent = false;
	consumer->outcomes = 0;
	consumer->dirty_us = 0;
}

static bool is_due(const struct evbus_consumer *consumer)
{
	return consumer->urgent || consumer->outcomes >= consumer->commit_every ||
	       consumer->outcomes >= SAVED_ROWS_MAX ||
	       consumer_now_us() - consumer->dirty_us >= consumer->commit_interval_us;
}

enum evbus_code consumer_save(struct evbus_consumer *consumer, bool now, struct evbus_err *err)
{
	if (!consumer->dirty_us || (!now && !is_due(consumer)))
		return EVBUS_OK;
	os.point("consume/handled");
	TRY(bus_store(consumer->bus, err));
	TRY(table_begin(consumer->bus->store, err));
	enum evbus_code code = write_all(consumer, err);
	if (code) {
		table_rollback(consumer->bus->store);
		return code;
	}
	TRY(table_commit(consumer->bus->store, err));
	forget_saved(consumer);
	return EVBUS_OK;
}

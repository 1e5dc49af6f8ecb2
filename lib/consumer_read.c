/* consumer_read.c: from the lines of a partition to the entries of its window. */
#include "consumer.h"

#include "delivery/retry.h"
#include "event/envelope.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define AHEAD 32u                      /* records that are read where one is handled at a time */
#define TAKE_AT_ONCE 256u              /* entries that are made before it is looked whether one is ready */
#define LOOK_AT_ONCE 4096u             /* records, most of which may not match */
#define TEXT_KEPT_BYTES 65536u         /* of an entry that is free */

/* ---- entries ---- */

static enum evbus_code no_memory(struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, ENOMEM, "cannot look at a record");
}

static enum evbus_code take_free(struct evbus_consumer *consumer, struct entry **entry, struct evbus_err *err)
{
	struct entry *taken = consumer->free;

	if (taken) {
		consumer->free = taken->next;
	} else {
		taken = os.realloc(NULL, sizeof *taken);
		if (!taken)
			return no_memory(err);
		*taken = (struct entry){ .next_of_all = consumer->all };
		consumer->all = taken;
	}
	*entry = taken;
	return EVBUS_OK;
}

void consumer_free_entry(struct evbus_consumer *consumer, struct entry *entry)
{
	struct buf text = entry->text, history = entry->history, error = entry->error;

	if (text.size > TEXT_KEPT_BYTES)
		buf_release(&text);
	text.len = history.len = error.len = 0;
	*entry = (struct entry){ .text = text, .history = history, .error = error, .next = consumer->free,
				 .next_of_all = entry->next_of_all };
	consumer->free = entry;
}

static void move(struct evbus_slice *slice, const char *from, const char *to)
{
	if (slice->data)
		slice->data = to + (slice->data - from);
}

/* The same slices of a copy of the line. */
static void move_record(struct evbus_record *record, const char *from, const char *to)
{
	struct evbus_slice *slices[] = { &record->offset,    &record->published_at_utc, &record->partition_key,
					 &record->tenant_id, &record->event_key,	&record->batch,
					 &record->origin,    &record->payload,		&record->payload_base64,
					 &record->members,   &record->stored };

	for (size_t i = 0; i < sizeof slices / sizeof *slices; i++)
		move(slices[i], from, to);
}

static void make_record(const struct lane *lane, const struct line *line, struct evbus_record *record)
{
	const char *name = lane->topic->name;

	line_to_record(line, (struct evbus_slice){ name, strlen(name) }, lane->reader->partition, record);
	record->offset_kind = lane->reader->ops->offset_kind;
}

enum evbus_code consumer_make_entry(struct evbus_consumer *consumer, struct lane *lane, const struct line *line,
				    struct entry **entry, struct evbus_err *err)
{
	struct entry *made = NULL;

	TRY(take_free(consumer, &made, err));
	enum evbus_code code = buf_add(&made->text, line->text.data, line->text.len, err);
	if (code) {
		consumer_free_entry(consumer, made);
		return code;
	}
	made->lane = lane;
	made->offset = line->offset;
	make_record(lane, line, &made->record);
	move_record(&made->record, line->text.data, made->text.data);
	made->delivery.record = &made->record;
	/* An event that says something twice says nothing of it. */
	if (made->record.payload.data && evbus_envelope_read(made->record.payload, &made->delivery.envelope, NULL))
		made->delivery.envelope = (struct evbus_envelope){ 0 };
	*entry = made;
	return EVBUS_OK;
}

/* ---- the window of a lane ---- */

static enum evbus_code make_room(struct lane *lane, struct evbus_err *err)
{
	if (lane->count < lane->size)
		return EVBUS_OK;
	size_t size = lane->size ? lane->size * 2 : AHEAD;
	struct slot *slots = os.realloc(NULL, size * sizeof(*slots));
	if (!slots)
		return no_memory(err);
	for (size_t n = lane->head; n != lane->head + lane->count; n++)
		slots[n & (size - 1)] = lane->slots[n & (lane->size - 1)];
	free(lane->slots);
	lane->slots = slots;
	lane->size = size;
	return EVBUS_OK;
}

void consumer_advance(struct lane *lane)
{
	while (lane->count) {
		const struct slot *slot = &lane->slots[lane->head & (lane->size - 1)];
		if (slot->entry)
			return;
		memcpy(lane->fingerprint, slot->crc, 8);
		lane->fingerprint[8] = '\0';
		lane->low = slot->offset + 1;
		lane->head++;
		lane->count--;
	}
	lane->low = lane->read_to;
}

void consumer_lane_changed(struct evbus_consumer *consumer, struct lane *lane)
{
	lane->dirty = true;
	if (!consumer->dirty_us)
		consumer->dirty_us = consumer_now_us();
	/* Others may wait for it. */
	consumer->urgent = consumer->urgent || consumer_lane_is_done(lane);
}

bool consumer_lane_is_done(const struct lane *lane)
{
	return lane->reader->closed && lane->low >= lane->reader->end;
}

/* What the store knows of this record: attempts that failed in an earlier run. NULL: none. */
static const struct earlier *find_earlier(struct lane *lane, uint64_t offset)
{
	while (lane->earlier_next < lane->earlier_count && lane->earlier[lane->earlier_next].offset < offset)
		lane->earlier_next++;
	if (lane->earlier_next == lane->earlier_count || lane->earlier[lane->earlier_next].offset != offset)
		return NULL;
	return &lane->earlier[lane->earlier_next];
}

static enum evbus_code recall(const struct evbus_consumer *consumer, const struct earlier *earlier,
			      struct entry *entry, struct evbus_err *err)
{
	TRY(buf_add(&entry->history, earlier->history.data, earlier->history.len, err));
	TRY(buf_add(&entry->error, earlier->error.data, earlier->error.len, err));
	entry->stored = true;
	entry->attempts = earlier->attempts;
	entry->due_at_us = earlier->due_at_us;
	int64_t now_us = os_now_us();
	if (!retry_is_due(&consumer->retry, entry->attempts, entry->due_at_us, now_us)) {
		entry->due_us = consumer_now_us() + (entry->due_at_us - now_us);
		entry->state = ENTRY_BACKS_OFF;
	}
	return EVBUS_OK;
}

static enum evbus_code take(struct evbus_consumer *consumer, struct lane *lane, const struct line *line,
			    struct slot *slot, struct evbus_err *err)
{
	struct entry *entry;

	TRY(consumer_make_entry(consumer, lane, line, &entry, err));
	const struct earlier *earlier = find_earlier(lane, line->offset);
	enum evbus_code code = earlier ? recall(consumer, earlier, entry, err) : EVBUS_OK;
	if (code == EVBUS_OK)
		code = consumer_enqueue(consumer, entry, err);
	if (code) {
		consumer_free_entry(consumer, entry);
		return code;
	}
	slot->entry = entry;
	entry->place = lane->head + lane->count;
	consumer->window_bytes += entry->text.len;
	if (entry->state == ENTRY_BACKS_OFF)
		consumer_back_off(consumer, entry);
	else
		consumer_ready(consumer, entry, false);
	return EVBUS_OK;
}

/* ---- reading ---- */

/* Neither dead already nor passed over by the filter. */
static bool is_wanted(struct evbus_consumer *consumer, struct lane *lane, const struct line *line)
{
	const struct earlier *earlier = find_earlier(lane, line->offset);
	struct evbus_record record;

	if (earlier && earlier->dead)
		return false;
	if (!consumer->filtered)
		return true;
	make_record(lane, line, &record);
	bool matches = filter_matches(&consumer->filter, &record);
	consumer->counts.passed_over += !matches;
	return matches;
}

/* From here on a failure is for good: the cursor is beyond a record that is not in the window. */
static enum evbus_code take_line(struct evbus_consumer *consumer, struct lane *lane, const struct line *line,
				 bool *taken, struct evbus_err *err)
{
	struct slot *slot = &lane->slots[(lane->head + lane->count) & (lane->size - 1)];

	assert(line->offset >= lane->read_to);
	consumer->progress.records++;
	consumer->progress.bytes += line->text.len + 1;
	memcpy(slot->crc, line->text.data + LINE_CRC_AT, 8);
	slot->entry = NULL;
	slot->offset = line->offset;
	*taken = is_wanted(consumer, lane, line);
	if (*taken)
		TRY(take(consumer, lane, line, slot, err));
	lane->count++;
	lane->read_to = line->offset + 1;
	if (*taken)
		return EVBUS_OK;
	consumer_advance(lane);
	consumer_lane_changed(consumer, lane);
	return EVBUS_OK;
}

/* There is nothing more below where the reader is: what offsets are left out there are done with what stands before. */
static void pass_gap(struct evbus_consumer *consumer, struct lane *lane)
{
	uint64_t next = lane->reader->next < lane->end ? lane->reader->next : lane->end;

	if (next <= lane->read_to)
		return;
	lane->read_to = next;
	if (lane->count)
		return;
	lane->low = next;
	consumer_lane_changed(consumer, lane);
}

/* How many records may be read now. */
static size_t room(const struct evbus_consumer *consumer, const struct lane *lane)
{
	if (!lane->count)
		return consumer->concurrency > 1 || consumer->window < AHEAD ? consumer->window : AHEAD;
	/* Where one is handled at a time, nothing behind it can be. */
	return consumer->concurrency > 1 && consumer->window_bytes < WINDOW_BYTES && lane->count < consumer->window ?
		       consumer->window - lane->count :
		       0;
}

static enum evbus_code read_lane(struct evbus_consumer *consumer, struct lane *lane, size_t *took, size_t *looked,
				 struct evbus_err *err)
{
	size_t most = room(consumer, lane);
	struct evbus_err why;
	struct line line;
	bool got, taken = false;

	if (!most)
		return EVBUS_OK;
	if (lane->reader->next >= lane->end) {
		pass_gap(consumer, lane);
		return EVBUS_OK;
	}
	if (lane->reader->next >= lane->reader->end && partition_may_look(lane->reader))
		TRY(partition_refresh(lane->reader, err));
	if (lane->reader->closed && lane->end > lane->reader->end)
		lane->end = lane->reader->end;
	for (size_t i = 0; i < most && *took < TAKE_AT_ONCE && *looked < LOOK_AT_ONCE;) {
		if (lane->count && consumer->window_bytes >= WINDOW_BYTES)
			return EVBUS_OK;
		TRY(make_room(lane, err));
		/* What was found not to be there on the way to success may stand in `why`, and is no failure. */
		enum evbus_code code = partition_next(lane->reader, lane->end, &line, &got, &why);
		if (code == EVBUS_OK && got)
			code = take_line(consumer, lane, &line, &taken, &why);
		if (code)
			consumer->failure = why;
		if (code == EVBUS_OK && !got)
			pass_gap(consumer, lane);
		if (code || !got)
			return EVBUS_OK;
		++*looked;
		*took += taken;
		/* What was passed over at the beginning of the window takes no room in it. */
		i += lane->count > 0;
	}
	return EVBUS_OK;
}

enum evbus_code consumer_fill(struct evbus_consumer *consumer, bool *idle, struct evbus_err *err)
{
	size_t took = 0, looked = 0, lanes = consumer->lane_count;

	for (size_t i = 0; i < lanes && took < TAKE_AT_ONCE && looked < LOOK_AT_ONCE && !consumer->failure.code; i++) {
		struct lane *lane = consumer->lanes[consumer->turn++ % lanes];
		if (lane->claim)
			TRY(read_lane(consumer, lane, &took, &looked, err));
	}
	*idle = !looked;
	return EVBUS_OK;
}

/* consumer_letters.c: dead letters that were queued for another attempt, and that their group's consumer handles before
 * its next events.
 *
 * As many as may be out are taken at a time: letters may be many. */
#include "consumer.h"

#include "base/clock.h"
#include "event/json.h"
#include "store/letters.h"

#define ROUND_US 1000000               /* between two looks for letters, while following */

void consumer_expect_letters(struct evbus_consumer *consumer, struct lane *lane)
{
	if (!lane->letters)
		consumer->lanes_with_letters++;
	lane->letters = true;
	lane->letter_after = 0;
}

/* What a letter was found to be, copied. */
struct found {
	struct evbus_consumer *consumer;
	struct lane *lane;
	struct entry *entry;
};

/* The line as it stands in the log, as far as a letter knows it. What was no event when it died is none now. */
static enum evbus_code make_line(const struct letter_row *row, struct buf *text, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf room = { 0 };
	struct line_body body = { .key = row->partition_key,
				  .payload = row->payload,
				  .tenant_id = row->tenant_id,
				  .offset_text = row->offset };
	struct json_fault fault;
	int64_t time_us = 0;
	uint32_t split;

	if (!json_scan(row->payload, NULL, 0, &fault)) {
		TRY(buf_reserve(&room, EVBUS_BASE64_LEN(row->payload.len) + 1, err));
		body.payload = (struct evbus_slice){ NULL, 0 };
		body.payload_base64 = (struct evbus_slice){ room.data, evbus_base64_encode(row->payload, room.data) };
	}
	if (row->published_at.len == TIME_TEXT_LEN && !clock_parse_exact(row->published_at.data, &time_us))
		time_us = 0;
	text->len = 0;
	return line_add(text, &body, 0, time_us, &split, err);
}

static enum evbus_code take_row(void *context, const struct letter_row *row, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf text = { 0 };
	struct found *found = context;
	struct entry *entry;
	struct line line;

	TRY(make_line(row, &text, err));
	const char *why = line_parse_text((struct evbus_slice){ text.data, text.len - 1 }, 0, &line);
	if (why)
		return err_set(err, EVBUS_IO, 0, "dead letter %lld in the store is damaged: %s", (long long)row->id, why);
	TRY(consumer_make_entry(found->consumer, found->lane, &line, &entry, err));
	entry->delivery.letter = row->id;
	entry->attempts = row->attempts;
	enum evbus_code code = buf_add(&entry->history, row->history.data, row->history.len, err);
	if (code)
		consumer_free_entry(found->consumer, entry);
	else
		found->entry = entry;
	return code;
}

static enum evbus_code take_letter(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *err)
{
	struct found found = { .consumer = consumer, .lane = lane };

	TRY(bus_store(consumer->bus, err));
	TRY(letters_next_queued(consumer->bus->store, consumer->group, lane->topic->name, lane->reader->partition,
				lane->topic->log_id, lane->letter_after, take_row, &found, err));
	if (!found.entry) {
		lane->letters = false;
		consumer->lanes_with_letters--;
		return EVBUS_OK;
	}
	int64_t id = found.entry->delivery.letter;
	enum evbus_code code = consumer_enqueue(consumer, found.entry, err);
	if (code) {
		consumer_free_entry(consumer, found.entry);
		return code;
	}
	lane->letters_in++;
	lane->letter_after = id;
	consumer->letters_in++;
	consumer_ready(consumer, found.entry, false);
	return EVBUS_OK;
}

enum evbus_code consumer_take_letters(struct evbus_consumer *consumer, struct evbus_err *err)
{
	if (consumer->follow && !consumer->lanes_with_letters &&
	    consumer_now_us() - consumer->letters_us >= ROUND_US) {
		consumer->letters_us = consumer_now_us();
		for (size_t i = 0; i < consumer->lane_count; i++)
			if (consumer->lanes[i]->claim && !consumer->lanes[i]->letters_in)
				consumer_expect_letters(consumer, consumer->lanes[i]);
	}
	if (!consumer->lanes_with_letters || consumer->stopped)
		return EVBUS_OK;
	for (size_t i = 0; i < consumer->lane_count && consumer->letters_in < consumer->concurrency; i++) {
		struct lane *lane = consumer->lanes[i];
		while (lane->letters && consumer->letters_in < consumer->concurrency)
			TRY(take_letter(consumer, lane, err));
	}
	return EVBUS_OK;
}

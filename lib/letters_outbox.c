/* letters_outbox.c: a FAILED row of an outbox as a dead letter.
 *
 * The row has no place for what makes it a letter: when and why it died says its history, and that it is discarded says
 * a decision in our store. A decision is about the death before it: when the row has failed once more since (an
 * application has set it back, or its number was given out anew), it is a letter that nobody has decided about. */
#include "letters.h"

#include "base/clock.h"
#include "event/history.h"
#include "store/decisions.h"

#include <string.h>

void outbox_letter_release(struct outbox_letter *letter)
{
	page_release(&letter->decision);
}

/* ---- one row --------------------------------------------------------------------------------------------------- */

struct row_taker {
	enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row, struct evbus_err *err);
	void *context;
	bool there;
};

static enum evbus_code take_row(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	struct row_taker *taker = context;

	taker->there = true;
	return taker->row(taker->context, row, err);
}

enum evbus_code outbox_row(struct evbus_outbox *outbox, int64_t seq,
			   enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row,
						  struct evbus_err *err),
			   void *context, bool *there, struct evbus_err *err)
{
	struct row_taker taker = { row, context, false };
	struct evbus_outbox_filter filter = { .state = -1, .seq = seq };

	TRY(evbus_outbox_list(outbox, &filter, take_row, &taker, err));
	*there = taker.there;
	return EVBUS_OK;
}

/* ---- as a letter ----------------------------------------------------------------------------------------------- */

static void take_event(struct evbus_outbox *outbox, const struct evbus_outbox_row *row, struct evbus_letter *letter)
{
	const char *name = evbus_outbox_name(outbox);

	*letter = (struct evbus_letter){ .source = { name, strlen(name) },
					 .tenant_id = row->tenant_id,
					 .topic = row->topic,
					 .event_id = row->id,
					 .event_type = row->event_type,
					 .partition_key = row->partition_key,
					 .partition_id = -1,
					 .payload = row->payload,
					 .reason = EVBUS_REASON_RETRIES,
					 .error = row->last_error,
					 .attempts = row->attempts };
	snprintf(letter->id, sizeof letter->id, "%s:%lld", name, (long long)row->seq);
}

static struct evbus_slice write_time(int64_t time_us, char text[28])
{
	if (time_us < 0)
		return (struct evbus_slice){ NULL, 0 };
	evbus_time_format(time_us, text);
	return (struct evbus_slice){ text, TIME_TEXT_LEN };
}

static void take_history(const struct evbus_outbox_row *row, struct outbox_letter *to)
{
	struct history_ends ends;

	to->created_us = -1;
	if (history_read(row->history, &ends)) {
		to->letter.history = row->history;
		to->letter.reason = ends.reason;
		to->letter.returns = ends.returns;
		to->created_us = ends.first_us;
		to->updated_us = ends.last_us;
		return;
	}
	/* It is at least as old as that, where the application writes times that can be read. */
	if (!row->created_at.data || !clock_parse(row->created_at.data, row->created_at.len, &to->created_us))
		to->created_us = -1;
	to->updated_us = to->created_us;
}

static enum evbus_code take_decision(struct evbus *bus, const char *place, int64_t seq, struct outbox_letter *to,
				     struct evbus_err *err)
{
	struct decision decision;
	int64_t at_us;
	bool found;

	TRY(decisions_find(bus->store, place, seq, &to->decision, &decision, &found, err));
	if (!found || decision.at.len != TIME_TEXT_LEN || !clock_parse_exact(decision.at.data, &at_us) ||
	    at_us < to->updated_us)
		return EVBUS_OK;
	to->letter.state = EVBUS_LETTER_DISCARDED;
	to->letter.resolved_by = decision.by;
	to->updated_us = at_us;
	return EVBUS_OK;
}

enum evbus_code letter_of_outbox(struct evbus *bus, struct evbus_outbox *outbox, const struct evbus_outbox_row *row,
				 struct outbox_letter *letter, struct evbus_err *err)
{
	const char *place;

	take_event(outbox, row, &letter->letter);
	take_history(row, letter);
	TRY(outbox_place(outbox, &place, err));
	TRY(take_decision(bus, place, row->seq, letter, err));
	letter->letter.created_at = write_time(letter->created_us, letter->created_at);
	letter->letter.updated_at = write_time(letter->updated_us, letter->updated_at);
	return EVBUS_OK;
}

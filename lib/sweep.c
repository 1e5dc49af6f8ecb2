/* sweep.c: removing what is done and old. */
#include "letters.h"

#include "base/clock.h"
#include "store/decisions.h"
#include "store/sweeping.h"
#include "store/table.h"

#include <inttypes.h>

struct sweep {
	struct letter_sources from;
	const struct evbus_sweep_options *options;
	struct evbus_sweep_result *result;
};

static const char *text_of(int64_t time_us, char text[28])
{
	evbus_time_format(time_us, text);
	return text;
}

/* ---- may the inbox forget? ------------------------------------------------------------------------------------- */

/* The oldest letter that can still be retried. */
struct oldest {
	char id[EVBUS_LETTER_ID_MAX_BYTES];
	int64_t created_us;
};

static void compare_age(struct oldest *oldest, const char *id, struct evbus_slice created_at)
{
	int64_t created_us;

	if (created_at.len != TIME_TEXT_LEN || !clock_parse_exact(created_at.data, &created_us) ||
	    (oldest->id[0] && created_us >= oldest->created_us))
		return;
	snprintf(oldest->id, sizeof oldest->id, "%s", id);
	oldest->created_us = created_us;
}

static enum evbus_code take_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	(void)err;
	compare_age(context, letter->id, letter->created_at);
	return EVBUS_OK;
}

static enum evbus_code find_oldest(const struct sweep *sweep, struct oldest *oldest, struct evbus_err *err)
{
	const struct letter_sources *from = &sweep->from;
	struct evbus_letter_filter filter = { .reason = -1,
					      .state = EVBUS_LETTER_DEAD,
					      .older_than_us = sweep->options->inbox_before_us };
	char before[28], created_at[28], id[24];
	int64_t number;

	TRY(letters_oldest(from->bus->store, text_of(filter.older_than_us, before), &number, created_at, err));
	snprintf(id, sizeof id, "%" PRId64, number);
	if (number)
		compare_age(oldest, id, (struct evbus_slice){ created_at, TIME_TEXT_LEN });
	for (size_t i = 0; i < from->count; i++) {
		filter.outbox = evbus_outbox_name(from->outboxes[i]);
		TRY(evbus_letter_list(from->bus, from->outboxes, from->count, &filter, take_letter, oldest, err));
	}
	return EVBUS_OK;
}

/* The inbox and the index of event keys keep an event from taking effect twice. Whoever retries a letter relies on what
 * they knew when it died. */
static enum evbus_code check_window(const struct sweep *sweep, struct evbus_err *err)
{
	struct oldest oldest = { 0 };
	char created_at[28];
	int64_t now_us = os_now_us();

	if (!sweep->options->inbox_before_us)
		return EVBUS_OK;
	TRY(find_oldest(sweep, &oldest, err));
	if (!oldest.id[0])
		return EVBUS_OK;
	int64_t days = (now_us - oldest.created_us) / (INT64_C(24) * 3600 * 1000000);
	return err_set(err, EVBUS_CONFLICT, 0,
		       "the inbox would forget events that the dead letter '%s' of %s (%" PRId64 " days old) may run "
		       "again: retry or discard it, or keep the inbox longer than that",
		       oldest.id, text_of(oldest.created_us, created_at), days);
}

/* ---- decisions about rows that are no letters any more --------------------------------------------------------- */

static enum evbus_code take_state(void *context, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	(void)err;
	*(enum evbus_outbox_state *)context = row->state;
	return EVBUS_OK;
}

/* Those of a page about rows that are gone or FAILED no longer. */
static enum evbus_code choose_rows(struct evbus_outbox *outbox, const struct page *page, int64_t *last,
				   int64_t seqs[PAGE_ROWS], size_t *count, struct evbus_err *err)
{
	enum evbus_outbox_state state = EVBUS_OUTBOX_PENDING;
	bool there;

	*count = 0;
	for (size_t i = 0; i < page->count; i++) {
		*last = page->rows[i][0].integer;
		TRY(outbox_row(outbox, *last, take_state, &state, &there, err));
		if (!there || state != EVBUS_OUTBOX_FAILED)
			seqs[(*count)++] = *last;
	}
	return EVBUS_OK;
}

static enum evbus_code remove_rows(struct store *store, const char *place, const int64_t *seqs, size_t count,
				   struct evbus_err *err)
{
	bool changed;

	if (!count)
		return EVBUS_OK;
	TRY(table_begin(store, err));
	for (size_t i = 0; i < count; i++) {
		enum evbus_code code = decisions_remove(store, place, seqs[i], &changed, err);
		if (code) {
			table_rollback(store);
			return code;
		}
	}
	return table_commit(store, err);
}

/* A row that is FAILED still would come back from the discarded letters without its decision: those stay. */
static enum evbus_code sweep_decisions(const struct sweep *sweep, struct evbus_outbox *outbox, struct evbus_err *err)
{
	CLEANUP(page_release) struct page page = { 0 };
	struct store *store = sweep->from.bus->store;
	int64_t last = 0, seqs[PAGE_ROWS];
	char before[28];
	const char *place;
	size_t count;

	TRY(outbox_place(outbox, &place, err));
	text_of(sweep->options->letters_before_us, before);
	do {
		TRY(decisions_before(store, place, before, last, &page, err));
		TRY(choose_rows(outbox, &page, &last, seqs, &count, err));
		if (!sweep->options->dry_run)
			TRY(remove_rows(store, place, seqs, count, err));
		sweep->result->letters += count;
	} while (page.count);
	return EVBUS_OK;
}

/* ---- all of it ------------------------------------------------------------------------------------------------- */

static enum evbus_code sweep_sent(const struct sweep *sweep, struct evbus_err *err)
{
	uint64_t count;

	for (size_t i = 0; i < sweep->from.count; i++) {
		TRY(outbox_sweep(sweep->from.outboxes[i], sweep->options->sent_before_us, sweep->options->dry_run,
				 &count, err));
		sweep->result->sent += count;
	}
	return EVBUS_OK;
}

static enum evbus_code sweep_inbox(const struct sweep *sweep, struct evbus_err *err)
{
	struct store *store = sweep->from.bus->store;
	bool dry_run = sweep->options->dry_run;
	char before[28];

	text_of(sweep->options->inbox_before_us, before);
	TRY(sweep_table(store, SWEEP_INBOX, before, dry_run, &sweep->result->inbox, err));
	return sweep_table(store, SWEEP_EVENT_KEYS, before, dry_run, &sweep->result->event_keys, err);
}

static enum evbus_code sweep_letters(const struct sweep *sweep, struct evbus_err *err)
{
	char before[28];

	text_of(sweep->options->letters_before_us, before);
	TRY(sweep_table(sweep->from.bus->store, SWEEP_LETTERS, before, sweep->options->dry_run, &sweep->result->letters,
			err));
	for (size_t i = 0; i < sweep->from.count; i++)
		TRY(sweep_decisions(sweep, sweep->from.outboxes[i], err));
	return EVBUS_OK;
}

enum evbus_code evbus_sweep(struct evbus *bus, struct evbus_outbox *const *outboxes, size_t outbox_count,
			    const struct evbus_sweep_options *options, struct evbus_sweep_result *result,
			    struct evbus_err *err)
{
	struct evbus_sweep_result swept = { 0 };
	struct sweep sweep = { { bus, outboxes, outbox_count }, options, &swept };

	TRY(letter_sources_open(&sweep.from, err));
	TRY(check_window(&sweep, err));
	if (options->sent_before_us)
		TRY(sweep_sent(&sweep, err));
	if (options->inbox_before_us)
		TRY(sweep_inbox(&sweep, err));
	if (options->letters_before_us)
		TRY(sweep_letters(&sweep, err));
	*result = swept;
	return EVBUS_OK;
}

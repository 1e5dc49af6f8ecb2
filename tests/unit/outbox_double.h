/* An outbox that is a table in memory. What stands here wins over lib/outbox.c in the archive: letters and sweeping are
 * tested with rows that no real outbox would show at will. */
#ifndef EVBUS_TESTS_OUTBOX_DOUBLE_H
#define EVBUS_TESTS_OUTBOX_DOUBLE_H

#include "letters_helpers.h"

#define ROWS_MAX 2000

struct evbus_outbox {
	const char *name, *place;
	struct evbus_outbox_row rows[ROWS_MAX];
	size_t count;
	bool lost; /* somebody else is first, each time */
	int64_t swept_before_us;
	bool swept_dry;
	enum evbus_code fails;
};

static struct evbus_outbox app = { .name = "app.db", .place = "sqlite:/app.db#outbox" };
static struct evbus_outbox crm = { .name = "crm", .place = "sqlite:/crm.db#events" };
static struct evbus_outbox *const both[] = { &app, &crm };

static inline void give_both(void)
{
	open_bus();
	given = both;
	given_count = 2;
}

#define NOTHING                                                                                                        \
	{                                                                                                              \
		NULL, 0                                                                                                \
	}
#define HISTORY "[" ATTEMPT("1", "2026-01-03T00:00:00.000000Z") "," ATTEMPT("2", "2026-01-04T00:00:00.000000Z") "]"

/* A FAILED row with the next seq. */
static inline struct evbus_outbox_row *add_row(struct evbus_outbox *outbox)
{
	struct evbus_outbox_row *row = &outbox->rows[outbox->count];

	*row = (struct evbus_outbox_row){ .seq = (int64_t)++outbox->count,
					  .id = SLICE("e"),
					  .topic = SLICE("orders"),
					  .event_type = SLICE("order.made"),
					  .payload = SLICE("{}"),
					  .state = EVBUS_OUTBOX_FAILED,
					  .attempts = 2,
					  .last_error = SLICE("slow"),
					  .created_at = SLICE("2026-01-02T00:00:00.000000Z"),
					  .history = SLICE(HISTORY) };
	return row;
}

const char *evbus_outbox_name(const struct evbus_outbox *outbox)
{
	return outbox->name;
}

const char *evbus_outbox_state_name(enum evbus_outbox_state state)
{
	static const char *const names[] = { "PENDING", "PROCESSING", "SENT", "FAILED" };

	return names[state];
}

enum evbus_code evbus_outbox_list(struct evbus_outbox *outbox, const struct evbus_outbox_filter *filter,
				  enum evbus_code (*row)(void *context, const struct evbus_outbox_row *row,
							 struct evbus_err *e),
				  void *context, struct evbus_err *e)
{
	if (outbox->fails)
		return err_set(e, outbox->fails, 0, "the outbox fails");
	for (size_t i = 0; i < outbox->count; i++)
		if ((!filter->seq || filter->seq == outbox->rows[i].seq) &&
		    (filter->state < 0 || filter->state == (int)outbox->rows[i].state))
			TRY(row(context, &outbox->rows[i], e));
	return EVBUS_OK;
}

enum evbus_code evbus_outbox_last_seq(struct evbus_outbox *outbox, int64_t *seq, struct evbus_err *e)
{
	if (outbox->fails)
		return err_set(e, outbox->fails, 0, "the outbox fails");
	*seq = outbox->count ? outbox->rows[outbox->count - 1].seq : INT64_MIN;
	return EVBUS_OK;
}

enum evbus_code outbox_place(struct evbus_outbox *outbox, const char **place, struct evbus_err *e)
{
	(void)e;
	*place = outbox->place;
	return EVBUS_OK;
}

/* The row, if it is FAILED. */
static inline struct evbus_outbox_row *failed_row(struct evbus_outbox *outbox, int64_t seq)
{
	for (size_t i = 0; i < outbox->count && !outbox->lost; i++)
		if (outbox->rows[i].seq == seq && outbox->rows[i].state == EVBUS_OUTBOX_FAILED)
			return &outbox->rows[i];
	return NULL;
}

enum evbus_code outbox_requeue(struct evbus_outbox *outbox, int64_t seq, bool *changed, struct evbus_err *e)
{
	struct evbus_outbox_row *row = failed_row(outbox, seq);

	(void)e;
	*changed = row;
	if (row)
		row->state = EVBUS_OUTBOX_PENDING;
	return EVBUS_OK;
}

enum evbus_code outbox_settle(struct evbus_outbox *outbox, int64_t seq, struct evbus_slice receipt, bool *changed,
			      struct evbus_err *e)
{
	struct evbus_outbox_row *row = failed_row(outbox, seq);

	(void)e;
	*changed = row;
	if (row) {
		row->state = EVBUS_OUTBOX_SENT;
		row->receipt = receipt;
	}
	return EVBUS_OK;
}

enum evbus_code outbox_fail_again(struct evbus_outbox *outbox, int64_t seq, enum evbus_reason reason,
				  struct evbus_slice error, bool *changed, struct evbus_err *e)
{
	struct evbus_outbox_row *row = failed_row(outbox, seq);

	(void)e;
	*changed = row;
	if (row) {
		cr_assert_eq(reason, EVBUS_REASON_SIGNAL);
		row->attempts++;
		row->last_error = error;
	}
	return EVBUS_OK;
}

/* Counts three. */
enum evbus_code outbox_sweep(struct evbus_outbox *outbox, int64_t before_us, bool dry_run, uint64_t *count,
			     struct evbus_err *e)
{
	if (outbox->fails)
		return err_set(e, outbox->fails, 0, "the outbox fails");
	outbox->swept_before_us = before_us;
	outbox->swept_dry = dry_run;
	*count = 3;
	return EVBUS_OK;
}

#endif

/* outbox_locked.c: taking rows that each have a lock of their own.
 *
 * First the rows are looked at without any, as with outbox_scan(). Those that may go are then locked, and read anew, as
 * they may have become another's in between: what counts is what they are under the lock. One that another transaction
 * holds is left out of the answer (SKIP LOCKED), and so is one that is done by now. Which of the two it is does not
 * matter: its key is passed over, or a later row of that key would overtake it. */
#include "outbox_claim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* When to look again after a row that somebody held: drainers hold theirs for as long as a statement takes. */
#define HELD_US 20000

struct locking {
	struct claiming *claiming;
	size_t next, count; /* of claiming->rows */
};

/* Rows that may go, in their order, to the front of claiming->rows. */
static enum evbus_code choose(struct claiming *claiming, size_t seen, size_t *chosen, struct evbus_err *err)
{
	struct outbox_open *rows = claiming->rows;
	int64_t bytes = 0;
	size_t i = 0, count = 0;

	claiming->ended = seen < claiming->most;
	for (; i < seen && count < claiming->batch->options->batch && bytes < CLAIM_BYTES; i++) {
		claiming->outbox->scanned_to = rows[i].seq;
		if (!claim_may_go(claiming, &rows[i])) {
			TRY(claim_pass_over(claiming, &rows[i], err));
			continue;
		}
		bytes += rows[i].bytes;
		rows[count++] = rows[i];
	}
	claiming->ended = claiming->ended && i == seen;
	*chosen = count;
	return EVBUS_OK;
}

static enum evbus_code pass_over_held(struct claiming *claiming, const struct outbox_open *row, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;

	if (claiming->now_us + HELD_US < outbox->soonest_us)
		outbox->soonest_us = claiming->now_us + HELD_US;
	return outbox_key_add(&outbox->blocked, row->key, err);
}

static enum evbus_code pass_over_until(struct locking *locking, int64_t seq, struct evbus_err *err)
{
	const struct outbox_open *rows = locking->claiming->rows;

	for (; locking->next < locking->count && rows[locking->next].seq < seq; locking->next++)
		TRY(pass_over_held(locking->claiming, &rows[locking->next], err));
	return EVBUS_OK;
}

static enum evbus_code take_locked(void *context, const struct value *columns, size_t count, struct evbus_err *err)
{
	struct locking *locking = context;
	struct claiming *claiming = locking->claiming;
	struct outbox_open row;

	TRY(claim_read_row(claiming->outbox, columns, count, &row, err));
	TRY(pass_over_until(locking, row.seq, err));
	locking->next++;
	/* Of the same answer as the row: no lease seems to be over, or from a clock that is ahead, because that was late. */
	claiming->now_us = row.now_us;
	return claim_may_go(claiming, &row) ? claim_add_row(claiming, &row, columns, OUTBOX_COLUMNS, err)
					    : claim_pass_over(claiming, &row, err);
}

/* "{1,2,3}" */
static enum evbus_code list_rows(const struct outbox_open *rows, size_t count, struct buf *list, struct evbus_err *err)
{
	char number[24];

	for (size_t i = 0; i < count; i++) {
		int len = snprintf(number, sizeof number, "%c%" PRId64, i ? ',' : '{', rows[i].seq);
		TRY(buf_add(list, number, (size_t)len, err));
	}
	return buf_add(list, "}", 2, err);
}

enum evbus_code claim_locked(struct claiming *claiming, struct evbus_err *err)
{
	struct evbus_outbox *outbox = claiming->outbox;
	CLEANUP(buf_release) struct buf list = { 0 };
	struct locking locking = { .claiming = claiming };
	size_t seen = 0;

	TRY(outbox_scan(outbox, outbox->scanned_to, claiming->up_to, claiming->most, claiming->rows, &seen, err));
	claiming->now_us = outbox_now_us(outbox);
	TRY(choose(claiming, seen, &locking.count, err));
	if (!locking.count)
		return EVBUS_OK;
	TRY(list_rows(claiming->rows, locking.count, &list, err));
	struct query query = { .sql = outbox->sql[OUTBOX_SQL_LOCK],
			       ARGS(value_text(list.data)),
			       .row = take_locked,
			       .context = &locking };
	TRY(outbox_read(outbox, &query, err));
	return pass_over_until(&locking, INT64_MAX, err);
}

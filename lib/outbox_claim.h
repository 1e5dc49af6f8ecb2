/* outbox_claim.h: what the files that take rows share. */
#ifndef EVBUS_OUTBOX_CLAIM_H
#define EVBUS_OUTBOX_CLAIM_H

#include "outbox_table.h"

#define CLAIM_BYTES (4u * 1024 * 1024)

struct claiming {
	struct evbus_outbox *outbox;
	struct outbox_batch *batch;
	struct outbox_open *rows;  /* OUTBOX_SCAN_MAX of them, for looking around */
	size_t most, bytes;
	bool ended;                /* there are no further rows that are not done */
	int64_t safe;              /* see outbox_look_ahead() */
	int64_t up_to, now_us;
	struct value lease[OUTBOX_SETS];
	char expires[28];
};

CHECKED enum evbus_code claim_read_row(const struct evbus_outbox *outbox, const struct value *columns, size_t count,
				       struct outbox_open *row, struct evbus_err *err);
bool claim_may_go(const struct claiming *claiming, const struct outbox_open *row);
/* Its key is not to be taken in this pass. */
CHECKED enum evbus_code claim_pass_over(struct claiming *claiming, const struct outbox_open *row,
					struct evbus_err *err);
/* To the batch. */
CHECKED enum evbus_code claim_add_row(struct claiming *claiming, const struct outbox_open *row,
				      const struct value *columns, size_t count, struct evbus_err *err);

/* ---- outbox_locked.c ------------------------------------------------------------------------------------------- */

/* Within a transaction: looks at rows, and takes those that may go and that nobody else holds. */
CHECKED enum evbus_code claim_locked(struct claiming *claiming, struct evbus_err *err);

#endif

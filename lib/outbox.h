/* outbox.h: what dead letters and sweeping need of an outbox, beside the public calls. */
#ifndef EVBUS_OUTBOX_H
#define EVBUS_OUTBOX_H

#include "bus.h"

/* Which outbox it is, wherever it is opened from: "sqlite:/absolute/path/app.db#table". */
CHECKED enum evbus_code outbox_place(struct evbus_outbox *outbox, const char **place, struct evbus_err *err);

/* A FAILED row becomes PENDING, due now, with no attempts; its history stays. *changed false: it is not FAILED. */
CHECKED enum evbus_code outbox_requeue(struct evbus_outbox *outbox, int64_t seq, bool *changed, struct evbus_err *err);

/* A FAILED row becomes SENT, with a receipt that says what came of it; or gets one more failed attempt. */
CHECKED enum evbus_code outbox_settle(struct evbus_outbox *outbox, int64_t seq, struct evbus_slice receipt,
				      bool *changed, struct evbus_err *err);
CHECKED enum evbus_code outbox_fail_again(struct evbus_outbox *outbox, int64_t seq, enum evbus_reason reason,
					  struct evbus_slice error, bool *changed, struct evbus_err *err);

/* Removes SENT rows that were sent before a time, a thousand a transaction; dry_run: only counts them. */
CHECKED enum evbus_code outbox_sweep(struct evbus_outbox *outbox, int64_t before_us, bool dry_run, uint64_t *count,
				     struct evbus_err *err);

#endif

/* sweeping.h: removing rows that are done and old. */
#ifndef EVBUS_STORE_SWEEPING_H
#define EVBUS_STORE_SWEEPING_H

#include "store/store.h"

enum sweepable {
	SWEEP_INBOX,
	SWEEP_EVENT_KEYS,
	SWEEP_LETTERS, /* those that are RETRIED or DISCARDED */
};

/* Removes what is older than a time (27 characters), a thousand rows a transaction, so that nobody waits long; or, dry_run,
 * counts it. Makes no store. */
CHECKED enum evbus_code sweep_table(struct store *store, enum sweepable what, const char *before, bool dry_run,
				    uint64_t *count, struct evbus_err *err);

#endif

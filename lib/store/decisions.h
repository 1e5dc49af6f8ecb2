/* decisions.h: what operators decided about FAILED rows of outboxes, which have no state of their own for it: that a row
 * is DISCARDED. `outbox` is outbox_place(). */
#ifndef EVBUS_STORE_DECISIONS_H
#define EVBUS_STORE_DECISIONS_H

#include "store/page.h"

struct decision {
	struct evbus_slice by, at;
};

/* *found: there is one, and it lives as long as the page. */
CHECKED enum evbus_code decisions_find(struct store *store, const char *outbox, int64_t seq, struct page *page,
				       struct decision *decision, bool *found, struct evbus_err *err);

/* Within a transaction. Replaces one that is there. */
CHECKED enum evbus_code decisions_put(struct store *store, const char *outbox, int64_t seq, const char *by,
				      const char *at, struct evbus_err *err);
/* Within a transaction. *changed false: there is none. */
CHECKED enum evbus_code decisions_remove(struct store *store, const char *outbox, int64_t seq, bool *changed,
					 struct evbus_err *err);

/* The rows of an outbox above after_seq that were decided before a time, by seq: a page of one column. */
CHECKED enum evbus_code decisions_before(struct store *store, const char *outbox, const char *before, int64_t after_seq,
					 struct page *page, struct evbus_err *err);

#endif

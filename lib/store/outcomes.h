/* outcomes.h: what came of the events of a group: the tables of retries and of the inbox.
 *
 * What is written stands in the same transaction as the checkpoint that it belongs to (table_begin … table_commit of
 * store/table.h, with letters_put() of store/letters.h); what is read is read outside of one. */
#ifndef EVBUS_STORE_OUTCOMES_H
#define EVBUS_STORE_OUTCOMES_H

#include "store/store.h"

/* Within a transaction: one of store_checkpoint_put(). */
CHECKED enum evbus_code outcomes_checkpoint(struct store *store, const struct evbus_checkpoint *checkpoint,
					    struct evbus_err *err);

/* ---- inbox: the events that are done --------------------------------------------------------------------------- */

#define INBOX_BATCH_MAX 100u           /* events that are looked up or added at once */

struct inbox_event {
	const char *topic;
	struct evbus_slice tenant_id;      /* "" where the event has none */
	struct evbus_slice event_id;
	bool known;                        /* out */
};

/* Which of at most INBOX_BATCH_MAX of them are there. */
CHECKED enum evbus_code inbox_look(struct store *store, const char *group, struct inbox_event *events, size_t count,
				   struct evbus_err *err);
/* Within a transaction, at most INBOX_BATCH_MAX; one that is there stays as it is: a handler may have written it.
 * now: 27 characters. */
CHECKED enum evbus_code inbox_add(struct store *store, const char *group, const struct inbox_event *events,
				  size_t count, const char *now, struct evbus_err *err);

/* ---- retries: the events that failed and will be tried again --------------------------------------------------- */

/* Of an event that became a dead letter while one before it was not done: the checkpoint has not passed it, and it must
 * not be tried again. */
#define RETRY_NEVER "never"

struct retry_row {
	struct evbus_slice offset;
	int64_t attempts;
	struct evbus_slice next_attempt_at;    /* 27 characters; or RETRY_NEVER */
	struct evbus_slice last_error;
	struct evbus_slice history;            /* JSON, see event/history.h */
};

/* Which partition of which log. */
struct retry_place {
	const char *group;
	const char *topic;
	int32_t partition_id;
	const char *log_id;
};

/* Those of a log, the lowest offset first. Slices live until the callback returns. */
CHECKED enum evbus_code retries_list(struct store *store, const struct retry_place *place,
				     enum evbus_code (*found)(void *context, const struct retry_row *row,
							      struct evbus_err *err),
				     void *context, struct evbus_err *err);
/* Within a transaction. */
CHECKED enum evbus_code retries_put(struct store *store, const struct retry_place *place, const struct retry_row *row,
				    struct evbus_err *err);
CHECKED enum evbus_code retries_remove(struct store *store, const struct retry_place *place, struct evbus_slice offset,
				       struct evbus_err *err);
/* Within a transaction: those below an offset, and those of other logs that stood under the same name. */
CHECKED enum evbus_code retries_sweep(struct store *store, const struct retry_place *place, struct evbus_slice below,
				      struct evbus_err *err);

#endif

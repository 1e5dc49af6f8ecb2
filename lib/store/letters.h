/* letters.h: the table of dead letters of groups, as rows. Times are texts of 27 characters. */
#ifndef EVBUS_STORE_LETTERS_H
#define EVBUS_STORE_LETTERS_H

#include "store/store.h"

/* data NULL is NULL. Of what a call gives out, the slices live until the callback returns. */
struct letter_row {
	int64_t id;
	struct evbus_slice state;      /* DEAD QUEUED RETRIED DISCARDED */
	struct evbus_slice group, tenant_id, topic, offset, offset_kind, log_id, published_at, partition_key;
	int32_t partition_id;
	struct evbus_slice event_id, event_type, correlation_id, payload;
	struct evbus_slice reason, error;
	int64_t attempts, returns;
	struct evbus_slice history;    /* JSON, see event/history.h */
	struct evbus_slice created_at, updated_at, resolved_by, result;
};

/* Within a transaction (table_begin … table_commit). Inserts a letter in the state DEAD with a new id, created and
 * updated at row->updated_at. If the event has one already (same group, topic, partition, offset and log), that one
 * becomes DEAD again: attempts and history are added to it (the latest HISTORY_MAX are kept), reason, error and updated_at are
 * replaced, its returns grow by one. *id: which it is. */
CHECKED enum evbus_code letters_put(struct store *store, const struct letter_row *row, int64_t *id,
				    struct evbus_err *err);

/* The QUEUED letter with the lowest id above after_id of a group on a partition (its log id must be that of the log, or
 * the letter is left alone); EVBUS_OK without a call of `found` where there is none. */
CHECKED enum evbus_code letters_next_queued(struct store *store, const char *group, const char *topic,
					    int32_t partition_id, const char *log_id, int64_t after_id,
					    enum evbus_code (*found)(void *context, const struct letter_row *row,
								     struct evbus_err *err),
					    void *context, struct evbus_err *err);

/* Within a transaction. A QUEUED letter whose attempt succeeded becomes RETRIED; *changed false: it was QUEUED no longer
 * (somebody discarded it meanwhile), and nothing is changed. */
CHECKED enum evbus_code letters_succeeded(struct store *store, int64_t id, const char *by, const char *result,
					  const char *now, bool *changed, struct evbus_err *err);
/* Within a transaction. A QUEUED letter whose attempt failed is DEAD again: attempts + 1, returns + 1, with its new
 * history, reason and error. */
CHECKED enum evbus_code letters_failed(struct store *store, int64_t id, const char *reason, struct evbus_slice error,
				       struct evbus_slice history, const char *now, bool *changed,
				       struct evbus_err *err);

#endif

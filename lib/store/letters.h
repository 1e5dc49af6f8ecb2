/* letters.h: the table of dead letters of groups, as rows. Times are texts of 27 characters. */
#ifndef EVBUS_STORE_LETTERS_H
#define EVBUS_STORE_LETTERS_H

#include "store/page.h"

/* data NULL is NULL. Of what a call gives out, the slices live until the callback returns. */
struct letter_row {
	int64_t id;
	struct evbus_slice state; /* DEAD QUEUED RETRIED DISCARDED */
	struct evbus_slice group, tenant_id, topic, offset, offset_kind, log_id, published_at, partition_key;
	int32_t partition_id;
	struct evbus_slice event_id, event_type, correlation_id, payload;
	struct evbus_slice reason, error;
	int64_t attempts, returns;
	struct evbus_slice history; /* JSON, see event/history.h */
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

/* ---- for operators --------------------------------------------------------------------------------------------- */

/* How far a listing goes: the letters that are there now, as they are now. */
struct letters_bound {
	int64_t id; /* the highest; 0: there is none */
	char updated_at[28]; /* the latest */
};
CHECKED enum evbus_code letters_bound(struct store *store, struct letters_bound *bound, struct evbus_err *err);

/* A page of the letters above after_id and up to an id, by id; of one state, or of all (NULL). The page holds what
 * letter_of() reads. */
CHECKED enum evbus_code letters_page(struct store *store, const char *state, int64_t after_id, int64_t last_id,
				     struct page *page, struct evbus_err *err);
/* A page with this one, or none. */
CHECKED enum evbus_code letters_find(struct store *store, int64_t id, struct page *page, struct evbus_err *err);
CHECKED enum evbus_code letters_exist(struct store *store, int64_t id, bool *exist, struct evbus_err *err);

/* The slices live as long as the columns. EVBUS_IO: it is damaged. */
CHECKED enum evbus_code letter_of(const struct value *columns, size_t count, struct letter_row *row,
				  struct evbus_err *err);

/* Within a transaction. The state, reason, error, attempts, history, returns, updated_at, resolved_by and result of the
 * letter row->id become those of the row. */
CHECKED enum evbus_code letters_change(struct store *store, const struct letter_row *row, struct evbus_err *err);

/* The oldest letter, by created_at, that can still be retried (DEAD or QUEUED), if it is older than a time; *id 0: none. */
CHECKED enum evbus_code letters_oldest(struct store *store, const char *before, int64_t *id, char created_at[28],
				       struct evbus_err *err);

#endif

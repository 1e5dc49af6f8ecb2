/* keys.h: the index of event keys, as rows.
 *
 * It is derived from the log, and may be lost, or be older or newer than that: a row says where to look for a key, and no
 * more. Rows of a partition are complete up to where its progress says, if that fits the log. */
#ifndef EVBUS_STORE_KEYS_H
#define EVBUS_STORE_KEYS_H

#include "store/store.h"

/* What a key is looked for by, within its topic, as it stands in the log between the quotes. No NUL is in it. */
struct key_name {
	struct evbus_slice tenant_id;      /* empty where there is none */
	struct evbus_slice event_key;
};

/* Where it stands first. */
struct key_place {
	bool found;
	char log_id[33];
	int32_t partition_id;
	uint64_t offset;
	char published_at[28];
};

#define KEYS_FIND_MAX 32u

/* places[i] for names[i], up to KEYS_FIND_MAX of them. */
CHECKED enum evbus_code store_keys_find(struct store *store, const char *topic, const struct key_name *names,
					size_t count, struct key_place *places, struct evbus_err *err);

/* Within a transaction (table_begin … table_commit). Inserts a row; if there is one that says another place, it stays,
 * and *other is it. */
CHECKED enum evbus_code store_keys_add(struct store *store, const char *topic, const struct key_name *name,
				       const struct key_place *place, struct key_place *other, struct evbus_err *err);
/* The same for KEYS_FIND_MAX of them at once. *all false: some have a row already; added one by one they tell which. */
CHECKED enum evbus_code store_keys_add_many(struct store *store, const char *topic, const struct key_name *names,
					    const struct key_place *places, bool *all, struct evbus_err *err);
/* Within a transaction. */
CHECKED enum evbus_code store_keys_replace(struct store *store, const char *topic, const struct key_name *name,
					   const struct key_place *place, struct evbus_err *err);
/* Within a transaction: all rows of the topic, and its progress. */
CHECKED enum evbus_code store_keys_clear(struct store *store, const char *topic, struct evbus_err *err);

/* How many rows a topic has. */
CHECKED enum evbus_code store_keys_count(struct store *store, const char *topic, uint64_t *count,
					 struct evbus_err *err);

/* How far the log of a partition is in the index, tied to it as a checkpoint is. */
struct key_progress {
	bool found;
	char log_id[33];
	uint64_t indexed_to;               /* exclusive */
	char fingerprint[9];               /* crc32c of the record before, "" where there is none */
};

/* progress[partition_id] for those below `partitions`. */
CHECKED enum evbus_code store_key_progress(struct store *store, const char *topic, struct key_progress *progress,
					   size_t partitions, struct evbus_err *err);
/* Within a transaction. */
CHECKED enum evbus_code store_key_progress_set(struct store *store, const char *topic, int32_t partition_id,
					       const struct key_progress *progress, struct evbus_err *err);

#endif

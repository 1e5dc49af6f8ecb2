/* store.h: evbus's own database: checkpoints (and later retries, inbox, event keys, dead letters) of groups.
 *
 * One handle belongs to one thread, and to the process that opened it (EVBUS_BUG in a forked child, which may close
 * it). Any number of handles and processes may share a store. A write is durable when the call returns; one that fails
 * with EVBUS_IO may still have happened, after any other failure nothing has.
 * Any call may also fail with EVBUS_AGAIN (others kept it waiting for 5 s), EVBUS_IO (disk full, damaged), EVBUS_CONFIG
 * (its driver is not installed, a newer evbus has made it, it is in WAL mode), EVBUS_PERMISSION, and EVBUS_CONFLICT (a
 * link or something else that is no file stands in its place, or it was removed or replaced while it was in use). */
#ifndef EVBUS_STORE_STORE_H
#define EVBUS_STORE_STORE_H

#include "base/buf.h"

#include <sys/types.h>

struct store;

struct store_options {
	bool no_create;            /* writing to a store that is not there is EVBUS_NONE instead of making it */
	mode_t file_mode;          /* of what is made, 0 for 0600; directories add x where this has r */
	const char *module_dir;    /* absolute; NULL: beside libevbus.so. Must live as long as the store */
	void (*notice)(void *context, const char *text);    /* may be NULL */
	void *notice_context;
	bool guest;                /* an application's database: no tables of ours but those that are made there, no setting
	                              changed; the path may lead through links */
};

/* url: "postgresql://…" or "postgres://…" as libpq has it, with the options schema= and timeout= besides, or "sqlite:FILE" or
 * a plain path, relative to dir: AT_FDCWD, or a descriptor that stays open as long as the store
 * and below which no link is followed. Nothing is opened, loaded or made before it is needed: reading a store that is
 * not there finds no rows, the first write makes it and the directories on the way. EVBUS_CONFIG: not such a URL.
 * options may be NULL. */
CHECKED enum evbus_code store_open(int dir, const char *url, const struct store_options *options, struct store **store,
				   struct evbus_err *err);
void store_close(struct store *store);

/* The drivers that there are, as evbus_store_kind() has it. */
const char *store_kind(size_t index, bool *there);

/* Whether other machines may have it open, too. */
bool store_is_on_server(const char *url);

/* Which one it is, wherever it is opened from: "sqlite:" and the absolute path without any link in it, as far as it is
 * there; of a server the URL with nothing secret in it. */
CHECKED enum evbus_code store_place(struct store *store, struct buf *place, struct evbus_err *err);

/* ---- checkpoints: stored and given back as they are, updated_at_utc too; names and positions are for the caller to
 * check ---------------------------------------------------------------------------------------------------------- */

/* EVBUS_NONE where there is none. */
CHECKED enum evbus_code store_checkpoint_get(struct store *store, const char *group, const char *topic,
					     int32_t partition_id, struct evbus_checkpoint *checkpoint,
					     struct evbus_err *err);
/* The partition with the highest number of those that have one on this log; -1: none has. */
CHECKED enum evbus_code store_checkpoint_last(struct store *store, const char *group, const char *topic,
					      const char *log_id, int32_t *partition_id, struct evbus_err *err);
/* Inserts or replaces count of them in one transaction. */
CHECKED enum evbus_code store_checkpoint_put(struct store *store, const struct evbus_checkpoint *checkpoints,
					     size_t count, struct evbus_err *err);
/* EVBUS_NONE where there is none. */
CHECKED enum evbus_code store_checkpoint_remove(struct store *store, const char *group, const char *topic,
						int32_t partition_id, struct evbus_err *err);
/* Those of a group, NULL for all, sorted by group, topic (bytes) and partition. *checkpoints is one block for free(),
 * NULL where there is none. */
CHECKED enum evbus_code store_checkpoint_list(struct store *store, const char *group,
					      struct evbus_checkpoint **checkpoints, size_t *count,
					      struct evbus_err *err);

#endif

/* keys.h: which event keys a topic holds already, and where each stands first.
 *
 * The log is what counts: a line of an idempotent publisher bears its tenant and its key, and all that is kept elsewhere
 * is derived from that. The store holds the beginning of each partition, as far as its progress says; the rest of the
 * log is read into memory when it is needed, and goes to the store when it has become long, because a commit of the
 * store takes five syncs. Neither is believed: a hit counts only if the record that stands there bears the key. So the
 * store may be lost, or be older or newer than the log, or not be there at all.
 *
 * The log is read through the contract of backends. What keeps two publishers from appending one key at the same time:
 * - Where the topic is files, who publishes idempotently holds <topic>/keys.lock from before it looks until what it
 *   appended is durable. The file may be deleted at any time: whoever has it makes sure within the append lock, just
 *   before it writes, that it is still there, and whoever takes it afterwards goes through the append lock of each
 *   partition before it reads.
 * - Elsewhere there is no lock: who has looked up to an offset has his group appended at that offset or not at all
 *   (keys_expected()), and looks again where somebody else was faster. That is for each partition: one key that two
 *   publish to two partitions at the same time may stand in both. A backend that cannot append so finds what was there
 *   when it was looked, and no more. */
#ifndef EVBUS_DELIVERY_KEYS_H
#define EVBUS_DELIVERY_KEYS_H

#include "backend.h"
#include "delivery/key_table.h"
#include "log/line.h"
#include "log/writer.h"
#include "store/keys.h"

/* What is known of a partition: all before `seen_to` is in the store (before `stored_to`) or in the table. */
struct key_part {
	bool known;
	uint64_t stored_to, seen_to;
	char fingerprint[9];             /* of the record before seen_to; "" where none is known */
	uint64_t first;                  /* the oldest record that was there then */
	uint64_t page_id, epoch;         /* of files: of the page, when it was read up to there */
	struct partition_reader *reader; /* these two stay open where there are no files; of those one is, at a time: */
	struct partition_reader *looking;/* at hits; NULL while it is closed */
	struct key_progress row;         /* as it was found in the store, */
	bool row_fits;                   /* and whether it is of this log */
};

struct keys {
	const struct backend_topic *topic;
	const struct topic *log;         /* the files; NULL: there are none, and no lock */
	struct store *store;             /* NULL: all is kept in memory */
	int lock_fd;
	struct held_file lock;           /* what lock_fd is */
	uint32_t *word;                  /* in it, always 0: what those that wait sleep on */
	bool locked;
	bool waited;                     /* for it, when it was last taken */
	bool told;                       /* that somebody else has it */
	struct key_part *parts;          /* by number; of those between that are not there nothing is known */
	uint32_t size;
	struct key_table recent;
	uint64_t records, bytes;         /* read since something was stored */
	bool stored;                     /* the store has rows of the topic */
	int64_t read_at_us;
};

/* One handle belongs to one thread; topic and store outlive it. Reads what there is without any lock, so that little is
 * left to be read under it. store: NULL, none. */
CHECKED enum evbus_code keys_open(const struct backend_topic *topic, struct store *store, struct keys **keys,
				  struct evbus_err *err);
/* save: stores what would take the next one long to read again; should that fail, it takes it long. */
void keys_close(struct keys *keys, bool save);

/* Whether the log was last read so long ago that much may have come in, and reading that, without any lock. */
bool keys_are_behind(const struct keys *keys);
CHECKED enum evbus_code keys_catch_up(struct keys *keys, struct evbus_err *err);

/* Takes the lock, where there is one, makes durable whatever was appended to the topic, and reads it. writers: those that
 * are open on partitions of it. There is no time-out on who holds the lock, for slow is not dead; after a second a notice
 * says that it is waited for. The waiter is asked about every 100 ms and after a signal; EVBUS_AGAIN with EINTR: he gave
 * up. */
CHECKED enum evbus_code keys_enter(struct keys *keys, struct partition_writer *const *writers, size_t count,
				   const struct waiter *waiter, struct evbus_err *err);
void keys_leave(struct keys *keys);
/* What holds the others off while a group is appended: the lock file, or NULL; and the offset that the group has to get,
 * or UINT64_MAX. */
const struct held_file *keys_held(const struct keys *keys);
uint64_t keys_expected(const struct keys *keys, int32_t partition);
/* Whether the lock file is still there; false: what is not appended yet has to be looked up again. */
bool keys_hold(const struct keys *keys);

/* Between entering and leaving. first() is called for each name that stands in the log, with its first record, which lives until it
 * returns. */
CHECKED enum evbus_code keys_find(struct keys *keys, const struct key_name *names, size_t count,
				  enum evbus_code (*first)(void *context, size_t i, int32_t partition,
							   const struct line *line, struct evbus_err *err),
				  void *context, struct evbus_err *err);

/* Likewise: the group that this writer appended last is durable, so that it need not be read again. */
CHECKED enum evbus_code keys_appended(struct keys *keys, const struct partition_writer *writer,
				      const struct group *group, struct evbus_err *err);

/* Makes the rows of the topic anew from the log, under the lock. *count: how many there are. *fitted: those that were
 * there were of this log. */
CHECKED enum evbus_code keys_rebuild(const struct backend_topic *topic, struct store *store, const struct waiter *waiter,
				     uint64_t *count, bool *fitted, struct evbus_err *err);

/* The name that stands in a line: tenant_id and event_key as raw JSON. */
struct key_name key_name_of(struct evbus_slice tenant_id, struct evbus_slice event_key);

/* ---- between keys.c, keys_lock.c and keys_index.c ---- */

CHECKED enum evbus_code keys_lock_take(struct keys *keys, const struct waiter *waiter, struct evbus_err *err);
/* Asks once more, where the lock had to be waited for. */
CHECKED enum evbus_code keys_lock_ask(const struct keys *keys, const struct waiter *waiter, struct evbus_err *err);
void keys_lock_leave(struct keys *keys);
void keys_lock_close(struct keys *keys);

/* Reads a partition on, up to what is acknowledged. */
CHECKED enum evbus_code keys_read_on(struct keys *keys, int32_t partition, struct evbus_err *err);
/* The fingerprint of a line, which was the last that was seen. */
void keys_remember(const struct keys *keys, struct key_part *part, const char *text);
/* Removes the rows of the topic, reads all of it and stores that. */
CHECKED enum evbus_code keys_make_anew(struct keys *keys, bool *fitted, struct evbus_err *err);
/* Stores all that was seen. */
CHECKED enum evbus_code keys_save(struct keys *keys, struct evbus_err *err);

/* The record at a place, if it bears the name. The line lives until the next look. */
CHECKED enum evbus_code keys_look(struct keys *keys, const struct key_name *name, int32_t partition, uint64_t offset,
				  struct line *line, bool *bears, struct evbus_err *err);
/* Before the log changes: what was read of it is not looked at again. */
void keys_look_away(struct keys *keys);

/* Whether a record stands before another one in a topic: by time, then partition, then offset. */
bool keys_precede(int64_t time_us, int32_t partition, uint64_t offset, int64_t than_us, int32_t than_partition,
		  uint64_t than_offset);

#endif

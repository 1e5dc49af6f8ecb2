/* control.h: the lock file of a partition, and the page in it that all processes share.
 *
 * The page says what was appended (`end`) and what a sync covers (`durable`). Both are cells of which nobody ever sees
 * half: a cell has two copies with a checksum each and a selector; a writer fills the copy that is not selected and
 * publishes it by storing the selector behind it, in one write. A reader that comes in between, or a kill, finds the old
 * value or the new one in force, and of two copies that are whole the later one counts. Cells are read and written with
 * pread and pwrite; the page is mapped only as the address of a futex, and never touched through the mapping, because a
 * file that was truncated would answer with SIGBUS.
 *
 * The page is a cache in all but one respect: it may be deleted at any time, and is made again from the log. What it
 * alone knows is which of the last bytes of the log are not synced yet (recover.c lives without).
 *
 * Locks are OFD locks (fcntl(2)): they belong to an open file, so they exclude threads and handles of one process as
 * well, and die with their holder. They are write locks, which a reader's descriptor cannot take. Order: sync, append. */
#ifndef EVBUS_LOG_CONTROL_H
#define EVBUS_LOG_CONTROL_H

#include "base/wait.h"
#include "log/topic.h"

/* All processes together keep at most this much unsynced: what a power cut can leave half written. */
#define UNSYNCED_MAX_BYTES (4u * 1024 * 1024)

struct cell {
	uint64_t epoch;      /* +1 with every cut: what was appended under another one is gone */
	uint64_t base;       /* of the live segment */
	uint64_t ino;        /* of its file: a log that was replaced is noticed by who never had it open */
	uint64_t bytes;      /* within the live segment */
	uint64_t next;       /* offset of the next record */
	int64_t time_us;     /* published_at_utc of the last record; 0 where there is none */
};

struct control_view {
	uint64_t page_id;    /* random; another one: the page was made anew */
	uint32_t word;       /* the futex word: changes with every commit */
	bool syncing;        /* a leader is between its sync and what it says about it */
	bool halt;           /* a sync failed and the cut is not done yet */
	struct cell end, durable;
	uint32_t tag;        /* of this value of `durable`: the next one has another */
	struct cell_place {
		uint8_t in_force, selected;    /* of the two copies */
	} place[2];          /* by enum control_cell */
};

/* Whether both cells know of the same cuts: unless an older page was put back between the writing of one and the other. */
static inline bool view_agrees(const struct control_view *view)
{
	return view->end.epoch == view->durable.epoch;
}

enum control_state {
	CONTROL_NONE,        /* no page, or not one of this file */
	CONTROL_OTHER_BOOT,  /* the page of this file, from before a restart of the machine */
	CONTROL_OURS,
};

enum control_cell {
	CONTROL_END,
	CONTROL_DURABLE,
};

enum control_flag {
	CONTROL_SYNCING,
	CONTROL_HALT,
};

struct control {
	int fd;
	struct file_id id;
	char path[32];       /* partition=N.lock */
	char log_id[LOG_ID_LEN];
	char boot_id[36];
	int64_t birth_s;     /* of the lock file, as statx(2) has it; 0 where the file system does not say */
	uint32_t birth_ns;
	void *map;           /* the page, for its address only */
	bool written;        /* the page, since this was set to false */
};

/* Opens the lock file; a writer makes it where it is missing, a reader gets EVBUS_NONE then. */
CHECKED enum evbus_code control_open(const struct topic *topic, int32_t partition, bool writer,
				     struct control *control, struct evbus_err *err);
void control_close(struct control *control);

/* *view is set unless it is CONTROL_NONE. One read. EVBUS_IO: it cannot be read, which is not to say that there is none:
 * what a page of another boot knows must not be lost. */
CHECKED enum evbus_code control_read(const struct control *control, enum control_state *state,
				     struct control_view *view, struct evbus_err *err);

/* Makes the page anew, and syncs it: with both locks held. */
CHECKED enum evbus_code control_init(struct control *control, const struct cell *cell, struct evbus_err *err);
/* Under the cell's lock. *view: the page as it was read under it; afterwards, as it is now. A new `durable` ends the
 * syncing, and changes the futex word. */
CHECKED enum evbus_code control_set(struct control *control, struct control_view *view, enum control_cell which,
				    const struct cell *cell, struct evbus_err *err);
/* `end` and CONTROL_SYNCING by one write, with both locks held. */
CHECKED enum evbus_code control_set_syncing(struct control *control, struct control_view *view, const struct cell *end,
					    struct evbus_err *err);
CHECKED enum evbus_code control_flag(struct control *control, const struct control_view *view, enum control_flag flag,
				     bool value, struct evbus_err *err);

/* Changes the futex word and wakes all who wait for that. After a lock was given back: whoever failed to get it, and saw the
 * word that a new `durable` had made, would else sleep on. */
void control_wake(struct control *control);
/* Waits until the word is not `word`, for at most timeout_ms; may return early. false: because of a signal. */
bool control_wait(const struct control *control, uint32_t word, int timeout_ms);

enum control_lock {
	LOCK_SYNC,           /* in the lock file */
	LOCK_PRESENCE,       /* in the lock file: held shared as long as a writer has the partition open */
	LOCK_APPEND,         /* on the live log file itself */
	LOCK_KEYS,           /* in the lock file of idempotent publishers; before all others (delivery/keys.h) */
};

/* type: F_WRLCK, F_RDLCK. name: of the file, for the message. EVBUS_AGAIN: held by another. */
CHECKED enum evbus_code control_try_lock(int fd, enum control_lock which, short type, const char *name,
					 struct evbus_err *err);
/* Waits for it, as long as it takes: slow is not dead. EVBUS_AGAIN with EINTR: the waiter gave up. */
CHECKED enum evbus_code control_lock(int fd, enum control_lock which, short type, const char *name,
				     const struct waiter *waiter, struct evbus_err *err);
enum evbus_code control_gave_up(const char *name, struct evbus_err *err);
void control_unlock(int fd, enum control_lock which);
/* Whether somebody else holds it; a reader's descriptor may ask. */
bool control_is_locked(int fd, enum control_lock which);

/* Whether anybody has the partition open for writing. */
bool control_has_writer(const struct control *control);

#endif

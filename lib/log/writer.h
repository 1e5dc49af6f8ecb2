/* writer.h: appending to a partition, and waiting until it is durable. */
#ifndef EVBUS_LOG_WRITER_H
#define EVBUS_LOG_WRITER_H

#include "log/control.h"
#include "log/line.h"
#include "log/segment.h"

/* Until when something may be appended, by both clocks: the one that others judge by may be set back or forth, the other
 * one goes on while the machine sleeps. */
struct deadline {
	int64_t utc_us;          /* CLOCK_REALTIME */
	int64_t boottime_us;     /* CLOCK_BOOTTIME */
};

/* A lock file below the topic that is held: what is appended under it is appended only while it still stands at its path,
 * so that it may be deleted at any time. */
struct held_file {
	const char *path;
	struct file_id id;
};

/* Lines that are appended by one write. They are encoded with the offset and time that are expected, and again when
 * they turn out otherwise under the lock. */
struct group {
	struct buf lines;
	struct buf entries;      /* of struct group_entry */
	struct clock_second second;    /* for line_add_near() */
	bool atomic;
	bool durable;            /* it was committed; the caller's */
	size_t acknowledged;     /* so many of its first lines were, though the commit failed */
	const struct deadline *deadline;    /* of this and the next: NULL, none */
	const struct held_file *held;
};

struct group_entry {
	uint32_t at, len, split; /* within lines; len with the newline; split: see line_add() */
	uint32_t payload_len;
	uint64_t offset;         /* as it stands in the line; UINT64_MAX: that is none below 2^63 */
	int64_t time_us;
	int32_t partition;       /* that took it; -1: the one that it was meant for */
};

void group_clear(struct group *group);
void group_release(struct group *group);
size_t group_count(const struct group *group);
const struct group_entry *group_entry(const struct group *group, size_t i);
CHECKED enum evbus_code group_add(struct group *group, const struct line_body *body, uint64_t offset, int64_t time_us,
				  struct evbus_err *err);

/* Gives its lines the offsets from `next` on and times from least_us on: encodes them again where they have others. */
CHECKED enum evbus_code group_stamp(struct group *group, uint64_t next, int64_t least_us, struct evbus_err *err);

/* The same where a server chose the offsets, one for each line; times stay, and none is of a batch. */
CHECKED enum evbus_code group_stamp_each(struct group *group, const uint64_t *offsets, struct evbus_err *err);

/* The same where a server says which partition took a line, and where in it: digits, of any length. What was not taken
 * has none, and stays as it is. */
struct group_place {
	int32_t partition;
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];
};
CHECKED enum evbus_code group_stamp_places(struct group *group, const struct group_place *places, struct evbus_err *err);

/* EVBUS_AGAIN: its deadline has passed, by either clock. name: of what it was to be appended to, for the message. */
CHECKED enum evbus_code group_check_deadline(const struct group *group, const char *name, struct evbus_err *err);

/* Takes the i-th line out, which is there until group_squeeze() closes the gaps. */
void group_drop(struct group *group, size_t i);
void group_squeeze(struct group *group);

/* The i-th line as a record; its slices live as long as the group is not changed. partition: which it was meant for. */
void group_record(const struct group *group, size_t i, struct evbus_slice topic, int32_t partition,
		  struct evbus_record *record);

struct log_writer {
	const struct topic *topic;       /* outlives it */
	int32_t partition;
	int fd;                          /* of the live segment */
	struct file_id id;
	char path[SEGMENT_PATH_MAX];
	char name[NAME_IN_MESSAGE];
	uint64_t base;
	struct control control;
	const struct waiter *waiter; /* whom to ask while it waits for another process; may be set anew */
	bool clock_told;
	struct cell expected;            /* where the next group will probably stand */
	bool alone;                      /* the last one did: nobody else has appended in between */
	bool leads;                      /* it holds the sync lock since it has appended, and the page says so */
};

/* Opens for appending, makes the files where they are missing and recovers what a crash left (recover.c). waiter, or NULL:
 * outlives the writer; whatever waits fails with EVBUS_AGAIN and EINTR when he gives up. */
CHECKED enum evbus_code writer_open(const struct topic *topic, int32_t partition, const struct waiter *waiter,
				    struct log_writer *writer, struct evbus_err *err);
void writer_close(struct log_writer *writer);

/* What a publisher waits for. */
struct mark {
	uint64_t page_id, epoch;
	uint64_t base, at;               /* where the group's bytes begin */
	uint64_t first, next;            /* offsets */
	struct control_view view;        /* what the page said when it was appended, with it */
};

/* Appends the group, encoding it again where it must be. expect: the offset that it has to get, or UINT64_MAX
 * (EVBUS_CONFLICT: it would get another one). EVBUS_AGAIN: the group's deadline has passed, or the lock file that it
 * names was removed, which are asked within the lock: who is stopped after that keeps everybody else from appending too.
 * On failure nothing of it will be acknowledged; it may stand in the log all the same where the page could not be
 * written, or the file not be cut back. */
CHECKED enum evbus_code writer_append(struct log_writer *writer, struct group *group, uint64_t expect,
				      struct mark *mark, struct evbus_err *err);

/* To be called after each writer_append() that succeeded. Returns when the group is durable; EVBUS_IO when it never will
 * be. */
CHECKED enum evbus_code writer_commit(struct log_writer *writer, struct mark *mark, const struct group *group,
				      struct evbus_err *err);

/* Makes durable whatever was appended to the partition until now, also what a killed publisher left behind the end that
 * the page knows, and waits for who is appending. *view: the page after that. */
CHECKED enum evbus_code writer_settle(struct log_writer *writer, struct control_view *view, struct evbus_err *err);
/* The same for a partition that is not open. *there false: nothing was ever appended to it, and nobody is about to. */
CHECKED enum evbus_code partition_settle(const struct topic *topic, int32_t partition, const struct waiter *waiter,
					 struct control_view *view, bool *there, struct evbus_err *err);

/* ---- between writer.c, locks.c, settle.c, commit.c, recover.c and repair.c ---- */

#define ATTEMPTS_MAX 1000           /* of taking a lock on files that somebody keeps replacing */

/* Waits for a lock of the partition; both: sync, then append, and who waits for a commit is woken when they are left. */
CHECKED enum evbus_code writer_lock(struct log_writer *writer, enum control_lock which, short type,
				    struct evbus_err *err);
CHECKED enum evbus_code writer_lock_both(struct log_writer *writer, struct evbus_err *err);
/* wake: who waits for a lock, or for the page to change. */
void writer_unlock_both(struct log_writer *writer, bool wake);

/* Whether the live segment and the lock file that are open are still those at their paths; *size of the former. */
bool writer_is_current(const struct log_writer *writer, uint64_t *size);

/* Opens the files anew, after a roll or when a lock file was removed. EVBUS_CONFLICT: the log was replaced. */
CHECKED enum evbus_code writer_reattach(struct log_writer *writer, struct evbus_err *err);

/* Brings page and log together again where they do not fit (recover.h). */
CHECKED enum evbus_code writer_recover(struct log_writer *writer, struct evbus_err *err);

/* Gives back the sync lock that it took in vain. */
void writer_leave_lead(struct log_writer *writer);

/* One round of a commit, for what others have appended. wait: goes over the rounds. */
CHECKED enum evbus_code writer_commit_others(struct log_writer *writer, const struct control_view *view,
					     struct wait *wait, struct evbus_err *err);

/* With the sync lock held, after a sync that covers the cell. */
CHECKED enum evbus_code writer_say_durable(struct log_writer *writer, struct control_view *view,
					   const struct cell *cell, struct evbus_err *err);

/* With both locks held, after a sync of the live file failed: cuts back to `durable`; always a failure. */
CHECKED enum evbus_code writer_sync_failed(struct log_writer *writer, int sys_errno, struct evbus_err *err);

/* With both locks held: cuts the live file to `durable`, whatever was appended behind it, and says so in the page. */
CHECKED enum evbus_code writer_cut_unsynced(struct log_writer *writer, struct control_view *view,
					    struct evbus_err *err);

#endif

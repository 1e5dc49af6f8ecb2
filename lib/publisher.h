/* publisher.h: what the files of the publisher share: publisher.c (slots, the thread, receipts), publisher_add.c (topics,
 * partitions, encoding), publisher_identity.c and publisher_once.c (publishing idempotently). */
#ifndef EVBUS_PUBLISHER_H
#define EVBUS_PUBLISHER_H

#include "bus.h"
#include "log/writer.h"

#include <pthread.h>
#include <stdatomic.h>

#define SLOTS 3
#define LANE_BUCKETS 256u

struct keys;

struct open_topic {
	struct open_topic *next;
	struct backend_topic *topic;
	struct keys *keys;                /* of an idempotent publisher, once something was written */
	struct evbus_err failure;         /* of publisher_catch_up(): what is written to it fails of that */
};

/* A partition that is published to. */
struct lane {
	struct lane *next;                /* in its bucket */
	struct backend_topic *topic;
	struct evbus_slice name;          /* the topic's */
	struct partition_writer *writer;
	uint32_t index;
	uint64_t expected_next;           /* what the next line will probably get */
	int64_t expected_time_us;
	uint32_t counted;                 /* lines of the slot that is being written, while they are counted */
};

enum ticket_kind {
	TICKET_NEW,                       /* entry: of the lane's group */
	TICKET_IN_LOG,                    /* it was in the log already; entry: of slot->firsts */
	TICKET_TWICE,                     /* entry: the ticket of the same slot that it repeats */
};

struct ticket {
	uint32_t lane, entry;
	enum ticket_kind kind;
	bool own;                         /* TICKET_IN_LOG since an attempt of ours before */
};

/* The first record of an event that was in the log already. */
struct first {
	size_t at, len;                   /* in slot->first_lines */
	int32_t partition;
};

enum slot_state {
	SLOT_FREE,
	SLOT_FILLING,
	SLOT_UNDER_WAY,
	SLOT_DONE,
};

struct slot {
	enum slot_state state;
	struct group *groups;             /* by lane */
	uint32_t group_count;
	struct buf tickets;               /* of struct ticket, in the order of add */
	struct buf firsts, first_lines;   /* of struct first, and their lines */
	size_t bytes;
	uint64_t expect;                  /* offset that the first line must get, or UINT64_MAX */
	const struct deadline *deadline;  /* or NULL */
	size_t durable;                   /* tickets with a receipt */
	size_t given;
	enum evbus_code code;
	struct evbus_err err;
};

struct evbus_publisher {
	struct evbus *bus;
	struct evbus_publisher_options options;
	char *key_from, *event_key_from;
	struct store *store;              /* of an idempotent publisher: its own handle, opened when it is needed */
	uint64_t expect;
	struct deadline deadline;         /* of what is written from now on, if has_deadline */
	bool has_deadline;
	int64_t time_us;                  /* of what is added, or 0 */
	struct open_topic *topics;
	struct lane **lanes;
	uint32_t lane_count, lane_size;
	struct lane *buckets[LANE_BUCKETS];
	struct slot slots[SLOTS];
	unsigned filling, giving;         /* slots go round: giving … under way … filling */
	enum evbus_code failed;
	struct evbus_err failure;
	struct evbus_record receipt;

	pthread_t thread;
	bool has_thread, stop;
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct slot *work;                /* what the thread has to do, or does */

	struct waiter caller; /* asked in the thread that calls us */
	struct waiter in_thread; /* asked in ours: gives up when the caller has */
	atomic_bool given_up;
};

size_t ticket_count(const struct slot *slot);
const struct ticket *ticket_at(const struct slot *slot, size_t i);

/* What is added from now on is appended before both times of *deadline, or the publisher fails with EVBUS_AGAIN and
 * nothing of that group is appended. Flush first what was added before. NULL: as long as it takes. */
void publisher_set_deadline(struct evbus_publisher *publisher, const struct deadline *deadline);

/* When what is added from now on is published, if not before what is there already. 0: when it is added. */
void publisher_set_time(struct evbus_publisher *publisher, int64_t time_us);

/* Whom to ask from now on while it waits (evbus_publisher_options.go_on). */
void publisher_set_go_on(struct evbus_publisher *publisher, bool (*go_on)(void *context), void *context);

/* Of an idempotent publisher: whether of a topic there may be so much to be read that it should not be done while others
 * wait, and reading that; without the topic there is nothing to read. Where reading fails, what is written to it does: a
 * sync that has failed is not tried again. */
bool publisher_is_behind(const struct evbus_publisher *publisher, const char *topic);
CHECKED enum evbus_code publisher_catch_up(struct evbus_publisher *publisher, const char *topic, struct evbus_err *err);

/* A topic that is published to; opens it, or makes it where it is not there. EVBUS_NONE: it is not there. */
CHECKED enum evbus_code publisher_topic(struct evbus_publisher *publisher, const char *name, bool create,
					struct open_topic **topic, struct evbus_err *err);

/* Fails with what the publisher failed of before. */
CHECKED enum evbus_code publisher_failure(const struct evbus_publisher *publisher, struct evbus_err *err);
/* Returns when nothing is under way. */
void publisher_wait(struct evbus_publisher *publisher);
/* Has the slot that is being filled written by the thread, and begins the next. */
CHECKED enum evbus_code publisher_hand_over(struct evbus_publisher *publisher, struct evbus_err *err);

/* ---- publishing idempotently ---- */

struct identity {
	struct evbus_slice tenant_id;     /* data NULL: none */
	struct evbus_slice event_key;
	char tenant_room[EVBUS_TENANT_MAX_BYTES], key_room[EVBUS_KEY_MAX_BYTES];
};

/* EVBUS_DATA: it has no event key, or one that cannot be taken. */
CHECKED enum evbus_code publisher_identify(const struct evbus_publisher *publisher, const struct evbus_event *event,
					   struct identity *identity, struct evbus_err *err);

/* Appends and commits what is new in the slot. slot->code and slot->err say how it went. */
void publisher_write_once(struct evbus_publisher *publisher, struct slot *slot);

/* The receipt of a TICKET_IN_LOG. */
CHECKED enum evbus_code publisher_first(const struct slot *slot, uint32_t entry, struct evbus_slice topic,
					struct evbus_record *record);

#endif

/* consumer.h: what the files of the consumer share.
 *
 * A consumer reads each partition that it holds (a lane) from the checkpoint on. What it has read and is not done
 * stands in the lane's window, in its order; the checkpoint is where the window begins. A record of the window is an entry.
 * It stands in at most two queues, one of its partition key and one of its event id, and is ready when it is the first
 * of both: so keys keep their order, through retries as well, and an event that is twice on the log is not run twice at
 * once. Entries enter all their queues in one order, so there is always one that is the first of all of its queues.
 * Letters come before what waits, and so behind nothing but what is out and other letters.
 *
 * What came of an entry is noted here first and written by consumer_save.c, all of it in one transaction. */
#ifndef EVBUS_CONSUMER_H
#define EVBUS_CONSUMER_H

#include "bus.h"
#include "log/line.h"
#include "store/outcomes.h"

#define WINDOW_BYTES (16u * 1024 * 1024)      /* of the records that are looked at, over all partitions together */
#define TEND_US 500000                        /* between two looks for claims that are free, and what is new */
#define CHUNK_LESS_BYTES (16u * 1024)         /* read at once where there are many partitions, so that memory stays bounded */

struct entry;
struct lane;

enum queue_kind {
	BY_KEY,                        /* with a concurrency of one: all records of the partition */
	BY_ID,                         /* only with an inbox */
	QUEUE_KINDS,
};

/* Entries that wait for each other. */
struct queue {
	struct queue *next;            /* in its bucket */
	struct queue *next_done;
	const void *scope;             /* the lane of a key, the topic of an id */
	uint32_t hash;
	bool done;                     /* an id that is done, whose row is not saved yet */
	struct entry *first, *last;
	size_t tenant_len, len;
	char text[];                   /* the key as it stands in the record; or a tenant and an id */
};

struct queues {
	struct queue **buckets;
	size_t size, count;            /* size is a power of two */
};

/* What is to be written of an entry. */
enum note {
	NOTE_NONE,
	NOTE_RETRY,                    /* a row of retries */
	NOTE_RETRIED,                  /* that row goes */
	NOTE_DEAD,                     /* a dead letter, and that row goes */
	NOTE_LETTER_DONE,              /* a queued letter was retried */
	NOTE_LETTER_KNOWN,             /* or had been done before */
	NOTE_LETTER_FAILED,
};

enum entry_state {
	ENTRY_WAITS,                   /* for its turn */
	ENTRY_OUT,                     /* the caller has it */
	ENTRY_BACKS_OFF,
	ENTRY_DONE,                    /* or dead; noted, or free */
};

struct entry {
	struct evbus_delivery delivery;    /* first: what the caller holds */
	struct evbus_record record;
	struct buf text;               /* the line */
	struct lane *lane;
	uint64_t offset;
	size_t place;                  /* in the window: the n of its slot */
	enum entry_state state;
	struct queue *queues[QUEUE_KINDS];
	struct entry *behind[QUEUE_KINDS];
	unsigned blocked;              /* queues in which it is not the first */
	bool is_ready;                 /* stands in the list of those that are, perhaps no longer rightly */
	struct entry *next;            /* there, or of those that back off, or of the free ones */
	struct entry *next_of_all;
	int64_t looked_us;             /* when it was last looked up in the inbox; 0: never */
	bool is_known;                 /* and found */

	int64_t attempts;              /* that failed */
	int64_t due_us;                /* of boot time: a clock that is set does no harm while we run */
	int64_t due_at_us;             /* since 1970, for the store */
	bool stored;                   /* has a row of retries, or will have */
	struct buf history, error;
	enum evbus_reason reason;

	enum note note;
	struct entry *next_noted;
	bool is_noted;                 /* stands in that list */
};

/* A record of the window; entry NULL: it is done. */
struct slot {
	struct entry *entry;
	uint64_t offset;
	char crc[8];
};

/* A row of retries that was there at the start. */
struct earlier {
	uint64_t offset;
	bool dead;                     /* has its letter; the checkpoint has not come by yet */
	int64_t attempts, due_at_us;
	struct buf history, error;
};

struct lane {
	struct backend_topic *topic;
	struct backend_partition place;    /* its number, and its parents */
	struct partition_reader *reader;
	struct evbus_claim *claim;     /* NULL: another process has it, or it does not begin yet */
	unsigned renewals;             /* of the claim, up to which the checkpoint in the store was ours */
	bool begins;                   /* its parents are done */
	bool appeared;                 /* since the group was here: from its beginning */
	bool over;                     /* another process has done it, or will */
	uint64_t end;                  /* exclusive */
	uint64_t low;                  /* all that stands below is done */
	uint64_t read_to;              /* all that stands below was read */
	char fingerprint[9];           /* of the record before it */
	uint64_t saved;                /* the stored checkpoint; UINT64_MAX: none, and `low` is to be stored */
	bool dirty;                    /* something of it is to be written */
	uint64_t sweep_to;             /* there may be old rows of retries below this offset */
	struct slot *slots;            /* the record that was read as the n-th is in slots[n & (size - 1)] */
	size_t size, head, count;      /* size is a power of two; head: the n of the first that is there */
	struct earlier *earlier;
	size_t earlier_count, earlier_next;

	bool letters;                  /* may have queued letters behind letter_after */
	int64_t letter_after;
	size_t letters_in;             /* entries of letters */
};

struct ready {
	struct entry *first, *last;
};

struct evbus_consumer {
	struct evbus *bus;
	int state;                     /* the directory of the claims, or -1 */
	char *texts, *filter_texts;
	const char *group, *topic, *from;
	int32_t partition_id;
	bool is_pattern, follow, no_wait, inbox, stop_on_dead, filtered;
	struct evbus_filter filter;
	struct evbus_retry retry;
	size_t concurrency, window;
	uint64_t commit_every;
	int64_t commit_interval_us;

	struct backend_topic **topics;
	size_t topic_count;
	struct lane **lanes;
	size_t lane_count, turn;
	int64_t tended_us, letters_us;
	bool topics_looked_for, waiting_told, claim_told, parent_told, id_told;

	struct queues keys_and_ids;
	struct queue *done_ids, *last_done_id;
	struct ready ready[2];         /* events; and letters, which come first */
	struct entry *backoff, *noted, *free, *all;
	int64_t next_due_us;           /* of those that back off; INT64_MAX: there is none */
	size_t out, letters_in, lanes_with_letters, window_bytes;
	bool stopped;                  /* by a dead letter */

	bool urgent;                   /* an attempt failed, or it is about a letter: saved at once */
	uint64_t outcomes;             /* not saved yet */
	int64_t dirty_us;              /* since when there is something to save; 0: nothing */
	struct evbus_consumer_counts counts;
	struct evbus_progress progress;
	struct evbus_err failure;      /* a record could not be read: what was read is finished, then it is told */
	struct buf scratch;
};

int64_t consumer_now_us(void);     /* of boot time */

/* ---- consumer_open.c ---- */

/* Takes claims that have become free, and looks for topics and partitions that are new. */
CHECKED enum evbus_code consumer_tend(struct evbus_consumer *consumer, struct evbus_err *err);

/* ---- consumer_claim.c ---- */

/* Of the lanes that are not ours, those that are free; and looks whether the others are over. EVBUS_AGAIN: the first
 * time, there is none for us, and it is not to be waited. */
CHECKED enum evbus_code consumer_take_claims(struct evbus_consumer *consumer, struct evbus_err *err);
void consumer_forget_earlier(struct lane *lane);

/* ---- consumer_parents.c ---- */

/* Sets lane->begins when the group has done the partition's parents. *held: what it waits for, where that is not ours. */
CHECKED enum evbus_code consumer_ask_parents(struct evbus_consumer *consumer, struct lane *lane, struct evbus_err *held,
					     struct evbus_err *err);
/* Up to which number the partitions are that were there when the group was; -1: it never was. */
CHECKED enum evbus_code consumer_last_seen(struct evbus_consumer *consumer, const struct backend_topic *topic,
					   int32_t *last, struct evbus_err *err);
/* Whether the group has a checkpoint on a parent. */
CHECKED enum evbus_code consumer_was_here_before(struct evbus_consumer *consumer, const struct backend_topic *topic,
						 const struct backend_partition *place, bool *was,
						 struct evbus_err *err);

/* ---- consumer_read.c ---- */

/* Reads on where there is room in the windows. *idle: there was nothing. */
CHECKED enum evbus_code consumer_fill(struct evbus_consumer *consumer, bool *idle, struct evbus_err *err);
/* Makes an entry of a line, which is copied; it is not in the queues yet. */
CHECKED enum evbus_code consumer_make_entry(struct evbus_consumer *consumer, struct lane *lane, const struct line *line,
					    struct entry **entry, struct evbus_err *err);
void consumer_free_entry(struct evbus_consumer *consumer, struct entry *entry);
/* The lane's window begins at the lowest entry that is not done. */
void consumer_advance(struct lane *lane);
void consumer_lane_changed(struct evbus_consumer *consumer, struct lane *lane);
/* It is closed, and all of it is done. */
bool consumer_lane_is_done(const struct lane *lane);

/* ---- consumer_queue.c ---- */

CHECKED enum evbus_code queues_init(struct queues *queues, struct evbus_err *err);
void queues_release(struct queues *queues);
/* Puts the entry into its queues; a letter before the events that are not out. */
CHECKED enum evbus_code consumer_enqueue(struct evbus_consumer *consumer, struct entry *entry, struct evbus_err *err);
/* It is done with: the next ones move up. */
void consumer_dequeue(struct evbus_consumer *consumer, struct entry *entry);
void consumer_ready(struct evbus_consumer *consumer, struct entry *entry, bool in_front);
/* NULL: none is ready. */
struct entry *consumer_pop_ready(struct evbus_consumer *consumer);
void consumer_back_off(struct evbus_consumer *consumer, struct entry *entry);
void consumer_wake_up(struct evbus_consumer *consumer);
/* Its id is done: a row for the inbox. */
void consumer_id_done(struct evbus_consumer *consumer, struct queue *id);
void consumer_ids_saved(struct evbus_consumer *consumer);

/* ---- consumer_inbox.c ---- */

/* The tenant and the event id as text, one behind the other; len 0: it has no id, or none of a sensible length. */
CHECKED enum evbus_code consumer_identity(const struct entry *entry, struct buf *text, size_t *tenant_len,
					  struct evbus_err *err);
/* Appends an event id as text: of CloudEvents "source id". */
CHECKED enum evbus_code consumer_id_text(const struct evbus_envelope *envelope, struct buf *text,
					 struct evbus_err *err);
CHECKED enum evbus_code consumer_json_text(struct evbus_slice value, struct buf *text, struct evbus_err *err);
struct inbox_event consumer_inbox_event(const struct queue *id);
/* Whether the event was done before. Looks a few that will follow up as well. */
CHECKED enum evbus_code consumer_is_known(struct evbus_consumer *consumer, struct entry *entry, bool *known,
					  struct evbus_err *err);

/* ---- consumer_save.c ---- */

void consumer_note(struct evbus_consumer *consumer, struct entry *entry, enum note note);
/* Saves if it is time to, or if `now` and there is anything. */
CHECKED enum evbus_code consumer_save(struct evbus_consumer *consumer, bool now, struct evbus_err *err);

/* ---- consumer_letters.c ---- */

/* Makes entries of letters that are queued; at most once a second for each lane, while following. */
CHECKED enum evbus_code consumer_take_letters(struct evbus_consumer *consumer, struct evbus_err *err);
void consumer_expect_letters(struct evbus_consumer *consumer, struct lane *lane);

#endif

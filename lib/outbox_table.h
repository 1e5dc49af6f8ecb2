/* outbox_table.h: what the files of the outbox share: the handle, the table behind it, and its rows. */
#ifndef EVBUS_OUTBOX_TABLE_H
#define EVBUS_OUTBOX_TABLE_H

#include "outbox.h"
#include "outbox_map.h"

#include "base/clock.h"
#include "base/os.h"
#include "delivery/key_table.h"
#include "log/writer.h"
#include "store/table.h"

#define OUTBOX_OWNER_MAX_BYTES 320u
#define OUTBOX_ATTEMPTS_MAX INT32_MAX
#define OUTBOX_LEASE_MAX_MS (24 * 3600000)

enum outbox_sql {
	OUTBOX_SQL_SCAN,           /* rows that are not done from seq to seq, without payload and history, but when */
	OUTBOX_SQL_TAKE,           /* the same, whole */
	OUTBOX_SQL_GET,
	OUTBOX_SQL_HOLD,           /* the same to change it: nobody else does meanwhile */
	OUTBOX_SQL_LOCK,           /* of a list of rows those that are not done and nobody else's, whole, and when */
	OUTBOX_SQL_LIST,           /* in any state */
	OUTBOX_SQL_LIST_OPEN,      /* PENDING or PROCESSING */
	OUTBOX_SQL_LIST_STATE,     /* the first of EVBUS_OUTBOX_STATES */
	OUTBOX_SQL_COUNT = OUTBOX_SQL_LIST_STATE + EVBUS_OUTBOX_STATES,
	OUTBOX_SQL_COUNT_PENDING,
	OUTBOX_SQL_COUNT_PROCESSING,
	OUTBOX_SQL_COUNT_FAILED,
	OUTBOX_SQL_COUNT_WAITING,
	OUTBOX_SQL_LAST_SEQ,
	OUTBOX_SQL_HAS_ID,
	OUTBOX_SQL_TOPIC_OF,
	OUTBOX_SQL_SWEEP,
	OUTBOX_SQL_DELETE,
	OUTBOX_SQL_CREATE,
	OUTBOX_SQL_INDEX_OPEN,     /* to be made by outbox_init() only */
	OUTBOX_SQL_INDEX_FAILED,
	OUTBOX_SQL_FUNCTION,       /* to be made on a server only: what tells drainers of new rows */
	OUTBOX_SQL_TRIGGER,
	OUTBOX_SQL_CLAIM,          /* from here on updates of the rows in one state from seq to seq */
	OUTBOX_SQL_SENT,
	OUTBOX_SQL_BACK,
	OUTBOX_SQL_REFUSED,
	OUTBOX_SQL_REQUEUE,
	OUTBOX_SQL_SETTLE,
	OUTBOX_SQL_FAIL_AGAIN,
	OUTBOX_SQLS,
};

#define OUTBOX_INDICES 2u
#define OUTBOX_CHANNEL "evbus_outbox" /* what is told to drainers */

/* What Postgres calls a type, with what limits it: "character varying(20)". */
#define OUTBOX_TYPE_MAX_BYTES 200u

/* Up to which row one may look: see outbox_horizon.c. */
struct outbox_horizon {
	int64_t safe;              /* rows up to here come no more */
	int64_t next;              /* so far, once those that write have ended */
	struct buf writers;        /* their transactions, each with its NUL; empty: next is not asked for */
	int64_t since_us;          /* monotonic: how long they are waited for */
	bool told;
};

/* Attempts of rows whose table has no columns for them. */
struct outbox_counts {
	struct outbox_count {
		int64_t seq, attempts, due_us;     /* due_us 0: none */
		char *error, *history;
	} *entries;
	size_t count, size;
};

struct evbus_outbox {
	struct evbus *bus;
	struct evbus *to;          /* where rows are published */
	struct outbox_map map;
	char *url;                 /* NULL: the store of the bus */
	char *name;
	char *insert;              /* for applications */
	struct store *store;
	bool wrap;
	bool within;               /* a transaction is open */
	bool looked;               /* what follows up to sql is known */
	bool indices[OUTBOX_INDICES];          /* that are there */
	bool server;               /* writers write side by side; what follows `names` up to sql is of use only there */
	bool checked;              /* its numbers; on a server */
	bool idle;                 /* draining, nothing was found the last time: look before locking */
	uint32_t present;          /* columns that the table has */
	uint32_t no_state;         /* states that the column cannot have; on a server */
	struct buf names;          /* of all its columns, each with its NUL */
	char types[OUTBOX_COLUMNS][OUTBOX_TYPE_MAX_BYTES];
	char *advice;              /* what the table lacks, as SQL; NULL: nothing */
	int64_t clock_us;          /* about what the clock of the server is ahead of ours */
	struct outbox_horizon horizon;
	char *sql[OUTBOX_SQLS];    /* NULL: nothing to be done, as the columns are not there */
	char *adds[8];             /* SQL_ADD by which of tenant_id, event_key and partition_key are given */
	struct buf place;

	/* Draining. */
	char owner[OUTBOX_OWNER_MAX_BYTES];    /* of our leases, without their length */
	struct evbus_publisher *publisher;
	int64_t time_us;           /* of what is published now */
	struct outbox_counts counts;
	int64_t scanned_to;        /* rows up to here were done, ours, leased, waiting or blocked when they were last seen */
	struct key_table blocked;  /* the keys of those that were not done and not ours */
	int64_t rescan_at_us;      /* monotonic: when the pass over the table begins anew */
	int64_t pass_ends_at_us;   /* the same, if nothing goes wrong before; 0: it has just begun */
	int64_t soonest_us;        /* when the first of them can be claimed; INT64_MAX: none waits */
};

static inline bool outbox_has(const struct evbus_outbox *outbox, enum outbox_column column)
{
	return outbox->present & OUTBOX_BIT(column);
}

/* By the clock that leases and due times go by. On a server only as well as its answers come: leases that others have
 * are judged by what it said with their rows. */
static inline int64_t outbox_now_us(const struct evbus_outbox *outbox)
{
	return os_now_us() + outbox->clock_us;
}

static inline bool outbox_has_leases(const struct evbus_outbox *outbox)
{
	return outbox_has(outbox, OUTBOX_OWNER) && outbox_has(outbox, OUTBOX_EXPIRES);
}

static inline bool outbox_has_counts(const struct evbus_outbox *outbox)
{
	return outbox_has(outbox, OUTBOX_ATTEMPTS) && outbox_has(outbox, OUTBOX_DUE);
}

/* Finds its database, without opening it yet; create: also makes the bus that it lies in. */
CHECKED enum evbus_code outbox_connect(struct evbus_outbox *outbox, bool create, struct evbus_err *err);

/* Opens the database and looks at the table, once. EVBUS_NONE: it is not there; EVBUS_CONFLICT: it lacks a column. */
CHECKED enum evbus_code outbox_look(struct evbus_outbox *outbox, struct evbus_err *err);
/* The same as far as it goes: *exists tells whether there is a table. */
CHECKED enum evbus_code outbox_look_if_there(struct evbus_outbox *outbox, bool *exists, struct evbus_err *err);

/* One at a time. */
CHECKED enum evbus_code outbox_begin(struct evbus_outbox *outbox, struct evbus_err *err);
/* Commits, or, after a failure, rolls back and passes that on. */
CHECKED enum evbus_code outbox_end(struct evbus_outbox *outbox, enum evbus_code code, struct evbus_err *err);
/* Within the transaction, if there is one. */
CHECKED enum evbus_code outbox_read(struct evbus_outbox *outbox, struct query *query, struct evbus_err *err);

/* The texts of all statements, for the columns in `present`. */
CHECKED enum evbus_code outbox_sql_make(struct evbus_outbox *outbox, const struct store_driver *driver,
					struct evbus_err *err);
CHECKED enum evbus_code outbox_sql_insert(struct evbus_outbox *outbox, bool for_applications, unsigned given,
					  char **sql, struct evbus_err *err);
void outbox_sql_release(struct evbus_outbox *outbox);
/* The name of an index of the table. */
void outbox_index_name(const struct evbus_outbox *outbox, enum outbox_sql index, char name[2 * OUTBOX_NAME_MAX_BYTES]);

/* Rows from seq to seq, all that are in one state. */
struct outbox_rows {
	int64_t first, last;
	enum evbus_outbox_state from;
};

/* What an update sets: columns, and of OUTBOX_SQL_SENT the receipt in three parts, of which the one in the middle is a
 * number to which each row adds its seq, or NULL. */
enum {
	OUTBOX_RECEIPT_NUMBER = OUTBOX_COLUMNS,
	OUTBOX_RECEIPT_END,
	OUTBOX_SETS,
};

/* Within a transaction: sets those columns that the statement has (and the table) of the rows, and, for those that end
 * a lease, only where the lease is ours. Without such columns all of them count as changed. */
CHECKED enum evbus_code outbox_update(struct evbus_outbox *outbox, enum outbox_sql update,
				      const struct value set[OUTBOX_SETS], const struct outbox_rows *rows,
				      const char *owner, int64_t *changed, struct evbus_err *err);

/* Within a transaction: id, topic, event_type, payload; tenant_id, event_key and partition_key unless they are NULL. */
CHECKED enum evbus_code outbox_insert(struct evbus_outbox *outbox, const struct value set[OUTBOX_COLUMNS],
				      struct evbus_err *err);

struct value outbox_state_value(const struct evbus_outbox *outbox, enum evbus_outbox_state state);
/* EVBUS_OUTBOX_STATES for none of ours. */
enum evbus_outbox_state outbox_state_of(const struct evbus_outbox *outbox, const struct value *value);

/* A time as the table has it: as we write it, as RFC 3339, as SQL's "2026-01-29 12:00:00" (UTC), or as seconds or
 * milliseconds since 1970; 0: none, or not understood. */
int64_t outbox_time(const struct value *value);
int64_t outbox_time_of(struct evbus_slice text);
/* From 0 to OUTBOX_ATTEMPTS_MAX, whatever stands there: it is counted on. */
int64_t outbox_attempts(const struct value *value);

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* A row with its own copy of everything. */
struct outbox_held {
	struct evbus_outbox_row row;
	char *block;
};

/* columns: of OUTBOX_SQL_GET or a list. */
CHECKED enum evbus_code outbox_hold(struct evbus_outbox *outbox, const struct value *columns, size_t count,
				    struct outbox_held *held, struct evbus_err *err);
void outbox_held_release(struct outbox_held *held);
/* The row itself; *found false: it is not there. */
CHECKED enum evbus_code outbox_get(struct evbus_outbox *outbox, int64_t seq, struct outbox_held *held, bool *found,
				   struct evbus_err *err);

/* Whether an index of ours is there. */
CHECKED enum evbus_code outbox_find_index(struct evbus_outbox *outbox, enum outbox_sql index, bool *exists,
					  struct evbus_err *err);

/* Row callbacks that take one integer (NULL: none), or that there is a row. */
enum evbus_code outbox_take_integer(void *context, const struct value *columns, size_t count, struct evbus_err *err);
enum evbus_code outbox_take_existence(void *context, const struct value *columns, size_t count, struct evbus_err *err);

/* ---- scanning -------------------------------------------------------------------------------------------------- */

/* A row that is not done. */
struct outbox_open {
	int64_t seq, attempts, due_us, expires_us, lease_ms;
	int64_t bytes, now_us;     /* of its payload; by the server's clock, when it was read; only on a server */
	uint64_t key;              /* hash of topic and partition key; 0: it has none */
	enum evbus_outbox_state state;
	bool own;                  /* the lease is ours */
};

#define OUTBOX_SCAN_MAX 4096u

/* Up to `most` of them with after < seq <= up_to. */
CHECKED enum evbus_code outbox_scan(struct evbus_outbox *outbox, int64_t after, int64_t up_to, size_t most,
				    struct outbox_open *rows, size_t *count, struct evbus_err *err);
/* By itself: what blocks its key aside. retry NULL: no due time is too far away. */
bool outbox_is_due(const struct outbox_open *row, const struct evbus_retry *retry, int64_t lease_ms, int64_t now_us);
int64_t outbox_waits_until(const struct outbox_open *row);

/* Sets of keys; 0 is in none. */
bool outbox_key_is_in(const struct key_table *keys, uint64_t key);
CHECKED enum evbus_code outbox_key_add(struct key_table *keys, uint64_t key, struct evbus_err *err);

/* ---- on a server ----------------------------------------------------------------------------------------------- */

/* As it is to be looked up: "schema"."table". */
#define OUTBOX_PLACE_MAX_BYTES (2 * OUTBOX_NAME_MAX_BYTES + 6)
void outbox_quoted(const struct evbus_outbox *outbox, char place[OUTBOX_PLACE_MAX_BYTES]);

/* The names of its columns, their types and the states that they may have. EVBUS_CONFLICT: not those that it must. */
CHECKED enum evbus_code outbox_server_look(struct evbus_outbox *outbox, struct evbus_err *err);
/* Which of the indices, the function and the trigger are there. */
CHECKED enum evbus_code outbox_server_has(struct evbus_outbox *outbox, enum outbox_sql what, bool *exists,
					  struct evbus_err *err);
/* EVBUS_CONFIG: its numbers are not handed out in the order in which rows are inserted. */
CHECKED enum evbus_code outbox_server_check(struct evbus_outbox *outbox, struct evbus_err *err);
/* Before rows are looked for: evbus_outbox_heard() knows of those that come later. */
CHECKED enum evbus_code outbox_listen(struct evbus_outbox *outbox, struct evbus_err *err);
/* Within a transaction: nobody else makes a table. */
CHECKED enum evbus_code outbox_server_alone(struct evbus_outbox *outbox, struct evbus_err *err);
/* Without a place for leases: this drainer alone, until it is told otherwise or loses its connection. */
CHECKED enum evbus_code outbox_server_take(struct evbus_outbox *outbox, bool *taken, struct evbus_err *err);
void outbox_server_give_back(struct evbus_outbox *outbox);

/* How far one may look now. */
CHECKED enum evbus_code outbox_look_ahead(struct evbus_outbox *outbox, int64_t *safe, struct evbus_err *err);
/* Sets soonest_us if there is more. */
void outbox_wait_for_writers(struct evbus_outbox *outbox);
void outbox_horizon_release(struct outbox_horizon *horizon);

/* ---- draining -------------------------------------------------------------------------------------------------- */

enum outbox_fate {
	OUTBOX_UNTRIED,
	OUTBOX_ADDED,              /* to the publisher; no receipt yet */
	OUTBOX_DONE,               /* has its receipt */
	OUTBOX_REFUSED,
	OUTBOX_DEAD,
	OUTBOX_HELD,               /* behind one that was refused */
};

struct outbox_job {
	struct outbox_held held;
	uint64_t key;
	enum evbus_outbox_state from;      /* the state it is in now */
	enum outbox_fate fate;
	bool marked;
	enum evbus_reason reason;
	char error[512];
	int64_t due_us;
	struct buf history;
	struct evbus_record receipt;
	int64_t offset;            /* of the receipt, as a number; -1: it is none */
	char *receipt_block;
};

struct outbox_batch {
	const struct evbus_drain_options *options;
	int64_t lease_ms;
	int64_t now_us;            /* at the beginning */
	struct deadline deadline;
	char owner[OUTBOX_OWNER_MAX_BYTES];
	struct outbox_job *jobs;
	size_t count, size;
	bool behind;               /* nothing was leased: first there is outbox_catch_up() to be done */
	struct key_table caught_up;            /* hashes of the topics for which it was */
};

/* How many jobs from there on have rows whose seqs follow each other, none left out, in one state: an update of a range
 * is then one of nobody else's rows. */
size_t outbox_run(const struct outbox_batch *batch, size_t first);

/* EVBUS_CONFIG: a row has the lowest number. Rows are looked for behind a number, and would never be found there. */
CHECKED enum evbus_code outbox_refuse_lowest(struct evbus_outbox *outbox, struct evbus_err *err);
/* batch->behind: the rows were looked at, and are as they were. */
CHECKED enum evbus_code outbox_claim(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err);
/* Whether the keys of a topic that the rows go to may take long to read. That is done before they are leased, or the
 * lease would run out meanwhile. */
bool outbox_is_behind(const struct evbus_outbox *outbox, const struct outbox_batch *batch);
CHECKED enum evbus_code outbox_catch_up(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err);
void outbox_release_jobs(struct outbox_batch *batch);
/* All of a batch was marked and none of it lost; without this, the next claim begins anew. */
void outbox_pass_goes_on(struct evbus_outbox *outbox);
/* Publishes what was claimed; an outage is the failure. */
CHECKED enum evbus_code outbox_publish(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err);
CHECKED enum evbus_code outbox_mark(struct evbus_outbox *outbox, struct outbox_batch *batch,
				    struct evbus_drain_result *result, struct evbus_err *err);
CHECKED enum evbus_code outbox_open_publisher(struct evbus_outbox *outbox, struct evbus_err *err);
void outbox_close_publisher(struct evbus_outbox *outbox);
/* {"event_id":…,"data":…} around a body; EVBUS_DATA: that is no JSON value. */
CHECKED enum evbus_code outbox_wrap(struct buf *out, const struct evbus_outbox_row *row, struct evbus_err *err);

/* ---- attempts that are kept in the store ----------------------------------------------------------------------- */

/* Each does nothing where the table has columns for them. */
CHECKED enum evbus_code outbox_counts_load(struct evbus_outbox *outbox, struct evbus_err *err);
const struct outbox_count *outbox_counts_find(const struct evbus_outbox *outbox, int64_t seq);
CHECKED enum evbus_code outbox_counts_put(struct evbus_outbox *outbox, const struct outbox_count *counts, size_t count,
					  struct evbus_err *err);
CHECKED enum evbus_code outbox_counts_remove(struct evbus_outbox *outbox, const int64_t *seqs, size_t count,
					     struct evbus_err *err);
void outbox_counts_release(struct evbus_outbox *outbox);

#endif

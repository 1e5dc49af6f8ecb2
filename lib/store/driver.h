/* driver.h: what a database has to be able to do to hold the store.
 *
 * Meaning and SQL stand in the files that are named after the tables, in words that SQLite and Postgres both read and
 * with "?" for every parameter; a driver only runs them. Rows go to a callback, and nothing stays open between two
 * calls: a result that is read half keeps a lock, and with SQLite's rollback journal that stops every writer. */
#ifndef EVBUS_STORE_DRIVER_H
#define EVBUS_STORE_DRIVER_H

#include "base/buf.h"

enum value_kind {
	VALUE_NULL,
	VALUE_INTEGER,
	VALUE_TEXT,
	VALUE_BLOB,
};

struct value {
	enum value_kind kind;
	int64_t integer;
	struct evbus_slice bytes;  /* of VALUE_TEXT and VALUE_BLOB, kept byte for byte */
};

#define COLUMNS_MAX 32u

struct query {
	const char *sql;           /* one statement, kept at its address: prepared ones are found by that */
	const struct value *args;
	size_t arg_count;
	/* Called for each row unless it is NULL. columns live until it returns; it runs no query; what is not EVBUS_OK
	 * ends the query, which returns it. */
	enum evbus_code (*row)(void *context, const struct value *columns, size_t count, struct evbus_err *err);
	void *context;
	/* Within a transaction, for what gives no rows: neither an answer nor `changed` is waited for, and a failure is that of
	 * a later call, at the latest of commit(). */
	bool later;
	int64_t changed;           /* out: rows that were inserted, updated or deleted */
};

#define ARGS(...)                                      \
	.args = (const struct value[]){ __VA_ARGS__ }, \
	.arg_count = sizeof((const struct value[]){ __VA_ARGS__ }) / sizeof(struct value)

/* Every driver's own struct begins with this one. */
struct db {
	const struct store_driver *driver;
};

/* Codes: EVBUS_AGAIN when others kept us waiting for STORE_WAIT_MS, EVBUS_IO for a damaged database or a full disk,
 * EVBUS_CONFIG for one that is not as it must be, EVBUS_PERMISSION, EVBUS_CONFLICT for a constraint, EVBUS_UNAVAILABLE
 * for a server that is away. Texts name the database. */
struct store_driver {
	const char *table_exists;  /* SQL: a row if the table "?" is there, else none */
	const char *index_exists;
	const char *index_hint;    /* SQL: what stands before the name of the index that is to be used; NULL: nothing does */
	const char *table_columns; /* SQL: the name of each column of the table "?", none if it is not there */
	const char *row_number;    /* a column that tables have without listing it, or NULL */
	const char *serial_type;   /* of a primary key that counts up and never gives a number out twice */
	const char *now_text;      /* SQL: the time as text, as evbus_time_format() writes it */

	/* Of servers, else NULL. SQL: a row with 1 if the session has got the claim named "?" now, with 0 if another one has
	 * it; and who that is, in words. */
	const char *claim, *claim_holder;

	/* place: the absolute path of a file that is there (the mode is right, it is no link), or a server's URL. A guest's
	 * database is somebody else's: no setting of it is changed and no WAL checkpointed; commits are durable all the
	 * same. */
	enum evbus_code (*open)(const char *place, bool guest, struct db **db, struct evbus_err *err);
	void (*close)(struct db *db);

	/* Of servers, else NULL. Within the transaction that makes the first tables: what they lie in. */
	enum evbus_code (*make)(struct db *db, struct evbus_err *err);
	/* Of servers, else NULL: which connection it is, after a break another one, without one 0. Claims end with it. */
	uint64_t (*session)(const struct db *db);
	/* Gives a claim back, if there is a connection. */
	void (*unclaim)(struct db *db, const char *name);
	/* Of servers, else NULL: the URL that leads here, from wherever, with nothing secret in it. */
	enum evbus_code (*place)(struct db *db, struct buf *place, struct evbus_err *err);

	/* A transaction that excludes other writers from its start: what it reads is still true when it writes. Where we are
	 * a guest on a server it excludes nobody: rows are locked by who needs them. */
	enum evbus_code (*begin)(struct db *db, struct evbus_err *err);
	/* Durable when it returns; rolled back where it fails. */
	enum evbus_code (*commit)(struct db *db, struct evbus_err *err);
	void (*rollback)(struct db *db);

	/* Whether a checkpoint by somebody else may damage it while we commit (SQLite's WAL). */
	enum evbus_code (*in_danger)(struct db *db, bool *danger, struct evbus_err *err);

	/* Reads anywhere; writes only within a transaction. */
	enum evbus_code (*query)(struct db *db, struct query *query, struct evbus_err *err);

	/* Of servers, else NULL. Outside a transaction: from now on heard() knows of what is told on a channel, a name. To be
	 * asked for before each look at what may have changed: a connection that is a new one has listened to nothing. */
	enum evbus_code (*listen)(struct db *db, const char *channel, struct evbus_err *err);
	/* A descriptor that can be read once something is told; -1: there is no connection. *told: something was. */
	int (*heard)(struct db *db, bool *told);
};

static inline bool driver_is_server(const struct store_driver *driver)
{
	return driver->place;
}

#define STORE_WAIT_MS 5000

#endif

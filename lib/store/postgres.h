/* postgres.h: what the files of the driver for Postgres share: a connection, and how it is spoken with. */
#ifndef EVBUS_STORE_POSTGRES_H
#define EVBUS_STORE_POSTGRES_H

#include "store/driver.h"

#include "base/buf.h"

#include <libpq-fe.h>

#define PG_KEPT_MAX 64u
#define PG_ARGS_MAX 512u

/* A statement that the server has prepared. */
struct pg_kept {
	const char *sql;           /* where the caller has it */
	char *text;                /* as it was then: another text may stand where one was that is gone */
	unsigned number;           /* of its name */
	bool ready;
};

#define PG_LATER_MAX 96u
#define PG_STEPS_MAX (PG_LATER_MAX + 8)

enum pg_what {
	PG_ALONE,                  /* what gives neither rows nor a count that matters */
	PG_PREPARE,
	PG_QUERY,
};

struct pg_step {
	enum pg_what what;
	unsigned number;           /* of what is prepared */
};

/* Statements that are under way together, whose answers come in that order. */
struct pg_flight {
	struct pg_step steps[PG_STEPS_MAX];
	size_t count;
	struct query *query;       /* of PG_QUERY, which is the last one */
	bool given;                /* a row was */
	bool committed;            /* the last one was COMMIT, and did not roll back */
};

enum pg_transaction {
	PG_OUTSIDE,
	PG_ASKED, /* begin() was called, and the server does not know yet: it goes with what comes first */
	PG_WITHIN,
	PG_LOST, /* the connection broke within it: until it is rolled back, nothing is done */
};

struct pg {
	struct db db;              /* first: what callers hold */
	PGconn *conn;              /* NULL: none */
	char *url;                 /* without what is ours; for libpq, as it may have a password in it */
	char *shown;               /* for messages */
	char *schema;              /* NULL: whatever the server looks in */
	int timeout_ms;
	bool guest;
	bool running;              /* a row callback */
	bool silent;               /* the connection ended because the server gave no answer in time */
	enum pg_transaction transaction;
	uint64_t connections;      /* that there were, this one among them */
	unsigned last_number;
	struct pg_kept kept[PG_KEPT_MAX];
	size_t kept_next;
	struct pg_flight flight;
	uint64_t listening;        /* which of the connections does; 0: none */
	struct buf args;           /* texts of arguments, each with its NUL */
};

/* ---- postgres_link.c: connecting, and waiting for answers ------------------------------------------------------ */

/* Takes the options that are ours out of the URL. EVBUS_CONFIG: it is none. */
CHECKED enum evbus_code pg_read_url(struct pg *pg, const char *url, struct evbus_err *err);

/* A connection, made if there is none. patient: a server that is away is asked again until deadline_us (monotonic). */
CHECKED enum evbus_code pg_connect(struct pg *pg, bool patient, int64_t deadline_us, struct evbus_err *err);
void pg_disconnect(struct pg *pg);

/* The next result, NULL at the end of those of a statement. EVBUS_UNAVAILABLE: there is no connection any more, as the
 * server, or what lies between, ended it or gave no answer for timeout_ms. */
CHECKED enum evbus_code pg_result(struct pg *pg, PGresult **result, struct evbus_err *err);
/* There is no connection any more: why, as far as libpq knows. */
CHECKED enum evbus_code pg_lost(struct pg *pg, struct evbus_err *err);

/* The failure that a result is. */
enum evbus_code pg_failed(const struct pg *pg, const PGresult *result, struct evbus_err *err);

/* ---- postgres_flight.c: statements that are sent together ------------------------------------------------------ */

/* Each gives EVBUS_UNAVAILABLE where there is no connection any more. */
CHECKED enum evbus_code pg_send_text(struct pg *pg, enum pg_what what, const char *text, struct evbus_err *err);
/* And BEGIN before it, if that was asked for. */
CHECKED enum evbus_code pg_send_query(struct pg *pg, struct query *query, struct evbus_err *err);
/* Ends the flight, and waits for its answers: the first failure among them is its own. */
CHECKED enum evbus_code pg_land(struct pg *pg, struct evbus_err *err);

/* ---- postgres_value.c: rows and arguments ---------------------------------------------------------------------- */

struct pg_sent {
	const char *values[PG_ARGS_MAX];
	int lengths[PG_ARGS_MAX];
	int formats[PG_ARGS_MAX];  /* 1: bytes as they are */
};

/* The columns of a result with one row, and how many; they live as long as it. */
size_t pg_read_row(const struct pg *pg, PGresult *result, struct value *columns);
/* Until the next call; EVBUS_DATA: Postgres does not take one of them. */
CHECKED enum evbus_code pg_set_args(struct pg *pg, const struct query *query, struct pg_sent *sent,
				    struct evbus_err *err);

/* ---- postgres_text.c: statements as Postgres has them ---------------------------------------------------------- */

/* "?" becomes $1, $2 …, and, in the definition of a table of ours, the types become those of Postgres. For free(). */
CHECKED enum evbus_code pg_translate(const char *sql, bool ours, char **text, struct evbus_err *err);

/* ---- postgres_listen.c: being told ----------------------------------------------------------------------------- */

CHECKED enum evbus_code pg_listen(struct db *db, const char *channel, struct evbus_err *err);
int pg_heard(struct db *db, bool *told);

#endif

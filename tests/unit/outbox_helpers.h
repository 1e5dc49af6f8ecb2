/* What the tests of outboxes have in common: a bus, an application with a database of its own, and a drainer. */
#ifndef EVBUS_TESTS_OUTBOX_HELPERS_H
#define EVBUS_TESTS_OUTBOX_HELPERS_H

#include "modules.h"

#include "base/os.h"
#include "outbox_table.h"

#include <errno.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <sys/wait.h>

#define APP "sqlite:app.db"
#define IS(text) ((struct evbus_slice){ (text), sizeof(text) - 1 })

static char scratch[64];
static struct evbus_err err;
static struct evbus *bus;
static struct evbus_outbox *outbox;
static struct evbus_drain_options options;
static struct evbus_drain_result result;
static char receipts[65536], refusals[65536]; /* what was told, "TOPIC/OFFSET " and "ID:dead " */

static inline struct evbus_slice text(const char *text)
{
	return (struct evbus_slice){ text, text ? strlen(text) : 0 };
}

static inline enum evbus_code take_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *e)
{
	size_t len = strlen(receipts);
	(void)context;
	(void)e;

	if (len < sizeof receipts - 400)
		snprintf(receipts + len, sizeof receipts - len, "%.*s/%.*s%s ", (int)receipt->topic.len,
			 receipt->topic.data, (int)receipt->offset.len, receipt->offset.data,
			 receipt->duplicate ? "!" : "");
	return EVBUS_OK;
}

static inline void take_refusal(void *context, const struct evbus_outbox_row *row, bool dead, const char *error)
{
	size_t len = strlen(refusals);
	(void)context;

	snprintf(refusals + len, sizeof refusals - len, "%.*s:%d:%s:%s ", (int)row->id.len, row->id.data,
		 (int)row->attempts, dead ? "dead" : "again", error);
}

static inline struct evbus *open_bus(bool no_create)
{
	const struct evbus_options bus_options = { .no_create = no_create };
	struct evbus *opened = NULL;

	cr_assert_eq(evbus_open("file:bus", &bus_options, &opened, &err), EVBUS_OK, "%s", err.text);
	return opened;
}

static inline struct evbus_outbox *open_with(const char *url, const char *map, bool wrap)
{
	const struct evbus_outbox_options outbox_options = { .map = map, .wrap = wrap };
	struct evbus_outbox *opened = NULL;

	cr_assert_eq(evbus_outbox_open(bus, url, &outbox_options, &opened, &err), EVBUS_OK, "%s", err.text);
	return opened;
}

static inline void init(struct evbus_outbox *opened)
{
	bool made, wal;

	cr_assert_eq(evbus_outbox_init(opened, &made, &wal, &err), EVBUS_OK, "%s", err.text);
}

/* No attempt waits for another unless a test says so. */
static inline void setup(void)
{
	scratch_enter(scratch);
	bus = open_bus(false);
	outbox = open_with(APP, NULL, false);
	options = (struct evbus_drain_options){ .retry = { 2, 0, 2.0, 0 },
						.receipt = take_receipt,
						.refused = take_refusal };
}

static inline void teardown(void)
{
	evbus_outbox_close(outbox);
	evbus_close(bus);
	scratch_leave(scratch);
}

/* ---- the application ---- */

static inline sqlite3 *open_app(void)
{
	sqlite3 *db;

	cr_assert_eq(sqlite3_open("app.db", &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	return db;
}

static inline int take_line(void *to, int count, char **values, char **names)
{
	size_t len = strlen(to);
	(void)names;

	for (int i = 0; i < count; i++)
		len += (size_t)snprintf((char *)to + len, len < 60000 ? 60000 - len : 0, "%s%s",
					i     ? "|"
					: len ? " "
					      : "",
					values[i] ? values[i] : "-");
	return 0;
}

/* Behind evbus's back. What it gives lives until the next call. */
static inline const char *sql_in(const char *path, const char *statement)
{
	static char rows[65536];
	sqlite3 *db;
	char *message = NULL;

	rows[0] = '\0';
	cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	int rc = sqlite3_exec(db, statement, take_line, rows, &message);
	cr_assert_eq(rc, SQLITE_OK, "%s: %s", statement, message);
	sqlite3_close(db);
	return rows;
}

static inline const char *sql(const char *statement)
{
	return sql_in("app.db", statement);
}

/* As an application does it. key NULL: none. */
static inline void insert(const char *id, const char *key, const char *payload)
{
	char statement[4096];

	cr_assert_lt(
		snprintf(statement, sizeof statement,
			 "INSERT INTO outbox (id, topic, event_type, payload, partition_key) VALUES ('%s', 'orders', "
			 "'t', '%s', %s%s%s)",
			 id, payload, key ? "'" : "", key ? key : "NULL", key ? "'" : ""),
		(int)sizeof statement);
	sql(statement);
}

/* Rows 1 to count, with ids e1, e2, … and keys k0 … by the number, or none. */
static inline void fill(int count, int keys)
{
	char statement[1024];

	snprintf(statement, sizeof statement,
		 "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) "
		 "INSERT INTO outbox (id, topic, event_type, payload, partition_key) "
		 "SELECT 'e' || i, 'orders', 't', '{\"id\":\"e' || i || '\"}', "
		 "CASE WHEN %d THEN 'k' || (i %% %d) END FROM n",
		 count, keys, keys ? keys : 1);
	sql(statement);
}

static inline const char *states(void)
{
	return sql("SELECT state FROM outbox ORDER BY seq");
}

/* ---- draining ---- */

static inline enum evbus_code drain_by(struct evbus_outbox *by)
{
	receipts[0] = refusals[0] = '\0';
	return evbus_outbox_drain(by, &options, &result, &err);
}

static inline void drain(void)
{
	cr_assert_eq(drain_by(outbox), EVBUS_OK, "%s", err.text);
}

/* The payloads on a topic, in the order of the log; "" where it is not there. */
static inline const char *log_of(const char *topic)
{
	static char payloads[65536];
	const struct evbus_selection selection = { .topic = topic, .partition_id = EVBUS_PARTITION_ALL };
	struct evbus *reading = open_bus(true);
	struct evbus_reader *reader = NULL;
	const struct evbus_record *record;

	payloads[0] = '\0';
	if (!evbus_reader_open(reading, &selection, &reader, &err)) {
		for (;;) {
			cr_assert_eq(evbus_reader_next(reader, 0, &record, &err), EVBUS_OK, "%s", err.text);
			if (!record)
				break;
			size_t len = strlen(payloads);
			cr_assert_lt(len + record->payload.len, sizeof payloads - 2);
			snprintf(payloads + len, sizeof payloads - len, "%s%.*s", len ? " " : "",
				 (int)record->payload.len, record->payload.data);
		}
	}
	evbus_reader_close(reader);
	evbus_close(reading);
	return payloads;
}

static inline int count_of(const char *statement)
{
	return (int)strtol(sql(statement), NULL, 10);
}

#define SOON "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds')"

/* A row as another drainer has it: with a lease of 30 s that ends in so many seconds. */
static inline void lease(const char *id, int left_s)
{
	char statement[500];

	snprintf(statement, sizeof statement,
		 "UPDATE outbox SET state = 'PROCESSING', lease_owner = 'other:1:00:30000', lease_expires_at = "
		 "strftime('%%Y-%%m-%%dT%%H:%%M:%%f000Z', 'now', '%d seconds') WHERE id = '%s'",
		 left_s, id);
	sql(statement);
}

#endif

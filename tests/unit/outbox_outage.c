/* Draining an outbox: outages, and tables that have not all columns. */
#include "outbox_helpers.h"

#include "backend.h"
#include "event/json.h"

#include <pthread.h>
#include <sys/stat.h>

TestSuite(outbox_outage, .init = setup, .fini = teardown, .timeout = 60);

/* ---- outages --------------------------------------------------------------------------------------------------- */

/* Rows as they were before anybody tried them. */
#define UNTOUCHED "PENDING|0|-|-|-|-"
#define ALL_OF_IT "SELECT state, attempts, next_attempt_at, lease_owner, lease_expires_at, last_error FROM outbox"

static int syncs_left;

static int failing_sync(int fd)
{
	if (syncs_left-- > 0)
		return fdatasync(fd);
	errno = EIO;
	return -1;
}

Test(outbox_outage, an_outage_counts_no_attempt_and_marks_nothing)
{
	init(outbox);
	fill(2, 1);
	drain();
	sql("UPDATE outbox SET state = 'PENDING', receipt = NULL, sent_at = NULL, id = 'new' || id");
	os.fdatasync = failing_sync;
	syncs_left = 0;
	cr_assert_eq(drain_by(outbox), EVBUS_IO, "%s", err.text);
	cr_assert(result.outage);
	cr_assert_eq(result.claimed, 2);
	cr_assert_eq(result.sent, 0);
	cr_assert_str_eq(receipts, "");
	cr_assert_str_eq(refusals, "");
	cr_assert_str_eq(sql(ALL_OF_IT), UNTOUCHED " " UNTOUCHED);
	os.fdatasync = fdatasync;
	drain();
	cr_assert_eq(result.sent, 2);
	cr_assert_str_eq(states(), "SENT SENT");
}

Test(outbox_outage, what_has_its_receipt_is_marked_before_the_outage_comes_up)
{
	init(outbox);
	insert("a", NULL, "{\"n\":1}");
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('b', 'other', 't', '{}')");
	cr_assert(!mkdir("bus", 0700) && !mkdir("bus/other", 0700));
	cr_assert(!mkdir("bus/other/topic.json", 0700));
	enum evbus_code code = drain_by(outbox);
	cr_assert(code != EVBUS_OK && result.outage, "%d", code);
	cr_assert_str_eq(sql("SELECT state, attempts FROM outbox WHERE id = 'b'"), "PENDING|0");
	cr_assert(!rmdir("bus/other/topic.json"));
	drain();
	cr_assert_str_eq(states(), "SENT SENT");
	cr_assert_str_eq(log_of("orders"), "{\"n\":1}");
}

/* A backend that takes topics and events, and then has none of it. */
static struct backend_ops forgetful;

static enum evbus_code open_forgetful(struct backend *backend, const char *name, struct backend_topic **topic,
				      struct evbus_err *e)
{
	enum evbus_code code = backend_file.topic_open(backend, name, topic, e);

	if (!code)
		(*topic)->ops = &forgetful;
	return code;
}

static enum evbus_code write_forgetful(const struct backend_topic *topic, int32_t partition,
				       const struct waiter *waiter, struct partition_writer **writer,
				       struct evbus_err *e)
{
	enum evbus_code code = backend_file.writer_open(topic, partition, waiter, writer, e);

	if (!code)
		(*writer)->ops = &forgetful;
	return code;
}

static enum evbus_code forget(struct partition_writer *writer, struct group *group, uint64_t expect,
			      struct evbus_err *e)
{
	(void)group;
	(void)expect;
	return err_set(e, EVBUS_NONE, 0, "there is no topic '%s' any more", writer->topic->name);
}

/* Whatever its code, and whichever row is given to the publisher when it writes those before. */
Test(outbox_outage, a_failure_to_publish_others_is_no_refusal_of_a_row)
{
	const struct backend_ops *before = bus->backend->ops;
	bool created;

	init(outbox);
	cr_assert_eq(evbus_topic_create(bus, "orders", NULL, &created, &err), EVBUS_OK);
	sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) INSERT INTO outbox (id, "
	    "topic, event_type, payload) SELECT i, 'orders', 't', '{\"a\":\"' || printf('%.*c', 300000, 'x') || '\"}' "
	    "FROM n");
	forgetful = backend_file;
	forgetful.topic_open = open_forgetful;
	forgetful.writer_open = write_forgetful;
	forgetful.append = forget;
	bus->backend->ops = &forgetful;
	cr_assert_eq(drain_by(outbox), EVBUS_CONFLICT, "%s", err.text);
	cr_assert(result.outage);
	cr_assert_str_eq(refusals, "");
	cr_assert_str_eq(sql("SELECT state, attempts, count(*) FROM outbox GROUP BY 1, 2"), "PENDING|0|12");
	bus->backend->ops = before;
	drain();
	cr_assert_eq(result.sent, 12);
}

static void insert_other(const char *id)
{
	char statement[128];

	snprintf(statement, sizeof statement,
		 "INSERT INTO outbox (id, topic, event_type, payload) VALUES ('%s', 'other', 't', '{}')", id);
	sql(statement);
}

/* The topic of the last event is written first. Of its events the first has a receipt; that of the last would come behind
 * one that there is none of. */
Test(outbox_outage, what_one_topic_has_taken_is_marked_when_another_one_fails)
{
	init(outbox);
	insert("a", NULL, "{}");
	insert_other("b");
	drain();
	insert("c", NULL, "{}");
	insert_other("d");
	insert("e", NULL, "{}");
	os.fdatasync = failing_sync;
	syncs_left = 1;
	cr_assert_eq(drain_by(outbox), EVBUS_IO, "%s", err.text);
	os.fdatasync = fdatasync;
	cr_assert(result.outage && result.sent == 1, "%s", states());
	cr_assert_str_eq(states(), "SENT SENT SENT PENDING PENDING");
	drain();
	cr_assert(result.sent == 2 && result.duplicates == 1);
	cr_assert_str_eq(states(), "SENT SENT SENT SENT SENT");
}

Test(outbox_outage, a_bus_that_is_not_there_is_an_outage)
{
	struct evbus *missing = open_bus(true);
	struct evbus_outbox *other = NULL;

	init(outbox);
	fill(1, 0);
	cr_assert_eq(evbus_outbox_open(missing, APP, NULL, &other, &err), EVBUS_OK);
	cr_assert_eq(drain_by(other), EVBUS_UNAVAILABLE);
	cr_assert(result.outage && strstr(err.text, "no bus"), "%s", err.text);
	cr_assert_str_eq(sql(ALL_OF_IT), UNTOUCHED);
	evbus_outbox_close(other);
	evbus_close(missing);
}

Test(outbox_outage, nothing_is_published_when_the_lease_has_run_out)
{
	init(outbox);
	insert("a", NULL, "{}");
	drain();
	insert("b", NULL, "{}");
	options.lease_ms = 1;
	/* Nine tenths of a millisecond are over before the log is reached. */
	cr_assert_eq(drain_by(outbox), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "lease"), "%s", err.text);
	cr_assert_str_eq(sql("SELECT state, attempts FROM outbox WHERE id = 'b'"), "PENDING|0");
	options.lease_ms = 0;
	drain();
	cr_assert_str_eq(log_of("orders"), "{} {}");
}

static enum evbus_code fail_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *e)
{
	(void)receipt;
	++*(int *)context;
	return err_set(e, EVBUS_IO, 0, "cannot print");
}

Test(outbox_outage, a_receipt_that_cannot_be_told_is_marked_all_the_same)
{
	int times = 0;

	init(outbox);
	fill(3, 0);
	options.receipt = fail_receipt;
	options.context = &times;
	cr_assert_eq(drain_by(outbox), EVBUS_IO);
	cr_assert_eq(times, 1);
	cr_assert(!result.outage);
	cr_assert_eq(result.sent, 3);
	cr_assert_str_eq(states(), "SENT SENT SENT");
}

Test(outbox_outage, options_that_cannot_be_are_refused)
{
	init(outbox);
	options.lease_ms = -1;
	cr_assert_eq(drain_by(outbox), EVBUS_USAGE);
	options.lease_ms = INT64_MAX;
	cr_assert_eq(drain_by(outbox), EVBUS_USAGE);
	options.lease_ms = 0;
	options.retry.factor = 0.5;
	cr_assert_eq(drain_by(outbox), EVBUS_USAGE);
	cr_assert_eq(evbus_outbox_drain(outbox, NULL, &result, &err), EVBUS_OK, "%s", err.text);
}

/* ---- tables of applications ------------------------------------------------------------------------------------ */

#define FOREIGN                                                                                                        \
	"CREATE TABLE events (number INTEGER PRIMARY KEY, key INTEGER UNIQUE, kind TEXT, body BLOB, status INT "       \
	"DEFAULT 0, customer TEXT, made TEXT DEFAULT CURRENT_TIMESTAMP, extra TEXT NOT NULL DEFAULT 'x')"
#define FOREIGN_MAP                                                                                                    \
	"table=events,seq=number,id=key,event_type=kind,payload=body,state=status,partition_key=customer,"             \
	"created_at=made,topic=crm.{kind},state.PENDING=0,state.PROCESSING=1,state.SENT=2,state.FAILED=3"

static void insert_foreign(int key, const char *customer, const char *body)
{
	char statement[500];

	snprintf(statement, sizeof statement,
		 "INSERT INTO events (key, kind, customer, body) VALUES (%d, 'made', '%s', '%s')", key, customer, body);
	sql(statement);
}

Test(outbox_outage, a_table_without_leases_counts_or_receipts_is_drained)
{
	sql(FOREIGN);
	struct evbus_outbox *foreign = open_with(APP, FOREIGN_MAP, false);
	init(foreign);
	insert_foreign(7, "a", "{\"n\":1}");
	insert_foreign(8, "a", "nope");
	insert_foreign(9, "a", "{\"n\":2}");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(receipts, "crm.made/0 crm.made/1 ");
	cr_assert_str_eq(sql("SELECT key, status, extra, body FROM events"),
			 "7|2|x|{\"n\":1} 8|3|x|nope 9|2|x|{\"n\":2}");
	cr_assert_str_eq(log_of("crm.made"), "{\"n\":1} {\"n\":2}");
	evbus_outbox_close(foreign);
}

Test(outbox_outage, counts_and_due_times_that_the_table_has_no_place_for_are_in_the_store)
{
	const struct evbus_topic_options two = { .partitions = 2 };
	bool created;
	struct evbus_outbox *foreign;

	options.retry = (struct evbus_retry){ 1, 60000, 2.0, 60000 };
	cr_assert_eq(evbus_topic_create(bus, "crm.made", &two, &created, &err), EVBUS_OK);
	sql(FOREIGN);
	foreign = open_with(APP, FOREIGN_MAP, false);
	init(foreign);
	sql("INSERT INTO events (key, kind, body) VALUES (7, 'made', '{}')");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.retried, 1);
	evbus_outbox_close(foreign);

	/* They outlive a restart. */
	foreign = open_with(APP, FOREIGN_MAP, false);
	sql_in("bus/.evbus/state.db",
	       "UPDATE retries SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds')");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.claimed, 0);
	cr_assert_gt(result.next_due_ms, 10000);
	cr_assert_str_eq(
		sql_in("bus/.evbus/state.db", "SELECT substr(group_name, 1, 14), record_offset, attempts FROM retries"),
		"outbox:sqlite:|1|1");
	sql_in("bus/.evbus/state.db", "UPDATE retries SET next_attempt_at = ''");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.failed, 1);
	cr_assert_str_eq(sql("SELECT status FROM events"), "3");
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT attempts, json_array_length(history) FROM retries"),
			 "2|2");

	/* Due again, and this time it goes. */
	bool changed = false;
	cr_assert_eq(outbox_requeue(foreign, 1, &changed, &err), EVBUS_OK, "%s", err.text);
	cr_assert(changed);
	sql("UPDATE events SET customer = 'a'");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 1);
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT COUNT(*) FROM retries"), "0");
	evbus_outbox_close(foreign);
}

Test(outbox_outage, without_leases_only_one_may_drain_at_a_time)
{
	struct evbus_outbox *foreign;
	struct evbus_claim *claim = NULL;
	const char *place;
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	char name[24];

	sql(FOREIGN);
	foreign = open_with(APP, FOREIGN_MAP, false);
	init(foreign);
	insert_foreign(7, "a", "{}");
	cr_assert(!mkdir("bus", 0700));
	cr_assert_eq(outbox_place(foreign, &place, &err), EVBUS_OK);
	for (; *place; place++)
		hash = (hash ^ (unsigned char)*place) * UINT64_C(0x100000001b3);
	snprintf(name, sizeof name, "%016" PRIx64, hash);
	cr_assert_eq(evbus_claim_take(bus, "outbox", name, 0, &claim, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(drain_by(foreign), EVBUS_AGAIN);
	cr_assert(strstr(err.text, "lease_owner"), "%s", err.text);
	cr_assert(!result.outage);
	evbus_claim_release(claim);
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 1);
	evbus_outbox_close(foreign);
}

Test(outbox_outage, only_columns_that_were_told_of_are_written)
{
	struct evbus_outbox *foreign;

	sql("CREATE TABLE outbox (id TEXT, topic TEXT, payload TEXT, state TEXT DEFAULT 'PENDING', own TEXT DEFAULT "
	    "'mine', "
	    "lease_owner TEXT DEFAULT 'not yours')");
	foreign = open_with(APP, "seq=rowid", false);
	init(foreign);
	sql("INSERT INTO outbox (id, topic, payload) VALUES ('a', 'orders', '{}')");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(sql("SELECT id, state, own, lease_owner FROM outbox"), "a|SENT|mine|not yours");
	evbus_outbox_close(foreign);
}

/* ---- clocks ---------------------------------------------------------------------------------------------------- */

static int64_t late_us;

static int late_clock(clockid_t clock, struct timespec *now)
{
	int failed = clock_gettime(clock, now);

	now->tv_sec += late_us / 1000000;
	return failed;
}

/* A long piece of the log takes a second. */
static ssize_t slow_pread(int fd, void *data, size_t len, off_t at)
{
	ssize_t n = pread(fd, data, len, at);

	late_us += n >= 65536 ? 1000000 : 0;
	return n;
}

static void publish_much(const char *ids)
{
	const struct evbus_publisher_options once = { .idempotent = true };
	struct evbus_publisher *publisher;
	char payload[1100];

	cr_assert_eq(evbus_publisher_open(bus, &once, &publisher, &err), EVBUS_OK, "%s", err.text);
	for (int i = 0; i < 5000; i++) {
		snprintf(payload, sizeof payload, "{\"id\":\"%s-%d\",\"a\":\"%01000d\"}", ids, i, i);
		const struct evbus_event event = { .topic = "orders", .payload = text(payload) };
		cr_assert_eq(evbus_publisher_add(publisher, &event, &err), EVBUS_OK, "%s", err.text);
	}
	cr_assert_eq(evbus_publisher_flush(publisher, &err), EVBUS_OK, "%s", err.text);
	evbus_publisher_close(publisher);
}

Test(outbox_outage, the_log_is_read_before_the_lease_begins_to_run)
{
	init(outbox);
	fill(3, 0);
	publish_much("before");
	cr_assert_eq(unlink("bus/.evbus/state.db"), 0);
	options.lease_ms = 10000;
	os.clock_gettime = late_clock;
	os.pread = slow_pread;
	drain();
	cr_assert_gt(late_us, 15000000, "the log was read");
	cr_assert_eq(result.sent, 3);
	/* The same handle, when others have published much meanwhile. */
	publish_much("meanwhile");
	insert("later", NULL, "{}");
	late_us = 3600000000;
	drain();
	cr_assert_gt(late_us, 3615000000, "the log was read");
	cr_assert_str_eq(states(), "SENT SENT SENT SENT");
}

/* Another drainer, which has the database until its lease is written. */
static void *lease_slowly(void *context)
{
	const struct timespec while_we_wait = { .tv_nsec = 300000000 };
	sqlite3 *db = context;
	char statement[300], expires[28];

	nanosleep(&while_we_wait, NULL);
	evbus_time_format(os_now_us() + 30000000, expires);
	snprintf(statement, sizeof statement,
		 "UPDATE outbox SET state = 'PROCESSING', lease_owner = 'other:1:00:30000', lease_expires_at = '%s' "
		 "WHERE id = 'a'; COMMIT",
		 expires);
	return sqlite3_exec(db, statement, NULL, NULL, NULL) == SQLITE_OK ? context : NULL;
}

/* By the time at which we began to wait it would end too late, as by a clock that is ahead. */
Test(outbox_outage, a_lease_is_judged_by_the_time_at_which_it_was_read)
{
	pthread_t other;
	void *written;

	init(outbox);
	/* So that the log is known, and the rows are looked at once only. */
	insert("before", NULL, "{}");
	drain();
	insert("a", NULL, "{}");
	sqlite3 *db = open_app();
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(pthread_create(&other, NULL, lease_slowly, db), 0);
	drain();
	cr_assert_eq(pthread_join(other, &written), 0);
	cr_assert_not_null(written);
	cr_assert_eq(result.claimed, 0);
	sqlite3_close(db);
}

/* Draining an outbox: what is claimed, what becomes of it, and in which order. */
#include "outbox_helpers.h"

#include "event/json.h"

#include <sys/stat.h>

TestSuite(outbox_drain, .init = setup, .fini = teardown, .timeout = 60);

#define SOON "strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds')"

/* A row as another drainer has it: with a lease of 30 s that ends in so many seconds. */
static void lease(const char *id, int left_s)
{
	char statement[500];

	snprintf(statement, sizeof statement,
		 "UPDATE outbox SET state = 'PROCESSING', lease_owner = 'other:1:00:30000', lease_expires_at = "
		 "strftime('%%Y-%%m-%%dT%%H:%%M:%%f000Z', 'now', '%d seconds') WHERE id = '%s'",
		 left_s, id);
	sql(statement);
}

/* ---- one row --------------------------------------------------------------------------------------------------- */

Test(outbox_drain, a_row_is_published_and_marked_with_its_receipt)
{
	init(outbox);
	insert("a", NULL, "{\"n\":1.10, \"big\":12345678901234567890}");
	drain();
	cr_assert_eq(result.claimed, 1);
	cr_assert_eq(result.sent, 1);
	cr_assert_eq(result.next_due_ms, -1);
	cr_assert_str_eq(receipts, "orders/0 ");
	cr_assert_str_eq(log_of("orders"), "{\"n\":1.10, \"big\":12345678901234567890}");
	cr_assert_str_eq(sql("SELECT state, attempts, lease_owner, lease_expires_at, last_error FROM outbox"), "SENT|0|-|-|-");
	cr_assert_str_eq(sql("SELECT json_extract(receipt, '$.topic', '$.partition_id', '$.offset_kind', '$.offset'), "
			     "json_extract(receipt, '$.published_at_utc') <= sent_at FROM outbox"),
			 "[\"orders\",0,\"file_line\",\"0\"]|1");
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert_str_eq(receipts, "");
}

Test(outbox_drain, an_event_is_known_by_its_event_key_or_its_id)
{
	init(outbox);
	insert("a", NULL, "{}");
	drain();
	sql("UPDATE outbox SET state = 'PENDING'");
	drain();
	cr_assert_eq(result.duplicates, 1);
	cr_assert_str_eq(receipts, "orders/0! ");
	cr_assert(strstr(sql("SELECT receipt FROM outbox"), ",\"duplicate\":true}"));
	sql("INSERT INTO outbox (id, topic, event_type, payload, event_key) VALUES ('b', 'orders', 't', '{}', 'a')");
	sql("INSERT INTO outbox (id, topic, event_type, payload, tenant_id) VALUES ('c', 'orders', 't', '{}', 'T')");
	sql("UPDATE outbox SET id = 'old' WHERE id = 'a'");
	sql("INSERT INTO outbox (id, topic, event_type, payload, tenant_id) VALUES ('a', 'orders', 't', '{}', 'T')");
	drain();
	cr_assert_eq(result.duplicates, 1);
	cr_assert_str_eq(receipts, "orders/0! orders/1 orders/2 ");
}

Test(outbox_drain, rows_go_to_the_partition_of_their_key)
{
	const struct evbus_topic_options four = { .partitions = 4 };
	bool created;

	cr_assert_eq(evbus_topic_create(bus, "orders", &four, &created, &err), EVBUS_OK);
	init(outbox);
	insert("a", "m_17", "{}");
	insert("b", "m_18", "{}");
	drain();
	cr_assert_eq(result.sent, 2);
	cr_assert_str_eq(sql("SELECT json_extract(receipt, '$.partition_id') FROM outbox"), "2 3");
}

Test(outbox_drain, the_envelope_is_built_around_the_bytes_of_a_body)
{
	struct evbus_outbox *wrapping = open_with(APP, NULL, true);

	init(wrapping);
	insert("a\"b", NULL, "{ \"x\" : 1.10 }");
	insert("b", NULL, "[1, 2]");
	insert("c", NULL, "nope");
	sql("UPDATE outbox SET created_at = '2026-01-29 12:00:00', tenant_id = 'T' WHERE seq = 1;"
	    "UPDATE outbox SET created_at = '2026-01-29T12:00:00+01:00' WHERE seq = 2");
	cr_assert_eq(drain_by(wrapping), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(log_of("orders"),
			 "{\"event_id\":\"a\\\"b\",\"event_type\":\"t\",\"occurred_at\":\"2026-01-29T12:00:00.000000Z\","
			 "\"tenant_id\":\"T\",\"data\":{ \"x\" : 1.10 }} "
			 "{\"event_id\":\"b\",\"event_type\":\"t\",\"occurred_at\":\"2026-01-29T12:00:00+01:00\","
			 "\"data\":[1, 2]}");
	cr_assert_str_eq(states(), "SENT SENT FAILED");
	evbus_outbox_close(wrapping);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

Test(outbox_drain, what_can_never_become_an_event_is_failed_at_once_and_stops_nothing)
{
	init(outbox);
	insert("a", "k", "{}");
	insert("b", "k", "nope");
	insert("c", "k", "{\"line\":\n1}");
	insert("d", "k", "{}");
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('e', 'no topic', 't', '{}'), ('f', '', 't', '{}'),"
	    "('g', 'orders', 't', '{\"x\":\"' || printf('%.*c', 1048576, 'x') || '\"}'), ('h', 'orders', 't', x'7b0a')");
	drain();
	cr_assert_str_eq(states(), "SENT FAILED FAILED SENT FAILED FAILED FAILED FAILED");
	cr_assert_eq(result.failed, 6);
	cr_assert_eq(result.sent, 2);
	cr_assert_eq(result.next_due_ms, -1);
	cr_assert_str_eq(sql("SELECT json_extract(history, '$[0].reason'), attempts, json_array_length(history) FROM outbox "
			     "WHERE state = 'FAILED'"),
			 "not_json|1|1 not_json|1|1 backend|1|1 backend|1|1 too_large|1|1 not_json|1|1");
	cr_assert(strstr(refusals, "b:1:dead:the event is not one JSON object"), "%s", refusals);
	cr_assert_eq(count_of("SELECT COUNT(*) FROM outbox WHERE state = 'FAILED' AND last_error = "
			      "json_extract(history, '$[0].error') AND next_attempt_at IS NULL"),
		     6);
}

/* Without a key it has no partition there. */
static void make_picky_topic(void)
{
	const struct evbus_topic_options two = { .partitions = 2 };
	bool created;

	cr_assert_eq(evbus_topic_create(bus, "picky", &two, &created, &err), EVBUS_OK);
}

Test(outbox_drain, a_refusal_is_tried_again_and_is_failed_after_the_last_attempt)
{
	make_picky_topic();
	init(outbox);
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('a', 'picky', 't', '{}')");
	for (int i = 1; i <= 2; i++) {
		drain();
		cr_assert_eq(result.retried, 1);
		cr_assert_eq(count_of("SELECT attempts FROM outbox WHERE state = 'PENDING' AND next_attempt_at IS NOT NULL"), i);
	}
	drain();
	cr_assert_eq(result.failed, 1);
	cr_assert_str_eq(sql("SELECT state, attempts, json_array_length(history), json_extract(history, '$[2].attempt'), "
			     "json_extract(history, '$[2].reason') FROM outbox"),
			 "FAILED|3|3|3|backend");
	cr_assert(strstr(sql("SELECT last_error FROM outbox"), "2 partitions"));
	drain();
	cr_assert_eq(result.claimed, 0);
}

Test(outbox_drain, the_next_attempt_is_due_within_the_bound_and_not_before)
{
	options.retry = (struct evbus_retry){ 5, 60000, 2.0, 60000 };
	make_picky_topic();
	init(outbox);
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('a', 'picky', 't', '{}')");
	drain();
	cr_assert(result.next_due_ms >= 0 && result.next_due_ms <= 60000, "%d", (int)result.next_due_ms);
	sql("UPDATE outbox SET next_attempt_at = " SOON);
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert(result.next_due_ms > 10000 && result.next_due_ms <= 20000, "%d", (int)result.next_due_ms);
	sql("UPDATE outbox SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-1 seconds')");
	drain();
	cr_assert_eq(result.claimed, 1);
}

Test(outbox_drain, a_due_time_of_a_clock_that_went_back_does_no_harm)
{
	options.retry = (struct evbus_retry){ 5, 1000, 2.0, 60000 };
	init(outbox);
	insert("a", NULL, "{}");
	sql("UPDATE outbox SET attempts = 2, next_attempt_at = " SOON);
	drain();
	cr_assert_eq(result.sent, 1);
}

Test(outbox_drain, a_row_that_the_application_wants_later_is_published_later)
{
	init(outbox);
	insert("a", NULL, "{}");
	insert("b", NULL, "{}");
	sql("UPDATE outbox SET next_attempt_at = '2999-01-01T00:00:00.000000Z' WHERE id = 'a';"
	    "UPDATE outbox SET next_attempt_at = '2020-01-01 00:00:00' WHERE id = 'b'");
	drain();
	cr_assert_str_eq(states(), "PENDING SENT");
}

/* ---- order ----------------------------------------------------------------------------------------------------- */

Test(outbox_drain, a_row_that_waits_holds_back_its_key_and_no_other)
{
	options.retry = (struct evbus_retry){ 5, 60000, 2.0, 60000 };
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("b1", "b", "{\"n\":2}");
	insert("a2", "a", "{\"n\":3}");
	insert("b2", "b", "{\"n\":4}");
	insert("x", NULL, "{\"n\":5}");
	sql("INSERT INTO outbox (id, topic, event_type, payload, partition_key) VALUES ('a3', 'other', 't', '{}', 'a');"
	    "UPDATE outbox SET attempts = 1, next_attempt_at = " SOON " WHERE id = 'a1'");
	drain();
	cr_assert_str_eq(states(), "PENDING SENT PENDING SENT SENT SENT");
	cr_assert_str_eq(log_of("orders"), "{\"n\":2} {\"n\":4} {\"n\":5}");
	sql("UPDATE outbox SET next_attempt_at = NULL");
	drain();
	cr_assert_str_eq(log_of("orders"), "{\"n\":2} {\"n\":4} {\"n\":5} {\"n\":1} {\"n\":3}");
}

Test(outbox_drain, what_stands_behind_a_refusal_in_its_batch_is_given_back_untouched)
{
	make_picky_topic();
	options.retry = (struct evbus_retry){ 5, 60000, 2.0, 60000 };
	init(outbox);
	/* An event key that is too long is refused, and not as hopeless. */
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	insert("a3", "a", "{\"n\":3}");
	insert("b1", "b", "{\"n\":4}");
	sql("UPDATE outbox SET event_key = printf('%.*c', 2000, 'x') WHERE id = 'a1'");
	drain();
	cr_assert_eq(result.claimed, 4);
	cr_assert_eq(result.retried, 1);
	cr_assert_str_eq(sql("SELECT state, attempts, next_attempt_at IS NOT NULL, lease_owner FROM outbox"),
			 "PENDING|1|1|- PENDING|0|0|- PENDING|0|0|- SENT|0|0|-");
	cr_assert_str_eq(log_of("orders"), "{\"n\":4}");
	sql("UPDATE outbox SET event_key = NULL, next_attempt_at = NULL");
	drain();
	cr_assert_str_eq(log_of("orders"), "{\"n\":4} {\"n\":1} {\"n\":2} {\"n\":3}");
}

Test(outbox_drain, a_dead_letter_does_not_hold_back_its_key)
{
	options.retry.max = 0;
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	sql("UPDATE outbox SET event_key = printf('%.*c', 2000, 'x') WHERE id = 'a1'");
	drain();
	cr_assert_str_eq(states(), "FAILED SENT");
}

Test(outbox_drain, a_batch_is_no_larger_than_asked_and_goes_on_where_the_last_one_ended)
{
	options.batch = 3;
	init(outbox);
	fill(8, 2);
	drain();
	cr_assert_str_eq(receipts, "orders/0 orders/1 orders/2 ");
	drain();
	cr_assert_str_eq(receipts, "orders/3 orders/4 orders/5 ");
	drain();
	cr_assert_str_eq(receipts, "orders/6 orders/7 ");
	cr_assert_str_eq(log_of("orders"), "{\"id\":\"e1\"} {\"id\":\"e2\"} {\"id\":\"e3\"} {\"id\":\"e4\"} {\"id\":\"e5\"} "
					   "{\"id\":\"e6\"} {\"id\":\"e7\"} {\"id\":\"e8\"}");
}

Test(outbox_drain, rows_behind_a_given_one_are_left_alone)
{
	options.up_to_seq = 2;
	init(outbox);
	fill(4, 0);
	drain();
	drain();
	cr_assert_str_eq(states(), "SENT SENT PENDING PENDING");
	cr_assert_eq(result.claimed, 0);
}

Test(outbox_drain, a_batch_has_a_limit_in_bytes)
{
	init(outbox);
	sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO outbox (id, topic, "
	    "event_type, payload) SELECT i, 'orders', 't', '{\"a\":\"' || printf('%.*c', 1000000, 'x') || '\"}' FROM n");
	drain();
	cr_assert_eq(result.claimed, 17);
	drain();
	cr_assert_eq(result.claimed, 3);
}

/* ---- several drainers ------------------------------------------------------------------------------------------ */

Test(outbox_drain, what_another_has_leased_holds_back_its_key_until_the_lease_is_over)
{
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	insert("b1", "b", "{\"n\":3}");
	lease("a1", 20);
	drain();
	cr_assert_str_eq(states(), "PROCESSING PENDING SENT");
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert(result.next_due_ms > 10000 && result.next_due_ms <= 20000, "%d", (int)result.next_due_ms);
	lease("a1", -1);
	drain();
	cr_assert_str_eq(log_of("orders"), "{\"n\":3} {\"n\":1} {\"n\":2}");
}

Test(outbox_drain, a_lease_that_ends_later_than_leases_do_is_of_a_clock_that_went_back)
{
	init(outbox);
	insert("a", NULL, "{}");
	lease("a", 40);
	drain();
	cr_assert_eq(result.sent, 1);
}

Test(outbox_drain, how_long_a_lease_is_is_what_its_owner_says)
{
	init(outbox);
	insert("a", NULL, "{}");
	lease("a", 500);
	sql("UPDATE outbox SET lease_owner = 'other:1:00:600000'");
	drain();
	cr_assert_eq(result.claimed, 0);
}

Test(outbox_drain, processing_without_an_end_is_nobodys)
{
	init(outbox);
	insert("a", NULL, "{}");
	sql("UPDATE outbox SET state = 'PROCESSING'");
	drain();
	cr_assert_eq(result.sent, 1);
}

static const char *meanwhile;

/* Between claiming and marking. */
static int sync_and_be_late(int fd)
{
	if (meanwhile)
		sql(meanwhile);
	meanwhile = NULL;
	return fdatasync(fd);
}

#define THEIRS "state = 'PROCESSING', lease_owner = 'other:1:00:30000', lease_expires_at = " SOON

Test(outbox_drain, rows_are_marked_only_while_the_lease_is_ours)
{
	init(outbox);
	insert("first", NULL, "{}");
	drain();
	sql("DELETE FROM outbox");
	fill(3, 0);
	meanwhile = "UPDATE outbox SET " THEIRS " WHERE id = 'e2';"
		    "UPDATE outbox SET state = 'SENT', receipt = 'theirs', lease_owner = NULL WHERE id = 'e3'";
	os.fdatasync = sync_and_be_late;
	drain();
	cr_assert_eq(result.claimed, 3);
	cr_assert_eq(result.sent, 1);
	cr_assert_eq(result.lost, 2);
	cr_assert_str_eq(receipts, "orders/1 ");
	cr_assert_str_eq(sql("SELECT state, lease_owner, receipt = 'theirs' FROM outbox"),
			 "SENT|-|0 PROCESSING|other:1:00:30000|- SENT|-|1");
}

/* Of what this pass has taken, a row is not done after all: the next of its key has to wait for it. */
Test(outbox_drain, what_was_lost_to_another_holds_back_its_key)
{
	options.batch = 1;
	init(outbox);
	insert("first", NULL, "{}");
	drain();
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	meanwhile = "UPDATE outbox SET " THEIRS " WHERE id = 'a1'";
	os.fdatasync = sync_and_be_late;
	drain();
	cr_assert_eq(result.lost, 1);
	drain();
	cr_assert_eq(result.claimed, 0);
	cr_assert_str_eq(states(), "SENT PROCESSING PENDING");
}

Test(outbox_drain, our_own_leases_are_taken_again_at_once)
{
	init(outbox);
	fill(1, 0);
	/* Marking fails: the application holds its database. */
	sqlite3 *db = open_app();
	struct outbox_batch batch = { .options = &options, .lease_ms = 30000, .now_us = os_now_us() };
	options.batch = 10;
	snprintf(outbox->owner, sizeof outbox->owner, "own:1:00:");
	snprintf(batch.owner, sizeof batch.owner, "own:1:00:30000");
	cr_assert_eq(outbox_look(outbox, &err), EVBUS_OK);
	cr_assert_eq(outbox_claim(outbox, &batch, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(batch.count, 1);
	cr_assert_str_eq(states(), "PROCESSING");
	outbox_held_release(&batch.jobs[0].held);
	free(batch.jobs);
	outbox->rescan_at_us = 0;
	drain();
	cr_assert_eq(result.sent, 1);
	sqlite3_close(db);
}

Test(outbox_drain, two_drainers_keep_the_order_of_a_key)
{
	struct evbus_outbox *other = open_with(APP, NULL, false);
	int sent = 0;

	options.batch = 7;
	init(outbox);
	fill(100, 3);
	for (int i = 0; i < 40; i++) {
		cr_assert_eq(drain_by(i % 2 ? outbox : other), EVBUS_OK, "%s", err.text);
		sent += (int)result.sent;
	}
	cr_assert_eq(sent, 100);
	cr_assert_eq(count_of("SELECT COUNT(*) FROM outbox AS a, outbox AS b WHERE a.partition_key = b.partition_key AND "
			      "a.seq < b.seq AND CAST(json_extract(a.receipt, '$.offset') AS INTEGER) > "
			      "CAST(json_extract(b.receipt, '$.offset') AS INTEGER)"),
		     0);
	evbus_outbox_close(other);
}

/* A row that was passed over when its key was blocked must not be overtaken when it no longer is. */
Test(outbox_drain, what_is_remembered_of_earlier_looks_breaks_no_order)
{
	options.batch = 2;
	init(outbox);
	insert("a1", "a", "{\"n\":1}");
	insert("a2", "a", "{\"n\":2}");
	fill(4, 0);
	lease("a1", 20);
	drain();
	cr_assert_str_eq(states(), "PROCESSING PENDING SENT SENT PENDING PENDING");
	insert("a3", "a", "{\"n\":3}");
	sql("UPDATE outbox SET state = 'PENDING', lease_owner = NULL, lease_expires_at = NULL WHERE id = 'a1'");
	options.batch = 100;
	for (int i = 0; i < 3; i++)
		drain();
	cr_assert_str_eq(states(), "SENT SENT SENT SENT SENT SENT SENT");
	cr_assert_eq(count_of("SELECT COUNT(*) FROM outbox AS a, outbox AS b WHERE a.partition_key = b.partition_key AND "
			      "a.seq < b.seq AND CAST(json_extract(a.receipt, '$.offset') AS INTEGER) > "
			      "CAST(json_extract(b.receipt, '$.offset') AS INTEGER)"),
		     0);
}

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

Test(outbox_drain, an_outage_counts_no_attempt_and_marks_nothing)
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

Test(outbox_drain, what_has_its_receipt_is_marked_before_the_outage_comes_up)
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

Test(outbox_drain, a_bus_that_is_not_there_is_an_outage)
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

Test(outbox_drain, nothing_is_published_when_the_lease_has_run_out)
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

Test(outbox_drain, a_receipt_that_cannot_be_told_is_marked_all_the_same)
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

Test(outbox_drain, options_that_cannot_be_are_refused)
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

#define FOREIGN                                                                                        \
	"CREATE TABLE events (number INTEGER PRIMARY KEY, key INTEGER UNIQUE, kind TEXT, body BLOB, status INT " \
	"DEFAULT 0, customer TEXT, made TEXT DEFAULT CURRENT_TIMESTAMP, extra TEXT NOT NULL DEFAULT 'x')"
#define FOREIGN_MAP                                                                                          \
	"table=events,seq=number,id=key,event_type=kind,payload=body,state=status,partition_key=customer,"     \
	"created_at=made,topic=crm.{kind},state.PENDING=0,state.PROCESSING=1,state.SENT=2,state.FAILED=3"

static void insert_foreign(int key, const char *customer, const char *body)
{
	char statement[500];

	snprintf(statement, sizeof statement, "INSERT INTO events (key, kind, customer, body) VALUES (%d, 'made', '%s', '%s')",
		 key, customer, body);
	sql(statement);
}

Test(outbox_drain, a_table_without_leases_counts_or_receipts_is_drained)
{
	sql(FOREIGN);
	struct evbus_outbox *foreign = open_with(APP, FOREIGN_MAP, false);
	init(foreign);
	insert_foreign(7, "a", "{\"n\":1}");
	insert_foreign(8, "a", "nope");
	insert_foreign(9, "a", "{\"n\":2}");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(receipts, "crm.made/0 crm.made/1 ");
	cr_assert_str_eq(sql("SELECT key, status, extra, body FROM events"), "7|2|x|{\"n\":1} 8|3|x|nope 9|2|x|{\"n\":2}");
	cr_assert_str_eq(log_of("crm.made"), "{\"n\":1} {\"n\":2}");
	evbus_outbox_close(foreign);
}

Test(outbox_drain, counts_and_due_times_that_the_table_has_no_place_for_are_in_the_store)
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
	sql_in("bus/.evbus/state.db", "UPDATE retries SET next_attempt_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '+20 seconds')");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.claimed, 0);
	cr_assert_gt(result.next_due_ms, 10000);
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT substr(group_name, 1, 14), record_offset, attempts FROM retries"),
			 "outbox:sqlite:|1|1");
	sql_in("bus/.evbus/state.db", "UPDATE retries SET next_attempt_at = ''");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.failed, 1);
	cr_assert_str_eq(sql("SELECT status FROM events"), "3");
	cr_assert_str_eq(sql_in("bus/.evbus/state.db", "SELECT attempts, json_array_length(history) FROM retries"), "2|2");

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

Test(outbox_drain, without_leases_only_one_may_drain_at_a_time)
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

Test(outbox_drain, only_columns_that_were_told_of_are_written)
{
	struct evbus_outbox *foreign;

	sql("CREATE TABLE outbox (id TEXT, topic TEXT, payload TEXT, state TEXT DEFAULT 'PENDING', own TEXT DEFAULT 'mine', "
	    "lease_owner TEXT DEFAULT 'not yours')");
	foreign = open_with(APP, "seq=rowid", false);
	init(foreign);
	sql("INSERT INTO outbox (id, topic, payload) VALUES ('a', 'orders', '{}')");
	cr_assert_eq(drain_by(foreign), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(sql("SELECT id, state, own, lease_owner FROM outbox"), "a|SENT|mine|not yours");
	evbus_outbox_close(foreign);
}

/* ---- clocks ---------------------------------------------------------------------------------------------------- */

static int64_t ticks;

/* Each look at the time of day takes a second. */
static int ticking_clock(clockid_t clock, struct timespec *now)
{
	if (clock != CLOCK_REALTIME)
		return clock_gettime(clock, now);
	*now = (struct timespec){ .tv_sec = 1800000000 + ticks++ };
	return 0;
}

/* It was taken while we waited for the database: by the time at which we began it would end too late. */
Test(outbox_drain, a_lease_is_judged_by_the_time_at_which_it_was_read)
{
	char statement[300], expires[28];

	init(outbox);
	insert("a", NULL, "{}");
	lease("a", 20);
	evbus_time_format(INT64_C(1800000030500000), expires);
	snprintf(statement, sizeof statement, "UPDATE outbox SET lease_expires_at = '%s'", expires);
	sql(statement);
	os.clock_gettime = ticking_clock;
	drain();
	cr_assert_eq(result.claimed, 0);
}

/* Draining an outbox: what is claimed, what becomes of it, and in which order. */
#include "outbox_helpers.h"

#include "event/json.h"
#include "log/writer.h"

#include <sys/stat.h>

TestSuite(outbox_drain, .init = setup, .fini = teardown, .timeout = 60);

/* Of an application whose tenants choose the ids; the manual says how. */
Test(outbox_drain, a_table_that_keeps_the_ids_of_tenants_apart_is_as_good)
{
	static const char *const into = "INSERT INTO outbox (id, tenant_id, topic, event_type, payload) VALUES ";
	char made[2048], apart[2100], rows[300];

	init(outbox);
	snprintf(made, sizeof made, "%s",
		 sql("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'outbox'"));
	char *unique = strstr(made, " UNIQUE");
	cr_assert(unique && made[strlen(made) - 1] == ')', "%s", made);
	snprintf(apart, sizeof apart, "%.*s%.*s, UNIQUE (\"tenant_id\", \"id\"))", (int)(unique - made), made,
		 (int)strlen(unique) - 8, unique + 7);
	sql("DROP TABLE outbox");
	sql(apart);
	init(outbox);
	snprintf(rows, sizeof rows, "%s('1', 'A', 'orders', 't', '{\"a\":1}'), ('1', 'B', 'orders', 't', '{\"b\":1}')",
		 into);
	sql(rows);
	drain();
	cr_assert_eq(result.sent, 2);
	cr_assert_eq(result.duplicates, 0);
	cr_assert_str_eq(log_of("orders"), "{\"a\":1} {\"b\":1}");
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
	cr_assert_str_eq(sql("SELECT state, attempts, lease_owner, lease_expires_at, last_error FROM outbox"),
			 "SENT|0|-|-|-");
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

/* Somebody else's, on a server; a file holds it as well. */
static void append_what_is_no_object(const char *topic, struct evbus_slice event_key, struct evbus_slice base64)
{
	const struct line_body body = { .payload_base64 = base64, .event_key = event_key };
	struct group group = { .atomic = false };
	struct log_writer writer;
	struct topic opened;
	struct mark mark;

	cr_assert_eq(topic_open(bus->root, topic, &opened, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_open(&opened, 0, NULL, &writer, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(group_add(&group, &body, 0, 0, &err), EVBUS_OK);
	cr_assert_eq(writer_append(&writer, &group, UINT64_MAX, &mark, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(writer_commit(&writer, &mark, &group, &err), EVBUS_OK, "%s", err.text);
	group_release(&group);
	writer_close(&writer);
	topic_close(&opened);
}

static enum evbus_code expect_base64_in_the_line(void *context, const struct evbus_record *receipt, struct evbus_err *e)
{
	struct evbus_slice base64 = receipt->payload_base64, line = receipt->stored;

	cr_assert(receipt->duplicate && !receipt->payload.data);
	cr_assert(base64.len == 4 && base64.data > line.data && base64.data + base64.len < line.data + line.len);
	cr_assert(!memcmp(base64.data, "WzFd", 4));
	return take_receipt(context, receipt, e);
}

Test(outbox_drain, a_receipt_of_what_is_no_object_keeps_its_bytes)
{
	bool created;

	init(outbox);
	cr_assert_eq(evbus_topic_create(bus, "orders", NULL, &created, &err), EVBUS_OK);
	append_what_is_no_object("orders", IS("a"), IS("WzFd"));
	insert("a", NULL, "{}");
	options.receipt = expect_base64_in_the_line;
	drain();
	cr_assert_str_eq(receipts, "orders/0! ");
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
	cr_assert_str_eq(
		log_of("orders"),
		"{\"event_id\":\"a\\\"b\",\"event_type\":\"t\",\"occurred_at\":\"2026-01-29T12:00:00.000000Z\","
		"\"tenant_id\":\"T\",\"data\":{ \"x\" : 1.10 }} "
		"{\"event_id\":\"b\",\"event_type\":\"t\",\"occurred_at\":\"2026-01-29T12:00:00+01:00\","
		"\"data\":[1, 2]}");
	cr_assert_str_eq(states(), "SENT SENT FAILED");
	evbus_outbox_close(wrapping);
}

/* In the log it would end the line. */
Test(outbox_drain, no_line_break_gets_into_the_log)
{
	const struct evbus_record *receipt;

	cr_assert_eq(evbus_publish(bus, "orders", "{\"a\":\n1}", &receipt, &err), EVBUS_DATA);
	cr_assert_eq(err.column, 6);
	cr_assert_eq(evbus_publish(bus, "orders", "{\"a\":\r\t 1}", &receipt, &err), EVBUS_OK, "%s", err.text);
	cr_assert_str_eq(log_of("orders"), "{\"a\":\r\t 1}");
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

Test(outbox_drain, what_can_never_become_an_event_is_failed_at_once_and_stops_nothing)
{
	init(outbox);
	insert("a", "k", "{}");
	insert("b", "k", "nope");
	insert("c", "k", "{\"line\":\n1}");
	insert("d", "k", "{}");
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('e', 'no topic', 't', '{}'), ('f', '', 't', "
	    "'{}'),"
	    "('g', 'orders', 't', '{\"x\":\"' || printf('%.*c', 1048576, 'x') || '\"}'), ('h', 'orders', 't', "
	    "x'7b0a')");
	drain();
	cr_assert_str_eq(states(), "SENT FAILED FAILED SENT FAILED FAILED FAILED FAILED");
	cr_assert_eq(result.failed, 6);
	cr_assert_eq(result.sent, 2);
	cr_assert_eq(result.next_due_ms, -1);
	cr_assert_str_eq(
		sql("SELECT json_extract(history, '$[0].reason'), attempts, json_array_length(history) FROM outbox "
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
		cr_assert_eq(
			count_of("SELECT attempts FROM outbox WHERE state = 'PENDING' AND next_attempt_at IS NOT NULL"),
			i);
	}
	drain();
	cr_assert_eq(result.failed, 1);
	cr_assert_str_eq(
		sql("SELECT state, attempts, json_array_length(history), json_extract(history, '$[2].attempt'), "
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
	cr_assert_str_eq(log_of("orders"),
			 "{\"id\":\"e1\"} {\"id\":\"e2\"} {\"id\":\"e3\"} {\"id\":\"e4\"} {\"id\":\"e5\"} "
			 "{\"id\":\"e6\"} {\"id\":\"e7\"} {\"id\":\"e8\"}");
}

/* The numbers are an application's, too. */
Test(outbox_drain, attempts_beyond_all_bounds_are_counted_on_from_where_that_can_be)
{
	init(outbox);
	fill(3, 0);
	sql("UPDATE outbox SET topic = 'no topic', attempts = CASE seq WHEN 1 THEN 9223372036854775807 WHEN 2 THEN "
	    "-9223372036854775808 ELSE 1.5 END");
	drain();
	cr_assert_eq(result.failed, 3);
	cr_assert_str_eq(sql("SELECT attempts FROM outbox ORDER BY seq"), "2147483648 1 1");
}

Test(outbox_drain, a_row_with_the_lowest_number_is_refused_aloud)
{
	int64_t last;

	init(outbox);
	insert("a", NULL, "{}");
	sql("INSERT INTO outbox (seq, id, topic, event_type, payload) VALUES (-9223372036854775808, 'l', 'orders', "
	    "'t', "
	    "'{}'), (-9223372036854775807, 'n', 'orders', 't', '{}')");
	cr_assert_eq(drain_by(outbox), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "has the lowest number that there is in the column 'seq'"), "%s", err.text);
	cr_assert_str_eq(states(), "PENDING PENDING PENDING");
	sql("DELETE FROM outbox WHERE id <> 'l'");
	cr_assert_eq(evbus_outbox_last_seq(outbox, &last, &err), EVBUS_CONFIG, "a bounded drain is told, too");
	sql("INSERT INTO outbox (seq, id, topic, event_type, payload) VALUES (0, 'a', 'orders', 't', '{}'), "
	    "(-9223372036854775807, 'n', 'orders', 't', '{}')");
	sql("UPDATE outbox SET seq = -1 WHERE id = 'l'");
	drain();
	cr_assert_str_eq(states(), "SENT SENT SENT");
}

Test(outbox_drain, rows_behind_a_given_one_are_left_alone)
{
	options.bounded = true;
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
	sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8) INSERT INTO outbox (id, "
	    "topic, "
	    "event_type, payload) SELECT i, 'orders', 't', '{\"a\":\"' || printf('%.*c', 1000000, 'x') || '\"}' FROM "
	    "n");
	drain();
	cr_assert_eq(result.claimed, 5);
	drain();
	cr_assert_eq(result.claimed, 3);
}

/* What they are marked by is a range. */
Test(outbox_drain, rows_between_those_of_a_batch_are_left_alone)
{
	sql("CREATE TABLE events (seq INTEGER PRIMARY KEY, id TEXT, topic TEXT, payload TEXT, state TEXT DEFAULT "
	    "'PENDING', "
	    "attempts INTEGER DEFAULT 0, next_attempt_at TEXT);"
	    "INSERT INTO events (seq, id, topic, payload, next_attempt_at) VALUES (1, 'a', 'orders', '{\"n\":1}', "
	    "NULL), "
	    "(2, 'b', 'orders', '{\"n\":2}', " SOON "), (3, 'c', 'orders', '{\"n\":3}', NULL)");
	struct evbus_outbox *events = open_with(APP, "table=events", false);
	cr_assert_eq(drain_by(events), EVBUS_OK, "%s", err.text);
	cr_assert_eq(result.sent, 2);
	cr_assert_str_eq(sql("SELECT state FROM events ORDER BY seq"), "SENT PENDING SENT");
	cr_assert_str_eq(log_of("orders"), "{\"n\":1} {\"n\":3}");
	evbus_outbox_close(events);
}

/* What operators do with rows that are FAILED, and with those that are done. */
#include "outbox_helpers.h"

TestSuite(outbox_letters, .init = setup, .fini = teardown, .timeout = 60);

/* e1 SENT, e2 FAILED after one attempt, e3 PENDING. */
static void fill_three(void)
{
	init(outbox);
	fill(2, 0);
	sql("UPDATE outbox SET payload = 'nope' WHERE id = 'e2'");
	drain();
	sql("INSERT INTO outbox (id, topic, event_type, payload) VALUES ('e3', 'orders', 't', '{}')");
	cr_assert_str_eq(states(), "SENT FAILED PENDING");
}

Test(outbox_letters, a_dead_row_becomes_due_with_no_attempts_and_its_history)
{
	bool changed = false;

	fill_three();
	cr_assert_eq(outbox_requeue(outbox, 2, &changed, &err), EVBUS_OK, "%s", err.text);
	cr_assert(changed);
	cr_assert_str_eq(
		sql("SELECT state, attempts, next_attempt_at, json_array_length(history) FROM outbox WHERE seq = 2"),
		"PENDING|0|-|1");
	sql("UPDATE outbox SET payload = '{}' WHERE seq = 2");
	drain();
	drain();
	cr_assert_str_eq(states(), "SENT SENT SENT");
}

Test(outbox_letters, only_a_dead_row_is_changed)
{
	static const int64_t others[] = { 1, 3, 99 };
	bool changed = true;

	fill_three();
	char before[2000];
	snprintf(before, sizeof before, "%s", sql("SELECT * FROM outbox"));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		cr_assert_eq(outbox_requeue(outbox, others[i], &changed, &err), EVBUS_OK);
		cr_assert(!changed);
		cr_assert_eq(outbox_settle(outbox, others[i], IS("{}"), &changed, &err), EVBUS_OK);
		cr_assert(!changed);
		cr_assert_eq(outbox_fail_again(outbox, others[i], EVBUS_REASON_TIMEOUT, IS("x"), &changed, &err),
			     EVBUS_OK);
		cr_assert(!changed);
	}
	cr_assert_str_eq(sql("SELECT * FROM outbox"), before);
}

Test(outbox_letters, a_dead_row_that_was_done_by_hand_is_sent_with_what_came_of_it)
{
	bool changed = false;

	fill_three();
	cr_assert_eq(outbox_settle(outbox, 2, IS("{\"it's\":1}"), &changed, &err), EVBUS_OK, "%s", err.text);
	cr_assert(changed);
	cr_assert_str_eq(sql("SELECT state, receipt, sent_at IS NOT NULL FROM outbox WHERE seq = 2"),
			 "SENT|{\"it's\":1}|1");
}

Test(outbox_letters, one_more_attempt_that_failed_is_added)
{
	bool changed = false;

	fill_three();
	cr_assert_eq(outbox_fail_again(outbox, 2, EVBUS_REASON_TIMEOUT, IS("too \xff slow"), &changed, &err), EVBUS_OK,
		     "%s", err.text);
	cr_assert(changed);
	cr_assert_str_eq(sql("SELECT state, attempts, last_error, json_array_length(history), "
			     "json_extract(history, '$[1].reason', '$[1].attempt') FROM outbox WHERE seq = 2"),
			 "FAILED|2|too \xef\xbf\xbd slow|2|[\"timeout\",2]");
}

Test(outbox_letters, sweeping_removes_what_was_sent_before_a_time_and_nothing_else)
{
	int64_t cut;
	uint64_t count = 0;

	init(outbox);
	fill(2500, 0);
	sql("UPDATE outbox SET state = 'SENT', sent_at = '2026-01-01T00:00:00.000000Z' WHERE seq % 2 = 1;"
	    "UPDATE outbox SET state = 'SENT', sent_at = '2026-01-03T00:00:00.000000Z' WHERE seq % 10 = 2;"
	    "UPDATE outbox SET state = 'FAILED', sent_at = '2026-01-01T00:00:00.000000Z' WHERE seq % 10 = 4;"
	    "UPDATE outbox SET sent_at = NULL WHERE seq = 1");
	cr_assert_eq(evbus_time_parse("2026-01-02T00:00:00Z", 0, &cut, &err), EVBUS_OK);
	cr_assert_eq(outbox_sweep(outbox, cut, true, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(count, 1249);
	cr_assert_eq(count_of("SELECT COUNT(*) FROM outbox"), 2500);
	cr_assert_eq(outbox_sweep(outbox, cut, false, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(count, 1249);
	cr_assert_str_eq(sql("SELECT state, COUNT(*) FROM outbox GROUP BY state"), "FAILED|250 PENDING|750 SENT|251");
	cr_assert_eq(outbox_sweep(outbox, cut, false, &count, &err), EVBUS_OK, "%s", err.text);
	cr_assert_eq(count, 0);
}

Test(outbox_letters, what_does_not_say_when_it_was_sent_is_not_swept)
{
	struct evbus_outbox *foreign;
	uint64_t count;

	sql("CREATE TABLE outbox (id TEXT, topic TEXT, payload TEXT, state TEXT DEFAULT 'PENDING')");
	foreign = open_with(APP, "seq=rowid", false);
	cr_assert_eq(outbox_sweep(foreign, INT64_MAX, false, &count, &err), EVBUS_CONFIG);
	cr_assert(strstr(err.text, "sent_at=COLUMN"), "%s", err.text);
	evbus_outbox_close(foreign);
}

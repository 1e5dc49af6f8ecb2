/* An event that fails is tried again when it is due, also by the next consumer, and is a dead letter in the end. */
#include "consumer_helpers.h"
#include "store/table.h"

TestSuite(consumer_retry, .init = enter, .fini = leave, .timeout = 30);

#define NEVER_MS 86400000 /* a day: by the jitter one of a million ends within 100 ms */

/* ---- attempts ---- */

Test(consumer_retry, tries_again_before_the_next_event_and_then_goes_on)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER();

	done(consumer, expect(consumer, 0, 1));
	cr_assert(!failed(consumer, expect(consumer, 1, 1)));
	cr_assert_eq(evbus_consumer_counts(consumer).waiting, 1);
	cr_assert(!failed(consumer, expect(consumer, 1, 2)));
	done(consumer, expect(consumer, 1, 3));
	done(consumer, expect(consumer, 2, 1));
	expect_end(consumer);
	struct evbus_consumer_counts counts = evbus_consumer_counts(consumer);
	cr_assert(counts.delivered == 5 && counts.done == 3 && counts.failed == 2 && !counts.dead && !counts.waiting);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 3);
	cr_assert_eq(count_of("retries"), 0);
	cr_assert_eq(count_of("dlq"), 0);
}

Test(consumer_retry, stores_each_attempt_that_failed_at_once)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 100, .retry = { 5, 1000, 2, 60000 });

	done(consumer, expect(consumer, 0, 1));
	cr_assert_eq(stored(), -1);
	failed(consumer, expect(consumer, 1, 1));
	cr_assert_eq(stored(), 1, "what else is done goes with it");
	cr_assert_str_eq(sql("SELECT record_offset || attempts || last_error || length(next_attempt_at) FROM retries"),
			 "11it broke27");
	cr_assert(strstr(sql("SELECT history FROM retries"), "\"reason\":\"retries\",\"error\":\"it broke\"}]"));
	evbus_consumer_close(consumer);
}

Test(consumer_retry, makes_a_dead_letter_after_the_last_attempt_and_goes_on)
{
	publish_to("t", 0, "k",
		   "{\"event_id\":\"e\\u0031\",\"n\":0,\"event_type\":\"a.b\",\"tenant_id\":\"T\",\"correlation_id\":"
		   "\"C\"}");
	publish(1, 1);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 100);

	cr_assert(!failed(consumer, expect(consumer, 0, 1)));
	cr_assert(!failed(consumer, expect(consumer, 0, 2)));
	cr_assert(failed(consumer, expect(consumer, 0, 3)));
	cr_assert_eq(stored(), 1);
	cr_assert_eq(count_of("retries"), 0);
	cr_assert_str_eq(
		sql("SELECT id || state || group_name || tenant_id || topic || partition_id || record_offset || "
		    "offset_kind || partition_key || event_id || event_type || correlation_id || reason || error "
		    "|| attempts || returns FROM dlq"),
		"1DEADgTt00file_lineke1a.bCretriesit broke30");
	cr_assert_str_eq(sql("SELECT json_array_length(history) FROM dlq"), "3");
	cr_assert(strstr(sql("SELECT payload FROM dlq"), "{\"event_id\":\"e\\u0031\",\"n\":0,"));
	done(consumer, expect(consumer, 1, 1));
	expect_end(consumer);
	cr_assert_eq(evbus_consumer_counts(consumer).dead, 1);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 2);
}

Test(consumer_retry, makes_a_dead_letter_at_once_of_what_was_refused)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER();

	refused(consumer, expect(consumer, 0, 1));
	cr_assert_eq(stored(), 1);
	cr_assert_str_eq(sql("SELECT reason || error || attempts FROM dlq"), "refusedno good1");
	done(consumer, expect(consumer, 1, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
}

Test(consumer_retry, with_no_retries_makes_a_dead_letter_of_the_first_failure)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.retry = { .max = 0, .factor = 1 });

	cr_assert(failed(consumer, expect(consumer, 0, 1)));
	expect_end(consumer);
	evbus_consumer_close(consumer);
}

Test(consumer_retry, stops_on_a_dead_letter_if_it_was_told_to)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER(.stop_on_dead = true);

	done(consumer, expect(consumer, 0, 1));
	cr_assert(!failed(consumer, expect(consumer, 1, 1)), "a failure is no dead letter");
	refused(consumer, expect(consumer, 1, 2));
	cr_assert(evbus_consumer_finished(consumer));
	cr_assert_null(next(consumer));
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 2);
	cr_assert_eq(finish(CONSUMER(.stop_on_dead = true)), 1);
}

Test(consumer_retry, keeps_what_the_handler_said_to_its_end_and_as_utf8)
{
	char text[EVBUS_ERROR_MAX_BYTES + 100], query[128];

	publish(0, 1);
	memset(text, 'x', sizeof text);
	memcpy(text + sizeof text - 3, "\xff\n!", 3);
	struct evbus_consumer *consumer = CONSUMER();
	OK(evbus_consumer_refused(consumer, next(consumer), EVBUS_REASON_REFUSED,
				  (struct evbus_slice){ text, sizeof text }, &err));
	snprintf(query, sizeof query, "SELECT length(error) || substr(error, length(error) - 2) FROM dlq");
	cr_assert_str_eq(sql(query), "4096\xef\xbf\xbd\n!");
	evbus_consumer_close(consumer);
}

/* ---- waiting ---- */

Test(consumer_retry, waits_for_the_due_time_and_blocks_the_partition_meanwhile)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER(.retry = { 5, NEVER_MS, 1, NEVER_MS });

	failed(consumer, expect(consumer, 0, 1));
	int64_t start = now_ms();
	cr_assert_null(next_within(consumer, 100));
	cr_assert(now_ms() - start >= 100);
	cr_assert(!evbus_consumer_finished(consumer));
	evbus_consumer_close(consumer);
}

/* The time of the first row of retries, from now. */
static double due_in_s(void)
{
	return strtod(sql("SELECT (julianday(next_attempt_at) - julianday('now')) * 86400 FROM retries"), NULL);
}

static void set_due(const char *when)
{
	char text[200];

	snprintf(text, sizeof text,
		 "UPDATE retries SET next_attempt_at = strftime('%%Y-%%m-%%dT%%H:%%M:%%f000Z', 'now', '%s')", when);
	sql(text);
}

Test(consumer_retry, waits_no_longer_and_no_shorter_after_a_restart)
{
	struct evbus_consumer_options options = OPTIONS(.retry = { 5, NEVER_MS, 1, NEVER_MS });

	publish(0, 1);
	struct evbus_consumer *consumer = consumer_with(options);
	failed(consumer, expect(consumer, 0, 1));
	cr_assert(due_in_s() > -1 && due_in_s() <= NEVER_MS / 1000.0);
	evbus_consumer_close(consumer);
	set_due("+0.4 seconds");
	int64_t start = now_ms();
	consumer = consumer_with(options);
	cr_assert_null(next_within(consumer, 200));
	cr_assert(failed(consumer, expect(consumer, 0, 2)) == false);
	cr_assert(now_ms() - start >= 380 && now_ms() - start < 1500, "after %lld ms", (long long)(now_ms() - start));
	evbus_consumer_close(consumer);
	set_due("-1 seconds");
	consumer = consumer_with(options);
	start = now_ms();
	done(consumer, expect(consumer, 0, 3));
	cr_assert(now_ms() - start < 500);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(count_of("retries"), 0);
}

Test(consumer_retry, takes_a_due_time_that_cannot_be_for_due)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.retry = { 5, 1000, 1, 1000 });
	failed(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
	set_due("+1 hour");
	consumer = CONSUMER(.retry = { 5, 1000, 1, 1000 });
	done(consumer, expect(consumer, 0, 2));
	evbus_consumer_close(consumer);
}

static int64_t jump_s;

static int jumping_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	if (clock == CLOCK_REALTIME)
		now->tv_sec += jump_s;
	return result;
}

Test(consumer_retry, does_not_mind_a_clock_that_jumps_while_it_runs)
{
	os.clock_gettime = jumping_clock;
	for (jump_s = -100000; jump_s <= 100000; jump_s += 200000) {
		int64_t jump = jump_s;
		jump_s = 0;
		publish(0, 2);
		struct evbus_consumer *consumer = CONSUMER(.retry = { 5, 200, 1, 200 }, .concurrency = 2);
		struct evbus_delivery *first = expect(consumer, 0, 1), *second = expect(consumer, 1, 1);
		failed(consumer, first);
		jump_s = jump;
		int64_t start = now_ms();
		done(consumer, second);
		done(consumer, expect(consumer, 0, 2));
		cr_assert(now_ms() - start < 1000);
		expect_end(consumer);
		evbus_consumer_close(consumer);
	}
}

Test(consumer_retry, counts_attempts_on_over_restarts_to_the_dead_letter)
{
	publish(0, 2);
	for (uint32_t attempt = 1; attempt <= 3; attempt++) {
		struct evbus_consumer *consumer = CONSUMER();
		cr_assert_eq(failed(consumer, expect(consumer, 0, attempt)), attempt == 3);
		evbus_consumer_close(consumer);
	}
	cr_assert_str_eq(sql("SELECT attempts || json_array_length(history) FROM dlq"), "33");
	cr_assert_eq(finish(CONSUMER()), 1);
}

/* ---- rows that are no longer of use ---- */

#define ROW(log, offset)                                                                                               \
	"INSERT INTO retries SELECT group_name, topic, partition_id, '" offset "', " log ", 2, "                       \
	"'2026-01-01T00:00:00.000000Z', 'old', '[]' FROM checkpoints"

Test(consumer_retry, removes_rows_that_are_below_the_checkpoint_or_of_another_log)
{
	publish(0, 12);
	struct evbus_consumer *consumer = CONSUMER();
	for (int i = 0; i < 10; i++)
		done(consumer, expect(consumer, i, 1));
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	sql(ROW("log_id", "3"));
	sql(ROW("log_id", "9"));
	sql(ROW("'other'", "11"));
	sql(ROW("log_id", "10"));
	consumer = CONSUMER();
	done(consumer, expect(consumer, 10, 3));
	done(consumer, expect(consumer, 11, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(count_of("retries"), 0);
}

Test(consumer_retry, removes_the_row_of_an_event_that_the_filter_passes_over_now)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER();
	failed(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
	consumer = CONSUMER(.filter = { .type = "x" });
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(count_of("retries"), 0);
}

Test(consumer_retry, says_that_a_row_is_damaged)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER();
	failed(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
	sql("UPDATE retries SET next_attempt_at = 'soon'");
	cr_assert_eq(OPENING(.commit_every = 1), EVBUS_IO);
	cr_assert(strstr(err.text, "damaged"), "%s", err.text);
}

/* ---- a store that fails ---- */

static struct evbus *holder;

static void hold_the_store(void)
{
	holder = open_bus();
	OK(table_begin(holder->store, &err));
}

static void let_go_of_the_store(void)
{
	table_rollback(holder->store);
	evbus_close(holder);
}

Test(consumer_retry, loses_no_outcome_when_the_store_is_busy)
{
	bool dead;

	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 100);
	done(consumer, expect(consumer, 0, 1));
	OK(evbus_consumer_commit(consumer, &err));
	hold_the_store();
	done(consumer, expect(consumer, 1, 1));
	struct evbus_delivery *delivery = expect(consumer, 2, 1);
	cr_assert_eq(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_SIGNAL, SLICE("x"), &dead, &err),
		     EVBUS_AGAIN);
	cr_assert_eq(stored(), 1);
	let_go_of_the_store();
	failed(consumer, expect(consumer, 2, 2));
	cr_assert_str_eq(sql("SELECT attempts || json_array_length(history) FROM retries"), "22");
	cr_assert_eq(stored(), 2);
	evbus_consumer_close(consumer);
}

Test(consumer_retry, makes_the_dead_letter_and_moves_the_checkpoint_together_or_not_at_all)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER();
	struct evbus_delivery *delivery = expect(consumer, 0, 1);

	failed(consumer, delivery);
	stored_refuse(STATE, "INSERT", "checkpoints", "1 = 1", "no");
	delivery = expect(consumer, 0, 2);
	cr_assert_eq(evbus_consumer_refused(consumer, delivery, EVBUS_REASON_REFUSED, SLICE("x"), &err), EVBUS_CONFLICT,
		     "%s", err.text);
	cr_assert(count_of("dlq") == 0 && count_of("retries") == 1 && stored() == -1);
	cr_assert(!evbus_consumer_finished(consumer));
	stored_allow(STATE, "checkpoints");
	expect_end(consumer);
	cr_assert(count_of("dlq") == 1 && count_of("retries") == 0 && stored() == 1);
	evbus_consumer_close(consumer);
}

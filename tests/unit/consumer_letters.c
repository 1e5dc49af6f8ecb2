/* Dead letters that were queued are handled by their group's consumer, before its next events. */
#include "consumer_helpers.h"
#include "modules.h"

TestSuite(consumer_letters, .init = enter, .fini = leave, .timeout = 30);

/* The first `count` events are dead letters, and queued. */
static void bury(int count)
{
	struct evbus_consumer *consumer = CONSUMER(.retry = { .max = 0, .factor = 1 });

	for (int i = 0; i < count; i++)
		failed(consumer, expect(consumer, i, 1));
	evbus_consumer_close(consumer);
	sql("UPDATE dlq SET state = 'QUEUED'");
}

static struct evbus_delivery *expect_letter(struct evbus_consumer *consumer, int number, int64_t letter)
{
	struct evbus_delivery *delivery = expect(consumer, number, 2);

	cr_assert_eq(delivery->letter, letter);
	return delivery;
}

Test(consumer_letters, come_before_the_next_event_in_their_order)
{
	publish(0, 4);
	bury(2);
	struct evbus_consumer *consumer = CONSUMER();

	done(consumer, expect_letter(consumer, 0, 1));
	done(consumer, expect_letter(consumer, 1, 2));
	done(consumer, expect(consumer, 2, 1));
	done(consumer, expect(consumer, 3, 1));
	expect_end(consumer);
	struct evbus_consumer_counts counts = evbus_consumer_counts(consumer);
	cr_assert(counts.letters_done == 2 && counts.done == 2 && counts.delivered == 4 && !counts.dead);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT group_concat(state || resolved_by || result || attempts, ',') FROM (SELECT * FROM "
			     "dlq ORDER BY id) AS d"),
			 "RETRIEDconsumer gdone1,RETRIEDconsumer gdone1");
}

Test(consumer_letters, are_given_out_as_the_events_that_they_were)
{
	publish_to("t", 0, "k\"1", "{\"event_id\":\"e\",\"n\":0, \"big\":1.10}");
	bury(1);
	struct evbus_consumer *consumer = CONSUMER();
	struct evbus_delivery *delivery = expect_letter(consumer, 0, 1);
	const struct evbus_record *record = delivery->record;

	cr_assert(record->payload.len == 34 &&
		  !memcmp(record->payload.data, "{\"event_id\":\"e\",\"n\":0, \"big\":1.10}", 34));
	cr_assert(record->partition_key.len == 6 && !memcmp(record->partition_key.data, "\"k\\\"1\"", 6));
	cr_assert(record->offset.len == 1 && *record->offset.data == '0' && record->published_at_utc.len == 27);
	cr_assert(!memcmp(record->members.data, "\"offset\":\"0\"", 12));
	cr_assert(!memcmp(delivery->envelope.event_id.data, "\"e\"", 3));
	done(consumer, delivery);
	evbus_consumer_close(consumer);
}

Test(consumer_letters, that_fail_are_dead_again_and_wait_for_somebody_to_queue_them)
{
	publish(0, 2);
	bury(1);
	struct evbus_consumer *consumer = CONSUMER();

	cr_assert(failed(consumer, expect_letter(consumer, 0, 1)));
	done(consumer, expect(consumer, 1, 1));
	expect_end(consumer);
	struct evbus_consumer_counts counts = evbus_consumer_counts(consumer);
	cr_assert(counts.dead == 0 && counts.letters_failed == 1 && counts.letters_done == 0, "no letter was made");
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT (SELECT count(*) FROM dlq) || state || attempts || returns || "
			     "json_array_length(history) FROM dlq"),
			 "1DEAD212");
	cr_assert_eq(finish(CONSUMER()), 0);
	sql("UPDATE dlq SET state = 'QUEUED'");
	consumer = CONSUMER();
	refused(consumer, expect(consumer, 0, 3));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT state || attempts || returns || reason FROM dlq"), "DEAD32refused");
}

Test(consumer_letters, that_were_taken_are_not_the_end_until_they_are_given_out)
{
	publish(0, 2);
	bury(2);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 3);

	cr_assert(failed(consumer, expect_letter(consumer, 0, 1)));
	cr_assert_not(evbus_consumer_finished(consumer));
	done(consumer, expect_letter(consumer, 1, 2));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT group_concat(state, ',') FROM (SELECT * FROM dlq ORDER BY id) AS d"),
			 "DEAD,RETRIED");
}

Test(consumer_letters, that_fail_are_the_end_where_a_dead_letter_is)
{
	publish(0, 3);
	bury(2);
	struct evbus_consumer *consumer = CONSUMER(.stop_on_dead = true);

	cr_assert(failed(consumer, expect_letter(consumer, 0, 1)));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT group_concat(state || attempts, ',') FROM (SELECT * FROM dlq ORDER BY id) AS d"),
			 "DEAD2,QUEUED1");
	consumer = CONSUMER(.stop_on_dead = true);
	done(consumer, expect_letter(consumer, 1, 2));
	done(consumer, expect(consumer, 2, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
}

Test(consumer_letters, that_were_given_back_come_again)
{
	publish(0, 1);
	bury(1);
	struct evbus_consumer *consumer = CONSUMER();

	evbus_consumer_give_back(consumer, expect_letter(consumer, 0, 1));
	evbus_consumer_give_back(consumer, expect_letter(consumer, 0, 1));
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT state FROM dlq"), "QUEUED");
	cr_assert_eq(finish(CONSUMER()), 1);
}

Test(consumer_letters, that_somebody_discards_meanwhile_stay_discarded)
{
	publish(0, 1);
	bury(1);
	struct evbus_consumer *consumer = CONSUMER();
	struct evbus_delivery *delivery = expect_letter(consumer, 0, 1);

	sql("UPDATE dlq SET state = 'DISCARDED'");
	done(consumer, delivery);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT state FROM dlq"), "DISCARDED");
}

Test(consumer_letters, of_other_groups_and_logs_are_left_alone)
{
	publish(0, 2);
	bury(2);
	sql("UPDATE dlq SET group_name = 'other' WHERE id = 1");
	sql("UPDATE dlq SET log_id = 'other' WHERE id = 2");
	cr_assert_eq(finish(CONSUMER()), 0);
}

/* ---- while it follows ---- */

static int64_t ahead_s;

static int fast_clock(clockid_t clock, struct timespec *now)
{
	int result = real_os.clock_gettime(clock, now);

	now->tv_sec += clock == CLOCK_BOOTTIME ? ahead_s : 0;
	return result;
}

/* The time has come to look for letters again. */
static void let_time_pass(void)
{
	os.clock_gettime = fast_clock;
	ahead_s += 2;
}

Test(consumer_letters, queued_while_it_follows_are_handled_within_a_second_or_two)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.follow = true, .retry = { .max = 0, .factor = 1 });

	failed(consumer, expect(consumer, 0, 1));
	sql("UPDATE dlq SET state = 'QUEUED'");
	struct evbus_delivery *delivery = next_within(consumer, 2500);
	cr_assert(delivery && delivery->letter == 1);
	evbus_consumer_close(consumer);
}

Test(consumer_letters, have_their_outcome_saved_before_anything_else_is_given_out)
{
	publish(0, 2);
	bury(1);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 100, .commit_interval_ms = 100000);

	done(consumer, expect_letter(consumer, 0, 1));
	expect(consumer, 1, 1);
	cr_assert_str_eq(sql("SELECT state FROM dlq"), "RETRIED");
	evbus_consumer_close(consumer);
}

Test(consumer_letters, that_are_out_are_not_given_out_again)
{
	publish(0, 3);
	bury(2);
	struct evbus_consumer *consumer = CONSUMER(.follow = true, .concurrency = 4);
	struct evbus_delivery *letter = expect_letter(consumer, 0, 1);

	done(consumer, expect_letter(consumer, 1, 2));
	for (int i = 0; i < 3; i++) {
		struct evbus_delivery *other = next_within(consumer, 0);
		cr_assert(!other || (!other->letter && number_of(other) == 2));
		let_time_pass();
	}
	done(consumer, letter);
	evbus_consumer_close(consumer);
}

Test(consumer_letters, hold_up_an_event_of_their_key_that_was_ready_already)
{
	publish_to("t", 0, "k", "{\"n\":0}");
	bury(1);
	sql("UPDATE dlq SET state = 'DEAD'");
	publish(1, 2);
	publish_to("t", 0, "k", "{\"n\":3}");
	struct evbus_consumer *consumer = CONSUMER(.follow = true, .concurrency = 2);
	struct evbus_delivery *first = expect(consumer, 1, 1), *second = expect(consumer, 2, 1);
	sql("UPDATE dlq SET state = 'QUEUED'");
	done(consumer, first);
	done(consumer, second);
	let_time_pass();
	struct evbus_delivery *letter = expect_letter(consumer, 0, 1);
	cr_assert_null(next_within(consumer, 0));
	done(consumer, letter);
	done(consumer, expect(consumer, 3, 1));
	evbus_consumer_close(consumer);
}

/* ---- with an inbox, and keys ---- */

Test(consumer_letters, get_their_row_in_the_inbox)
{
	publish(0, 1);
	publish(0, 1);
	bury(1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);

	done(consumer, expect_letter(consumer, 0, 1));
	expect_end(consumer);
	cr_assert_eq(evbus_consumer_counts(consumer).known, 1, "the double on the log");
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT group_name || tenant_id || topic || event_id FROM inbox"), "gt0");
}

Test(consumer_letters, know_the_tenant_that_was_not_in_the_payload)
{
	struct evbus_publisher *publisher;
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{\"id\":\"1\",\"n\":0}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .tenant_id = SLICE("T") };

	OK(evbus_publisher_open(bus, &(struct evbus_publisher_options){ .idempotent = true }, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
	bury(1);
	cr_assert_eq(finish(CONSUMER(.inbox = true)), 1);
	cr_assert_str_eq(sql("SELECT tenant_id || event_id FROM inbox"), "T1");
}

Test(consumer_letters, whose_event_was_done_before_are_not_run_again)
{
	publish(0, 1);
	publish(0, 1);
	bury(1);
	cr_assert_eq(finish(CONSUMER(.group = "h", .inbox = true)), 1);
	sql("UPDATE inbox SET group_name = 'g'");
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT state || result FROM dlq"), "RETRIEDdone before");
}

Test(consumer_letters, of_a_key_do_not_overlap_with_its_events)
{
	publish_many("t", 0, 0, 6, 2);
	bury(2);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 8);
	struct evbus_delivery *even = expect_letter(consumer, 0, 1), *odd = expect_letter(consumer, 1, 2);

	cr_assert_null(next_within(consumer, 0));
	done(consumer, odd);
	odd = expect(consumer, 3, 1);
	cr_assert_null(next_within(consumer, 0));
	sql("UPDATE dlq SET state = 'QUEUED' WHERE id = 2");
	done(consumer, even);
	even = expect(consumer, 2, 1);
	cr_assert_null(next_within(consumer, 0));
	evbus_consumer_close(consumer);
}

Test(consumer_letters, of_one_key_are_handled_in_their_order)
{
	publish_many("t", 0, 0, 5, 1);
	bury(4);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 8, .inbox = true);
	for (int i = 0; i < 4; i++) {
		struct evbus_delivery *letter = expect_letter(consumer, i, i + 1);
		cr_assert_null(next_within(consumer, 0));
		done(consumer, letter);
	}
	done(consumer, expect(consumer, 4, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
}

Test(consumer_letters, of_many_partitions_are_taken_one_after_the_other)
{
	make_topic("many", 20);
	for (int i = 0; i < 20; i++)
		publish_many("many", i, 100 * i, 3, 0);
	struct evbus_consumer *consumer = CONSUMER(.topic = "many", .retry = { .max = 0, .factor = 1 });
	for (int i = 0; i < 60; i++)
		failed(consumer, next(consumer));
	evbus_consumer_close(consumer);
	sql("UPDATE dlq SET state = 'QUEUED'");
	cr_assert_eq(finish(CONSUMER(.topic = "many", .concurrency = 3)), 60);
	cr_assert_eq(count_of("dlq WHERE state = 'RETRIED'"), 60);
}

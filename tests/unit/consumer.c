/* A consumer gives out each event of its partitions, in order, and remembers what came of it. */
#include "consumer.h"
#include "consumer_helpers.h"

TestSuite(consumer, .init = enter, .fini = leave, .timeout = 30);

/* ---- the plain way ---- */

Test(consumer, gives_out_each_event_in_order_and_ends)
{
	publish(0, 100);
	struct evbus_consumer *consumer = CONSUMER();

	for (int i = 0; i < 100; i++)
		done(consumer, expect(consumer, i, 1));
	expect_end(consumer);
	struct evbus_consumer_counts counts = evbus_consumer_counts(consumer);
	cr_assert(counts.delivered == 100 && counts.done == 100 && !counts.failed && !counts.dead && !counts.waiting);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 100);
}

Test(consumer, begins_where_the_group_has_stopped)
{
	publish(0, 10);
	cr_assert_eq(finish(CONSUMER()), 10);
	cr_assert_eq(finish(CONSUMER()), 0);
	publish(10, 5);
	struct evbus_consumer *consumer = CONSUMER();
	done(consumer, expect(consumer, 10, 1));
	evbus_consumer_close(consumer);
	cr_assert_eq(finish(CONSUMER(.group = "other")), 15);
}

Test(consumer, ends_with_what_was_there_at_its_start)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER();

	publish(3, 3);
	cr_assert_eq(finish(consumer), 3);
	cr_assert_eq(finish(CONSUMER()), 3);
}

/* The live segment is looked for among the older ones first, and is not there. */
Test(consumer, reads_from_one_segment_into_the_next_and_ends_well)
{
	struct evbus_topic_options options = { .segment_max_bytes = 1000 };
	bool created;

	OK(evbus_topic_create(bus, "rolled", &options, &created, &err));
	publish_many("rolled", 0, 0, 50, 0);
	cr_assert(!access("bus/rolled/partition=0", F_OK));
	cr_assert_eq(finish(CONSUMER(.topic = "rolled")), 50);
	struct evbus_consumer *consumer = CONSUMER(.topic = "rolled", .group = "other", .follow = true);
	for (int i = 0; i < 50; i++)
		done(consumer, expect(consumer, i, 1));
	publish_many("rolled", 0, 50, 20, 0);
	for (int i = 50; i < 70; i++)
		done(consumer, expect(consumer, i, 1));
	evbus_consumer_close(consumer);
}

Test(consumer, of_an_empty_topic_ends_at_once_and_stores_nothing)
{
	cr_assert_eq(finish(CONSUMER()), 0);
	cr_assert_eq(stored(), -1);
}

Test(consumer, of_a_topic_that_is_not_there_says_so_unless_it_is_a_pattern)
{
	cr_assert_eq(OPENING(.topic = "none"), EVBUS_NONE);
	cr_assert_eq(finish(CONSUMER(.topic = "none.>")), 0);
}

Test(consumer, saves_an_outcome_before_the_next_event_is_given_out)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER();

	for (int i = 0; i < 3; i++) {
		struct evbus_delivery *delivery = expect(consumer, i, 1);
		cr_assert_eq(stored(), i ? i : -1);
		done(consumer, delivery);
	}
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 2, "closing saves nothing");
}

Test(consumer, saves_every_so_many_outcomes)
{
	publish(0, 25);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 10, .commit_interval_ms = 100000);

	for (int i = 0; i < 25; i++) {
		done(consumer, expect(consumer, i, 1));
		cr_assert_eq(stored(), i < 10 ? -1 : i / 10 * 10, "%d after %d", stored(), i);
	}
	expect_end(consumer);
	cr_assert_eq(stored(), 25);
	evbus_consumer_close(consumer);
}

Test(consumer, saves_after_some_time_even_if_nothing_comes)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 10, .commit_interval_ms = 50, .follow = true);

	done(consumer, expect(consumer, 0, 1));
	cr_assert_eq(stored(), -1);
	cr_assert_null(next_within(consumer, 200));
	cr_assert_eq(stored(), 1);
	evbus_consumer_close(consumer);
}

Test(consumer, is_not_finished_before_it_has_saved)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 100);

	done(consumer, expect(consumer, 0, 1));
	cr_assert(!evbus_consumer_finished(consumer));
	cr_assert_null(next(consumer));
	cr_assert(evbus_consumer_finished(consumer));
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 1);
}

Test(consumer, saves_when_it_is_told_to)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER(.commit_every = 10);

	done(consumer, expect(consumer, 0, 1));
	cr_assert_eq(stored(), -1);
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), 1);
	evbus_consumer_close(consumer);
}

Test(consumer, gives_out_again_what_was_given_back_and_counts_no_attempt)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER();

	for (int i = 0; i < 3; i++)
		evbus_consumer_give_back(consumer, expect(consumer, 0, 1));
	done(consumer, expect(consumer, 0, 1));
	evbus_consumer_give_back(consumer, expect(consumer, 1, 1));
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 1);
}

Test(consumer, gives_out_the_record_as_it_stands_in_the_log)
{
	publish_to("t", 0, "k\"1",
		   "{\"event_id\":\"e\",\"event_type\":\"a.b\",\"tenant_id\":7,\"big\":12345678901234567890}");
	struct evbus_consumer *consumer = CONSUMER();
	struct evbus_delivery *delivery = next(consumer);
	const struct evbus_record *record = delivery->record;

	/* What is read later does not touch it. */
	publish(0, 5);
	cr_assert_null(next(consumer), "one at a time");
	cr_assert(record->payload.len == 76 && !memcmp(record->payload.data, "{\"event_id\":\"e\"", 15));
	cr_assert(!memcmp(record->partition_key.data, "\"k\\\"1\"", record->partition_key.len));
	cr_assert(record->topic.len == 1 && *record->topic.data == 't' && record->partition_id == 0);
	cr_assert(record->offset.len == 1 && *record->offset.data == '0' && record->published_at_utc.len == 27);
	cr_assert(record->members.data == record->stored.data + 21);
	cr_assert(!memcmp(delivery->envelope.event_type.data, "\"a.b\"", 5));
	cr_assert(*delivery->envelope.tenant_id.data == '7' && delivery->letter == 0);
	done(consumer, delivery);
	evbus_consumer_close(consumer);
}

Test(consumer, wants_options_that_make_sense)
{
	struct evbus_consumer_options options = OPTIONS();

	cr_assert_eq(OPENING(.group = "a b"), EVBUS_USAGE);
	cr_assert_eq(OPENING(.topic = "a..b"), EVBUS_USAGE);
	cr_assert_eq(OPENING(.from = "soon"), EVBUS_USAGE);
	cr_assert_eq(OPENING(.filter = { .type = ">.x" }), EVBUS_USAGE);
	cr_assert_eq(OPENING(.retry = { .factor = 0.5 }), EVBUS_USAGE);
	cr_assert_eq(OPENING(.retry = { .factor = 1, .delay_ms = -1 }), EVBUS_USAGE);
	cr_assert_eq(OPENING(.commit_interval_ms = -1), EVBUS_USAGE);
	options.partition_id = 1;
	cr_assert_eq(opening(options), EVBUS_NONE);
}

/* ---- where it begins ---- */

Test(consumer, begins_at_a_position_only_where_the_group_has_no_checkpoint)
{
	publish(0, 10);
	struct evbus_consumer *consumer = CONSUMER(.from = "7");

	done(consumer, expect(consumer, 7, 1));
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	consumer = CONSUMER(.from = "-9");
	done(consumer, expect(consumer, 8, 1));
	evbus_consumer_close(consumer);
}

Test(consumer, that_was_to_begin_at_the_end_remembers_that)
{
	publish(0, 10);
	struct evbus_consumer *consumer = CONSUMER(.from = "end");

	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 10);
	publish(10, 2);
	cr_assert_eq(finish(CONSUMER()), 2);
}

Test(consumer, refuses_a_position_outside_the_log_and_a_number_for_several_partitions)
{
	struct evbus_consumer_options options = OPTIONS(.topic = "two", .from = "0");

	publish(0, 3);
	cr_assert_eq(OPENING(.from = "4"), EVBUS_CONFLICT);
	cr_assert_eq(finish(CONSUMER(.from = "3")), 0);
	make_topic("two", 2);
	cr_assert_eq(OPENING(.topic = "two", .from = "0"), EVBUS_USAGE);
	options.partition_id = 1;
	cr_assert_eq(opening(options), EVBUS_OK);
	cr_assert_eq(finish(CONSUMER(.topic = "two", .from = "beginning")), 0);
}

Test(consumer, refuses_a_checkpoint_of_another_log)
{
	publish(0, 3);
	cr_assert_eq(finish(CONSUMER()), 3);
	sql("UPDATE checkpoints SET fingerprint = '00000000'");
	cr_assert_eq(OPENING(), EVBUS_CONFLICT);
	sql("UPDATE checkpoints SET log_id = 'ffffffffffffffffffffffffffffffff'");
	cr_assert_eq(OPENING(), EVBUS_CONFLICT);
	cr_assert(strstr(err.text, "checkpoint-set"), "%s", err.text);
}

Test(consumer, stores_the_checksum_of_the_last_record_done)
{
	struct evbus_checkpoint ours, made;

	publish(0, 5);
	struct evbus_consumer *consumer = CONSUMER();
	for (int i = 0; i < 3; i++)
		done(consumer, expect(consumer, i, 1));
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	OK(evbus_checkpoint_get(bus, "g", "t", 0, &ours, &err));
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "3", true, &ours, &made, &err));
	cr_assert_str_eq(ours.fingerprint, made.fingerprint);
	cr_assert_str_eq(ours.log_id, made.log_id);
}

/* ---- the filter ---- */

Test(consumer, passes_over_what_does_not_match_and_moves_the_checkpoint)
{
	publish(0, 10);
	struct evbus_consumer *consumer =
		CONSUMER(.filter = { .where = (const char *const[]){ "/n=4" }, .where_count = 1 });

	done(consumer, expect(consumer, 4, 1));
	expect_end(consumer);
	cr_assert_eq(evbus_consumer_counts(consumer).passed_over, 9);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 10);
}

Test(consumer, does_not_save_each_record_that_is_passed_over)
{
	publish(0, 20000);
	struct evbus_consumer *consumer = CONSUMER(.filter = { .type = "none" }, .commit_interval_ms = 100000);
	int changes = 0;

	while (!evbus_consumer_finished(consumer)) {
		cr_assert_null(next_within(consumer, 0));
		changes += stored() != -1;
	}
	cr_assert_eq(changes, 1, "%d", changes);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 20000);
}

/* ---- following ---- */

Test(consumer, that_follows_takes_what_comes)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.follow = true);

	for (int i = 0; i < 5; i++) {
		done(consumer, expect(consumer, i, 1));
		cr_assert_null(next_within(consumer, 20));
		cr_assert(!evbus_consumer_finished(consumer));
		publish(i + 1, 1);
	}
	evbus_consumer_close(consumer);
}

Test(consumer, that_follows_an_empty_topic_goes_on_after_its_first_record)
{
	struct evbus_consumer *consumer = CONSUMER(.follow = true);

	cr_assert_null(next_within(consumer, 0));
	for (int i = 0; i < 3; i++) {
		publish(i, 1);
		done(consumer, expect(consumer, i, 1));
		cr_assert_null(next_within(consumer, 0));
	}
	evbus_consumer_close(consumer);
}

Test(consumer, that_follows_leaves_alone_a_partition_that_rests_and_goes_on_with_the_others)
{
	make_topic("two", 2);
	struct evbus_consumer *consumer = CONSUMER(.topic = "two", .follow = true);

	cr_assert_null(next_within(consumer, 0));
	consumer->lanes[0]->reader->rests_to_us = INT64_MAX;
	publish_many("two", 0, 0, 1, 0);
	publish_many("two", 1, 1, 1, 0);
	done(consumer, expect(consumer, 1, 1));
	cr_expect_null(next_within(consumer, 0));
	consumer->lanes[0]->reader->rests_to_us = 1;
	done(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
}

Test(consumer, goes_from_segment_to_segment)
{
	struct evbus_topic_options options = { .partitions = 1, .segment_max_bytes = 300 };
	bool created;

	OK(evbus_topic_create(bus, "small", &options, &created, &err));
	for (int i = 0; i < 10; i++)
		publish_many("small", 0, i, 1, 0);
	cr_assert_eq(finish(CONSUMER(.topic = "small")), 10);
}

Test(consumer, that_follows_a_pattern_picks_up_new_topics_from_their_beginning)
{
	struct evbus_consumer *consumer = CONSUMER(.topic = "new.*", .follow = true, .from = "end");

	cr_assert_null(next_within(consumer, 10));
	make_topic("new.one", 2);
	publish_many("new.one", 1, 7, 1, 0);
	done(consumer, expect(consumer, 7, 1));
	evbus_consumer_close(consumer);
}

Test(consumer, that_follows_waits_for_a_topic_that_is_not_there)
{
	struct evbus_consumer *consumer = CONSUMER(.topic = "late", .follow = true);

	cr_assert_str_eq(noticed, "waiting for topic 'late'");
	cr_assert_null(next_within(consumer, 10));
	make_topic("late", 1);
	publish_many("late", 0, 3, 1, 0);
	done(consumer, expect(consumer, 3, 1));
	evbus_consumer_close(consumer);
}

Test(consumer, that_follows_says_when_its_topic_was_made_anew)
{
	struct evbus_consumer *consumer = CONSUMER(.follow = true);
	struct evbus_delivery *delivery;

	scratch_remove("bus/t");
	cr_assert_eq(evbus_consumer_next(consumer, 2000, &delivery, &err), EVBUS_CONFLICT);
	evbus_consumer_close(consumer);
}

/* ---- dead ends ---- */

Test(consumer, finishes_what_comes_before_damage_and_then_tells_it)
{
	publish(0, 5);
	cr_assert_eq(system("sed -i 's/\"n\":3/\"n\":9/' bus/t/partition=0.jsonl && rm bus/t/partition=0.lock"), 0);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 8, .commit_every = 100);
	struct evbus_delivery *out[3], *delivery;

	for (int i = 0; i < 3; i++)
		out[i] = expect(consumer, i, 1);
	cr_assert_null(next_within(consumer, 0));
	for (int i = 0; i < 3; i++)
		done(consumer, out[i]);
	cr_assert_eq(evbus_consumer_next(consumer, 0, &delivery, &err), EVBUS_IO, "%s", err.text);
	cr_assert(strstr(err.text, "checksum"), "%s", err.text);
	cr_assert(!evbus_consumer_finished(consumer));
	cr_assert_eq(evbus_consumer_next(consumer, -1, &delivery, &err), EVBUS_IO);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 3);
}

Test(consumer, does_not_work_in_a_forked_child)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER();
	struct evbus_delivery *delivery = next(consumer);
	pid_t child = fork();
	int status;

	if (!child) {
		struct evbus_delivery *other;
		bool refused_all = evbus_consumer_next(consumer, 0, &other, &err) == EVBUS_BUG &&
				   evbus_consumer_done(consumer, delivery, &err) == EVBUS_BUG &&
				   evbus_consumer_commit(consumer, &err) == EVBUS_BUG;
		evbus_consumer_close(consumer);
		_exit(!refused_all);
	}
	cr_assert(waitpid(child, &status, 0) == child && status == 0);
	done(consumer, delivery);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 1);
}

/* Where partitions are split, merged and forgotten: whatever becomes of them, each event is read and consumed, and those of
 * a key in their order. */
#include "shards_helpers.h"

#define ROUNDS 16
#define PER_ROUND 60
#define MANY (ROUNDS * PER_ROUND)

TestSuite(shards, .init = enter_shards, .fini = leave, .timeout = 60);

/* ---- reading ---- */

/* Reads on until so many have come; each is the next of its key. */
static void read_on(struct evbus_reader *reader, int next_of[KEYS], int *count, int to)
{
	const struct evbus_record *record;

	while (*count < to) {
		OK(evbus_reader_next(reader, 5000, &record, &err));
		cr_assert_not_null(record, "%d of %d", *count, to);
		int n = number_in(record);
		cr_assert_eq(n, next_of[n % KEYS], "%d came, and %d is next of its key", n, next_of[n % KEYS]);
		next_of[n % KEYS] += KEYS;
		++*count;
	}
}

static void begin_keys(int next_of[KEYS])
{
	for (int i = 0; i < KEYS; i++)
		next_of[i] = i;
}

Test(shards, what_is_there_is_read_parents_first_whatever_their_times)
{
	const struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	int next_of[KEYS], count = 0;
	struct evbus_reader *reader;

	for (int round = 0; round < ROUNDS; round++) {
		publish_keys(round * PER_ROUND, PER_ROUND);
		split_or_merge();
	}
	shards_late_us = 3600000000;
	begin_keys(next_of);
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	read_on(reader, next_of, &count, MANY);
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_expect_null(record);
	cr_expect(evbus_reader_finished(reader));
	evbus_reader_close(reader);
}

Test(shards, who_follows_goes_on_with_the_children)
{
	const struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL, .follow = true };
	int next_of[KEYS], count = 0;
	struct evbus_reader *reader;

	shards_late_us = 3600000000;
	begin_keys(next_of);
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	for (int round = 0; round < ROUNDS; round++) {
		publish_keys(round * PER_ROUND, PER_ROUND);
		split_or_merge();
		if (rand_r(&seed) % 3 == 0)
			split_or_merge();
		read_on(reader, next_of, &count, round * PER_ROUND + rand_r(&seed) % PER_ROUND);
	}
	read_on(reader, next_of, &count, MANY);
	cr_expect_not(evbus_reader_finished(reader));
	evbus_reader_close(reader);
}

Test(shards, who_follows_one_partition_is_done_when_it_is_closed)
{
	const struct evbus_selection selection = { .topic = "t", .partition_id = 1, .follow = true };
	const struct evbus_record *record;
	struct evbus_reader *reader;

	OK(evbus_reader_open(bus, &selection, &reader, &err));
	publish_to("t", 1, "k", "{\"n\":5}");
	OK(evbus_reader_next(reader, 1000, &record, &err));
	cr_assert(record && number_in(record) == 5);
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_assert_null(record);
	cr_expect_not(evbus_reader_finished(reader));
	(void)shards_split(1);
	OK(evbus_reader_next(reader, 1000, &record, &err));
	cr_expect_null(record);
	cr_expect(evbus_reader_finished(reader));
	cr_expect_str_eq(noticed, "topic 't', partition 1 is closed: nothing more will come to it");
	evbus_reader_close(reader);
}

Test(shards, the_last_ones_and_those_since_a_time_are_found_in_all_partitions)
{
	struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL, .last = 100 };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	int count = 0;

	for (int round = 0; round < 4; round++) {
		publish_keys(round * PER_ROUND, PER_ROUND);
		split_or_merge();
	}
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	for (;; count++) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
	}
	cr_expect_eq(count, 100);
	evbus_reader_close(reader);
}

Test(shards, a_partition_has_the_number_that_it_has)
{
	struct evbus_selection selection = { .topic = "t", .partition_id = 0 };
	struct evbus_partition_info info;
	struct evbus_reader *reader;

	(void)shards_split(0);
	shards_forget(0);
	cr_expect_eq(evbus_reader_open(bus, &selection, &reader, &err), EVBUS_NONE);
	cr_expect_str_eq(err.text, "topic 't' has no partition 0 (any more: what was split or merged goes one day): "
				   "it has 4, with numbers from 1 to 4");
	cr_expect_eq(evbus_topic_describe(bus, "t", 0, &info, &err), EVBUS_NONE);
	OK(evbus_topic_describe(bus, "t", 4, &info, &err));
	cr_expect_eq(info.partitions, 4);
	selection.partition_id = 4;
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	evbus_reader_close(reader);
}

/* ---- consuming ---- */

/* What became of each event: 0 nothing yet, 1 dead, 2 done. */
static int ends[MANY];

/* All that stand before it in its key have come to an end. */
static void expect_turn(int n)
{
	for (int before = n - KEYS; before >= 0; before -= KEYS)
		cr_assert(ends[before], "%d came before %d, which stands before it in its key", n, before);
}

static void settle(struct evbus_consumer *consumer, struct evbus_delivery *delivery)
{
	int n = number_of(delivery);

	expect_turn(n);
	switch (rand_r(&seed) % 8) {
	case 0:
		if (failed(consumer, delivery))
			ends[n] = 1;
		return;
	case 1:
		refused(consumer, delivery);
		ends[n] = 1;
		return;
	default:
		done(consumer, delivery);
		ends[n] = 2;
	}
}

static void expect_all_ended(void)
{
	int dead = 0;

	for (int n = 0; n < MANY; n++) {
		cr_assert(ends[n], "%d was lost", n);
		dead += ends[n] == 1;
	}
	cr_expect_eq(count_of("dlq"), dead);
	cr_expect_eq(count_of("retries"), 0);
}

/* So many steps of a consumer that is stopped then, wherever it is. */
static bool consume(struct evbus_consumer_options options, int steps, int timeout_ms)
{
	struct evbus_consumer *consumer = consumer_with(options);
	struct evbus_delivery *delivery;

	while (steps-- && (delivery = next_within(consumer, timeout_ms)))
		settle(consumer, delivery);
	OK(evbus_consumer_commit(consumer, &err));
	bool over = evbus_consumer_finished(consumer);
	evbus_consumer_close(consumer);
	return over;
}

/* A dead one may come again only where it was done beyond the checkpoint. */
Test(shards, a_group_that_is_stopped_anywhere_handles_each_event_in_the_order_of_its_key)
{
	for (int round = 0; round < ROUNDS; round++) {
		publish_keys(round * PER_ROUND, PER_ROUND);
		split_or_merge();
		(void)consume(OPTIONS(.concurrency = rand_r(&seed) % 2 ? 5 : 1), rand_r(&seed) % (2 * PER_ROUND), 2000);
	}
	while (!consume(OPTIONS(.concurrency = 3), MANY, 2000))
		;
	expect_all_ended();
}

Test(shards, a_group_that_follows_goes_on_with_the_children)
{
	struct evbus_consumer *consumer = CONSUMER(.follow = true, .concurrency = 4);
	struct evbus_delivery *delivery;
	int handled = 0;

	for (int round = 0; round < ROUNDS; round++) {
		publish_keys(round * PER_ROUND, PER_ROUND);
		split_or_merge();
		for (int steps = rand_r(&seed) % (2 * PER_ROUND); steps && (delivery = next_within(consumer, 20));
		     steps--)
			settle(consumer, delivery);
	}
	while ((delivery = next_within(consumer, 3000)))
		settle(consumer, delivery);
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	for (int n = 0; n < MANY; n++)
		handled += ends[n] != 0;
	cr_expect_eq(handled, MANY);
	expect_all_ended();
}

Test(shards, a_child_waits_for_what_is_out_or_tried_again)
{
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;

	publish_to("t", 1, "k", "{\"n\":0}");
	(void)shards_split(1);
	publish_to("t", 1, "k", "{\"n\":1}");
	consumer = CONSUMER(.follow = true, .concurrency = 8, .retry = { .max = 3, .delay_ms = 100, .factor = 1 });
	delivery = expect(consumer, 0, 1);
	cr_expect_null(next_within(consumer, 700));
	cr_expect_not(failed(consumer, delivery));
	done(consumer, expect(consumer, 0, 2));
	done(consumer, expect(consumer, 1, 1));
	evbus_consumer_close(consumer);
}

Test(shards, who_consumes_a_child_alone_waits_for_whoever_does_its_parent)
{
	int32_t child;

	publish_to("t", 1, "k", "{\"n\":0}");
	child = shards_split(1);
	publish_to("t", 1, "k", "{\"n\":1}");
	publish_to("t", 1, "j", "{\"n\":2}");
	struct evbus_consumer *consumer = ONLY(child, .concurrency = 1);
	struct evbus_consumer *other = ONLY(child + 1, .concurrency = 1);
	cr_expect_null(next_within(consumer, 700));
	cr_expect_str_eq(noticed,
			 "topic 't', partition 4 goes on with keys of partition 1, which group 'g' has not done "
			 "yet: waiting");
	cr_expect_not(evbus_consumer_finished(consumer));
	cr_expect_eq(opening(options_with((struct evbus_consumer_options){ .partition_id = child, .no_wait = true })),
		     EVBUS_AGAIN);
	cr_expect_str_eq(err.text,
			 "topic 't', partition 3 goes on with keys of partition 1, which group 'g' has not done "
			 "yet");
	cr_expect_eq(finish(ONLY(1, .concurrency = 1)), 1);
	cr_expect_eq(finish(consumer) + finish(other), 2);
}

Test(shards, who_is_not_to_wait_leaves_the_children_alone_whose_parents_others_have)
{
	publish_to("t", 1, "k", "{\"n\":0}");
	(void)shards_split(1);
	publish_to("t", 1, "k", "{\"n\":1}");
	publish_to("t", 2, "k", "{\"n\":2}");
	struct evbus_consumer *other = ONLY(1, .concurrency = 1);
	struct evbus_delivery *theirs = expect(other, 0, 1);
	cr_expect_eq(finish(CONSUMER(.no_wait = true)), 1);
	done(other, theirs);
	expect_end(other);
	evbus_consumer_close(other);
	cr_expect_eq(finish(CONSUMER(.no_wait = true)), 1);
}

/* Else what is published between a split and the next start would be passed over. */
Test(shards, what_a_group_begins_with_is_about_what_it_never_saw)
{
	publish_to("t", 1, "k", "{\"n\":0}");
	cr_expect_eq(finish(CONSUMER(.from = "end")), 0);
	cr_expect_eq(finish(ONLY(1, .from = "end", .group = "each")), 0);
	publish_to("t", 1, "k", "{\"n\":1}");
	int32_t child = shards_split(1);
	publish_to("t", 1, "k", "{\"n\":2}");
	struct evbus_consumer *consumer = CONSUMER(.from = "end");
	done(consumer, expect(consumer, 1, 1));
	done(consumer, expect(consumer, 2, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_expect_eq(finish(CONSUMER(.from = "end", .group = "other")), 0);
	cr_expect_eq(finish(ONLY(1, .from = "end", .group = "each")), 1);
	int first = finish(ONLY(child, .from = "end", .group = "each"));
	cr_expect_eq(first + finish(ONLY(child + 1, .from = "end", .group = "each")), 1);
}

/* One has no parents and no checkpoint in either case: it is the number that tells. */
Test(shards, what_was_added_while_the_group_was_away_is_consumed_from_its_beginning)
{
	struct evbus_partition_info info;
	uint64_t records = 0;

	publish_keys(0, PER_ROUND);
	cr_expect_eq(finish(CONSUMER(.from = "end")), 0);
	cr_expect_eq(finish(ONLY(2, .from = "end", .group = "some")), 0);
	for (int32_t i = 0; i < FIRST_COUNT; i++)
		cr_assert_eq(shards_add(i), FIRST_COUNT + i);
	publish_keys(PER_ROUND, PER_ROUND);
	for (int32_t i = FIRST_COUNT; i < 2 * FIRST_COUNT; i++) {
		OK(evbus_topic_describe(bus, "t", i, &info, &err));
		records += info.records;
	}
	cr_assert(records > 0 && records < PER_ROUND);
	cr_expect_eq(finish(CONSUMER(.from = "end")), PER_ROUND);
	/* Where one is asked for, that is where it begins; and so do those that were there before one that was seen. */
	cr_expect_eq(finish(ONLY(3, .from = "end", .group = "one")), 0);
	cr_expect_eq(finish(ONLY(4, .from = "end", .group = "one")), 0);
	int old = finish(CONSUMER(.from = "end", .group = "some"));
	OK(evbus_topic_describe(bus, "t", 2, &info, &err));
	cr_expect(old > (int)records && old < (int)(records + info.records));
	cr_expect_eq(finish(CONSUMER(.from = "end", .group = "new")), 0);
}

Test(shards, parents_that_are_gone_hold_nobody_up)
{
	publish_to("t", 1, "k", "{\"n\":0}");
	int32_t child = shards_split(1);
	publish_to("t", 1, "k", "{\"n\":1}");
	struct evbus_consumer *early = ONLY(child, .follow = true);
	struct evbus_consumer *other = ONLY(child + 1, .follow = true);
	cr_expect_null(next_within(early, 0));
	shards_forget(1);
	struct evbus_delivery *delivery = next_within(early, 1200);
	delivery = delivery ? delivery : next_within(other, 1200);
	cr_assert_not_null(delivery);
	cr_expect_eq(number_of(delivery), 1);
	evbus_consumer_close(early);
	evbus_consumer_close(other);
}

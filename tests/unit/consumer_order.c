/* Whatever comes of the events, in whatever order: keys keep theirs, nothing overlaps that must not, the checkpoint
 * never passes an event that is neither done nor dead, and in the end all of them are one of the two. */
#include "consumer_helpers.h"

TestSuite(consumer_order, .init = enter, .fini = leave, .timeout = 60);

/* ---- what may be out at once ---- */

Test(consumer_order, gives_out_no_more_than_it_was_told_to)
{
	publish(0, 20);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 5);
	struct evbus_delivery *out[5];

	for (int i = 0; i < 5; i++)
		out[i] = expect(consumer, i, 1);
	cr_assert_null(next_within(consumer, -1));
	done(consumer, out[3]);
	done(consumer, expect(consumer, 5, 1));
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), -1, "the lowest is not done");
	done(consumer, out[0]);
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), 1);
	evbus_consumer_close(consumer);
}

Test(consumer_order, one_at_a_time_means_one_of_all_partitions)
{
	make_topic("two", 2);
	publish_many("two", 0, 0, 2, 0);
	publish_many("two", 1, 10, 2, 0);
	struct evbus_consumer *consumer = CONSUMER(.topic = "two");
	struct evbus_delivery *first = next(consumer);
	cr_assert_null(next_within(consumer, 0));
	done(consumer, first);
	cr_assert_eq(finish(consumer), 3);
}

Test(consumer_order, a_partition_that_backs_off_does_not_hold_up_another)
{
	make_topic("two", 2);
	publish_many("two", 0, 0, 3, 0);
	publish_many("two", 1, 10, 3, 0);
	struct evbus_consumer *consumer = CONSUMER(.topic = "two", .retry = { 5, 100000, 1, 100000 });
	struct evbus_delivery *first = next(consumer);
	int other = number_of(first) < 10 ? 10 : 0;

	failed(consumer, first);
	for (int i = 0; i < 3; i++)
		done(consumer, expect(consumer, other + i, 1));
	cr_assert_null(next_within(consumer, 20));
	evbus_consumer_close(consumer);
}

Test(consumer_order, an_event_that_backs_off_holds_up_its_key_and_nothing_else)
{
	publish_many("t", 0, 0, 9, 3);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 4, .retry = { 5, 100000, 1, 100000 });

	failed(consumer, expect(consumer, 0, 1));
	for (int i = 1; i < 9; i++)
		if (i % 3)
			done(consumer, expect(consumer, i, 1));
	cr_assert_null(next_within(consumer, 20));
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), -1);
	evbus_consumer_close(consumer);
}

Test(consumer_order, an_event_without_a_key_holds_up_only_itself)
{
	publish(0, 5);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 2, .retry = { 5, 100000, 1, 100000 });

	failed(consumer, expect(consumer, 0, 1));
	for (int i = 1; i < 5; i++)
		done(consumer, expect(consumer, i, 1));
	cr_assert_null(next_within(consumer, 20));
	evbus_consumer_close(consumer);
}

Test(consumer_order, looks_only_so_far_beyond_the_lowest)
{
	publish(0, 30);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 4, .window = 10, .retry = { 5, 100000, 1, 100000 });

	failed(consumer, expect(consumer, 0, 1));
	for (int i = 1; i < 10; i++)
		done(consumer, expect(consumer, i, 1));
	cr_assert_null(next_within(consumer, 20));
	cr_assert_eq(evbus_consumer_progress(consumer).records, 10);
	evbus_consumer_close(consumer);
}

Test(consumer_order, looks_at_a_bounded_number_of_bytes)
{
	static char payload[1000000];
	int given = 0;

	memset(payload, 'x', sizeof payload - 1);
	memcpy(payload, "{\"n\":0,\"x\":\"", 12);
	memcpy(payload + sizeof payload - 3, "\"}", 2);
	for (int i = 0; i < 20; i++)
		publish_to("t", 0, NULL, payload);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 64);
	while (next_within(consumer, 0))
		given++;
	cr_assert(given >= 16 && given <= 18, "%d", given);
	evbus_consumer_close(consumer);
}

/* ---- at random, against a model ---- */

#define PARTITIONS 3
#define EVENTS 40 /* of each partition */
#define KEYS 4
#define OUT_MAX 8

enum fate {
	OPEN,
	OUT,
	SETTLED, /* done or dead */
	PERHAPS, /* done, and that may have been forgotten */
};

static struct {
	enum fate fate[PARTITIONS][EVENTS];
	unsigned attempts[PARTITIONS][EVENTS];
	bool dead[PARTITIONS][EVENTS];
	struct evbus_delivery *out[OUT_MAX];
	size_t out_count;
	unsigned concurrency;
	bool inbox;
} model;

static uint64_t dice;

static unsigned roll(unsigned sides)
{
	dice = dice * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(dice >> 33) % sides;
}

static int offset_of(const struct evbus_delivery *delivery)
{
	return (int)scratch_number(delivery->record->offset.data);
}

/* A record without a key is on its own; with one at a time, there is one key. */
static bool are_ordered(int a, int b)
{
	return model.concurrency == 1 || (a % KEYS && a % KEYS == b % KEYS);
}

static void check_given(const struct evbus_delivery *delivery)
{
	int partition = delivery->record->partition_id, offset = offset_of(delivery);
	enum fate *fate = &model.fate[partition][offset];
	char row[64];

	cr_assert(*fate == OPEN || *fate == PERHAPS, "partition %d, offset %d came and was %d", partition, offset,
		  *fate);
	cr_assert(!model.dead[partition][offset]);
	snprintf(row, sizeof row, "inbox WHERE event_id = '%d'", number_of(delivery));
	cr_assert(!model.inbox || stored_of("random", 0) < 0 || !count_of(row),
		  "an event came again that is in the inbox");
	/* With the row that says it is done, that of its attempts has gone. */
	if (*fate == PERHAPS && delivery->attempt == 1)
		model.attempts[partition][offset] = 0;
	cr_assert_eq(delivery->attempt, model.attempts[partition][offset] + 1);
	for (int i = 0; i < offset; i++)
		cr_assert(!are_ordered(i, offset) || model.fate[partition][i] >= SETTLED,
			  "partition %d, offset %d came before %d was done", partition, offset, i);
	for (int i = offset + 1; i < EVENTS; i++)
		cr_assert(!are_ordered(i, offset) || model.fate[partition][i] != OUT);
	*fate = OUT;
}

static void check_stored(void)
{
	for (int partition = 0; partition < PARTITIONS; partition++) {
		int at = stored_of("random", partition);
		for (int i = 0; i < at; i++)
			cr_assert(model.fate[partition][i] >= SETTLED, "the checkpoint %d passed %d of partition %d",
				  at, i, partition);
	}
}

/* Gives one that is out its outcome. */
static void settle_one(struct evbus_consumer *consumer)
{
	size_t which = roll((unsigned)model.out_count);
	struct evbus_delivery *delivery = model.out[which];
	int partition = delivery->record->partition_id, offset = offset_of(delivery);
	enum fate *fate = &model.fate[partition][offset];

	model.out[which] = model.out[--model.out_count];
	switch (roll(10)) {
	case 0:
		*fate = OPEN;
		evbus_consumer_give_back(consumer, delivery);
		return;
	case 1:
	case 2:
		model.attempts[partition][offset]++;
		model.dead[partition][offset] = failed(consumer, delivery);
		cr_assert_eq(model.dead[partition][offset], model.attempts[partition][offset] == 3);
		*fate = model.dead[partition][offset] ? SETTLED : OPEN;
		return;
	case 3:
		model.dead[partition][offset] = true;
		*fate = SETTLED;
		refused(consumer, delivery);
		return;
	default:
		*fate = SETTLED;
		done(consumer, delivery);
	}
}

static struct evbus_consumer *open_random(void)
{
	return CONSUMER(.topic = "random", .concurrency = model.concurrency, .inbox = model.inbox,
			.window = 5 + roll(30), .commit_every = 1 + roll(20), .retry = { 2, roll(3), 1, 2 });
}

/* As if it was killed: what was not saved is forgotten. */
static void restart(struct evbus_consumer **consumer)
{
	evbus_consumer_close(*consumer);
	model.out_count = 0;
	for (int partition = 0; partition < PARTITIONS; partition++)
		for (int i = 0; i < EVENTS; i++) {
			enum fate *fate = &model.fate[partition][i];
			if (*fate == OUT)
				*fate = OPEN;
			else if (*fate == SETTLED && !model.dead[partition][i])
				*fate = PERHAPS;
		}
	*consumer = open_random();
}

static void check_end(void)
{
	unsigned dead = 0;

	for (int partition = 0; partition < PARTITIONS; partition++) {
		cr_assert_eq(stored_of("random", partition), EVENTS);
		for (int i = 0; i < EVENTS; i++)
			dead += model.dead[partition][i];
	}
	cr_assert_eq(count_of("dlq"), (int)dead);
	cr_assert_eq(count_of("retries"), 0);
}

static void play(uint64_t seed)
{
	memset(&model, 0, sizeof model);
	dice = seed;
	model.concurrency = seed % 3 ? OUT_MAX : 1;
	model.inbox = seed % 2;
	struct evbus_consumer *consumer = open_random();
	while (!evbus_consumer_finished(consumer)) {
		struct evbus_delivery *delivery = next_within(consumer, model.out_count ? 0 : 100);
		if (delivery) {
			check_given(delivery);
			model.out[model.out_count++] = delivery;
		}
		cr_assert(model.out_count <= model.concurrency);
		if (model.out_count && (!delivery || !roll(2)))
			settle_one(consumer);
		check_stored();
		if (!roll(60))
			restart(&consumer);
	}
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	check_end();
}

Test(consumer_order, holds_for_random_outcomes_and_restarts)
{
	char text[64];

	make_topic("random", PARTITIONS);
	for (int partition = 0; partition < PARTITIONS; partition++)
		for (int i = 0; i < EVENTS; i++) {
			snprintf(text, sizeof text, "{\"id\":\"%d\",\"n\":%d}", partition * EVENTS + i,
				 partition * EVENTS + i);
			publish_to("random", partition,
				   i % KEYS ? (const char *const[]){ "", "a", "b", "c" }[i % KEYS] : NULL, text);
		}
	/* A server is asked for each commit. */
	uint64_t last = stored_on_server() ? 3 : 16;
	for (uint64_t seed = 1; seed <= last; seed++) {
		play(seed);
		sql("DELETE FROM checkpoints; DELETE FROM dlq; DELETE FROM inbox; DELETE FROM retries");
	}
}

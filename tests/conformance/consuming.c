/* consuming.c: what every backend gives a group: checkpoints, retries, dead letters. */
#include "conformance.h"

TestSuite(consuming, .init = conformance_enter, .fini = conformance_leave, .timeout = 60);

static struct evbus_consumer *consume(const struct evbus_retry *retry)
{
	struct evbus_consumer_options options = { .group = "g", .topic = "t", .retry = *retry };
	struct evbus_consumer *consumer;

	OK(evbus_consumer_open(bus, &options, &consumer, &err));
	return consumer;
}

static struct evbus_delivery *take(struct evbus_consumer *consumer, const char *payload)
{
	struct evbus_delivery *delivery;

	OK(evbus_consumer_next(consumer, 5000, &delivery, &err));
	cr_assert_not_null(delivery);
	IS(delivery->record->payload, payload);
	return delivery;
}

static void finish(struct evbus_consumer *consumer)
{
	struct evbus_delivery *delivery;

	OK(evbus_consumer_next(consumer, 0, &delivery, &err));
	cr_assert_null(delivery);
	cr_expect(evbus_consumer_finished(consumer));
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
}

static char failed_offset[EVBUS_OFFSET_MAX_BYTES + 1];

static enum evbus_code count_letter(void *context, const struct evbus_letter *letter, struct evbus_err *why)
{
	struct evbus_partition_info info;

	(void)why;
	++*(int *)context;
	IS(letter->payload, "{\"n\":1}");
	IS(letter->offset, failed_offset);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	IS(letter->offset_kind, info.offset_kind);
	cr_expect(letter->attempts == 2 && letter->reason == EVBUS_REASON_RETRIES);
	return EVBUS_OK;
}

Test(consuming, a_group_goes_on_where_it_was_and_keeps_what_failed)
{
	const struct evbus_retry retry = { .max = 1, .delay_ms = 1, .factor = 1, .cap_ms = 1 };
	struct evbus_letter_filter filter = { .reason = -1, .state = -1 };
	struct evbus_checkpoint checkpoint;
	struct evbus_partition_info info;
	struct evbus_lag lag;
	bool dead = true;
	int letters = 0;

	const struct offsets o = publish_numbered(3);
	snprintf(failed_offset, sizeof failed_offset, "%s", o.at[1]);
	struct evbus_consumer *consumer = consume(&retry);
	OK(evbus_consumer_done(consumer, take(consumer, "{\"n\":0}"), &err));
	struct evbus_delivery *delivery = take(consumer, "{\"n\":1}");
	OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, (struct evbus_slice){ "no", 2 }, &dead,
				 &err));
	cr_expect_not(dead);
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);

	OK(evbus_checkpoint_get(bus, "g", "t", 0, &checkpoint, &err));
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	cr_expect(compare_offsets(checkpoint.next_offset, o.at[0]) > 0 &&
		  compare_offsets(checkpoint.next_offset, o.at[1]) <= 0);
	cr_expect_str_eq(checkpoint.offset_kind, info.offset_kind);
	cr_expect_str_eq(checkpoint.log_id, info.log_id);
	OK(evbus_checkpoint_lag(bus, &checkpoint, &lag, &err));
	if (lacks("records"))
		cr_expect_eq(lag.records, -1);
	else
		cr_expect_geq(lag.records, 2);
	cr_expect_geq(lag.seconds, 0);

	consumer = consume(&retry);
	delivery = take(consumer, "{\"n\":1}");
	cr_expect_eq(delivery->attempt, 2);
	OK(evbus_consumer_failed(consumer, delivery, EVBUS_REASON_RETRIES, (struct evbus_slice){ "no", 2 }, &dead,
				 &err));
	cr_expect(dead);
	OK(evbus_consumer_done(consumer, take(consumer, "{\"n\":2}"), &err));
	finish(consumer);
	OK(evbus_letter_list(bus, NULL, 0, &filter, count_letter, &letters, &err));
	cr_expect_eq(letters, 1);
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .from = "stored", .group = "g" }), "");
	finish(consume(&retry));
}

static void add_one(const char *offset, char *more)
{
	size_t at = strlen(offset);

	memcpy(more, offset, at + 1);
	while (at-- && more[at]++ == '9')
		more[at] = '0';
	cr_assert(at != SIZE_MAX);
}

Test(consuming, a_checkpoint_is_set_to_a_position_and_not_beyond_the_end)
{
	struct evbus_checkpoint before, after;
	struct evbus_partition_info info;
	char beyond[EVBUS_OFFSET_MAX_BYTES + 1];

	const struct offsets o = publish_numbered(2);
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "-1", false, &before, &after, &err));
	cr_expect_str_eq(before.next_offset, "");
	cr_expect_str_eq(after.next_offset, o.at[1]);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	add_one(info.next_offset, beyond);
	cr_expect_eq(evbus_checkpoint_set(bus, "g", "t", 0, beyond, false, &before, &after, &err), EVBUS_CONFLICT);
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .group = "g" }), "{\"n\":1} ");
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "end", false, &before, &after, &err));
	cr_expect_str_eq(after.next_offset, info.next_offset);
	cr_expect_str_eq(read_all(&(struct evbus_selection){ .topic = "t", .group = "g" }), "");
}

/* As many deliveries at once as there are, whose outcomes come from behind. */
Test(consuming, the_checkpoint_is_the_lowest_that_is_not_done)
{
	struct evbus_consumer_options options = {
		.group = "g", .topic = "t", .retry = EVBUS_RETRY_DEFAULT, .concurrency = 4
	};
	struct evbus_delivery *deliveries[4];
	struct evbus_checkpoint checkpoint;
	struct evbus_consumer *consumer;

	const struct offsets o = publish_numbered(4);
	OK(evbus_consumer_open(bus, &options, &consumer, &err));
	for (int i = 0; i < 4; i++) {
		OK(evbus_consumer_next(consumer, 5000, &deliveries[i], &err));
		cr_assert_not_null(deliveries[i]);
		IS(deliveries[i]->record->offset, o.at[i]);
	}
	for (int i = 3; i > 0; i--)
		OK(evbus_consumer_done(consumer, deliveries[i], &err));
	OK(evbus_consumer_commit(consumer, &err));
	/* Where it began is not stored as long as it is there. */
	if (evbus_checkpoint_get(bus, "g", "t", 0, &checkpoint, &err) != EVBUS_NONE)
		cr_expect_leq(compare_offsets(checkpoint.next_offset, o.at[0]), 0);
	OK(evbus_consumer_done(consumer, deliveries[0], &err));
	finish(consumer);
	OK(evbus_checkpoint_get(bus, "g", "t", 0, &checkpoint, &err));
	cr_expect_gt(compare_offsets(checkpoint.next_offset, o.at[3]), 0);
	finish(consume(&(struct evbus_retry)EVBUS_RETRY_DEFAULT));
}

Test(consuming, a_checkpoint_of_another_log_is_refused)
{
	struct evbus_consumer_options options = { .group = "g", .topic = "t", .retry = EVBUS_RETRY_DEFAULT };
	struct evbus_checkpoint before, after;
	struct evbus_consumer *consumer;

	publish("t", "{}");
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "end", false, &before, &after, &err));
	memset(after.log_id, '0', 32);
	OK(evbus_checkpoint_restore(bus, &after, 1, &err));
	cr_expect_eq(evbus_consumer_open(bus, &options, &consumer, &err), EVBUS_CONFLICT);
}

/* With an inbox each event id is done once: across doubles on the log, restarts and moved checkpoints. */
#include "consumer_helpers.h"

TestSuite(consumer_inbox, .init = enter, .fini = leave, .timeout = 30);

static uint64_t known(const struct evbus_consumer *consumer)
{
	return evbus_consumer_counts(consumer).known;
}

Test(consumer_inbox, does_each_id_once_also_after_the_checkpoint_was_moved_back)
{
	struct evbus_checkpoint before, after;

	publish(0, 100);
	cr_assert_eq(finish(CONSUMER(.inbox = true, .commit_every = 7)), 100);
	cr_assert_eq(count_of("inbox"), 100);
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "0", false, &before, &after, &err));
	publish(100, 1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	done(consumer, expect(consumer, 100, 1));
	expect_end(consumer);
	cr_assert_eq(known(consumer), 100);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 101);
}

Test(consumer_inbox, goes_by_group_tenant_and_topic)
{
	static const char *const payloads[] = {
		"{\"id\":\"1\",\"n\":0}",
		"{\"id\":1,\"n\":1}",
		"{\"id\":\"1\",\"n\":2,\"tenant_id\":\"a\"}",
		"{\"id\":\"1\",\"n\":3,\"tenant_id\":\"a\"}",
		"{\"id\":\"a1\",\"n\":4}",
		"{\"id\":\"1\",\"n\":5,\"tenant_id\":\"b\"}",
		"{\"specversion\":\"1.0\",\"source\":\"/x\",\"id\":\"1\",\"n\":6}",
		"{\"specversion\":\"1.0\",\"source\":\"/y\",\"id\":\"1\",\"n\":7}",
		"{\"eventId\":\"\\u0031\",\"n\":8}",
	};
	static const int given[] = { 0, 2, 4, 5, 6, 7 };

	for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++)
		publish_to("t", 0, NULL, payloads[i]);
	make_topic("u", 1);
	publish_to("u", 0, NULL, payloads[0]);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	for (size_t i = 0; i < sizeof given / sizeof *given; i++)
		done(consumer, expect(consumer, given[i], 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(finish(CONSUMER(.inbox = true, .topic = "u")), 1);
	cr_assert_eq(finish(CONSUMER(.inbox = true, .group = "h")), 6);
	cr_assert_str_eq(sql("SELECT event_id FROM inbox WHERE group_name = 'g' AND event_id LIKE '/y%'"), "/y 1");
}

Test(consumer_inbox, never_has_two_of_one_id_out)
{
	publish(0, 1);
	publish(0, 1);
	publish(1, 1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true, .concurrency = 8, .commit_every = 100);
	struct evbus_delivery *first = expect(consumer, 0, 1), *other = expect(consumer, 1, 1);

	cr_assert_null(next_within(consumer, 0));
	cr_assert_null(next_within(consumer, -1), "only the caller can bring it about");
	done(consumer, first);
	cr_assert_null(next_within(consumer, 0));
	cr_assert_eq(known(consumer), 1);
	done(consumer, other);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), 3);
}

Test(consumer_inbox, gives_the_double_of_what_died_a_chance)
{
	publish(0, 1);
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true, .concurrency = 2);

	refused(consumer, expect(consumer, 0, 1));
	done(consumer, expect(consumer, 0, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert(count_of("inbox") == 1 && count_of("dlq") == 1);
}

Test(consumer_inbox, keeps_doubles_in_two_partitions_apart_as_well)
{
	make_topic("two", 2);
	publish_many("two", 0, 0, 50, 0);
	publish_many("two", 1, 0, 50, 0);
	cr_assert_eq(finish(CONSUMER(.topic = "two", .inbox = true, .concurrency = 4, .commit_every = 13)), 50);
	cr_assert(stored_of("two", 0) == 50 && stored_of("two", 1) == 50);
}

Test(consumer_inbox, finds_the_row_that_a_handler_has_written_itself)
{
	publish(0, 2);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	struct evbus_delivery *delivery = expect(consumer, 0, 1);

	/* It did its work, and was killed before it could say so. */
	OK(evbus_consumer_commit(consumer, &err));
	failed(consumer, delivery);
	sql("INSERT INTO inbox VALUES ('g', '', 't', '0', '2026-01-01T00:00:00.000000Z')");
	done(consumer, expect(consumer, 1, 1));
	cr_assert_eq(known(consumer), 1);
	sql("DELETE FROM inbox WHERE event_id = '1'");
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_str_eq(sql("SELECT processed_at FROM inbox WHERE event_id = '0'"), "2026-01-01T00:00:00.000000Z");
	cr_assert(count_of("retries") == 0 && stored() == 2);
}

Test(consumer_inbox, minds_no_row_that_is_there_already_when_it_saves)
{
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	struct evbus_delivery *delivery = expect(consumer, 0, 1);

	publish(1, 1);
	cr_assert_eq(finish(CONSUMER(.inbox = true, .group = "h")), 2);
	sql("INSERT INTO inbox SELECT 'g', tenant_id, topic, event_id, 'theirs' FROM inbox");
	done(consumer, delivery);
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(count_of("inbox WHERE processed_at = 'theirs'"), 2);
}

Test(consumer_inbox, asks_the_store_anew_when_an_answer_has_become_old)
{
	publish(0, 5);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);

	/* 1 to 4 are looked up along with 0. */
	done(consumer, expect(consumer, 0, 1));
	OK(evbus_consumer_commit(consumer, &err));
	usleep(5000);
	sql("INSERT INTO inbox VALUES ('g', '', 't', '1', 'x'), ('g', '', 't', '2', 'x')");
	done(consumer, expect(consumer, 3, 1));
	cr_assert_eq(known(consumer), 2);
	evbus_consumer_close(consumer);
}

Test(consumer_inbox, gives_out_an_event_without_an_id_and_says_so_once)
{
	publish_to("t", 0, NULL, "{\"n\":0}");
	publish_to("t", 0, NULL, "{\"n\":1,\"id\":null}");
	publish_to("t", 0, NULL, "{\"n\":2,\"id\":\"\"}");
	publish_to("t", 0, NULL, "{\"n\":3,\"id\":\"a\",\"id\":\"b\"}");
	struct evbus_consumer *consumer = CONSUMER(.inbox = true);
	notices = 0;
	for (int i = 0; i < 4; i++)
		done(consumer, expect(consumer, i, 1));
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert_eq(notices, 1, "%d", notices);
	cr_assert(strstr(noticed, "offset 0: the event has no event id"), "%s", noticed);
	cr_assert_eq(count_of("inbox"), 0);
}

Test(consumer_inbox, is_not_asked_where_there_is_none)
{
	publish(0, 1);
	publish(0, 1);
	cr_assert_eq(finish(CONSUMER(.concurrency = 2)), 2);
	cr_assert_eq(count_of("inbox"), 0);
}

Test(consumer_inbox, does_not_forget_what_it_could_not_save)
{
	publish(0, 1);
	publish(0, 1);
	struct evbus_consumer *consumer = CONSUMER(.inbox = true, .commit_every = 100);
	struct evbus_delivery *delivery;
	done(consumer, expect(consumer, 0, 1));
	cr_assert_eq(stored(), -1);
	cr_assert_eq(finish(CONSUMER(.group = "h")), 2);
	stored_refuse(STATE, "INSERT", "inbox", "1 = 1", "no");
	cr_assert_eq(evbus_consumer_commit(consumer, &err), EVBUS_CONFLICT);
	cr_assert_eq(stored(), -1, "the checkpoint and the inbox are saved together or not at all");
	cr_assert_eq(evbus_consumer_next(consumer, 0, &delivery, &err), EVBUS_CONFLICT);
	cr_assert_eq(known(consumer), 1, "the double is known to be done");
	stored_allow(STATE, "inbox");
	expect_end(consumer);
	evbus_consumer_close(consumer);
	cr_assert(stored() == 2 && count_of("inbox") == 1);
}

/* publisher_once.c, keys.c: publishing idempotently over a backend that has no lock, and one that is worse than others. */
#include "once_helpers.h"

TestSuite(publisher_once, .init = setup, .fini = teardown, .timeout = 60);

/* ---- who is overtaken ---- */

Test(publisher_once, who_is_overtaken_by_the_same_event_has_its_receipt)
{
	overtakes = 1;
	overtaker = "a";
	assert_published("a", true, "0", "{\"by\":\"other\"}");
	cr_expect(record_count() == 1 && appends == 1);
}

Test(publisher_once, who_is_overtaken_by_others_tries_as_often_as_it_takes)
{
	overtakes = 300;
	assert_published("a", false, "300", "{\"by\":\"us\"}");
	cr_expect(record_count() == 301 && appends == 301);
	assert_published("a", true, "300", "{\"by\":\"us\"}");
}

Test(publisher_once, a_commit_may_tell_it_as_well)
{
	late = true;
	overtakes = 2;
	overtaker = "b";
	assert_published("a", false, "1", "{\"by\":\"us\"}");
	overtakes = 1;
	overtaker = "c";
	assert_published("c", true, "2", "{\"by\":\"other\"}");
	cr_expect_eq(record_count(), 3);
}

Test(publisher_once, who_expects_an_offset_and_is_overtaken_fails_unless_by_the_same_event)
{
	struct evbus_publisher *publisher = open_once(bus, "0");

	overtakes = 1;
	overtaker = "a";
	add(publisher, "a");
	OK(evbus_publisher_flush(publisher, &err));
	cr_expect(evbus_publisher_next(publisher)->duplicate);
	evbus_publisher_close(publisher);
	publisher = open_once(bus, "1");
	overtakes = 1;
	overtaker = "b";
	add(publisher, "c");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_CONFLICT);
	evbus_publisher_close(publisher);
	cr_expect(record_count() == 2 && appends == 3);
}

Test(publisher_once, what_is_refused_although_nothing_came_in_between_fails_in_the_end)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	refuses = true;
	asks_max = 1000;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_CONFLICT);
	cr_expect_str_eq(err.text, "refused");
	cr_expect(appends > 100 && appends < 1000);
	evbus_publisher_close(publisher);
}

Test(publisher_once, who_is_always_overtaken_is_asked_whether_to_go_on)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	overtakes = UINT32_MAX;
	overtaker = NULL;
	asks_max = 2;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_AGAIN);
	cr_expect(err.sys_errno == EINTR && asked == 3, "%s", err.text);
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), appends);
}

/* ---- backends that are worse ---- */

Test(publisher_once, what_got_in_although_nobody_said_so_is_found)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	lost = true;
	add(publisher, "a");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_UNAVAILABLE);
	cr_expect_null(evbus_publisher_next(publisher));
	evbus_publisher_close(publisher);
	lost = false;
	assert_published("a", true, "0", "{\"by\":\"us\"}");
}

Test(publisher_once, where_no_offset_can_be_expected_only_what_was_there_before_is_found)
{
	ours.expects = false;
	overtakes = 1;
	overtaker = "a";
	assert_published("a", false, "1", "{\"by\":\"us\"}");
	assert_published("a", true, "0", "{\"by\":\"other\"}");
	cr_expect_eq(record_count(), 2);
}

Test(publisher_once, what_was_taken_of_a_group_before_somebody_came_in_between_is_no_repeat)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	partly = "a";
	add(publisher, "a");
	add(publisher, "b");
	add(publisher, "a");
	OK(evbus_publisher_flush(publisher, &err));
	for (int i = 0; i < 3; i++) {
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert_not_null(receipt);
		IS(receipt->offset, i == 1 ? "1" : "0");
		cr_expect_eq(receipt->duplicate, i == 2);
	}
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), 2);
}

Test(publisher_once, a_server_that_tells_late_of_what_is_new_does_no_harm)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	late_news = true;
	for (int i = 0; i < 4; i++) {
		if (i == 2)
			put_by_other("c");
		add(publisher, i < 2 ? "a" : "c");
		OK(evbus_publisher_flush(publisher, &err));
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert_not_null(receipt);
		IS(receipt->offset, i < 2 ? "0" : "1");
		cr_expect_eq(receipt->duplicate, i > 0);
	}
	evbus_publisher_close(publisher);
	cr_expect_eq(record_count(), 2);
}

/* keys.c, keys_index.c: how much is read for publishing idempotently where there is no lock, and what fails on the way. */
#include "once_helpers.h"
#include "stored.h"

TestSuite(publisher_once_reads, .init = setup, .fini = teardown, .timeout = 60);

/* ---- how much is read ---- */

static void publish_range(struct evbus *to, unsigned from, unsigned end, unsigned repeats)
{
	struct evbus_publisher *publisher = open_once(to, NULL);
	const struct evbus_record *receipt;
	unsigned duplicates = 0;
	char key[200];

	for (unsigned i = from; i < end; i++) {
		memset(key, 'k', sizeof key);
		snprintf(key, sizeof key, "%0199u", i);
		add(publisher, key);
		while ((receipt = evbus_publisher_next(publisher)))
			duplicates += receipt->duplicate;
	}
	OK(evbus_publisher_flush(publisher, &err));
	while ((receipt = evbus_publisher_next(publisher)))
		duplicates += receipt->duplicate;
	evbus_publisher_close(publisher);
	cr_expect_eq(duplicates, repeats);
}

Test(publisher_once_reads, with_a_store_a_long_topic_is_not_read_from_the_beginning_each_time)
{
	for (unsigned keeps = 0; keeps < 2; keeps++) {
		struct evbus *stored = open_bus(stored_url(keeps ? "sqlite:one.db" : "sqlite:other.db"));
		unsigned first = keeps * 2000;
		ours.keeps_lines = keeps;
		publish_range(stored, first, first + 2000, 0);
		records_read = 0;
		publish_range(stored, first + 1990, first + 2000, 10);
		cr_expect_leq(records_read, 12, "%u", records_read);
		evbus_close(stored);
	}
}

Test(publisher_once_reads, who_is_alone_reads_nothing_of_what_he_appends)
{
	records_read = 0;
	publish_range(bus, 0, 10000, 0);
	cr_expect_eq(records_read, 0, "%u", records_read);
}

Test(publisher_once_reads, what_memory_no_longer_has_is_no_repeat)
{
	struct evbus_partition_info info;

	publish_range(bus, 0, 20000, 0);
	publish_range(bus, 0, 20000, 0);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	cr_expect_lt(info.records, 16000);
	publish_range(bus, 19000, 20000, 1000);
}

Test(publisher_once_reads, what_goes_while_it_is_read_is_passed_over)
{
	put_by_other("a");
	put_by_other("b");
	gone = true;
	assert_published("b", true, "1", "{\"by\":\"other\"}");
	cr_expect_not(gone);
}

Test(publisher_once_reads, the_index_is_made_anew_where_there_are_no_files)
{
	struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .rebuild_keys = true };
	struct evbus *stored = open_bus(stored_url("sqlite:state.db"));
	struct evbus_verify_result result;

	publish_range(stored, 0, 2000, 0);
	OK(evbus_verify(stored, NULL, &options, &result, &err));
	cr_expect(result.notes == 1 && !result.damages);
	records_read = 0;
	publish_range(stored, 0, 10, 10);
	cr_expect_leq(records_read, 12, "%u", records_read);
	evbus_close(stored);
}

/* ---- failures ---- */

static enum evbus_code try_to_publish(struct evbus *of)
{
	struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_event event = { .topic = "t",
				     .payload = SLICE("{}"),
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = SLICE("a") };
	struct evbus_publisher *publisher;
	struct evbus_err why;

	TRY(evbus_publisher_open(of, &options, &publisher, &why));
	enum evbus_code code = evbus_publisher_add(publisher, &event, &why);
	if (code == EVBUS_OK)
		code = evbus_publisher_flush(publisher, &why);
	if (code == EVBUS_OK)
		cr_expect_eq(evbus_publisher_next(publisher)->offset.data[0], '1');
	evbus_publisher_close(publisher);
	return code;
}

Test(publisher_once_reads, who_cannot_pass_over_what_went_fails)
{
	put_by_other("a");
	put_by_other("b");
	gone = stuck = true;
	cr_expect_eq(try_to_publish(bus), EVBUS_UNAVAILABLE);
	stuck = false;
	OK(evbus_verify(bus, NULL, &(struct evbus_verify_options){ .partition_id = EVBUS_PARTITION_ALL },
			&(struct evbus_verify_result){ 0 }, &err));
}

Test(publisher_once_reads, who_cannot_look_again_appends_nothing)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);

	add(publisher, "a");
	OK(evbus_publisher_flush(publisher, &err));
	ours.refresh = our_refresh;
	stuck = true;
	add(publisher, "b");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_UNAVAILABLE);
	evbus_publisher_close(publisher);
	stuck = false;
	cr_expect_eq(record_count(), 1);
}

Test(publisher_once_reads, without_memory_to_forget_what_is_gone_it_fails)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);
	char key[16];

	for (unsigned i = 0; i < 16500; i++) {
		snprintf(key, sizeof key, "%u", i);
		add(publisher, key);
	}
	OK(evbus_publisher_flush(publisher, &err));
	add(publisher, "a");
	starved = true;
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_IO);
	cr_expect_not_null(faulty.failed);
	faulty_end();
	cr_expect(strstr(err.text, "event keys in mind"), "%s", err.text);
	evbus_publisher_close(publisher);
}

Test(publisher_once_reads, an_index_that_cannot_be_made_anew_is_told)
{
	struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .rebuild_keys = true };
	struct evbus *stored = open_bus(stored_url("sqlite:state.db"));
	struct evbus_verify_result result;

	publish_range(stored, 0, 2000, 0);
	gone = stuck = true;
	cr_expect_eq(evbus_verify(stored, NULL, &options, &result, &err), EVBUS_UNAVAILABLE, "%s", err.text);
	gone = stuck = false;
	for (unsigned at = 1; at < 400; at++) {
		faulty_begin(at, ENOMEM);
		enum evbus_code code = evbus_verify(stored, NULL, &options, &result, &err);
		bool happened = faulty.failed != NULL;
		faulty_end();
		cr_assert(happened || code == EVBUS_OK);
		if (!happened)
			break;
	}
	publish_range(stored, 0, 10, 10);
	evbus_close(stored);
}

Test(publisher_once_reads, whichever_call_fails_a_key_is_there_once)
{
	bool happened = true;

	put_by_other("x");
	for (unsigned at = 1; happened && at < 400; at++) {
		faulty_begin(at, ENOMEM);
		enum evbus_code code = try_to_publish(bus);
		happened = faulty.failed != NULL;
		faulty_end();
		cr_assert(happened || code == EVBUS_OK);
	}
	cr_expect_not(happened);
	OK(try_to_publish(bus));
	cr_expect_eq(record_count(), 2);
}

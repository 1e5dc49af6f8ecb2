/* What others put on a server and is no JSON object: it is read as it is, and no handler sees it. */
#include "gaps_helpers.h"

TestSuite(not_json, .init = enter_gaps, .fini = leave, .timeout = 60);

static bool slice_holds(struct evbus_slice slice, const char *text)
{
	return slice.data && slice.len == strlen(text) && !memcmp(slice.data, text, slice.len);
}

static enum evbus_code add_raw(struct evbus *to, const char *base64, const char *key)
{
	struct evbus_publisher *publisher;
	struct evbus_event event = { .topic = "t",
				     .payload_base64 = { base64, strlen(base64) },
				     .key = { key, strlen(key) },
				     .partition_id = EVBUS_PARTITION_ANY };

	OK(evbus_publisher_open(to, NULL, &publisher, &err));
	enum evbus_code code = evbus_publisher_add(publisher, &event, &err);
	if (!code) {
		OK(evbus_publisher_flush(publisher, &err));
		const struct evbus_record *receipt = evbus_publisher_next(publisher);
		cr_assert(receipt && !receipt->payload.data);
		cr_expect_eq(receipt->payload_base64.len, strlen(base64));
	}
	evbus_publisher_close(publisher);
	return code;
}

static enum evbus_code expect_raw_letter(void *context, const struct evbus_letter *letter, struct evbus_err *why)
{
	(void)why;
	++*(int *)context;
	cr_expect(letter->payload.len == 3 && !memcmp(letter->payload.data, "\xff\0\n", 3));
	cr_expect_eq(letter->reason, EVBUS_REASON_NOT_JSON);
	cr_expect(letter->attempts >= 1 && slice_holds(letter->partition_key, "k"));
	return EVBUS_OK;
}

Test(not_json, what_is_no_json_object_is_read_as_it_is_and_no_handler_sees_it)
{
	struct evbus_letter_filter filter = { .reason = -1, .state = -1 };
	const struct evbus_record *record;
	struct evbus_reader *reader;
	char bytes[4];
	int letters = 0;

	publish(0, 1);
	OK(add_raw(bus, "/wAK", "k"));
	publish(1, 1);
	OK(evbus_reader_open(bus, &(struct evbus_selection){ .topic = "t", .from = "-2" }, &reader, &err));
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_assert(record && !record->payload.data);
	cr_expect_eq(evbus_base64_decode(record->payload_base64, bytes), 3);
	cr_expect(!memcmp(bytes, "\xff\0\n", 3) && slice_holds(record->partition_key, "\"k\""));
	evbus_reader_close(reader);

	cr_assert_eq(finish(CONSUMER(.concurrency = 1)), 2);
	cr_assert_eq(stored(), offset_of(3));
	OK(evbus_letter_list(bus, NULL, 0, &filter, expect_raw_letter, &letters, &err));
	cr_assert_eq(letters, 1);

	/* Queued, it is none again. */
	OK(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_QUEUE, EVBUS_REASON_REFUSED, SLICE(""), "test", &err));
	cr_assert_eq(finish(CONSUMER(.concurrency = 1)), 0);
	OK(evbus_letter_list(bus, NULL, 0, &filter, expect_raw_letter, &letters, &err));
	cr_assert_eq(letters, 2);
	cr_assert_eq(count_of("dlq WHERE state = 'DEAD'"), 1);
}

/* What begins and ends like an object must not pass for one when its letter comes back. */
Test(not_json, a_letter_that_only_looks_like_an_object_is_none)
{
	OK(add_raw(bus, "eyJuIjowLH0=", "k")); /* {"n":0,} */
	cr_assert_eq(finish(CONSUMER(.inbox = true)), 0);
	OK(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_QUEUE, EVBUS_REASON_REFUSED, SLICE(""), "test", &err));
	cr_assert_eq(finish(CONSUMER(.inbox = true)), 0);
	cr_assert_eq(count_of("dlq WHERE state = 'DEAD' AND payload = CAST('{\"n\":0,}' AS BLOB)"), 1);
}

Test(not_json, a_filter_finds_nothing_in_what_is_no_json_object)
{
	const char *const where[] = { "/n=1" };

	publish(0, 1);
	OK(add_raw(bus, "/wAK", "k"));
	publish(1, 1);
	cr_expect_str_eq(NUMBERS(.filter = { .where = where, .where_count = 1 }), "1 ");
	cr_expect_str_eq(NUMBERS(.filter = { .type = ">" }), "");
	cr_expect_str_eq(NUMBERS(.filter = { .tenant = "x" }), "");
}

Test(not_json, bytes_are_taken_by_servers_only_and_in_base64_only)
{
	struct evbus_options options = { .payload_max_bytes = 4 };
	struct evbus *opened;

	cr_expect_eq(add_raw(bus, "/wA", "k"), EVBUS_DATA);
	cr_expect(strstr(err.text, "no base64"), "%s", err.text);
	OK(evbus_open("memory:", NULL, &opened, &err));
	cr_expect_eq(add_raw(opened, "/wAK", "k"), EVBUS_DATA);
	cr_expect(strstr(err.text, "'memory' takes no other"), "%s", err.text);
	evbus_close(opened);
	OK(evbus_open("memory:gaps", &options, &opened, &err));
	gaps_wrap(opened, modules);
	OK(add_raw(opened, "AAAAAA==", "k"));
	cr_expect_eq(add_raw(opened, "AAAAAAA=", "k"), EVBUS_DATA);
	cr_expect(strstr(err.text, "5 bytes"), "%s", err.text);
	evbus_close(opened);
}

Test(not_json, an_event_that_the_servers_do_not_take_is_refused_alone)
{
	static char large[GAPS_MESSAGE_MAX_BYTES + 1];
	struct evbus_event event = { .topic = "t", .payload = SLICE("{}"), .key = SLICE("k") };
	struct evbus_publisher *publisher;

	memset(large, ' ', sizeof large);
	memcpy(large, "{\"a\":", 5);
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	large[GAPS_MESSAGE_MAX_BYTES - 4] = '1';
	large[GAPS_MESSAGE_MAX_BYTES - 3] = '}';
	event.payload = (struct evbus_slice){ large, GAPS_MESSAGE_MAX_BYTES - 2 };
	cr_expect_eq(evbus_publisher_add(publisher, &event, &err), EVBUS_DATA);
	cr_expect(strstr(err.text, "999998 bytes") && strstr(err.text, "take 1000000"), "%s", err.text);
	event.key = (struct evbus_slice){ NULL, 0 };
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	cr_expect_not_null(evbus_publisher_next(publisher));
	cr_expect_not_null(evbus_publisher_next(publisher));
	evbus_publisher_close(publisher);
}

Test(not_json, bytes_have_no_event_key_unless_it_is_given)
{
	struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_event event = { .topic = "t", .payload_base64 = SLICE("/wAK"), .partition_id = 0 };
	struct evbus_publisher *publisher;

	OK(evbus_publisher_open(bus, &options, &publisher, &err));
	cr_expect_eq(evbus_publisher_add(publisher, &event, &err), EVBUS_DATA);
	cr_expect(strstr(err.text, "no event key"), "%s", err.text);
	event.event_key = SLICE("e");
	OK(evbus_publisher_add(publisher, &event, &err));
	evbus_publisher_close(publisher);
}

/* reader.c: what a program that reads a topic can see of it. Most is in tests/conformance. */
#include "reader.h"
#include "scratch.h"

#define EVENT_BYTES 1000u
#define EVENTS 10000u /* more than is read between two questions */

static struct evbus_err err;

#define OK(call) cr_assert_eq((call), EVBUS_OK, "%d: %s", (int)err.code, err.text)

TestSuite(reader, .timeout = 60);

static void publish_many(struct evbus *bus)
{
	struct evbus_publisher *publisher;
	char payload[EVENT_BYTES + 1];

	snprintf(payload, sizeof payload, "{\"a\":\"%0*d\"}", (int)EVENT_BYTES - 8, 1);
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	for (unsigned i = 0; i < EVENTS; i++)
		OK(evbus_publisher_add(
			publisher, &(struct evbus_event){ .topic = "t", .payload = { payload, EVENT_BYTES } }, &err));
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
}

static bool say_no(void *context)
{
	++*(unsigned *)context;
	return false;
}

Test(reader, that_is_told_to_stop_goes_on_with_the_next_record_when_it_is_asked_again)
{
	const struct evbus_record *record;
	struct evbus_reader *reader;
	unsigned asked = 0, stopped = 0, read = 0;
	struct evbus *bus;

	OK(evbus_open("memory:", NULL, &bus, &err));
	publish_many(bus);
	struct evbus_selection selection = { .topic = "t", .go_on = say_no, .go_on_context = &asked };
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	for (;;) {
		enum evbus_code code = evbus_reader_next(reader, 0, &record, &err);
		if (code == EVBUS_AGAIN) {
			stopped++;
			continue;
		}
		OK(code);
		if (!record)
			break;
		cr_assert_eq(scratch_number(record->offset.data), read++);
	}
	cr_expect_eq(read, EVENTS);
	cr_expect(asked > 1 && asked == stopped, "%u, %u", asked, stopped);
	evbus_reader_close(reader);
	evbus_close(bus);
}

static void expect_read(struct evbus_reader *reader, int32_t partition)
{
	const struct evbus_record *record;

	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_assert_eq(record ? record->partition_id : -1, partition);
}

Test(reader, that_follows_leaves_alone_a_partition_that_rests_and_goes_on_with_the_others)
{
	static const struct evbus_topic_options two = { .partitions = 2 };
	struct evbus_event event = { .topic = "t", .payload = SLICE("{}") };
	struct evbus_publisher *publisher;
	struct evbus_reader *reader;
	struct evbus *bus;
	bool created;

	OK(evbus_open("memory:", NULL, &bus, &err));
	OK(evbus_topic_create(bus, "t", &two, &created, &err));
	struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL, .follow = true };
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	reader->sources[0]->reader->rests_to_us = INT64_MAX;
	for (event.partition_id = 0; event.partition_id < 2; event.partition_id++)
		OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	expect_read(reader, 1);
	expect_read(reader, -1);
	reader->sources[0]->reader->rests_to_us = 1;
	expect_read(reader, 0);
	evbus_publisher_close(publisher);
	evbus_reader_close(reader);
	evbus_close(bus);
}

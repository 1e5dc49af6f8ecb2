/* verify.c: what can be proved of a bus by reading it, and whether two have the same. */
#include "conformance.h"

TestSuite(verify, .init = conformance_enter, .fini = conformance_leave, .timeout = 60);

static char findings[4096];

static void take_finding(void *context, const struct evbus_finding *finding)
{
	size_t len = strlen(findings);

	(void)context;
	snprintf(findings + len, sizeof findings - len, "%s %s %d %s\n", finding->what, finding->topic,
		 finding->partition_id, finding->offset_text);
}

static struct evbus_verify_result verify(struct evbus *of, struct evbus_verify_options options)
{
	struct evbus_verify_result result;

	findings[0] = '\0';
	options.finding = take_finding;
	options.partition_id = EVBUS_PARTITION_ALL;
	OK(evbus_verify(of, NULL, &options, &result, &err));
	return result;
}

Test(verify, a_bus_is_whole_and_events_that_stand_twice_are_worth_knowing)
{
	struct evbus_verify_options options = { .partition_id = 1 };
	struct evbus_verify_result result;
	char wanted[64 + EVBUS_OFFSET_MAX_BYTES];

	make_topic("none", 2);
	publish_numbered(5);
	publish("u", "{\"event_id\":\"1\"}");
	const struct evbus_record *twice = publish("u", "{\"event_id\":\"1\"}");
	snprintf(wanted, sizeof wanted, "duplicate u 0 %.*s\n", (int)twice->offset.len, twice->offset.data);
	result = verify(bus, (struct evbus_verify_options){ .deep = false });
	cr_expect_str_eq(findings, "");
	cr_expect(result.topics == 3 && result.partitions == 4 && result.records == 7 && result.bytes > 0 &&
		  !result.notes && !result.damages);
	result = verify(bus, (struct evbus_verify_options){ .deep = true });
	cr_expect_str_eq(findings, wanted);
	cr_expect(result.notes == 1 && !result.damages);
	cr_expect_eq(evbus_verify(bus, "t", &options, &result, &err), EVBUS_NONE);
	cr_expect_eq(evbus_verify(bus, "absent", &options, &result, &err), EVBUS_NONE);
}

/* ---- copies ---- */

static struct evbus_slice text_of(struct evbus_slice value, char *room, size_t size)
{
	return value.data[0] == '"' ? (struct evbus_slice){ room, evbus_json_text(value, room, size) } :
				      (struct evbus_slice){ NULL, 0 };
}

/* As evbus replay --to-bus does it. */
static void copy(struct evbus *from, struct evbus *to, uint32_t partitions)
{
	struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL };
	struct evbus_topic_options options = { .partitions = partitions };
	const struct evbus_record *record;
	struct evbus_publisher *publisher;
	struct evbus_reader *reader;
	char key[EVBUS_KEY_MAX_BYTES];
	bool created;

	OK(evbus_topic_create(to, "t", &options, &created, &err));
	OK(evbus_reader_open(from, &selection, &reader, &err));
	OK(evbus_publisher_open(to, NULL, &publisher, &err));
	for (;;) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
		struct evbus_event event = { .topic = "t",
					     .payload = record->payload,
					     .key = text_of(record->partition_key, key, sizeof key),
					     .partition_id = EVBUS_PARTITION_ANY };
		OK(evbus_publisher_add(publisher, &event, &err));
	}
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
	evbus_reader_close(reader);
}

static struct evbus *open_files(const char *url)
{
	struct evbus *opened;

	OK(evbus_open(url, NULL, &opened, &err));
	return opened;
}

static void fill(struct evbus *to, unsigned events)
{
	struct evbus_topic_options options = { .partitions = 3 };
	struct evbus_publisher *publisher;
	char key[32], payload[64];
	bool created;

	OK(evbus_topic_create(to, "t", &options, &created, &err));
	OK(evbus_publisher_open(to, NULL, &publisher, &err));
	for (unsigned i = 0; i < events; i++) {
		struct evbus_event event = { .topic = "t", .partition_id = EVBUS_PARTITION_ANY };
		event.key = (struct evbus_slice){ key, (size_t)snprintf(key, sizeof key, "\"%u\xc3\xa4", i % 17) };
		event.payload = (struct evbus_slice){ payload,
						      (size_t)snprintf(payload, sizeof payload, "{\"n\": %u.0}", i) };
		OK(evbus_publisher_add(publisher, &event, &err));
	}
	OK(evbus_publisher_flush(publisher, &err));
	evbus_publisher_close(publisher);
}

Test(verify, a_copy_there_and_back_has_the_same_for_each_key)
{
	struct evbus *here = open_files("file:here"), *back = open_files("file:back");
	struct evbus_verify_result result;

	fill(here, 1000);
	copy(here, bus, 5);
	copy(bus, back, 3);
	result = verify(here, (struct evbus_verify_options){ .against = bus });
	cr_expect_str_eq(findings, "");
	cr_expect(result.topics == 1 && result.records == 1000 && !result.damages);
	result = verify(here, (struct evbus_verify_options){ .against = back });
	cr_expect_eq(result.damages, 0);
	result = verify(bus, (struct evbus_verify_options){ .against = here });
	cr_expect_eq(result.damages, 0);
	OK(evbus_publish(here, "u", "{}", NULL, &err));
	result = verify(bus, (struct evbus_verify_options){ .against = here });
	cr_expect_str_eq(findings, "more u 0 0\n");
	evbus_close(here);
	evbus_close(back);
}

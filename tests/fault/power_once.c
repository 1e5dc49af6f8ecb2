/* The power goes while events are published idempotently, segments are rolled and the index of keys is stored: whoever
 * publishes them all again gets the receipts that were given before, and the log holds each event once. The index may be
 * older than the log, or newer, where the log lost what was not acknowledged. */
#include "power_bus.h"

#include <criterion/criterion.h>

TestSuite(power_once, .timeout = 36000);

#define KEYS 10u

/* What the receipts of the keys said, and when. */
static size_t acked_at[KEYS];
static struct place {
	int32_t partition_id;
	uint64_t offset;
} places[KEYS];

static struct evbus_publisher *open_publisher(struct evbus *bus)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_publisher *publisher;

	CHECK_OK(evbus_publisher_open(bus, &options, &publisher, ERR));
	return publisher;
}

static void add(struct evbus_publisher *publisher, unsigned n)
{
	char payload[400];
	struct evbus_event event = { .topic = TOPIC, .partition_id = (int32_t)(n % BUS_PARTITIONS) };

	event.payload.data = payload;
	event.payload.len = (size_t)snprintf(payload, sizeof payload, "{\"id\":\"e%u\",\"pad\":\"%0200d\"}", n, 0);
	CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
}

static void check_receipt(const struct evbus_record *receipt, unsigned n, size_t changes)
{
	struct place place = { receipt->partition_id, 0 };

	CHECK(decimal_parse(receipt->offset, &place.offset), "a receipt without an offset");
	CHECK(number_at(receipt->payload.data + 8) == n, "a receipt out of order");
	if (was_promised(acked_at[n], changes))
		CHECK(receipt->duplicate && place.partition_id == places[n].partition_id &&
			      place.offset == places[n].offset,
		      "event %u was acknowledged at %d/%ju, and is now published at %d/%ju", n, places[n].partition_id,
		      (uintmax_t)places[n].offset, place.partition_id, (uintmax_t)place.offset);
	if (disk_is_recording() && !was_promised(acked_at[n], changes)) {
		places[n] = place;
		acked_at[n] = disk_changes();
	}
}

static void take_receipts(struct evbus_publisher *publisher, unsigned *n, size_t changes)
{
	const struct evbus_record *receipt;

	while ((receipt = evbus_publisher_next(publisher)))
		check_receipt(receipt, (*n)++, changes);
}

static void publish(struct evbus *bus, unsigned first, unsigned last, size_t changes)
{
	struct evbus_publisher *publisher = open_publisher(bus);
	unsigned got = first;

	for (unsigned n = first; n < last; n++) {
		add(publisher, n);
		take_receipts(publisher, &got, changes);
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	take_receipts(publisher, &got, changes);
	CHECK(got == last, "event %u has no receipt", got);
	evbus_publisher_close(publisher);
}

static void ignore(void *context, const struct evbus_finding *finding)
{
	(void)context;
	(void)finding;
}

static void store_index(struct evbus *bus)
{
	const struct evbus_verify_options options = { .rebuild_keys = true,
						      .partition_id = EVBUS_PARTITION_ALL,
						      .finding = ignore };
	struct evbus_verify_result result;

	CHECK_OK(evbus_verify(bus, TOPIC, &options, &result, ERR));
	CHECK(result.damages == 0, "the log is damaged");
}

/* ---- the oracle ---- */

static void count_record(void *context, const struct evbus_record *record, uint64_t n)
{
	unsigned *seen = context;

	CHECK(n < KEYS && record->partition_id == (int32_t)(n % BUS_PARTITIONS), "event %ju in partition %d",
	      (uintmax_t)n, record->partition_id);
	CHECK(!seen[n]++, "event %ju is there twice", (uintmax_t)n);
}

static void make_topic_of(struct evbus *bus)
{
	const struct evbus_topic_options options = { .partitions = BUS_PARTITIONS, .segment_max_bytes = 1000 };
	bool created;

	CHECK_OK(evbus_topic_create(bus, TOPIC, &options, &created, ERR));
}

static void check(const char *path, size_t changes)
{
	unsigned seen[KEYS] = { 0 };

	restart_machine();
	struct evbus *bus = bus_open(path);
	make_topic_of(bus);
	bus_read(bus, count_record, seen);
	for (unsigned n = 0; n < KEYS; n++)
		CHECK(seen[n] || !was_promised(acked_at[n], changes), "event %u was acknowledged and is not there", n);
	publish(bus, 0, KEYS, changes);
	memset(seen, 0, sizeof seen);
	bus_read(bus, count_record, seen);
	for (unsigned n = 0; n < KEYS; n++)
		CHECK(seen[n], "event %u is not there", n);
	evbus_close(bus);
}

static void recover_recorded(const char *path, size_t changes)
{
	promises_keep(acked_at, KEYS, changes);
	check(path, 0);
}

Test(power_once, goes_while_events_are_published_idempotently_segments_rolled_and_keys_stored)
{
	states_begin();
	const struct states states = {
		.ready = bus_ready, .check = check, .drawn = 8, .parts = 1, .every = run_count(8, 400), .before = ""
	};
	for (unsigned n = 0; n < KEYS; n++)
		acked_at[n] = NEVER;
	disk_record("live");
	struct evbus *bus = bus_open("live");
	make_topic_of(bus);
	publish(bus, 0, 2, 0);
	store_index(bus);
	for (unsigned n = 2; n < KEYS; n += 4) {
		publish(bus, n, n + 2, 0);
		publish(bus, n, n + 4, 0);
		if (n == 2)
			store_index(bus);
	}
	evbus_close(bus);
	disk_stop();
	states_check(&states, 0);
	states_check_twice(&states, 0, run_count(4, 1), recover_recorded);
	states_end("idempotent publishing");
}

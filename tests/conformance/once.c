/* once.c: what every backend gives who publishes idempotently: of each key one record, and for each repeat the receipt of
 * the first. Two that publish the same at the same time: see exact(). */
#include "conformance.h"

#include <pthread.h>

#define MANY 1100u /* so many that they are put into the store */
#define RACED 2000u

TestSuite(once, .init = conformance_enter, .fini = conformance_leave, .timeout = 120);

/* ---- helpers ---- */

/* Whether the backend sees to it also while two publish at once. Where it does not, a key may stand there twice. */
static bool exact(void)
{
	return !lacks("expect");
}

static struct evbus_publisher *open_once(struct evbus *of, const char *expect)
{
	struct evbus_publisher_options options = { .idempotent = true, .expect_offset = expect };
	struct evbus_publisher *publisher;

	OK(evbus_publisher_open(of, &options, &publisher, &err));
	return publisher;
}

static void add(struct evbus_publisher *publisher, const char *tenant, const char *key, const char *payload)
{
	struct evbus_event event = { .topic = "t",
				     .payload = { payload, strlen(payload) },
				     .key = { key, strlen(key) },
				     .partition_id = EVBUS_PARTITION_ANY,
				     .event_key = { key, strlen(key) } };

	if (tenant)
		event.tenant_id = (struct evbus_slice){ tenant, strlen(tenant) };
	OK(evbus_publisher_add(publisher, &event, &err));
}

static void add_many(struct evbus_publisher *publisher, unsigned from, unsigned to)
{
	char key[16];

	for (unsigned i = from; i < to; i++) {
		snprintf(key, sizeof key, "k%u", i);
		add(publisher, NULL, key, "{\"n\":1}");
	}
	OK(evbus_publisher_flush(publisher, &err));
}

/* How many of the receipts that are there are of repeats. */
static unsigned repeats(struct evbus_publisher *publisher, unsigned receipts)
{
	const struct evbus_record *receipt;
	unsigned count = 0, all = 0;

	while ((receipt = evbus_publisher_next(publisher))) {
		all++;
		count += receipt->duplicate;
	}
	cr_expect_eq(all, receipts);
	return count;
}

static unsigned publish_many(struct evbus *to, unsigned from, unsigned end)
{
	struct evbus_publisher *publisher = open_once(to, NULL);

	add_many(publisher, from, end);
	unsigned count = repeats(publisher, end - from);
	evbus_publisher_close(publisher);
	return count;
}

static const char *all_of_topic(void)
{
	return read_all(&(struct evbus_selection){ .topic = "t", .partition_id = EVBUS_PARTITION_ALL });
}

/* The next receipt, copied into `offset`; it says what the first was. */
static void take(struct evbus_publisher *publisher, char offset[EVBUS_OFFSET_MAX_BYTES + 1], const char *payload,
		 bool duplicate)
{
	const struct evbus_record *receipt = evbus_publisher_next(publisher);

	cr_assert_not_null(receipt);
	snprintf(offset, EVBUS_OFFSET_MAX_BYTES + 1, "%.*s", (int)receipt->offset.len, receipt->offset.data);
	IS(receipt->payload, payload);
	IS(receipt->topic, "t");
	cr_expect_eq(receipt->duplicate, duplicate, "%s", payload);
}

/* ---- one after the other ---- */

Test(once, a_repeat_is_answered_with_its_first_in_a_slot_and_after_it_and_over_handles)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);
	char a[EVBUS_OFFSET_MAX_BYTES + 1], b[EVBUS_OFFSET_MAX_BYTES + 1], again[EVBUS_OFFSET_MAX_BYTES + 1];

	add(publisher, NULL, "a", "{\"n\":0}");
	add(publisher, NULL, "b", "{\"n\":1}");
	add(publisher, NULL, "a", "{\"n\":2}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, a, "{\"n\":0}", false);
	take(publisher, b, "{\"n\":1}", false);
	take(publisher, again, "{\"n\":0}", true);
	cr_expect_str_eq(again, a);
	cr_expect_str_neq(b, a);
	add(publisher, NULL, "b", "{\"n\":3}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, again, "{\"n\":1}", true);
	cr_expect_str_eq(again, b);
	struct evbus *other = open_again();
	struct evbus_publisher *second = open_once(other, NULL);
	add(second, NULL, "c", "{\"n\":4}");
	add(second, NULL, "a", "{\"n\":5}");
	OK(evbus_publisher_flush(second, &err));
	take(second, b, "{\"n\":4}", false);
	take(second, again, "{\"n\":0}", true);
	cr_expect_str_eq(again, a);
	evbus_publisher_close(second);
	evbus_close(other);
	add(publisher, NULL, "c", "{\"n\":6}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, again, "{\"n\":4}", true);
	cr_expect_str_eq(again, b);
	evbus_publisher_close(publisher);
	cr_expect_str_eq(all_of_topic(), "{\"n\":0} {\"n\":1} {\"n\":4} ");
}

Test(once, the_key_of_another_tenant_is_another_and_so_is_one_that_looks_alike)
{
	static const char *const names[][2] = {
		{ NULL, "a" }, { "x", "a" }, { "y", "a" }, { NULL, "xa" }, { "xa", "\xc3\xa4\"\\" }
	};
	struct evbus_publisher *publisher;
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];

	for (int round = 0; round < 2; round++) {
		publisher = open_once(bus, NULL);
		for (size_t i = 0; i < 5; i++)
			add(publisher, names[i][0], names[i][1], "{}");
		OK(evbus_publisher_flush(publisher, &err));
		for (size_t i = 0; i < 5; i++)
			take(publisher, offset, "{}", round);
		evbus_publisher_close(publisher);
	}
	cr_expect_str_eq(all_of_topic(), "{} {} {} {} {} ");
}

Test(once, what_was_published_without_a_key_is_no_first)
{
	struct evbus_publisher *publisher = open_once(bus, NULL);
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];

	publish("t", "{\"event_id\":\"a\"}");
	add(publisher, NULL, "a", "{\"n\":0}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, offset, "{\"n\":0}", false);
	publish("t", "{\"event_id\":\"a\"}");
	add(publisher, NULL, "a", "{\"n\":1}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, offset, "{\"n\":0}", true);
	evbus_publisher_close(publisher);
}

/* ---- the store ---- */

Test(once, a_store_that_was_deleted_is_made_again)
{
	make_topic("t", 2);
	cr_expect_eq(publish_many(bus, 0, MANY), 0);
	cr_expect_eq(publish_many(bus, 0, 10), 10);
	cr_assert(!access("state.db", F_OK) || lacks("keys"));
	unlink("state.db");
	unlink("state.db-wal");
	unlink("state.db-shm");
	cr_expect_eq(publish_many(bus, MANY - 10, MANY + 10), 10);
	cr_expect_eq(publish_many(bus, 0, MANY + 10), MANY + 10);
}

Test(once, what_a_store_says_of_another_bus_is_not_believed)
{
	struct evbus_options options = { .store = "sqlite:state.db" };
	struct evbus *elsewhere;

	OK(evbus_open("file:elsewhere", &options, &elsewhere, &err));
	for (unsigned round = 0; round < 2; round++) {
		cr_expect_eq(publish_many(elsewhere, 0, MANY), round ? MANY : 0);
		cr_expect_eq(publish_many(bus, 500, MANY + 500), round ? MANY : 0);
	}
	evbus_close(elsewhere);
}

/* ---- with an offset that is expected ---- */

Test(once, an_expected_offset_is_that_of_the_first_that_is_no_repeat)
{
	struct evbus_partition_info info;
	struct evbus_publisher *publisher;
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];

	if (!exact())
		cr_skip_test("the backend does not see to offsets");
	cr_expect_eq(publish_many(bus, 0, 3), 0);
	OK(evbus_topic_describe(bus, "t", 0, &info, &err));
	/* Of another place: nothing is appended, and what is there already has its receipt even so. */
	publisher = open_once(bus, info.first_offset);
	add(publisher, NULL, "k1", "{\"n\":2}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, offset, "{\"n\":1}", true);
	add(publisher, NULL, "k3", "{\"n\":3}");
	cr_expect_eq(evbus_publisher_flush(publisher, &err), EVBUS_CONFLICT, "%s", err.text);
	cr_expect_null(evbus_publisher_next(publisher));
	evbus_publisher_close(publisher);
	publisher = open_once(bus, info.next_offset);
	add(publisher, NULL, "k1", "{\"n\":2}");
	add(publisher, NULL, "k3", "{\"n\":3}");
	OK(evbus_publisher_flush(publisher, &err));
	take(publisher, offset, "{\"n\":1}", true);
	take(publisher, offset, "{\"n\":3}", false);
	cr_expect_str_eq(offset, info.next_offset);
	evbus_publisher_close(publisher);
	cr_expect_str_eq(all_of_topic(), "{\"n\":1} {\"n\":1} {\"n\":1} {\"n\":3} ");
}

/* ---- at the same time ---- */

struct racer {
	struct evbus *own;
	unsigned seed, repeats;
	bool failed;
	char why[512];
};

static bool race(struct racer *racer, struct evbus_publisher *publisher, const unsigned *order)
{
	const struct evbus_record *receipt;
	struct evbus_err e;
	char key[16];

	for (unsigned i = 0; i < RACED; i++) {
		int len = snprintf(key, sizeof key, "k%u", order[i]);
		struct evbus_event event = { .topic = "t",
					     .payload = { "{}", 2 },
					     .partition_id = EVBUS_PARTITION_ANY,
					     .key = { key, (size_t)len },
					     .event_key = { key, (size_t)len } };
		enum evbus_code code = evbus_publisher_add(publisher, &event, &e);
		if (code == EVBUS_OK && i % 40 == 39)
			code = evbus_publisher_flush(publisher, &e);
		if (code != EVBUS_OK) {
			snprintf(racer->why, sizeof racer->why, "%d: %.500s", (int)code, e.text);
			return false;
		}
		while ((receipt = evbus_publisher_next(publisher)))
			racer->repeats += receipt->duplicate;
	}
	return true;
}

static void *run_racer(void *context)
{
	struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_publisher *publisher;
	struct racer *racer = context;
	unsigned order[RACED];
	struct evbus_err e;

	for (unsigned i = 0; i < RACED; i++)
		order[i] = i;
	for (unsigned i = RACED - 1; i > 0; i--) {
		racer->seed = racer->seed * 1103515245u + 12345u;
		unsigned at = (racer->seed >> 8) % (i + 1), swap = order[i];
		order[i] = order[at];
		order[at] = swap;
	}
	racer->failed = evbus_publisher_open(racer->own, &options, &publisher, &e) != EVBUS_OK;
	if (racer->failed)
		return NULL;
	racer->failed = !race(racer, publisher, order);
	evbus_publisher_close(publisher);
	return NULL;
}

/* How many records there are, and of how many keys. */
static void count_keys(unsigned *records, unsigned *keys)
{
	struct evbus_selection selection = { .topic = "t", .partition_id = EVBUS_PARTITION_ALL };
	static unsigned char seen[RACED];
	const struct evbus_record *record;
	struct evbus_reader *reader;

	memset(seen, 0, sizeof seen);
	*records = *keys = 0;
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	for (;; ++*records) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		if (!record)
			break;
		unsigned key = (unsigned)scratch_number(record->event_key.data + 2);
		cr_assert(key < RACED);
		*keys += !seen[key];
		seen[key] = 1;
	}
	evbus_reader_close(reader);
}

Test(once, two_that_publish_the_same_at_once_put_each_key_there_once)
{
	struct racer racers[2] = { { .seed = 1 }, { .seed = 2 } };
	pthread_t threads[2];
	unsigned records, keys;

	make_topic("t", 3);
	for (int i = 0; i < 2; i++) {
		racers[i].own = open_again();
		cr_assert(!pthread_create(&threads[i], NULL, run_racer, &racers[i]));
	}
	for (int i = 0; i < 2; i++) {
		cr_assert(!pthread_join(threads[i], NULL));
		cr_assert_not(racers[i].failed, "%s", racers[i].why);
		evbus_close(racers[i].own);
	}
	count_keys(&records, &keys);
	cr_expect_eq(keys, RACED);
	cr_expect_geq(records, RACED);
	if (exact())
		cr_expect_eq(records, RACED);
	/* Who was overtaken after a part of his group got in finds that part again, and calls it a repeat. */
	cr_expect_geq(racers[0].repeats + racers[1].repeats + records, 2 * RACED);
	cr_expect_eq(publish_many(bus, 0, RACED), RACED);
}

/* ---- who publishes so, and who takes such events ---- */

static enum evbus_code on_receipt(void *context, const struct evbus_record *receipt, struct evbus_err *why)
{
	(void)why;
	*(unsigned *)context += receipt->duplicate;
	return EVBUS_OK;
}

Test(once, an_outbox_is_drained_and_what_was_published_and_not_marked_is_not_published_again)
{
	unsigned duplicates = 0;
	struct evbus_drain_options options = { .retry = EVBUS_RETRY_DEFAULT,
					       .receipt = on_receipt,
					       .context = &duplicates };
	struct evbus_drain_result result;
	struct evbus_outbox *outbox;
	char id[16];
	bool made, wal;

	cr_expect_eq(publish_many(bus, 0, 5), 0);
	OK(evbus_outbox_open(bus, "sqlite:app.db", NULL, &outbox, &err));
	OK(evbus_outbox_init(outbox, &made, &wal, &err));
	for (int i = 0; i < 20; i++) {
		struct evbus_outbox_row row = { .topic = { "t", 1 },
						.payload = { "{\"type\":\"x\"}", 12 },
						.event_type = { "x", 1 } };
		row.id = (struct evbus_slice){ id, (size_t)snprintf(id, sizeof id, "k%d", i) };
		OK(evbus_outbox_add(outbox, &row, &err));
	}
	OK(evbus_outbox_drain(outbox, &options, &result, &err));
	cr_expect(result.sent == 20 && result.duplicates == 5 && duplicates == 5, "%ju sent, %ju of them repeats",
		  (uintmax_t)result.sent, (uintmax_t)result.duplicates);
	evbus_outbox_close(outbox);
	cr_expect_eq(publish_many(bus, 0, 20), 20);
}

Test(once, an_event_that_comes_twice_is_delivered_once_by_the_inbox)
{
	struct evbus_consumer_options options = {
		.group = "g", .topic = "t", .inbox = true, .retry = EVBUS_RETRY_DEFAULT
	};
	struct evbus_consumer *consumer;
	struct evbus_delivery *delivery;
	unsigned delivered = 0;

	for (int i = 0; i < 3; i++) {
		publish("t", "{\"event_id\":\"1\"}");
		publish("t", "{\"event_id\":\"2\"}");
	}
	OK(evbus_consumer_open(bus, &options, &consumer, &err));
	while (!evbus_consumer_finished(consumer)) {
		OK(evbus_consumer_next(consumer, 5000, &delivery, &err));
		if (!delivery)
			continue;
		delivered++;
		OK(evbus_consumer_done(consumer, delivery, &err));
	}
	OK(evbus_consumer_commit(consumer, &err));
	cr_expect_eq(delivered, 2);
	evbus_consumer_close(consumer);
}

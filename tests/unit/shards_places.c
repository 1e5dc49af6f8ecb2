/* Partitions that come and go: receipts, offsets of any length, publishing once, and what is said of all that are there. */
#include "delivery/keys.h"
#include "shards_helpers.h"

TestSuite(shards_places, .init = enter_shards, .fini = leave, .timeout = 60);

/* ---- offsets that are no numbers ---- */

static const char *text_of(unsigned position)
{
	static char text[EVBUS_OFFSET_MAX_BYTES + 1];

	snprintf(text, sizeof text, "1%099u", position);
	return text;
}

Test(shards_places, a_receipt_says_which_partition_took_it_and_where)
{
	struct evbus_publisher *publisher;
	struct evbus_event event = {
		.topic = "t", .payload = SLICE("{\"n\":1}"), .key = SLICE("k"), .partition_id = 1
	};

	int32_t child = shards_split(1);
	OK(evbus_publisher_open(bus, NULL, &publisher, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	const struct evbus_record *receipt = evbus_publisher_next(publisher);
	cr_assert(receipt && (receipt->partition_id == child || receipt->partition_id == child + 1));
	receipt = evbus_publisher_next(publisher);
	cr_assert(receipt && receipt->offset.len == 100 && !memcmp(receipt->offset.data, text_of(104), 100));
	cr_expect_eq(receipt->payload.len, 7);
	cr_expect(memmem(receipt->stored.data, receipt->stored.len, text_of(104), 100));
	evbus_publisher_close(publisher);
}

Test(shards_places, a_checkpoint_is_an_offset_of_any_length)
{
	struct evbus_checkpoint before, after;
	struct evbus_lag lag;
	struct evbus_partition_info info;

	for (int n = 0; n < 5; n++)
		publish_to("t", 1, "k", "{\"n\":1}");
	OK(evbus_checkpoint_set(bus, "g", "t", 1, text_of(104), false, &before, &after, &err));
	cr_expect_str_eq(after.next_offset, text_of(104));
	OK(evbus_checkpoint_lag(bus, &after, &lag, &err));
	cr_expect_eq(lag.records, -1);
	cr_expect_eq(finish(ONLY(1, .concurrency = 1)), 4);
	OK(evbus_checkpoint_get(bus, "g", "t", 1, &after, &err));
	cr_expect_str_eq(after.next_offset, text_of(116));
	OK(evbus_checkpoint_lag(bus, &after, &lag, &err));
	cr_expect_eq(lag.records, 0);
	OK(evbus_topic_describe(bus, "t", 1, &info, &err));
	cr_expect_str_eq(info.first_offset, text_of(101));
	cr_expect_str_eq(info.next_offset, text_of(116));
	cr_expect_eq(evbus_checkpoint_set(bus, "g", "t", 1, text_of(117), false, &before, &after, &err),
		     EVBUS_CONFLICT);
	cr_expect(strstr(err.text, text_of(117)));
	cr_expect_eq(evbus_checkpoint_set(bus, "g", "t", 1, "7", false, &before, &after, &err), EVBUS_CONFLICT);
}

Test(shards_places, a_place_is_named_by_its_offset)
{
	char from[EVBUS_OFFSET_MAX_BYTES + 1], to[EVBUS_OFFSET_MAX_BYTES + 1];
	const struct evbus_record *record;
	struct evbus_reader *reader;

	for (int n = 0; n < 6; n++) {
		char payload[32];
		snprintf(payload, sizeof payload, "{\"n\":%d}", n);
		publish_to("t", 1, "k", payload);
	}
	snprintf(from, sizeof from, "%s", text_of(107));
	snprintf(to, sizeof to, "%s", text_of(113));
	const struct evbus_selection selection = { .topic = "t", .partition_id = 1, .from = from, .to = to };
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	for (int n = 2; n < 4; n++) {
		OK(evbus_reader_next(reader, 0, &record, &err));
		cr_assert(record && number_in(record) == n);
	}
	OK(evbus_reader_next(reader, 0, &record, &err));
	cr_expect_null(record);
	evbus_reader_close(reader);
}

Test(shards_places, a_dead_letter_that_is_queued_comes_back_with_its_offset)
{
	publish_to("t", 1, "k", "{\"n\":0}");
	struct evbus_consumer *consumer = ONLY(1, .concurrency = 1);
	refused(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
	OK(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_QUEUE, EVBUS_REASON_REFUSED, SLICE(""), "test", &err));
	consumer = ONLY(1, .concurrency = 1);
	struct evbus_delivery *letter = next(consumer);
	cr_assert(letter && letter->letter == 1 && number_of(letter) == 0);
	cr_expect_eq(letter->record->offset.len, 100);
	cr_expect(!memcmp(letter->record->offset.data, text_of(101), 100));
	done(consumer, letter);
	expect_end(consumer);
	evbus_consumer_close(consumer);
}

/* ---- texts that cannot be told ---- */

static struct evbus_checkpoint set_before, set_after;

static enum evbus_code set_to(unsigned position)
{
	return evbus_checkpoint_set(bus, "g", "t", 1, text_of(position), false, &set_before, &set_after, &err);
}

static enum evbus_code set_within(void)
{
	return set_to(104);
}

static enum evbus_code set_behind_the_end(void)
{
	return set_to(400);
}

/* Of one that is of a longer log the lag is not known. */
static enum evbus_code lag_of_one_behind_the_end(void)
{
	struct evbus_checkpoint behind = set_after;
	struct evbus_lag lag;

	snprintf(behind.next_offset, sizeof behind.next_offset, "%s", text_of(400));
	TRY(evbus_checkpoint_lag(bus, &behind, &lag, &err));
	cr_expect_eq(lag.records, -1);
	return EVBUS_OK;
}

/* Each time another one cannot be told, and in the end all can; how many there are. */
static int texts_of(enum evbus_code (*act)(void), enum evbus_code in_the_end)
{
	for (unsigned at = 1;; at++) {
		shards_text_fails = at;
		enum evbus_code code = act();
		if (shards_text_fails) {
			shards_text_fails = 0;
			cr_expect_eq(code, in_the_end, "%s", err.text);
			return (int)at - 1;
		}
		cr_assert_eq(code, EVBUS_UNAVAILABLE, "text %u: %d", at, (int)code);
		cr_expect_str_eq(err.text, "as it was told");
	}
}

Test(shards_places, an_offset_that_cannot_be_told_is_a_failure_whichever_it_is)
{
	for (int n = 0; n < 5; n++)
		publish_to("t", 1, "k", "{\"n\":1}");
	cr_expect_eq(texts_of(set_within, EVBUS_OK), 2);
	cr_expect_str_eq(set_after.next_offset, text_of(104));
	cr_expect_eq(texts_of(set_behind_the_end, EVBUS_CONFLICT), 4);
	cr_expect_eq(texts_of(lag_of_one_behind_the_end, EVBUS_OK), 2);
}

/* ---- publishing once ---- */

static bool publish_once(struct evbus_publisher *publisher, int n)
{
	char payload[64], key[16];
	int len = snprintf(payload, sizeof payload, "{\"id\":\"%d\",\"n\":%d}", n, n);
	int key_len = snprintf(key, sizeof key, "k%d", n % KEYS);
	struct evbus_event event = { .topic = "t",
				     .payload = { payload, (size_t)len },
				     .key = { key, (size_t)key_len },
				     .partition_id = EVBUS_PARTITION_ANY };

	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	const struct evbus_record *receipt = evbus_publisher_next(publisher);
	cr_assert_not_null(receipt);
	cr_expect_eq(receipt->offset.len, 100);
	return !receipt->duplicate;
}

/* Two that are open all the time, each of which publishes what the other may have published before, elsewhere. */
Test(shards_places, what_was_published_before_a_split_is_not_published_again)
{
	const struct evbus_publisher_options options = { .idempotent = true, .event_key_from = "/id" };
	struct evbus_publisher *one, *other;

	OK(evbus_publisher_open(bus, &options, &one, &err));
	OK(evbus_publisher_open(bus, &options, &other, &err));
	for (int n = 0; n < 60; n++) {
		cr_expect(publish_once(n % 2 ? one : other, n), "%d", n);
		if (n % 10 == 5)
			split_or_merge();
		cr_expect_not(publish_once(n % 3 ? one : other, n), "%d", n);
		cr_expect_not(publish_once(n % 3 ? other : one, n / 2), "%d", n);
	}
	evbus_publisher_close(one);
	evbus_publisher_close(other);
}

static void *no_memory(void *block, size_t size)
{
	(void)block;
	(void)size;
	return NULL;
}

Test(shards_places, keys_of_a_partition_that_there_is_no_memory_for_are_read_once_there_is)
{
	struct backend_topic *topic;
	struct keys *keys;

	OK(bus->backend->ops->topic_open(bus->backend, "t", &topic, &err));
	OK(keys_open(topic, bus->store, &keys, &err));
	int32_t child = shards_split(1);
	publish_to("t", 1, "k", "{\"n\":1}");
	OK(topic->ops->topic_check(topic, "publish", &err));
	os.realloc = no_memory;
	cr_expect_eq(keys_enter(keys, NULL, 0, NULL, &err), EVBUS_IO);
	cr_expect_str_eq(err.text, "cannot open the keys of topic 't': Cannot allocate memory");
	os.realloc = real_os.realloc;
	cr_assert_leq(keys->size, (uint32_t)child);
	OK(keys_enter(keys, NULL, 0, NULL, &err));
	cr_assert_eq(keys->size, (uint32_t)child + 2);
	cr_expect_eq(keys->parts[child].seen_to + keys->parts[child + 1].seen_to, 101 + 104);
	keys_leave(keys);
	keys_close(keys, false);
	backend_topic_close(&topic);
}

Test(shards_places, keys_have_no_index_that_could_be_made_anew)
{
	const struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .rebuild_keys = true };
	struct evbus_verify_result result;

	cr_expect_eq(evbus_verify(bus, "t", &options, &result, &err), EVBUS_CONFIG);
	cr_expect_str_eq(err.text,
			 "topic 't' has no index of event keys that could be made anew: it is read each time");
}

/* ---- all partitions ---- */

Test(shards_places, those_that_are_there_are_described_and_verified)
{
	const struct evbus_verify_options options = { .partition_id = EVBUS_PARTITION_ALL, .deep = true };
	struct evbus_partition_info info = { .next_partition_id = EVBUS_PARTITION_ALL };
	struct evbus_verify_result result;
	uint64_t records = 0;
	int seen = 0;

	publish_keys(0, 100);
	(void)shards_split(0);
	publish_keys(100, 100);
	(void)shards_merge(1, 2);
	publish_keys(200, 100);
	shards_forget(1);
	do {
		OK(evbus_topic_describe(bus, "t", info.next_partition_id, &info, &err));
		seen = seen * 10 + info.partition_id;
		records += info.records;
	} while (info.next_partition_id >= 0);
	cr_expect_eq(seen, 2345);
	OK(evbus_verify(bus, "t", &options, &result, &err));
	cr_expect_eq(result.partitions, 5);
	cr_expect_eq(result.damages, 0);
	cr_expect_eq(result.records, records);
}

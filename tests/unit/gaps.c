/* Where offsets begin anywhere and are left out, as on servers: what is consumed and read is what is there, and the
 * checkpoint is where it should be. The rest of it is in tests/conformance, which runs over the same backend. */
#include "gaps_helpers.h"
#include "modules.h"

#define MANY 300
#define RETRIES 2

TestSuite(gaps, .init = enter_gaps, .fini = leave, .timeout = 60);

/* ---- consuming ---- */

Test(gaps, a_group_that_has_done_all_is_at_the_end_whatever_is_left_out_there)
{
	publish(0, 5);
	cr_assert_eq(finish(CONSUMER(.concurrency = 1)), 5);
	cr_assert_eq(stored(), offset_of(5));
	cr_assert_eq(finish(CONSUMER(.concurrency = 3)), 0);
	publish(5, 40);
	cr_assert_eq(finish(CONSUMER(.concurrency = 3)), 40);
	cr_assert_eq(stored(), offset_of(45));
}

Test(gaps, what_follows_sees_what_comes_behind_a_gap)
{
	struct evbus_consumer *consumer = CONSUMER(.follow = true);

	cr_assert_null(next_within(consumer, 10));
	for (int n = 0; n < 5; n++) {
		publish(n, 1);
		struct evbus_delivery *delivery = expect(consumer, n, 1);
		cr_assert_eq((int)scratch_number(delivery->record->offset.data), offset_of(n));
		done(consumer, delivery);
	}
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_geq(stored(), offset_of(4) + 1);
	evbus_consumer_close(consumer);
}

Test(gaps, the_window_keeps_what_is_out_and_the_checkpoint_stays_before_it)
{
	publish(0, 100);
	struct evbus_consumer *consumer = CONSUMER(.concurrency = 64);
	struct evbus_delivery *out[64];

	for (int n = 0; n < 64; n++)
		out[n] = expect(consumer, n, 1);
	for (int n = 63; n > 2; n--)
		done(consumer, out[n]);
	done(consumer, out[0]);
	done(consumer, out[1]);
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), offset_of(1) + 1);
	evbus_consumer_close(consumer);

	/* The next one begins with what was not done. */
	consumer = CONSUMER(.concurrency = 1);
	done(consumer, expect(consumer, 2, 1));
	done(consumer, expect(consumer, 3, 1));
	OK(evbus_consumer_commit(consumer, &err));
	cr_assert_eq(stored(), offset_of(3) + 1);
	cr_assert_eq(finish(consumer), 96);
	cr_assert_eq(stored(), offset_of(100));
}

Test(gaps, what_the_filter_passes_over_moves_the_checkpoint_too)
{
	publish(0, 50);
	const char *const where[] = { "/n=48" };
	struct evbus_consumer *consumer = CONSUMER(.filter = { .where = where, .where_count = 1 });

	done(consumer, expect(consumer, 48, 1));
	expect_end(consumer);
	OK(evbus_consumer_commit(consumer, &err));
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), offset_of(50));
}

/* Attempts that failed, by the offset, over restarts, in any order: each event is done, or dead exactly once. */
Test(gaps, attempts_and_dead_letters_survive_restarts)
{
	int attempts[MANY] = { 0 }, ends[MANY] = { 0 }, dead = 0;
	unsigned seed = 7;
	bool over = false;

	publish_many("t", 0, 0, MANY, 7);
	while (!over) {
		struct evbus_consumer *consumer = CONSUMER(.concurrency = 5);
		struct evbus_delivery *delivery;
		int steps = rand_r(&seed) % 120;
		while (steps-- && (delivery = next_within(consumer, 100))) {
			int n = number_of(delivery), kind = rand_r(&seed) % 4;
			cr_assert_eq((int)scratch_number(delivery->record->offset.data), offset_of(n));
			cr_assert_eq((int)delivery->attempt, attempts[n] + 1);
			/* What was done beyond the checkpoint is not remembered; what is dead is. */
			cr_assert_neq(ends[n], 1, "%d comes after its end", n);
			attempts[n] += kind < 2;
			if (kind == 0) {
				ends[n] = failed(consumer, delivery);
				cr_assert_eq(ends[n], attempts[n] > RETRIES);
			} else if (kind == 1) {
				ends[n] = 1;
				refused(consumer, delivery);
			} else {
				ends[n] = 2;
				attempts[n] = 0;
				done(consumer, delivery);
			}
		}
		OK(evbus_consumer_commit(consumer, &err));
		over = evbus_consumer_finished(consumer);
		evbus_consumer_close(consumer);
	}
	for (int n = 0; n < MANY; n++) {
		char statement[128], end[16];
		snprintf(statement, sizeof statement, "SELECT payload FROM dlq WHERE record_offset = '%d'",
			 offset_of(n));
		snprintf(end, sizeof end, "\"n\":%d}", n);
		cr_assert(ends[n]);
		cr_assert_eq(strstr(sql(statement), end) != NULL, ends[n] == 1, "%d", n);
		dead += ends[n] == 1;
	}
	cr_assert(dead > 10 && dead < MANY - 10);
	cr_assert_eq(count_of("dlq"), dead);
	cr_assert_eq(count_of("retries"), 0);
	cr_assert_eq(stored(), offset_of(MANY));
}

Test(gaps, a_dead_letter_that_is_queued_comes_back_before_what_follows)
{
	publish(0, 3);
	struct evbus_consumer *consumer = CONSUMER(.stop_on_dead = true);
	refused(consumer, expect(consumer, 0, 1));
	evbus_consumer_close(consumer);
	cr_assert_eq(stored(), offset_of(0) + 1);
	OK(evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_QUEUE, EVBUS_REASON_REFUSED, SLICE(""), "test", &err));
	consumer = CONSUMER(.concurrency = 1);
	struct evbus_delivery *letter = next(consumer);
	cr_assert(letter && letter->letter == 1 && number_of(letter) == 0);
	done(consumer, letter);
	cr_assert_eq(finish(consumer), 2);
	cr_assert_eq(stored(), offset_of(3));
}

/* ---- checkpoints ---- */

Test(gaps, a_checkpoint_may_stand_where_an_offset_is_left_out)
{
	struct evbus_checkpoint before, after;
	struct evbus_lag lag;
	char position[24];

	publish(0, 4);
	for (int at = offset_of(0); at <= offset_of(4); at++) {
		snprintf(position, sizeof position, "%d", at);
		OK(evbus_checkpoint_set(bus, "g", "t", 0, position, false, &before, &after, &err));
		cr_expect_str_eq(after.next_offset, position);
		cr_expect_str_eq(after.fingerprint, "", "a line is made anew each time it is read");
		OK(evbus_checkpoint_lag(bus, &after, &lag, &err));
		int left = 4 - (at - offset_of(0) + (int)GAPS_STEP - 1) / (int)GAPS_STEP;
		cr_expect(lag.records >= left && !lag.records == !left, "%d: %d", at, (int)lag.records);
		cr_assert_eq(finish(CONSUMER(.concurrency = 1)), left, "%d", at);
	}
	snprintf(position, sizeof position, "%d", offset_of(4) + 1);
	cr_expect_eq(evbus_checkpoint_set(bus, "g", "t", 0, position, false, &before, &after, &err), EVBUS_CONFLICT);
	snprintf(position, sizeof position, "%d", offset_of(0) - 1);
	cr_expect_eq(evbus_checkpoint_set(bus, "g", "t", 0, position, false, &before, &after, &err), EVBUS_CONFLICT);
}

Test(gaps, a_checkpoint_of_another_log_is_refused_by_the_log_id_alone)
{
	struct evbus_checkpoint before, after;

	publish(0, 2);
	OK(evbus_checkpoint_set(bus, "g", "t", 0, "end", false, &before, &after, &err));
	cr_expect_eq(OPENING(.concurrency = 1), EVBUS_OK);
	memset(after.log_id, '0', 32);
	OK(evbus_checkpoint_restore(bus, &after, 1, &err));
	cr_expect_eq(OPENING(.concurrency = 1), EVBUS_CONFLICT);
	cr_expect(strstr(err.text, "another log"), "%s", err.text);
}

/* ---- reading ---- */

Test(gaps, every_position_from_the_first_to_the_end_names_a_place)
{
	char from[24], wanted[64];

	publish(0, 6);
	for (int at = offset_of(0); at <= offset_of(6); at++) {
		int first = (at - offset_of(0) + (int)GAPS_STEP - 1) / (int)GAPS_STEP;
		size_t len = 0, before = 0;
		char other[64] = "";
		wanted[0] = '\0';
		for (int n = 0; n < 6; n++)
			if (n >= first)
				len += (size_t)snprintf(wanted + len, sizeof wanted - len, "%d ", n);
			else
				before += (size_t)snprintf(other + before, sizeof other - before, "%d ", n);
		snprintf(from, sizeof from, "%d", at);
		cr_expect_str_eq(NUMBERS(.from = from), wanted);
		cr_expect_str_eq(NUMBERS(.to = from), other);
	}
}

Test(gaps, so_many_before_the_end_are_records_and_not_offsets)
{
	static const char five[] = "25 26 27 28 29 ";

	publish(0, 30);
	cr_expect_str_eq(NUMBERS(.from = "-3"), "27 28 29 ");
	cr_expect_str_eq(NUMBERS(.from = "-1"), "29 ");
	cr_expect_str_eq(NUMBERS(.from = "-0"), "");
	cr_expect_str_eq(NUMBERS(.from = "-5", .to = "-3"), "25 26 ");
	cr_expect_str_eq(NUMBERS(.to = "-27"), "0 1 2 ");
	cr_expect_str_eq(NUMBERS(.to = "-18446744073709551614"), "");
	cr_expect_eq(strlen(NUMBERS(.from = "-30")), 10 * 2 + 20 * 3);
	cr_expect_eq(strlen(NUMBERS(.from = "-31")), 10 * 2 + 20 * 3);
	for (uint64_t last = 1; last < 6; last++)
		cr_expect_str_eq(NUMBERS(.last = last), &five[(5 - last) * 3]);
	cr_expect_str_eq(NUMBERS(.last = 2, .to = "-4"), "24 25 ");
}

Test(gaps, the_last_of_several_partitions_are_counted_together)
{
	char since[28];

	make_topic("two", 2);
	for (int n = 0; n < 10; n++) {
		publish_many("two", n % 2, n, 1, 0);
		usleep(1000);
	}
	struct evbus_selection selection = { .topic = "two", .partition_id = EVBUS_PARTITION_ALL, .last = 3 };
	cr_expect_str_eq(numbers(&selection), "7 8 9 ");
	evbus_time_format(evbus_time_now(), since);
	publish_many("two", 0, 10, 1, 0);
	selection.since = since;
	cr_expect_str_eq(numbers(&selection), "10 ");
	selection.since = NULL;
	selection.until = since;
	cr_expect_str_eq(numbers(&selection), "7 8 9 ");
}

Test(gaps, who_follows_from_beyond_the_end_gets_what_comes_there)
{
	const struct evbus_record *record;
	struct evbus_reader *reader;
	char from[24];

	publish(0, 2);
	snprintf(from, sizeof from, "%d", offset_of(3));
	const struct evbus_selection selection = { .topic = "t", .from = from, .follow = true };
	OK(evbus_reader_open(bus, &selection, &reader, &err));
	publish(2, 2);
	OK(evbus_reader_next(reader, 1000, &record, &err));
	cr_assert_not_null(record);
	cr_expect_eq((int)scratch_number(record->offset.data), offset_of(3));
	evbus_reader_close(reader);
}

Test(gaps, times_that_go_back_hide_nothing)
{
	char time[28];

	publish(0, 6);
	evbus_time_format(evbus_time_now() - 1800000000, time);
	gaps_late_us = 3600000000;
	cr_expect_str_eq(NUMBERS(.until = time), "1 3 5 ");
	cr_expect_str_eq(NUMBERS(.since = time), "0 2 4 ");
	gaps_late_us = 0;
}

/* Whichever call it is that fails, the reader is not opened, and what is told is the failure. */
Test(gaps, a_failure_on_the_way_to_a_place_is_told)
{
	char since[28];

	publish(0, 30);
	evbus_time_format(evbus_time_now() - 60000000, since);
	const struct evbus_selection selections[] = {
		{ .topic = "t", .from = "-7", .to = "-3" },
		{ .topic = "t", .last = 5, .until = "2099-01-01T00:00:00Z" },
		{ .topic = "t", .last = 5, .since = since },
		{ .topic = "t", .from = "@0" },
	};
	for (size_t i = 0; i < sizeof selections / sizeof *selections; i++) {
		enum evbus_code code = EVBUS_IO;
		for (unsigned at = 1; code; at++) {
			struct evbus_reader *reader = NULL;
			gaps_fail = at;
			code = evbus_reader_open(bus, &selections[i], &reader, &err);
			cr_assert(!code || (code == EVBUS_IO && strstr(err.text, "the server fails")), "%u: %s", at,
				  err.text);
			cr_assert(at > 1 || code);
			evbus_reader_close(reader);
			gaps_fail = 0;
		}
	}
}

/* ---- partitions that are added ---- */

static struct evbus_publisher *open_once(void)
{
	const struct evbus_publisher_options options = { .idempotent = true };
	struct evbus_publisher *publisher;

	OK(evbus_publisher_open(bus, &options, &publisher, &err));
	return publisher;
}

static const struct evbus_record *put_once(struct evbus_publisher *publisher, int32_t partition, const char *key)
{
	const struct evbus_event event = { .topic = "more",
					   .payload = SLICE("{}"),
					   .key = { key, strlen(key) },
					   .event_key = { key, strlen(key) },
					   .partition_id = partition };

	OK(evbus_publisher_add(publisher, &event, &err));
	OK(evbus_publisher_flush(publisher, &err));
	const struct evbus_record *receipt = evbus_publisher_next(publisher);
	cr_assert_not_null(receipt);
	return receipt;
}

Test(gaps, who_publishes_once_finds_what_came_to_a_partition_that_was_added_and_keys_stay_where_they_were)
{
	struct evbus_topic_options two = { .partitions = 2 };
	char key[16];
	bool created;

	OK(evbus_topic_create(bus, "more", &two, &created, &err));
	gaps_shown = 1;
	struct evbus_publisher *publisher = open_once();
	cr_expect_not(put_once(publisher, EVBUS_PARTITION_ANY, "first")->duplicate);
	gaps_shown = 0;
	struct evbus_publisher *other = open_once();
	cr_expect_eq(put_once(other, 1, "theirs")->partition_id, 1);
	evbus_publisher_close(other);
	const struct evbus_record *receipt = put_once(publisher, EVBUS_PARTITION_ANY, "theirs");
	cr_expect(receipt->duplicate && receipt->partition_id == 1);
	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof key, "k%d", i);
		cr_expect_eq(put_once(publisher, EVBUS_PARTITION_ANY, key)->partition_id, 0, "%s", key);
	}
	evbus_publisher_close(publisher);
}

/* The power goes, at every change that was made on the way to the disk, and leaves what a disk may leave. Then the log
 * is read, recovered, written to and read again, and in some of the states the power goes once more while it recovers. */
#include "power_log.h"

#include <criterion/criterion.h>

TestSuite(power, .timeout = 36000);

static struct log_writer writers[2];

static void begin(uint64_t segment_max_bytes)
{
	const struct evbus_topic_options options = { .segment_max_bytes = segment_max_bytes };

	states_begin();
	log_begin();
	disk_record("live");
	log_open(LIVE_BUS, &options);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writers[0], ERR));
}

static void end(const char *what)
{
	const struct states states = {
		.ready = log_ready, .check = log_check, .drawn = 6, .parts = 1, .every = run_count(2, 8), .before = ""
	};

	writer_close(&writers[0]);
	log_close();
	disk_stop();
	states_check(&states, 0);
	states_check_twice(&states, 0, run_count(10, 1), log_recover);
	states_end(what);
}

Test(power, goes_while_single_events_are_published)
{
	begin(0);
	for (unsigned i = 0; i < 6; i++)
		log_must_publish(&writers[0], 1, false, 10 + 100 * i);
	end("single events");
}

Test(power, goes_while_groups_and_atomic_batches_are_published)
{
	begin(0);
	for (unsigned i = 0; i < 6; i++)
		log_must_publish(&writers[0], 2 + i, i % 2, 300);
	end("groups and batches");
}

Test(power, goes_while_segments_are_rolled)
{
	begin(4096);
	for (unsigned i = 0; i < 8; i++) {
		log_append(&writers[0], 100); /* and who rolls has to sync it */
		log_must_publish(&writers[0], 2, i % 3 == 2, 600);
		log_look();
	}
	end("rolls");
}

/* What stood behind a hole is cut off, and must not come back behind what is written into the hole: lines of one length
 * would fit. */
Test(power, goes_while_events_of_one_length_wait_for_one_sync)
{
	begin(0);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writers[1], ERR));
	for (unsigned i = 0; i < 3; i++) {
		log_append(&writers[0], 20);
		log_append(&writers[1], 20);
		log_append(&writers[0], 20);
		log_look();
		log_must_publish(&writers[1], 1, false, 20);
		log_look();
	}
	writer_close(&writers[1]);
	end("events of one length");
}

/* Each sync in turn fails: what it should have covered is given up, its offsets are used again. The disk says of the
 * same bytes later that all is well. */
Test(power, goes_after_a_sync_failed)
{
	begin(0);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writers[1], ERR));
	for (unsigned i = 0; i < 8; i++) {
		disk_fail_syncs(0, i % 2);
		bool done = log_publish(&writers[i / 2 % 2], 1 + i % 3, false, 200);
		CHECK(done == (i % 2 == 0), "publishing with a failed sync: %d", done);
		log_look();
	}
	writer_close(&writers[1]);
	end("failed syncs");
}

/* The next one recovers, with the page or, where the lock file is removed, without. */
Test(power, goes_after_writers_came_and_went)
{
	begin(0);
	for (unsigned i = 0; i < 4; i++) {
		log_must_publish(&writers[0], 1 + i, i == 2, 150);
		writer_close(&writers[0]);
		if (i % 2)
			CHECK(!os.unlinkat(log_topic.fd, "partition=0.lock", 0), "cannot remove the lock file");
		log_close();
		log_open(LIVE_BUS, NULL);
		CHECK_OK(writer_open(&log_topic, 0, NULL, &writers[0], ERR));
	}
	end("writers that came and went");
}

/* A reader that finds no page of this boot shows what stands there, synced or not: what it shows must stay. */
static void look_without_a_page(bool restart)
{
	if (restart)
		restart_machine();
	else
		CHECK(!os.unlinkat(log_topic.fd, "partition=0.lock", 0), "cannot remove the lock file");
	log_look();
}

static void goes_behind_a_look(const char *what, bool restart)
{
	begin(0);
	for (unsigned i = 0; i < run_count(4, 2); i++) {
		log_must_publish(&writers[0], 1 + i, false, 100);
		log_append(&writers[0], 200);
		/* Without a page, a hole before a good line cannot be told from damage, and is refused. */
		if (restart) {
			log_append(&writers[0], 20);
			writer_close(&writers[0]);
		}
		look_without_a_page(restart);
		if (restart)
			CHECK_OK(writer_open(&log_topic, 0, NULL, &writers[0], ERR));
	}
	end(what);
}

Test(power, goes_after_a_reader_without_a_page_saw_what_nobody_had_synced)
{
	goes_behind_a_look("readers without a page", false);
}

Test(power, goes_after_a_reader_with_a_page_of_another_boot_saw_what_nobody_had_synced)
{
	goes_behind_a_look("readers with a page of another boot", true);
}

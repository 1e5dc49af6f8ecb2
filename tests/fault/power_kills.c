/* A process is killed at each change that it makes on its way to the disk, perhaps after a sync that failed, of which
 * nobody else has heard; the next one recovers what it left, and goes on; and then the power goes. What the second one
 * has shown or acknowledged has to be on the disk, also where a sync that returned 0 proves nothing. */
#include "power_log.h"

#include <criterion/criterion.h>
#include <errno.h>

TestSuite(power_kills, .timeout = 36000);

#define LOCK LIVE_BUS "/" TOPIC "/partition=0.lock"

static struct {
	uint64_t segment_max_bytes;
	unsigned failing; /* of the syncs of the one that is killed, from 1 on; 0: none */
	bool without_page; /* his lock file is removed behind him */
	size_t second; /* the change at which the next one is killed, too; 0: he is not */
} plan_of;

/* ---- who does what ---- */

static void make_log(void)
{
	const struct evbus_topic_options options = { .segment_max_bytes = plan_of.segment_max_bytes };
	struct log_writer writer;

	log_begin();
	log_open(LIVE_BUS, &options);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writer, ERR));
	log_must_publish(&writer, 2, false, 50);
	writer_close(&writer);
	log_close();
}

static void publish_some(void)
{
	struct log_writer writer;

	log_open(LIVE_BUS, NULL);
	CHECK_OK(writer_open(&log_topic, 0, NULL, &writer, ERR));
	if (plan_of.failing)
		disk_fail_syncs(plan_of.failing - 1, 1);
	for (unsigned i = 0; i < 3; i++)
		CHECK(log_publish(&writer, 1 + i % 2, i == 1, 600) || plan_of.failing, "cannot publish");
	writer_close(&writer);
	log_close();
}

static void go_on_until_killed(void)
{
	log_go_on(LIVE_BUS, 2, 20);
}

static void go_on(void)
{
	bool killed;

	if (plan_of.without_page)
		CHECK(!unlink(LOCK) || errno == ENOENT, "cannot remove the lock file");
	if (plan_of.second)
		states_run_killed(plan_of.second, go_on_until_killed, &killed);
	log_go_on(LIVE_BUS, 2, 20);
}

/* ---- at each change ---- */

/* first: the change at which the first of them is killed. Returns how many there are. */
static size_t kill_at_each(void (*prepare)(void), size_t first)
{
	char before[64];
	struct states states = { .ready = log_ready,
				 .check = log_check,
				 .drawn = run_count(1, 0),
				 .parts = 30,
				 .every = run_count(6, 20),
				 .before = before };
	bool killed = true;
	size_t at = first;

	for (; killed; at += run_count(1, 5)) {
		snprintf(before, sizeof before, "killed at change %zu, sync %u fails, ", at, plan_of.failing);
		plan_of.second = plan_of.second ? 1 + at * 7 % 40 : 0;
		size_t changes = states_record_killed(at, prepare, publish_some, go_on, &killed);
		states_check(&states, changes);
	}
	return at - first;
}

static void kill_and_cut(const char *what, void (*prepare)(void), unsigned least)
{
	size_t kills = kill_at_each(prepare, 1 + run.seed % run_count(1, 5));

	CHECK(kills >= least, "%zu kills are too few", kills);
	states_end(what);
}

Test(power_kills, goes_after_a_writer_was_killed_at_any_change)
{
	states_begin();
	kill_and_cut("killed writers", make_log, 15);
}

Test(power_kills, goes_after_a_writer_was_killed_at_any_change_and_his_lock_file_removed)
{
	states_begin();
	plan_of.without_page = true;
	kill_and_cut("killed writers without a page", make_log, 15);
}

Test(power_kills, goes_after_a_writer_was_killed_at_any_change_of_a_roll)
{
	states_begin();
	plan_of.segment_max_bytes = 1024;
	kill_and_cut("killed in a roll", make_log, 50);
}

Test(power_kills, goes_after_a_writer_was_killed_at_any_change_of_the_first_event)
{
	states_begin();
	kill_and_cut("killed at the first event", log_begin, 30);
}

/* The leader is killed between the error and the halt mark, and in all that he does to cut back; the next one's sync
 * returns 0. */
Test(power_kills, goes_after_a_leader_was_killed_over_a_sync_that_failed)
{
	states_begin();
	plan_of.failing = 2;
	kill_and_cut("killed over a failed sync", make_log, 20);
}

Test(power_kills, goes_after_a_leader_was_killed_over_a_sync_that_failed_and_his_lock_file_removed)
{
	states_begin();
	plan_of.failing = 2;
	plan_of.without_page = true;
	kill_and_cut("killed over a failed sync without a page", make_log, 20);
}

Test(power_kills, goes_after_a_leader_was_killed_over_a_sync_that_failed_in_a_roll)
{
	states_begin();
	plan_of.segment_max_bytes = 1024;
	plan_of.failing = 2;
	kill_and_cut("killed over a failed sync in a roll", make_log, 50);
}

Test(power_kills, goes_after_two_were_killed_one_in_the_recovery_of_the_other)
{
	states_begin();
	plan_of.failing = 2;
	plan_of.second = 1;
	kill_and_cut("killed in a recovery", make_log, 20);
}

/* The lock file is safe to delete at any time, and more: whatever is done to it, no receipt is a lie. */
#include "fault.h"
#include "harm.h"

#include <criterion/criterion.h>
#include <errno.h>

#define WRITERS 8u
#define LATE WRITERS
#define EVERY_US 50000

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(500);
}

TestSuite(lockfile, .init = setup, .fini = run_end, .timeout = 120);

/* ---- under load ---- */

static void tell_failures(const char *what)
{
	fprintf(stderr, "%s: %llu receipts, failures:", what, (unsigned long long)atomic_load(&notes->acked));
	for (unsigned code = 0; code < 128; code++)
		if (atomic_load(&notes->failures[code]))
			fprintf(stderr, " %llu of %u", (unsigned long long)atomic_load(&notes->failures[code]), code);
	fprintf(stderr, "; readers began again %llu times\n", (unsigned long long)atomic_load(&notes->reopened));
}

static uint64_t failures(void)
{
	uint64_t all = 0;

	for (unsigned code = 0; code < 128; code++)
		all += atomic_load(&notes->failures[code]);
	return all;
}

/* First and last: which harms are done. */
static void harm_under_load(const char *what, enum harm first, enum harm last, uint64_t segment_max_bytes)
{
	unsigned rounds = run_count(last - first == HARMS - 1 ? 100 : 40, 15), ran = 0;
	uint64_t dice = run.seed;
	pid_t writers[WRITERS], reader;
	struct log_image log;

	notes_new(WRITERS + 1, 200000, 1, 1);
	plan = (struct plan){ .way = MIXED, .may_fail = true, .pause_us = 2000 };
	make_topic(1, segment_max_bytes);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(write_events, i);
	reader = child_start(follow_events, 0);
	pause_us(EVERY_US);
	for (; ran < rounds; ran++) {
		if (harm_copy_len < (ssize_t)PAGE_BYTES || random_next(&dice) % 4 == 0)
			take_copy();
		do_harm((enum harm)(first + random_next(&dice) % (last - first + 1)));
		pause_us(EVERY_US);
		child_check();
	}
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		child_join(writers[i]);
	tell_failures(what);
	CHECK(!unlink(LOCK) || errno == ENOENT, "unlink: %s", strerror(errno));
	struct evbus *bus = open_bus();
	CHECK_OK(try_one(bus, LATE, 0, ERR));
	evbus_close(bus);
	log_read(0, &log);
	atomic_store(&notes->goal, log.count);
	free(log.lines);
	child_join(reader);
	check_everything();
	uint64_t acked = atomic_load(&notes->acked);
	/* A failure now and then is allowed, and is told; one each time is not. */
	CHECK(acked > 20 * rounds && failures() < rounds / 2, "%llu receipts and %llu failures",
	      (unsigned long long)acked, (unsigned long long)failures());
	CHECK(atomic_load(&notes->reopened) == 0, "the reader was told %llu times that the log was cut",
	      (unsigned long long)atomic_load(&notes->reopened));
	run_ran(what, ran, rounds);
}

Test(lockfile, that_is_removed_all_the_time_costs_nothing_that_was_acknowledged)
{
	harm_under_load("removed", REMOVED, MADE_ANEW, 0);
}

Test(lockfile, that_is_truncated_all_the_time_costs_nothing_that_was_acknowledged)
{
	harm_under_load("truncated", TRUNCATED, CUT_SHORT, 0);
}

Test(lockfile, that_is_copied_over_all_the_time_costs_nothing_that_was_acknowledged)
{
	harm_under_load("copied over", COPIED_OVER, REPLACED_BY_COPY, 0);
}

Test(lockfile, to_which_everything_is_done_costs_nothing_that_was_acknowledged)
{
	harm_under_load("everything", REMOVED, REPLACED_BY_COPY, 0);
}

Test(lockfile, to_which_everything_is_done_while_segments_are_rolled_costs_nothing_that_was_acknowledged)
{
	harm_under_load("everything, and rolls", REMOVED, REPLACED_BY_COPY, 30000);
}

/* ---- put back from before a roll ---- */

Test(lockfile, that_is_put_back_from_before_a_roll_hides_nothing_of_the_log)
{
	unsigned rolls = 10, ran = 0;
	uint64_t event = 0;
	struct evbus *bus;

	notes_new(1, 1000, 0, 1);
	plan = (struct plan){ 0 };
	make_topic(1, 1000);
	bus = open_bus();
	for (; ran < rolls; ran++) {
		for (unsigned i = 0; i < 3; i++)
			CHECK_OK(try_one(bus, 0, event++, ERR));
		take_copy();
		for (unsigned i = 0; i < 12; i++)
			CHECK_OK(try_one(bus, 0, event++, ERR));
		do_harm(COPIED_OVER_WHOLE);
	}
	CHECK_OK(try_one(bus, 0, event++, ERR));
	evbus_close(bus);
	CHECK(check_everything() == event, "events are missing");
	run_ran("pages put back", ran, rolls);
}

/* ---- nobody writes, and it is gone ---- */

static ssize_t counted_read(int fd, void *data, size_t len, off_t at)
{
	atomic_fetch_add(&notes->counters[0], 1);
	return pread(fd, data, len, at);
}

static void follow_counted(unsigned index)
{
	os.pread = counted_read;
	follow_events(index);
}

Test(lockfile, that_is_gone_does_not_keep_an_idle_follower_busy)
{
	struct evbus *bus;

	notes_new(1, 1, 1, 1);
	plan = (struct plan){ 0 };
	bus = open_bus();
	CHECK_OK(try_one(bus, 0, 0, ERR));
	pid_t reader = child_start(follow_counted, 0);
	while (atomic_load(&notes->seen[0][0].count) == 0)
		pause_us(1000);
	CHECK(!unlink(LOCK), "unlink: %s", strerror(errno));
	pause_us(700000);
	uint64_t before = atomic_load(&notes->counters[0]);
	pause_us(1000000);
	uint64_t reads = atomic_load(&notes->counters[0]) - before;
	atomic_store(&notes->goal, 1);
	child_join(reader);
	evbus_close(bus);
	CHECK(reads > 2 && reads < 200, "%llu reads within a second", (unsigned long long)reads);
	run_ran("idle followers", 1, 1);
}

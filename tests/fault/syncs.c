/* Syncs fail: what they should have covered is cut off, its offsets are used again, and no receipt is given for it. */
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>

#define WRITERS 8u
#define LATE WRITERS
#define LOCK "bus/" TOPIC "/partition=0.lock"

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(syncs, .init = setup, .fini = run_end, .timeout = 120);

static uint64_t dice;

/* Others append while it takes its time, and wait for what comes of it. */
static int failing_sync(int fd)
{
	pause_us((int64_t)(random_next(&dice) % 1000));
	if (random_next(&dice) % 8 == 0) {
		atomic_fetch_add(&notes->counters[0], 1);
		errno = EIO;
		return -1;
	}
	return fdatasync(fd);
}

static void write_failing(unsigned writer)
{
	dice = run.seed ^ writer;
	os.fdatasync = failing_sync;
	write_events(writer);
}

static void fail_syncs(const char *what, bool without_lock_file, uint64_t segment_max_bytes)
{
	unsigned rounds = run_count(20, 10), ran = 0;
	pid_t writers[WRITERS], readers[2];
	struct log_image log;

	notes_new(WRITERS + 1, 200000, 2, 1);
	plan = (struct plan){ .way = MIXED, .may_fail = true, .pause_us = 200 };
	make_topic(1, segment_max_bytes);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(write_failing, i);
	for (unsigned i = 0; i < 2; i++)
		readers[i] = child_start(follow_events, i);
	for (; ran < rounds; ran++) {
		pause_us(100000);
		child_check();
		if (without_lock_file)
			CHECK(!unlink(LOCK) || errno == ENOENT, "unlink: %s", strerror(errno));
	}
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		child_join(writers[i]);
	struct evbus *bus = open_bus();
	CHECK_OK(try_one(bus, LATE, 0, ERR));
	evbus_close(bus);
	log_read(0, &log);
	atomic_store(&notes->goal, log.count);
	free(log.lines);
	for (unsigned i = 0; i < 2; i++)
		child_join(readers[i]);
	check_everything();
	uint64_t failed = atomic_load(&notes->counters[0]), acked = atomic_load(&notes->acked);
	fprintf(stderr, "%s: %llu syncs failed, %llu calls failed of it, %llu receipts\n", what,
		(unsigned long long)failed, (unsigned long long)atomic_load(&notes->failures[EVBUS_IO]),
		(unsigned long long)acked);
	CHECK(failed > 2 * rounds && acked > 20 * rounds, "%llu failures and %llu receipts are too few",
	      (unsigned long long)failed, (unsigned long long)acked);
	run_ran(what, ran, rounds);
}

Test(syncs, that_fail_give_no_receipt_and_show_no_reader_what_is_cut_off)
{
	fail_syncs("failing syncs", false, 0);
}

Test(syncs, that_fail_while_segments_are_rolled_give_no_receipt)
{
	fail_syncs("failing syncs and rolls", false, 50000);
}

Test(syncs, that_fail_while_the_lock_file_is_removed_give_no_receipt)
{
	fail_syncs("failing syncs without a lock file", true, 0);
}

/* Syncs fail: what they should have covered is cut off, its offsets are used again, and no receipt is given for it. */
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/stat.h>

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
	/* On a busy machine it takes longer until enough has happened. */
	for (unsigned more = 0; more < 300 && atomic_load(&notes->counters[0]) <= 2 * rounds; more++)
		pause_us(100000);
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

/* ---- one sync that fails while all wait for it ---- */

#define WAITERS 6u
#define BEFORE 3u                        /* events that are durable */
#define LIVE "bus/" TOPIC "/partition=0.jsonl"
#define PATIENCE 20000                   /* times a millisecond */

enum counter {
	FAILED_SYNCS,
	SECOND_SYNCS,                    /* on what a failed one left dirty: it would return 0 */
	FAILED_WAITERS,
	MAY_GO_ON,
	CUTS_FAIL,
};

static uint64_t durable_bytes, line_bytes;

static uint64_t size_of_live(int fd)
{
	struct stat st, live;

	CHECK(!fstat(fd, &st) && !stat(LIVE, &live), "fstat: %s", strerror(errno));
	return st.st_ino == live.st_ino ? (uint64_t)st.st_size : 0;
}

static void wait_until(enum counter counter, uint64_t count)
{
	for (unsigned i = 0; i < PATIENCE && atomic_load(&notes->counters[counter]) < count; i++)
		pause_us(1000);
	CHECK(atomic_load(&notes->counters[counter]) >= count, "waited too long for %u", (unsigned)counter);
}

/* The first one fails, when all have appended and wait. */
static int fail_once_for_all(int fd)
{
	uint64_t size = size_of_live(fd);

	if (size > durable_bytes && atomic_load(&notes->counters[FAILED_SYNCS]) == 0) {
		for (unsigned i = 0; i < PATIENCE && size_of_live(fd) < durable_bytes + WAITERS * line_bytes; i++)
			pause_us(1000);
		atomic_fetch_add(&notes->counters[FAILED_SYNCS], 1);
		errno = EIO;
		return -1;
	}
	if (size > durable_bytes && !atomic_load(&notes->counters[MAY_GO_ON]))
		atomic_fetch_add(&notes->counters[SECOND_SYNCS], 1);
	return fdatasync(fd);
}

static int fail_cuts(int fd, off_t size)
{
	if (atomic_load(&notes->counters[CUTS_FAIL]) && size_of_live(fd)) {
		errno = EIO;
		return -1;
	}
	return ftruncate(fd, size);
}

static enum evbus_code publish_number(struct evbus *bus, unsigned n, struct evbus_err *err)
{
	char payload[32];

	snprintf(payload, sizeof payload, "{\"n\":%04u}", n + 1000);
	return evbus_publish(bus, TOPIC, payload, NULL, err);
}

static void wait_for_the_sync(unsigned waiter)
{
	struct evbus *bus = open_bus();
	struct evbus_err err = { 0 };

	os.fdatasync = fail_once_for_all;
	os.ftruncate = fail_cuts;
	enum evbus_code code = publish_number(bus, 100 + waiter, &err);
	CHECK(code == EVBUS_IO, "waiter %u was told %d: %s", waiter, (int)code, err.text);
	atomic_fetch_add(&notes->counters[FAILED_WAITERS], 1);
	wait_until(MAY_GO_ON, 1);
	CHECK_OK(publish_number(bus, 200 + waiter, ERR));
	evbus_close(bus);
}

/* Nothing of what was given up is read; what is there is `count` events, in order and once each. */
static void check_readable(unsigned count)
{
	const struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL };
	const struct evbus_record *record;
	struct evbus *bus = open_bus();
	struct evbus_reader *reader;
	bool seen[300] = { false };
	unsigned read = 0;

	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	for (;; read++) {
		CHECK_OK(evbus_reader_next(reader, 0, &record, ERR));
		if (!record)
			break;
		uint64_t n = number_at(record->payload.data + 5) - 1000;
		CHECK(n < BEFORE || (n >= 200 && n < 200 + WAITERS), "event %ju was given up, and is read", (uintmax_t)n);
		CHECK(!seen[n] && number_at(record->offset.data) == read, "event %ju at offset %u", (uintmax_t)n, read);
		seen[n] = true;
	}
	CHECK(read == count, "%u events are read, not %u", read, count);
	evbus_reader_close(reader);
	evbus_close(bus);
}

static void fail_all_waiters(bool cuts_fail)
{
	pid_t waiters[WAITERS];
	struct stat st;

	notes_new(1, 1, 0, 1);
	make_topic(1, 0);
	struct evbus *bus = open_bus();
	for (unsigned n = 0; n < BEFORE; n++)
		CHECK_OK(publish_number(bus, n, ERR));
	evbus_close(bus);
	CHECK(!stat(LIVE, &st), "there is no log");
	durable_bytes = (uint64_t)st.st_size;
	line_bytes = durable_bytes / BEFORE;
	atomic_store(&notes->counters[CUTS_FAIL], cuts_fail);
	for (unsigned i = 0; i < WAITERS; i++)
		waiters[i] = child_start(wait_for_the_sync, i);
	wait_until(FAILED_WAITERS, WAITERS);
	child_check();
	check_readable(BEFORE);
	CHECK(!atomic_load(&notes->counters[SECOND_SYNCS]), "what a failed sync left dirty was synced again");
	atomic_store(&notes->counters[CUTS_FAIL], 0);
	atomic_store(&notes->counters[MAY_GO_ON], 1);
	for (unsigned i = 0; i < WAITERS; i++)
		child_join(waiters[i]);
	check_readable(BEFORE + WAITERS);
	run_remove("bus");
}

static void fail_all_waiters_often(const char *what, bool cuts_fail)
{
	unsigned rounds = run_count(40, 4), ran = 0;

	for (; ran < rounds; ran++)
		fail_all_waiters(cuts_fail);
	run_ran(what, ran, rounds);
}

Test(syncs, that_fail_fail_every_process_that_waits_and_leave_nothing_to_read_and_offsets_that_are_used_again)
{
	fail_all_waiters_often("waiting processes", false);
}

Test(syncs, that_fail_and_cannot_be_cut_back_fail_every_process_that_waits_until_they_can)
{
	fail_all_waiters_often("waiting processes without a cut", true);
}

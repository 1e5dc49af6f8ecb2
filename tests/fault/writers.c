/* Many processes publish to one log while others read it: nothing is lost, doubled, moved or torn. */
#include "fault.h"

#include <criterion/criterion.h>

#define WRITERS 16u
#define READERS 4u

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(200);
}

TestSuite(writers, .init = setup, .fini = run_end, .timeout = 300);

static void publish_and_follow(const char *what, unsigned lanes, uint64_t segment_max_bytes, unsigned events)
{
	pid_t writers[WRITERS], readers[READERS];

	notes_new(WRITERS, events, READERS, lanes);
	plan.keyed = lanes > 1;
	make_topic(lanes, segment_max_bytes);
	for (unsigned i = 0; i < READERS; i++)
		readers[i] = child_start(follow_events, i);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(write_events, i);
	for (unsigned i = 0; i < WRITERS; i++)
		child_join(writers[i]);
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < READERS; i++)
		child_join(readers[i]);
	run_ran(what, check_everything(), (uint64_t)WRITERS * events);
	CHECK(atomic_load(&notes->acked) == (uint64_t)WRITERS * events, "receipts are missing");
}

Test(writers, of_single_events_get_dense_offsets_and_four_followers_see_exactly_the_log)
{
	plan.way = SINGLES;
	publish_and_follow("singles", 1, 0, run_count(10000, 1000));
}

Test(writers, of_streams_get_receipts_for_what_stands_there)
{
	plan.way = STREAM;
	publish_and_follow("streams", 1, 0, run_count(10000, 8000));
}

Test(writers, of_batches_streams_and_single_events_find_each_batch_whole_and_contiguous)
{
	plan.way = MIXED;
	publish_and_follow("mixed", 1, 0, run_count(5000, 500));
}

Test(writers, of_several_partitions_find_each_event_in_the_one_of_its_key)
{
	plan.way = MIXED;
	publish_and_follow("keyed", 5, 0, run_count(3000, 300));
}

Test(writers, of_small_segments_find_batches_within_one_segment_each)
{
	plan.way = MIXED;
	publish_and_follow("small segments", 3, 200000, run_count(2000, 300));
}

/* ---- as many as there may be, and each gets on ---- */

#define MANY WRITERS_MAX
#define SHARE 5u /* the slowest has at least this part of what each has in the mean */

static struct pace {
	_Atomic int64_t last_us, longest_us;
	_Atomic uint64_t receipts;
} * paces;

static void note_pace(unsigned writer, uint64_t event)
{
	struct pace *pace = &paces[writer];
	int64_t now = now_us(), wait = now - atomic_load(&pace->last_us);
	(void)event;

	if (wait > atomic_load(&pace->longest_us))
		atomic_store(&pace->longest_us, wait);
	atomic_store(&pace->last_us, now);
	atomic_fetch_add(&pace->receipts, 1);
}

/* All begin at once, and end at once. */
static void write_at_pace(unsigned writer)
{
	note_more = note_pace;
	while (!atomic_load(&notes->counters[0]))
		pause_us(1000);
	atomic_store(&paces[writer].last_us, now_us());
	write_events(writer);
}

static void check_paces(int64_t ran_us)
{
	uint64_t all = 0, least = UINT64_MAX;
	int64_t longest_us = 0;

	for (unsigned i = 0; i < MANY; i++) {
		uint64_t receipts = atomic_load(&paces[i].receipts);
		int64_t wait = atomic_load(&paces[i].longest_us);
		all += receipts;
		least = receipts < least ? receipts : least;
		longest_us = wait > longest_us ? wait : longest_us;
	}
	fprintf(stderr, "%u writers: %llu receipts in %lld ms, %llu of the slowest, the longest wait %lld ms\n", MANY,
		(unsigned long long)all, (long long)ran_us / 1000, (unsigned long long)least,
		(long long)longest_us / 1000);
	CHECK(least * SHARE >= all / MANY, "one of %u writers has %llu receipts, and all have %llu", MANY,
	      (unsigned long long)least, (unsigned long long)all);
	CHECK(longest_us < 1000000 + ran_us / 2, "one waited %lld of %lld ms", (long long)longest_us / 1000,
	      (long long)ran_us / 1000);
}

Test(writers, of_which_there_are_64_get_their_share_each)
{
	pid_t writers[MANY], readers[READERS];

	plan = (struct plan){ .way = SINGLES };
	notes_new(MANY, 50000, READERS, 1);
	paces = notes_share(MANY * sizeof *paces);
	make_topic(1, 0);
	for (unsigned i = 0; i < READERS; i++)
		readers[i] = child_start(follow_events, i);
	for (unsigned i = 0; i < MANY; i++)
		writers[i] = child_start(write_at_pace, i);
	int64_t start = now_us();
	atomic_store(&notes->counters[0], 1);
	pause_us(run_count(5000, 700) * 1000);
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < MANY; i++)
		child_join(writers[i]);
	int64_t ran_us = now_us() - start;
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < READERS; i++)
		child_join(readers[i]);
	check_paces(ran_us);
	run_ran("64 writers", check_everything(), atomic_load(&notes->acked));
}

/* ---- a read of the page need not be one: it may be cut short anywhere, and others write meanwhile ---- */

static uint64_t dice;

static ssize_t short_read(int fd, void *data, size_t len, off_t at)
{
	size_t part = len;

	/* Pages are short; what is read of the log is not. */
	if (len < 1024 && len > 1 && random_next(&dice) % 4 == 0)
		part = 1 + random_next(&dice) % (len - 1);
	ssize_t n = pread(fd, data, part, at);
	if (part < len)
		pause_us((int64_t)(random_next(&dice) % 200));
	return n;
}

static void write_with_short_reads(unsigned writer)
{
	dice = run.seed ^ writer;
	os.pread = short_read;
	write_events(writer);
}

static void follow_with_short_reads(unsigned reader)
{
	dice = run.seed ^ reader ^ 0xff00;
	os.pread = short_read;
	follow_events(reader);
}

Test(writers, whose_reads_of_the_page_are_short_never_see_it_go_back)
{
	unsigned events = run_count(2000, 500);
	pid_t writers[8], readers[2];

	plan.way = SINGLES;
	notes_new(8, events, 2, 1);
	run_slow_syncs(0);
	make_topic(1, 0);
	for (unsigned i = 0; i < 2; i++)
		readers[i] = child_start(follow_with_short_reads, i);
	for (unsigned i = 0; i < 8; i++)
		writers[i] = child_start(write_with_short_reads, i);
	for (unsigned i = 0; i < 8; i++)
		child_join(writers[i]);
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < 2; i++)
		child_join(readers[i]);
	run_ran("short reads", check_everything(), 8u * events);
}

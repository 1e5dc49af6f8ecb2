/* One handle a thread is enough: threads of one process exclude each other as processes do, and share nothing else.
 *
 * Made for a build with -Db_sanitize=thread, where a report ends it. */
#include "fault.h"

#include <criterion/criterion.h>
#include <pthread.h>

#define WRITERS 6u
#define READERS 2u

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(200);
}

TestSuite(threads, .init = setup, .fini = run_end, .timeout = 300);

static void *write_in_thread(void *index)
{
	write_events(*(unsigned *)index);
	return NULL;
}

static void *follow_in_thread(void *index)
{
	follow_events(*(unsigned *)index);
	return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *index), unsigned *index)
{
	CHECK(pthread_create(thread, NULL, body, index) == 0, "cannot start a thread");
}

static void run_threads(const char *what, enum way way, unsigned lanes, uint64_t segment_max_bytes, unsigned events)
{
	static unsigned numbers[] = { 0, 1, 2, 3, 4, 5 };
	pthread_t writers[WRITERS], readers[READERS];

	notes_new(WRITERS, events, READERS, lanes);
	plan = (struct plan){ .way = way, .keyed = lanes > 1 };
	make_topic(lanes, segment_max_bytes);
	for (unsigned i = 0; i < READERS; i++)
		start(&readers[i], follow_in_thread, &numbers[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		start(&writers[i], write_in_thread, &numbers[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	child_check();
	run_ran(what, check_everything(), (uint64_t)WRITERS * events);
}

Test(threads, with_a_handle_each_publish_and_follow_one_log)
{
	run_threads("threads", SINGLES, 1, 0, run_count(2000, 400));
}

Test(threads, with_streams_have_a_thread_each_beside_them)
{
	run_threads("streams in threads", STREAM, 1, 0, run_count(15000, 8000));
}

Test(threads, with_everything_on_many_partitions_share_nothing_else)
{
	run_threads("all in threads", MIXED, LANES_MAX, 200000, run_count(3000, 500));
}

/* One handle a thread is enough: threads of one process exclude each other as processes do, and share nothing else.
 *
 * Made for a build with -Db_sanitize=thread, where a report ends it. Criterion cannot run there, so this prints its TAP
 * itself. */
#include "fault.h"

#include <pthread.h>

#define WRITERS 6u
#define READERS 2u

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

static const struct stage {
	const char *name;
	enum way way;
	unsigned lanes;
	uint64_t segment_max_bytes;
	unsigned events, quick;
} stages[] = {
	{ "threads with a handle each publish and follow one log", SINGLES, 1, 0, 2000, 400 },
	{ "threads with streams have a thread each beside them", STREAM, 1, 0, 15000, 8000 },
	{ "threads with everything on many partitions share nothing else", MIXED, LANES_MAX, 200000, 3000, 500 },
};
#define COUNT (sizeof stages / sizeof *stages)

int main(void)
{
	run.bare = true;
	printf("1..%zu\n", COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		const struct stage *stage = &stages[i];
		run_begin(IN_MEMORY);
		run_slow_syncs(200);
		run_threads(stage->name, stage->way, stage->lanes, stage->segment_max_bytes,
			    run_count(stage->events, stage->quick));
		run_end();
		printf("ok %zu - %s\n", i + 1, stage->name);
	}
	return 0;
}

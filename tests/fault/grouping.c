/* One sync serves all who wait: the more processes publish, the more receipts a sync gives. */
#include "fault.h"

#include <criterion/criterion.h>

static void setup(void)
{
	run_begin(ON_DISK);
	if (run_is_on_memory()) {
		run_end();
		cr_skip_test("%s is in memory, where a sync takes no time: set EVBUS_TEST_DIR to a place on a disk",
			     run.dir);
	}
}

TestSuite(grouping, .fini = run_end, .timeout = 120);

static int counted_sync(int fd)
{
	atomic_fetch_add(&notes->counters[0], 1);
	return fdatasync(fd);
}

static void write_counted(unsigned writer)
{
	os.fdatasync = counted_sync;
	write_events(writer);
}

static void group(unsigned processes, unsigned events, unsigned least)
{
	pid_t writers[WRITERS_MAX];
	char what[64];

	notes_new(processes, events, 0, 1);
	plan = (struct plan){ .way = SINGLES };
	make_topic(1, 0);
	for (unsigned i = 0; i < processes; i++)
		writers[i] = child_start(write_counted, i);
	for (unsigned i = 0; i < processes; i++)
		child_join(writers[i]);
	uint64_t lines = check_everything(), syncs = atomic_load(&notes->counters[0]);
	snprintf(what, sizeof what, "%u processes", processes);
	fprintf(stderr, "%s: %.1f receipts a sync\n", what, (double)lines / (double)syncs);
	CHECK(lines >= least * syncs, "%llu receipts from %llu syncs are fewer than %u each", (unsigned long long)lines,
	      (unsigned long long)syncs, least);
	run_ran(what, lines, (uint64_t)processes * events);
}

Test(grouping, of_8_processes_gives_3_receipts_a_sync)
{
	setup();
	group(8, run_count(300, 100), 3);
}

Test(grouping, of_64_processes_gives_16_receipts_a_sync)
{
	setup();
	group(64, run_count(150, 50), 16);
}

/* Segments are rolled all the time: each receipt rests on a sync of the file that holds its line.
 *
 * A sync of the live file that was rolled away meanwhile says nothing of the new one. So each sync is noted, with the
 * file it was of and how long that was when the sync began, and each receipt with how many syncs were complete when it
 * came. Nothing is cut here, so a line was written before a sync began exactly if the file reached beyond it then. */
#include "fault.h"

#include <criterion/criterion.h>

#define WRITERS 8u
#define READERS 3u
#define SYNCS_MAX 400000u

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(rolling, .init = setup, .fini = run_end, .timeout = 300);

/* ---- syncs and receipts, noted ---- */

struct sync {
	atomic_bool complete;
	ino_t ino;
	uint64_t size;                   /* of the file, when the sync began */
};

static struct syncs {
	_Atomic uint64_t count;
	struct sync all[SYNCS_MAX];
} *syncs;
static _Atomic uint64_t *syncs_at_receipt;     /* by writer and event */

static int noted_sync(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -1;
	pause_us((int64_t)(st.st_ino % 3) * 50);    /* a disk takes a while */
	int result = fdatasync(fd);
	uint64_t at = atomic_fetch_add(&syncs->count, 1);
	CHECK(at < SYNCS_MAX, "more syncs than there is room for");
	syncs->all[at].ino = st.st_ino;
	syncs->all[at].size = (uint64_t)st.st_size;
	atomic_store(&syncs->all[at].complete, true);
	return result;
}

static void note_syncs_at_receipt(unsigned writer, uint64_t event)
{
	atomic_store(&syncs_at_receipt[(size_t)writer * notes->events + event], atomic_load(&syncs->count));
}

/* Just before the files change places a reader may have opened one that is about to be the other. */
static int slow_exchange(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	pause_us(from_dir % 3 * 100);
	return renameat2(from_dir, from, to_dir, to, flags);
}

static int slow_stat(int fd, struct stat *st)
{
	static uint64_t calls;

	if (++calls % 7 == 0)
		pause_us((int64_t)(calls % 300));
	return fstat(fd, st);
}

static void follow_slowly(unsigned reader)
{
	os.fstat = slow_stat;
	follow_events(reader);
}

static void write_noted(unsigned writer)
{
	os.fdatasync = noted_sync;
	os.renameat2 = slow_exchange;
	note_more = note_syncs_at_receipt;
	write_events(writer);
}

/* ---- the check ---- */

struct reach {
	ino_t ino;
	uint64_t size, at;               /* sync number `at` was complete and covered so much */
};

/* By file, what its syncs covered, each further than the one before. */
static int by_file_and_size(const void *a, const void *b)
{
	const struct reach *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->size != y->size)
		return x->size < y->size ? -1 : 1;
	return x->at < y->at ? -1 : x->at > y->at;
}

/* Index of the first that is not before (ino, size). */
static size_t find(const struct reach *reaches, size_t count, ino_t ino, uint64_t size)
{
	struct reach wanted = { .ino = ino, .size = size };
	size_t low = 0;

	while (low < count) {
		size_t middle = low + (count - low) / 2;
		if (by_file_and_size(&reaches[middle], &wanted) < 0)
			low = middle + 1;
		else
			count = middle;
	}
	return low;
}

/* From behind: of all syncs of the file that covered at least so much, the earliest. */
static void earliest_from_behind(struct reach *reaches, size_t count)
{
	for (size_t i = count; i-- > 1;)
		if (reaches[i - 1].ino == reaches[i].ino && reaches[i].at < reaches[i - 1].at)
			reaches[i - 1].at = reaches[i].at;
}

static uint64_t check_receipts(void)
{
	size_t count = atomic_load(&syncs->count);
	struct reach *reaches = calloc(count + 1, sizeof *reaches);
	struct log_image log;

	CHECK(reaches, "no memory");
	for (size_t i = 0; i < count; i++)
		reaches[i] = (struct reach){ syncs->all[i].ino, syncs->all[i].size, i };
	qsort(reaches, count, sizeof *reaches, by_file_and_size);
	earliest_from_behind(reaches, count);
	log_read(0, &log);
	for (uint64_t i = 0; i < log.count; i++) {
		const struct log_line *line = &log.lines[i];
		uint64_t seen = atomic_load(&syncs_at_receipt[(size_t)line->writer * notes->events + line->event]);
		size_t at = find(reaches, count, line->ino, line->end);
		CHECK(at < count && reaches[at].ino == line->ino, "no sync at all covers offset %llu",
		      (unsigned long long)i);
		CHECK(reaches[at].at < seen,
		      "offset %llu was acknowledged after %llu syncs, and the first that covers it is number %llu",
		      (unsigned long long)i, (unsigned long long)seen, (unsigned long long)reaches[at].at + 1);
	}
	free(log.lines);
	free(reaches);
	return log.files;
}

/* ---- the runs ---- */

static void roll_often(const char *what, enum way way, uint64_t segment_max_bytes, unsigned events)
{
	pid_t writers[WRITERS], readers[READERS];

	notes_new(WRITERS, events, READERS, 1);
	syncs = notes_share(sizeof *syncs);
	syncs_at_receipt = notes_share((size_t)WRITERS * events * sizeof *syncs_at_receipt);
	plan.way = way;
	make_topic(1, segment_max_bytes);
	for (unsigned i = 0; i < READERS; i++)
		readers[i] = child_start(i ? follow_slowly : follow_events, i);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(write_noted, i);
	for (unsigned i = 0; i < WRITERS; i++)
		child_join(writers[i]);
	atomic_store(&notes->goal, atomic_load(&notes->acked));
	for (unsigned i = 0; i < READERS; i++)
		child_join(readers[i]);
	uint64_t lines = check_everything(), files = check_receipts();
	fprintf(stderr, "%s: %llu segments\n", what, (unsigned long long)files);
	/* Payloads differ in size, by up to 8 KB. */
	CHECK(files > 10, "%llu segments are no rolling", (unsigned long long)files);
	run_ran(what, lines, (uint64_t)WRITERS * events);
}

Test(rolling, at_every_append_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("a roll at every append", SINGLES, 1, run_count(250, 60));
}

Test(rolling, at_every_second_append_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("a roll at every second append", SINGLES, 500, run_count(400, 60));
}

Test(rolling, at_every_tenth_append_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("a roll at every tenth append", SINGLES, 3000, run_count(1500, 200));
}

Test(rolling, at_every_hundredth_append_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("a roll at every hundredth append", SINGLES, 40000, run_count(3000, 500));
}

Test(rolling, under_batches_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("batches", BATCHES, 6000, run_count(2000, 500));
}

Test(rolling, under_streams_and_all_else_maps_each_receipt_to_a_sync_of_its_file)
{
	roll_often("streams, batches and single events", MIXED, 60000, run_count(2000, 500));
}

/* ---- a batch that just fits, or just does not ---- */

static void publish_batches(unsigned segment_max_bytes)
{
	plan = (struct plan){ .way = BATCHES };
	make_topic(1, segment_max_bytes);
	write_events(0);
}

Test(rolling, gives_a_batch_of_any_size_a_place_in_one_segment)
{
	unsigned sizes = run_count(60, 30), ran = 0;

	for (; ran < sizes; ran++) {
		notes_new(1, 300, 0, 1);
		child_join(child_start(publish_batches, 1000 + 211 * ran));
		CHECK(check_everything() == 300, "events are missing");
		run_remove("bus");
	}
	run_ran("sizes of segments", ran, sizes);
}

/* ---- readers that begin anywhere, while it is rolled ---- */

static void read_from_anywhere(unsigned reader)
{
	uint64_t dice = run.seed + reader, reads = 0;
	struct evbus *bus = open_bus();

	while (!atomic_load(&notes->stop)) {
		uint64_t known = atomic_load(&notes->acked), got = 0;
		if (known == 0)
			continue;
		char from[24], to[24];
		uint64_t first = random_next(&dice) % known, last = first + 1 + random_next(&dice) % (known - first);
		snprintf(from, sizeof from, "%llu", (unsigned long long)first);
		snprintf(to, sizeof to, "%llu", (unsigned long long)last);
		struct evbus_selection selection = { .topic = TOPIC, .from = from, .to = to };
		struct evbus_reader *opened;
		const struct evbus_record *record;
		CHECK_OK(evbus_reader_open(bus, &selection, &opened, ERR));
		do {
			CHECK_OK(evbus_reader_next(opened, -1, &record, ERR));
			uint64_t offset;
			CHECK(!record || (decimal_parse(record->offset, &offset) && offset == first + got),
			      "a read from %s gave another offset as number %llu", from, (unsigned long long)got);
			got += record != NULL;
		} while (record);
		CHECK(got == last - first, "a read from %s to %s gave %llu records", from, to, (unsigned long long)got);
		evbus_reader_close(opened);
		reads++;
	}
	atomic_fetch_add(&notes->counters[0], reads);
	evbus_close(bus);
}

Test(rolling, does_not_disturb_reads_that_begin_and_end_anywhere)
{
	unsigned events = run_count(600, 100);
	pid_t writers[4], readers[2];

	notes_new(4, events, 0, 1);
	plan.way = SINGLES;
	make_topic(1, 600);
	for (unsigned i = 0; i < 2; i++)
		readers[i] = child_start(read_from_anywhere, i);
	for (unsigned i = 0; i < 4; i++)
		writers[i] = child_start(write_events, i);
	for (unsigned i = 0; i < 4; i++)
		child_join(writers[i]);
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < 2; i++)
		child_join(readers[i]);
	CHECK(atomic_load(&notes->counters[0]) > 10, "only %llu reads",
	      (unsigned long long)atomic_load(&notes->counters[0]));
	run_ran("reads from anywhere", check_everything(), 4u * events);
}

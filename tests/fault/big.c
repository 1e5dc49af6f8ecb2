/* A log of 1 GiB is written, searched and read at its end as fast as a small one, in little memory.
 *
 * Calls are counted, not time. A clock that goes on by 10 us with every event tells where each time is. */
#include "fault.h"

#include <criterion/criterion.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

#define NEEDED_BYTES (3ull << 30)
#define BIG_BYTES (1ull << 30)
#define SMALL_BYTES (1ull << 20)
#define RSS_MAX_KIB (64 * 1024)
#define SEEKS 100u
/* What is freed is kept for a while there. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANITIZED true
#else
#define SANITIZED false
#endif

static bool has_room(void)
{
	struct statvfs fs;

	CHECK(!statvfs(".", &fs), "statvfs");
	return (uint64_t)fs.f_bavail * fs.f_frsize >= NEEDED_BYTES;
}

/* In memory where there is room, else beside what was built. */
static bool setup(void)
{
	run_begin(IN_MEMORY);
	if (!has_room()) {
		run_end();
		run_begin(ON_DISK);
	}
	return has_room();
}

TestSuite(big, .fini = run_end, .timeout = 300);

/* ---- making a log ---- */

static int64_t ticks;

static int tick(clockid_t clock, struct timespec *now)
{
	if (clock != CLOCK_REALTIME)
		return clock_gettime(clock, now);
	ticks++;
	*now = (struct timespec){ 1700000000 + ticks / 100000, ticks % 100000 * 10000 };
	return 0;
}

static uint64_t make_log(uint64_t bytes)
{
	struct evbus_topic_options topic = { .segment_max_bytes = 1ull << 40 };
	struct evbus *bus = open_bus();
	struct evbus_publisher *publisher;
	static char payload[60001];
	uint64_t dice = run.seed, count = 0;
	bool created;

	os.clock_gettime = tick;
	memset(payload, ' ', sizeof payload);
	payload[0] = '{';
	CHECK_OK(evbus_topic_create(bus, TOPIC, &topic, &created, ERR));
	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	for (uint64_t done = 0; done < bytes; count++) {
		/* Short ones first, then long ones: the middle of the file is not the middle of the log. */
		size_t len = done < bytes / 2 ? 2 + random_next(&dice) % 3000 : 2 + random_next(&dice) % 60000;
		struct evbus_event event = { .topic = TOPIC, .payload = { payload, len } };
		payload[len - 1] = '}';
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		payload[len - 1] = ' ';
		done += len + 110;
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	evbus_publisher_close(publisher);
	evbus_close(bus);
	return count;
}

static void make_log_of(unsigned mib)
{
	atomic_store(&notes->counters[0], make_log((uint64_t)mib << 20));
}

/* ---- what is counted ---- */

enum {
	LINES,
	CALLS,
	BYTES,
	RAN,
	FIGURES = 8,             /* and from here on what `figure` left */
};

static ssize_t counted_read(int fd, void *data, size_t len, off_t at)
{
	ssize_t n = pread(fd, data, len, at);

	atomic_fetch_add(&notes->counters[CALLS], 1);
	if (n > 0)
		atomic_fetch_add(&notes->counters[BYTES], (uint64_t)n);
	return n;
}

static ssize_t counted_write(int fd, const void *data, size_t len, off_t at)
{
	atomic_fetch_add(&notes->counters[CALLS], 1);
	return pwrite(fd, data, len, at);
}

static void begin_counting(void)
{
	atomic_store(&notes->counters[CALLS], 0);
	atomic_store(&notes->counters[BYTES], 0);
}

static void check_memory(const char *what)
{
	struct rusage usage;

	CHECK(!getrusage(RUSAGE_SELF, &usage), "getrusage");
	CHECK(usage.ru_maxrss < RSS_MAX_KIB || SANITIZED, "%s took %ld KiB of memory", what, usage.ru_maxrss);
	atomic_fetch_add(&notes->counters[RAN], 1);
}

static uint64_t read_from(struct evbus *bus, const struct evbus_selection *selection, uint64_t *first, char time[28])
{
	struct evbus_reader *reader;
	const struct evbus_record *record;
	uint64_t count = 0;

	CHECK_OK(evbus_reader_open(bus, selection, &reader, ERR));
	while (true) {
		CHECK_OK(evbus_reader_next(reader, -1, &record, ERR));
		if (!record)
			break;
		if (count++ > 0)
			continue;
		CHECK(decimal_parse(record->offset, first), "an offset");
		snprintf(time, 28, "%.*s", (int)record->published_at_utc.len, record->published_at_utc.data);
		if (selection->to && !selection->last)
			break;
	}
	evbus_reader_close(reader);
	return count;
}

/* ---- the calls that are held against each other ---- */

static void publish_one_more(unsigned index)
{
	struct evbus *bus;

	(void)index;
	os.pread = counted_read;
	os.pwrite = counted_write;
	begin_counting();
	bus = open_bus();
	CHECK_OK(evbus_publish(bus, TOPIC, "{}", NULL, ERR));
	evbus_close(bus);
	check_memory("publishing");
}

static void read_last_10(unsigned index)
{
	struct evbus_selection selection = { .topic = TOPIC, .last = 10 };
	struct evbus *bus = open_bus();
	uint64_t first = 0;
	char time[28];

	(void)index;
	os.pread = counted_read;
	begin_counting();
	CHECK(read_from(bus, &selection, &first, time) == 10, "not ten");
	CHECK(first == atomic_load(&notes->counters[LINES]) - 10, "they begin at %llu", (unsigned long long)first);
	evbus_close(bus);
	check_memory("the last 10");
}

/* To an offset, and then by the time of what is there. */
static void seek_there_and_back(unsigned by_time)
{
	uint64_t lines = atomic_load(&notes->counters[LINES]), dice = run.seed, first = 0, most = 0, bytes = 0;
	struct evbus *bus = open_bus();
	char from[32], time[28];

	os.pread = counted_read;
	for (unsigned i = 0; i < SEEKS; i++) {
		struct evbus_selection selection = { .topic = TOPIC, .from = from, .to = "end" };
		uint64_t wanted = i == 0 ? 0 : i == 1 ? lines - 1 : random_next(&dice) % lines;
		snprintf(from, sizeof from, "%llu", (unsigned long long)wanted);
		begin_counting();
		CHECK(read_from(bus, &selection, &first, time) == 1 && first == wanted, "%s led to %llu", from,
		      (unsigned long long)first);
		if (by_time) {
			snprintf(from, sizeof from, "@%s", time);
			begin_counting();
			CHECK(read_from(bus, &selection, &first, time) == 1 && first == wanted,
			      "%s led to %llu, not %llu", from, (unsigned long long)first,
			      (unsigned long long)wanted);
		}
		uint64_t calls = atomic_load(&notes->counters[CALLS]);
		most = calls > most ? calls : most;
		bytes = atomic_load(&notes->counters[BYTES]) > bytes ? atomic_load(&notes->counters[BYTES]) : bytes;
	}
	evbus_close(bus);
	atomic_store(&notes->counters[CALLS], most);
	atomic_store(&notes->counters[BYTES], bytes);
	check_memory("seeking");
}

static void read_all(unsigned index)
{
	struct evbus_selection selection = { .topic = TOPIC };
	struct evbus *bus = open_bus();
	uint64_t first, lines = atomic_load(&notes->counters[LINES]);
	char time[28];

	(void)index;
	CHECK(read_from(bus, &selection, &first, time) == lines, "not all of it");
	evbus_close(bus);
	check_memory("reading all of it");
}

struct figure {
	const char *what;
	void (*body)(unsigned index);
	unsigned index;
	uint64_t calls_more;             /* than on the small log, at most */
	uint64_t bytes_max;              /* read */
};

static const struct figure figures[] = {
	{ "publishing one", publish_one_more, 0, 4, 1 << 20 },
	{ "the last 10", read_last_10, 0, 40, 2 << 20 },
	{ "seeking by offset", seek_there_and_back, 0, 40, 4 << 20 },
	/* Two seeks: to the offset of the time, and there. */
	{ "seeking by time", seek_there_and_back, 1, 80, 8 << 20 },
};
#define COUNT (sizeof figures / sizeof *figures)

static void take_figures(uint64_t bytes, uint64_t calls[COUNT])
{
	notes_new(1, 1, 0, 1);
	child_join(child_start(make_log_of, (unsigned)(bytes >> 20)));
	for (unsigned i = 0; i < COUNT; i++) {
		child_join(child_start(figures[i].body, figures[i].index));
		calls[i] = atomic_load(&notes->counters[CALLS]);
		uint64_t read = atomic_load(&notes->counters[BYTES]);
		fprintf(stderr, "%4llu MiB: %s: %llu calls, %llu KiB\n", (unsigned long long)bytes >> 20,
			figures[i].what, (unsigned long long)calls[i], (unsigned long long)read >> 10);
		CHECK(read <= figures[i].bytes_max, "%s: %llu bytes were read", figures[i].what,
		      (unsigned long long)read);
		if (i == 0)
			atomic_fetch_add(&notes->counters[LINES], 1);
	}
	child_join(child_start(read_all, 0));
	run_ran("uses of a log", atomic_load(&notes->counters[RAN]), COUNT + 1);
	run_remove("bus");
}

Test(big, log_is_published_to_and_searched_as_a_small_one_is)
{
	uint64_t small[COUNT], large[COUNT];

	if (!setup()) {
		run_end();
		cr_skip_test("there are less than 3 GiB free for %s", run.dir);
	}
	take_figures(SMALL_BYTES, small);
	take_figures(run.quick ? BIG_BYTES / 4 : BIG_BYTES, large);
	for (unsigned i = 0; i < COUNT; i++)
		CHECK(large[i] <= small[i] + figures[i].calls_more,
		      "%s: %llu calls in a large log, %llu in a small one", figures[i].what,
		      (unsigned long long)large[i], (unsigned long long)small[i]);
}

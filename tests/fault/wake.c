/* A follower hears of what is published, at once; and within a second also where nobody was left to wake it. */
#include "fault.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(wake, .init = setup, .fini = run_end, .timeout = 120);

/* ---- who follows notes when it saw what ---- */

#define EVENTS_MAX 2000u

static _Atomic int64_t *sent_at, *seen_at;     /* by event */

static void follow_and_note(unsigned index)
{
	struct evbus_selection selection = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ALL, .follow = true };
	struct evbus *bus = open_bus();
	struct evbus_reader *reader;
	const struct evbus_record *record;

	(void)index;
	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
	while (!atomic_load(&notes->stop)) {
		CHECK_OK(evbus_reader_next(reader, -1, &record, ERR));
		if (!record)
			continue;
		unsigned writer, at, of;
		uint64_t event;
		CHECK(payload_parse(record->payload, &writer, &event, &at, &of) && event < EVENTS_MAX,
		      "not one of ours");
		atomic_store(&seen_at[event], now_us());
		atomic_fetch_add(&notes->counters[0], 1);
	}
	evbus_reader_close(reader);
	evbus_close(bus);
}

static pid_t start_follower(unsigned lanes)
{
	notes_new(1, EVENTS_MAX, 0, lanes);
	plan.keyed = lanes > 1;
	sent_at = notes_share(EVENTS_MAX * sizeof *sent_at);
	seen_at = notes_share(EVENTS_MAX * sizeof *seen_at);
	make_topic(lanes, 0);
	return child_start(follow_and_note, 0);
}

static void stop_follower(pid_t follower)
{
	atomic_store(&notes->stop, true);
	kill(follower, SIGKILL);
	child_reap(follower);
	child_check();
}

/* ---- a writer that is killed before it wakes anybody ---- */

#define CELL_BYTES 120u /* with its selector and the futex word: evbus-log(5) */
#define SELECTOR_BYTES 8u

static bool armed;

static int die_before_waking(uint32_t *word)
{
	(void)word;
	if (armed)
		raise(SIGKILL);
	return 0;
}

/* Behind a sync comes `durable`, and with it the word that the follower waits for; no kill comes between them, but let it. */
static ssize_t die_before_the_word(int fd, const void *data, size_t len, off_t at)
{
	if (!armed || len != CELL_BYTES)
		return pwrite(fd, data, len, at);
	CHECK(pwrite(fd, data, len - SELECTOR_BYTES, at) > 0, "pwrite: %s", strerror(errno));
	raise(SIGKILL);
	return -1;
}

static int note_sync(int fd)
{
	int result = fdatasync(fd);

	armed = true;
	atomic_store(&sent_at[atomic_load(&notes->submitted[0]) - 1], now_us());
	return result;
}

static void publish_and_die(unsigned event)
{
	struct evbus_err err;
	struct evbus *bus = open_bus();
	bool before_the_word = event % 2;

	/* The first is only there to have everything open. */
	CHECK(try_one(bus, 0, 2 * event, &err) == EVBUS_OK, "%s", err.text);
	pause_us(20000);
	os.fdatasync = note_sync;
	if (before_the_word)
		os.pwrite = die_before_the_word;
	else
		os.futex_wake = die_before_waking;
	CHECK(try_one(bus, 0, 2 * event + 1, &err) == EVBUS_BUG, "it lives");
}

Test(wake, comes_within_a_second_where_the_writer_was_killed_before_it)
{
	unsigned rounds = run_count(8, 3), ran = 0;
	pid_t follower = start_follower(1);
	int64_t longest = 0;

	for (; ran < rounds; ran++) {
		unsigned event = 2 * ran + 1;
		int status = child_reap(child_start(publish_and_die, ran));
		child_check();
		CHECK(WIFSIGNALED(status), "the writer was not killed: %x", (unsigned)status);
		int64_t from = atomic_load(&sent_at[event]);
		while (!atomic_load(&seen_at[event]) && now_us() - from < 3000000)
			pause_us(1000);
		child_check();
		int64_t took = atomic_load(&seen_at[event]) - from;
		CHECK(took > 0 && took <= 1000000, "round %u: it was seen after %lld us (below 0: never)", ran,
		      (long long)took);
		longest = took > longest ? took : longest;
	}
	fprintf(stderr, "longest %lld ms\n", (long long)longest / 1000);
	stop_follower(follower);
	run_ran("killed before the wake", ran, rounds);
}

/* ---- how long it takes otherwise ---- */

static void publish_and_note(unsigned index)
{
	struct evbus *bus = open_bus();
	unsigned events = run_count(300, 100);
	struct evbus_publisher *publisher;

	(void)index;
	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	for (unsigned i = 0; i < events; i++) {
		char payload[PAYLOAD_MAX], key[32];
		struct evbus_event event = { .topic = TOPIC, .partition_id = EVBUS_PARTITION_ANY };
		event.payload = (struct evbus_slice){ payload, payload_make(payload, 0, i, 0, 1) };
		event.key = (struct evbus_slice){ key, key_make(key, 0, i) };
		pause_us(3000);
		atomic_store(&sent_at[i], now_us());
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		CHECK_OK(evbus_publisher_flush(publisher, ERR));
	}
	evbus_publisher_close(publisher);
	evbus_close(bus);
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void measure(const char *what, unsigned lanes, int64_t most_ms)
{
	unsigned events = run_count(300, 100);
	pid_t follower = start_follower(lanes);
	static int64_t took[EVENTS_MAX];
	int64_t start = now_us();

	child_join(child_start(publish_and_note, 0));
	while (atomic_load(&notes->counters[0]) < events && now_us() - start < 20000000)
		pause_us(1000);
	child_check();
	for (unsigned i = 0; i < events; i++) {
		CHECK(atomic_load(&seen_at[i]), "event %u was not seen", i);
		took[i] = atomic_load(&seen_at[i]) - atomic_load(&sent_at[i]);
	}
	qsort(took, events, sizeof *took, ascending);
	fprintf(stderr, "%s: p50 %lld us, p99 %lld us\n", what, (long long)took[events / 2],
		(long long)took[events * 99 / 100]);
	CHECK(took[events / 2] < most_ms * 1000, "half of the events took longer than %lld us",
	      (long long)took[events / 2]);
	stop_follower(follower);
	run_ran(what, atomic_load(&notes->counters[0]), events);
}

Test(wake, comes_soon)
{
	measure("from publishing to following", 1, 50);
}

Test(wake, comes_soon_from_several_partitions)
{
	measure("from publishing to following several partitions", 4, 50);
}

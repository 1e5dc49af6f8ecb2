/* A handle belongs to the process that opened it: a forked child is refused, and disturbs nothing. */
#include "fault.h"
#include "faulty.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(5000);
	plan = (struct plan){ .way = STREAM };
}

TestSuite(fork, .init = setup, .fini = run_end, .timeout = 120);

static struct evbus *bus;
static struct evbus_publisher *publisher;
static struct evbus_reader *reader;
static uint64_t receipts;

static void open_handles(void)
{
	struct evbus_selection selection = { .topic = TOPIC, .follow = true };

	bus = open_bus();
	CHECK_OK(evbus_publish(bus, TOPIC, "{}", NULL, ERR));
	CHECK_OK(evbus_publisher_open(bus, NULL, &publisher, ERR));
	CHECK_OK(evbus_reader_open(bus, &selection, &reader, ERR));
}

/* Some megabytes, so that the publisher's thread is at work, or waits for some when it is done. */
static void add_some(uint64_t bytes)
{
	static char payload[100001];
	struct evbus_event event = { .topic = TOPIC, .payload = { payload, 100000 } };

	memset(payload, ' ', 100000);
	payload[0] = '{';
	payload[99999] = '}';
	for (uint64_t added = 0; added < bytes; added += event.payload.len) {
		CHECK_OK(evbus_publisher_add(publisher, &event, ERR));
		while (evbus_publisher_next(publisher))
			receipts++;
	}
}

static void expect_bug(enum evbus_code code, const char *call)
{
	CHECK(code == EVBUS_BUG, "%s in a forked child returned %d", call, (int)code);
}

static enum evbus_code no_letter(void *context, const struct evbus_letter *letter, struct evbus_err *err)
{
	(void)context;
	(void)letter;
	(void)err;
	return EVBUS_NO;
}

static void use_the_store_of_the_parent(void)
{
	const struct evbus_consumer_options consumer_options = { .group = "g", .topic = TOPIC };
	const struct evbus_letter_filter filter = { .reason = -1, .state = -1 };
	const struct evbus_sweep_options sweep = { .letters_before_us = 1 };
	const struct evbus_verify_options verify = { .partition_id = EVBUS_PARTITION_ALL };
	const char *const ids[] = { "1" };
	struct evbus_checkpoint before, *list;
	struct evbus_checkpoint point = { .group = "g",
					  .topic = TOPIC,
					  .next_offset = "0",
					  .offset_kind = "file_line",
					  .log_id = "0123456789abcdef0123456789abcdef",
					  .updated_at_utc = "2026-01-29T12:00:00.000000Z" };
	struct evbus_slice nothing = { NULL, 0 };
	struct evbus_consumer *consumer;
	struct evbus_verify_result verified;
	struct evbus_sweep_result swept;
	struct evbus_outbox *outbox;
	struct evbus_claim *claim;
	enum evbus_code codes[1];
	struct evbus_lag lag;
	struct evbus_err err;
	size_t count;

	expect_bug(evbus_checkpoint_get(bus, "g", TOPIC, 0, &before, &err), "evbus_checkpoint_get");
	expect_bug(evbus_checkpoint_set(bus, "g", TOPIC, 0, "1", false, &before, &before, &err),
		   "evbus_checkpoint_set");
	expect_bug(evbus_checkpoint_restore(bus, &point, 1, &err), "evbus_checkpoint_restore");
	expect_bug(evbus_checkpoint_remove(bus, "g", TOPIC, 0, &err), "evbus_checkpoint_remove");
	expect_bug(evbus_checkpoint_list(bus, NULL, NULL, &list, &count, &err), "evbus_checkpoint_list");
	expect_bug(evbus_checkpoint_lag(bus, &point, &lag, &err), "evbus_checkpoint_lag");
	expect_bug(evbus_claim_take(bus, "g", TOPIC, 0, &claim, &err), "evbus_claim_take");
	expect_bug(evbus_consumer_open(bus, &consumer_options, &consumer, &err), "evbus_consumer_open");
	expect_bug(evbus_outbox_open(bus, NULL, NULL, &outbox, &err), "evbus_outbox_open");
	expect_bug(evbus_letter_list(bus, NULL, 0, &filter, no_letter, NULL, &err), "evbus_letter_list");
	expect_bug(
		evbus_letter_change(bus, NULL, 0, "1", EVBUS_LETTER_QUEUE, EVBUS_REASON_REFUSED, nothing, "me", &err),
		"evbus_letter_change");
	expect_bug(evbus_letter_change_all(bus, NULL, 0, ids, 1, EVBUS_LETTER_QUEUE, "me", codes, &err),
		   "evbus_letter_change_all");
	expect_bug(evbus_letter_claim(bus, "g", &claim, &err), "evbus_letter_claim");
	expect_bug(evbus_sweep(bus, NULL, 0, &sweep, &swept, &err), "evbus_sweep");
	expect_bug(evbus_verify(bus, NULL, &verify, &verified, &err), "evbus_verify");
}

static void use_what_the_parent_opened(void)
{
	struct evbus_event event = { .topic = TOPIC, .payload = { "{}", 2 } };
	struct evbus_selection selection = { .topic = TOPIC };
	const struct evbus_record *record;
	struct evbus_partition_info info;
	struct evbus_publisher *other;
	struct evbus_reader *another;
	struct evbus_err err;
	bool created;
	char **names;

	expect_bug(evbus_publish(bus, TOPIC, "{}", NULL, &err), "evbus_publish");
	expect_bug(evbus_publisher_add(publisher, &event, &err), "evbus_publisher_add");
	expect_bug(evbus_publisher_flush(publisher, &err), "evbus_publisher_flush");
	CHECK(!evbus_publisher_next(publisher), "a forked child got a receipt");
	expect_bug(evbus_publisher_open(bus, NULL, &other, &err), "evbus_publisher_open");
	expect_bug(evbus_reader_next(reader, 0, &record, &err), "evbus_reader_next");
	expect_bug(evbus_reader_open(bus, &selection, &another, &err), "evbus_reader_open");
	expect_bug(evbus_topic_create(bus, "other", NULL, &created, &err), "evbus_topic_create");
	expect_bug(evbus_topic_list(bus, NULL, &names, &err), "evbus_topic_list");
	expect_bug(evbus_topic_describe(bus, TOPIC, 0, &info, &err), "evbus_topic_describe");
	use_the_store_of_the_parent();
	evbus_publisher_close(publisher);
	evbus_reader_close(reader);
	evbus_close(bus);
}

static void be_a_forked_child(unsigned index)
{
	alarm(20);    /* whatever hangs ends */
	use_what_the_parent_opened();
	struct evbus *own = open_bus();
	CHECK_OK(evbus_publish(own, TOPIC, "{}", NULL, ERR));
	evbus_close(own);
	(void)index;
}

static uint64_t count_lines(void)
{
	struct evbus_selection selection = { .topic = TOPIC };
	struct evbus *own = open_bus();
	struct evbus_reader *all;
	const struct evbus_record *record;
	uint64_t count = 0;

	CHECK_OK(evbus_reader_open(own, &selection, &all, ERR));
	do {
		CHECK_OK(evbus_reader_next(all, -1, &record, ERR));
		count += record != NULL;
	} while (record);
	evbus_reader_close(all);
	evbus_close(own);
	return count;
}

static void close_handles(void)
{
	evbus_publisher_close(publisher);
	evbus_reader_close(reader);
	evbus_close(bus);
}

Test(fork, of_a_publisher_at_work_leaves_the_child_without_and_the_parent_with_its_handles)
{
	unsigned rounds = run_count(25, 5);
	uint64_t dice = run.seed, ran = 0;

	open_handles();
	for (; ran < rounds; ran++) {
		/* At times the thread waits for work when it is forked, at times it is in a write or a sync. */
		add_some(1500000 + random_next(&dice) % 1500000);
		pause_us((int64_t)(random_next(&dice) % 8000));
		child_join(child_start(be_a_forked_child, (unsigned)ran));
	}
	CHECK_OK(evbus_publisher_flush(publisher, ERR));
	while (evbus_publisher_next(publisher))
		receipts++;
	close_handles();
	uint64_t lines = count_lines();
	CHECK(lines == 1 + receipts + rounds, "%llu lines for %llu receipts", (unsigned long long)lines,
	      (unsigned long long)(1 + receipts + rounds));
	run_ran("forks", ran, rounds);
}

/* ---- a holder that was forked, and is killed ---- */

static int die_in_sync(int fd)
{
	(void)fd;
	return raise(SIGKILL);
}

static void close_and_stay(unsigned index)
{
	(void)index;
	alarm(20);
	close_handles();
	atomic_fetch_add(&notes->counters[0], 1);
	while (!atomic_load(&notes->stop))
		pause_us(1000);
}

static void fork_and_die_in_a_sync(unsigned index)
{
	open_handles();
	pid_t child = fork();
	if (child == 0) {
		close_and_stay(index);
		_exit(0);
	}
	while (!atomic_load(&notes->counters[0]))
		pause_us(1000);
	os.fdatasync = die_in_sync;
	CHECK(evbus_publish(bus, TOPIC, "{}", NULL, NULL) == EVBUS_BUG, "it lives");
}

Test(fork, whose_child_closes_what_it_was_given_holds_no_lock_of_a_parent_that_was_killed)
{
	int status = child_reap(child_start(fork_and_die_in_a_sync, 0));
	child_check();
	CHECK(WIFSIGNALED(status), "the parent was not killed: %x", (unsigned)status);
	int64_t start = now_us();
	struct evbus *own = open_bus();
	CHECK_OK(evbus_publish(own, TOPIC, "{}", NULL, ERR));
	evbus_close(own);
	CHECK(now_us() - start < 1000000, "the next one waited for %lld us", (long long)(now_us() - start));
	atomic_store(&notes->stop, true);
	CHECK(count_lines() >= 2, "lines are missing");
	run_ran("killed parents", 1, 1);
}

/* ---- a child that executes something ---- */

static pid_t sleeper;

/* In the middle of a call of ours; comes back when the child has executed. */
static void start_sleeper(void)
{
	int executed[2];
	char byte;

	CHECK(!pipe2(executed, O_CLOEXEC), "pipe: %s", strerror(errno));
	sleeper = fork();
	if (sleeper == 0) {
		alarm(20);
		execl("/bin/sleep", "sleep", "20", (char *)NULL);
		_exit(127);
	}
	close(executed[1]);
	CHECK(sleeper > 0 && read(executed[0], &byte, 1) == 0, "cannot fork: %s", strerror(errno));
	close(executed[0]);
}

/* What it was given of the bus. */
static void check_sleeper(unsigned at)
{
	char path[64], place[PATH_MAX], name[PATH_MAX];
	struct dirent *entry;

	snprintf(path, sizeof path, "/proc/%d/fd", (int)sleeper);
	DIR *dir = opendir(path);
	CHECK(dir, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir))) {
		snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
		ssize_t len = readlink(name, place, sizeof place - 1);
		place[len < 0 ? 0 : len] = '\0';
		CHECK(strncmp(place, run.dir, strlen(run.dir)) != 0, "at call %u: it was given '%s'", at, place);
	}
	closedir(dir);
}

static void publish_and_consume(void)
{
	struct evbus *own = open_bus();
	struct evbus_checkpoint before, after;

	CHECK_OK(evbus_publish(own, TOPIC, "{}", NULL, ERR));
	CHECK_OK(evbus_checkpoint_set(own, "g", TOPIC, 0, "0", false, &before, &after, ERR));
	evbus_close(own);
}

/* Whenever it was forked: descriptors are opened with O_CLOEXEC, and the locks are those of open files. */
Test(fork, which_executes_something_keeps_nothing_of_the_bus_and_no_lock)
{
	unsigned at = 0, ran = 0;

	faulty_begin(0, EIO);
	publish_and_consume();
	unsigned calls = atomic_load(&faulty.calls);
	faulty_end();
	run_remove("bus");
	for (unsigned step = run_count(1, 5); at + step <= calls; ran++) {
		faulty_begin(at += step, EIO);
		faulty.instead = start_sleeper;
		publish_and_consume();
		faulty_end();
		CHECK(faulty.failed, "there is no call %u", at);
		check_sleeper(at);
		int64_t start = now_us();
		publish_and_consume();
		CHECK(now_us() - start < 1000000, "the next one waited for %lld us", (long long)(now_us() - start));
		CHECK(!kill(sleeper, SIGKILL) && waitpid(sleeper, NULL, 0) == sleeper, "kill: %s", strerror(errno));
		run_remove("bus");
	}
	run_ran("children that execute something", ran, calls / run_count(1, 5));
}

/* Processes are killed and stopped at every place: what was acknowledged stays, the others go on. */
#include "doom.h"
#include "fault.h"

#include <criterion/criterion.h>
#include <sys/wait.h>

#define WRITERS 16u
#define READERS 4u
#define LATE WRITERS /* the number of the one that publishes when all is over */
#define NEXT_MS 1000 /* after a holder's death the next one proceeds within this time */

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(200);
}

TestSuite(kills, .init = setup, .fini = run_end, .timeout = 300);

static bool was_killed(int status)
{
	child_check();
	CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 0),
	      "a writer ended with status %x", (unsigned)status);
	return WIFSIGNALED(status);
}

/* Whoever comes next finds what they left in a partition, and mends it. Returns the lines that there are then. */
static uint64_t publish_late(unsigned lane, uint64_t *event)
{
	struct evbus *bus = open_bus();
	struct log_image log;
	int64_t start = now_us();

	*event = event_for_lane(LATE, lane, *event);
	CHECK_OK(try_one(bus, LATE, (*event)++, ERR));
	CHECK(now_us() - start < NEXT_MS * 1000, "the next one took longer than %d ms", NEXT_MS);
	evbus_close(bus);
	log_read(lane, &log);
	free(log.lines);
	return log.count;
}

/* ---- at random ---- */

static uint64_t dice;

/* Half of them die at a call, which is where locks are held; the others wait for what comes from outside. */
static void write_doomed(unsigned writer)
{
	uint64_t state = run.seed ^ atomic_fetch_add(&notes->counters[0], 1) << 20;

	if (random_next(&state) % 2)
		doom_at(1 + random_next(&state) % 4000);
	write_events(writer);
}

static void wait_for_next_receipt(void)
{
	uint64_t acked = atomic_load(&notes->acked);
	int64_t start = now_us();

	while (atomic_load(&notes->acked) == acked) {
		child_check();
		CHECK(now_us() - start < NEXT_MS * 1000, "nobody proceeds for %d ms after a kill", NEXT_MS);
		pause_us(500);
	}
}

/* Kills one, or finds one that has killed itself, and puts another in its place. */
static unsigned kill_one(pid_t writers[WRITERS])
{
	unsigned victim = (unsigned)(random_next(&dice) % WRITERS), kills = 0;

	kill(writers[victim], SIGKILL);
	for (unsigned i = 0; i < WRITERS; i++) {
		siginfo_t info = { 0 };
		if (i != victim && waitid(P_PID, (id_t)writers[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		    info.si_pid == 0)
			continue;
		kills += was_killed(child_reap(writers[i]));
		writers[i] = child_start(write_doomed, i);
	}
	wait_for_next_receipt();
	return kills;
}

static void kill_at_random(const char *what, unsigned lanes, uint64_t segment_max_bytes)
{
	unsigned kills = 0, most = run_count(50, 20);
	pid_t writers[WRITERS], readers[READERS];

	dice = run.seed;
	notes_new(WRITERS + 1, 100000, READERS, lanes);
	plan.way = MIXED;
	plan.keyed = lanes > 1;
	make_topic(lanes, segment_max_bytes);
	for (unsigned i = 0; i < READERS; i++)
		readers[i] = child_start(follow_events, i);
	for (unsigned i = 0; i < WRITERS; i++)
		writers[i] = child_start(write_doomed, i);
	while (kills < most) {
		pause_us((int64_t)(random_next(&dice) % 40000));
		kills += kill_one(writers);
	}
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < WRITERS; i++)
		kills += was_killed(child_reap(writers[i]));
	uint64_t acked = atomic_load(&notes->acked), lines = 0, event = 0;
	for (unsigned lane = 0; lane < lanes; lane++)
		lines += publish_late(lane, &event);
	atomic_store(&notes->goal, lines);
	for (unsigned i = 0; i < READERS; i++)
		child_join(readers[i]);
	check_everything();
	CHECK(acked > 100, "only %llu events were acknowledged", (unsigned long long)acked);
	run_ran(what, kills < most ? kills : most, most);
}

Test(kills, of_writers_at_random_lose_nothing_that_was_acknowledged)
{
	kill_at_random("kills", 1, 0);
}

Test(kills, while_segments_are_rolled_lose_nothing_that_was_acknowledged)
{
	kill_at_random("kills with small segments", 1, 20000);
}

Test(kills, of_writers_to_several_partitions_lose_nothing_that_was_acknowledged)
{
	kill_at_random("kills with several partitions", 3, 100000);
}

/* ---- at each call in turn ---- */

#define MADE 2 /* notes->counters: calls of one that was not killed */

static uint64_t calls;

/* Dies at its n-th call, or publishes its three events. */
static void publish_three(unsigned round)
{
	struct evbus_err err;

	doom_at(calls);
	struct evbus *bus = open_bus();
	for (uint64_t i = 0; i < 3; i++)
		CHECK(try_one(bus, 0, 3 * round + i, &err) == EVBUS_OK, "%s", err.text);
	evbus_close(bus);
	atomic_store(&notes->counters[MADE], doom_calls);
}

/* fresh: each finds no bus; else each finds what the one before left. */
static void kill_at_each_call(const char *what, bool fresh, uint64_t segment_max_bytes)
{
	unsigned rounds = 0, kills = 0, most = 4000, step = run_count(1, 7);
	uint64_t first = 1 + run.seed % step;
	uint64_t lines = 0, event = 0;
	bool killed = true;
	pid_t reader = 0;

	run_slow_syncs(0);
	notes_new(WRITERS + 1, 3 * most, fresh ? 0 : 1, 1);
	if (!fresh) {
		make_topic(1, segment_max_bytes);
		reader = child_start(follow_events, 0);
	}
	for (calls = first; killed && rounds < most; calls += step, rounds++) {
		if (fresh && rounds) {
			check_everything();
			run_remove("bus");
			notes_new(WRITERS + 1, 3 * most, 0, 1);
		}
		killed = was_killed(child_reap(child_start(publish_three, rounds)));
		kills += killed;
		lines = publish_late(0, &event);
	}
	if (reader) {
		atomic_store(&notes->goal, lines);
		child_join(reader);
	}
	check_everything();
	CHECK(!killed && calls > 50, "%u calls are not what three events take", (unsigned)calls);
	/* As many as the one that nobody killed has counted. */
	uint64_t made = atomic_load(&notes->counters[MADE]), wanted = made < first ? 0 : (made - first) / step + 1;
	run_ran(what, kills < wanted ? kills : wanted, wanted);
}

Test(kills, at_each_call_of_the_first_events_of_a_bus_leave_one_that_works)
{
	kill_at_each_call("kills at each call, no bus", true, 0);
}

Test(kills, at_each_call_leave_a_log_that_goes_on)
{
	kill_at_each_call("kills at each call", false, 0);
}

Test(kills, at_each_call_of_a_roll_leave_a_log_that_goes_on)
{
	kill_at_each_call("kills at each call of a roll", false, 400);
}

/* ---- a holder that is stopped: slow is not dead ---- */

static int stop_in_sync(int fd)
{
	if (atomic_exchange(&notes->counters[1], 0))
		raise(SIGSTOP);
	return fdatasync(fd);
}

static ssize_t stop_in_append(int fd, const void *data, size_t len, off_t at)
{
	if (len > 100 && memcmp(data, "{\"crc32c\"", 9) == 0 && atomic_exchange(&notes->counters[1], 0))
		raise(SIGSTOP);
	return pwrite(fd, data, len, at);
}

static bool in_append;

static void write_and_stop(unsigned writer)
{
	if (in_append)
		os.pwrite = stop_in_append;
	else
		os.fdatasync = stop_in_sync;
	write_events(writer);
}

static void stop_a_holder(const char *what)
{
	unsigned seconds = run_count(3, 1);
	pid_t writers[8];
	int status;

	notes_new(8, 1000000, 0, 1);
	plan.way = SINGLES;
	make_topic(1, 0);
	for (unsigned i = 0; i < 8; i++)
		writers[i] = child_start(i ? write_events : write_and_stop, i);
	pause_us(200000);
	atomic_store(&notes->counters[1], 1);
	CHECK(waitpid(writers[0], &status, WUNTRACED) == writers[0] && WIFSTOPPED(status), "it did not stop");
	pause_us(100000);
	uint64_t acked = atomic_load(&notes->acked);
	pause_us((int64_t)seconds * 1000000);
	CHECK(atomic_load(&notes->acked) == acked, "%llu receipts while the holder of the lock was stopped",
	      (unsigned long long)(atomic_load(&notes->acked) - acked));
	CHECK(kill(writers[0], SIGCONT) == 0, "cannot go on");
	wait_for_next_receipt();
	pause_us(100000);
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < 8; i++)
		child_join(writers[i]);
	CHECK(check_everything() == atomic_load(&notes->acked), "some events have no receipt");
	run_ran(what, seconds, run_count(3, 1));
}

Test(kills, that_are_none_but_a_stop_in_a_sync_only_make_the_others_wait)
{
	in_append = false;
	stop_a_holder("seconds stopped in a sync");
}

Test(kills, that_are_none_but_a_stop_in_an_append_only_make_the_others_wait)
{
	in_append = true;
	stop_a_holder("seconds stopped in an append");
}

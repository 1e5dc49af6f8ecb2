/* Slow is not dead. The real program is stopped with whatever it holds at the time: the locks of a log, keys.lock, a
 * transaction of the store or of an application's database, a claim, a lease; for longer than anything in the program
 * waits by itself. Another one comes meanwhile: it waits, or ends with 75, or the two are not in each other's way; but it
 * takes nothing from the other. When that goes on, both have done what they were to do, once.
 *
 * Many such pairs stand side by side, each on a bus of its own, so that all wait at the same time. */
#include "scenes.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#define HELD_MS 6000 /* the store gives up after 5 s */
#define CASES_MAX 400u

struct pair {
	const char *name;
	void (*prepare)(void);
	const char *first, *second; /* read "in" and "in2", write "out" and "out2" */
	bool receipts; /* of the form RECEIPT */
	unsigned every; /* stopped at one call of so many */
	void (*check)(void);
};

static struct stopped {
	const struct pair *pair;
	unsigned at;
	pid_t first, second;
	int second_status; /* -1: it waits */
} cases[CASES_MAX];
static unsigned case_count;

TestSuite(torture_stops, .init = scenes_begin, .fini = run_end, .timeout = 300);

static void enter_case(unsigned i)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof path, "%s/%u", run.dir, i);
	CHECK((!mkdir(path, 0700) || errno == EEXIST) && !chdir(path), "cannot enter '%s'", path);
	if (i < case_count)
		snprintf(run.where, sizeof run.where, "%s, stopped at %u: ", cases[i].pair->name, cases[i].at);
}

/* ---- the pairs ------------------------------------------------------------------------------------------------- */

static void prepare_two(void)
{
	write_ids("in", 1, EVENTS);
	write_ids("in2", 2, EVENTS);
}

static void prepare_log(void)
{
	prepare_two();
	make_topic(1, 0);
}

static void prepare_small(void)
{
	prepare_two();
	/* One segment takes all of one; a larger one would be written by a thread. */
	make_topic(1, 2000);
	write_ids("in3", 3, 4 * EVENTS - 2);
	program_must(0, "in3", NULL, "publish -q -t " TOPIC);
}

static void prepare_same(void)
{
	write_ids("in", 1, EVENTS);
	write_ids("in2", 1, EVENTS);
}

static void check_two(void)
{
	done_once(1);
	done_once(2);
}

static void check_one(void)
{
	done_once(1);
}

static void prepare_consumed(void)
{
	prepare_two();
	write_file("handler", "echo $EVENT_ID >>effects\n");
	program_must(0, "in", NULL, "publish -q -t " TOPIC);
}

static void check_consumed(void)
{
	for (unsigned i = 0; i < EVENTS; i++)
		CHECK(in_file("effects", 1, i) == 1, "event %u took effect %u times", i, in_file("effects", 1, i));
	CHECK(ask_db(STATE_DB, "SELECT max(next_offset + 0) FROM checkpoints WHERE group_name = 'g'") == EVENTS,
	      "the checkpoint is not at the end");
}

/* A second that gave up when the store did not take what it had done has done it twice. */
static bool gave_up;

static void check_groups(void)
{
	unsigned repeated = 0;

	for (unsigned i = 0; i < EVENTS; i++) {
		unsigned count = in_file("effects", 1, i);
		CHECK(count >= 2, "event %u took effect %u times", i, count);
		repeated += count - 2;
	}
	CHECK(repeated <= gave_up, "%u effects were repeated", repeated);
}

#define APP " --outbox sqlite:app.db "

static void prepare_outbox(const char *journal)
{
	char statement[60];
	sqlite3 *db = open_db("app.db");

	prepare_two();
	snprintf(statement, sizeof statement, "PRAGMA journal_mode = %s; CREATE TABLE own (n)", journal);
	run_sql(db, statement);
	sqlite3_close(db);
	program_must(0, NULL, NULL, "outbox-init -q" APP);
	program_must(0, "in", NULL, "outbox-add -q -t " TOPIC APP);
}

static void prepare_outbox_wal(void)
{
	prepare_outbox("WAL");
}

static void prepare_outbox_delete(void)
{
	prepare_outbox("DELETE");
}

static void check_sent(void)
{
	program_must(0, NULL, NULL, "outbox-drain -q" APP);
	CHECK(ask_db("app.db", "SELECT count(*) FROM outbox WHERE state <> 'SENT' OR attempts <> 0") == 0,
	      "some rows are not sent");
	check_db("app.db");
	read_logs();
	done_once(1);
}

static void check_sent_both(void)
{
	check_sent();
	done_once(2);
}

#define CONSUME "consume -q -t " TOPIC " -g "
#define DRAIN "outbox-drain --lease 1s" RECEIPT APP

static const struct pair pairs[] = {
	{ "publish, no bus", prepare_two, "publish -t " TOPIC RECEIPT, "publish -t " TOPIC RECEIPT, true, 1,
	  check_two },
	{ "publish", prepare_log, "publish -t " TOPIC RECEIPT, "publish -t " TOPIC RECEIPT, true, 1, check_two },
	{ "publish --atomic", prepare_log, "publish --atomic -t " TOPIC RECEIPT, "publish --atomic -t " TOPIC RECEIPT,
	  true, 1, check_two },
	{ "publish, rolling", prepare_small, "publish -t " TOPIC RECEIPT, "publish -t " TOPIC RECEIPT, true, 2,
	  check_two },
	{ "publish --idempotent", prepare_same, "publish --idempotent -t " TOPIC RECEIPT,
	  "publish --idempotent -t " TOPIC RECEIPT, true, 1, check_one },
	{ "consume of one group", prepare_consumed, CONSUME "g -- sh handler", CONSUME "g -- sh handler", false, 4,
	  check_consumed },
	{ "consume of two groups", prepare_consumed, CONSUME "g -- sh handler", CONSUME "h -- sh handler", false, 4,
	  check_groups },
	{ "outbox-drain", prepare_outbox_delete, DRAIN, DRAIN, true, 2, check_sent },
	{ "outbox-drain, WAL", prepare_outbox_wal, DRAIN, DRAIN, true, 2, check_sent },
	{ "outbox-drain and outbox-add", prepare_outbox_delete, DRAIN, "outbox-add -q -t " TOPIC APP, false, 2,
	  check_sent_both },
};

/* ---- the course ------------------------------------------------------------------------------------------------ */

/* false: it ended before. */
static bool stop_first(const struct pair *pair, unsigned at)
{
	struct stopped *to = &cases[case_count];
	char path[16];

	CHECK(case_count < CASES_MAX, "too many cases");
	*to = (struct stopped){ .pair = pair, .at = at, .second_status = -1 };
	case_count++;
	enter_case(case_count - 1);
	pair->prepare();
	to->first = program_stop(at, "in", "out", pair->first);
	if (to->first)
		return true;
	case_count--;
	CHECK(!chdir(".."), "chdir");
	snprintf(path, sizeof path, "%u", case_count);
	run_remove(path);
	return false;
}

static void look_at_second(struct stopped *at)
{
	siginfo_t info = { 0 };

	if (at->second_status >= 0 || waitid(P_PID, (id_t)at->second, &info, WEXITED | WNOHANG | WNOWAIT) ||
	    !info.si_pid)
		return;
	int status = child_reap(at->second);
	child_check();
	CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EVBUS_AGAIN),
	      "evbus %s: status %x: %s", at->pair->second, (unsigned)status, program_read("said"));
	at->second_status = WEXITSTATUS(status);
}

/* It was waited for; a second that gave up tries again, and now nobody is in its way. */
static void go_on(struct stopped *at, unsigned counts[3])
{
	look_at_second(at);
	counts[at->second_status < 0 ? 0 : at->second_status ? 1 : 2]++;
	CHECK(!kill(at->first, SIGCONT), "cannot go on");
	int status = child_reap(at->first);
	child_check();
	CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 ||
				    (WEXITSTATUS(status) == EVBUS_AGAIN && !strncmp(at->pair->first, "outbox", 6))),
	      "evbus %s: status %x: %s", at->pair->first, (unsigned)status, program_read("said"));
	if (at->second_status < 0) {
		status = child_reap(at->second);
		child_check();
		CHECK(WIFEXITED(status), "evbus %s: status %x", at->pair->second, (unsigned)status);
		at->second_status = WEXITSTATUS(status);
	}
	gave_up = at->second_status == EVBUS_AGAIN;
	if (gave_up)
		at->second_status = program_run("in2", "out2", "%s", at->pair->second);
	CHECK(at->second_status == 0, "evbus %s: status %d: %s", at->pair->second, at->second_status,
	      program_read("said"));
	read_logs();
	if (at->pair->receipts) {
		check_receipts("out");
		check_receipts("out2");
	}
	at->pair->check();
}

Test(torture_stops, of_one_that_holds_something_make_others_wait_or_give_up_and_take_nothing_from_it)
{
	unsigned quick = run_count(1, 12), counts[3] = { 0 };
	uint64_t dice = run.seed;

	for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
		unsigned step = pairs[p].every * quick;
		for (unsigned at = 1 + (unsigned)(random_next(&dice) % step); stop_first(&pairs[p], at); at += step)
			continue;
	}
	for (unsigned i = 0; i < case_count; i++) {
		enter_case(i);
		cases[i].second = program_start("in2", "out2", cases[i].pair->second);
	}
	pause_us(run_count(HELD_MS, 500) * 1000);
	unsigned ran = 0;
	for (; ran < case_count; ran++) {
		enter_case(ran);
		go_on(&cases[ran], counts);
	}
	run.where[0] = '\0';
	fprintf(stderr, "%u waited, %u gave up, %u had nothing to wait for\n", counts[0], counts[1], counts[2]);
	CHECK(counts[0] > 5, "hardly any had to wait");
	run_ran("stops of one that holds something", ran, case_count);
}

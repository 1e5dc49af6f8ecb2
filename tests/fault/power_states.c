/* power_states.c: the power goes at each change of a recording, and every state that is left is checked. */
#include "power_states.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

/* Children go on with it. */
struct tally {
	uint64_t next, ran, expected;
};

static struct tally *tally;
static uint64_t wanted, only; /* 0: not said */
static bool all; /* no regular state is left out */
static const char *twice = ""; /* where the first cut was */

static uint64_t setting(const char *name)
{
	const char *text = getenv(name);

	return text ? number_at(text) : 0;
}

void states_begin(void)
{
	run_begin(IN_MEMORY);
	tally = notes_share(sizeof *tally);
	wanted = setting("EVBUS_TEST_STATES");
	all = wanted > 0;
	only = setting("EVBUS_TEST_STATE");
	CHECK(!mkdir("live", 0700), "cannot make a directory");
}

void empty_directory(const char *path)
{
	if (!access(path, F_OK))
		run_remove(path);
	CHECK(!mkdir(path, 0700), "cannot make '%s': %s", path, strerror(errno));
}

static void check_state(const struct states *states, size_t changes, unsigned variant)
{
	uint64_t number = ++tally->next, seed = run.seed * 1000003 + changes * 1009 + variant;

	if (only && number != only)
		return;
	tally->expected++;
	snprintf(run.where, sizeof run.where,
		 "state %ju (%s%safter change %zu, variant %u; EVBUS_TEST_STATE=%ju --filter %s/%s makes it alone): ",
		 (uintmax_t)number, states->before, twice, changes, variant, (uintmax_t)number,
		 criterion_current_test->category, criterion_current_test->name);
	empty_directory("state");
	disk_build(changes, variant, seed, "state");
	if (states->ready)
		states->ready("state");
	states->check("state", changes);
	run.where[0] = '\0';
	tally->ran++;
}

/* Of all moments and variants one in so many, and another one with another seed. */
static bool is_drawn(size_t every)
{
	static size_t pairs;

	return every < 2 || (pairs++ + run.seed) % every == 0;
}

void states_check(const struct states *states, size_t first)
{
	size_t end = disk_changes(), parts = states->parts ? states->parts : 1;

	CHECK(first <= end, "nothing was recorded");
	uint64_t share = wanted / parts / (end - first + 1) + 1;
	unsigned drawn = wanted && share > states->drawn ? (unsigned)share : states->drawn;
	for (size_t i = first; i <= end; i++) {
		unsigned regular = disk_variants(i), variants = regular > 1 ? regular + drawn : 1;
		for (unsigned variant = 0; variant < variants; variant++)
			/* And always that all is lost in the end that was never synced. */
			if (all || (i == end && variant == 0) || is_drawn(states->every))
				check_state(states, i, variant);
	}
}

/* In a child, which has the memory to itself: the recovery of a state is recorded, and the power goes in it. */
static void cut_in_recovery(const struct states *states, size_t changes, unsigned variant,
			    void (*recover)(const char *path, size_t changes))
{
	static char first[96];

	snprintf(first, sizeof first, "after change %zu, variant %u, and then ", changes, variant);
	twice = first;
	empty_directory("again");
	disk_build(changes, variant, run.seed * 1000003 + changes * 1009 + variant, "again");
	if (states->ready)
		states->ready("again");
	disk_record("again");
	size_t begin = disk_changes();
	recover("again", changes);
	disk_stop();
	states_check(states, begin);
}

void states_check_twice(const struct states *states, size_t first, unsigned count,
			void (*recover)(const char *path, size_t changes))
{
	uint64_t random = run.seed;
	size_t end = disk_changes();

	for (unsigned i = 0; i < count; i++) {
		size_t changes = first + random_next(&random) % (end - first + 1);
		unsigned variant = (unsigned)(random_next(&random) % (disk_variants(changes) + 8));
		pid_t child = fork();
		CHECK(child >= 0, "cannot fork: %s", strerror(errno));
		if (!child) {
			wanted /= 4 * count;
			cut_in_recovery(states, changes, variant, recover);
			_exit(0);
		}
		int status;
		CHECK(waitpid(child, &status, 0) == child && status == 0, "a second cut: status %x: %s",
		      (unsigned)status, notes->why);
	}
}

void states_end(const char *what)
{
	if (wanted)
		fprintf(stderr, "%s: EVBUS_TEST_SEED=%ju\n", what, (uintmax_t)run.seed);
	run_ran(what, tally->ran, tally->expected);
	CHECK(!only || tally->ran == 1, "there is no state %ju", (uintmax_t)only);
	run_end();
}

/* ---- who was killed first ---- */

void states_run_killed(size_t n, void (*act)(void), bool *killed)
{
	int status;

	fflush(NULL);
	pid_t child = fork();
	CHECK(child >= 0, "cannot fork: %s", strerror(errno));
	if (!child) {
		disk_kill_at(n);
		act();
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
	*killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	CHECK(*killed || status == 0, "the one to be killed ended with status %x: %s", (unsigned)status, notes->why);
}

size_t states_record_killed(size_t n, void (*prepare)(void), void (*act)(void), void (*resume)(void), bool *killed)
{
	empty_directory("live");
	disk_record("live");
	prepare();
	states_run_killed(n, act, killed);
	size_t changes = disk_changes();
	resume();
	disk_stop();
	return changes;
}

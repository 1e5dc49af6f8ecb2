/* Everything at once, and all of it killed at random: publishers (single events, streams, atomic batches, idempotent, the
 * program), followers (the library, the program), applications with an outbox, drainers, and four groups of consumers
 * (the library with an inbox; the program with a command and an inbox, a command without, a coprocess), while segments are
 * rolled and syncs are slow. What they did stands in memory that outlives them and in files; what must hold between that,
 * the logs and the store is in torture_check.c. */
#include "torture.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <sys/wait.h>

#define SYNC_US 300
#define CHECK_EVERY 10u

static void setup(void)
{
	run_begin(IN_MEMORY);
	run_slow_syncs(SYNC_US);
}

TestSuite(torture, .init = setup, .fini = run_end, .timeout = 580);

static const struct {
	const char *name;
	unsigned count;
} kinds[KINDS] = {
	[KIND_WRITER] = { "writers", WRITERS },
	[KIND_ONCE] = { "idempotent publishers", 2 },
	[KIND_FOLLOWER] = { "followers", 2 },
	[KIND_PUBLISH] = { "evbus publish", 1 },
	[KIND_TAIL] = { "evbus tail", 1 },
	[KIND_APP] = { "applications", APPS },
	[KIND_DRAINER] = { "evbus outbox-drain", 2 },
	[KIND_CONSUMER + LIBRARY] = { "consumers", 2 },
	[KIND_CONSUMER + COMMAND] = { "evbus consume --inbox", 2 },
	[KIND_CONSUMER + BARE] = { "evbus consume", 2 },
	[KIND_CONSUMER + COPROCESS] = { "evbus consume --coprocess", 2 },
};

#define ACTORS_MAX 32u
static struct actor actors[ACTORS_MAX];
static unsigned actor_count, kills[KINDS];

static void start_all(void)
{
	for (enum kind kind = 0; kind < KINDS; kind++)
		for (unsigned i = 0; i < kinds[kind].count; i++) {
			CHECK(actor_count < ACTORS_MAX, "too many actors");
			actors[actor_count] = (struct actor){ .kind = kind, .index = i };
			actor_start(&actors[actor_count++]);
		}
}

static void end(struct actor *actor)
{
	kill(actor->pid, SIGKILL);
	int status = child_reap(actor->pid);

	child_check();
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "one of %s ended by itself with status %x: %s",
	      kinds[actor->kind].name, (unsigned)status, program_read("said"));
	kills[actor->kind]++;
}

/* In turn a kind, and of that whoever it hits, so that each is killed about as often. */
static void kill_one(uint64_t *dice, unsigned turn)
{
	enum kind kind = (enum kind)(turn % KINDS);
	unsigned victim = 0, which = (unsigned)(random_next(dice) % kinds[kind].count);

	while (actors[victim].kind != kind || actors[victim].index != which)
		victim++;
	end(&actors[victim]);
	actor_start(&actors[victim]);
}

/* Writers, applications and what is written in the library end by themselves; the others are killed a last time. */
static void stop_all(void)
{
	atomic_store(&notes->stop, true);
	for (unsigned i = 0; i < actor_count; i++) {
		struct actor *actor = &actors[i];
		if (actor->kind == KIND_FOLLOWER)
			continue;
		if (actor->kind == KIND_WRITER || actor->kind == KIND_ONCE || actor->kind == KIND_APP ||
		    actor->kind == KIND_CONSUMER)
			child_join(actor->pid);
		else
			end(actor);
	}
}

Test(torture, of_everybody_by_random_kills_loses_doubles_and_hides_nothing)
{
	unsigned wanted = run_count(2000, 44), done = 0, counted = 0;
	uint64_t dice = run.seed;

	notes_new(WRITERS + 1, 200000, kinds[KIND_FOLLOWER].count, 1);
	plan = (struct plan){ .way = MIXED, .pause_us = 20000 };
	cast_prepare();
	start_all();
	pause_us(100000);
	for (; done < wanted; done++) {
		pause_us((int64_t)(random_next(&dice) % 80000));
		kill_one(&dice, done);
		if (done % CHECK_EVERY == 0)
			check_progress();
	}
	unsigned by_kind[KINDS];
	memcpy(by_kind, kills, sizeof by_kind);
	stop_all();
	cast_finish();
	for (unsigned i = 0; i < actor_count; i++)
		if (actors[i].kind == KIND_FOLLOWER)
			child_join(actors[i].pid);
	check_all(kills);
	for (enum kind kind = 0; kind < KINDS; kind++) {
		fprintf(stderr, "%s: %u kills\n", kinds[kind].name, by_kind[kind]);
		counted += by_kind[kind];
	}
	run_ran("kills of everybody", counted, wanted);
}

/* The schedules that were found on paper, each of them driven: nobody hopes here that it comes about.
 *
 *	a roll between an append and its commit              schedules: rolls_…; by chance and by the million: rolling.c
 *	a failed sync with a waiter whose offset was reused  schedules: offsets_…; within one process: unit/commit.c
 *	a leader killed between the error and the halt mark  schedules: leaders_…; call by call: unit/commit.c
 *	a kill between the words of a cell                   schedules: cells_…; byte by byte: unit/control.c
 *	the lock file removed, made again, cut, copied over  schedules_sweep.c; between any two calls: unit/recover_lock.c;
 *	                                                     every 50 ms under load: lockfile.c
 *	the page older than the log, newer, of another log,  unit/recover_page.c, unit/recover_tail.c (each a test)
 *	alone, absent, in the same boot (copy, restore)
 *	a 3 MB log with one flipped bit, another boot id     unit/recover.c: of_a_3_mib_log_with_one_flipped_bit_…
 *	a follower whose writer is killed before the wake    wake.c: comes_within_a_second_…
 *	a reader without a page, then a power cut            power.c: goes_after_a_reader_without_a_page_…
 *	two boot ids on one directory                        schedules_sweep.c; unit/recover_page.c: of_another_boot_…
 *	fork in a holder                                     schedules_sweep.c; fork.c
 *	ftruncate failing in the cut-back                    unit/commit.c: that_fails_and_cannot_be_cut_back_…,
 *	                                                     unit/writer.c: that_cannot_cut_back_…
 *	no room while cut bytes are copied                   unit/recover.c: that_has_no_room_for_a_copy_…
 *	the clock at 2099 and back                           clock.c
 *	16 processes creating one topic                      schedules: creators_…; unit/topic.c; at random: create.c
 *	a drainer stopped past its lease                     schedules_store.c; at random: outbox.c
 *	two drainers on one hot key                          schedules_store.c; at random: outbox.c
 *	a topic removed and made again with the store kept,  schedules_store.c; unit/keys_store.c:
 *	then published idempotently                          of_a_topic_that_was_removed_…
 *
 * Those that are named with a unit test alone are exact there already: one process, one call after the other. */
#include "harm.h"
#include "points.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void setup(void)
{
	run_begin(IN_MEMORY);
}

TestSuite(schedules, .init = setup, .fini = run_end, .timeout = 120);

#define SMALL_SEGMENT 1000u
#define LINES 3u

enum { FIRST = 1, SECOND, THIRD, FOURTH }; /* who is who, by the number as a writer */

static void must(struct actor *actor, enum evbus_code code)
{
	enum evbus_code came = actor_end(actor);

	CHECK(came == code, "actor %u came to %d, not %d: %s", actor->index, (int)came, (int)code, actor->err.text);
}

static void must_publish(unsigned index)
{
	must(actor_start(publish_next, index, NULL), EVBUS_OK);
}

static unsigned files(void)
{
	struct log_image log;

	log_read(0, &log);
	free(log.lines);
	return log.files;
}

/* ---- a roll between an append and its commit ----------------------------------------------------------------------- */

/* What it appended is in an older segment, or in one before that, when it comes to sync it. */
static void roll_between(unsigned rounds)
{
	case_begin(SMALL_SEGMENT, LINES);
	struct actor *first = actor_start(publish_next, FIRST, "append/done");
	actor_stands(first);
	unsigned before = files();
	for (unsigned i = 0; i < rounds; i++)
		must(actor_start(publish_ten, SECOND, NULL), EVBUS_OK);
	CHECK(files() > before, "nothing was rolled");
	actor_go(first, NULL);
	must(first, EVBUS_OK);
	case_end();
}

enum end { GOES_ON, IS_KILLED, IS_KILLED_LATER, ENDS };

/* Another one stands within a roll when it goes on to its commit. */
static void commit_within_a_roll(const char *point, enum end end)
{
	case_begin(SMALL_SEGMENT, LINES);
	struct actor *first = actor_start(publish_next, FIRST, "append/done");
	actor_stands(first);
	struct actor *second = actor_start(publish_ten, SECOND, point);
	actor_stands(second);
	case_look();
	if (end == IS_KILLED)
		actor_kill(second);
	actor_go(first, NULL);
	CHECK(actor_rest(first) != ACTOR_STANDS, "it stands");
	case_look();
	if (end == IS_KILLED_LATER)
		actor_kill(second);
	if (end == GOES_ON) {
		actor_go(second, NULL);
		must(second, EVBUS_OK);
	}
	must(first, EVBUS_OK);
	case_end();
}

Test(schedules, rolls_between_an_append_and_its_commit_leave_a_receipt_that_is_true)
{
	static const char *const points[] = { "roll/locked", "roll/synced", "roll/exchanged" };
	unsigned ran = 0;

	for (unsigned rounds = 1; rounds <= 3; rounds++, ran++)
		roll_between(rounds);
	for (unsigned i = 0; i < 3; i++)
		for (enum end end = 0; end < ENDS; end++, ran++)
			commit_within_a_roll(points[i], end);
	run_ran("rolls between an append and its commit", ran, 3 + 3 * ENDS);
}

/* ---- a failed sync, and a waiter whose offset was used again ------------------------------------------------------- */

/* It has not begun to commit. An older page that is put back knows of no cut. */
static void reuse_before_the_commit(bool older_page)
{
	case_begin(0, LINES);
	take_copy();
	struct actor *first = actor_start(publish_next, FIRST, "append/done");
	actor_stands(first);
	must(actor_start(publish_and_fail, SECOND, NULL), EVBUS_IO);
	if (older_page)
		do_harm(COPIED_OVER_WHOLE);
	case_look();
	must_publish(THIRD);
	CHECK(offset_of(THIRD, 0) == LINES, "the offset was not used again");
	actor_go(first, NULL);
	must(first, EVBUS_IO);
	CHECK(!was_acknowledged(FIRST, 0), "it has a receipt");
	case_end();
}

/* It is about to sleep, or sleeps already, while another one syncs. */
static void reuse_while_it_waits(bool asleep)
{
	case_begin(0, LINES);
	struct actor *leader = actor_start(publish_and_fail, SECOND, "sync/begins");
	actor_stands(leader);
	struct actor *first = actor_start(publish_next, FIRST, asleep ? NULL : "commit/waits");
	CHECK(actor_rest(first) == (asleep ? ACTOR_WAITS : ACTOR_STANDS), "it does not wait for the sync");
	actor_go(leader, NULL);
	must(leader, EVBUS_IO);
	if (asleep)
		must(first, EVBUS_IO);
	must_publish(THIRD);
	must_publish(FOURTH);
	CHECK(offset_of(THIRD, 0) == LINES && offset_of(FOURTH, 0) == LINES + 1, "the offsets were not used again");
	if (!asleep) {
		actor_go(first, NULL);
		must(first, EVBUS_IO);
	}
	CHECK(!was_acknowledged(FIRST, 0), "it has a receipt");
	case_end();
}

Test(schedules, offsets_that_are_used_again_after_a_failed_sync_acknowledge_nobody_else)
{
	unsigned ran = 0;

	reuse_before_the_commit(false);
	ran++;
	reuse_before_the_commit(true);
	ran++;
	reuse_while_it_waits(false);
	ran++;
	reuse_while_it_waits(true);
	ran++;
	run_ran("offsets used again", ran, 4);
}

/* ---- a leader that is killed between the error and what follows from it --------------------------------------------- */

enum waiter { NOBODY, BEFORE_ITS_COMMIT, ASLEEP, WAITERS };

/* Whoever syncs next is told that all is well, and nothing of it is on the disk. */
static void kill_leader(const char *point, enum waiter waiter, bool fresh)
{
	struct actor *first = NULL;

	case_begin(0, LINES);
	if (waiter != NOBODY) {
		first = actor_start(publish_next, FIRST, "append/done");
		actor_stands(first);
	}
	struct actor *leader = actor_start(publish_and_fail, SECOND, point);
	actor_stands(leader);
	if (waiter == ASLEEP) {
		actor_go(first, NULL);
		/* Once the page says that there was a cut it need not wait for more. */
		CHECK(actor_rest(first) == ACTOR_WAITS || strcmp(point, "cut/synced") == 0, "it does not wait");
	}
	case_look();
	actor_kill_beside(leader, first);
	if (fresh)
		must_publish(THIRD);
	if (waiter == BEFORE_ITS_COMMIT)
		actor_go(first, NULL);
	if (first) {
		enum evbus_code code = actor_end(first);
		CHECK(code == EVBUS_OK || code == EVBUS_IO, "%d: %s", (int)code, first->err.text);
	}
	case_end();
}

Test(schedules, leaders_that_are_killed_before_they_could_say_that_the_sync_failed_make_nobody_believe_in_it)
{
	static const char *const points[] = { "sync/failed", "cut/marked", "cut/done", "cut/synced" };
	unsigned ran = 0;

	for (unsigned i = 0; i < 4; i++)
		for (enum waiter waiter = 0; waiter < WAITERS; waiter++)
			for (unsigned fresh = 0; fresh < 2; fresh++, ran++)
				kill_leader(points[i], waiter, fresh);
	run_ran("leaders killed after a failed sync", ran, 4 * WAITERS * 2);
}

/* ---- a kill between the words of a cell ---------------------------------------------------------------------------- */

static unsigned cells_written(struct actor *actor)
{
	unsigned passes = atomic_load(&actor->passes), cells = 0;

	for (unsigned i = 0; i < passes && i < PASSES_MAX; i++)
		cells += strcmp(actor->passed[i], "cell/copied") == 0;
	return cells;
}

/* How many there are when nobody is killed, and then each of them. */
static void kill_between_words(const char *what, actor_act *act, uint64_t segment_max_bytes, unsigned least)
{
	unsigned ran = 0;

	case_begin(segment_max_bytes, LINES);
	struct actor *all = actor_start(act, FIRST, NULL);
	actor_end(all);
	unsigned cells = cells_written(all);
	CHECK(cells >= least, "%s: only %u cells", what, cells);
	unsigned step = cells > 6 ? 3 : 1;
	for (unsigned i = 0; i < cells; i++) {
		if (!case_is_wanted(i, step))
			continue;
		case_begin(segment_max_bytes, LINES);
		struct actor *first = actor_start_nth(act, FIRST, "cell/copied", i + 1);
		actor_stands(first);
		case_look();
		struct actor *second = actor_start(publish_next, SECOND, NULL);
		actor_rest(second);
		case_look();
		actor_kill_beside(first, second);
		must(second, EVBUS_OK);
		case_end();
		ran++;
	}
	run_ran(what, ran, cases_wanted(cells, step));
}

Test(schedules, cells_of_which_one_word_was_written_are_those_from_before)
{
	kill_between_words("kills between the words of a cell", publish_next, 0, 2);
	kill_between_words("the same in rolls", publish_ten, SMALL_SEGMENT, 24);
	kill_between_words("the same after a sync that failed", publish_and_fail, 0, 3);
}

/* ---- 16 processes create one topic --------------------------------------------------------------------------------- */

#define CREATORS 16u

static char (*log_ids)[33];
static _Atomic unsigned *created_by;

static enum evbus_code create_topic(unsigned index, struct evbus_err *err)
{
	struct evbus_topic_options options = { .partitions = 1 };
	struct evbus_partition_info info;
	struct evbus *bus = open_bus();
	bool created;

	CHECK_OK(evbus_topic_create(bus, "one", &options, &created, ERR));
	atomic_fetch_add(created_by, created);
	CHECK_OK(evbus_topic_describe(bus, "one", 0, &info, ERR));
	memcpy(log_ids[index], info.log_id, sizeof info.log_id);
	enum evbus_code code = evbus_publish(bus, "one", "{}", NULL, err);
	evbus_close(bus);
	return code;
}

/* All have made a description of their own, and none has its name: now one after the other, in the order of the seed. */
Test(schedules, creators_of_one_topic_that_all_stand_before_its_name_make_one)
{
	struct actor *creators[CREATORS];
	uint64_t dice = run.seed;

	log_ids = notes_share(CREATORS * sizeof *log_ids);
	created_by = notes_share(sizeof *created_by);
	case_begin(0, 0);
	for (unsigned i = 0; i < CREATORS; i++)
		creators[i] = actor_start(create_topic, i, "topic/written");
	for (unsigned i = 0; i < CREATORS; i++)
		actor_stands(creators[i]);
	for (unsigned left = CREATORS; left; left--) {
		unsigned next = (unsigned)(random_next(&dice) % left);
		actor_go(creators[next], NULL);
		must(creators[next], EVBUS_OK);
		creators[next] = creators[left - 1];
	}
	for (unsigned i = 1; i < CREATORS; i++)
		CHECK(!strcmp(log_ids[i], log_ids[0]), "two logs: %s and %s", log_ids[0], log_ids[i]);
	CHECK(atomic_load(created_by) == 1, "it was created by %u", atomic_load(created_by));
	run_ran("creators", CREATORS, CREATORS);
}

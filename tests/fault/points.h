/* points.h: schedules, as straight-line code.
 *
 * An actor is a process that does one thing and stands still at a place that has a name (base/points.h), until it is told
 * to go on or is killed there. Where nobody stands in their way the others go on meanwhile; where somebody does, they
 * wait, and actor_rest() tells. So a schedule is no matter of luck:
 *
 *	struct actor *a = actor_start(publish, 1, "append/done");
 *	actor_stands(a);
 *	… somebody else rolls …
 *	actor_go(a, NULL);
 *	CHECK(actor_end(a) == EVBUS_OK, …);
 *
 * The platter tells what is durable: it knows of each byte whether it was written since, and synced after that. A sync
 * that fails leaves the bytes clean and lost, as Linux does: a later one returns 0 and brings none of them to the disk. So
 * who acknowledges, or shows, what only such a second sync covers is found out. */
#ifndef EVBUS_TESTS_FAULT_POINTS_H
#define EVBUS_TESTS_FAULT_POINTS_H

#include "fault.h"

/* ---- actors ---- */

#define ACTORS_MAX 32u
#define PASSES_MAX 200u

/* What it does, and what comes of it; in the child. */
typedef enum evbus_code actor_act(unsigned index, struct evbus_err *err);

enum actor_state {
	ACTOR_RUNS,
	ACTOR_STANDS, /* at its place */
	ACTOR_WAITS, /* for a lock that another one has, or to be woken */
	ACTOR_ENDED, /* by itself */
};

struct actor {
	pid_t pid;
	unsigned index;
	char point[32]; /* where it will stop; "": anywhere */
	_Atomic unsigned left; /* passes of it, until it stops; 0: it does not */
	_Atomic int state;
	_Atomic unsigned waits; /* odd: it waits */
	_Atomic unsigned passes; /* of all places */
	char passed[PASSES_MAX][32];
	enum evbus_code code;
	struct evbus_err err;
};

/* A process that stops when it comes to the place for the first time, or for the nth time. NULL: nowhere; "": anywhere. */
struct actor *actor_start(actor_act *act, unsigned index, const char *point);
struct actor *actor_start_nth(actor_act *act, unsigned index, const char *point, unsigned nth);
/* Waits until it does not go on by itself, and says why. */
enum actor_state actor_rest(struct actor *actor);
/* It must stop at its place. */
void actor_stands(struct actor *actor);
/* Lets it go on, up to the next pass of a place. */
void actor_go(struct actor *actor, const char *point);
/* It must end by itself; what came of it. */
enum evbus_code actor_end(struct actor *actor);
void actor_kill(struct actor *actor);
/* And has a look before the other one goes on, which may be NULL: what is looked at changes under nobody's hands. */
void actor_kill_beside(struct actor *actor, struct actor *other);
/* What came of one that is not stopped. */
enum evbus_code actor_run(actor_act *act, unsigned index);

/* Of the calling process, which is an actor: called when it has stopped, before it waits. */
extern void (*actor_on_stop)(void);

/* ---- the platter ---- */

/* A new one, for this process and all actors that it starts. */
void platter_begin(void);
/* So many of the next syncs of the calling process fail. */
void platter_fail_syncs(unsigned count);

/* ---- cases ---- */

/* With EVBUS_TEST_QUICK every step-th of many cases is run, by the seed, else each: whether the i-th is, and how many of
 * so many are. */
bool case_is_wanted(uint64_t i, unsigned step);
uint64_t cases_wanted(uint64_t count, unsigned step);

/* A new bus with the topic of one partition; the first `lines` events are of writer 0. */
void case_begin(uint64_t segment_max_bytes, unsigned lines);
/* Publishes the next event of the writer with that number. */
enum evbus_code publish_next(unsigned index, struct evbus_err *err);
enum evbus_code publish_ten(unsigned index, struct evbus_err *err);
/* The sync fails that is to cover it. */
enum evbus_code publish_and_fail(unsigned index, struct evbus_err *err);
/* A reader sees what it saw before, and maybe more, and nothing that is not on the platter. Returns how much. */
uint64_t case_look(void);
/* All receipts stand where they say and are on the platter, and one more event can be published. */
void case_end(void);
/* The offset of the writer's event; UINT64_MAX: it has no receipt. */
uint64_t offset_of(unsigned index, uint64_t event);
bool was_acknowledged(unsigned index, uint64_t event);

#endif

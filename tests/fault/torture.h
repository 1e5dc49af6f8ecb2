/* torture.h: the scene of torture.c, in three parts: who plays in it (torture_cast.c), what must hold in the end
 * (torture_check.c), and who kills them (torture.c). */
#ifndef EVBUS_TESTS_FAULT_TORTURE_H
#define EVBUS_TESTS_FAULT_TORTURE_H

#include "program.h"
#include "stores.h"

#define APPS 2u
#define ROWS_MAX 12000u /* of an application */
#define WRITERS 3u /* singles, streams and batches, to TOPIC */
#define WORK "work" /* what comes from the outboxes, and is consumed */
#define WORK_PARTITIONS 3u
#define ONCE "once" /* published idempotently, all of it by each of the publishers */
#define ONCE_MAX 60000u
#define SHELL "shell" /* published by the program */
#define RETRIES 2u /* after the first attempt */
#define DELAY_MS 40 /* at most, before the second */
#define CAP_MS 60
#define WINDOW 4u /* of the coprocess */

/* Of the n-th row of an application. */
enum fate { GOOD, FLAKY, POISON, REFUSED };
enum fate fate_of(unsigned event);

enum { NOT_YET, PERHAPS, COMMITTED, ROLLED_BACK };

#define GROUPS 4u
enum group { LIBRARY, COMMAND, BARE, COPROCESS };
extern const char *const group_names[GROUPS];

/* In memory that outlives them. Events are numbered through: application * ROWS_MAX + row. */
extern struct shared {
	_Atomic unsigned char known[APPS * ROWS_MAX];
	_Atomic uint32_t next_row[APPS];
	_Atomic uint32_t rows_begun; /* transactions of applications that did not end are begun from here */
	_Atomic uint32_t attempts[APPS * ROWS_MAX], effects[APPS * ROWS_MAX]; /* of the group LIBRARY */
	_Atomic uint64_t once_places[ONCE_MAX];
	_Atomic uint32_t once_next[2];
	atomic_bool apps_done, finish;
} * shared;

enum kind {
	KIND_WRITER,
	KIND_ONCE,
	KIND_FOLLOWER,
	KIND_PUBLISH, /* the program, from here on also where there is no KIND_ */
	KIND_TAIL,
	KIND_APP,
	KIND_DRAINER,
	KIND_CONSUMER, /* LIBRARY, and on from there */
	KINDS = KIND_CONSUMER + GROUPS,
};

struct actor {
	enum kind kind;
	unsigned index; /* among those of its kind */
	pid_t pid;
};

/* What all of them need: topics, outbox, handlers, what is written to the program. */
void cast_prepare(void);
void actor_start(struct actor *actor);
/* What it takes to bring everything to its end, once nobody is killed any more. */
void cast_finish(void);

/* How many incarnations of the program wrote to out.publish.N and out.tail.N. */
extern unsigned publish_outputs, tail_outputs;

/* While they run: checkpoints and ends never go back, delays are within their bounds. */
void check_progress(void);
/* In the end. kills: by kind. */
void check_all(const unsigned kills[KINDS]);

#endif

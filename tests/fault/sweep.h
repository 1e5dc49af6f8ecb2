/* sweep.h: an operation is done again and again, and each time another one of its calls fails.
 *
 * Of each case it must be true that: what is told as done is done, and what is not is a failure with a code and a text
 * of its own; then, the fault being gone, another handle can do its work, the same one can, too, nothing is open or
 * allocated that was not before, and what is in the log and in the store is what was acknowledged or at least submitted.
 *
 * One process is enough for that: the log's locks belong to open files, so two handles exclude each other as two
 * processes do, and SQLite sees to it that two connections do. */
#ifndef EVBUS_TESTS_FAULT_SWEEP_H
#define EVBUS_TESTS_FAULT_SWEEP_H

#include "fault.h"

struct operation {
	const char *name;
	void (*prepare)(void); /* what it works on, in each case anew; nothing fails yet */
	enum evbus_code (*act)(struct evbus_err *err);
	enum evbus_code (*again)(struct evbus_err *err); /* on the same handles; NULL: act */
	void (*others)(void); /* on handles of their own; NULL: one event is published */
	void (*finish)(void); /* closes what prepare and act have opened */
	void (*check)(void); /* beside the log; may be NULL */
	void (*make)(void); /* files, once, of which each case gets a copy before prepare; may be NULL */
	bool no_log; /* there is none to be looked at */
	bool uncertain; /* how many calls there are depends on time, or on other threads */
	bool store; /* what SQLite does fails, too */
};

/* Every call of the operation and every way to fail; quick: every call and one. */
void sweep(const struct operation *operation);

/* ---- what was submitted, and what was acknowledged ---- */

#define SWEEP_EVENTS_MAX 200u

/* A new event; it may be in the log from now on. batch: a number that those of one atomic batch share, or 0. */
unsigned sweep_submit(unsigned batch);
struct evbus_slice sweep_payload(unsigned event);
void sweep_acknowledge(unsigned event, const struct evbus_record *receipt);
/* It may have a receipt already, which must be the same. */
void sweep_acknowledge_again(unsigned event, const struct evbus_record *receipt);
/* Which one it is, its bytes being what they must be. */
unsigned sweep_event_of(const struct evbus_record *record);
/* One more through a handle. */
enum evbus_code sweep_publish(struct evbus *bus, struct evbus_err *err);
/* Through a handle of its own, so many; must succeed. */
void sweep_publish_some(unsigned count);
/* Somebody else publishes and stores a checkpoint. */
void sweep_others(void);
/* Reads the log and holds it against that; how many records there are. */
unsigned sweep_check_log(void);

#endif

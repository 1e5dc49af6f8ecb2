/* coprocess.h: one command that is kept, for handlers that must be fast.
 *
 * It reads records on stdin, one a line, in JSON as `evbus tail` prints them, and answers each with one line on stdout,
 * in their order:
 *
 *	ok                 done
 *	retry [REASON]     to be tried again
 *	dead [REASON]      a dead letter now
 *
 * Up to `window` records are with it unanswered, so it must answer without waiting for the next. One that dies, or does
 * not answer in time, is started again when the retry policy allows; the first record that it left unanswered has failed
 * once, the others come again. Which record kills it is not sure where several were with it: after a death they are
 * given one by one for a while, so that in the end only the one that does it is blamed. */
#ifndef COPROCESS_H
#define COPROCESS_H

#include "handler.h"

struct coprocess;

struct coprocess_options {
	const char *const *argv;
	const char *group;           /* EVENT_GROUP */
	int64_t timeout_ms;          /* for an answer to the oldest record, 0 or less: none */
	uint32_t window;             /* at least 1 */
	struct evbus_retry retry;    /* when one that died is started again */
};

/* Looks the command up: EVBUS_CONFIG where it is not there or cannot be executed. It is started with the first record. */
CHECKED enum evbus_code coprocess_open(struct call *call, const struct coprocess_options *options,
				       struct coprocess **coprocess);
void coprocess_cleanup(struct coprocess **coprocess);

/* Gives it a record, whose bytes are copied; at most `window` may be unanswered. It is written by now or in
 * coprocess_wait(). */
CHECKED enum evbus_code coprocess_start(struct coprocess *coprocess, const struct job *job);
size_t coprocess_running(const struct coprocess *coprocess);
/* The next outcome, as handler_wait() has it. EVBUS_CONFIG: what it answered is no answer, or it cannot be executed. */
CHECKED enum evbus_code coprocess_wait(struct coprocess *coprocess, int timeout_ms, bool *ended,
				       struct outcome *outcome);
void coprocess_stop(struct coprocess *coprocess);
/* Nothing is unanswered: closes its stdin and waits until it has ended, at most 10 s after it was told to stop. EVBUS_NO:
 * with another status than 0, or not by itself. */
CHECKED enum evbus_code coprocess_end(struct coprocess *coprocess);

#endif

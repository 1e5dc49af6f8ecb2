/* handler.h: running a command for an event, and what its exit status says.
 *
 *	0                    done
 *	65 (EX_DATAERR)      a dead letter now; stderr is the reason
 *	64, 78, 126, 127     the command is wrong: stop, nothing moves
 *	any other, a signal, a time-out    to be tried again, but where our stdout is a pipe that nobody reads any more:
 *	                     stop, nothing moves
 *
 * It reads the event (its payload and a newline) on stdin and finds EVENT_TOPIC EVENT_PARTITION_ID EVENT_OFFSET
 * EVENT_OFFSET_KIND EVENT_PUBLISHED_AT_UTC EVENT_PARTITION_KEY EVENT_ID EVENT_TYPE EVENT_TENANT_ID EVENT_ATTEMPT
 * EVENT_GROUP TRACEPARENT in its environment, those that the event has. It need not read. Its stdout is ours; its stderr
 * is kept (its end, EVBUS_ERROR_MAX_BYTES) and goes to ours too, unless --quiet. It runs in a process group of its own,
 * which is killed when its time is up, and is sent SIGTERM when we die. */
#ifndef HANDLER_H
#define HANDLER_H

#include "cmd.h"

struct handler;

struct handler_options {
	const char *const *argv;     /* the command and its arguments, NULL at the end */
	const char *group;           /* EVENT_GROUP; NULL: none */
	int64_t timeout_ms;          /* 0 or less: none */
	uint32_t concurrency;        /* how many at once, at most HANDLERS_MAX; 0: 1 */
};

#define HANDLERS_MAX 256u

/* What is run for: payload, topic, … as far as data is not NULL. record->partition_key, tenant_id and event_key are raw
 * JSON, as everywhere. */
struct job {
	const struct evbus_record *record;
	uint32_t attempt;            /* 0: it has none (a replay) */
	void *token;                 /* the caller's */
};

enum verdict {
	VERDICT_DONE,
	VERDICT_FAILED,              /* reason: EVBUS_REASON_RETRIES, _TIMEOUT or _SIGNAL */
	VERDICT_REFUSED,             /* reason: EVBUS_REASON_REFUSED */
	VERDICT_WRONG_COMMAND,       /* 64, 78, 126, 127: error says what */
	VERDICT_NO_READER,           /* it failed, and whoever read our stdout is gone: no attempt either */
	VERDICT_STOPPED,             /* it was ended because we are stopping: no attempt */
};

struct outcome {
	void *token;
	enum verdict verdict;
	enum evbus_reason reason;
	struct evbus_slice error;    /* the end of its stderr, or what was wrong; lives until the next call */
	int status;                  /* its exit status, or 128 + signal */
	const char *how;             /* for messages: "ended with status 3"; these two live as long as error */
	struct evbus_slice said;     /* the end of its stderr */
};

/* Looks the command up: EVBUS_CONFIG where it is not there or cannot be executed. */
CHECKED enum evbus_code handler_open(struct call *call, const struct handler_options *options,
				     struct handler **handler);
void handler_cleanup(struct handler **handler);

/* Starts it; at most `concurrency` at once. The record's bytes are copied as far as they are needed. EVBUS_CONFIG: the
 * command cannot be executed any more; EVBUS_AGAIN: no memory or processes left. */
CHECKED enum evbus_code handler_start(struct handler *handler, const struct job *job);
/* How many run. */
size_t handler_running(const struct handler *handler);
/* The next one that ended, *ended false where none did within timeout_ms (< 0: as long as it takes). After SIGINT or
 * SIGTERM to us, or handler_stop(), those that run have 10 s, or the rest of their time-out if that is less, and are
 * ended then, or at once after a second signal: VERDICT_STOPPED. */
CHECKED enum evbus_code handler_wait(struct handler *handler, int timeout_ms, bool *ended, struct outcome *outcome);
void handler_stop(struct handler *handler);
/* Starts one and waits for it. */
CHECKED enum evbus_code handler_run(struct handler *handler, const struct job *job, struct outcome *outcome);

#define OUTCOME_TEXT_BYTES 320u
/* For messages: "'sh' ended with status 3: the last line of its stderr". */
void outcome_describe(const char *name, const struct outcome *outcome, char text[OUTCOME_TEXT_BYTES]);
/* VERDICT_WRONG_COMMAND and _NO_READER say nothing about the event, and all stops: fails with what they say. */
enum evbus_code outcome_fail(struct call *call, const struct outcome *outcome);

#endif

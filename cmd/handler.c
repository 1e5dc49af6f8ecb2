/* handler.c: running a command for an event.
 *
 * One thread runs all of them: it polls their pipes and their ends (pidfd). The event is written as it is read, so that
 * a large one blocks nobody, and one that fits the pipe is written at once.
 *
 * A command that ended is not reaped until all is done with its process group: until then nobody else gets its number.
 * Its stderr may be held by a process that it left behind; that is not waited for, but for a moment. */
#include "handler.h"
#include "environment.h"
#include "out.h"
#include "relay.h"
#include "spawn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER_MS 100                /* what is waited for a stderr that others hold */

enum { FD_ENDED, FD_IN, FD_ERR, FDS };

struct run {
	struct child child;          /* pid 0: it is free */
	void *token;
	char *rest;                  /* of the event, where the pipe did not take it all */
	size_t rest_at, rest_len;
	bool exited;
	enum { RUNNING, TERMINATED, KILLED } stage;
	bool timed_out;              /* why it was terminated; else we stop */
	int64_t late_at;             /* when its time is up */
	int64_t act_at;              /* TERMINATED: when it is killed; exited: when its stderr is given up */
	struct relay relay;
};

struct handler {
	struct call *call;
	struct program program;
	struct environment environment;
	int64_t timeout_ms;
	struct stop stop;
	struct run *runs;
	struct pollfd *fds;          /* FDS for each, and ours */
	size_t count, running;
	char how[96];                /* of the last one that ended */
	char error[EVBUS_ERROR_MAX_BYTES];
};

/* ---- from beginning to end ------------------------------------------------------------------------------------- */

static enum evbus_code prepare(struct handler *handler, const struct handler_options *options)
{
	handler->timeout_ms = options->timeout_ms;
	handler->stop.at_ms = NEVER;
	handler->count = options->concurrency ? options->concurrency : 1;
	handler->runs = calloc(handler->count, sizeof *handler->runs);
	handler->fds = calloc(handler->count * FDS + 1, sizeof *handler->fds);
	if (!handler->runs || !handler->fds)
		return fail_errno(handler->call, EVBUS_AGAIN, "cannot prepare the command");
	TRY(program_find(handler->call, options->argv, &handler->program));
	return environment_make(handler->call, options->group, &handler->environment);
}

enum evbus_code handler_open(struct call *call, const struct handler_options *options, struct handler **handler)
{
	struct handler *made = calloc(1, sizeof *made);

	if (!made)
		return fail_errno(call, EVBUS_AGAIN, "cannot prepare the command");
	made->call = call;
	enum evbus_code code = prepare(made, options);
	if (code)
		handler_cleanup(&made);
	else
		*handler = made;
	return code;
}

static void release(struct handler *handler, struct run *run)
{
	free(run->rest);
	run->rest = NULL;
	handler->running--;
}

/* Those that still run are of no use to anybody. */
void handler_cleanup(struct handler **handler)
{
	struct handler *h = *handler;
	int signal_number;

	for (size_t i = 0; h && h->runs && i < h->count; i++)
		if (h->runs[i].child.pid) {
			child_signal(&h->runs[i].child, SIGKILL);
			child_reap(&h->runs[i].child, &signal_number);
			release(h, &h->runs[i]);
		}
	if (h) {
		program_cleanup(&h->program);
		environment_cleanup(&h->environment);
		free(h->runs);
		free(h->fds);
	}
	free(h);
	*handler = NULL;
}

size_t handler_running(const struct handler *handler)
{
	return handler->running;
}

/* ---- starting -------------------------------------------------------------------------------------------------- */

/* Nobody has to read: a closed pipe is the end of writing, and no failure. */
static void write_rest(struct run *run)
{
	while (run->rest_at < run->rest_len) {
		ssize_t n = write(run->child.in, run->rest + run->rest_at, run->rest_len - run->rest_at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			break;
		run->rest_at += (size_t)n;
	}
	child_close(&run->child.in);
}

static enum evbus_code copy_event(struct handler *handler, struct run *run, struct evbus_slice payload)
{
	run->rest_at = 0;
	run->rest_len = payload.len + 1;
	run->rest = malloc(run->rest_len);
	if (!run->rest)
		return fail_errno(handler->call, EVBUS_AGAIN, "cannot hold the event");
	if (payload.len)
		memcpy(run->rest, payload.data, payload.len);
	run->rest[payload.len] = '\n';
	return EVBUS_OK;
}

static struct run *free_run(struct handler *handler)
{
	struct run *run = handler->runs;

	while (run->child.pid)
		run++;
	return run;
}

static int64_t after(int64_t now, int64_t ms)
{
	return ms > 0 && ms < NEVER - now ? now + ms : NEVER;
}

enum evbus_code handler_start(struct handler *handler, const struct job *job)
{
	struct call *call = handler->call;
	struct run *run;

	if (handler->running == handler->count)
		return fail(call, EVBUS_BUG, "more commands than there is room for");
	run = free_run(handler);
	TRY(environment_set(&handler->environment, job->record, job->attempt));
	TRY(copy_event(handler, run, job->record->payload));
	enum evbus_code code =
		spawn(call, &handler->program, (char *const *)handler->environment.entries, STDOUT_OURS, &run->child);
	if (code) {
		free(run->rest);
		run->rest = NULL;
		return code;
	}
	handler->running++;
	run->token = job->token;
	run->exited = run->timed_out = false;
	run->stage = RUNNING;
	run->late_at = after(monotonic_ms(), handler->timeout_ms);
	run->act_at = NEVER;
	relay_begin(&run->relay, job->record);
	write_rest(run);
	return EVBUS_OK;
}

/* ---- while they run -------------------------------------------------------------------------------------------- */

static void terminate(struct run *run, int64_t now, bool timed_out)
{
	run->stage = TERMINATED;
	run->timed_out = timed_out;
	run->act_at = now + KILL_MS;
	child_signal(&run->child, SIGTERM);
}

static void kill_run(struct handler *handler, struct run *run)
{
	if (!run->exited) {
		struct about before = handler->call->about;

		handler->call->about = run->relay.about;
		talk(handler->call, WARNING, "'%s' did not end within %d s of SIGTERM, and is killed",
		     handler->program.argv[0], KILL_MS / 1000);
		handler->call->about = before;
	}
	run->stage = KILLED;
	run->act_at = run->exited ? run->act_at : NEVER;
	child_signal(&run->child, SIGKILL);
}

/* When its time is up, whether by its own time-out or because we stop. */
static int64_t end_of(const struct handler *handler, const struct run *run)
{
	if (handler->stop.at_once)
		return 0;
	if (handler->stop.at_ms == NEVER || handler->stop.at_ms + STOP_MS > run->late_at)
		return run->late_at;
	return handler->stop.at_ms + STOP_MS;
}

static int64_t next_act(const struct handler *handler, const struct run *run)
{
	if (run->stage == RUNNING && !run->exited)
		return end_of(handler, run);
	return run->act_at;
}

/* Whether it is over: it has ended, and so has its stderr, or that has been waited for. */
static bool look_after(struct handler *handler, struct run *run, int64_t now)
{
	if (run->stage == RUNNING && !run->exited && now >= end_of(handler, run))
		terminate(run, now, now >= run->late_at);
	if (run->stage == TERMINATED && now >= run->act_at)
		kill_run(handler, run);
	return run->exited && (run->child.err < 0 || now >= run->act_at);
}

static void hear(struct handler *handler, struct run *run, const struct pollfd *fds, int64_t now)
{
	if (fds[FD_IN].revents)
		write_rest(run);
	if (fds[FD_ERR].revents && !relay_read(&run->relay, handler->call, run->child.err))
		child_close(&run->child.err);
	if (fds[FD_ENDED].revents) {
		run->exited = true;
		if (run->stage != TERMINATED)
			run->act_at = now + LINGER_MS;
	}
}

void handler_stop(struct handler *handler)
{
	stop_now(&handler->stop);
}

static int timeout_of(const struct handler *handler, int64_t until)
{
	for (const struct run *run = handler->runs; run < handler->runs + handler->count; run++) {
		int64_t act = run->child.pid ? next_act(handler, run) : NEVER;

		until = act < until ? act : until;
	}
	return timeout_to(until);
}

static struct pollfd watched(int fd, short events)
{
	return (struct pollfd){ .fd = fd, .events = events };
}

/* Waits until something happens to one of them, or a signal comes. */
static void wait_for_any(struct handler *handler, int64_t until)
{
	struct pollfd *fds = handler->fds;
	size_t count = handler->count * FDS;

	for (size_t i = 0; i < handler->count; i++) {
		const struct run *run = &handler->runs[i];
		bool here = run->child.pid != 0;

		fds[i * FDS + FD_ENDED] = watched(here && !run->exited ? run->child.pidfd : -1, POLLIN);
		fds[i * FDS + FD_IN] = watched(here ? run->child.in : -1, POLLOUT);
		fds[i * FDS + FD_ERR] = watched(here ? run->child.err : -1, POLLIN);
	}
	fds[count] = watched(stop_fd(), POLLIN);
	int n = poll(fds, count + 1, timeout_of(handler, until));
	int64_t now = monotonic_ms();
	if (n > 0 && fds[count].revents)
		stop_look(&handler->stop);
	for (size_t i = 0; n > 0 && i < handler->count; i++)
		if (handler->runs[i].child.pid)
			hear(handler, &handler->runs[i], fds + i * FDS, now);
}

/* ---- how they ended -------------------------------------------------------------------------------------------- */

/* What is kept of it: what it wrote, which tells most; where how it ended tells more, that and what it wrote. */
static struct evbus_slice error_text(struct handler *handler, const struct outcome *outcome)
{
	bool by_status = outcome->reason == EVBUS_REASON_RETRIES || outcome->reason == EVBUS_REASON_REFUSED;
	struct evbus_slice said = outcome->said;

	if (said.len && by_status)
		return said;
	if (!said.len)
		return (struct evbus_slice){ handler->how, strlen(handler->how) };
	size_t how_len = (size_t)snprintf(handler->error, sizeof handler->error, "%s: ", handler->how);
	size_t room = sizeof handler->error - how_len, cut = said.len > room ? said.len - room : 0;
	memcpy(handler->error + how_len, said.data + cut, said.len - cut);
	return (struct evbus_slice){ handler->error, how_len + said.len - cut };
}

/* Whoever asked us to stop may have asked the command as well (a service manager, a terminal). */
static bool ended_with_us(const struct handler *handler, int status)
{
	return (stopped() || handler->stop.at_ms != NEVER) &&
	       (status == 128 + SIGINT || status == 128 + SIGTERM || status == 128 + SIGHUP || status == 128 + SIGKILL);
}

static enum verdict verdict_of(const struct handler *handler, const struct run *run, int status)
{
	if (run->stage != RUNNING)
		return run->timed_out ? VERDICT_FAILED : VERDICT_STOPPED;
	if (status == 0)
		return VERDICT_DONE;
	if (status == EVBUS_DATA)
		return VERDICT_REFUSED;
	if (ended_with_us(handler, status))
		return VERDICT_STOPPED;
	return status_is_wrong_command(status) ? VERDICT_WRONG_COMMAND : VERDICT_FAILED;
}

static void tell_how(struct handler *handler, const struct run *run, int signal_number, struct outcome *outcome)
{
	size_t size = sizeof handler->how;

	snprintf(handler->how, size, "ended with status %d", outcome->status);
	outcome->reason = outcome->verdict == VERDICT_REFUSED ? EVBUS_REASON_REFUSED : EVBUS_REASON_RETRIES;
	if (run->timed_out) {
		outcome->reason = EVBUS_REASON_TIMEOUT;
		snprintf(handler->how, size, "was not done within %g s", (double)handler->timeout_ms / 1000.0);
	} else if (signal_number) {
		outcome->reason = EVBUS_REASON_SIGNAL;
		snprintf(handler->how, size, "died of signal %d (%s)", signal_number, strsignal(signal_number));
	}
	outcome->how = handler->how;
}

static void settle(struct handler *handler, struct run *run, struct outcome *outcome)
{
	int signal_number;

	relay_end(&run->relay, handler->call);
	/* Its number is still its own: what it left behind goes with it. */
	if (run->stage != RUNNING)
		child_signal(&run->child, SIGKILL);
	int status = child_reap(&run->child, &signal_number);
	*outcome = (struct outcome){ .token = run->token,
				     .verdict = verdict_of(handler, run, status),
				     .status = status,
				     .said = relay_text(&run->relay) };
	if (outcome->verdict == VERDICT_FAILED && out_has_no_reader())
		outcome->verdict = VERDICT_NO_READER;
	tell_how(handler, run, signal_number, outcome);
	outcome->error = error_text(handler, outcome);
	release(handler, run);
}

static bool settle_one(struct handler *handler, struct outcome *outcome)
{
	int64_t now = monotonic_ms();

	for (struct run *run = handler->runs; run < handler->runs + handler->count; run++)
		if (run->child.pid && look_after(handler, run, now)) {
			settle(handler, run, outcome);
			return true;
		}
	return false;
}

enum evbus_code handler_wait(struct handler *handler, int timeout_ms, bool *ended, struct outcome *outcome)
{
	int64_t until = timeout_ms < 0 ? NEVER : monotonic_ms() + timeout_ms;

	*ended = false;
	while (handler->running) {
		if ((*ended = settle_one(handler, outcome)))
			return EVBUS_OK;
		wait_for_any(handler, until);
		if ((*ended = settle_one(handler, outcome)) || monotonic_ms() >= until)
			return EVBUS_OK;
	}
	return EVBUS_OK;
}

enum evbus_code handler_run(struct handler *handler, const struct job *job, struct outcome *outcome)
{
	bool ended;

	TRY(handler_start(handler, job));
	return handler_wait(handler, -1, &ended, outcome);
}

void outcome_describe(const char *name, const struct outcome *outcome, char text[OUTCOME_TEXT_BYTES])
{
	struct evbus_slice said = outcome->said;
	const char *newline = said.len ? memrchr(said.data, '\n', said.len) : NULL;
	int n = snprintf(text, OUTCOME_TEXT_BYTES, "'%.64s' %s", name, outcome->how);

	if (newline)
		said = (struct evbus_slice){ newline + 1, said.len - (size_t)(newline + 1 - said.data) };
	if (said.len)
		snprintf(text + n, OUTCOME_TEXT_BYTES - (size_t)n, ": %.*s",
			 (int)(said.len < OUTCOME_TEXT_BYTES ? said.len : OUTCOME_TEXT_BYTES), said.data);
}

enum evbus_code outcome_fail(struct call *call, const struct outcome *outcome)
{
	char text[OUTCOME_TEXT_BYTES];

	outcome_describe(call->argv[0], outcome, text);
	if (outcome->verdict == VERDICT_NO_READER)
		return fail(call, EVBUS_IO, "%s (whoever read stdout is gone)", text);
	return fail(call, EVBUS_CONFIG, "%s%s", text,
		    outcome->status ? " (a status that says that the command is wrong)" : "");
}

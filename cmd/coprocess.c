/* coprocess.c: one command that is kept.
 *
 * Records are gathered and written, and answers read, many at a time: a system call for each would be most of the work.
 * Half a window is written as soon as it is there, so that the command has something to do while we note what it
 * answered before. */
#include "coprocess.h"
#include "environment.h"
#include "feed.h"
#include "relay.h"
#include "spawn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWERS_BYTES (64u * 1024u)
#define LINGER_MS 100                /* after it closed its stdout, to see how it ends */
#define SILENCE_MS 10000             /* without a single answer, that looks like a mistake */
#define QUOTE_BYTES 80               /* of an answer that is none */

struct given {
	void *token;
	uint64_t end;                /* of its line, as feed_end() counts */
};

struct coprocess {
	struct call *call;
	struct program program;
	struct environment environment;
	int64_t timeout_ms;
	struct evbus_retry retry;
	struct stop stop;
	struct child child;          /* pid 0: it does not run */
	bool ended;                  /* it has; its answers are not all read yet */
	bool silence_told;

	struct given *given;         /* a ring of `window`: those that are unanswered */
	size_t window, head, count;
	struct feed feed;
	size_t unwritten;            /* records given since we last wrote */
	char answers[ANSWERS_BYTES];
	size_t answer_at, answers_len;
	uint64_t answered;           /* by this process */
	bool ever_answered;          /* by any */

	size_t one_by_one;           /* so many records more are given alone */
	int64_t deaths;              /* in a row, without an answer in between */
	int64_t start_at_ms;         /* not before */
	int64_t oldest_ms;           /* since when the oldest is waited for */
	int64_t deaf_ms;             /* when it closed its stdin, or answered last since then; NEVER: it did not */
	struct relay relay;
	size_t gone;                 /* so many were unanswered at its death and are handed back; the first has `outcome` */
	struct outcome outcome;
	char how[96];
	char error[EVBUS_ERROR_MAX_BYTES];
};

/* ---- from beginning to end ------------------------------------------------------------------------------------- */

static enum evbus_code prepare(struct coprocess *coprocess, const struct coprocess_options *options)
{
	coprocess->timeout_ms = options->timeout_ms;
	coprocess->retry = options->retry;
	coprocess->stop.at_ms = NEVER;
	coprocess->window = options->window;
	coprocess->given = calloc(coprocess->window, sizeof *coprocess->given);
	if (!coprocess->given)
		return fail_errno(coprocess->call, EVBUS_AGAIN, "cannot prepare the command");
	TRY(program_find(coprocess->call, options->argv, &coprocess->program));
	return environment_make(coprocess->call, options->group, &coprocess->environment);
}

enum evbus_code coprocess_open(struct call *call, const struct coprocess_options *options, struct coprocess **coprocess)
{
	struct coprocess *made = calloc(1, sizeof *made);

	if (!made)
		return fail_errno(call, EVBUS_AGAIN, "cannot prepare the command");
	made->call = call;
	enum evbus_code code = prepare(made, options);
	if (code)
		coprocess_cleanup(&made);
	else
		*coprocess = made;
	return code;
}

void coprocess_cleanup(struct coprocess **coprocess)
{
	struct coprocess *c = *coprocess;
	int status, signal_number;

	if (c && c->child.pid)
		child_end(&c->child, 0, &status, &signal_number);
	if (c) {
		program_cleanup(&c->program);
		environment_cleanup(&c->environment);
		free(c->given);
		feed_cleanup(&c->feed);
	}
	free(c);
	*coprocess = NULL;
}

size_t coprocess_running(const struct coprocess *coprocess)
{
	return coprocess->count;
}

void coprocess_stop(struct coprocess *coprocess)
{
	stop_now(&coprocess->stop);
}

static enum evbus_code start(struct coprocess *coprocess)
{
	TRY(environment_set(&coprocess->environment, NULL, 0));
	TRY(spawn(coprocess->call, &coprocess->program, (char *const *)coprocess->environment.entries, STDOUT_PIPE,
		  &coprocess->child));
	relay_begin(&coprocess->relay, NULL);
	coprocess->ended = false;
	coprocess->answered = 0;
	coprocess->deaf_ms = NEVER;
	coprocess->oldest_ms = monotonic_ms();
	return EVBUS_OK;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* All that there is, or the oldest record alone. */
static uint64_t writable_to(const struct coprocess *coprocess)
{
	if (coprocess->one_by_one && coprocess->count)
		return coprocess->given[coprocess->head].end;
	return feed_end(&coprocess->feed);
}

/* It may still answer what it has read. */
static void is_deaf(struct coprocess *coprocess)
{
	child_close(&coprocess->child.in);
	coprocess->deaf_ms = monotonic_ms();
}

static void write_records(struct coprocess *coprocess)
{
	coprocess->unwritten = 0;
	if (coprocess->child.in >= 0 && !feed_write(&coprocess->feed, coprocess->child.in, writable_to(coprocess)))
		is_deaf(coprocess);
}

enum evbus_code coprocess_start(struct coprocess *coprocess, const struct job *job)
{
	if (coprocess->count == coprocess->window)
		return fail(coprocess->call, EVBUS_BUG, "more records than there is room for");
	TRY(feed_add(&coprocess->feed, coprocess->call, job->record));
	struct given *given = &coprocess->given[(coprocess->head + coprocess->count) % coprocess->window];
	given->token = job->token;
	given->end = feed_end(&coprocess->feed);
	if (!coprocess->count++)
		coprocess->oldest_ms = monotonic_ms();
	if (++coprocess->unwritten > coprocess->window / 2 && coprocess->child.pid)
		write_records(coprocess);
	return EVBUS_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void *take_oldest(struct coprocess *coprocess)
{
	void *token = coprocess->given[coprocess->head].token;

	coprocess->head = (coprocess->head + 1) % coprocess->window;
	coprocess->count--;
	return token;
}

static bool is_answer(struct evbus_slice line, const char *word, struct evbus_slice *reason)
{
	size_t len = strlen(word);

	if (line.len < len || memcmp(line.data, word, len) != 0 || (line.len > len && line.data[len] != ' '))
		return false;
	len += line.len > len;
	*reason = (struct evbus_slice){ line.data + len, line.len - len };
	return true;
}

static enum evbus_code no_answer(struct coprocess *coprocess, struct evbus_slice line, const char *why)
{
	bool cut = line.len > QUOTE_BYTES;

	return fail(coprocess->call, EVBUS_CONFIG, "'%s': its answer %llu, '%.*s'%s, %s", coprocess->program.argv[0],
		    (unsigned long long)coprocess->answered + 1, (int)(cut ? QUOTE_BYTES : line.len), line.data,
		    cut ? "…" : "", why);
}

static enum evbus_code understand(struct coprocess *coprocess, struct evbus_slice line, struct outcome *outcome)
{
	struct evbus_slice reason = { NULL, 0 };

	*outcome = (struct outcome){ .reason = EVBUS_REASON_RETRIES };
	if (memchr(line.data, '\0', line.len))
		return no_answer(coprocess, line, "has a NUL in it");
	if (line.len == 2 && !memcmp(line.data, "ok", 2)) {
		outcome->verdict = VERDICT_DONE;
	} else if (is_answer(line, "retry", &reason)) {
		outcome->verdict = VERDICT_FAILED;
		outcome->how = "answered retry";
	} else if (is_answer(line, "dead", &reason)) {
		outcome->verdict = VERDICT_REFUSED;
		outcome->reason = EVBUS_REASON_REFUSED;
		outcome->how = "answered dead";
	} else {
		return no_answer(coprocess, line, "is none of: ok, retry REASON, dead REASON");
	}
	if (!coprocess->count)
		return no_answer(coprocess, line, "belongs to no record: one line for each");
	outcome->said = reason;
	outcome->error =
		reason.len ? reason : (struct evbus_slice){ outcome->how, outcome->how ? strlen(outcome->how) : 0 };
	return EVBUS_OK;
}

/* The next whole line that was read. */
static enum evbus_code next_answer(struct coprocess *coprocess, bool *there, struct outcome *outcome)
{
	char *at = coprocess->answers + coprocess->answer_at;
	size_t len = coprocess->answers_len - coprocess->answer_at;
	char *newline = len ? memchr(at, '\n', len) : NULL;

	*there = newline != NULL;
	if (!newline && len == sizeof coprocess->answers)
		return no_answer(coprocess, (struct evbus_slice){ at, len }, "is too long");
	if (!newline)
		return EVBUS_OK;
	TRY(understand(coprocess, (struct evbus_slice){ at, (size_t)(newline - at) }, outcome));
	outcome->token = take_oldest(coprocess);
	coprocess->answer_at += (size_t)(newline - at) + 1;
	coprocess->answered++;
	coprocess->ever_answered = true;
	coprocess->deaths = 0;
	coprocess->one_by_one -= coprocess->one_by_one > 0;
	if (coprocess->timeout_ms > 0)
		coprocess->oldest_ms = monotonic_ms();
	if (coprocess->deaf_ms != NEVER)
		coprocess->deaf_ms = monotonic_ms();
	return EVBUS_OK;
}

/* false: nothing more will come. */
static bool read_answers(struct coprocess *coprocess)
{
	size_t rest = coprocess->answers_len - coprocess->answer_at;
	ssize_t n;

	memmove(coprocess->answers, coprocess->answers + coprocess->answer_at, rest);
	coprocess->answer_at = 0;
	coprocess->answers_len = rest;
	if (rest == sizeof coprocess->answers)
		return true;
	do {
		n = read(coprocess->child.out, coprocess->answers + rest, sizeof coprocess->answers - rest);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		coprocess->answers_len += (size_t)n;
	return n > 0 || (n < 0 && errno == EAGAIN);
}

/* ---- its death ------------------------------------------------------------------------------------------------- */

static void describe_end(struct coprocess *coprocess, bool timed_out, int status, int signal_number)
{
	struct outcome *outcome = &coprocess->outcome;
	size_t size = sizeof coprocess->how;

	outcome->reason = EVBUS_REASON_RETRIES;
	snprintf(coprocess->how, size, "ended with status %d before it answered%s", status,
		 status || coprocess->ever_answered ? "" : " anything: it must answer each record with a line");
	if (coprocess->deaf_ms != NEVER && !coprocess->ended) {
		snprintf(coprocess->how, size, "closed its stdin before it answered");
	} else if (timed_out) {
		outcome->reason = EVBUS_REASON_TIMEOUT;
		snprintf(coprocess->how, size, "did not answer within %g s", (double)coprocess->timeout_ms / 1000.0);
	} else if (signal_number) {
		outcome->reason = EVBUS_REASON_SIGNAL;
		snprintf(coprocess->how, size, "died of signal %d (%s) before it answered", signal_number,
			 strsignal(signal_number));
	}
	outcome->how = coprocess->how;
	outcome->said = relay_text(&coprocess->relay);
	int n = snprintf(coprocess->error, sizeof coprocess->error, "%s%s%.*s", coprocess->how,
			 outcome->said.len ? ": " : "", (int)outcome->said.len, outcome->said.data);
	size_t len = (size_t)n < sizeof coprocess->error ? (size_t)n : sizeof coprocess->error - 1;
	outcome->error = (struct evbus_slice){ coprocess->error, len };
}

static enum verdict verdict_of(const struct coprocess *coprocess, bool timed_out, int status)
{
	if (timed_out)
		return VERDICT_FAILED;
	if (status_is_wrong_command(status))
		return VERDICT_WRONG_COMMAND;
	if (stopped() || coprocess->stop.at_ms != NEVER)
		return VERDICT_STOPPED;
	return status || coprocess->ever_answered || !coprocess->ended ? VERDICT_FAILED : VERDICT_WRONG_COMMAND;
}

/* Ends what is left of it. The oldest record has the verdict, those behind it come again. */
static void bury(struct coprocess *coprocess, bool timed_out)
{
	struct call *call = coprocess->call;
	const char *name = coprocess->program.argv[0];
	int signal_number, status;

	if (coprocess->child.err >= 0)
		relay_read(&coprocess->relay, call, coprocess->child.err);
	relay_end(&coprocess->relay, call);
	if (child_end(&coprocess->child, coprocess->ended ? LINGER_MS : 0, &status, &signal_number) == ENDED_BY_SIGKILL)
		talk(call, WARNING, "'%s' did not end within %d s of SIGTERM, and was killed", name, KILL_MS / 1000);
	if (!coprocess->count)
		talk(call, NOTICE, "'%s' ended with status %d, and is started again when it is needed", name, status);
	coprocess->outcome = (struct outcome){ .status = status, .verdict = verdict_of(coprocess, timed_out, status) };
	describe_end(coprocess, timed_out, status, signal_number);
	coprocess->gone = coprocess->count;
	coprocess->one_by_one = coprocess->count ? coprocess->window : coprocess->one_by_one;
	coprocess->deaths++;
	coprocess->start_at_ms = monotonic_ms() + evbus_retry_delay_ms(&coprocess->retry, coprocess->deaths);
	feed_drop(&coprocess->feed);
	coprocess->answer_at = coprocess->answers_len = 0;
}

static void hand_back(struct coprocess *coprocess, struct outcome *outcome)
{
	*outcome = coprocess->outcome;
	outcome->token = take_oldest(coprocess);
	coprocess->outcome.verdict = VERDICT_STOPPED;
	coprocess->gone--;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

/* When the oldest record has been waited for long enough. */
static int64_t late_at(const struct coprocess *coprocess)
{
	int64_t late = NEVER;

	if (coprocess->timeout_ms > 0 && coprocess->timeout_ms < NEVER - coprocess->oldest_ms)
		late = coprocess->oldest_ms + coprocess->timeout_ms;
	if (coprocess->stop.at_once)
		return 0;
	if (coprocess->deaf_ms != NEVER && coprocess->deaf_ms + KILL_MS < late)
		late = coprocess->deaf_ms + KILL_MS;
	if (coprocess->stop.at_ms != NEVER && coprocess->stop.at_ms + STOP_MS < late)
		return coprocess->stop.at_ms + STOP_MS;
	return late;
}

/* Hears and writes until something was heard, or until then. */
static void serve(struct coprocess *coprocess, int64_t until)
{
	struct child *child = &coprocess->child;
	bool more = writable_to(coprocess) > coprocess->feed.written;
	struct pollfd fds[] = {
		{ .fd = child->out, .events = POLLIN },
		{ .fd = child->err, .events = POLLIN },
		{ .fd = child->in, .events = more ? POLLOUT : 0 },
		{ .fd = child->pidfd, .events = POLLIN },
		{ .fd = stop_fd(), .events = POLLIN },
	};

	if (poll(fds, COUNT(fds), timeout_to(until)) <= 0)
		return;
	if (fds[4].revents)
		stop_look(&coprocess->stop);
	if (fds[1].revents && !relay_read(&coprocess->relay, coprocess->call, child->err))
		child_close(&child->err);
	if (fds[2].revents & POLLERR)
		is_deaf(coprocess);
	else if (fds[2].revents)
		write_records(coprocess);
	/* Once it has ended all that it wrote is there, and is read before anything is made of its end; poll() may have
	 * looked at the one before the other. */
	if (fds[0].revents)
		coprocess->ended = !read_answers(coprocess);
	else if (fds[3].revents)
		coprocess->ended = !child_has_written(child);
}

/* Not before the retry policy allows it. While it does not run there is only a signal to be waited for. */
static enum evbus_code start_again(struct coprocess *coprocess, int64_t until)
{
	int64_t at = coprocess->start_at_ms;

	if (monotonic_ms() >= at)
		return start(coprocess);
	struct pollfd fd = { .fd = stop_fd(), .events = POLLIN };
	if (poll(&fd, 1, timeout_to(at < until ? at : until)) > 0)
		stop_look(&coprocess->stop);
	if (coprocess->stop.at_ms != NEVER) {
		coprocess->outcome = (struct outcome){ .verdict = VERDICT_STOPPED };
		coprocess->gone = coprocess->count;
		feed_drop(&coprocess->feed);
	}
	return EVBUS_OK;
}

/* The usual mistake is a buffer, and would not be seen at all. */
static void tell_silence(struct coprocess *coprocess)
{
	if (coprocess->answered || coprocess->silence_told || monotonic_ms() - coprocess->oldest_ms < SILENCE_MS)
		return;
	coprocess->silence_told = true;
	talk(coprocess->call, WARNING,
	     "'%s' has not answered yet: it must read what is there without waiting for more, and write each answer at "
	     "once (mawk -W interactive and fflush(), sed -u, python3 -u, stdbuf -oL)",
	     coprocess->program.argv[0]);
}

static enum evbus_code wait_for_answer(struct coprocess *coprocess, int64_t until)
{
	if (!coprocess->child.pid)
		return start_again(coprocess, until);
	tell_silence(coprocess);
	write_records(coprocess);
	int64_t late = late_at(coprocess);
	serve(coprocess, late < until ? late : until);
	return EVBUS_OK;
}

enum evbus_code coprocess_wait(struct coprocess *coprocess, int timeout_ms, bool *ended, struct outcome *outcome)
{
	int64_t until = NEVER;

	for (;;) {
		*ended = coprocess->gone > 0;
		if (coprocess->gone) {
			hand_back(coprocess, outcome);
			return EVBUS_OK;
		}
		TRY(next_answer(coprocess, ended, outcome));
		if (*ended)
			return EVBUS_OK;
		if (coprocess->child.pid && coprocess->ended) {
			bury(coprocess, false);
			continue;
		}
		if (until == NEVER && timeout_ms >= 0)
			until = monotonic_ms() + timeout_ms;
		else if (monotonic_ms() >= until)
			return EVBUS_OK;
		if (!coprocess->count && coprocess->child.pid)
			serve(coprocess, 0);
		if (!coprocess->count)
			return EVBUS_OK;
		if (coprocess->child.pid && monotonic_ms() >= late_at(coprocess)) {
			bury(coprocess, coprocess->stop.at_ms == NEVER && coprocess->deaf_ms == NEVER);
			continue;
		}
		TRY(wait_for_answer(coprocess, until));
	}
}

/* ---- its end --------------------------------------------------------------------------------------------------- */

static enum evbus_code ended_badly(struct coprocess *coprocess, int status, bool by_itself)
{
	const char *name = coprocess->program.argv[0];

	if (!by_itself)
		return fail(coprocess->call, EVBUS_NO, "'%s' did not end when its input did, and was ended", name);
	return fail(coprocess->call, status_is_wrong_command(status) ? EVBUS_CONFIG : EVBUS_NO,
		    "'%s' answered all, and then ended with status %d", name, status);
}

enum evbus_code coprocess_end(struct coprocess *coprocess)
{
	struct outcome outcome;
	int status, signal_number;
	bool there;

	if (!coprocess->child.pid)
		return EVBUS_OK;
	stop_now(&coprocess->stop);
	int64_t until = coprocess->stop.at_ms + STOP_MS;
	child_close(&coprocess->child.in);
	while (!coprocess->ended && monotonic_ms() < until && !coprocess->stop.at_once) {
		serve(coprocess, until);
		TRY(next_answer(coprocess, &there, &outcome));
	}
	relay_end(&coprocess->relay, coprocess->call);
	int64_t left = coprocess->ended ? until - monotonic_ms() : 0;
	enum child_ended how = child_end(&coprocess->child, left > 0 ? left : 0, &status, &signal_number);
	return status || how != ENDED_BY_ITSELF ? ended_badly(coprocess, status, how == ENDED_BY_ITSELF) : EVBUS_OK;
}

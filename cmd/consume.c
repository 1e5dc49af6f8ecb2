/* consume.c: evbus consume
 *
 * The library says which event may be handled now, and keeps what came of it; here handlers are run, or one coprocess is
 * spoken to, which look the same from here: what is started ends at some time, with a verdict.
 *
 * Whatever ends it (a signal, --timeout, a failure), what runs is let finish or ended, what came of it is saved, and
 * only then is it told. */
#include "coprocess.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 1000                 /* so late may be noticed a signal that comes just before we wait */
#define LOOK_BUSY_MS 10              /* while handlers run, and there is room for one more: a new event waits so long */
#define WINDOW_MAX 1024
#define COUNT_BYTES 64u
#define PLACE_BYTES (EVBUS_TOPIC_MAX_BYTES + 64u)

struct args {
	struct common common;
	const char *topic;
	const char *group;
	int64_t partition;
	struct position offset;
	const char *type, *tenant, *correlation_id, *event_key;
	struct list where;
	bool follow;
	int64_t max;
	struct duration timeout;
	int64_t concurrency;
	struct duration handler_timeout;
	struct retry_args retry;
	int64_t commit_every;
	struct duration commit_interval;
	bool inbox;
	bool no_wait;
	const char *on_dead;
	bool coprocess;
	int64_t window;
};

COMMAND(consume,
	.summary = "run a command for each event of a group",
	.takes = "-- COMMAND [ARG...]",
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "which topic, or a pattern: * for one token, > for the rest", .required = true),
		OPT('g', group, "GROUP", "who consumes: begin at this group's checkpoint, and move it", .required = true),
		OPT('p', partition, "N", "only this partition", .unset = EVBUS_PARTITION_ALL,
		    .max = EVBUS_PARTITIONS_MAX - 1),
		OPT('o', offset, "POSITION", "where the group has no checkpoint, begin here (default: beginning)",
		    .alias = "from-offset"),
		OPT(0, type, "PATTERN", "only events of this type; others are passed over"),
		OPT(0, tenant, "ID", "only events of this tenant"),
		OPT(0, correlation_id, "ID", "only events with this correlation id"),
		OPT(0, event_key, "KEY", "only events with this event key"),
		OPT(0, where, "/POINTER=VALUE", "only where this member has this value; may be repeated"),
		OPT('f', follow, "", "go on as events come, and as topics appear"),
		OPT(0, max, "N", "stop after so many are done or dead", .unset = -1),
		OPT(0, timeout, "DURATION", "stop after this time, with exit status 75", .unset = -1),
		OPT(0, concurrency, "N", "run so many at once: partitions, and keys within one, side by side",
		    .preset = "1", .min = 1, .max = HANDLERS_MAX),
		OPT(0, handler_timeout, "DURATION", "end a command that takes longer; that attempt has failed",
		    .unset = -1),
		RETRY_OPTS,
		OPT(0, on_dead, "pass|stop", "what comes after a dead letter: the next event, or the end",
		    .words = "pass|stop", .preset = "pass"),
		OPT(0, inbox, "", "do not run what is recorded as done for the group, by event id"),
		OPT(0, commit_every, "N", "save after so many outcomes (default: 1, with --coprocess 4000)", .min = 1,
		    .unset = 0),
		OPT(0, commit_interval, "DURATION", "and after this time", .preset = "1s"),
		OPT(0, no_wait, "", "where another process of the group has all there is, end with 75"),
		OPT(0, coprocess, "", "start the command once: a record a line in, ok, retry or dead a line out"),
		OPT(0, window, "N", "let the coprocess have so many records unanswered (default: 64); beyond 1 those "
				 "without a key may overtake each other",
		    .min = 1, .max = WINDOW_MAX, .unset = 0),
		OPT('q', common.quiet, "", "say nothing on stderr but warnings and errors; nor what the command says"),
		BUS_OPTS,
		OPT(0, common.log, "text|json", "how to talk on stderr", .words = "text|json", .preset = "text",
		    .env = true),
		OPT('v', common.verbose, "", "say more on stderr"),
		OPT('h', common.help, "", "print this help")),
	.statuses = STATUSES(
		{ EVBUS_NO, "dead letters were made, or queued ones failed again; or the coprocess answered all and "
			    "then failed" },
		{ EVBUS_AGAIN, "the time of --timeout is over, the store is busy, or with --no-wait: another process of "
			       "the group has all partitions" },
		{ EVBUS_CONFLICT, "the log is not the one that the checkpoint was made on, or was cut or replaced while "
				  "it was read" },
		{ EVBUS_CONFIG, "the command cannot be run, ended with 64, 78, 126 or 127, or answered what is no "
				"answer, or nothing at all; or a bad configuration, variable or URL, or an unfit file "
				"system" }),
	.examples = EXAMPLES(
		{ "printf '{\"id\":\"1\"}\\n{\"id\":\"2\"}\\n{\"id\":\"3\"}\\n' | evbus publish -q -t orders", "" },
		{ "evbus consume -q -t orders -g billing --max 2 -- cat", "{\"id\":\"1\"}\n{\"id\":\"2\"}" },
		{ "evbus consume -q -t orders -g billing -- sh -c 'echo \"$EVENT_OFFSET for $EVENT_GROUP\"'",
		  "2 for billing" },
		{ "evbus consume -q -t orders -g mail --inbox --coprocess -- sed -u 's/.*/ok/'", "" },
		{ "evbus checkpoint-get -g mail -t orders --format tsv | cut -f 4", "3" }));

struct consume {
	struct call *call;
	const struct args *args;
	struct evbus_consumer *consumer;
	struct handler *handler;     /* one of these two */
	struct coprocess *coprocess;
	int64_t deadline_ms;         /* INT64_MAX: none */
	int64_t settled;             /* done or dead, by us */
	int64_t retried;             /* attempts after which there is another one */
};

static void close_consumer(struct evbus_consumer **consumer)
{
	evbus_consumer_close(*consumer);
}

/* ---- handlers, or a coprocess ---------------------------------------------------------------------------------- */

static size_t running(const struct consume *consume)
{
	return consume->coprocess ? coprocess_running(consume->coprocess) : handler_running(consume->handler);
}

static size_t room(const struct consume *consume)
{
	size_t most = (size_t)(consume->coprocess ? consume->args->window : consume->args->concurrency);

	return most - running(consume);
}

static enum evbus_code start(struct consume *consume, struct evbus_delivery *delivery)
{
	const struct job job = { .record = delivery->record, .attempt = delivery->attempt, .token = delivery };

	return consume->coprocess ? coprocess_start(consume->coprocess, &job) : handler_start(consume->handler, &job);
}

static enum evbus_code wait_for(struct consume *consume, int timeout_ms, bool *ended, struct outcome *outcome)
{
	return consume->coprocess ? coprocess_wait(consume->coprocess, timeout_ms, ended, outcome)
				  : handler_wait(consume->handler, timeout_ms, ended, outcome);
}

static void stop_running(struct consume *consume)
{
	if (consume->coprocess)
		coprocess_stop(consume->coprocess);
	else
		handler_stop(consume->handler);
}

/* ---- what came of an event ------------------------------------------------------------------------------------- */

static void place_of(const struct evbus_record *record, char place[PLACE_BYTES])
{
	snprintf(place, PLACE_BYTES, "record %.*s/%d/%.*s", (int)record->topic.len, record->topic.data,
		 record->partition_id, (int)record->offset.len, record->offset.data);
}

static void say_failed(struct consume *consume, const char *place, const char *text, uint32_t attempt, bool dead)
{
	if (dead)
		talk(consume->call, WARNING, "%s is a dead letter: %s", place, text);
	else
		talk(consume->call, NOTICE, "%s: %s; that was attempt %u, and it is tried again", place, text, attempt);
}

static enum evbus_code failed(struct consume *consume, const struct outcome *outcome)
{
	struct evbus_delivery *delivery = outcome->token;
	struct evbus_consumer *consumer = consume->consumer;
	struct evbus_err *err = &consume->call->err;
	char place[PLACE_BYTES], text[OUTCOME_TEXT_BYTES];
	uint32_t attempt = delivery->attempt;
	bool dead = true;

	about_record(consume->call, delivery->record);
	place_of(delivery->record, place);
	outcome_describe(consume->call->argv[0], outcome, text);
	if (outcome->verdict == VERDICT_REFUSED)
		TRY(evbus_consumer_refused(consumer, delivery, outcome->reason, outcome->error, err));
	else
		TRY(evbus_consumer_failed(consumer, delivery, outcome->reason, outcome->error, &dead, err));
	consume->settled += dead;
	consume->retried += !dead;
	say_failed(consume, place, text, attempt, dead);
	about_topic(consume->call, consume->args->topic, (int32_t)consume->args->partition);
	return EVBUS_OK;
}

/* It says nothing about the event, which is not tried. */
static enum evbus_code stop_for(struct consume *consume, const struct outcome *outcome)
{
	struct evbus_delivery *delivery = outcome->token;
	char place[PLACE_BYTES];

	about_record(consume->call, delivery->record);
	place_of(delivery->record, place);
	evbus_consumer_give_back(consume->consumer, delivery);
	outcome_fail(consume->call, outcome);
	return fail_within(consume->call, "%s", place);
}

static enum evbus_code settle(struct consume *consume, const struct outcome *outcome)
{
	switch (outcome->verdict) {
	case VERDICT_DONE:
		consume->settled++;
		return evbus_consumer_done(consume->consumer, outcome->token, &consume->call->err);
	case VERDICT_STOPPED:
		evbus_consumer_give_back(consume->consumer, outcome->token);
		return EVBUS_OK;
	case VERDICT_FAILED:
	case VERDICT_REFUSED:
		break;
	case VERDICT_WRONG_COMMAND:
	case VERDICT_NO_READER:
		return stop_for(consume, outcome);
	}
	return failed(consume, outcome);
}

/* ---- from the first to the last -------------------------------------------------------------------------------- */

static bool is_late(const struct consume *consume)
{
	return consume->deadline_ms != INT64_MAX && monotonic_ms() >= consume->deadline_ms;
}

/* Whether no further event is to be begun, for now or for good. */
static bool has_enough(const struct consume *consume)
{
	int64_t max = consume->args->max;

	return max >= 0 && consume->settled + (int64_t)running(consume) >= max;
}

static int patience(const struct consume *consume, int most_ms)
{
	int64_t left = consume->deadline_ms == INT64_MAX ? most_ms : consume->deadline_ms - monotonic_ms();

	left = left < 0 ? 0 : left;
	return left < most_ms ? (int)left : most_ms;
}

/* Begins what may be begun; where nothing runs, it waits for that. */
static enum evbus_code begin(struct consume *consume)
{
	struct evbus_err *err = &consume->call->err;
	struct evbus_delivery *delivery;

	while (room(consume) && !has_enough(consume) && !stopped()) {
		int timeout_ms = running(consume) ? 0 : patience(consume, LOOK_MS);

		TRY(evbus_consumer_next(consume->consumer, timeout_ms, &delivery, err));
		if (!delivery)
			return EVBUS_OK;
		enum evbus_code code = start(consume, delivery);
		if (code) {
			evbus_consumer_give_back(consume->consumer, delivery);
			return code;
		}
	}
	return EVBUS_OK;
}

/* Takes what has ended, and waits for it where nothing has. */
static enum evbus_code collect(struct consume *consume, int timeout_ms)
{
	struct outcome outcome;
	bool ended;

	TRY(wait_for(consume, timeout_ms, &ended, &outcome));
	if (ended)
		return settle(consume, &outcome);
	/* Nothing is begun, so nothing is saved along the way. */
	return timeout_ms >= LOOK_MS ? evbus_consumer_commit(consume->consumer, &consume->call->err) : EVBUS_OK;
}

static bool is_finished(const struct consume *consume)
{
	return !running(consume) && (has_enough(consume) || evbus_consumer_finished(consume->consumer));
}

static enum evbus_code consume_all(struct consume *consume)
{
	while (!stopped() && !is_finished(consume)) {
		if (is_late(consume))
			return fail(consume->call, EVBUS_AGAIN, "the time of --timeout is over");
		TRY(begin(consume));
		bool more = room(consume) && !has_enough(consume);
		TRY(collect(consume, patience(consume, more ? LOOK_BUSY_MS : LOOK_MS)));
	}
	return EVBUS_OK;
}

/* What still runs has its time, what came of all is saved, whatever happened before. */
static enum evbus_code finish(struct consume *consume, enum evbus_code code)
{
	struct call *call = consume->call;
	struct evbus_err first = call->err;
	enum evbus_code last = EVBUS_OK;

	stop_running(consume);
	for (size_t left; (left = running(consume)) > 0;) {
		enum evbus_code one = collect(consume, LOOK_MS);

		if (one && !code) {
			code = one;
			first = call->err;
		}
		/* Another one that failed is no reason to forget those that succeed; one that cannot be waited for is. */
		if (one && running(consume) == left)
			break;
	}
	if (code != EVBUS_CONFLICT) {
		enum evbus_code saved = evbus_consumer_commit(consume->consumer, &call->err);

		last = last ? last : saved;
	}
	if (!last && consume->coprocess)
		last = coprocess_end(consume->coprocess);
	if (code)
		call->err = first;
	return code ? code : last;
}

static void count_letters(uint64_t count, const char *what, char text[COUNT_BYTES])
{
	text[0] = '\0';
	if (count)
		snprintf(text, COUNT_BYTES, ", %llu letter%s %s", (unsigned long long)count, count == 1 ? "" : "s",
			 what);
}

static enum evbus_code sum_up(struct consume *consume, enum evbus_code code)
{
	struct evbus_consumer_counts counts = evbus_consumer_counts(consume->consumer);
	struct call *call = consume->call;
	char known[COUNT_BYTES] = "", done[COUNT_BYTES], failed[COUNT_BYTES], made[COUNT_BYTES] = "";

	call->about = (struct about){ .partition_id = -1 };
	if (consume->args->inbox)
		snprintf(known, sizeof known, ", %llu done before", (unsigned long long)counts.known);
	count_letters(counts.letters_done, "done", done);
	count_letters(counts.letters_failed, "failed", failed);
	talk(call, NOTICE, "%llu done, %lld retried, %llu dead, %llu passed over%s%s%s",
	     (unsigned long long)counts.done, (long long)consume->retried, (unsigned long long)counts.dead,
	     (unsigned long long)counts.passed_over, known, done, failed);
	if (code || (!counts.dead && !counts.letters_failed))
		return code;
	if (counts.dead)
		snprintf(made, sizeof made, "%llu dead letter%s made", (unsigned long long)counts.dead,
			 counts.dead == 1 ? " was" : "s were");
	return fail(call, EVBUS_NO, "%s%s: see 'evbus dlq-list -g %s'", made,
		    counts.dead ? failed : failed + strlen(", "), consume->args->group);
}

/* ---- options --------------------------------------------------------------------------------------------------- */

static enum evbus_code check_options(struct call *call, struct args *args)
{
	if (args->coprocess && args->concurrency > 1)
		return fail(call, EVBUS_USAGE, "--concurrency is for a command that is started for each event; of a "
					       "coprocess say --window");
	if (!args->coprocess && args->window)
		return fail(call, EVBUS_USAGE, "--window is for a command that is started once: say --coprocess too");
	if (args->offset.text && !strcmp(args->offset.text, "stored"))
		return fail(call, EVBUS_USAGE, "--offset stored: it is for partitions where nothing is stored");
	args->window = args->window ? args->window : 64;
	args->commit_every = args->commit_every ? args->commit_every : args->coprocess ? 4000 : 1;
	return EVBUS_OK;
}

static struct evbus_consumer_options consumer_options(const struct args *args)
{
	return (struct evbus_consumer_options){
		.group = args->group,
		.topic = args->topic,
		.partition_id = (int32_t)args->partition,
		.from = args->offset.text,
		.follow = args->follow,
		.no_wait = args->no_wait,
		.inbox = args->inbox,
		.stop_on_dead = !strcmp(args->on_dead, "stop"),
		.filter = {
			.type = args->type,
			.tenant = args->tenant,
			.correlation_id = args->correlation_id,
			.event_key = args->event_key,
			.where = args->where.items,
			.where_count = args->where.count,
		},
		.retry = retry_policy(&args->retry),
		.concurrency = (uint32_t)(args->coprocess ? args->window : args->concurrency),
		.commit_every = (uint32_t)args->commit_every,
		.commit_interval_ms = args->commit_interval.ms,
	};
}

static enum evbus_code open_command(struct call *call, const struct args *args, struct handler **handler,
				    struct coprocess **coprocess)
{
	const struct handler_options running = { .argv = call->argv, .group = args->group,
						 .timeout_ms = args->handler_timeout.ms,
						 .concurrency = (uint32_t)args->concurrency };
	const struct coprocess_options kept = { .argv = call->argv, .group = args->group,
						.timeout_ms = args->handler_timeout.ms,
						.window = (uint32_t)args->window, .retry = retry_policy(&args->retry) };

	return args->coprocess ? coprocess_open(call, &kept, coprocess) : handler_open(call, &running, handler);
}

static enum evbus_code consume_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(close_consumer) struct evbus_consumer *consumer = NULL;
	CLEANUP(handler_cleanup) struct handler *handler = NULL;
	CLEANUP(coprocess_cleanup) struct coprocess *coprocess = NULL;
	struct consume consume = { .call = call, .args = args, .deadline_ms = INT64_MAX };

	TRY(check_options(call, args));
	TRY(open_command(call, args, &handler, &coprocess));
	about_topic(call, args->topic, (int32_t)args->partition);
	if (args->timeout.ms >= 0 && args->timeout.ms < INT64_MAX - monotonic_ms())
		consume.deadline_ms = monotonic_ms() + args->timeout.ms;
	const struct evbus_consumer_options options = consumer_options(args);
	TRY(bus_open(call, NULL, &bus));
	TRY(evbus_consumer_open(bus, &options, &consumer, &call->err));
	consume.consumer = consumer;
	consume.handler = handler;
	consume.coprocess = coprocess;
	return sum_up(&consume, finish(&consume, consume_all(&consume)));
}

/* replay.c: evbus replay
 *
 * Records go to stdout, or are published again: to a topic, or to another bus, where each keeps its topic and its
 * partition. Then there is a place where reading fails and one where publishing does, and messages say which. Or a
 * command is run for each. */
#include "out.h"
#include "handler.h"
#include "pace.h"
#include "target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_NS 20000000ll                 /* paced records are published at least so often */
#define PROGRESS_RECORDS 256

struct args {
	struct common common;
	struct reading reading;
	const char *to_topic;
	const char *to_bus;
	int64_t to_partition;
	const char *key;
	const char *key_from;
	struct rate rate;
	int64_t max;
	bool count;
	bool dry_run;
	struct duration handler_timeout;
	const char *on_error;
	struct record_format format;
};

COMMAND(replay,
	.summary = "deliver a range of records again: to stdout, a topic, another bus or a command",
	.takes = "[-- COMMAND [ARG...]]",
	.opts = OPTS(READING_OPTS,
		OPT(0, to_topic, "TOPIC", "publish to this topic, and print receipts"),
		OPT(0, to_bus, "URL", "publish to this bus, and print receipts"),
		OPT(0, to_partition, "N", "publish to this partition", .unset = EVBUS_PARTITION_ANY,
		    .max = EVBUS_PARTITIONS_MAX - 1),
		OPT('k', key, "KEY", "publish with this key instead of the record's own"),
		OPT(0, key_from, "POINTERS", "publish with the key that stands here: /merchant_id,/event_id; the first "
					     "that is there"),
		OPT(0, rate, "RATE", "at most so many a second, evenly: 100, 100/s, 30/m, 1000/h"),
		OPT(0, max, "N", "stop after so many", .unset = -1),
		OPT(0, count, "", "print only how many there are"),
		OPT(0, dry_run, "", "publish nothing, run nothing, print how many there are"),
		OPT(0, handler_timeout, "DURATION", "kill the command after this time; the event has failed then",
		    .unset = -1),
		OPT(0, on_error, "stop|skip", "what the first event does that fails, or is refused: end the replay, "
					      "or only its status, 1 (default: stop)",
		    .words = "stop|skip"),
		RECORD_FORMAT_OPT,
		OPT('q', common.quiet, "", "print no receipts, and on stderr only warnings and errors"),
		BUS_OPTS,
		OPT(0, common.log, "text|json", "how to talk on stderr", .words = "text|json", .preset = "text",
		    .env = true),
		OPT('v', common.verbose, "", "say more on stderr"),
		OPT('h', common.help, "", "print this help")),
	.statuses = STATUSES(
		{ EVBUS_NO, "the command failed for an event, or one was refused and skipped" },
		{ EVBUS_CONFIG, "the command cannot be run, or ended with 64, 78, 126 or 127; or a bad configuration, "
				"variable or URL, or an unfit file system" },
		{ EVBUS_CONFLICT, "the log is not the one that the checkpoint was made on, or the topic on the other "
				  "bus has other partitions" }),
	.examples = EXAMPLES(
		{ "printf '{\"id\":\"1\"}\\n{\"id\":\"2\"}\\n{\"id\":\"3\"}\\n' | evbus publish -q -t orders", "" },
		{ "evbus replay -t orders --format payload", "{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}" },
		{ "evbus replay -t orders -o 1 --to-offset 2 --rate 100 --format payload", "{\"id\":\"2\"}" },
		{ "evbus replay -t orders --where /id=3 --to-topic orders.again",
		  "{\"topic\":\"orders.again\",\"partition_id\":0,\"offset_kind\":\"file_line\",\"offset\":\"0\","
		  "\"published_at_utc\":\"…\"}" },
		{ "evbus replay -t '>' --to-bus file:copy --dry-run", "4" },
		{ "evbus replay -t orders -o 1 -- sh -c 'echo \"$EVENT_OFFSET $(cat)\"'",
		  "1 {\"id\":\"2\"}\n2 {\"id\":\"3\"}" }));

struct replay {
	struct call *call;
	const struct args *args;
	struct evbus_reader *reader;
	struct target target;
	struct handler *handler;           /* NULL: there is no command */
	int64_t given, failed;
	struct pace pace;
	int64_t flushed_ns;
};

static void close_reader(struct evbus_reader **reader)
{
	evbus_reader_close(*reader);
}

static enum evbus_code within_record(struct replay *replay, const struct evbus_record *record)
{
	return fail_within(replay->call, "record %.*s/%d/%.*s", (int)record->topic.len, record->topic.data,
			   record->partition_id, (int)record->offset.len, record->offset.data);
}

static bool skips(const struct args *args)
{
	return args->on_error && !strcmp(args->on_error, "skip");
}

/* Whether the replay goes on after an event for which something failed: it is told then. */
static bool is_skipped(struct replay *replay)
{
	if (!skips(replay->args))
		return false;
	replay->failed++;
	talk(replay->call, WARNING, "%s", replay->call->err.text);
	return true;
}

/* ---- pacing ---------------------------------------------------------------------------------------------------- */

static enum evbus_code flush_before(struct replay *replay, int64_t now, int64_t due)
{
	if (!replay->target.publisher)
		return out_flush(replay->call);
	/* A sync for each of a thousand records a second would be the slower of the two. */
	if (due - now < FLUSH_NS && now - replay->flushed_ns < FLUSH_NS)
		return EVBUS_OK;
	replay->flushed_ns = now;
	return target_flush(&replay->target);
}

static enum evbus_code pace(struct replay *replay)
{
	int64_t due = pace_next(&replay->pace);

	if (!due)
		return EVBUS_OK;
	TRY(flush_before(replay, monotonic_ns(), due));
	pace_wait(due);
	return EVBUS_OK;
}

/* ---- a command ------------------------------------------------------------------------------------------------- */

static enum evbus_code failed(struct replay *replay, const struct evbus_record *record, const struct outcome *outcome)
{
	struct call *call = replay->call;
	char text[OUTCOME_TEXT_BYTES];
	enum evbus_code code = EVBUS_NO;

	about_record(call, record);
	outcome_describe(call->argv[0], outcome, text);
	if (outcome->verdict == VERDICT_WRONG_COMMAND || outcome->verdict == VERDICT_NO_READER)
		code = outcome_fail(call, outcome);
	else
		fail(call, code, "%s", text);
	within_record(replay, record);
	return code == EVBUS_NO && is_skipped(replay) ? EVBUS_OK : code;
}

/* No command sees what is no JSON object, here as when it is consumed. */
static enum evbus_code not_json(struct replay *replay, const struct evbus_record *record)
{
	about_record(replay->call, record);
	fail(replay->call, EVBUS_NO, "the payload is not one JSON object");
	within_record(replay, record);
	return is_skipped(replay) ? EVBUS_OK : EVBUS_NO;
}

static enum evbus_code run_command(struct replay *replay, const struct evbus_record *record)
{
	const struct job job = { .record = record, .attempt = 1 };
	struct outcome outcome;

	if (!record->payload.data)
		return not_json(replay, record);
	TRY(handler_run(replay->handler, &job, &outcome));
	if (outcome.verdict == VERDICT_DONE || outcome.verdict == VERDICT_STOPPED)
		return EVBUS_OK;
	return failed(replay, record, &outcome);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void show_progress(const struct replay *replay)
{
	struct evbus_progress progress = evbus_reader_progress(replay->reader);

	progress_show(replay->call, &progress);
}

/* Asked every few MiB: what is there to be seen need not wait until more matches. */
static bool go_on(void *context)
{
	const struct replay *replay = context;

	show_progress(replay);
	return !stopped() && !out_flush(replay->call);
}

static enum evbus_code deliver(struct replay *replay, const struct evbus_record *record)
{
	const struct args *args = replay->args;

	if (args->count || args->dry_run)
		return EVBUS_OK;
	TRY(pace(replay));
	if (stopped())
		return EVBUS_OK;
	if (replay->handler)
		return run_command(replay, record);
	if (!replay->target.publisher)
		return out_record(replay->call, record);
	enum evbus_code code = target_publish(&replay->target, record);
	return code && replay->target.refused && is_skipped(replay) ? EVBUS_OK : code;
}

static enum evbus_code read_failed(struct replay *replay, enum evbus_code code)
{
	if (code == EVBUS_AGAIN)
		TRY(out_flush(replay->call)); /* if that was why it did not go on */
	if (!replay->target.publisher)
		return code;
	char masked[MASKED_MAX_BYTES];
	mask_secrets(replay->args->common.bus, masked);
	replay->call->err.code = code;
	return fail_within(replay->call, "reading from '%s'", masked);
}

static enum evbus_code deliver_all(struct replay *replay)
{
	int64_t max = replay->args->max;
	const struct evbus_record *record;

	while (!stopped() && (max < 0 || replay->given < max)) {
		enum evbus_code code = evbus_reader_next(replay->reader, 0, &record, &replay->call->err);

		if (code)
			return read_failed(replay, code);
		if (!record)
			return EVBUS_OK;
		TRY(deliver(replay, record));
		replay->given++;
		if (replay->args->rate.per_second > 0 || replay->handler || replay->given % PROGRESS_RECORDS == 0)
			show_progress(replay);
	}
	return EVBUS_OK;
}

/* What was given to the publisher before a failure is on its way: it is waited for, and gets its receipts. */
static enum evbus_code finish(struct replay *replay, enum evbus_code code)
{
	struct evbus_err first = replay->call->err;

	if (replay->target.publisher) {
		enum evbus_code last = target_flush(&replay->target);

		/* A failure to do that outweighs what came before, which often is the same one. */
		if (last && code && !out_is_closed() && strcmp(first.text, replay->call->err.text) != 0)
			talk(replay->call, WARNING, "%s", first.text);
		if (last)
			return last;
		replay->call->err = first;
	}
	if (!code && (replay->args->count || replay->args->dry_run))
		out_printf("%lld\n", (long long)replay->given);
	if (!code && replay->failed)
		return fail(replay->call, EVBUS_NO, "%s %lld of %lld events",
			    replay->handler ? "the command failed for" : "the other side refused",
			    (long long)replay->failed, (long long)replay->given);
	return code;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static enum evbus_code check_command(struct call *call, const struct args *args)
{
	if (!call->argv && args->handler_timeout.ms >= 0)
		return fail(call, EVBUS_USAGE, "--handler-timeout is for a command: say which one behind '--'");
	if (!call->argv && !args->to_topic && !args->to_bus && args->on_error)
		return fail(call, EVBUS_USAGE,
			    "--on-error is for a command or for publishing: say which one behind '--', or where with "
			    "--to-topic or --to-bus");
	if (call->argv && (args->to_topic || args->to_bus))
		return fail(call, EVBUS_USAGE,
			    "--%s and a command exclude each other: both say where the events go",
			    args->to_topic ? "to-topic" : "to-bus");
	if (call->argv && args->count)
		return fail(call, EVBUS_USAGE, "--count runs no command: to count and run nothing say --dry-run");
	return EVBUS_OK;
}

static const char *target_url(const struct args *args)
{
	return args->to_bus ? args->to_bus : args->common.bus;
}

static enum evbus_code check_options(struct call *call, const struct args *args)
{
	bool target = args->to_topic || args->to_bus;

	if (!target && (args->key || args->key_from || args->to_partition != EVBUS_PARTITION_ANY))
		return fail(call, EVBUS_USAGE,
			    "--key, --key-from and --to-partition are for publishing: say where with --to-topic or "
			    "--to-bus");
	if (args->key && args->key_from)
		return fail(call, EVBUS_USAGE,
			    "--key and --key-from exclude each other: both say which key an event has");
	if (args->to_partition != EVBUS_PARTITION_ANY && (args->key || args->key_from))
		return fail(call, EVBUS_USAGE, "--to-partition and --%s exclude each other: both choose the partition",
			    args->key ? "key" : "key-from");
	if (target && args->count)
		return fail(call, EVBUS_USAGE,
			    "--count prints no receipts: to count and publish nothing say --dry-run");
	if (args->to_partition > 0)
		TRY(refuse_of_target(call, target_url(args), "to-partition", "it has no partitions"));
	TRY(check_command(call, args));
	return args->to_topic ? evbus_topic_check(args->to_topic, false, &call->err) : EVBUS_OK;
}

static enum evbus_code open_target(struct replay *replay, struct evbus *source)
{
	const struct args *args = replay->args;

	if (args->dry_run || (!args->to_topic && !args->to_bus))
		return EVBUS_OK;
	replay->target = (struct target){ .call = replay->call,
					  .url = target_url(args),
					  .topic = args->to_topic,
					  .partition = (int32_t)args->to_partition,
					  .key = args->key,
					  .key_from = args->key_from,
					  .quiet = args->common.quiet,
					  .skips = skips(args) };
	return target_open(&replay->target, source, args->common.bus, args->reading.topic);
}

static enum evbus_code replay_run(struct args *args, struct call *call)
{
	struct evbus_selection selection = reading_selection(&args->reading);
	const struct handler_options running = { .argv = call->argv, .timeout_ms = args->handler_timeout.ms };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(close_reader) struct evbus_reader *reader = NULL;
	CLEANUP(handler_cleanup) struct handler *handler = NULL;
	struct replay replay = { .call = call, .args = args, .pace.rate = args->rate };

	TRY(out_format_of(call, args->format, target_url(args)));
	TRY(check_options(call, args));
	selection.go_on = go_on;
	selection.go_on_context = &replay;
	if (call->argv)
		TRY(handler_open(call, &running, &handler));
	about_topic(call, args->reading.topic, (int32_t)args->reading.partition);
	TRY(bus_open(call, NULL, &bus));
	TRY(evbus_reader_open(bus, &selection, &reader, &call->err));
	replay.reader = reader;
	replay.handler = handler;
	enum evbus_code code = open_target(&replay, bus);
	if (!code)
		code = finish(&replay, deliver_all(&replay));
	target_close(&replay.target);
	return code;
}

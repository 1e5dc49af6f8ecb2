/* replay.c: evbus replay
 *
 * Records go to stdout, or are published again: to a topic, or to another bus, where each keeps its topic and its
 * partition. Then there is a place where reading fails and one where publishing does, and messages say which. Or a
 * command is run for each. */
#include "out.h"
#include "handler.h"
#include "pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLUSH_NS 20000000ll                 /* paced records are published at least so often */
#define PROGRESS_RECORDS 256
#define ORIGIN_MAX_BYTES 1024u
#define PAYLOAD_MAX_BYTES (3u * 1024 * 1024) /* what one bus has taken, the other takes as well */

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
		OPT(0, on_error, "stop|skip", "what the first event does for which the command fails: end the replay, "
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
		{ EVBUS_NO, "the command failed for an event" },
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

struct target {
	char name[MASKED_MAX_BYTES];       /* of the bus */
	struct evbus *bus;
	struct evbus_publisher *publisher; /* NULL: records go to stdout */
	bool keeps_partition;
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];
	char key[EVBUS_KEY_MAX_BYTES];
	char origin[ORIGIN_MAX_BYTES];
};

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

static void close_target(struct target *target)
{
	evbus_publisher_close(target->publisher);
	evbus_close(target->bus);
}

/* ---- publishing again ------------------------------------------------------------------------------------------ */

static enum evbus_code print_receipts(struct replay *replay)
{
	const struct evbus_record *receipt;
	enum evbus_code code = EVBUS_OK;

	while ((receipt = evbus_publisher_next(replay->target.publisher)))
		if (!code && !replay->args->common.quiet)
			code = out_receipt(replay->call, receipt);
	return code;
}

static enum evbus_code write_failed(struct replay *replay, enum evbus_code code)
{
	replay->call->err.code = code;
	return fail_within(replay->call, "publishing to '%s'", replay->target.name);
}

/* All that was given to the publisher is durable, and has its receipt. A receipt is a promise: unlike records, those
 * that nobody takes are a failure. */
static enum evbus_code flush_target(struct replay *replay)
{
	struct call *call = replay->call;
	enum evbus_code code = evbus_publisher_flush(replay->target.publisher, &call->err);
	struct evbus_err first = call->err;
	enum evbus_code printed = print_receipts(replay);

	printed = printed ? printed : out_flush(call);
	if (code) {
		call->err = first;
		return write_failed(replay, code);
	}
	if (printed && out_is_closed())
		return fail(call, printed, "cannot print receipts: whoever read them is gone");
	return printed;
}

/* The text of a raw JSON string, or data NULL where it is none. */
static enum evbus_code text_of(struct call *call, struct evbus_slice value, char *text, size_t size,
			       struct evbus_slice *out)
{
	*out = (struct evbus_slice){ NULL, 0 };
	if (!value.data || value.data[0] != '"')
		return EVBUS_OK;
	size_t len = evbus_json_text(value, text, size);
	if (len > size)
		return fail(call, EVBUS_DATA, "%.32s… is longer than %zu bytes", value.data, size);
	*out = (struct evbus_slice){ text, len };
	return EVBUS_OK;
}

/* Where the event stood first: what was published again before keeps its origin, so all copies of one name the same. */
static enum evbus_code origin_of(struct replay *replay, const struct evbus_record *record, struct evbus_slice *origin)
{
	char *text = replay->target.origin;

	if (record->origin.data)
		return text_of(replay->call, record->origin, text, ORIGIN_MAX_BYTES, origin);
	int n = snprintf(text, ORIGIN_MAX_BYTES, "%.*s/%d/%.*s", (int)record->topic.len, record->topic.data,
			 record->partition_id, (int)record->offset.len, record->offset.data);
	*origin = (struct evbus_slice){ text, (size_t)n };
	return EVBUS_OK;
}

static enum evbus_code key_of(struct replay *replay, const struct evbus_record *record, struct evbus_slice *key)
{
	const struct args *args = replay->args;

	*key = (struct evbus_slice){ args->key, args->key ? strlen(args->key) : 0 };
	if (args->key || args->key_from)
		return EVBUS_OK;
	return text_of(replay->call, record->partition_key, replay->target.key, EVBUS_KEY_MAX_BYTES, key);
}

static enum evbus_code refused(struct replay *replay, const struct evbus_record *record, const char *topic,
			       enum evbus_code code)
{
	struct call *call = replay->call;

	about_record(call, record);
	if (code == EVBUS_USAGE && !replay->args->key_from)
		fail(call, code,
		     "topic '%s' has several partitions, and the record has no key: choose one by --to-partition, "
		     "--key or --key-from",
		     topic);
	fail_within(call, "record %.*s/%d/%.*s", (int)record->topic.len, record->topic.data, record->partition_id,
		    (int)record->offset.len, record->offset.data);
	return write_failed(replay, code);
}

static enum evbus_code publish(struct replay *replay, const struct evbus_record *record)
{
	struct target *target = &replay->target;
	struct evbus_event event = { .topic = replay->args->to_topic, .payload = record->payload,
				     .partition_id = (int32_t)replay->args->to_partition, .returns = record->returns };

	if (!event.topic) {
		memcpy(target->topic, record->topic.data, record->topic.len);
		target->topic[record->topic.len] = '\0';
		event.topic = target->topic;
	}
	if (target->keeps_partition)
		event.partition_id = record->partition_id;
	TRY(key_of(replay, record, &event.key));
	TRY(origin_of(replay, record, &event.origin));
	enum evbus_code code = evbus_publisher_add(target->publisher, &event, &replay->call->err);
	if (code)
		return refused(replay, record, event.topic, code);
	return print_receipts(replay);
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
	return flush_target(replay);
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
	replay->failed++;
	if (outcome->verdict == VERDICT_WRONG_COMMAND || outcome->verdict == VERDICT_NO_READER)
		code = outcome_fail(call, outcome);
	else
		fail(call, code, "%s", text);
	fail_within(call, "record %.*s/%d/%.*s", (int)record->topic.len, record->topic.data, record->partition_id,
		    (int)record->offset.len, record->offset.data);
	if (code != EVBUS_NO || !replay->args->on_error || !strcmp(replay->args->on_error, "stop"))
		return code;
	talk(call, WARNING, "%s", call->err.text);
	return EVBUS_OK;
}

static enum evbus_code run_command(struct replay *replay, const struct evbus_record *record)
{
	const struct job job = { .record = record, .attempt = 1 };
	struct outcome outcome;

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
	return replay->target.publisher ? publish(replay, record) : out_record(replay->call, record);
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
		enum evbus_code last = flush_target(replay);

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
		return fail(replay->call, EVBUS_NO, "the command failed for %lld of %lld events",
			    (long long)replay->failed, (long long)replay->given);
	return code;
}

/* ---- the target ------------------------------------------------------------------------------------------------ */

static enum evbus_code check_command(struct call *call, const struct args *args)
{
	if (!call->argv && (args->handler_timeout.ms >= 0 || args->on_error))
		return fail(call, EVBUS_USAGE, "--%s is for a command: say which one behind '--'",
			    args->on_error ? "on-error" : "handler-timeout");
	if (call->argv && (args->to_topic || args->to_bus))
		return fail(call, EVBUS_USAGE,
			    "--%s and a command exclude each other: both say where the events go",
			    args->to_topic ? "to-topic" : "to-bus");
	if (call->argv && args->count)
		return fail(call, EVBUS_USAGE, "--count runs no command: to count and run nothing say --dry-run");
	return EVBUS_OK;
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
	TRY(check_command(call, args));
	return args->to_topic ? evbus_topic_check(args->to_topic, false, &call->err) : EVBUS_OK;
}

/* As it is here, as far as the other bus has such things: segments are of files. */
static enum evbus_code make_topic(struct replay *replay, const char *topic, const struct evbus_partition_info *here)
{
	struct evbus_topic_options options = { .partitions = here->partitions };
	struct call *call = replay->call;
	bool created;

	if (here->segment_max_bytes != UINT64_MAX)
		options.segment_max_bytes = here->segment_max_bytes;
	enum evbus_code code = evbus_topic_create(replay->target.bus, topic, &options, &created, &call->err);
	if (code != EVBUS_CONFIG || !options.segment_max_bytes)
		return code;
	options.segment_max_bytes = 0;
	return evbus_topic_create(replay->target.bus, topic, &options, &created, &call->err);
}

/* A topic that keeps its partitions needs as many on the other bus. */
static enum evbus_code prepare_topic(struct replay *replay, struct evbus *source, const char *topic)
{
	struct call *call = replay->call;
	struct target *target = &replay->target;
	struct evbus_partition_info here, there;

	enum evbus_code code = evbus_topic_describe(source, topic, 0, &here, &call->err);
	if (code)
		return code == EVBUS_NONE ? EVBUS_OK : read_failed(replay, code);
	code = evbus_topic_describe(target->bus, topic, 0, &there, &call->err);
	if (code == EVBUS_NONE)
		code = make_topic(replay, topic, &here);
	else if (!code && target->keeps_partition && here.partitions != there.partitions)
		code = fail(call, EVBUS_CONFLICT,
			    "topic '%s' has %u partitions there and %u here: choose a partition by --to-partition, "
			    "--key or --key-from",
			    topic, there.partitions, here.partitions);
	return code ? write_failed(replay, code) : EVBUS_OK;
}

static void free_names(char ***names)
{
	evbus_free(*names);
}

static enum evbus_code prepare_topics(struct replay *replay, struct evbus *source)
{
	CLEANUP(free_names) char **names = NULL;

	TRY(evbus_topic_list(source, replay->args->reading.topic, &names, &replay->call->err));
	for (char **name = names; *name; name++)
		TRY(prepare_topic(replay, source, *name));
	return EVBUS_OK;
}

static enum evbus_code open_target(struct replay *replay, struct evbus *source)
{
	const struct args *args = replay->args;
	struct target *target = &replay->target;
	struct call *call = replay->call;
	const struct evbus_publisher_options publishing = { .key_from = args->key_from, .go_on = not_stopped };

	if (args->dry_run || (!args->to_topic && !args->to_bus))
		return EVBUS_OK;
	const char *url = args->to_bus ? args->to_bus : args->common.bus;
	mask_secrets(url, target->name);
	target->keeps_partition = !args->to_topic && !args->key && !args->key_from &&
				  args->to_partition == EVBUS_PARTITION_ANY;
	enum evbus_code code = bus_open_other(call, url, PAYLOAD_MAX_BYTES, &target->bus);
	if (code)
		return write_failed(replay, code);
	if (!args->to_topic)
		TRY(prepare_topics(replay, source));
	code = evbus_publisher_open(target->bus, &publishing, &target->publisher, &call->err);
	return code ? write_failed(replay, code) : EVBUS_OK;
}

static enum evbus_code replay_run(struct args *args, struct call *call)
{
	struct evbus_selection selection = reading_selection(&args->reading);
	const struct handler_options running = { .argv = call->argv, .timeout_ms = args->handler_timeout.ms };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(close_reader) struct evbus_reader *reader = NULL;
	CLEANUP(handler_cleanup) struct handler *handler = NULL;
	struct replay replay = { .call = call, .args = args, .pace.rate = args->rate };

	TRY(out_format(call, args->format));
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
	close_target(&replay.target);
	return code;
}

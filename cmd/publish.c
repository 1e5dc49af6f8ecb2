/* publish.c: evbus publish
 *
 * Events are taken as long as there are any to be read; the publisher syncs them in large groups while further ones are
 * read. Where reading would block, what was taken is synced and its receipts are printed before waiting, so that an event
 * that comes alone is acknowledged at once. */
#include "input.h"
#include "out.h"
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct args {
	struct common common;
	const char *topic;
	const char *key, *key_from, *partitioning;
	int64_t partition;
	bool atomic;
	const char *expect_offset;
	bool idempotent;
	const char *event_key_from;
	bool no_create;
	struct size max_payload;
	bool multiline, records;
	const char *on_error, *rejects;
	struct record_format format;
};

COMMAND(publish,
	.summary = "append each JSON line to a topic and print a receipt for it",
	.takes = "[FILE...]",
	.must_print = true,
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "where to append; with --records each keeps its own if this is not given"),
		OPT('k', key, "KEY", "choose the partition by this key"),
		OPT(0, key_from, "/POINTER,...", "choose it by the first of these members that an event has"),
		OPT(0, partitioning, "NAME", "choose it by the members that this one of the configuration has"),
		OPT('p', partition, "N", "choose the partition by its number", .unset = EVBUS_PARTITION_ANY,
		    .max = EVBUS_PARTITIONS_MAX - 1),
		OPT(0, atomic, "", "append all events or none, at most 4 MiB, to one partition"),
		OPT(0, expect_offset, "N", "append only if this is the next offset"),
		OPT(0, idempotent, "",
		    "append an event only if its tenant and event key are not in the topic; else print the first receipt"),
		OPT(0, event_key_from, "/POINTER,...",
		    "with --idempotent: the event key is the first of these members that an event has"),
		OPT(0, no_create, "", "fail where the topic is not there, instead of making it"),
		MAX_PAYLOAD_OPT,
		OPT(0, multiline, "", "an event may go over several lines, which become one"),
		OPT(0, records, "", "take records as evbus prints them, and publish their payloads"),
		OPT(0, on_error, "stop|skip", "what to do at an event that is refused", .words = "stop|skip",
		    .preset = "stop"),
		OPT(0, rejects, "FILE", "with --on-error skip: append what is refused to this file"),
		RECORD_FORMAT_OPT,
		OPT('q', common.quiet, "", "print no receipts, and on stderr only warnings and errors"),
		BUS_OPTS,
		OPT(0, common.log, "text|json", "how to talk on stderr", .words = "text|json", .preset = "text",
		    .env = true),
		OPT('v', common.verbose, "", "say more on stderr"),
		OPT('h', common.help, "", "print this help")),
	.statuses = STATUSES(
		{ EVBUS_NO, "events were refused and skipped (--on-error skip); the others are published" },
		{ EVBUS_DATA, "an event was refused; those before it are published, with --atomic none" },
		{ EVBUS_NONE, "there is no such FILE or partition, or with --no-create no such topic" },
		{ EVBUS_CONFLICT, "--expect-offset is not the next offset, or the log was cut, restored or replaced" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -t orders",
		  "{\"topic\":\"orders\",\"partition_id\":0,\"offset_kind\":\"file_line\",\"offset\":\"0\",\"published_at_utc\":"
		  "\"…\"}" },
		{ "echo '{\"id\":\"2\",\"total\":{\"sum\":1.10}}' | evbus publish -t orders --format '{offset} {/total/sum}\\n'",
		  "1 1.10" },
		{ "evbus topic-create -q prices --partitions 4 >/dev/null; "
		  "echo '{\"sku\":\"A-7\"}' | evbus publish -t prices --key-from /sku --format '{partition_id} {partition_key}\\n'",
		  "0 A-7" },
		{ "printf '{\\n  \"id\": \"3\"\\n}\\n' | evbus publish -t orders --multiline --format payload",
		  "{   \"id\": \"3\" }" },
		{ "echo '{\"id\":\"4\"}' | evbus publish -t orders --expect-offset 3 --format '{offset}\\n'", "3" },
		{ "printf '{\"id\":\"5\"}\\n{\"id\":\"5\"}\\n' | evbus publish -t orders --idempotent --format '{offset} "
		  "{duplicate}\\n'",
		  "4 false\n4 true" }));

struct run {
	const struct args *args;
	struct call *call;
	struct evbus *bus;
	struct evbus_publisher *publisher;
	bool one_by_one;      /* a target refuses only when it gets something: each is waited for, to know which one it was */
	struct input input;
	struct evbus_event event;
	struct record record; /* what event points into, with --records */
	int rejects;
	uint64_t taken, refused;
	struct evbus_progress progress;
};

/* ---- what was asked for ---------------------------------------------------------------------------------------- */

static enum evbus_code check_routing(const struct args *args, struct call *call)
{
	if (!args->topic && !args->records)
		return fail(call, EVBUS_USAGE, "a topic is missing; name one with --topic");
	if (args->topic)
		TRY(evbus_topic_check(args->topic, false, &call->err));
	if (args->key && args->key_from)
		return fail(call, EVBUS_USAGE,
			    "--key and --key-from exclude each other: both say which key an event has");
	if (args->partitioning && (args->key || args->key_from || args->partition != EVBUS_PARTITION_ANY))
		return fail(call, EVBUS_USAGE, "--partitioning excludes --key, --key-from and --partition");
	if (args->partition != EVBUS_PARTITION_ANY && (args->key || args->key_from))
		return fail(call, EVBUS_USAGE, "--partition and --%s exclude each other: both choose the partition",
			    args->key ? "key" : "key-from");
	if (args->key && strlen(args->key) > EVBUS_KEY_MAX_BYTES)
		return fail(call, EVBUS_USAGE, "the key has %zu bytes, and %d is the most", strlen(args->key),
			    EVBUS_KEY_MAX_BYTES);
	return EVBUS_OK;
}

/* Of what can be published to and not be read. */
static enum evbus_code check_target(const struct args *args, struct call *call)
{
	const char *bus = args->common.bus;

	if (args->idempotent)
		TRY(refuse_of_target(call, bus, "idempotent",
				     "nobody can look whether an event is there; by its message_id a consumer knows it "
				     "again"));
	if (args->expect_offset)
		TRY(refuse_of_target(call, bus, "expect-offset", "it has no offsets"));
	if (args->atomic)
		TRY(refuse_of_target(call, bus, "atomic", "it takes one event after the other"));
	if (args->partition > 0)
		TRY(refuse_of_target(call, bus, "partition", "it has no partitions"));
	return EVBUS_OK;
}

static enum evbus_code check_args(const struct args *args, struct call *call)
{
	bool skip = !strcmp(args->on_error, "skip");

	TRY(check_routing(args, call));
	if (args->rejects && !skip)
		return fail(call, EVBUS_USAGE, "--rejects is for what is skipped; give --on-error skip with it");
	if (args->atomic && skip)
		return fail(call, EVBUS_USAGE,
			    "--atomic and --on-error skip exclude each other: it is all events or none");
	if (args->event_key_from && !args->idempotent)
		return fail(call, EVBUS_USAGE, "--event-key-from is for --idempotent; give both");
	for (size_t i = 0; i < call->operand_count; i++)
		if (call->operands[i][0] == '{')
			return fail(
				call, EVBUS_USAGE,
				"operand '%.40s' is an event and not the name of a FILE; pipe it: echo '{…}' | evbus "
				"publish -t TOPIC",
				call->operands[i]);
	return check_target(args, call);
}

static enum evbus_code open_publisher(struct run *run)
{
	const struct args *args = run->args;
	const struct evbus_publisher_options how = { .atomic = args->atomic,
						     .expect_offset = args->expect_offset,
						     .key_from = args->key_from,
						     .idempotent = args->idempotent,
						     .event_key_from = args->event_key_from,
						     .go_on = not_stopped };

	evbus_publisher_close(run->publisher);
	run->publisher = NULL;
	return evbus_publisher_open(run->bus, &how, &run->publisher, &run->call->err);
}

static enum evbus_code open_bus(struct run *run)
{
	const struct args *args = run->args;
	const struct evbus_options options = { .no_create = args->no_create,
					       .payload_max_bytes = (uint32_t)args->max_payload.bytes };

	TRY(bus_open(run->call, &options, &run->bus));
	run->one_by_one = evbus_is_target(run->bus) && !strcmp(args->on_error, "skip");
	return open_publisher(run);
}

static void run_release(struct run *run)
{
	evbus_publisher_close(run->publisher);
	bus_cleanup(&run->bus);
	input_release(&run->input);
	if (run->rejects >= 0)
		close(run->rejects);
}

static void begin_event(struct run *run)
{
	const struct args *args = run->args;

	run->event = (struct evbus_event){ .topic = args->topic, .partition_id = (int32_t)args->partition };
	if (args->key)
		run->event.key = (struct evbus_slice){ args->key, strlen(args->key) };
	if (args->topic)
		about_topic(run->call, args->topic, run->event.partition_id);
}

/* ---- what is refused ------------------------------------------------------------------------------------------- */

static enum evbus_code open_rejects(struct run *run)
{
	const char *path = run->args->rejects;

	if (!path)
		return EVBUS_OK;
	run->rejects = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
	if (run->rejects < 0)
		return fail_errno(run->call, errno == EACCES ? EVBUS_PERMISSION : EVBUS_CANTCREATE,
				  "cannot open '%s' for what is refused", path);
	return EVBUS_OK;
}

/* In one write with its newline, so that others may append to the same file. */
static enum evbus_code keep_rejected(struct run *run, const struct item *item)
{
	const struct iovec parts[] = { { (void *)(uintptr_t)item->raw.data, item->raw.len },
				       { (void *)"\n", !item->more } };
	size_t done = 0, len = parts[0].iov_len + parts[1].iov_len;

	while (run->rejects >= 0 && done < len) {
		struct iovec left[] = { parts[0], parts[1] };
		size_t of_raw = done < parts[0].iov_len ? done : parts[0].iov_len;

		left[0].iov_base = (char *)left[0].iov_base + of_raw;
		left[0].iov_len -= of_raw;
		left[1].iov_len -= done - of_raw;
		ssize_t n = writev(run->rejects, left, COUNT(left));
		if (n < 0 && errno != EINTR)
			return fail_errno(run->call, EVBUS_IO, "cannot write to '%s'", run->args->rejects);
		done += n > 0 ? (size_t)n : 0;
	}
	return EVBUS_OK;
}

/* call->err says what is wrong with the item. */
static enum evbus_code refuse(struct run *run, const struct item *item)
{
	struct call *call = run->call;

	if (strcmp(run->args->on_error, "skip") != 0)
		return EVBUS_DATA;
	talk(call, WARNING, "%s", call->err.text);
	run->refused++;
	return keep_rejected(run, item);
}

/* The library refused the event; it was given what begins at `from`. */
static enum evbus_code refuse_event(struct run *run, const struct item *item, const char *from)
{
	item_refused(run->call, &run->input, item, from);
	return refuse(run, item);
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

static enum evbus_code print_receipts(struct run *run)
{
	const struct evbus_record *receipt;

	if (run->args->common.quiet)
		return EVBUS_OK;
	while ((receipt = evbus_publisher_next(run->publisher)))
		TRY(out_receipt(run->call, receipt));
	return EVBUS_OK;
}

/* To a target: afterwards a publisher that was refused something takes no more. */
static enum evbus_code send_alone(struct run *run, const struct item *item)
{
	enum evbus_code code = evbus_publisher_flush(run->publisher, &run->call->err);

	if (code != EVBUS_DATA && code != EVBUS_NONE)
		return code ? code : print_receipts(run);
	TRY(refuse_event(run, item, item->event.data));
	return open_publisher(run);
}

/* Makes an event of a record: what was chosen on the command line holds, else what the record has. */
static enum evbus_code take_record(struct run *run, struct evbus_slice text)
{
	const struct args *args = run->args;
	struct record *record = &run->record;
	bool chosen = args->partition != EVBUS_PARTITION_ANY || args->key || args->key_from ||
		      evbus_is_target(run->bus);

	TRY(record_read(text, record, &run->call->err));
	if (!args->topic && !record->topic[0]) {
		run->call->err.column = 0;
		return fail(run->call, EVBUS_DATA, "the record has no topic; give one with --topic");
	}
	run->event.payload = record->payload;
	run->event.payload_base64 = record->payload_base64;
	run->event.topic = args->topic ? args->topic : record->topic;
	if (!chosen)
		run->event.partition_id = record->partition_id;
	if (!args->key && !args->key_from)
		run->event.key = record->key;
	run->event.tenant_id = record->tenant_id;
	if (!args->event_key_from)
		run->event.event_key = record->event_key;
	run->event.origin = record->origin;
	run->event.returns = record->returns;
	return EVBUS_OK;
}

static enum evbus_code take(struct run *run, const struct item *item)
{
	struct call *call = run->call;

	run->taken++;
	run->event.payload = item->event;
	if (run->args->records && take_record(run, item->event))
		return refuse_event(run, item, item->event.data);
	enum evbus_code code = evbus_publisher_add(run->publisher, &run->event, &call->err);
	if (code == EVBUS_OK)
		return run->one_by_one ? send_alone(run, item) : print_receipts(run);
	if (code == EVBUS_DATA)
		return refuse_event(run, item, (run->event.payload.data ? run->event.payload : item->event).data);
	if (run->args->records && (code == EVBUS_USAGE || code == EVBUS_NONE))
		return fail_within(call, "%s:%llu", run->input.name, (unsigned long long)item->line);
	return code;
}

/* An atomic batch is whole only at the end. */
static enum evbus_code idle(struct run *run)
{
	if (!run->args->atomic) {
		TRY(evbus_publisher_flush(run->publisher, &run->call->err));
		TRY(print_receipts(run));
		TRY(out_flush(run->call));
	}
	input_wait(&run->input);
	return EVBUS_OK;
}

static enum evbus_code take_item(struct run *run, const struct item *item)
{
	switch (item->kind) {
	case ITEM_EVENT:
		return take(run, item);
	case ITEM_BAD:
		run->taken++;
		item_fail(run->call, &run->input, item, item->fault_at, item->fault);
		return refuse(run, item);
	case ITEM_REST:
		return keep_rejected(run, item);
	case ITEM_WAIT:
		return idle(run);
	case ITEM_END:
		break;
	}
	return EVBUS_OK;
}

static void show_progress(struct run *run)
{
	if (run->progress.bytes == run->input.bytes)
		return;
	run->progress.bytes = run->input.bytes;
	if (run->progress.bytes_total)
		progress_show(run->call, &run->progress);
}

static enum evbus_code publish_input(struct run *run, const char *path)
{
	struct item item;

	TRY(input_open(&run->input, run->call, path));
	do {
		TRY(input_next(&run->input, run->call, &item));
		TRY(take_item(run, &item));
		show_progress(run);
	} while (item.kind != ITEM_END && !stopped());
	input_close(&run->input);
	return EVBUS_OK;
}

/* Known only where all are files. */
static uint64_t bytes_of(const char *const *paths)
{
	uint64_t total = 0;
	struct stat st;

	for (; *paths; paths++) {
		if (stat(*paths, &st) || !S_ISREG(st.st_mode))
			return 0;
		total += (uint64_t)st.st_size;
	}
	return total;
}

static enum evbus_code publish_inputs(struct run *run)
{
	static const char *const only_stdin[] = { "-", NULL };
	const char *const *paths = run->call->operand_count ? run->call->operands : only_stdin;

	if (!run->call->operand_count && isatty(STDIN_FILENO))
		talk(run->call, NOTICE, "reading events from the terminal, one JSON object a line; Ctrl-D ends");
	if (progress_is_wanted(run->call))
		run->progress.bytes_total = bytes_of(paths);
	for (; *paths && !stopped(); paths++)
		TRY(publish_input(run, *paths));
	return EVBUS_OK;
}

/* Whatever ended it, what was taken is synced, and what is durable has its receipt. A failure to do that outweighs what
 * came before. */
static enum evbus_code finish(struct run *run, enum evbus_code code)
{
	struct call *call = run->call;
	struct evbus_err first = call->err;

	if (run->args->atomic && (code || stopped()))
		return code;
	enum evbus_code last = evbus_publisher_flush(run->publisher, &call->err);
	struct evbus_err flush = call->err;
	enum evbus_code printed = print_receipts(run);
	if (!printed)
		printed = out_flush(call);
	if (last)
		call->err = flush;
	else
		last = printed;
	if (last) {
		if (code && strcmp(first.text, call->err.text) != 0)
			talk(call, WARNING, "%s", first.text);
		return last;
	}
	call->err = first;
	if (!code && run->refused)
		return fail(call, EVBUS_NO, "%llu of %llu events were refused", (unsigned long long)run->refused,
			    (unsigned long long)run->taken);
	return code;
}

static enum evbus_code publish_run(struct args *args, struct call *call)
{
	CLEANUP(run_release) struct run run = { .args = args, .call = call, .input.fd = -1, .rejects = -1 };

	TRY(check_args(args, call));
	if (args->partitioning)
		TRY(partitioning_named(call, args->partitioning, &args->key_from));
	TRY(out_format_of(call, args->format, args->common.bus));
	TRY(open_bus(&run));
	TRY(open_rejects(&run));
	TRY(input_init(&run.input, call, (uint32_t)args->max_payload.bytes, args->multiline));
	begin_event(&run);
	return finish(&run, publish_inputs(&run));
}

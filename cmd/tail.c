/* tail.c: evbus tail */
#include "out.h"

#include <limits.h>
#include <poll.h>
#include <unistd.h>

#define LAST_DEFAULT 10
#define LOOK_MS 1000                 /* so late may be noticed a signal that comes just before we wait */

struct args {
	struct common common;
	struct reading reading;
	int64_t last;
	bool follow;
	int64_t max;
	struct duration timeout;
	bool count;
	struct record_format format;
};

COMMAND(tail,
	.summary = "look at records: the last ones, from a position, or as they come",
	.opts = OPTS(READING_OPTS,
		OPT('n', last, "N",
		    "begin so many records before the end (10, where none of -n, -o, -S, -U and -g is given)",
		    .unset = -1),
		OPT('f', follow, "", "go on as records come, and as topics appear"),
		OPT(0, max, "N", "stop after so many", .unset = -1),
		OPT(0, timeout, "DURATION", "give up after this time, with exit status 75", .unset = -1),
		OPT(0, count, "", "print only how many there are"),
		RECORD_FORMAT_OPT,
		COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NONE, "there is no such topic or partition, and --follow was not given; a pattern that matches "
			      "nothing is 0" },
		{ EVBUS_AGAIN, "the time of --timeout is over" },
		{ EVBUS_CONFLICT, "the log is not the one that the checkpoint was made on, or was cut or replaced while "
				  "it was read" }),
	.examples = EXAMPLES(
		{ "printf '{\"id\":\"1\"}\\n{\"id\":\"2\"}\\n{\"id\":\"3\"}\\n' | evbus publish -q -t orders", "" },
		{ "evbus tail -t orders -n 1",
		  "{\"topic\":\"orders\",\"partition_id\":0,\"offset_kind\":\"file_line\",\"offset\":\"2\","
		  "\"published_at_utc\":\"…\",\"partition_key\":null,\"payload\":{\"id\":\"3\"}}" },
		{ "evbus tail -t orders --from-offset 0 --max 2 --format payload", "{\"id\":\"1\"}\n{\"id\":\"2\"}" },
		{ "evbus tail -t '>' -S -1h --where /id=2 --count", "1" },
		{ "evbus tail -f -t orders -o beginning --max 3 --timeout 10s --format '{offset} {/id}\\n'",
		  "0 1\n1 2\n2 3" }));

struct tail {
	struct call *call;
	const struct args *args;
	struct evbus_reader *reader;
	int64_t deadline_ms;         /* INT64_MAX: none */
	int64_t given;
};

static void close_reader(struct evbus_reader **reader)
{
	evbus_reader_close(*reader);
}

static bool is_late(const struct tail *tail)
{
	return tail->deadline_ms != INT64_MAX && monotonic_ms() >= tail->deadline_ms;
}

/* Asked every few MiB: what is there to be seen need not wait until more matches. */
static bool go_on(void *context)
{
	const struct tail *tail = context;

	return !stopped() && !is_late(tail) && !out_flush(tail->call);
}

static enum evbus_code timed_out(const struct tail *tail)
{
	return fail(tail->call, EVBUS_AGAIN, "the time of --timeout is over, after %lld records",
		    (long long)tail->given);
}

static enum evbus_code read_next(struct tail *tail, int64_t wait_ms, const struct evbus_record **record)
{
	enum evbus_code code = evbus_reader_next(tail->reader, (int)wait_ms, record, &tail->call->err);

	if (code != EVBUS_AGAIN)
		return code;
	TRY(out_flush(tail->call)); /* if that was why it did not go on */
	return is_late(tail) ? timed_out(tail) : code;
}

/* Of a pipe this is told at once, not only by the next write: tail -f | head -n 1 ends. */
static bool nobody_listens(void)
{
	struct pollfd fd = { .fd = STDOUT_FILENO };

	return poll(&fd, 1, 0) > 0 && (fd.revents & POLLERR);
}

static enum evbus_code wait_next(struct tail *tail, const struct evbus_record **record)
{
	TRY(out_flush(tail->call));
	while (!*record && !stopped() && !nobody_listens() && !evbus_reader_finished(tail->reader)) {
		int64_t left = tail->deadline_ms == INT64_MAX ? LOOK_MS : tail->deadline_ms - monotonic_ms();

		if (left <= 0)
			return timed_out(tail);
		TRY(read_next(tail, left < LOOK_MS ? left : LOOK_MS, record));
	}
	return EVBUS_OK;
}

/* *record: NULL at the end. */
static enum evbus_code next(struct tail *tail, const struct evbus_record **record, bool *waited)
{
	*record = NULL;
	if (stopped() || (tail->args->max >= 0 && tail->given == tail->args->max))
		return EVBUS_OK;
	if (is_late(tail))
		return timed_out(tail);
	TRY(read_next(tail, 0, record));
	*waited = !*record && tail->args->follow;
	if (*waited)
		TRY(wait_next(tail, record));
	tail->given += *record != NULL;
	return EVBUS_OK;
}

static enum evbus_code print_all(struct tail *tail)
{
	const struct evbus_record *record;

	for (;;) {
		bool waited = false;
		TRY(next(tail, &record, &waited));
		if (!record)
			return EVBUS_OK;
		if (!tail->args->count)
			TRY(out_record(tail->call, record));
		/* The first one after a wait is shown before we look whether there are more. */
		if (waited)
			TRY(out_flush(tail->call));
	}
}

/* Where to begin, if not where --offset or --group say. */
static enum evbus_code choose_start(struct call *call, const struct args *args, struct evbus_selection *selection)
{
	bool placed = selection->from || selection->group;

	if (args->last >= 0 && placed)
		return fail(call, EVBUS_USAGE, "options '--last' and '%s' both say where to begin: give one of them",
			    selection->from ? "--offset" : "--group");
	if (args->last == 0)
		selection->from = "end";
	else if (args->last > 0)
		selection->last = (uint64_t)args->last;
	else if (!placed && !selection->since && !selection->until)
		selection->last = LAST_DEFAULT;
	return EVBUS_OK;
}

static enum evbus_code tail_run(struct args *args, struct call *call)
{
	struct evbus_selection selection = reading_selection(&args->reading);
	struct tail tail = { .call = call, .args = args, .deadline_ms = INT64_MAX };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(close_reader) struct evbus_reader *reader = NULL;

	TRY(out_format(call, args->format));
	TRY(choose_start(call, args, &selection));
	selection.follow = args->follow;
	selection.go_on = go_on;
	selection.go_on_context = &tail;
	if (args->timeout.ms >= 0 && args->timeout.ms < INT64_MAX - monotonic_ms())
		tail.deadline_ms = monotonic_ms() + args->timeout.ms;
	about_topic(call, args->reading.topic, (int32_t)args->reading.partition);
	TRY(bus_open(call, NULL, &bus));
	TRY(evbus_reader_open(bus, &selection, &reader, &call->err));
	tail.reader = reader;
	enum evbus_code code = print_all(&tail);
	if (args->count && (code == EVBUS_OK || code == EVBUS_AGAIN))
		out_printf("%lld\n", (long long)tail.given);
	return code;
}

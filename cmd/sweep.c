/* sweep.c: evbus sweep */
#include "out.h"
#include "sources.h"

struct args {
	struct common common;
	struct source_args sources;
	struct duration sent_older_than, inbox_older_than, dlq_older_than;
	const char *format;
	bool dry_run;
};

COMMAND(sweep,
	.summary = "remove what is done and old, and print how much it was",
	.opts = OPTS(
		OPT(0, sent_older_than, "DURATION", "rows of outboxes that were sent so long ago, as 7d", .unset = -1),
		OPT(0, inbox_older_than, "DURATION", "inbox rows and event keys that are so old, as 30d", .unset = -1),
		OPT(0, dlq_older_than, "DURATION",
		    "dead letters that were retried or discarded so long ago, as 90d", .unset = -1),
		OPT(0, dry_run, "", "remove nothing, print the same"),
		LIST_FORMAT_OPT, SOURCE_OPTS, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_CONFLICT, "the inbox would forget an event whose letter can still be retried" }),
	.examples = EXAMPLES(
		{ "echo '{\"id\":\"1\"}' | evbus publish -q -t orders\n"
		  "evbus sweep -q --inbox-older-than 30d --dlq-older-than 90d --format tsv",
		  "inbox\t0\nevent_keys\t0\nletters\t0" }));

/* 0: it is left alone. */
static int64_t time_before(struct duration age, int64_t now_us)
{
	if (age.ms < 0)
		return 0;
	return age.ms < now_us / 1000 ? now_us - age.ms * 1000 : 1;
}

static void put_count(struct table *table, const char *kind, uint64_t count)
{
	table_text(table, kind);
	table_number(table, (int64_t)count);
}

/* What was asked for; a zero says that there was nothing. */
static enum evbus_code print_counts(struct call *call, const char *format, const struct evbus_sweep_options *options,
				    const struct evbus_sweep_result *result)
{
	static const struct column columns[] = { { "kind", TEXT }, { "removed", NUMBER } };
	CLEANUP(table_cleanup) struct table table = { .count = 0 };

	if (options->dry_run)
		talk(call, NOTICE, "nothing was removed: this is a dry run");
	table_start(&table, columns, COUNT(columns), format);
	if (options->sent_before_us)
		put_count(&table, "sent", result->sent);
	if (options->inbox_before_us) {
		put_count(&table, "inbox", result->inbox);
		put_count(&table, "event_keys", result->event_keys);
	}
	if (options->letters_before_us)
		put_count(&table, "letters", result->letters);
	return table_end(&table, call);
}

static enum evbus_code sweep_run(struct args *args, struct call *call)
{
	CLEANUP(sources_close) struct sources sources = { .bus = NULL };
	int64_t now_us = evbus_time_now();
	const struct evbus_sweep_options options = {
		.sent_before_us = time_before(args->sent_older_than, now_us),
		.inbox_before_us = time_before(args->inbox_older_than, now_us),
		.letters_before_us = time_before(args->dlq_older_than, now_us),
		.dry_run = args->dry_run,
	};
	struct evbus_sweep_result result;

	if (!options.sent_before_us && !options.inbox_before_us && !options.letters_before_us)
		return fail(call, EVBUS_USAGE,
			    "say what may go: --sent-older-than, --inbox-older-than or --dlq-older-than, with a DURATION "
			    "as 30d");
	TRY(sources_open(&sources, call, &args->sources, false));
	TRY(evbus_sweep(sources.bus, sources.outboxes, sources.outbox_count, &options, &result, &call->err));
	return print_counts(call, args->format, &options, &result);
}

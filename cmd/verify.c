/* verify.c: evbus verify */
#include "out.h"

#include <stdio.h>
#include <string.h>

#define ROWS_MAX 1000u               /* of a table, which is kept until its widths are known */

struct args {
	struct common common;
	const char *topic;
	int64_t partition;
	bool deep;
	bool repair;
	const char *cut_at;
	bool rebuild_keys;
	const char *against;
	const char *format;
};

COMMAND(verify,
	.summary = "prove that logs are whole, or tell what is damaged",
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "only this one, or a pattern: * for one token, > for the rest"),
		OPT('p', partition, "N", "only this partition", .unset = EVBUS_PARTITION_ALL,
		    .max = EVBUS_PARTITIONS_MAX - 1),
		OPT(0, deep, "", "parse payloads too; find event ids that stand twice and events out of order"),
		OPT(0, repair, "", "cut an interrupted write off the end, after copying it"),
		OPT(0, cut_at, "OFFSET",
		    "with --repair: cut there, at the first damage that was reported, after copying"),
		OPT(0, rebuild_keys, "", "make the index of event keys anew from the logs that are whole"),
		OPT(0, against, "URL",
		    "compare with the topics of this bus instead: the same payloads in the same order for each key"),
		LIST_FORMAT_OPT,
		COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_OK, "everything is whole" },
		{ EVBUS_NO, "damage, or a difference, was found" },
		{ EVBUS_NONE, "there is nothing to verify: no such topic or partition, also of a pattern" },
		{ EVBUS_CONFLICT, "there is no damage at the offset of --cut-at" }),
	.examples = EXAMPLES(
		{ "printf '{\"id\":\"1\"}\\n{\"id\":\"2\"}\\n{\"id\":\"1\"}\\n' | evbus publish -q -t orders", "" },
		{ "evbus verify", "whole: 1 topic, 1 partition, 3 records, … bytes, no notes" },
		{ "evbus verify -t orders --deep --format json",
		  "{\"topic\":\"orders\",\"partition_id\":0,\"offset\":\"2\",\"byte\":…,\"what\":\"duplicate\","
		  "\"severity\":\"note\",\"text\":\"…\"}\n{\"summary\":{\"topics\":1,\"partitions\":1,\"records\":3,"
		  "\"bytes\":…,\"notes\":1,\"damages\":0}}" },
		{ "evbus replay -q -t orders --to-bus file:copy", "" },
		{ "evbus verify --against file:copy", "the same: 1 topic, 1 partition, 3 records, … bytes" }));

struct run {
	struct call *call;
	struct table table;
	uint64_t rows;
	bool compares;
	bool in_log, in_checkpoints; /* where damage is */
	struct evbus_finding first;  /* the first in a log; its topic is copied */
	char topic[EVBUS_TOPIC_MAX_BYTES + 1];
};

static const struct column columns[] = { { "topic", TEXT }, { "partition_id", NUMBER }, { "offset", DIGITS },
					 { "byte", NUMBER }, { "what", TEXT },		 { "severity", TEXT },
					 { "text", TEXT } };

static void note_damage(struct run *run, const struct evbus_finding *finding)
{
	if (!strcmp(finding->what, "checkpoint")) {
		run->in_checkpoints = true;
		return;
	}
	if (run->in_log)
		return;
	run->in_log = true;
	run->first = *finding;
	snprintf(run->topic, sizeof run->topic, "%s", finding->topic);
}

static void on_finding(void *context, const struct evbus_finding *finding)
{
	struct run *run = context;

	if (finding->severity == EVBUS_DAMAGE)
		note_damage(run, finding);
	if (run->rows++ >= ROWS_MAX && run->table.format == TABLE_ALIGNED)
		return;
	table_text(&run->table, finding->topic);
	table_number(&run->table, finding->partition_id);
	table_text(&run->table, finding->offset_text);
	table_number(&run->table, (int64_t)finding->byte);
	table_text(&run->table, finding->what);
	table_text(&run->table, finding->severity == EVBUS_DAMAGE ? "damage" : "note");
	table_text(&run->table, finding->text);
}

static void on_progress(void *context, const struct evbus_progress *progress)
{
	progress_show(((struct run *)context)->call, progress);
}

/* ---- the summary ----------------------------------------------------------------------------------------------- */

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

static void summary_text(const struct run *run, const struct evbus_verify_result *result, char *text, size_t size)
{
	char notes[64] = ", no notes", damages[64];

	if (result->notes)
		snprintf(notes, sizeof notes, ", %llu note%s", (unsigned long long)result->notes, plural(result->notes));
	snprintf(damages, sizeof damages, "%s", run->compares ? "the same" : "whole");
	if (result->damages)
		snprintf(damages, sizeof damages, "%s in %llu place%s", run->compares ? "different" : "damaged",
			 (unsigned long long)result->damages, plural(result->damages));
	snprintf(text, size, "%s: %llu topic%s, %llu partition%s, %llu record%s, %llu byte%s%s", damages,
		 (unsigned long long)result->topics, plural(result->topics), (unsigned long long)result->partitions,
		 plural(result->partitions), (unsigned long long)result->records, plural(result->records),
		 (unsigned long long)result->bytes, plural(result->bytes), run->compares ? "" : notes);
}

static enum evbus_code print_summary(struct run *run, const struct evbus_verify_result *result)
{
	char text[256];

	summary_text(run, result, text, sizeof text);
	if (run->table.format == TABLE_JSON) {
		out_printf("{\"summary\":{\"topics\":%llu,\"partitions\":%llu,\"records\":%llu,\"bytes\":%llu,"
			   "\"notes\":%llu,\"damages\":%llu}}\n",
			   (unsigned long long)result->topics, (unsigned long long)result->partitions,
			   (unsigned long long)result->records, (unsigned long long)result->bytes,
			   (unsigned long long)result->notes, (unsigned long long)result->damages);
	} else if (run->table.format == TABLE_TSV) {
		talk(run->call, NOTICE, "%s", text);
	} else {
		/* Without findings there is no table, which would be a header alone. */
		if (run->rows)
			TRY(table_end(&run->table, run->call));
		if (run->rows > ROWS_MAX)
			out_printf("… and %llu more: --format json prints all of them\n",
				   (unsigned long long)(run->rows - ROWS_MAX));
		out_printf("%s\n", text);
	}
	return out_flush(run->call);
}

static void say_what_next(const struct run *run)
{
	if (run->in_log && !run->compares)
		talk(run->call, WARNING,
		     "a log is damaged: put it back from a copy; or, to give up all from the damage on, if that is in "
		     "the newest segment: evbus verify -t %s -p %d --repair --cut-at %llu, which keeps a copy of what "
		     "it cuts",
		     run->topic, run->first.partition_id, (unsigned long long)run->first.offset);
	if (run->in_checkpoints)
		talk(run->call, WARNING,
		     "a checkpoint does not fit its log: put the log back, or choose where the group goes on with "
		     "evbus checkpoint-set");
}

/* ---- running --------------------------------------------------------------------------------------------------- */

/* The log is read again afterwards: what counts is how it is then. */
static enum evbus_code cut(struct call *call, struct evbus *bus, const struct args *args)
{
	const struct evbus_verify_options options = {
		.repair = true, .cut_at = args->cut_at, .go_on = not_stopped, .partition_id = (int32_t)args->partition
	};
	struct evbus_verify_result result;

	if (!args->topic)
		return fail(call, EVBUS_USAGE, "--cut-at cuts one topic: name it with --topic");
	return evbus_verify(bus, args->topic, &options, &result, &call->err);
}

static void release(struct run *run)
{
	table_cleanup(&run->table);
}

static enum evbus_code open_against(struct call *call, const char *url, struct evbus **bus)
{
	char masked[MASKED_MAX_BYTES];
	enum evbus_code code = bus_open_other(call, url, 0, bus);

	if (code == EVBUS_OK)
		return EVBUS_OK;
	mask_secrets(url, masked);
	call->err.code = code;
	return fail_within(call, "the bus of --against, '%s'", masked);
}

static enum evbus_code verify_run(struct args *args, struct call *call)
{
	CLEANUP(release) struct run run = { .call = call, .compares = args->against != NULL };
	/* A reader of stdout that goes away is no reason to stop: the answer is the exit status. */
	struct evbus_verify_options options = { .deep = args->deep,
						.repair = args->repair && !args->cut_at,
						.rebuild_keys = args->rebuild_keys,
						.partition_id = (int32_t)args->partition,
						.finding = on_finding,
						.progress = on_progress,
						.go_on = not_stopped,
						.context = &run };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL, *other = NULL;
	struct evbus_verify_result result;

	if (args->cut_at && !args->repair)
		return fail(call, EVBUS_USAGE, "--cut-at says where --repair cuts: give both");
	if (args->against && args->cut_at)
		return fail(call, EVBUS_USAGE, "--against compares, and cuts nothing: leave --cut-at out");
	TRY(bus_open(call, NULL, &bus));
	if (args->against)
		TRY(open_against(call, args->against, &other));
	options.against = other;
	if (args->cut_at)
		TRY(cut(call, bus, args));
	table_start(&run.table, columns, COUNT(columns), args->format);
	TRY(evbus_verify(bus, args->topic, &options, &result, &call->err));
	progress_clear();
	enum evbus_code printed = print_summary(&run, &result);
	if (!result.damages)
		return printed;
	say_what_next(&run);
	return printed && !out_is_closed() ? printed : EVBUS_NO;
}

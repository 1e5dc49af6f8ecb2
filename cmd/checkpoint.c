/* checkpoint.c: evbus checkpoint-list, checkpoint-get, checkpoint-set, checkpoint-remove
 *
 * What is listed as JSON or TSV is also how checkpoints are kept as files: checkpoint-set --from-file takes it back,
 * and listing it again gives the same bytes. checkpoint-remove lists what it removed, so that too can be taken back. */
#include "checkpoint_file.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

struct args {
	struct common common;
	const char *group;
	const char *topic;
	int64_t partition;
	struct position offset;
	const char *from_file;
	bool dry_run;
	const char *format;
};

#define PARTITION_OPT                                                                    \
	OPT('p', partition, "N", "only this partition", .unset = EVBUS_PARTITION_ALL, \
	    .max = EVBUS_PARTITIONS_MAX - 1)

#define MAKE_ONE                                                                          \
	{                                                                                 \
		"printf '{\"id\":\"1\"}\\n{\"id\":\"2\"}\\n' | evbus publish -q -t orders; " \
		"evbus checkpoint-set -q -g billing -t orders -o 1 --format tsv",         \
			"billing\torders\t0\t\\N\t1\tfile_line"                          \
	}

COMMAND(checkpoint_list,
	.summary = "list the checkpoints of groups, and how far behind they are",
	.opts = OPTS(
		OPT('g', group, "GROUP", "only of this group"),
		OPT('t', topic, "TOPIC", "only on this one, or a pattern: * for one token, > for the rest"),
		PARTITION_OPT, LIST_FORMAT_OPT, COMMON_OPTS),
	.examples = EXAMPLES(MAKE_ONE,
		{ "evbus checkpoint list -g billing --format tsv",
		  "billing\torders\t0\t1\tfile_line\t1\t0\t…\t…\t…Z" },
		{ "evbus checkpoint-list -t 'crm.>' --format json", "" }));

COMMAND(checkpoint_get,
	.summary = "print the checkpoint of a group on a topic",
	.opts = OPTS(
		OPT('g', group, "GROUP", "of which group", .required = true),
		OPT('t', topic, "TOPIC", "on which topic", .required = true),
		PARTITION_OPT, LIST_FORMAT_OPT, COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_NONE, "the group has no checkpoint there" }),
	.examples = EXAMPLES(MAKE_ONE,
		{ "evbus checkpoint-get -g billing -t orders --format json",
		  "{\"group\":\"billing\",\"topic\":\"orders\",\"partition_id\":0,\"next_offset\":\"1\","
		  "\"offset_kind\":\"file_line\",\"lag_records\":1,\"lag_seconds\":0,\"log_id\":\"…\","
		  "\"fingerprint\":\"…\",\"updated_at_utc\":\"…\"}" }));

COMMAND(checkpoint_set,
	.summary = "move the checkpoint of a group, and print where it was and is",
	.opts = OPTS(
		OPT('g', group, "GROUP", "of which group"),
		OPT('t', topic, "TOPIC", "on which topic"),
		PARTITION_OPT,
		OPT('o', offset, "POSITION", "the first that is not yet done: N, beginning, end, -N or @TIME"),
		OPT(0, from_file, "FILE", "all that checkpoint-list printed as json or tsv; - for standard input"),
		OPT(0, dry_run, "", "change nothing, print the same"),
		LIST_FORMAT_OPT, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_DATA, "a line of the file is not as checkpoint-list prints it" },
		{ EVBUS_AGAIN, "the group is being consumed there" },
		{ EVBUS_CONFLICT, "the position is not in the log" }),
	.examples = EXAMPLES(MAKE_ONE,
		{ "evbus checkpoint-set -g billing -t orders -o end --dry-run --format json",
		  "{\"group\":\"billing\",\"topic\":\"orders\",\"partition_id\":0,\"before\":\"1\",\"after\":\"2\","
		  "\"offset_kind\":\"file_line\"}" },
		{ "evbus checkpoint-list --format json >saved; evbus checkpoint-set --from-file saved --format tsv",
		  "billing\torders\t0\t1\t1\tfile_line" }));

COMMAND(checkpoint_remove,
	.summary = "remove checkpoints of a group, and print them",
	.opts = OPTS(
		OPT('g', group, "GROUP", "of which group", .required = true),
		OPT('t', topic, "TOPIC", "on which topic, or a pattern: * for one token, > for the rest",
		    .required = true),
		PARTITION_OPT,
		OPT(0, dry_run, "", "remove nothing, print the same"),
		LIST_FORMAT_OPT, COMMON_OPTS),
	.statuses = STATUSES(
		{ EVBUS_NONE, "the group has no checkpoint there" },
		{ EVBUS_AGAIN, "the group is being consumed there" }),
	.examples = EXAMPLES(MAKE_ONE,
		{ "evbus checkpoint-remove -g billing -t orders --format json >removed\n"
		  "evbus checkpoint-list --format tsv",
		  "" },
		{ "evbus checkpoint-set --from-file removed --format tsv", "billing\torders\t0\t\\N\t1\tfile_line" }));

/* ---- printing them --------------------------------------------------------------------------------------------- */

static const struct column listed[] = {
	{ "group", TEXT },         { "topic", TEXT },       { "partition_id", NUMBER }, { "next_offset", DIGITS },
	{ "offset_kind", TEXT },   { "lag_records", NUMBER }, { "lag_seconds", NUMBER }, { "log_id", TEXT },
	{ "fingerprint", TEXT },   { "updated_at_utc", TEXT },
};

struct listing {
	struct call *call;
	struct evbus *bus;
	struct table table;
	enum evbus_code failed;      /* a lag that could not be told is told of at the end */
	struct evbus_err failure;
};

static void list_cleanup(struct listing *list)
{
	table_cleanup(&list->table);
}

static void number_or_null(struct table *table, int64_t number)
{
	if (number < 0)
		table_null(table);
	else
		table_number(table, number);
}

static struct evbus_lag lag_of(struct listing *list, const struct evbus_checkpoint *checkpoint)
{
	struct evbus_lag lag;
	struct evbus_err err;
	enum evbus_code code = evbus_checkpoint_lag(list->bus, checkpoint, &lag, &err);

	if (!code)
		return lag;
	if (!list->failed)
		list->failure = err;
	list->failed = list->failed ? list->failed : code;
	return (struct evbus_lag){ -1, -1 };
}

static const char *or_null(const char *text)
{
	return text[0] ? text : NULL;
}

static void list_one(struct listing *list, const struct evbus_checkpoint *checkpoint)
{
	struct evbus_lag lag = lag_of(list, checkpoint);
	struct table *table = &list->table;

	table_text(table, checkpoint->group);
	table_text(table, checkpoint->topic);
	table_number(table, checkpoint->partition_id);
	table_text(table, checkpoint->next_offset);
	table_text(table, checkpoint->offset_kind);
	number_or_null(table, lag.records);
	number_or_null(table, lag.seconds);
	table_text(table, or_null(checkpoint->log_id));
	table_text(table, or_null(checkpoint->fingerprint));
	table_text(table, checkpoint->updated_at_utc);
}

static enum evbus_code list_end(struct listing *list)
{
	TRY(table_end(&list->table, list->call));
	if (list->failed)
		list->call->err = list->failure;
	return list->failed;
}

static void free_checkpoints(struct evbus_checkpoint **checkpoints)
{
	evbus_free(*checkpoints);
}

/* Keeps those of --partition. */
static enum evbus_code select_checkpoints(const struct args *args, struct call *call, struct evbus *bus,
					  struct evbus_checkpoint **checkpoints, size_t *count)
{
	size_t kept = 0;

	TRY(evbus_checkpoint_list(bus, args->group, args->topic, checkpoints, count, &call->err));
	for (size_t i = 0; i < *count; i++)
		if (args->partition == EVBUS_PARTITION_ALL || (*checkpoints)[i].partition_id == args->partition)
			(*checkpoints)[kept++] = (*checkpoints)[i];
	*count = kept;
	return EVBUS_OK;
}

static enum evbus_code none_there(const struct args *args, struct call *call)
{
	about_topic(call, args->topic, (int32_t)args->partition);
	if (args->partition == EVBUS_PARTITION_ALL)
		return fail(call, EVBUS_NONE, "the group '%s' has no checkpoint on the topic '%s'", args->group,
			    args->topic);
	return fail(call, EVBUS_NONE, "the group '%s' has no checkpoint on partition %lld of the topic '%s'",
		    args->group, (long long)args->partition, args->topic);
}

static enum evbus_code print_selected(const struct args *args, struct call *call, bool required)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(free_checkpoints) struct evbus_checkpoint *checkpoints = NULL;
	CLEANUP(list_cleanup) struct listing list = { .call = call };
	size_t count;

	TRY(bus_open(call, NULL, &bus));
	TRY(select_checkpoints(args, call, bus, &checkpoints, &count));
	if (!count && required)
		return none_there(args, call);
	list.bus = bus;
	table_start(&list.table, listed, COUNT(listed), args->format);
	for (size_t i = 0; i < count; i++)
		list_one(&list, &checkpoints[i]);
	return list_end(&list);
}

static enum evbus_code checkpoint_list_run(struct args *args, struct call *call)
{
	return print_selected(args, call, false);
}

static enum evbus_code checkpoint_get_run(struct args *args, struct call *call)
{
	TRY(evbus_topic_check(args->topic, false, &call->err));
	return print_selected(args, call, true);
}

static enum evbus_code checkpoint_remove_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(free_checkpoints) struct evbus_checkpoint *checkpoints = NULL;
	CLEANUP(list_cleanup) struct listing list = { .call = call };
	bool pattern = strpbrk(args->topic, "*>") != NULL;
	size_t count;

	TRY(bus_open(call, NULL, &bus));
	TRY(select_checkpoints(args, call, bus, &checkpoints, &count));
	if (!count && !pattern)
		return none_there(args, call);
	list.bus = bus;
	table_start(&list.table, listed, COUNT(listed), args->format);
	for (size_t i = 0; i < count; i++) {
		const struct evbus_checkpoint *at = &checkpoints[i];

		if (!args->dry_run) {
			enum evbus_code code =
				evbus_checkpoint_remove(bus, at->group, at->topic, at->partition_id, &list.failure);

			list.failed = code;
			if (code)
				break; /* those that are removed already are told of */
		}
		list_one(&list, at);
	}
	return list_end(&list);
}

/* ---- moving them ----------------------------------------------------------------------------------------------- */

/* What is moved: where to, and from where. */
struct moves {
	struct evbus_checkpoint *before, *after;
	size_t count;
};

static void moves_release(struct moves *moves)
{
	free(moves->before);
	free(moves->after);
}

static enum evbus_code no_memory(struct call *call, size_t count)
{
	fail(call, EVBUS_IO, "cannot take %zu checkpoints: out of memory", count);
	return EVBUS_IO;
}

static enum evbus_code moves_init(struct moves *moves, struct call *call, size_t count)
{
	moves->before = calloc(count, sizeof *moves->before);
	moves->after = calloc(count, sizeof *moves->after);
	moves->count = count;
	return moves->before && moves->after ? EVBUS_OK : no_memory(call, count);
}

static enum evbus_code print_moves(const struct args *args, struct call *call, const struct moves *moves)
{
	static const struct column columns[] = {
		{ "group", TEXT },    { "topic", TEXT },   { "partition_id", NUMBER },
		{ "before", DIGITS }, { "after", DIGITS }, { "offset_kind", TEXT },
	};
	CLEANUP(table_cleanup) struct table table = { .count = 0 };

	if (args->dry_run)
		talk(call, NOTICE, "nothing was changed: this is a dry run");
	table_start(&table, columns, COUNT(columns), args->format);
	for (size_t i = 0; i < moves->count; i++) {
		const struct evbus_checkpoint *after = &moves->after[i];

		table_text(&table, after->group);
		table_text(&table, after->topic);
		table_number(&table, after->partition_id);
		table_text(&table, or_null(moves->before[i].next_offset));
		table_text(&table, after->next_offset);
		table_text(&table, after->offset_kind);
	}
	return table_end(&table, call);
}

/* All partitions, or none: where each goes is asked first, and then they are moved together. */
static enum evbus_code move_all(const struct args *args, struct call *call, struct evbus *bus,
				struct evbus_partition_info *info, struct moves *moves)
{
	if (args->offset.text[strspn(args->offset.text, "0123456789")] == '\0')
		return fail(call, EVBUS_USAGE,
			    "'%s' is an offset in one partition, and topic '%s' has %u: choose one with --partition, or "
			    "use beginning, end, -N or @TIME",
			    args->offset.text, args->topic, info->partitions);
	TRY(moves_init(moves, call, info->partitions));
	for (size_t i = 0, most = moves->count; i < most; i++) {
		TRY(evbus_checkpoint_set(bus, args->group, args->topic, info->partition_id, args->offset.text, true,
					 &moves->before[i], &moves->after[i], &call->err));
		moves->count = i + 1;
		if (info->next_partition_id < 0)
			break;
		TRY(evbus_topic_describe(bus, args->topic, info->next_partition_id, info, &call->err));
	}
	if (args->dry_run)
		return EVBUS_OK;
	return evbus_checkpoint_restore(bus, moves->after, moves->count, &call->err);
}

static enum evbus_code move(const struct args *args, struct call *call, struct evbus *bus, struct moves *moves)
{
	int32_t partition = (int32_t)args->partition;
	struct evbus_partition_info info;

	about_topic(call, args->topic, partition);
	if (partition == EVBUS_PARTITION_ALL) {
		TRY(evbus_topic_check(args->topic, false, &call->err));
		TRY(evbus_topic_describe(bus, args->topic, partition, &info, &call->err));
		if (info.partitions > 1)
			return move_all(args, call, bus, &info, moves);
		partition = info.partition_id;
	}
	TRY(moves_init(moves, call, 1));
	return evbus_checkpoint_set(bus, args->group, args->topic, partition, args->offset.text, args->dry_run,
				    moves->before, moves->after, &call->err);
}

/* Where each of the file is now, and where it says. */
static enum evbus_code take_file(const struct args *args, struct call *call, struct evbus *bus, struct moves *moves)
{
	TRY(checkpoints_read(call, args->from_file, &moves->after, &moves->count));
	moves->before = calloc(moves->count + 1, sizeof *moves->before);
	if (!moves->before)
		return no_memory(call, moves->count);
	for (size_t i = 0; i < moves->count; i++) {
		const struct evbus_checkpoint *at = &moves->after[i];
		enum evbus_code code = evbus_checkpoint_get(bus, at->group, at->topic, at->partition_id,
							    &moves->before[i], &call->err);

		if (code && code != EVBUS_NONE)
			return code;
	}
	return args->dry_run ? EVBUS_OK : evbus_checkpoint_restore(bus, moves->after, moves->count, &call->err);
}

static enum evbus_code checkpoint_set_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(moves_release) struct moves moves = { .count = 0 };
	bool any = args->group || args->topic || args->offset.text || args->partition != EVBUS_PARTITION_ALL;

	if (args->from_file ? any : !args->group || !args->topic || !args->offset.text)
		return fail(call, EVBUS_USAGE, "say either --group, --topic and --offset, or --from-file alone");
	TRY(bus_open(call, NULL, &bus));
	if (args->from_file)
		TRY(take_file(args, call, bus, &moves));
	else
		TRY(move(args, call, bus, &moves));
	return print_moves(args, call, &moves);
}

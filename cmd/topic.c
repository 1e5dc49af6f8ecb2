/* topic.c: evbus topic-list, topic-create, topic-describe */
#include "out.h"

#include <string.h>

struct args {
	struct common common;
	const char *topic;
	int64_t partition;
	int64_t partitions;
	struct size segment_size;
	struct mode file_mode;
	const char *format;
};

COMMAND(topic_list,
	.summary = "list the topics of a bus",
	.takes = "[TOPIC]",
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "only this one, or a pattern: * for one token, > for the rest"),
		LIST_FORMAT_OPT,
		COMMON_OPTS),
	.examples = EXAMPLES(
		{ "evbus topic-create -q orders >/dev/null; evbus topic-list --format tsv", "orders\t1\t0\t0\t\\N" },
		{ "evbus topic list 'crm.>' --format json", "" }));

COMMAND(topic_create,
	.summary = "make a topic, and say what it is",
	.takes = "[TOPIC]",
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "its name: tokens of letters, digits, _ and -, joined by dots"),
		OPT(0, partitions, "N", "how many partitions", .min = 1, .max = EVBUS_PARTITIONS_MAX),
		OPT(0, segment_size, "SIZE", "begin a new file before one grows beyond this (default: 1GiB)", .min = 1),
		OPT(0, file_mode, "MODE", "of the files that are made", .preset = "0600"),
		LIST_FORMAT_OPT,
		COMMON_OPTS),
	.statuses = STATUSES({ EVBUS_CONFLICT, "the topic is there with other partitions or another segment size" }),
	.examples = EXAMPLES(
		{ "evbus topic-create -q orders --partitions 2 --segment-size 64M --format tsv",
		  "orders\t0\t0\t0\t0\t0\t\\N\t…\norders\t1\t0\t0\t0\t0\t\\N\t…" },
		{ "evbus topic create -q -t orders | wc -l", "3" }));

COMMAND(topic_describe,
	.summary = "tell what a topic holds, by partition",
	.takes = "[TOPIC]",
	.opts = OPTS(
		OPT('t', topic, "TOPIC", "which one, or a pattern: * for one token, > for the rest"),
		OPT('p', partition, "N", "only this partition", .unset = EVBUS_PARTITION_ALL,
		    .max = EVBUS_PARTITIONS_MAX - 1),
		LIST_FORMAT_OPT,
		COMMON_OPTS),
	.examples = EXAMPLES(
		{ "evbus topic-create -q orders | head -n 1",
		  "TOPIC   PARTITION_ID  FIRST_OFFSET  NEXT_OFFSET  RECORDS  BYTES  LAST_PUBLISHED_AT_UTC  …" },
		{ "evbus topic-describe orders --format json",
		  "{\"topic\":\"orders\",\"partition_id\":0,\"first_offset\":\"0\",\"next_offset\":\"0\",\"records\":0,"
		  "\"bytes\":0,\"last_published_at_utc\":null,\"acknowledgement\":\"…\",\"idempotence\":\"…\"}" }));

static void free_names(char ***names)
{
	evbus_free(*names);
}

/* The topic may be said as an operand, for hands, or as an option, as everywhere. NULL: neither. */
static enum evbus_code topic_of(const struct args *args, struct call *call, bool required, const char **topic)
{
	*topic = call->operand_count ? call->operands[0] : args->topic;
	if (call->operand_count && args->topic)
		return fail(call, EVBUS_USAGE, "operand '%s' is one too many beside --topic", call->operands[0]);
	if (required && !*topic)
		return fail(call, EVBUS_USAGE, "a topic is missing; name one with --topic");
	return EVBUS_OK;
}

/* ---- topic-list ------------------------------------------------------------------------------------------------ */

static void table_count(struct table *table, uint64_t count)
{
	if (count == UINT64_MAX)
		table_null(table);
	else
		table_number(table, (int64_t)count);
}

/* What is not known of one partition is not known of all. */
static void add_count(uint64_t *sum, uint64_t count)
{
	*sum = *sum == UINT64_MAX || count == UINT64_MAX ? UINT64_MAX : *sum + count;
}

static enum evbus_code list_topic(struct call *call, struct evbus *bus, const char *topic, struct table *table)
{
	struct evbus_partition_info info;
	char last[sizeof info.last_published_at_utc] = "";
	uint64_t records = 0, bytes = 0;

	info.next_partition_id = EVBUS_PARTITION_ALL;
	do {
		TRY(evbus_topic_describe(bus, topic, info.next_partition_id, &info, &call->err));
		add_count(&records, info.records);
		add_count(&bytes, info.bytes);
		/* All of one length and in UTC, so that text compares as time does. */
		if (strcmp(info.last_published_at_utc, last) > 0)
			memcpy(last, info.last_published_at_utc, sizeof last);
	} while (info.next_partition_id >= 0);
	table_text(table, topic);
	table_number(table, info.partitions);
	table_count(table, records);
	table_count(table, bytes);
	table_text(table, last[0] ? last : NULL);
	return EVBUS_OK;
}

static enum evbus_code topic_list_run(struct args *args, struct call *call)
{
	static const struct column columns[] = { { "topic", TEXT },
						 { "partitions", NUMBER },
						 { "records", NUMBER },
						 { "bytes", NUMBER },
						 { "last_published_at_utc", TEXT } };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(free_names) char **names = NULL;
	CLEANUP(table_cleanup) struct table table = { .count = 0 };
	const char *pattern;

	TRY(topic_of(args, call, false, &pattern));
	TRY(bus_open(call, NULL, &bus));
	TRY(evbus_topic_list(bus, pattern, &names, &call->err));
	table_start(&table, columns, COUNT(columns), args->format);
	for (char **name = names; *name; name++)
		TRY(list_topic(call, bus, *name, &table));
	return table_end(&table, call);
}

/* ---- topic-describe, topic-create ------------------------------------------------------------------------------ */

static const struct column described[] = { { "topic", TEXT },
					   { "partition_id", NUMBER },
					   { "first_offset", DIGITS },
					   { "next_offset", DIGITS },
					   { "records", NUMBER },
					   { "bytes", NUMBER },
					   { "last_published_at_utc", TEXT },
					   { "acknowledgement", TEXT },
					   { "idempotence", TEXT } };

static enum evbus_code describe_partition(struct call *call, struct evbus *bus, const char *topic, int32_t partition,
					  struct evbus_partition_info *info, struct table *table)
{
	about_topic(call, topic, partition);
	TRY(evbus_topic_describe(bus, topic, partition, info, &call->err));
	table_text(table, topic);
	table_number(table, info->partition_id);
	table_text(table, info->first_offset);
	table_text(table, info->next_offset);
	table_count(table, info->records);
	table_count(table, info->bytes);
	table_text(table, info->last_published_at_utc[0] ? info->last_published_at_utc : NULL);
	table_text(table, info->acknowledgement);
	table_text(table, info->idempotence);
	return EVBUS_OK;
}

static enum evbus_code describe_topic(struct call *call, struct evbus *bus, const char *topic, int64_t partition,
				      struct table *table)
{
	struct evbus_partition_info info = { .next_partition_id = EVBUS_PARTITION_ALL };

	if (partition != EVBUS_PARTITION_ALL)
		return describe_partition(call, bus, topic, (int32_t)partition, &info, table);
	do
		TRY(describe_partition(call, bus, topic, info.next_partition_id, &info, table));
	while (info.next_partition_id >= 0);
	return EVBUS_OK;
}

static bool is_pattern(const char *topic)
{
	return strpbrk(topic, "*>") != NULL;
}

static enum evbus_code topic_describe_run(struct args *args, struct call *call)
{
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(free_names) char **names = NULL;
	CLEANUP(table_cleanup) struct table table = { .count = 0 };
	const char *topic;

	TRY(topic_of(args, call, true, &topic));
	TRY(bus_open(call, NULL, &bus));
	table_start(&table, described, COUNT(described), args->format);
	if (!is_pattern(topic)) {
		TRY(describe_topic(call, bus, topic, args->partition, &table));
		return table_end(&table, call);
	}
	TRY(evbus_topic_list(bus, topic, &names, &call->err));
	for (char **name = names; *name; name++)
		TRY(describe_topic(call, bus, *name, args->partition, &table));
	return table_end(&table, call);
}

static enum evbus_code topic_create_run(struct args *args, struct call *call)
{
	const struct evbus_options options = { .file_mode = args->file_mode.bits };
	const struct evbus_topic_options wanted = { .partitions = (uint32_t)args->partitions,
						    .segment_max_bytes = (uint64_t)args->segment_size.bytes };
	CLEANUP(bus_cleanup) struct evbus *bus = NULL;
	CLEANUP(table_cleanup) struct table table = { .count = 0 };
	const char *topic;
	bool created;

	TRY(topic_of(args, call, true, &topic));
	TRY(bus_open(call, &options, &bus));
	TRY(evbus_topic_create(bus, topic, &wanted, &created, &call->err));
	if (!created)
		talk(call, NOTICE, "topic '%s' is there already", topic);
	table_start(&table, described, COUNT(described), args->format);
	TRY(describe_topic(call, bus, topic, EVBUS_PARTITION_ALL, &table));
	return table_end(&table, call);
}

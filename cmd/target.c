/* target.c: records that are published again. */
#include "target.h"
#include "out.h"

#include <stdio.h>
#include <string.h>

#define PAYLOAD_MAX_BYTES (3u * 1024 * 1024) /* what one bus has taken, the other takes as well */

static enum evbus_code write_failed(struct target *target, enum evbus_code code)
{
	target->call->err.code = code;
	return fail_within(target->call, "publishing to '%s'", target->name);
}

/* ---- receipts -------------------------------------------------------------------------------------------------- */

static enum evbus_code print_receipts(struct target *target)
{
	const struct evbus_record *receipt;
	enum evbus_code code = EVBUS_OK;

	while ((receipt = evbus_publisher_next(target->publisher)))
		if (!code && !target->quiet)
			code = out_receipt(target->call, receipt);
	return code;
}

/* A receipt is a promise: unlike records, those that nobody takes are a failure. */
enum evbus_code target_flush(struct target *target)
{
	struct call *call = target->call;
	enum evbus_code code = evbus_publisher_flush(target->publisher, &call->err);
	struct evbus_err first = call->err;
	enum evbus_code printed = print_receipts(target);

	printed = printed ? printed : out_flush(call);
	if (code) {
		call->err = first;
		return write_failed(target, code);
	}
	if (printed && out_is_closed())
		return fail(call, printed, "cannot print receipts: whoever read them is gone");
	return printed;
}

/* ---- a record -------------------------------------------------------------------------------------------------- */

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
static enum evbus_code origin_of(struct target *target, const struct evbus_record *record, struct evbus_slice *origin)
{
	char *text = target->origin_text;

	if (record->origin.data)
		return text_of(target->call, record->origin, text, sizeof target->origin_text, origin);
	int n = snprintf(text, sizeof target->origin_text, "%.*s/%d/%.*s", (int)record->topic.len, record->topic.data,
			 record->partition_id, (int)record->offset.len, record->offset.data);
	*origin = (struct evbus_slice){ text, (size_t)n };
	return EVBUS_OK;
}

static enum evbus_code key_of(struct target *target, const struct evbus_record *record, struct evbus_slice *key)
{
	*key = (struct evbus_slice){ target->key, target->key ? strlen(target->key) : 0 };
	if (target->key || target->key_from)
		return EVBUS_OK;
	return text_of(target->call, record->partition_key, target->key_text, sizeof target->key_text, key);
}

static const char *topic_of(struct target *target, const struct evbus_record *record)
{
	if (target->topic)
		return target->topic;
	memcpy(target->topic_text, record->topic.data, record->topic.len);
	target->topic_text[record->topic.len] = '\0';
	return target->topic_text;
}

static enum evbus_code add(struct target *target, const struct evbus_record *record, const char *topic)
{
	struct evbus_event event = { .topic = topic,
				     .payload = record->payload,
				     .payload_base64 = record->payload_base64,
				     .partition_id = target->partition,
				     .returns = record->returns };

	if (target->keeps_partition)
		event.partition_id = record->partition_id;
	TRY(key_of(target, record, &event.key));
	TRY(origin_of(target, record, &event.origin));
	return evbus_publisher_add(target->publisher, &event, &target->call->err);
}

static enum evbus_code refused(struct target *target, const struct evbus_record *record, const char *topic,
			       enum evbus_code code)
{
	struct call *call = target->call;

	about_record(call, record);
	if (code == EVBUS_USAGE && !target->key_from)
		fail(call, code,
		     "topic '%s' has several partitions, and the record has no key: choose one by --to-partition, "
		     "--key or --key-from",
		     topic);
	fail_within(call, "record %.*s/%d/%.*s", (int)record->topic.len, record->topic.data, record->partition_id,
		    (int)record->offset.len, record->offset.data);
	return write_failed(target, code);
}

static enum evbus_code open_publisher(struct target *target)
{
	const struct evbus_publisher_options publishing = { .key_from = target->key_from, .go_on = not_stopped };

	evbus_publisher_close(target->publisher);
	target->publisher = NULL;
	return evbus_publisher_open(target->bus, &publishing, &target->publisher, &target->call->err);
}

/* *sent: to a bus that refuses what it gets, after which a publisher takes no more. */
static enum evbus_code publish(struct target *target, const struct evbus_record *record, const char *topic, bool *sent)
{
	TRY(add(target, record, topic));
	*sent = target->one_by_one;
	return *sent ? evbus_publisher_flush(target->publisher, &target->call->err) : EVBUS_OK;
}

enum evbus_code target_publish(struct target *target, const struct evbus_record *record)
{
	const char *topic = topic_of(target, record);
	bool sent = false;
	enum evbus_code code = publish(target, record, topic, &sent);

	target->refused = false;
	if (!code)
		return print_receipts(target);
	/* Another failure may be that of what was added before, and the record is not to blame. */
	if (code != EVBUS_DATA && code != EVBUS_USAGE && code != EVBUS_NONE)
		return write_failed(target, code);
	code = refused(target, record, topic, code);
	struct evbus_err why = target->call->err;
	if (sent)
		TRY(open_publisher(target));
	target->call->err = why;
	target->refused = sent || code == EVBUS_DATA;
	return code;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Of the same number of partitions and segment size, if there are segments on that backend. */
static enum evbus_code make_topic(struct target *target, const char *topic, const struct evbus_partition_info *here)
{
	struct evbus_topic_options options = { here->partitions, here->segment_max_bytes };
	bool created;

	enum evbus_code code = evbus_topic_create(target->bus, topic, &options, &created, &target->call->err);
	if (code != EVBUS_CONFIG || !options.segment_max_bytes)
		return code;
	options.segment_max_bytes = 0;
	return evbus_topic_create(target->bus, topic, &options, &created, &target->call->err);
}

/* A topic that keeps its partitions needs as many on the other bus. */
static enum evbus_code prepare_topic(struct target *target, struct evbus *source, const char *source_url,
				     const char *topic)
{
	struct call *call = target->call;
	struct evbus_partition_info here, there;
	char masked[MASKED_MAX_BYTES];

	enum evbus_code code = evbus_topic_describe(source, topic, EVBUS_PARTITION_ALL, &here, &call->err);
	if (code == EVBUS_NONE)
		return EVBUS_OK;
	if (code) {
		mask_secrets(source_url, masked);
		call->err.code = code;
		return fail_within(call, "reading from '%s'", masked);
	}
	code = evbus_topic_describe(target->bus, topic, EVBUS_PARTITION_ALL, &there, &call->err);
	if (code == EVBUS_NONE)
		code = make_topic(target, topic, &here);
	else if (!code && target->keeps_partition && here.partitions != there.partitions)
		code = fail(call, EVBUS_CONFLICT,
			    "topic '%s' has %u partitions there and %u here: choose a partition by --to-partition, "
			    "--key or --key-from",
			    topic, there.partitions, here.partitions);
	return code ? write_failed(target, code) : EVBUS_OK;
}

static void free_names(char ***names)
{
	evbus_free(*names);
}

enum evbus_code target_open(struct target *target, struct evbus *source, const char *source_url, const char *pattern)
{
	CLEANUP(free_names) char **names = NULL;
	struct call *call = target->call;

	mask_secrets(target->url, target->name);
	enum evbus_code code = bus_open_other(call, target->url, PAYLOAD_MAX_BYTES, &target->bus);
	if (code)
		return write_failed(target, code);
	/* There are no topics that could be prepared, and no partitions to be kept. */
	bool writes_only = evbus_is_target(target->bus);
	bool keeps_topic = !target->topic && !writes_only;
	target->one_by_one = writes_only && target->skips;
	target->keeps_partition =
		keeps_topic && !target->key && !target->key_from && target->partition == EVBUS_PARTITION_ANY;
	if (keeps_topic)
		TRY(evbus_topic_list(source, pattern, &names, &call->err));
	for (char **name = names; name && *name; name++)
		TRY(prepare_topic(target, source, source_url, *name));
	code = open_publisher(target);
	return code ? write_failed(target, code) : EVBUS_OK;
}

void target_close(struct target *target)
{
	evbus_publisher_close(target->publisher);
	evbus_close(target->bus);
}

/* kafka_topics.c: topics of Kafka: found, made and listed. */
#include "backend/kafka.h"

#include "backend/names.h"
#include "event/partition.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define KAFKA_NAME_MAX 249u /* org.apache.kafka.common.internals.Topic */
#define PAUSE_US 20000
#define BATCH_ROOM_BYTES 4096u /* of a batch of one record: what is neither payload nor text */

/* ---- one topic ------------------------------------------------------------------------------------------------- */

/* Kafka's own id of a topic cannot be had of this librdkafka. So another topic under the same name is not told by its id,
 * only by an end before the checkpoint; another cluster is. */
static enum evbus_code set_log_id(struct kafka_topic *topic, struct evbus_err *err)
{
	char text[1 + 128 + sizeof topic->full_name];
	char *cluster = rd_kafka_clusterid(topic->kafka->consumers->handle, topic->kafka->timeout_ms);

	if (!cluster)
		return kafka_failed(topic->kafka, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL, err,
				    "learn which cluster topic '%s' is of", topic->full_name);
	for (int i = 0; i < 4; i++) {
		int len = snprintf(text, sizeof text, "%d%.127s/%s", i, cluster, topic->full_name);
		snprintf(topic->log_id + 8 * i, 9, "%08x", murmur2(text, (size_t)len));
	}
	rd_kafka_mem_free(topic->kafka->consumers->handle, cluster);
	return EVBUS_OK;
}

static enum evbus_code make(struct kafka *kafka, const char *name, struct kafka_topic **topic, struct evbus_err *err)
{
	struct kafka_topic *made = os.realloc(NULL, sizeof *made);

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
	*made = (struct kafka_topic){ .kafka = kafka };
	int len = snprintf(made->full_name, sizeof made->full_name, "%s%s%s", kafka->prefix ? kafka->prefix : "",
			   kafka->prefix ? "." : "", name);
	made->base = (struct backend_topic){
		.ops = &backend_kafka,
		.name = made->full_name + len - strlen(name),
		.log_id = made->log_id,
		.segment_max_bytes = UINT64_MAX,
	};
	*topic = made;
	if ((unsigned)len <= KAFKA_NAME_MAX)
		return EVBUS_OK;
	free(made);
	return err_set(err, EVBUS_USAGE, 0, "topic '%s' has a name of more than %u bytes with the prefix '%s'", name,
		       KAFKA_NAME_MAX, kafka->prefix);
}

static rd_kafka_resp_err_t look(const struct rd_kafka_metadata *metadata, uint32_t *partitions, bool *led)
{
	const struct rd_kafka_metadata_topic *found = metadata->topics;

	if (metadata->topic_cnt != 1 || found->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		return RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	*partitions = (uint32_t)found->partition_cnt;
	*led = *partitions > 0;
	for (uint32_t i = 0; i < *partitions; i++)
		*led &= found->partitions[i].leader >= 0;
	return found->err;
}

/* *led: each partition has a leader. */
static enum evbus_code find(struct kafka_topic *topic, bool *led, struct evbus_err *err)
{
	const struct rd_kafka_metadata *metadata;

	TRY(kafka_metadata(topic->kafka, topic->full_name, &metadata, err));
	rd_kafka_resp_err_t why = look(metadata, &topic->base.partitions, led);
	rd_kafka_metadata_destroy(metadata);
	if (why == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		return err_set(err, EVBUS_NONE, 0, "there is no topic '%s' on '%s'", topic->full_name,
			       topic->kafka->url.shown);
	if (why)
		return kafka_failed(topic->kafka, why, NULL, err, "look for topic '%s'", topic->full_name);
	topic->base.keys_among = topic->base.partitions;
	return set_log_id(topic, err);
}

enum evbus_code kafka_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				 struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct kafka_topic *opened = NULL;
	bool led;

	TRY(make(kafka_of(backend), name, &opened, err));
	TRY(find(opened, &led, err));
	*topic = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

void kafka_topic_close(struct backend_topic *topic)
{
	free(topic);
}

enum evbus_code kafka_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

enum evbus_code kafka_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	const struct kafka_topic *kafka_topic = kafka_topic_of(topic);
	const struct rd_kafka_metadata *metadata;
	uint32_t partitions;
	bool led;

	TRY(kafka_metadata(kafka_topic->kafka, kafka_topic->full_name, &metadata, err));
	rd_kafka_resp_err_t why = look(metadata, &partitions, &led);
	rd_kafka_metadata_destroy(metadata);
	/* Kafka adds partitions, and takes none away; one without a leader cannot be read yet. */
	if (!why && led && partitions > topic->partitions)
		topic->partitions = partitions;
	if (why != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed while it was %s", topic->name, doing);
}

/* ---- making one ------------------------------------------------------------------------------------------------ */

static enum evbus_code take_result(struct kafka_topic *topic, rd_kafka_event_t *event, bool *created,
				   struct evbus_err *err)
{
	const rd_kafka_CreateTopics_result_t *result = event ? rd_kafka_event_CreateTopics_result(event) : NULL;
	rd_kafka_resp_err_t why = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
	const char *text = event ? rd_kafka_event_error_string(event) : NULL;
	size_t count = 0;

	if (!why && result) {
		const rd_kafka_topic_result_t *const *topics = rd_kafka_CreateTopics_result_topics(result, &count);
		why = count ? rd_kafka_topic_result_error(topics[0]) : RD_KAFKA_RESP_ERR_UNKNOWN;
		text = count ? rd_kafka_topic_result_error_string(topics[0]) : NULL;
	}
	*created = !why;
	if (!why || why == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
		return EVBUS_OK;
	return kafka_failed(topic->kafka, why, text, err, "make topic '%s'", topic->full_name);
}

static enum evbus_code create(struct kafka_topic *topic, int partitions, bool *created, struct evbus_err *err)
{
	struct kafka *kafka = topic->kafka;
	rd_kafka_t *handle = kafka->consumers->handle;
	char why[256];
	rd_kafka_NewTopic_t *new =
		rd_kafka_NewTopic_new(topic->full_name, partitions, kafka->replicas, why, sizeof why);

	if (!new)
		return err_set(err, EVBUS_CONFIG, 0, "cannot make topic '%s' on '%s': %s", topic->full_name,
			       kafka->url.shown, why);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(handle, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_AdminOptions_set_request_timeout(options, kafka->timeout_ms, why, sizeof why);
	rd_kafka_AdminOptions_set_operation_timeout(options, kafka->timeout_ms, why, sizeof why);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(handle);
	rd_kafka_CreateTopics(handle, &new, 1, options, queue);
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, kafka->timeout_ms);
	enum evbus_code code = take_result(topic, event, created, err);
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_NewTopic_destroy(new);
	return code;
}

/* A topic that was just made is not known to every broker at once, nor are its leaders. */
static enum evbus_code find_made(struct kafka_topic *topic, struct evbus_err *err)
{
	int64_t end_us = os_monotonic_us() + (int64_t)topic->kafka->timeout_ms * 1000;

	for (;;) {
		bool led = false;
		enum evbus_code code = find(topic, &led, err);
		bool waits = code == EVBUS_OK ? !led : code == EVBUS_NONE || code == EVBUS_UNAVAILABLE;
		if (!waits || os_monotonic_us() > end_us)
			return code;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_US * 1000 }, NULL);
	}
}

static enum evbus_code find_or_create(struct kafka_topic *topic, uint32_t partitions, bool *created,
				      struct evbus_err *err)
{
	bool led;

	*created = false;
	enum evbus_code code = find(topic, &led, err);
	if (code != EVBUS_NONE || topic->kafka->no_create)
		return code;
	TRY(create(topic, partitions ? (int)partitions : 1, created, err));
	return find_made(topic, err);
}

enum evbus_code kafka_topic_create(struct backend *backend, const char *name, const struct evbus_topic_options *options,
				   struct backend_topic **topic, bool *created, struct evbus_err *err)
{
	static const struct evbus_topic_options none;
	CLEANUP(free_cleanup) struct kafka_topic *opened = NULL;

	options = options ? options : &none;
	if (options->partitions > EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_USAGE, 0, "a topic has at most %d partitions, not %u", EVBUS_PARTITIONS_MAX,
			       options->partitions);
	if (options->segment_max_bytes)
		return err_set(err, EVBUS_CONFIG, 0, "the brokers of Kafka say how large segments are: leave it out");
	TRY(make(kafka_of(backend), name, &opened, err));
	TRY(find_or_create(opened, options->partitions, created, err));
	uint32_t has = opened->base.partitions;
	if (options->partitions && options->partitions != has)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with %u partition%s, not %u", name, has,
			       has == 1 ? "" : "s", options->partitions);
	*topic = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

/* ---- what it takes --------------------------------------------------------------------------------------------- */

static size_t find_max(const rd_kafka_event_t *event)
{
	size_t resources = 0, entries = 0;
	uint64_t max = 0;
	const rd_kafka_DescribeConfigs_result_t *result =
		event ? rd_kafka_event_DescribeConfigs_result((rd_kafka_event_t *)(uintptr_t)event) : NULL;
	const rd_kafka_ConfigResource_t **found =
		result ? rd_kafka_DescribeConfigs_result_resources(result, &resources) : NULL;
	const rd_kafka_ConfigEntry_t **entry = resources ? rd_kafka_ConfigResource_configs(found[0], &entries) : NULL;

	for (size_t i = 0; i < entries; i++) {
		const char *value = rd_kafka_ConfigEntry_value(entry[i]);
		if (value && !strcmp(rd_kafka_ConfigEntry_name(entry[i]), "max.message.bytes"))
			(void)decimal_parse((struct evbus_slice){ value, strlen(value) }, &max);
	}
	return max > BATCH_ROOM_BYTES ? (size_t)max - BATCH_ROOM_BYTES : 0;
}

/* NULL: no answer. */
static rd_kafka_event_t *ask_settings(const struct kafka_topic *topic, int timeout_ms)
{
	rd_kafka_t *handle = topic->kafka->consumers->handle;
	rd_kafka_ConfigResource_t *asked = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic->full_name);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(handle, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(handle);
	char why[256];

	rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, why, sizeof why);
	rd_kafka_DescribeConfigs(handle, &asked, 1, options, queue);
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms);
	rd_kafka_queue_destroy(queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(asked);
	return event;
}

/* Brokers may keep it to themselves, and must say so: whoever took silence for that would have an event that is too large
 * refused together with those beside it. */
enum evbus_code kafka_message_max(const struct kafka_topic *topic, size_t *max, struct evbus_err *err)
{
	int64_t end_us = os_monotonic_us() + (int64_t)topic->kafka->timeout_ms * 1000;

	for (;;) {
		int left_ms = (int)((end_us - os_monotonic_us()) / 1000);
		rd_kafka_event_t *event = left_ms > 0 ? ask_settings(topic, left_ms) : NULL;
		rd_kafka_resp_err_t why = event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
		*max = why ? 0 : find_max(event);
		if (event)
			rd_kafka_event_destroy(event);
		if (why == RD_KAFKA_RESP_ERR__TIMED_OUT)
			return kafka_failed(topic->kafka, why, NULL, err, "learn what topic '%s' takes",
					    topic->full_name);
		if (why != RD_KAFKA_RESP_ERR__TRANSPORT)
			return EVBUS_OK;
		rd_kafka_poll(topic->kafka->consumers->handle, PAUSE_US / 1000);
	}
}

/* ---- all topics ------------------------------------------------------------------------------------------------ */

/* The name without the prefix, NULL: it is not of this bus, or no name that a topic of evbus can have. */
static const char *name_of(const struct kafka *kafka, const char *full_name)
{
	size_t len = kafka->prefix ? strlen(kafka->prefix) : 0;

	if (len && (strncmp(full_name, kafka->prefix, len) != 0 || full_name[len] != '.'))
		return NULL;
	const char *name = full_name + len + (len > 0);
	return evbus_topic_check(name, false, NULL) == EVBUS_OK ? name : NULL;
}

enum evbus_code kafka_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err)
{
	struct kafka *kafka = kafka_of(backend);
	const struct rd_kafka_metadata *metadata;

	CLEANUP(buf_release) struct buf found = { 0 };
	enum evbus_code code = EVBUS_OK;

	TRY(kafka_metadata(kafka, NULL, &metadata, err));
	for (int i = 0; i < metadata->topic_cnt && code == EVBUS_OK; i++) {
		const char *name = name_of(kafka, metadata->topics[i].topic);
		if (name)
			code = names_add(&found, pattern, (struct evbus_slice){ name, strlen(name) }, err);
	}
	rd_kafka_metadata_destroy(metadata);
	return code == EVBUS_OK ? names_give(&found, names, err) : code;
}

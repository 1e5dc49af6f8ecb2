/* kinesis_make.c: what a stream is, and making one, which the service takes its time for. */
#include "backend/kinesis.h"

#include "base/hash.h"
#include "event/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#define PATIENCE_US 300000000 /* for a stream that is being made */
#define NOTICE_US 2000000

/* Its name for Amazon, which no other has, and when it was made. */
static void set_log_id(struct kinesis_topic *topic, struct evbus_slice arn, struct evbus_slice made)
{
	uint64_t hash = hash_add(HASH_START, arn.data, arn.len), second = hash_add(hash, made.data, made.len);

	snprintf(topic->log_id, sizeof topic->log_id, "%016" PRIx64 "%016" PRIx64, hash_finish(hash),
		 hash_finish(second));
}

enum evbus_code kinesis_summary(struct kinesis_topic *topic, bool *active, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer;

	TRY(kinesis_request(topic->stream, &request, err));
	TRY(buf_add(&request, "}", 1, err));
	TRY(link_call(topic->kinesis->link, CALL_ASKS, "DescribeStreamSummary", &request, &answer, err,
		      "look at stream '%s'", topic->stream));
	struct evbus_slice summary = json_member(answer, "StreamDescriptionSummary");
	struct evbus_slice status = json_member(summary, "StreamStatus");
	set_log_id(topic, json_member(summary, "StreamARN"), json_member(summary, "StreamCreationTimestamp"));
	*active = json_equals(status, SLICE("ACTIVE")) || json_equals(status, SLICE("UPDATING"));
	if (!json_equals(status, SLICE("DELETING")))
		return EVBUS_OK;
	return err_set(err, EVBUS_NONE, 0, "there is no topic '%s' any more: the service is removing it",
		       topic->base.name);
}

static void tell(const struct kinesis_topic *topic)
{
	char text[512];

	if (!topic->kinesis->notice)
		return;
	snprintf(text, sizeof text, "topic '%s': waiting for the service to make the stream", topic->base.name);
	topic->kinesis->notice(topic->kinesis->notice_context, text);
}

enum evbus_code kinesis_await_stream(struct kinesis_topic *topic, struct evbus_err *err)
{
	int64_t begun_us = os_monotonic_us();
	bool active = false, told = false;

	for (unsigned n = 0;; n++) {
		if (!link_back_off(topic->kinesis->link, n))
			return err_set(err, EVBUS_AGAIN, EINTR, "stopped while the service makes stream '%s'",
				       topic->stream);
		TRY(kinesis_summary(topic, &active, err));
		int64_t waited_us = os_monotonic_us() - begun_us;
		if (active)
			return EVBUS_OK;
		if (waited_us > PATIENCE_US)
			return err_set(err, EVBUS_AGAIN, 0,
				       "the service has not finished making stream '%s': try again later",
				       topic->stream);
		if (!told && waited_us > NOTICE_US)
			tell(topic);
		told = told || waited_us > NOTICE_US;
	}
}

/* The number of shards that it begins with. Not every service takes it together with the stream. */
static enum evbus_code set_tag(struct kinesis_topic *topic, uint32_t shards, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer;

	TRY(kinesis_request(topic->stream, &request, err));
	TRY(json_put(&request, err, ",\"Tags\":{\"" KINESIS_TAG "\":\"%u\"}}", shards));
	return link_call(topic->kinesis->link, CALL_ASKS, "AddTagsToStream", &request, &answer, err,
			 "say of stream '%s' how many shards it begins with", topic->stream);
}

enum evbus_code kinesis_make_stream(struct kinesis_topic *topic, uint32_t shards, bool *made, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer;
	struct evbus_err why;

	TRY(kinesis_request(topic->stream, &request, err));
	TRY(json_put(&request, err, ",\"ShardCount\":%u,\"Tags\":{\"" KINESIS_TAG "\":\"%u\"}}", shards, shards));
	enum evbus_code code = link_call(topic->kinesis->link, CALL_ASKS, "CreateStream", &request, &answer, &why,
					 "make stream '%s'", topic->stream);
	*made = code == EVBUS_OK;
	if (code != EVBUS_OK && code != EVBUS_CONFLICT && err)
		*err = why;
	/* Of several who make it one wins. */
	if (code == EVBUS_CONFLICT)
		return EVBUS_OK;
	TRY(code);
	TRY(kinesis_await_stream(topic, err));
	return set_tag(topic, shards, err);
}

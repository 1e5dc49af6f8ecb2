/* kafka_write.c: publishing to a partition of Kafka.
 *
 * One client publishes for all writers of a bus, idempotently: what it sends again after a broken connection is written
 * once, and in order. What it cannot get rid of within the time-out it gives up; and then it is given up itself, so that
 * nothing of it is sent later: the next writer gets another one. With enable.gapless.guarantee nothing that follows a
 * record that was refused is written. */
#include "backend/kafka.h"

#include "backend/message.h"
#include "base/wait.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SLICE_MS 100
#define PURGE_MS 1000
#define HEADERS_MAX 8u
#define MEMBER_MAX_BYTES 1024u

/* Of a record that was sent. */
struct report {
	struct flight *flight;
	int64_t offset;
	rd_kafka_resp_err_t why;
	bool told;
};

/* A group that was sent. */
struct flight {
	struct flight *following; /* of the producer */
	size_t count, pending;
	bool failed; /* one of them has */
	struct report reports[];
};

struct producer {
	rd_kafka_t *handle;
	unsigned users; /* the bus, and the writers */
	struct flight *flights;
};

struct kafka_writer {
	struct partition_writer base;
	struct kafka *kafka;
	struct producer *producer; /* NULL: none yet */
	rd_kafka_topic_t *topic;
	struct flight *flight;
	int64_t end_us; /* of the time for it */
	struct buf room;
};

static struct kafka_writer *writing(struct partition_writer *writer)
{
	return (struct kafka_writer *)(void *)writer;
}

/* ---- the producer ---------------------------------------------------------------------------------------------- */

/* Whoever serves the client hears what became of the records of all. */
static void hear_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
	struct report *report = message->_private;
	struct flight *flight = report->flight;
	struct kafka *kafka = opaque;

	(void)handle;
	pthread_mutex_lock(&kafka->mutex);
	report->told = true;
	report->why = message->err;
	report->offset = message->offset;
	flight->failed |= message->err != 0;
	flight->pending--;
	pthread_mutex_unlock(&kafka->mutex);
}

static void leave(struct kafka *kafka, struct producer *producer)
{
	pthread_mutex_lock(&kafka->mutex);
	bool last = --producer->users == 0;
	pthread_mutex_unlock(&kafka->mutex);
	if (!last)
		return;
	/* Behind it nothing is reported any more. */
	rd_kafka_destroy(producer->handle);
	for (struct flight *at = producer->flights, *following; at; at = following) {
		following = at->following;
		free(at);
	}
	free(producer);
}

void kafka_leave_producer(struct kafka *kafka)
{
	pthread_mutex_lock(&kafka->mutex);
	struct producer *producer = kafka->producer;
	kafka->producer = NULL;
	pthread_mutex_unlock(&kafka->mutex);
	if (producer)
		leave(kafka, producer);
}

static enum evbus_code make_producer(struct kafka *kafka, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct producer *made = os.realloc(NULL, sizeof *made);

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot publish to the bus '%s'", kafka->url.shown);
	*made = (struct producer){ .users = 1 };
	TRY(kafka_publisher(kafka, hear_report, &made->handle, err));
	kafka->producer = made;
	made = NULL;
	return EVBUS_OK;
}

/* Takes the one that all use. It begins to connect when it is made. */
static enum evbus_code join(struct kafka_writer *writer, struct evbus_err *err)
{
	struct kafka *kafka = writer->kafka;

	pthread_mutex_lock(&kafka->mutex);
	enum evbus_code code = kafka->producer ? EVBUS_OK : make_producer(kafka, err);
	if (code == EVBUS_OK) {
		writer->producer = kafka->producer;
		writer->producer->users++;
	}
	pthread_mutex_unlock(&kafka->mutex);
	if (code == EVBUS_OK)
		writer->topic = rd_kafka_topic_new(writer->producer->handle,
						   kafka_topic_of(writer->base.topic)->full_name, NULL);
	return code;
}

static void part(struct kafka_writer *writer)
{
	if (!writer->producer)
		return;
	rd_kafka_topic_destroy(writer->topic);
	leave(writer->kafka, writer->producer);
	writer->producer = NULL;
}

enum evbus_code kafka_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				  struct partition_writer **writer, struct evbus_err *err)
{
	if (!topic_has_partition(topic, partition))
		return topic_no_partition(topic, partition, err);
	CLEANUP(free_cleanup) struct kafka_writer *opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", topic->name);
	*opened = (struct kafka_writer){
		.base = { .ops = &backend_kafka, .topic = topic, .partition = partition, .waiter = waiter },
		.kafka = kafka_topic_of(topic)->kafka,
	};
	TRY(kafka_message_max(kafka_topic_of(topic), &opened->base.message_max_bytes, err));
	TRY(join(opened, err));
	*writer = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void add_header(rd_kafka_headers_t *headers, const char *name, struct evbus_slice value)
{
	if (value.data)
		rd_kafka_header_add(headers, name, -1, value.data, (ssize_t)value.len);
}

/* Of the payload, for others: nothing where it is not there, or too long. */
static void add_member(rd_kafka_headers_t *headers, const char *name, struct evbus_slice value)
{
	char text[MEMBER_MAX_BYTES];
	size_t len = value.data ? evbus_json_text(value, text, sizeof text) : SIZE_MAX;

	if (len <= sizeof text)
		add_header(headers, name, (struct evbus_slice){ text, len });
}

static rd_kafka_headers_t *headers_of(const struct message *message)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(HEADERS_MAX);
	char time[TIME_TEXT_LEN], returns[20];
	struct evbus_envelope envelope;

	clock_format(message->time_us, time);
	add_header(headers, MESSAGE_TIME, (struct evbus_slice){ time, sizeof time });
	add_header(headers, MESSAGE_TENANT, message->tenant_id);
	add_header(headers, MESSAGE_EVENT_KEY, message->event_key);
	add_header(headers, MESSAGE_ORIGIN, message->origin);
	if (message->returns)
		add_header(headers, MESSAGE_RETURNS,
			   (struct evbus_slice){ returns, decimal_format(message->returns, returns) });
	if (evbus_envelope_read(message->payload, &envelope, NULL) == EVBUS_OK) {
		add_member(headers, MESSAGE_EVENT_ID, envelope.event_id);
		add_member(headers, MESSAGE_EVENT_TYPE, envelope.event_type);
	}
	return headers;
}

static rd_kafka_resp_err_t send_one(const struct kafka_writer *writer, const struct message *message,
				    struct report *report)
{
	rd_kafka_headers_t *headers = headers_of(message);
	const rd_kafka_vu_t parts[] = {
		{ .vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = writer->topic },
		{ .vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = writer->base.partition },
		{ .vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY },
		{ .vtype = RD_KAFKA_VTYPE_VALUE,
		  .u.mem = { (void *)(uintptr_t)message->payload.data, message->payload.len } },
		{ .vtype = RD_KAFKA_VTYPE_KEY, .u.mem = { (void *)(uintptr_t)message->key.data, message->key.len } },
		{ .vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = message->time_us / 1000 },
		{ .vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers },
		{ .vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = report },
	};
	rd_kafka_error_t *error = rd_kafka_produceva(writer->producer->handle, parts, sizeof parts / sizeof *parts);
	rd_kafka_resp_err_t why = error ? rd_kafka_error_code(error) : RD_KAFKA_RESP_ERR_NO_ERROR;

	/* Sent, they are the message's. */
	if (why)
		rd_kafka_headers_destroy(headers);
	if (error)
		rd_kafka_error_destroy(error);
	return why;
}

/* Waits while librdkafka has its hands full. */
static rd_kafka_resp_err_t send_in_time(const struct kafka_writer *writer, const struct message *message,
					struct report *report)
{
	for (;;) {
		rd_kafka_resp_err_t why = send_one(writer, message, report);
		if (why != RD_KAFKA_RESP_ERR__QUEUE_FULL || os_monotonic_us() >= writer->end_us)
			return why;
		rd_kafka_flush(writer->producer->handle, SLICE_MS);
	}
}

static struct flight *begin_flight(struct kafka_writer *writer, size_t count)
{
	struct flight *flight = os.realloc(NULL, sizeof *flight + count * sizeof *flight->reports);

	if (!flight)
		return NULL;
	*flight = (struct flight){ .count = count, .pending = count };
	for (size_t i = 0; i < count; i++)
		flight->reports[i] = (struct report){ .flight = flight, .offset = -1 };
	pthread_mutex_lock(&writer->kafka->mutex);
	flight->following = writer->producer->flights;
	writer->producer->flights = flight;
	pthread_mutex_unlock(&writer->kafka->mutex);
	writer->flight = flight;
	return flight;
}

/* From the i-th on nothing was sent; commit says so. */
static void give_up_rest(struct kafka_writer *writer, size_t i, rd_kafka_resp_err_t why)
{
	struct flight *flight = writer->flight;

	pthread_mutex_lock(&writer->kafka->mutex);
	for (; i < flight->count; i++) {
		flight->reports[i].told = true;
		flight->reports[i].why = why;
		flight->pending--;
	}
	flight->failed = true;
	pthread_mutex_unlock(&writer->kafka->mutex);
}

static enum evbus_code check(const struct partition_writer *writer, const struct group *group, uint64_t expect,
			     struct evbus_err *err)
{
	if (expect != UINT64_MAX)
		return err_set(err, EVBUS_CONFIG, 0,
			       "topic '%s' is on Kafka, which cannot append at an expected offset only",
			       writer->topic->name);
	if (group->atomic && group_count(group) > 1)
		return err_set(err, EVBUS_CONFIG, 0,
			       "topic '%s' is on Kafka, where several events are not appended as one",
			       writer->topic->name);
	return group_check_deadline(group, writer->topic->name, err);
}

enum evbus_code kafka_append(struct partition_writer *writer, struct group *group, uint64_t expect,
			     struct evbus_err *err)
{
	struct kafka_writer *kafka = writing(writer);
	size_t count = group_count(group);
	struct message message;

	TRY(check(writer, group, expect, err));
	if (!kafka->producer)
		TRY(join(kafka, err));
	if (!begin_flight(kafka, count))
		return err_set(err, EVBUS_IO, ENOMEM, "cannot publish to topic '%s'", writer->topic->name);
	kafka->end_us = os_monotonic_us() + (int64_t)kafka->kafka->timeout_ms * 1000;
	for (size_t i = 0; i < count; i++) {
		rd_kafka_resp_err_t why = RD_KAFKA_RESP_ERR__FAIL;
		if (message_of(group, i, &kafka->room, &message, err) == EVBUS_OK)
			why = send_in_time(kafka, &message, &kafka->flight->reports[i]);
		if (why) {
			give_up_rest(kafka, i, why);
			break;
		}
	}
	return EVBUS_OK;
}

/* ---- waiting for the answers ----------------------------------------------------------------------------------- */

static size_t pending(const struct kafka_writer *writer, bool *failed)
{
	pthread_mutex_lock(&writer->kafka->mutex);
	size_t count = writer->flight->pending;
	*failed = writer->flight->failed;
	pthread_mutex_unlock(&writer->kafka->mutex);
	return count;
}

/* Until each is answered, or there is no more use in waiting. false: the waiter gave up. */
static bool await(const struct kafka_writer *writer)
{
	struct wait wait = { .waiter = writer->base.waiter };
	rd_kafka_t *handle = writer->producer->handle;
	bool failed = false, purged = false;

	while (pending(writer, &failed) && os_monotonic_us() < writer->end_us) {
		/* What was not sent yet must not come behind what is missing. */
		if (failed && !purged)
			rd_kafka_purge(handle, RD_KAFKA_PURGE_F_QUEUE);
		purged = failed;
		if (!wait_goes_on(&wait))
			return false;
		rd_kafka_flush(handle, SLICE_MS);
	}
	return true;
}

/* So many of the first were acknowledged. */
static size_t count_acknowledged(const struct kafka_writer *writer)
{
	const struct flight *flight = writer->flight;
	size_t count = 0;

	pthread_mutex_lock(&writer->kafka->mutex);
	while (count < flight->count && flight->reports[count].told && !flight->reports[count].why &&
	       flight->reports[count].offset >= 0)
		count++;
	pthread_mutex_unlock(&writer->kafka->mutex);
	return count;
}

/* Gives the lines the offsets that they have got; those that were expected they have already. */
static enum evbus_code stamp(struct group *group, const struct flight *flight, size_t acknowledged,
			     struct evbus_err *err)
{
	CLEANUP(free_cleanup) uint64_t *offsets = os.realloc(NULL, (flight->count + 1) * sizeof *offsets);
	bool as_expected = true;

	if (!offsets)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot keep the receipts");
	for (size_t i = 0; i < flight->count; i++) {
		offsets[i] = group_entry(group, i)->offset;
		if (i < acknowledged && offsets[i] != (uint64_t)flight->reports[i].offset) {
			offsets[i] = (uint64_t)flight->reports[i].offset;
			as_expected = false;
		}
	}
	return as_expected ? EVBUS_OK : group_stamp_each(group, offsets, err);
}

/* The producer gets rid of nothing that it still has: it is left, and others take another one. */
static void abandon(struct kafka_writer *writer)
{
	struct kafka *kafka = writer->kafka;

	rd_kafka_purge(writer->producer->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	rd_kafka_flush(writer->producer->handle, PURGE_MS);
	pthread_mutex_lock(&kafka->mutex);
	bool current = kafka->producer == writer->producer;
	pthread_mutex_unlock(&kafka->mutex);
	if (current)
		kafka_leave_producer(kafka);
}

static enum evbus_code explain(const struct kafka_writer *writer, size_t acknowledged, bool gave_up,
			       struct evbus_err *err)
{
	const struct flight *flight = writer->flight;
	const struct report *report = &flight->reports[acknowledged];
	const char *name = kafka_topic_of(writer->base.topic)->full_name;

	if (gave_up)
		return err_set(err, EVBUS_AGAIN, EINTR, "stopped while '%s' was asked to take %zu events",
			       writer->kafka->url.shown, flight->count - acknowledged);
	if (report->told && !report->why)
		return err_set(err, EVBUS_UNAVAILABLE, 0, "'%s' has an event of topic '%s', and does not say where",
			       writer->kafka->url.shown, name);
	return kafka_failed(writer->kafka, report->told ? report->why : RD_KAFKA_RESP_ERR__MSG_TIMED_OUT, NULL, err,
			    "publish %zu of %zu events to topic '%s'", flight->count - acknowledged, flight->count,
			    name);
}

static void end_flight(struct kafka_writer *writer)
{
	struct flight **at = &writer->producer->flights;

	pthread_mutex_lock(&writer->kafka->mutex);
	while (*at != writer->flight)
		at = &(*at)->following;
	*at = writer->flight->following;
	pthread_mutex_unlock(&writer->kafka->mutex);
	free(writer->flight);
	writer->flight = NULL;
}

enum evbus_code kafka_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err)
{
	struct kafka_writer *kafka = writing(writer);
	size_t count = kafka->flight->count;

	assert(count == group_count(group));
	bool gave_up = !await(kafka);
	size_t acknowledged = count_acknowledged(kafka);
	if (acknowledged < count) {
		abandon(kafka);
		/* Some may have been answered at the last moment. */
		acknowledged = count_acknowledged(kafka);
	}
	enum evbus_code code = stamp(group, kafka->flight, acknowledged, err);
	group->acknowledged = code == EVBUS_OK ? acknowledged : 0;
	if (code == EVBUS_OK && acknowledged < count)
		code = explain(kafka, acknowledged, gave_up, err);
	if (acknowledged) {
		writer->expected_next = (uint64_t)kafka->flight->reports[acknowledged - 1].offset + 1;
		writer->expected_time_us = group_entry(group, acknowledged - 1)->time_us;
	}
	if (acknowledged == count)
		end_flight(kafka);
	else
		part(kafka);
	kafka->flight = NULL;
	return code;
}

void kafka_writer_close(struct partition_writer *writer)
{
	struct kafka_writer *kafka = writing(writer);

	/* Sent, and nobody has asked what became of it. */
	if (kafka->flight && kafka_is_here(kafka->kafka))
		abandon(kafka);
	if (kafka_is_here(kafka->kafka))
		part(kafka);
	buf_release(&kafka->room);
	free(kafka);
}

/* kafka_read.c: reading a partition of Kafka.
 *
 * Offsets have gaps: of what compaction removed, of aborted transactions, and of the markers that end each of them. So a
 * read ends where the answer says that nothing more is there (RD_KAFKA_RESP_ERR__PARTITION_EOF), or at the first record
 * beyond. The end is that of what is committed: librdkafka asks with the isolation level that it reads with.
 *
 * Nothing is fetched before the first record is wanted. What librdkafka has fetched rings a bell, an eventfd, so that a
 * signal ends the wait. */
#include "backend/kafka.h"

#include "backend/message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH_RECORDS 512
#define SLICE_MS 100
#define NUDGE_MS 2
#define BEFORE_RECORDS 256u /* who went back may go back again */
#define LAST_STEPS 6 /* looks for the last record 1, 8, 64, … offsets before the end */
#define LAST_FACTOR 8u

struct kafka_reader {
	struct partition_reader base;
	struct kafka *kafka;
	struct kafka_reader *following; /* of those that fetch */
	struct consumer *consumer; /* NULL: it does not fetch */
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	int bell;
	bool jumps; /* it went back before, to what was not here */
	rd_kafka_message_t *batch[BATCH_RECORDS];
	size_t count, given; /* of those */
	struct buf text; /* of the line that was given out */
};

static struct kafka_reader *reading(const struct partition_reader *reader)
{
	return (struct kafka_reader *)(uintptr_t)reader;
}

static const char *full_name(const struct kafka_reader *reader)
{
	return kafka_topic_of(reader->base.topic)->full_name;
}

/* ---- fetching -------------------------------------------------------------------------------------------------- */

/* What was given out stays until then: whoever looks for a record often wants one that was there just now. */
static void drop_batch(struct kafka_reader *reader)
{
	for (size_t i = 0; i < reader->count; i++)
		rd_kafka_message_destroy(reader->batch[i]);
	reader->given = reader->count = 0;
}

static void stop(struct kafka_reader *reader)
{
	struct kafka_reader **at = &reader->kafka->readers;

	if (!reader->consumer || !kafka_is_here(reader->kafka))
		return;
	drop_batch(reader);
	rd_kafka_consume_stop(reader->topic, reader->base.partition);
	rd_kafka_queue_destroy(reader->queue);
	rd_kafka_topic_destroy(reader->topic);
	close(reader->bell);
	while (*at != reader)
		at = &(*at)->following;
	*at = reader->following;
	reader->consumer = NULL;
}

/* One that does not fetch this partition for another reader; not the first: brokers answer the requests of a connection one
 * by one, and who asks something would wait for a fetch that is held back until something comes. */
static enum evbus_code find_consumer(struct kafka_reader *reader, struct consumer **consumer, struct evbus_err *err)
{
	for (struct consumer *at = reader->kafka->consumers->following; at; at = at->following) {
		const struct kafka_reader *other = reader->kafka->readers;
		while (other && (other->consumer != at || other->base.partition != reader->base.partition ||
				 strcmp(full_name(other), full_name(reader)) != 0))
			other = other->following;
		if (!other) {
			*consumer = at;
			return EVBUS_OK;
		}
	}
	return kafka_consumer(reader->kafka, consumer, err);
}

static enum evbus_code fetch_from(struct kafka_reader *reader, uint64_t offset, struct evbus_err *err)
{
	static const uint64_t ring = 1;
	struct consumer *consumer = NULL;

	TRY(find_consumer(reader, &consumer, err));
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (bell < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read topic '%s'", reader->base.topic->name);
	rd_kafka_topic_t *topic = rd_kafka_topic_new(consumer->handle, full_name(reader), NULL);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(consumer->handle);
	rd_kafka_queue_io_event_enable(queue, bell, &ring, sizeof ring);
	if (rd_kafka_consume_start_queue(topic, reader->base.partition, (int64_t)offset, queue)) {
		rd_kafka_resp_err_t why = rd_kafka_last_error();
		rd_kafka_queue_destroy(queue);
		rd_kafka_topic_destroy(topic);
		close(bell);
		return kafka_failed(reader->kafka, why, NULL, err, "read topic '%s'", full_name(reader));
	}
	reader->consumer = consumer;
	reader->topic = topic;
	reader->queue = queue;
	reader->bell = bell;
	reader->following = reader->kafka->readers;
	reader->kafka->readers = reader;
	return EVBUS_OK;
}

/* Waits until there is something in the batch, at most so long. false: a signal came. */
static bool take(struct kafka_reader *reader, int timeout_ms)
{
	struct pollfd bell = { .fd = reader->bell, .events = POLLIN };
	uint64_t rung;

	if (reader->given < reader->count)
		return true;
	/* First the bell: what comes behind it rings again. */
	if (read(reader->bell, &rung, sizeof rung) < 0 && errno != EAGAIN)
		return false;
	drop_batch(reader);
	ssize_t count = rd_kafka_consume_batch_queue(reader->queue, 0, reader->batch, BATCH_RECORDS);
	reader->count = count > 0 ? (size_t)count : 0;
	if (reader->count || !timeout_ms)
		return true;
	bool signalled = poll(&bell, 1, timeout_ms) < 0 && errno == EINTR;
	/* What is wrong with a connection is told meanwhile. */
	rd_kafka_poll(reader->consumer->handle, 0);
	return !signalled;
}

/* Passes over the ends that were told, behind which more may come, and over what stands before `next`. */
static void pass(struct kafka_reader *reader)
{
	for (; reader->given < reader->count; reader->given++) {
		const rd_kafka_message_t *message = reader->batch[reader->given];
		uint64_t at = (uint64_t)message->offset;
		if (message->err ? message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF : at >= reader->base.next)
			return;
		at = at < reader->base.end ? at : reader->base.end;
		if (at > reader->base.next)
			reader->base.next = at;
	}
}

/* ---- positions ------------------------------------------------------------------------------------------------- */

static enum evbus_code ask_offset(struct kafka_reader *reader, int64_t time_ms, int64_t *offset, struct evbus_err *err)
{
	return kafka_offset(reader->kafka, full_name(reader), reader->base.partition, time_ms, offset, err);
}

static enum evbus_code ask_end(struct kafka_reader *reader, int64_t which, uint64_t *end, struct evbus_err *err)
{
	int64_t offset = -1;

	TRY(ask_offset(reader, which, &offset, err));
	if (offset < 0)
		return err_set(err, EVBUS_UNAVAILABLE, 0, "'%s' does not say where topic '%s', partition %d %s",
			       reader->kafka->url.shown, full_name(reader), reader->base.partition,
			       which == RD_KAFKA_OFFSET_END ? "ends" : "begins");
	*end = (uint64_t)offset;
	return EVBUS_OK;
}

static enum evbus_code gone(const struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	return err_set(err, EVBUS_NONE, 0,
		       "offset %llu of topic '%s', partition %d is gone: the oldest that the topic keeps is %llu",
		       (unsigned long long)position, reader->topic->name, reader->partition,
		       (unsigned long long)reader->first);
}

static enum evbus_code cut(const struct partition_reader *reader, uint64_t end, struct evbus_err *err)
{
	return err_set(
		err, EVBUS_CONFLICT, 0,
		"topic '%s', partition %d ends at offset %llu, and ended at %llu before: it was removed and made "
		"again, or the brokers have lost something",
		reader->topic->name, reader->partition, (unsigned long long)end, (unsigned long long)reader->end);
}

enum evbus_code kafka_refresh(struct partition_reader *reader, struct evbus_err *err)
{
	uint64_t end = 0;

	TRY(ask_end(reading(reader), RD_KAFKA_OFFSET_END, &end, err));
	if (end < reader->end)
		return cut(reader, end, err);
	reader->end = end;
	return EVBUS_OK;
}

/* What stood at `next` is not there, say the brokers. */
static enum evbus_code explain(struct kafka_reader *reader, struct evbus_err *err)
{
	struct partition_reader *base = &reader->base;
	uint64_t next = base->next;

	TRY(ask_end(reader, RD_KAFKA_OFFSET_BEGINNING, &base->first, err));
	TRY(kafka_refresh(base, err));
	if (next < base->first)
		return gone(base, next, err);
	return err_set(err, EVBUS_CONFLICT, 0, "offset %llu of topic '%s', partition %d cannot be read any more",
		       (unsigned long long)next, base->topic->name, base->partition);
}

/* Whether it comes by going on, or back to the beginning of what is here: to fetch from somewhere else takes as long as
 * the answer to the last request is held back. */
static bool go_to(struct kafka_reader *reader, uint64_t position)
{
	uint64_t next = reader->base.next;

	if (!reader->consumer || (position >= next && position - next <= BATCH_RECORDS))
		return true;
	if (!reader->count || (uint64_t)reader->batch[0]->offset > position || position > next)
		return false;
	for (size_t i = 0; i < reader->count; i++)
		if (reader->batch[i]->err && reader->batch[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
			return false;
	reader->given = 0;
	return true;
}

enum evbus_code kafka_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	struct kafka_reader *kafka = reading(reader);

	if (position < reader->first)
		return gone(reader, position, err);
	position = position < reader->end ? position : reader->end;
	if (!go_to(kafka, position)) {
		stop(kafka);
		kafka->jumps |= position < reader->next;
	}
	reader->next = position;
	return EVBUS_OK;
}

enum evbus_code kafka_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				  struct partition_reader **reader, struct evbus_err *err)
{
	(void)chunk;
	(void)ahead;
	if (!topic_has_partition(topic, partition))
		return topic_no_partition(topic, partition, err);
	CLEANUP(free_cleanup) struct kafka_reader *opened = os.realloc(NULL, sizeof *opened);
	if (!opened)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->name);
	*opened = (struct kafka_reader){
		.base = { .ops = &backend_kafka, .topic = topic, .partition = partition },
		.kafka = kafka_topic_of(topic)->kafka,
	};
	TRY(ask_end(opened, RD_KAFKA_OFFSET_BEGINNING, &opened->base.first, err));
	TRY(kafka_refresh(&opened->base, err));
	opened->base.next = opened->base.first;
	*reader = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

void kafka_reader_close(struct partition_reader *reader)
{
	stop(reading(reader));
	buf_release(&reading(reader)->text);
	free(reader);
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static struct evbus_slice header(const rd_kafka_headers_t *headers, const char *name)
{
	struct evbus_slice value = { NULL, 0 };
	const void *data;

	/* Of several the last is what its producer meant. */
	if (headers && !rd_kafka_header_get_last(headers, name, &data, &value.len) && data)
		value.data = data;
	return value;
}

static int64_t time_of(const rd_kafka_message_t *message, const rd_kafka_headers_t *headers)
{
	struct evbus_slice text = header(headers, MESSAGE_TIME);
	rd_kafka_timestamp_type_t type;
	int64_t time_us;

	if (text.len == TIME_TEXT_LEN && clock_parse_exact(text.data, &time_us))
		return time_us;
	int64_t time_ms = rd_kafka_message_timestamp(message, &type);
	return time_ms > 0 && time_ms <= TIME_MAX_US / 1000 ? time_ms * 1000 : 0;
}

static enum evbus_code line_of(struct kafka_reader *reader, const rd_kafka_message_t *from, struct line *line,
			       struct evbus_err *err)
{
	rd_kafka_headers_t *headers = NULL;
	uint64_t returns = 0;

	if (rd_kafka_message_headers(from, &headers))
		headers = NULL;
	struct evbus_slice count = header(headers, MESSAGE_RETURNS);
	if (!count.data || !decimal_parse(count, &returns) || returns > UINT32_MAX)
		returns = 0;
	const struct message message = {
		.key = { from->key, from->key_len },
		.tenant_id = header(headers, MESSAGE_TENANT),
		.event_key = header(headers, MESSAGE_EVENT_KEY),
		.origin = header(headers, MESSAGE_ORIGIN),
		.payload = { from->payload ? from->payload : "", from->len },
		.returns = (uint32_t)returns,
		.offset = (uint64_t)from->offset,
		.time_us = time_of(from, headers),
	};
	return message_line(&reader->text, &message, line, err);
}

static enum evbus_code not_in_time(struct kafka_reader *reader, struct evbus_err *err)
{
	return kafka_failed(reader->kafka, RD_KAFKA_RESP_ERR__TIMED_OUT, NULL, err, "read offset %llu of topic '%s'",
			    (unsigned long long)reader->base.next, full_name(reader));
}

static enum evbus_code refused(struct kafka_reader *reader, const rd_kafka_message_t *message, struct evbus_err *err)
{
	if (message->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
	    message->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE)
		return explain(reader, err);
	return kafka_failed(reader->kafka, message->err, rd_kafka_message_errstr(message), err, "read topic '%s'",
			    full_name(reader));
}

static enum evbus_code begin(struct kafka_reader *reader, struct evbus_err *err)
{
	uint64_t next = reader->base.next, more = next - reader->base.first;

	if (!reader->jumps)
		more = 0;
	return fetch_from(reader, next - (more < BEFORE_RECORDS ? more : BEFORE_RECORDS), err);
}

/* librdkafka does not notice for a second that there is room again in a queue that was full. It looks when it has something
 * to send. */
static void nudge(const struct kafka_reader *reader)
{
	int64_t offset = -1;

	kafka_ask_offset(reader->consumer->handle, full_name(reader), reader->base.partition, RD_KAFKA_OFFSET_END,
			 SLICE_MS, &offset);
}

/* Waits for a record, or for `next` to come to the limit without one. */
static enum evbus_code await(struct kafka_reader *reader, uint64_t limit, struct evbus_err *err)
{
	int64_t end_us = 0;

	if (!reader->consumer)
		TRY(begin(reader, err));
	for (bool first = true;; first = false) {
		pass(reader);
		if (reader->given < reader->count || reader->base.next >= limit)
			return EVBUS_OK;
		int64_t now_us = os_monotonic_us();
		end_us = end_us ? end_us : now_us + (int64_t)reader->kafka->timeout_ms * 1000;
		if (now_us >= end_us)
			return not_in_time(reader, err);
		take(reader, first ? NUDGE_MS : SLICE_MS);
		if (first && !reader->count && take(reader, 0) && !reader->count)
			nudge(reader);
	}
}

enum evbus_code kafka_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
			   struct evbus_err *err)
{
	struct kafka_reader *kafka = reading(reader);
	uint64_t limit = end < reader->end ? end : reader->end;

	*got = false;
	if (reader->next >= limit)
		return EVBUS_OK;
	TRY(await(kafka, limit, err));
	if (kafka->given == kafka->count)
		return EVBUS_OK;
	const rd_kafka_message_t *message = kafka->batch[kafka->given];
	if (message->err)
		return refused(kafka, message, err);
	/* It stays for another time; what is asked for ends before it. */
	if ((uint64_t)message->offset >= limit) {
		reader->next = limit;
		return EVBUS_OK;
	}
	TRY(line_of(kafka, message, line, err));
	reader->next = (uint64_t)message->offset + 1;
	kafka->given++;
	*got = true;
	return EVBUS_OK;
}

bool kafka_wait(const struct partition_reader *reader, int timeout_ms)
{
	struct kafka_reader *kafka = reading(reader);
	int64_t end_us = os_monotonic_us() + (int64_t)timeout_ms * 1000;

	if (!kafka->consumer && fetch_from(kafka, reader->next, NULL) != EVBUS_OK)
		return nanosleep(&(struct timespec){ .tv_nsec = SLICE_MS * 1000000 }, NULL) == 0 || errno != EINTR;
	for (;;) {
		pass(kafka);
		if (kafka->given < kafka->count)
			return true;
		int64_t left_ms = (end_us - os_monotonic_us() + 999) / 1000;
		if (left_ms <= 0)
			return true;
		if (!take(kafka, left_ms < SLICE_MS ? (int)left_ms : SLICE_MS))
			return false;
	}
}

/* Of records that are not here their sizes are not known. */
enum evbus_code kafka_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	(void)reader;
	(void)err;
	*bytes = 0;
	return EVBUS_OK;
}

enum evbus_code kafka_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err)
{
	struct kafka_reader *kafka = reading(reader);
	struct line line = { 0 };
	int64_t offset = -1;
	bool got;

	TRY(ask_offset(kafka, time_us > 0 ? time_us / 1000 : 0, &offset, err));
	TRY(kafka_seek(reader, offset < 0 ? reader->end : (uint64_t)offset, err));
	/* Kafka counts in milliseconds. */
	for (;;) {
		TRY(kafka_next(reader, UINT64_MAX, &line, &got, err));
		if (!got)
			return EVBUS_OK;
		if (line.time_us >= time_us)
			return kafka_seek(reader, line.offset, err);
	}
}

/* The last record, behind which there may be markers of transactions and what was aborted. */
static enum evbus_code last_time(struct partition_reader *reader, int64_t *time_us, struct evbus_err *err)
{
	struct line line = { 0 };
	uint64_t back = 1;
	bool got, found = false;

	for (int i = 0; i < LAST_STEPS && !found; i++, back *= LAST_FACTOR) {
		TRY(kafka_seek(reader, reader->end - reader->first > back ? reader->end - back : reader->first, err));
		for (;;) {
			TRY(kafka_next(reader, UINT64_MAX, &line, &got, err));
			if (!got)
				break;
			*time_us = line.time_us;
			found = true;
		}
		if (back >= reader->end - reader->first)
			break;
	}
	return EVBUS_OK;
}

enum evbus_code kafka_describe(struct partition_reader *reader, struct evbus_partition_info *info,
			       struct evbus_err *err)
{
	int64_t time_us = -1;

	TRY(last_time(reader, &time_us, err));
	/* As many at most: markers of transactions have offsets too, and of what was compacted they stay. */
	info->records = reader->end - reader->first;
	info->bytes = 0;
	if (time_us >= 0)
		evbus_time_format(time_us, info->last_published_at_utc);
	return EVBUS_OK;
}

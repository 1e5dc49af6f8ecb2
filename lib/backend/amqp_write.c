/* amqp_write.c: publishing to RabbitMQ, with publisher confirms.
 *
 * The first message of a group goes alone, the others behind each other: what no queue takes is mostly so for all of a
 * topic, and then nothing stands behind a message that was refused. Where a queue goes, or is full, in the middle of a
 * window, what was sent behind that message may be in it all the same.
 *
 * A message that no queue takes comes back before it is confirmed, and nothing says which one it was. So what is
 * confirmed after that counts as not sent: it is in doubt, and published again rather than lost. */
#include "backend/amqp_bus.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum answer {
	ANSWER_NONE,
	ANSWER_CONFIRMED,
	ANSWER_OTHER, /* refused, or in doubt */
};

struct amqp_writer {
	struct partition_writer base;
	struct amqp_backend *amqp;
	struct buf room;
	struct buf answers; /* of char, enum answer of each message of the group */
	uint64_t first; /* number of the first one */
	size_t count, sent, answered;
	int64_t heard_ms;
	enum evbus_code refused; /* EVBUS_OK: nothing was */
	struct evbus_err why;
};

static struct amqp_writer *writing(struct partition_writer *base)
{
	return (struct amqp_writer *)(void *)base;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static const char *routing_key_of(const struct amqp_writer *writer)
{
	return writer->amqp->routing_key ? writer->amqp->routing_key : writer->base.topic->name;
}

static enum evbus_code cannot_publish(const struct amqp_writer *writer, int status, struct evbus_err *err)
{
	char doing[64 + EVBUS_TOPIC_MAX_BYTES];

	snprintf(doing, sizeof doing, "topic '%s': cannot publish", writer->base.topic->name);
	return amqp_failed(writer->amqp, status, doing, err);
}

static enum evbus_code send_next(struct amqp_writer *writer, const struct group *group, struct evbus_err *err)
{
	struct amqp_backend *amqp = writer->amqp;
	const char *topic = writer->base.topic->name;
	struct amqp_properties properties;
	struct message message;

	TRY(message_of(group, writer->sent, &writer->room, &message, err));
	amqp_describe(&message, topic, &properties);
	const amqp_bytes_t body = { message.payload.len, (void *)(uintptr_t)message.payload.data };
	writer->sent++; /* also of what was sent in part it is not known what became of it */
	amqp->published++;
	int status = amqp_basic_publish(amqp->connection, AMQP_CHANNEL, amqp_cstring_bytes(amqp->exchange),
					amqp_cstring_bytes(routing_key_of(writer)), true, false, &properties.basic,
					body);
	if (status != AMQP_STATUS_OK)
		return cannot_publish(writer, status, err);
	writer->heard_ms = amqp_now_ms();
	return EVBUS_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void answer(struct amqp_writer *writer, uint64_t number, enum answer answer)
{
	size_t i = (size_t)(number - writer->first);

	if (number < writer->first || i >= writer->sent || writer->answers.data[i] != ANSWER_NONE)
		return;
	writer->answers.data[i] = (char)(writer->refused != EVBUS_OK ? ANSWER_OTHER : answer);
	writer->answered++;
}

static void answer_all(struct amqp_writer *writer, uint64_t number, bool several, enum answer given)
{
	writer->heard_ms = amqp_now_ms();
	if (!several) {
		answer(writer, number, given);
		return;
	}
	/* All up to this one; those before were answered, most often. */
	for (size_t i = writer->sent; i > 0; i--)
		if (writer->first + i - 1 <= number)
			answer(writer, writer->first + i - 1, given);
}

static void take_return(struct amqp_writer *writer, const amqp_basic_return_t *returned)
{
	if (writer->refused != EVBUS_OK)
		return;
	writer->refused = err_set(&writer->why, EVBUS_NONE, 0,
				  "topic '%s': '%s' gives an event back, as no queue takes it (%u %.*s): declare the "
				  "queue '%s', or bind one",
				  writer->base.topic->name, writer->amqp->url.shown, returned->reply_code,
				  (int)(returned->reply_text.len < 64 ? returned->reply_text.len : 64),
				  (const char *)returned->reply_text.bytes, routing_key_of(writer));
}

static void take_nack(struct amqp_writer *writer, const amqp_basic_nack_t *nack)
{
	answer_all(writer, nack->delivery_tag, nack->multiple, ANSWER_OTHER);
	if (writer->refused == EVBUS_OK)
		writer->refused = err_set(&writer->why, EVBUS_DATA, 0,
					  "topic '%s': '%s' refuses an event: a queue is full, or has failed",
					  writer->base.topic->name, writer->amqp->url.shown);
}

static void take_frame(struct amqp_writer *writer, const amqp_frame_t *frame)
{
	const amqp_basic_ack_t *ack = frame->payload.method.decoded;

	if (frame->frame_type != AMQP_FRAME_METHOD)
		return;
	if (frame->payload.method.id == AMQP_BASIC_ACK_METHOD)
		answer_all(writer, ack->delivery_tag, ack->multiple, ANSWER_CONFIRMED);
	else if (frame->payload.method.id == AMQP_BASIC_NACK_METHOD)
		take_nack(writer, frame->payload.method.decoded);
	else if (frame->payload.method.id == AMQP_BASIC_RETURN_METHOD)
		take_return(writer, frame->payload.method.decoded);
}

static enum evbus_code take_answers(struct amqp_writer *writer, struct evbus_err *err)
{
	char doing[64 + EVBUS_TOPIC_MAX_BYTES];
	amqp_frame_t frame;
	bool came = true;

	snprintf(doing, sizeof doing, "topic '%s': cannot publish", writer->base.topic->name);
	while (came) {
		TRY(amqp_receive(writer->amqp, 0, doing, &frame, &came, err));
		if (came)
			take_frame(writer, &frame);
	}
	return EVBUS_OK;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static bool goes_on(const struct amqp_writer *writer)
{
	const struct waiter *waiter = writer->base.waiter;

	return !wait_has_end(waiter) || waiter->go_on(waiter->context);
}

static enum evbus_code check_patience(const struct amqp_writer *writer, struct evbus_err *err)
{
	const struct amqp_backend *amqp = writer->amqp;

	if (!goes_on(writer))
		return err_set(err, EVBUS_AGAIN, EINTR, "topic '%s': gave up waiting for '%s'",
			       writer->base.topic->name, amqp->url.shown);
	if (amqp_now_ms() - writer->heard_ms < amqp->timeout_ms)
		return EVBUS_OK;
	if (amqp->blocked[0])
		return err_set(err, EVBUS_UNAVAILABLE, 0, "topic '%s': '%s' takes nothing now: %s",
			       writer->base.topic->name, amqp->url.shown, amqp->blocked);
	return err_set(err, EVBUS_UNAVAILABLE, 0, "topic '%s': '%s' does not confirm what it got within %d ms",
		       writer->base.topic->name, amqp->url.shown, amqp->timeout_ms);
}

static bool may_send(const struct amqp_writer *writer)
{
	if (writer->sent == writer->count || writer->refused != EVBUS_OK || writer->amqp->blocked[0])
		return false;
	/* The first one alone. */
	return !writer->sent || (writer->answered && writer->sent - writer->answered < writer->amqp->window);
}

/* Takes what has come, or sends one, or waits a slice of time for either. */
static enum evbus_code step(struct amqp_writer *writer, const struct group *group, struct evbus_err *err)
{
	amqp_connection_state_t connection = writer->amqp->connection;
	struct pollfd fd = { .fd = amqp_get_sockfd(connection), .events = POLLIN };

	if (amqp_frames_enqueued(connection) || amqp_data_in_buffer(connection))
		return take_answers(writer, err);
	if (may_send(writer))
		fd.events |= POLLOUT;
	int ready = poll(&fd, 1, AMQP_SLICE_MS);
	if (ready > 0 && fd.revents != POLLOUT)
		return take_answers(writer, err);
	if (ready > 0)
		return send_next(writer, group, err);
	return check_patience(writer, err);
}

/* How many of the first ones are confirmed. */
static size_t confirmed(const struct amqp_writer *writer)
{
	size_t count = 0;

	while (count < writer->sent && writer->answers.data[count] == ANSWER_CONFIRMED)
		count++;
	return count;
}

static enum evbus_code publish(struct amqp_writer *writer, const struct group *group, struct evbus_err *err)
{
	while (writer->answered < (writer->refused == EVBUS_OK ? writer->count : writer->sent))
		TRY(step(writer, group, err));
	if (writer->refused != EVBUS_OK && err)
		*err = writer->why;
	return writer->refused;
}

/* ---- append and commit ----------------------------------------------------------------------------------------- */

static enum evbus_code begin(struct amqp_writer *writer, struct group *group, struct evbus_err *err)
{
	size_t count = group_count(group);

	if (group->atomic && count > 1)
		return err_set(err, EVBUS_CONFIG, 0,
			       "RabbitMQ cannot take %zu events at once or none of them: leave --atomic out", count);
	writer->answers.len = 0;
	TRY(buf_reserve(&writer->answers, count, err));
	memset(writer->answers.data, ANSWER_NONE, count);
	TRY(amqp_link(writer->amqp, writer->base.waiter, err));
	TRY(group_check_deadline(group, writer->base.topic->name, err));
	group->acknowledged = 0;
	writer->first = writer->amqp->published + 1;
	writer->count = count;
	writer->sent = writer->answered = 0;
	writer->refused = EVBUS_OK;
	writer->heard_ms = amqp_now_ms();
	return EVBUS_OK;
}

/* "…: it is not known what became of 5 events" */
static void tell_unknown(const struct amqp_writer *writer, const struct group *group, enum evbus_code code,
			 struct evbus_err *err)
{
	size_t unknown = writer->sent - group->acknowledged, len = err ? strlen(err->text) : 0;

	/* What the server says that it does not take it does not take. */
	if (err && unknown && (code == EVBUS_UNAVAILABLE || code == EVBUS_IO || code == EVBUS_AGAIN))
		snprintf(err->text + len, sizeof err->text - len, ": it is not known what became of %zu event%s",
			 unknown, unknown == 1 ? "" : "s");
}

/* A connection that has failed is never used again: what is still on its way there could be confirmed as another one. */
static enum evbus_code append(struct amqp_writer *writer, struct group *group, struct evbus_err *err)
{
	TRY(begin(writer, group, err));
	enum evbus_code code = publish(writer, group, err);
	group->acknowledged = confirmed(writer);
	/* Behind a refusal all that was sent is answered, unless the connection failed first. */
	if (code != EVBUS_OK && (writer->refused == EVBUS_OK || writer->answered < writer->sent)) {
		tell_unknown(writer, group, code, err);
		amqp_unlink(writer->amqp);
	}
	return code;
}

enum evbus_code amqp_append(struct partition_writer *base, struct group *group, uint64_t expect, struct evbus_err *err)
{
	struct amqp_writer *writer = writing(base);

	if (expect != UINT64_MAX)
		return err_set(err, EVBUS_CONFIG, 0, "topic '%s': RabbitMQ has no offsets to be expected",
			       base->topic->name);
	pthread_mutex_lock(&writer->amqp->mutex);
	enum evbus_code code = append(writer, group, err);
	pthread_mutex_unlock(&writer->amqp->mutex);
	return code;
}

/* It was waited for. */
enum evbus_code amqp_commit(struct partition_writer *base, struct group *group, struct evbus_err *err)
{
	(void)base;
	(void)err;
	assert(group->acknowledged == group_count(group));
	return EVBUS_OK;
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

void amqp_writer_close(struct partition_writer *base)
{
	struct amqp_writer *writer = writing(base);

	buf_release(&writer->answers);
	buf_release(&writer->room);
	free(writer);
}

enum evbus_code amqp_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				 struct partition_writer **base, struct evbus_err *err)
{
	if (partition != 0)
		return err_set(err, EVBUS_NONE, 0, "topic '%s' has no partition %d: RabbitMQ has none, and all is 0",
			       topic->name, partition);
	struct amqp_writer *writer = os.realloc(NULL, sizeof *writer);
	if (!writer)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot publish to topic '%s'", topic->name);
	*writer = (struct amqp_writer){
		.base = { .ops = &backend_amqp, .topic = topic, .partition = partition, .waiter = waiter },
		.amqp = ((const struct amqp_topic *)(const void *)topic)->amqp,
	};
	*base = &writer->base;
	return EVBUS_OK;
}

/* nats_write.c: publishing to a stream.
 *
 * The messages of a group are sent at once, and each is acknowledged by itself, with its sequence. Each has an id of its
 * own, so that what was sent when a connection broke can be sent again: the server, as long as it remembers ids, answers
 * for one that it has with where it stands. Sent again are all that have no answer, in their order. What comes late of
 * the old connection does no harm to that order: of two copies of a sequence of messages, both in order, those that come
 * first are in order too.
 *
 * Where an offset is expected, the first message names the sequence that has to be the last by then, and each of the
 * others that and the id of the one before it: the sequence alone would let one through behind a stranger's. */
#include "backend/nats.h"

#include "event/json.h"

#include "base/wait.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define WRONG_LAST_SEQUENCE 10071 /* of the server's API */
#define WRONG_LAST_ID 10070
#define TOO_LARGE 10054
#define SIZES_APART 3u /* a message has at most so many times the bytes of its line and these */
#define SIZES_APART_BYTES 4096u
#define ID_BYTES 12u
#define ID_MAX (2 * ID_BYTES + 24)

struct nats_writer {
	struct partition_writer base;
	struct nats_backend *nats;
	struct nats_place place;
	struct nats_link *link; /* NULL: it is lost */
	natsSubscription *acks;
	natsInbox *inbox;
	char name[2 * ID_BYTES + 1]; /* of this writer: what its ids begin with */
	uint64_t first; /* number of the group's first message; numbers are not used again */
	size_t count; /* messages of the group */
	uint64_t last; /* sequence of what was acknowledged last */
	uint64_t expect; /* of the group's first message; UINT64_MAX: none */
	int64_t sent_ms, heard_ms; /* when it was first sent, and when an answer came last */
	size_t missing; /* without an answer */
	size_t nobody; /* the first that met nobody who would have taken it; SIZE_MAX: none did */
	enum evbus_code refused; /* why others were not taken: EVBUS_OK, none was refused */
	struct evbus_err why;
	struct buf offsets; /* uint64_t of each message, 0: none yet */
	struct buf room;
};

static struct nats_writer *writing(struct partition_writer *writer)
{
	return (struct nats_writer *)(void *)writer;
}

static uint64_t *offsets_of(const struct nats_writer *writer)
{
	return (uint64_t *)(void *)writer->offsets.data;
}

static enum evbus_code cannot_publish(const struct nats_writer *writer, natsStatus status, struct evbus_err *err)
{
	return nats_failed(writer->nats, status, 0, err, "cannot publish to topic '%s', partition %d",
			   writer->base.topic->name, writer->base.partition);
}

/* ---- the connection --------------------------------------------------------------------------------------------- */

static void unlink_writer(struct nats_writer *writer)
{
	if (writer->link) {
		nats_unsubscribe(writer->nats, writer->link->connection, writer->acks);
		nats_link_give(writer->nats, writer->link);
	}
	natsInbox_Destroy(writer->inbox);
	writer->acks = NULL;
	writer->inbox = NULL;
	writer->link = NULL;
}

/* With an inbox of its own, where answers are heard. */
static enum evbus_code link_writer(struct nats_writer *writer, int64_t timeout_ms, struct evbus_err *err)
{
	char subject[256];

	TRY(nats_link_take(writer->nats, timeout_ms, &writer->link, err));
	natsStatus status = natsInbox_Create(&writer->inbox);
	if (status == NATS_OK) {
		snprintf(subject, sizeof subject, "%s.*", writer->inbox);
		status = natsConnection_SubscribeSync(&writer->acks, writer->link->connection, subject);
	}
	if (status == NATS_OK)
		status = natsSubscription_SetPendingLimits(writer->acks, -1, -1);
	if (status == NATS_OK) {
		int64_t max = natsConnection_GetMaxPayload(writer->link->connection);
		int64_t empty = (int64_t)nats_message_size(&(struct message){ 0 });
		writer->base.message_max_bytes = max > empty ? (size_t)(max - empty) : 0;
		return EVBUS_OK;
	}
	unlink_writer(writer);
	return cannot_publish(writer, status, err);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static natsStatus set_expected(const struct nats_writer *writer, size_t i, natsMsg *made)
{
	char text[ID_MAX];

	if (writer->expect == UINT64_MAX)
		return NATS_OK;
	snprintf(text, sizeof text, "%" PRIu64, writer->expect + i - 1);
	natsStatus status = natsMsgHeader_Set(made, "Nats-Expected-Last-Sequence", text);
	if (status != NATS_OK || !i)
		return status;
	snprintf(text, sizeof text, "%s-%" PRIu64, writer->name, writer->first + i - 1);
	return natsMsgHeader_Set(made, "Nats-Expected-Last-Msg-Id", text);
}

/* *sent false: the connection broke. */
static enum evbus_code send_one(struct nats_writer *writer, const struct group *group, size_t i, bool *sent,
				struct evbus_err *err)
{
	char reply[256], id[ID_MAX];
	struct message message;
	natsMsg *made = NULL;

	snprintf(reply, sizeof reply, "%s.%" PRIu64, writer->inbox, writer->first + i);
	snprintf(id, sizeof id, "%s-%" PRIu64, writer->name, writer->first + i);
	TRY(message_of(group, i, &writer->room, &message, err));
	TRY(nats_message_make(&message, writer->place.subject, reply, id, &made, err));
	natsStatus status = set_expected(writer, i, made);
	if (status == NATS_OK)
		status = natsConnection_PublishMsg(writer->link->connection, made);
	natsMsg_Destroy(made);
	*sent = status == NATS_OK;
	bool broken = status == NATS_IO_ERROR || status == NATS_TIMEOUT || status == NATS_CONNECTION_CLOSED ||
		      status == NATS_SSL_ERROR;
	return *sent || broken ? EVBUS_OK : cannot_publish(writer, status, err);
}

/* All that have no answer, in their order: what was not sent, nothing behind it is. */
static enum evbus_code send_missing(struct nats_writer *writer, const struct group *group, struct evbus_err *err)
{
	bool sent = true;

	assert(writer->link);
	writer->nobody = SIZE_MAX;
	for (size_t i = 0; i < writer->count && sent; i++)
		if (!offsets_of(writer)[i])
			TRY(send_one(writer, group, i, &sent, err));
	/* Also has it sent now: the library likes to wait for more. */
	(void)natsConnection_FlushTimeout(writer->link->connection, writer->nats->timeout_ms < NATS_SLICE_MS
									    ? writer->nats->timeout_ms
									    : NATS_SLICE_MS);
	return EVBUS_OK;
}

/* Before anything is sent: the library refuses what is too large for the server when the others were sent. */
static enum evbus_code check_sizes(struct nats_writer *writer, const struct group *group, struct evbus_err *err)
{
	int64_t max = natsConnection_GetMaxPayload(writer->link->connection);
	struct message message;

	for (size_t i = 0; i < group_count(group); i++) {
		/* Of most it is seen by how long the line is. */
		if (max > 0 && SIZES_APART * (group_entry(group, i)->len + SIZES_APART_BYTES) <= (size_t)max)
			continue;
		TRY(message_of(group, i, &writer->room, &message, err));
		if (max > 0 && nats_message_size(&message) > (size_t)max)
			return err_set(
				err, EVBUS_DATA, 0,
				"an event of %zu bytes is too large for '%s', which takes messages of %lld bytes, "
				"headers included (max_payload)",
				message.payload.len, writer->nats->url.shown, (long long)max);
	}
	return EVBUS_OK;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* "wrong last sequence: 5" */
static uint64_t number_at_end(struct evbus_slice text)
{
	uint64_t number = 0;
	size_t digits = 0;

	while (digits < text.len && text.data[text.len - digits - 1] >= '0' && text.data[text.len - digits - 1] <= '9')
		digits++;
	(void)decimal_parse((struct evbus_slice){ text.data + text.len - digits, digits }, &number);
	return number;
}

static void refuse(struct nats_writer *writer, uint64_t code, struct evbus_slice description)
{
	const struct backend_topic *topic = writer->base.topic;
	uint64_t last = number_at_end(description);

	/* Of several that were refused the first says why: the others are refused because it was. */
	if (writer->refused != EVBUS_OK)
		return;
	if (code == WRONG_LAST_SEQUENCE)
		writer->refused = err_set(&writer->why, EVBUS_CONFLICT, 0,
					  "the next offset of topic '%s', partition %d is %" PRIu64 ", not %" PRIu64,
					  topic->name, writer->base.partition, last + 1, writer->expect);
	else if (code == WRONG_LAST_ID)
		writer->refused = err_set(&writer->why, EVBUS_CONFLICT, 0,
					  "somebody else has published to topic '%s', partition %d meanwhile",
					  topic->name, writer->base.partition);
	else
		writer->refused = err_set(&writer->why, code == TOO_LARGE ? EVBUS_DATA : EVBUS_UNAVAILABLE, 0,
					  "topic '%s', partition %d: '%s' refuses an event: %.*s", topic->name,
					  writer->base.partition, writer->nats->url.shown, (int)description.len,
					  description.data);
}

static void take_error(struct nats_writer *writer, struct evbus_slice error)
{
	struct json_want wants[] = { { .name = SLICE("err_code") }, { .name = SLICE("description") } };
	struct json_fault fault;
	char text[256];
	uint64_t code = 0;

	if (!json_scan(error, wants, 2, &fault) || !wants[1].value.data)
		wants[1].value = SLICE("\"it does not say why\"");
	size_t len = evbus_json_text(wants[1].value, text, sizeof text);
	if (wants[0].value.data)
		(void)decimal_parse(wants[0].value, &code);
	refuse(writer, code, len <= sizeof text ? (struct evbus_slice){ text, len } : SLICE("it says too much"));
}

/* A stream of another name, or one that begins anew, is not the one that was opened. */
static void take_sequence(struct nats_writer *writer, size_t i, const struct json_want wants[3])
{
	uint64_t sequence = 0;
	bool known = wants[1].value.data && decimal_parse(wants[1].value, &sequence) && sequence;
	struct evbus_slice name = { writer->place.stream, strlen(writer->place.stream) };

	if (!known || !wants[2].value.data)
		return;
	offsets_of(writer)[i] = sequence;
	writer->missing--;
	if (writer->refused == EVBUS_OK && (sequence <= writer->last || !json_equals(wants[2].value, name)))
		writer->refused =
			err_set(&writer->why, EVBUS_CONFLICT, 0,
				"topic '%s', partition %d was removed and made again while it was published to",
				writer->base.topic->name, writer->base.partition);
}

static void take_answer(struct nats_writer *writer, natsMsg *message)
{
	struct json_want wants[] = { { .name = SLICE("error") },
				     { .name = SLICE("seq") },
				     { .name = SLICE("stream") } };
	struct evbus_slice text = { natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message) };
	const char *subject = natsMsg_GetSubject(message), *dot = strrchr(subject, '.');
	struct json_fault fault;
	uint64_t number;

	if (!dot || !decimal_parse((struct evbus_slice){ dot + 1, strlen(dot + 1) }, &number))
		return;
	number -= writer->first;
	/* Another group's, or a second one. */
	if (number >= writer->count || offsets_of(writer)[number])
		return;
	writer->heard_ms = nats_now_ms();
	if (!text.len)
		writer->nobody = number < writer->nobody ? (size_t)number : writer->nobody;
	else if (!json_scan(text, wants, 3, &fault))
		return;
	else if (wants[0].value.data)
		take_error(writer, wants[0].value);
	else
		take_sequence(writer, (size_t)number, wants);
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static enum evbus_code give_up(struct nats_writer *writer, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_UNAVAILABLE, 0,
		       "topic '%s', partition %d: '%s': %s: it is not known what became of %zu event%s",
		       writer->base.topic->name, writer->base.partition, writer->nats->url.shown, why, writer->missing,
		       writer->missing == 1 ? "" : "s");
}

/* Whether what has no answer can be sent once more. Not once the server may have forgotten that it has it; nor if
 * something behind a message that nobody took was taken, which would change the order. Other answers that are missing
 * got lost: a server takes what comes by one connection in its order. */
static bool can_send_again(const struct nats_writer *writer)
{
	for (size_t i = writer->nobody; i < writer->count; i++)
		if (offsets_of(writer)[i])
			return false;
	return nats_now_ms() - writer->sent_ms < nats_topic_of(writer->base.topic)->window_ms;
}

/* None of them was taken. */
static enum evbus_code not_permitted(const struct nats_writer *writer, struct evbus_err *err)
{
	const char *text = "";

	(void)natsConnection_GetLastError(writer->link->connection, &text);
	return err_set(err, EVBUS_PERMISSION, 0, "cannot publish to topic '%s', partition %d: '%s': %s",
		       writer->base.topic->name, writer->base.partition, writer->nats->url.shown, text);
}

static bool goes_on(const struct nats_writer *writer)
{
	const struct waiter *waiter = writer->base.waiter;

	return !wait_has_end(waiter) || waiter->go_on(waiter->context);
}

static enum evbus_code check_patience(struct nats_writer *writer, struct evbus_err *err)
{
	char text[128];

	if (!goes_on(writer))
		return err_set(err, EVBUS_AGAIN, EINTR,
			       "gave up waiting for the server: it is not known what became of %zu events",
			       writer->missing);
	if (nats_now_ms() - writer->heard_ms < writer->nats->timeout_ms)
		return EVBUS_OK;
	snprintf(text, sizeof text, "no acknowledgement within %d ms", writer->nats->timeout_ms);
	return give_up(writer, writer->nobody != SIZE_MAX ? "nobody takes them" : text, err);
}

/* The connection is lost: another one, and what has no answer by that. */
static enum evbus_code begin_again(struct nats_writer *writer, const struct group *group, struct evbus_err *err)
{
	int64_t left_ms = writer->heard_ms + writer->nats->timeout_ms - nats_now_ms();

	unlink_writer(writer);
	if (!can_send_again(writer))
		return give_up(writer, "the connection was lost", err);
	if (link_writer(writer, left_ms, NULL) == EVBUS_OK)
		return send_missing(writer, group, err);
	usleep(NATS_SLICE_MS * 1000);
	return EVBUS_OK;
}

/* Waits a slice of time for an answer. */
static enum evbus_code take_one(struct nats_writer *writer, const struct group *group, struct evbus_err *err)
{
	natsMsg *message = NULL;
	natsStatus status = natsSubscription_NextMsg(&message, writer->acks, NATS_SLICE_MS);

	if (status == NATS_OK)
		take_answer(writer, message);
	natsMsg_Destroy(message);
	if (status == NATS_OK)
		return EVBUS_OK;
	if (nats_denied(writer->link->connection, writer->place.subject))
		return not_permitted(writer, err);
	TRY(check_patience(writer, err));
	if (status != NATS_TIMEOUT || natsConnection_IsClosed(writer->link->connection))
		return begin_again(writer, group, err);
	if (writer->nobody == SIZE_MAX)
		return EVBUS_OK;
	return can_send_again(writer) ? send_missing(writer, group, err) : give_up(writer, "nobody takes them", err);
}

/* Until each message has its answer. */
static enum evbus_code collect(struct nats_writer *writer, const struct group *group, struct evbus_err *err)
{
	while (writer->missing && writer->refused == EVBUS_OK) {
		if (writer->link) {
			TRY(take_one(writer, group, err));
			continue;
		}
		TRY(check_patience(writer, err));
		TRY(begin_again(writer, group, err));
	}
	if (writer->refused != EVBUS_OK && err)
		*err = writer->why;
	return writer->refused;
}

static void count_acknowledged(const struct nats_writer *writer, struct group *group)
{
	while (group->acknowledged < writer->count && offsets_of(writer)[group->acknowledged])
		group->acknowledged++;
}

/* ---- append and commit ----------------------------------------------------------------------------------------- */

static enum evbus_code begin(struct nats_writer *writer, struct group *group, uint64_t expect, struct evbus_err *err)
{
	size_t count = group_count(group);

	if (!*writer->place.subject)
		return err_set(err, EVBUS_CONFIG, 0,
			       "the stream '%s' listens to no subject without wildcards: say where to publish with "
			       "subject= in the URL",
			       writer->place.stream);
	if (group->atomic && count > 1)
		return err_set(err, EVBUS_CONFIG, 0,
			       "NATS cannot append %zu events at once or none of them: leave --atomic out", count);
	writer->offsets.len = 0;
	TRY(buf_reserve(&writer->offsets, count * sizeof(uint64_t), err));
	memset(writer->offsets.data, 0, count * sizeof(uint64_t));
	if (!writer->link)
		TRY(link_writer(writer, writer->nats->timeout_ms, err));
	TRY(check_sizes(writer, group, err));
	TRY(group_check_deadline(group, writer->base.topic->name, err));
	group->acknowledged = 0;
	writer->expect = expect;
	writer->first += writer->count;
	writer->count = writer->missing = count;
	writer->refused = EVBUS_OK;
	writer->sent_ms = writer->heard_ms = nats_now_ms();
	return EVBUS_OK;
}

/* Waits for the answers, and has the lines say what they say. */
static enum evbus_code settle(struct nats_writer *writer, struct group *group, struct evbus_err *err)
{
	enum evbus_code code = collect(writer, group, err);

	count_acknowledged(writer, group);
	if (!group->acknowledged)
		return code;
	TRY(group_stamp_each(group, offsets_of(writer), err));
	writer->last = offsets_of(writer)[group->acknowledged - 1];
	writer->base.expected_next = writer->last + 1;
	writer->base.expected_time_us = group_entry(group, group->acknowledged - 1)->time_us;
	return code;
}

enum evbus_code nats_append(struct partition_writer *base, struct group *group, uint64_t expect, struct evbus_err *err)
{
	struct nats_writer *writer = writing(base);

	if (!expect)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "the next offset of topic '%s', partition %d is not 0: they begin with 1",
			       base->topic->name, base->partition);
	TRY(begin(writer, group, expect, err));
	TRY(send_missing(writer, group, err));
	/* Whether the offset is the right one is known when it is there. */
	return expect == UINT64_MAX ? EVBUS_OK : settle(writer, group, err);
}

enum evbus_code nats_commit(struct partition_writer *base, struct group *group, struct evbus_err *err)
{
	return settle(writing(base), group, err);
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

void nats_writer_close(struct partition_writer *base)
{
	struct nats_writer *writer = writing(base);

	if (writer->nats->process == getpid())
		unlink_writer(writer);
	buf_release(&writer->offsets);
	buf_release(&writer->room);
	free(writer);
}

static enum evbus_code prepare(struct nats_writer *writer, struct evbus_err *err)
{
	CLEANUP(nats_look_done) jsStreamInfo *info = NULL;

	TRY(nats_look(writer->nats, writer->place.stream, &info, err));
	writer->last = info->State.LastSeq;
	writer->base.expected_next = writer->last + 1;
	return link_writer(writer, writer->nats->timeout_ms, err);
}

enum evbus_code nats_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				 struct partition_writer **base, struct evbus_err *err)
{
	unsigned char bytes[ID_BYTES];
	struct nats_place place = { 0 };

	TRY(nats_place_of(topic, partition, &place, err));
	if (os.getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return err_set(err, EVBUS_IO, errno, "cannot get random bytes");
	struct nats_writer *writer = os.realloc(NULL, sizeof *writer);
	if (!writer)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot publish to topic '%s'", topic->name);
	*writer = (struct nats_writer){
		.base = { .ops = &backend_nats, .topic = topic, .partition = partition, .waiter = waiter },
		.nats = nats_topic_of(topic)->nats,
		.place = place,
	};
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(writer->name + 2 * i, 3, "%02x", bytes[i]);
	enum evbus_code code = prepare(writer, err);
	if (code != EVBUS_OK) {
		nats_writer_close(&writer->base);
		return code;
	}
	*base = &writer->base;
	return EVBUS_OK;
}

/* nats_read.c: reading a stream.
 *
 * A consumer of the reader's own delivers without acknowledgements, as many bytes as were asked for: two requests are under
 * way, so that the server goes on while one is used up, and what waits here is bounded by them. The server keeps nothing
 * of a consumer but where it is; when it is lost, with the server or with the connection, another one begins at `next`.
 * Deliveries have numbers: where one is missing, messages were lost on the way, and it is begun anew as well. */
#include "backend/nats.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define ASKED_MAX 2u                 /* requests under way */
#define ASK_BATCH 100000u            /* messages, if they are so small */
#define ASK_LEAST_BYTES 65536u
#define ASK_MOST_BYTES (16u * 1024 * 1024)    /* where a message is larger than what is usually asked for */
#define ASK_EXPIRES_NS INT64_C(30000000000)
#define KEPT_NS INT64_C(120000000000)         /* a consumer that nobody asks is removed by the server */
#define QUIET_MS 50                  /* nothing came so long though something should: it may have been deleted */
#define LOOK_MS 100                  /* so often the server is asked for the end, where it would tell us */
#define EARLIER_US 60000000          /* clocks of publishers and servers differ by less */

struct nats_reader {
	struct partition_reader base;
	struct nats_backend *nats;
	struct nats_place place;
	int64_t created_ns;
	uint64_t records, bytes;         /* when it was last looked */
	int64_t last_us;
	int64_t looked_ms;
	bool first_is_new;               /* it was looked since messages were last asked for */
	size_t chunk;
	natsSubscription *deliveries;    /* of the consumer; NULL: there is none */
	natsInbox *inbox;
	char *consumer;
	uint64_t reconnects;             /* when it was made */
	uint64_t number;                 /* of the delivery that came last */
	unsigned asked;
	bool large;                      /* a message does not fit into what is usually asked for */
	natsMsg *held;                   /* it came, and was not given out yet */
	struct nats_delivery delivery;   /* its */
	struct buf line, room;
};

static struct nats_reader *reading(const struct partition_reader *reader)
{
	return (struct nats_reader *)(uintptr_t)reader;
}

static int64_t now_ms(void)
{
	return os_monotonic_us() / 1000;
}

/* ---- the consumer ---------------------------------------------------------------------------------------------- */

static void drop_held(struct nats_reader *reader)
{
	natsMsg_Destroy(reader->held);
	reader->held = NULL;
}

/* Without waiting for an answer; where it does not get there, the server does so by itself in time. */
static void remove_consumer(const struct nats_reader *reader)
{
	char subject[STREAM_NAME_MAX + 128];

	snprintf(subject, sizeof subject, "$JS.API.CONSUMER.DELETE.%s.%s", reader->place.stream, reader->consumer);
	(void)natsConnection_PublishRequest(reader->nats->connection, subject, "_INBOX.evbus", NULL, 0);
}

static void close_consumer(struct nats_reader *reader)
{
	drop_held(reader);
	nats_unsubscribe(reader->nats, reader->nats->connection, reader->deliveries);
	natsInbox_Destroy(reader->inbox);
	if (reader->consumer)
		remove_consumer(reader);
	free(reader->consumer);
	reader->consumer = NULL;
	reader->deliveries = NULL;
	reader->inbox = NULL;
	reader->asked = 0;
	reader->number = 0;
}

static natsStatus subscribe(struct nats_reader *reader)
{
	natsStatus status = natsInbox_Create(&reader->inbox);

	if (status == NATS_OK)
		status = natsConnection_SubscribeSync(&reader->deliveries, reader->nats->connection, reader->inbox);
	if (status == NATS_OK)
		status = natsSubscription_SetPendingLimits(reader->deliveries, -1, -1);
	return status;
}

/* from_us: from that time on; INT64_MIN: from `next`. *pending: how many there are from there on. */
static natsStatus add_consumer(struct nats_reader *reader, int64_t from_us, uint64_t *pending, jsErrCode *why)
{
	jsConsumerInfo *info = NULL;
	jsConsumerConfig config;

	jsConsumerConfig_Init(&config);
	config.AckPolicy = js_AckNone;
	config.MemoryStorage = true;
	config.Replicas = 1;
	config.InactiveThreshold = KEPT_NS;
	config.DeliverPolicy = from_us == INT64_MIN ? js_DeliverByStartSequence : js_DeliverByStartTime;
	if (from_us == INT64_MIN)
		config.OptStartSeq = reader->base.next;
	else
		config.OptStartTime = from_us * 1000;
	natsStatus status = js_AddConsumer(&info, reader->nats->streams, reader->place.stream, &config, NULL, why);
	if (status != NATS_OK)
		return status;
	*pending = info->NumPending;
	reader->consumer = strdup(info->Name);
	jsConsumerInfo_Destroy(info);
	return reader->consumer ? NATS_OK : NATS_NO_MEMORY;
}

static enum evbus_code cannot_read(const struct nats_reader *reader, natsStatus status, jsErrCode why,
				   struct evbus_err *err)
{
	return nats_failed(reader->nats, status, why, err, "cannot read topic '%s', partition %d",
			   reader->base.topic->name, reader->base.partition);
}

static enum evbus_code was_removed(const struct nats_reader *reader, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "topic '%s', partition %d was removed while it was read: '%s' has no stream '%s'",
		       reader->base.topic->name, reader->base.partition, reader->nats->url.shown, reader->place.stream);
}

static enum evbus_code open_consumer(struct nats_reader *reader, int64_t from_us, uint64_t *pending,
				     struct evbus_err *err)
{
	jsErrCode why = 0;

	close_consumer(reader);
	/* Before it is asked for: what it is asked while the connection is made anew may be lost. */
	reader->reconnects = nats_reconnects(reader->nats);
	natsStatus status = subscribe(reader);
	if (status == NATS_OK)
		status = add_consumer(reader, from_us, pending, &why);
	if (status == NATS_OK)
		return EVBUS_OK;
	close_consumer(reader);
	return status == NATS_NOT_FOUND ? was_removed(reader, err) : cannot_read(reader, status, why, err);
}

static enum evbus_code ask(struct nats_reader *reader, struct evbus_err *err)
{
	char subject[STREAM_NAME_MAX + 128], request[128];

	snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", reader->place.stream, reader->consumer);
	int len = snprintf(request, sizeof request, "{\"batch\":%u,\"max_bytes\":%zu,\"expires\":%" PRId64 "}", ASK_BATCH,
			   reader->large ? (size_t)ASK_MOST_BYTES : reader->chunk, ASK_EXPIRES_NS);
	for (; reader->asked < ASKED_MAX; reader->asked++) {
		natsStatus status = natsConnection_PublishRequest(reader->nats->connection, subject, reader->inbox,
								  request, len);
		if (status != NATS_OK)
			return cannot_read(reader, status, 0, err);
		reader->first_is_new = false;
		reader->large = false;
	}
	return EVBUS_OK;
}

/* The server says how a request ended. */
static void take_status(struct nats_reader *reader, natsMsg *message)
{
	const char *code = "", *text = "";

	(void)natsMsgHeader_Get(message, "Status", &code);
	(void)natsMsgHeader_Get(message, "Description", &text);
	bool full = !strcmp(code, "409") && strstr(text, "MaxBytes");
	bool over = !strcmp(code, "408") || !strcmp(code, "404");
	if (!full && !over) { /* it is gone, or was never there */
		close_consumer(reader);
		return;
	}
	const char *left = NULL;
	/* Nothing of it was used: not one message fits. */
	if (full && natsMsgHeader_Get(message, "Nats-Pending-Bytes", &left) == NATS_OK)
		reader->large = strtoull(left, NULL, 10) >= reader->chunk;
	reader->asked -= reader->asked > 0;
}

/* Takes what comes within this time, held is NULL. It may also be an answer, after which nothing is held. */
static enum evbus_code take_one(struct nats_reader *reader, int64_t timeout_ms, bool *came, struct evbus_err *err)
{
	natsMsg *message = NULL;
	natsStatus status = natsSubscription_NextMsg(&message, reader->deliveries, timeout_ms > 0 ? timeout_ms : 0);

	*came = status == NATS_OK;
	if (status == NATS_TIMEOUT)
		return EVBUS_OK;
	if (status != NATS_OK)
		return cannot_read(reader, status, 0, err);
	if (!nats_message_place(message, &reader->delivery)) {
		take_status(reader, message);
		natsMsg_Destroy(message);
		return EVBUS_OK;
	}
	/* One that came before, by a network that doubles, or a gap. */
	bool lost = reader->delivery.number > reader->number + 1;
	bool known = reader->delivery.number <= reader->number || reader->delivery.sequence < reader->base.next;
	if (!known && !lost)
		reader->held = message;
	else
		natsMsg_Destroy(message);
	if (lost)
		close_consumer(reader);
	else if (reader->delivery.number > reader->number)
		reader->number = reader->delivery.number;
	return EVBUS_OK;
}

/* Whether what the consumer has delivered is here, and nothing more will come of what is there now. */
static enum evbus_code has_delivered_all(struct nats_reader *reader, bool *all, struct evbus_err *err)
{
	jsConsumerInfo *info = NULL;
	jsErrCode why = 0;
	natsStatus status = js_GetConsumerInfo(&info, reader->nats->streams, reader->place.stream, reader->consumer, NULL,
					       &why);

	*all = false;
	if (status == NATS_NOT_FOUND) {
		close_consumer(reader);
		return EVBUS_OK;
	}
	if (status != NATS_OK)
		return cannot_read(reader, status, why, err);
	*all = !info->NumPending && info->Delivered.Consumer == reader->number;
	if (!info->NumWaiting)
		reader->asked = 0; /* what was asked for got lost */
	jsConsumerInfo_Destroy(info);
	return EVBUS_OK;
}

static enum evbus_code too_late(const struct nats_reader *reader, struct evbus_err *err)
{
	return nats_failed(reader->nats, NATS_TIMEOUT, 0, err, "cannot read topic '%s', partition %d",
			   reader->base.topic->name, reader->base.partition);
}

/* Nothing came for a while. *none: nothing will. */
static enum evbus_code while_quiet(struct nats_reader *reader, bool *none, struct evbus_err *err)
{
	*none = false;
	if (nats_reconnects(reader->nats) == reader->reconnects)
		return has_delivered_all(reader, none, err);
	close_consumer(reader);
	return EVBUS_OK;
}

/* Holds the next message, from whose offset on there was none before; *none: there is none below the end. */
static enum evbus_code hold_next(struct nats_reader *reader, int64_t from_us, bool *none, struct evbus_err *err)
{
	int64_t deadline = now_ms() + reader->nats->timeout_ms;
	uint64_t pending = 1;
	bool came;

	*none = false;
	while (!reader->held && !*none) {
		if (!reader->deliveries) {
			TRY(open_consumer(reader, from_us, &pending, err));
			*none = !pending;
			continue;
		}
		TRY(ask(reader, err));
		TRY(take_one(reader, QUIET_MS, &came, err));
		if (!came)
			TRY(while_quiet(reader, none, err));
		if (!reader->held && !*none && now_ms() > deadline)
			return too_late(reader, err);
	}
	return EVBUS_OK;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

static enum evbus_code look(struct nats_reader *reader, struct evbus_err *err)
{
	CLEANUP(nats_look_done) jsStreamInfo *info = NULL;
	struct partition_reader *base = &reader->base;
	enum evbus_code code = nats_look(reader->nats, reader->place.stream, &info, err);

	if (code == EVBUS_NONE && reader->created_ns)
		return was_removed(reader, err);
	TRY(code);
	uint64_t end = info->State.LastSeq + 1;
	if (reader->created_ns && (info->Created != reader->created_ns || end < base->end))
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s', partition %d was %s while it was read: stream '%s'",
			       base->topic->name, base->partition,
			       info->Created != reader->created_ns ? "removed and made again" : "cut", reader->place.stream);
	reader->created_ns = info->Created;
	reader->records = info->State.Msgs;
	reader->bytes = info->State.Bytes;
	reader->last_us = info->State.LastTime / 1000;
	reader->looked_ms = now_ms();
	reader->first_is_new = true;
	base->first = info->State.FirstSeq ? info->State.FirstSeq : 1;
	base->end = end;
	return EVBUS_OK;
}

enum evbus_code nats_refresh(struct partition_reader *base, struct evbus_err *err)
{
	struct nats_reader *reader = reading(base);
	bool came;

	/* At the end, with a consumer that tells what comes, there is little to be asked. */
	if (!reader->deliveries || base->next < base->end || now_ms() - reader->looked_ms >= LOOK_MS)
		return look(reader, err);
	if (!reader->held)
		TRY(take_one(reader, 0, &came, err));
	if (reader->held && reader->delivery.sequence >= base->end)
		base->end = reader->delivery.sequence + 1;
	return EVBUS_OK;
}

static enum evbus_code gone(const struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	return err_set(err, EVBUS_NONE, 0,
		       "offset %llu of topic '%s', partition %d is gone: the oldest that the server keeps is %llu",
		       (unsigned long long)position, reader->topic->name, reader->partition,
		       (unsigned long long)reader->first);
}

/* ---- moving ---------------------------------------------------------------------------------------------------- */

enum evbus_code nats_seek(struct partition_reader *base, uint64_t position, struct evbus_err *err)
{
	if (position < base->first)
		return gone(base, position, err);
	position = position < base->end ? position : base->end;
	if (position != base->next)
		close_consumer(reading(base));
	base->next = position;
	return EVBUS_OK;
}

/* The message that is held, as a line. */
static enum evbus_code make_line(struct nats_reader *reader, struct line *line, struct evbus_err *err)
{
	struct message message = { .offset = reader->delivery.sequence, .time_us = reader->delivery.time_us };

	TRY(nats_message_read(reader->held, &reader->room, &message, err));
	return message_line(&reader->line, &message, line, err);
}

/* The time that it was published at stands in the message, and the server goes by its own. */
enum evbus_code nats_seek_time(struct partition_reader *base, int64_t time_us, struct evbus_err *err)
{
	struct nats_reader *reader = reading(base);
	int64_t from_us = time_us > EARLIER_US ? time_us - EARLIER_US : 0;
	struct message message;
	bool none;

	close_consumer(reader);
	for (base->next = base->first; base->next < base->end;) {
		TRY(hold_next(reader, from_us, &none, err));
		if (none || reader->delivery.sequence >= base->end)
			break;
		message = (struct message){ .time_us = reader->delivery.time_us };
		TRY(nats_message_read(reader->held, &reader->room, &message, err));
		base->next = reader->delivery.sequence;
		if (message.time_us >= time_us)
			return EVBUS_OK;
		base->next++;
		drop_held(reader);
		from_us = INT64_MIN;
	}
	base->next = base->end;
	if (reader->held && reader->delivery.sequence < base->next)
		drop_held(reader);
	return EVBUS_OK;
}

/* Between `next` and what came instead some were deleted: one by one, which is a gap; or from the beginning on, before we
 * came so far. */
static enum evbus_code check_gap(struct nats_reader *reader, struct evbus_err *err)
{
	uint64_t end = reader->base.end;

	if (!reader->first_is_new) {
		TRY(look(reader, err));
		reader->base.end = end;
	}
	return reader->base.next < reader->base.first ? gone(&reader->base, reader->base.next, err) : EVBUS_OK;
}

enum evbus_code nats_next(struct partition_reader *base, uint64_t end, struct line *line, bool *got,
			  struct evbus_err *err)
{
	struct nats_reader *reader = reading(base);
	bool none;

	*got = false;
	end = end < base->end ? end : base->end;
	if (base->next >= end)
		return EVBUS_OK;
	TRY(hold_next(reader, INT64_MIN, &none, err));
	if (none || reader->delivery.sequence > base->next)
		TRY(check_gap(reader, err));
	uint64_t at = none ? UINT64_MAX : reader->delivery.sequence;
	if (at >= end) {
		base->next = at < base->end ? at : base->end;
		return EVBUS_OK;
	}
	TRY(make_line(reader, line, err));
	drop_held(reader);
	base->next = at + 1;
	*got = true;
	return EVBUS_OK;
}

/* A failure is told by whoever reads next. */
bool nats_wait(const struct partition_reader *base, int timeout_ms)
{
	struct nats_reader *reader = reading(base);
	int64_t until = now_ms() + (timeout_ms < NATS_SLICE_MS ? timeout_ms : NATS_SLICE_MS), left;
	uint64_t pending;
	bool came;

	while (!reader->held && (left = until - now_ms()) > 0) {
		bool failed = !reader->deliveries && open_consumer(reader, INT64_MIN, &pending, NULL) != EVBUS_OK;
		if (!failed && nats_reconnects(reader->nats) != reader->reconnects)
			close_consumer(reader);
		else if (failed || ask(reader, NULL) != EVBUS_OK || take_one(reader, left, &came, NULL) != EVBUS_OK)
			return usleep((useconds_t)left * 1000) == 0 || errno != EINTR;
	}
	return true;
}

/* ---- what there is --------------------------------------------------------------------------------------------- */

/* Messages are taken to be equally large. */
enum evbus_code nats_bytes_left(const struct partition_reader *base, uint64_t *bytes, struct evbus_err *err)
{
	const struct nats_reader *reader = reading(base);
	uint64_t left = base->next < base->end ? base->end - base->next : 0;

	(void)err;
	if (left > reader->records)
		left = reader->records;
	*bytes = left ? (uint64_t)((double)reader->bytes * ((double)left / (double)reader->records)) : 0;
	return EVBUS_OK;
}

/* When the last was published; where it was deleted, when it was stored. */
static enum evbus_code last_time(const struct nats_reader *reader, int64_t *time_us, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf room = { 0 };
	struct message message = { .time_us = reader->last_us };
	natsMsg *last = NULL;
	jsErrCode why = 0;
	natsStatus status = js_GetMsg(&last, reader->nats->streams, reader->place.stream, reader->base.end - 1, NULL, &why);

	if (status != NATS_OK && status != NATS_NOT_FOUND)
		return cannot_read(reader, status, why, err);
	enum evbus_code code = status == NATS_OK ? nats_message_read(last, &room, &message, err) : EVBUS_OK;
	natsMsg_Destroy(last);
	*time_us = message.time_us;
	return code;
}

enum evbus_code nats_describe(struct partition_reader *base, struct evbus_partition_info *info, struct evbus_err *err)
{
	struct nats_reader *reader = reading(base);
	int64_t time_us = 0;

	TRY(look(reader, err));
	info->records = reader->records;
	info->bytes = reader->bytes;
	if (!reader->records)
		return EVBUS_OK;
	TRY(last_time(reader, &time_us, err));
	evbus_time_format(time_us, info->last_published_at_utc);
	return EVBUS_OK;
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

void nats_reader_close(struct partition_reader *base)
{
	struct nats_reader *reader = reading(base);

	if (reader->nats->process == getpid())
		close_consumer(reader);
	buf_release(&reader->line);
	buf_release(&reader->room);
	free(reader);
}

enum evbus_code nats_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				 struct partition_reader **base, struct evbus_err *err)
{
	struct nats_place place;

	(void)ahead;
	TRY(nats_place_of(topic, partition, &place, err));
	struct nats_reader *reader = os.realloc(NULL, sizeof *reader);
	if (!reader)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->name);
	*reader = (struct nats_reader){
		.base = { .ops = &backend_nats, .topic = topic, .partition = partition },
		.nats = nats_topic_of(topic)->nats,
		.place = place,
		.chunk = chunk > ASK_LEAST_BYTES ? chunk : ASK_LEAST_BYTES,
	};
	enum evbus_code code = look(reader, err);
	if (code != EVBUS_OK) {
		nats_reader_close(&reader->base);
		return code;
	}
	reader->base.next = reader->base.first;
	*base = &reader->base;
	return EVBUS_OK;
}

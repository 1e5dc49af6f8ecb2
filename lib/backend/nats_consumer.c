/* nats_consumer.c: getting the messages of a stream.
 *
 * A consumer of the reader's own delivers without acknowledgements, as many bytes as were asked for: two requests are under
 * way, so that the server goes on while one is used up, and what waits here is bounded by them. The server keeps nothing
 * of a consumer but where it is; when it is lost, with the server or with the connection, another one begins at `next`.
 * Deliveries have numbers: where one is missing, messages were lost on the way, and it is begun anew as well. */
#include "backend/nats.h"

#include <inttypes.h>
#include <string.h>

#define ASKED_MAX 2u /* requests under way */
#define ASK_BATCH 100000u /* messages, if they are so small */
#define ASK_MOST_BYTES (16u * 1024 * 1024) /* where a message is larger than what is usually asked for */
#define ASK_EXPIRES_NS INT64_C(30000000000)
#define KEPT_NS INT64_C(120000000000) /* a consumer that nobody asks is removed by the server */
#define QUIET_MS 50 /* nothing came so long though something should: it may have been deleted */

void nats_drop_held(struct nats_reader *reader)
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

void nats_consumer_close(struct nats_reader *reader)
{
	nats_drop_held(reader);
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
	struct nats_question question;
	jsConsumerInfo *info = NULL;
	jsConsumerConfig config;
	natsStatus status;

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
	/* Of two the server removes the one that nobody asks. */
	nats_question_begin(reader->nats, &question);
	do
		status = js_AddConsumer(&info, reader->nats->streams, reader->place.stream, &config, &question.options,
					why);
	while (nats_question_again(reader->nats, &question, reader->place.stream, &status));
	if (status != NATS_OK)
		return status;
	*pending = info->NumPending;
	reader->consumer = strdup(info->Name);
	jsConsumerInfo_Destroy(info);
	return reader->consumer ? NATS_OK : NATS_NO_MEMORY;
}

enum evbus_code nats_cannot_read(const struct nats_reader *reader, natsStatus status, jsErrCode why,
				 struct evbus_err *err)
{
	return nats_failed(reader->nats, status, why, err, "cannot read topic '%s', partition %d",
			   reader->base.topic->name, reader->base.partition);
}

enum evbus_code nats_was_removed(const struct nats_reader *reader, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "topic '%s', partition %d was removed while it was read: '%s' has no stream '%s'",
		       reader->base.topic->name, reader->base.partition, reader->nats->url.shown, reader->place.stream);
}

enum evbus_code nats_consumer_open(struct nats_reader *reader, int64_t from_us, uint64_t *pending,
				   struct evbus_err *err)
{
	jsErrCode why = 0;

	nats_consumer_close(reader);
	/* Before it is asked for: what it is asked while the connection is made anew may be lost. */
	reader->reconnects = nats_reconnects(reader->nats);
	natsStatus status = subscribe(reader);
	if (status == NATS_OK)
		status = add_consumer(reader, from_us, pending, &why);
	if (status == NATS_OK)
		return EVBUS_OK;
	nats_consumer_close(reader);
	return status == NATS_NOT_FOUND ? nats_was_removed(reader, err) : nats_cannot_read(reader, status, why, err);
}

enum evbus_code nats_ask(struct nats_reader *reader, struct evbus_err *err)
{
	char subject[STREAM_NAME_MAX + 128], request[128];

	snprintf(subject, sizeof subject, "$JS.API.CONSUMER.MSG.NEXT.%s.%s", reader->place.stream, reader->consumer);
	int len = snprintf(request, sizeof request, "{\"batch\":%u,\"max_bytes\":%zu,\"expires\":%" PRId64 "}",
			   ASK_BATCH, reader->large ? (size_t)ASK_MOST_BYTES : reader->chunk, ASK_EXPIRES_NS);
	for (; reader->asked < ASKED_MAX; reader->asked++) {
		natsStatus status =
			natsConnection_PublishRequest(reader->nats->connection, subject, reader->inbox, request, len);
		if (status != NATS_OK)
			return nats_cannot_read(reader, status, 0, err);
		reader->first_is_new = false;
		reader->large = false;
	}
	return EVBUS_OK;
}

bool nats_may_not_ask(const struct nats_reader *reader)
{
	char subject[STREAM_NAME_MAX + 16];

	snprintf(subject, sizeof subject, ".MSG.NEXT.%s.", reader->place.stream);
	return nats_denied(reader->nats->connection, subject);
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
		nats_consumer_close(reader);
		return;
	}
	const char *left = NULL;
	/* Nothing of it was used: not one message fits. */
	if (full && natsMsgHeader_Get(message, "Nats-Pending-Bytes", &left) == NATS_OK)
		reader->large = strtoull(left, NULL, 10) >= reader->chunk;
	reader->asked -= reader->asked > 0;
}

enum evbus_code nats_take(struct nats_reader *reader, int64_t timeout_ms, bool *came, struct evbus_err *err)
{
	natsMsg *message = NULL;
	natsStatus status = natsSubscription_NextMsg(&message, reader->deliveries, timeout_ms > 0 ? timeout_ms : 0);

	*came = status == NATS_OK;
	if (status == NATS_TIMEOUT)
		return EVBUS_OK;
	if (status != NATS_OK)
		return nats_cannot_read(reader, status, 0, err);
	if (!nats_message_place(message, &reader->delivery)) {
		take_status(reader, message);
		natsMsg_Destroy(message);
		return EVBUS_OK;
	}
	/* One that came before, by a network that doubles, or a gap. */
	bool lost = reader->delivery.number > reader->number + 1;
	/* What is not whole once may have been harmed on its way. */
	if (!lost && reader->doubted != reader->delivery.sequence && !nats_message_is_whole(message)) {
		reader->doubted = reader->delivery.sequence;
		lost = true;
	}
	bool known = reader->delivery.number <= reader->number || reader->delivery.sequence < reader->base.next;
	if (!known && !lost)
		reader->held = message;
	else
		natsMsg_Destroy(message);
	if (lost)
		nats_consumer_close(reader);
	else if (reader->delivery.number > reader->number)
		reader->number = reader->delivery.number;
	return EVBUS_OK;
}

/* Whether what the consumer has delivered is here, and nothing more will come of what is there now. */
static enum evbus_code has_delivered_all(struct nats_reader *reader, bool *all, struct evbus_err *err)
{
	struct nats_question question;
	jsConsumerInfo *info = NULL;
	natsStatus status;
	jsErrCode why = 0;

	*all = false;
	nats_question_begin(reader->nats, &question);
	do
		status = js_GetConsumerInfo(&info, reader->nats->streams, reader->place.stream, reader->consumer,
					    &question.options, &why);
	while (nats_question_again(reader->nats, &question, reader->place.stream, &status));
	if (status == NATS_NOT_FOUND) {
		nats_consumer_close(reader);
		return EVBUS_OK;
	}
	if (status != NATS_OK)
		return nats_cannot_read(reader, status, why, err);
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
	nats_consumer_close(reader);
	return EVBUS_OK;
}

enum evbus_code nats_hold_next(struct nats_reader *reader, int64_t from_us, bool *none, struct evbus_err *err)
{
	int64_t deadline = nats_now_ms() + reader->nats->timeout_ms;
	uint64_t pending = 1;
	bool came;

	*none = false;
	while (!reader->held && !*none) {
		if (!reader->deliveries) {
			TRY(nats_consumer_open(reader, from_us, &pending, err));
			*none = !pending;
			continue;
		}
		TRY(nats_ask(reader, err));
		TRY(nats_take(reader, QUIET_MS, &came, err));
		if (!came && nats_may_not_ask(reader))
			return nats_cannot_read(reader, NATS_NOT_PERMITTED, 0, err);
		if (!came)
			TRY(while_quiet(reader, none, err));
		if (!reader->held && !*none && nats_now_ms() > deadline)
			return too_late(reader, err);
	}
	return EVBUS_OK;
}

/* nats_read.c: reading a stream, as backend.h has it. */
#include "backend/nats.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ASK_LEAST_BYTES 65536u
#define EARLIER_US 60000000 /* clocks of publishers and servers differ by less */

static struct nats_reader *reading(const struct partition_reader *reader)
{
	return (struct nats_reader *)(uintptr_t)reader;
}

/* ---- looking --------------------------------------------------------------------------------------------------- */

static enum evbus_code look(struct nats_reader *reader, struct evbus_err *err)
{
	CLEANUP(nats_look_done) jsStreamInfo *info = NULL;
	struct partition_reader *base = &reader->base;
	enum evbus_code code = nats_look(reader->nats, reader->place.stream, &info, err);

	if (code == EVBUS_NONE && reader->created_ns)
		return nats_was_removed(reader, err);
	TRY(code);
	uint64_t end = info->State.LastSeq + 1;
	if (reader->created_ns && (info->Created != reader->created_ns || end < base->end))
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s', partition %d was %s while it was read: stream '%s'",
			       base->topic->name, base->partition,
			       info->Created != reader->created_ns ? "removed and made again" : "cut",
			       reader->place.stream);
	reader->created_ns = info->Created;
	reader->records = info->State.Msgs;
	reader->bytes = info->State.Bytes;
	reader->last_us = info->State.LastTime / 1000;
	reader->first_is_new = true;
	base->first = info->State.FirstSeq ? info->State.FirstSeq : 1;
	base->end = end;
	return EVBUS_OK;
}

/* Also where a consumer would tell what comes: it tells so after a while, and who looks means now. */
enum evbus_code nats_refresh(struct partition_reader *base, struct evbus_err *err)
{
	struct nats_reader *reader = reading(base);

	if (reader->refused) {
		reader->refused = false;
		return nats_cannot_read(reader, NATS_NOT_PERMITTED, 0, err);
	}
	return look(reader, err);
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
		nats_consumer_close(reading(base));
	base->next = position;
	return EVBUS_OK;
}

/* The message that is held, as a line. */
static enum evbus_code make_line(struct nats_reader *reader, struct line *line, struct evbus_err *err)
{
	struct message message = { .offset = reader->delivery.sequence, .time_us = reader->delivery.time_us };

	if (!nats_message_is_whole(reader->held))
		return err_set(err, EVBUS_IO, 0,
			       "topic '%s', partition %d is damaged at offset %llu: its payload has another "
			       "checksum than when it was published",
			       reader->base.topic->name, reader->base.partition,
			       (unsigned long long)reader->delivery.sequence);
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

	nats_consumer_close(reader);
	for (base->next = base->first; base->next < base->end;) {
		TRY(nats_hold_next(reader, from_us, &none, err));
		if (none || reader->delivery.sequence >= base->end)
			break;
		message = (struct message){ .time_us = reader->delivery.time_us };
		TRY(nats_message_read(reader->held, &reader->room, &message, err));
		base->next = reader->delivery.sequence;
		if (message.time_us >= time_us)
			return EVBUS_OK;
		base->next++;
		nats_drop_held(reader);
		from_us = INT64_MIN;
	}
	base->next = base->end;
	if (reader->held && reader->delivery.sequence < base->next)
		nats_drop_held(reader);
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
	TRY(nats_hold_next(reader, INT64_MIN, &none, err));
	if (none || reader->delivery.sequence > base->next)
		TRY(check_gap(reader, err));
	uint64_t at = none ? UINT64_MAX : reader->delivery.sequence;
	if (at >= end) {
		base->next = at < base->end ? at : base->end;
		return EVBUS_OK;
	}
	TRY(make_line(reader, line, err));
	nats_drop_held(reader);
	base->next = at + 1;
	*got = true;
	return EVBUS_OK;
}

/* A failure is told by whoever reads next; what is not permitted by whoever looks, as there may be nothing to be read. */
bool nats_wait(const struct partition_reader *base, int timeout_ms)
{
	struct nats_reader *reader = reading(base);
	int64_t until = nats_now_ms() + (timeout_ms < NATS_SLICE_MS ? timeout_ms : NATS_SLICE_MS), left;
	uint64_t pending;
	bool came;

	while (!reader->held && (left = until - nats_now_ms()) > 0) {
		enum evbus_code code = EVBUS_OK;
		if (!reader->deliveries)
			code = nats_consumer_open(reader, INT64_MIN, &pending, NULL);
		reader->refused = code == EVBUS_PERMISSION;
		if (!code && nats_reconnects(reader->nats) != reader->reconnects)
			nats_consumer_close(reader);
		else if (code || nats_ask(reader, NULL) != EVBUS_OK || nats_take(reader, left, &came, NULL) != EVBUS_OK)
			return usleep((useconds_t)left * 1000) == 0 || errno != EINTR;
		else if (!came)
			reader->refused = nats_may_not_ask(reader);
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
	struct nats_question question;
	natsMsg *last = NULL;
	natsStatus status;
	jsErrCode why = 0;

	nats_question_begin(reader->nats, &question);
	do
		status = js_GetMsg(&last, reader->nats->streams, reader->place.stream, reader->base.end - 1,
				   &question.options, &why);
	while (nats_question_again(reader->nats, &question, reader->place.stream, &status));
	if (status != NATS_OK && status != NATS_NOT_FOUND)
		return nats_cannot_read(reader, status, why, err);
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
		nats_consumer_close(reader);
	buf_release(&reader->line);
	buf_release(&reader->room);
	free(reader);
}

enum evbus_code nats_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				 struct partition_reader **base, struct evbus_err *err)
{
	struct nats_place place = { 0 };

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

/* outbox_publish.c: from claimed rows to receipts. */
#include "outbox_table.h"

#include "base/os.h"
#include "delivery/retry.h"
#include "event/json.h"
#include "publisher.h"

#include <errno.h>

/* ---- the envelope ---------------------------------------------------------------------------------------------- */

static enum evbus_code add_text(struct buf *out, const char *name, struct evbus_slice text, struct evbus_err *err)
{
	if (!text.data)
		return EVBUS_OK;
	if (!utf8_valid(text))
		return err_set(err, EVBUS_DATA, 0, "the %s is not valid UTF-8", name);
	TRY(buf_add(out, out->len > 1 ? ",\"" : "\"", out->len > 1 ? 2 : 1, err));
	TRY(buf_add(out, name, strlen(name), err));
	TRY(buf_add(out, "\":", 2, err));
	return json_quote(out, text, err);
}

/* As RFC 3339 if it is a time that we understand. */
static enum evbus_code add_time(struct buf *out, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	struct evbus_slice text = row->created_at;
	int64_t plain_us, time_us;
	char standard[28];

	if (text.data && !clock_parse(text.data, text.len, &plain_us) && (time_us = outbox_time_of(text)) != 0) {
		evbus_time_format(time_us, standard);
		text = (struct evbus_slice){ standard, sizeof standard - 1 };
	}
	return add_text(out, "occurred_at", text, err);
}

enum evbus_code outbox_wrap(struct buf *out, const struct evbus_outbox_row *row, struct evbus_err *err)
{
	struct evbus_slice body = row->payload;

	if (!body.data || !body.len || json_value_len(body) != body.len)
		return err_set(err, EVBUS_DATA, 0, "the body is not one JSON value");
	out->len = 0;
	TRY(buf_add(out, "{", 1, err));
	TRY(add_text(out, "event_id", row->id, err));
	TRY(add_text(out, "event_type", row->event_type, err));
	TRY(add_time(out, row, err));
	TRY(add_text(out, "tenant_id", row->tenant_id, err));
	TRY(buf_add(out, out->len > 1 ? ",\"data\":" : "\"data\":", out->len > 1 ? 8 : 7, err));
	TRY(buf_add(out, body.data, body.len, err));
	return buf_add(out, "}", 1, err);
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

/* What can never become an event, however often it is tried. */
static bool is_hopeless(const struct evbus_outbox *outbox, const struct evbus_outbox_row *row,
			struct evbus_slice payload, enum evbus_reason *reason)
{
	struct json_fault fault;

	*reason = EVBUS_REASON_NOT_JSON;
	if (!payload.data || !json_scan_line(payload, &fault))
		return true;
	*reason = EVBUS_REASON_TOO_LARGE;
	if (payload.len > bus_payload_max(outbox->to))
		return true;
	*reason = EVBUS_REASON_BACKEND;
	return !row->topic.data || memchr(row->topic.data, 0, row->topic.len) ||
	       evbus_topic_check(row->topic.data, false, NULL);
}

static void refuse(struct evbus_outbox *outbox, struct outbox_batch *batch, struct outbox_job *job,
		   struct evbus_slice payload, const char *error)
{
	bool hopeless = is_hopeless(outbox, &job->held.row, payload, &job->reason);
	int64_t attempts = job->held.row.attempts + 1;

	snprintf(job->error, sizeof job->error, "%s", error);
	job->fate = hopeless || !retry_again(&batch->options->retry, attempts) ? OUTBOX_DEAD : OUTBOX_REFUSED;
	if (job->fate == OUTBOX_REFUSED)
		job->due_us = retry_due_us(&batch->options->retry, attempts, outbox_now_us(outbox));
}

/* ---- receipts -------------------------------------------------------------------------------------------------- */

#define RECEIPT_SLICES 12u

/* Slices within the stored line stay within it. */
static struct evbus_slice moved(struct evbus_slice slice, struct evbus_slice from, const char *to, char **room)
{
	if (!slice.data)
		return slice;
	if (from.data && slice.data >= from.data && slice.data + slice.len <= from.data + from.len)
		return (struct evbus_slice){ to + (slice.data - from.data), slice.len };
	struct evbus_slice copy = { *room, slice.len };
	memcpy(*room, slice.data, slice.len);
	*room += slice.len;
	return copy;
}

static int64_t number_of(struct evbus_slice text)
{
	int64_t number = 0;

	if (!text.len || text.len > 18)
		return -1;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return -1;
		number = number * 10 + (text.data[i] - '0');
	}
	return number;
}

/* A receipt lives until the next call on the publisher, and is given out when the rows are marked. */
static enum evbus_code keep_receipt(struct outbox_job *job, const struct evbus_record *receipt, struct evbus_err *err)
{
	struct evbus_record copy = *receipt;
	struct evbus_slice *slices[RECEIPT_SLICES] = {
		&copy.topic,     &copy.offset, &copy.published_at_utc, &copy.partition_key, &copy.tenant_id,
		&copy.event_key, &copy.batch,  &copy.origin,           &copy.payload,       &copy.members,
		&copy.stored,    &copy.payload_base64,
	};
	struct evbus_slice line = receipt->stored;
	size_t size = line.len + 1;

	for (size_t i = 0; i < RECEIPT_SLICES; i++)
		size += slices[i]->len;
	job->receipt_block = os.realloc(NULL, size);
	if (!job->receipt_block)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot keep a receipt");
	if (line.len)
		memcpy(job->receipt_block, line.data, line.len);
	char *room = job->receipt_block + line.len;
	for (size_t i = 0; i < RECEIPT_SLICES; i++)
		*slices[i] = moved(*slices[i], line, job->receipt_block, &room);
	job->receipt = copy;
	job->offset = number_of(copy.offset);
	job->fate = OUTBOX_DONE;
	return EVBUS_OK;
}

struct publishing {
	struct evbus_outbox *outbox;
	struct outbox_batch *batch;
	size_t next; /* the job that the next receipt is of, or before it */
	bool singly; /* one after the other */
	struct buf envelope;
};

static enum evbus_code take_receipts(struct publishing *publishing, struct evbus_err *err)
{
	struct outbox_batch *batch = publishing->batch;
	const struct evbus_record *receipt;

	while ((receipt = evbus_publisher_next(publishing->outbox->publisher))) {
		while (publishing->next < batch->count && batch->jobs[publishing->next].fate != OUTBOX_ADDED)
			publishing->next++;
		if (publishing->next == batch->count)
			return err_set(err, EVBUS_BUG, 0, "a receipt too many from the publisher");
		TRY(keep_receipt(&batch->jobs[publishing->next++], receipt, err));
	}
	return EVBUS_OK;
}

/* ---- what was published before -------------------------------------------------------------------------------- */

/* A text with NUL in it is no name. */
static const char *topic_of(const struct evbus_outbox_row *row)
{
	if (!row->topic.data || memchr(row->topic.data, 0, row->topic.len))
		return "";
	return row->topic.data;
}

static bool is_of_the_row(enum evbus_code code)
{
	return code == EVBUS_DATA || code == EVBUS_USAGE || code == EVBUS_NONE;
}

static uint64_t topic_hash(const char *topic)
{
	return key_hash(SLICE(""), (struct evbus_slice){ topic, strlen(topic) });
}

static bool follows_itself(const struct outbox_batch *batch, size_t i)
{
	return i > 0 && !strcmp(topic_of(&batch->jobs[i].held.row), topic_of(&batch->jobs[i - 1].held.row));
}

bool outbox_is_behind(const struct evbus_outbox *outbox, const struct outbox_batch *batch)
{
	if (evbus_is_target(outbox->to))
		return false;
	for (size_t i = 0; i < batch->count && outbox->publisher; i++) {
		const char *topic = topic_of(&batch->jobs[i].held.row);
		if (!follows_itself(batch, i) && !outbox_key_is_in(&batch->caught_up, topic_hash(topic)) &&
		    publisher_is_behind(outbox->publisher, topic))
			return true;
	}
	return false;
}

/* Of a name that is none its rows are told when they are published. */
enum evbus_code outbox_catch_up(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	for (size_t i = 0; i < batch->count; i++) {
		const char *topic = topic_of(&batch->jobs[i].held.row);
		if (follows_itself(batch, i) || outbox_key_is_in(&batch->caught_up, topic_hash(topic)))
			continue;
		TRY(outbox_key_add(&batch->caught_up, topic_hash(topic), err));
		enum evbus_code code = publisher_catch_up(outbox->publisher, topic, err);
		if (code && !is_of_the_row(code))
			return code;
	}
	return EVBUS_OK;
}

/* ---- publishing ------------------------------------------------------------------------------------------------ */

static enum evbus_code add_event(struct publishing *publishing, const struct evbus_outbox_row *row,
				 struct evbus_slice *payload, struct evbus_err *err)
{
	struct evbus_outbox *outbox = publishing->outbox;

	*payload = row->payload;
	if (outbox->wrap) {
		*payload = (struct evbus_slice){ NULL, 0 };
		TRY(outbox_wrap(&publishing->envelope, row, err));
		*payload = (struct evbus_slice){ publishing->envelope.data, publishing->envelope.len };
	}
	if (!payload->data)
		return err_set(err, EVBUS_DATA, 0, "the payload is NULL");
	struct evbus_event event = {
		.topic = topic_of(row),
		.payload = *payload,
		.key = row->partition_key,
		.partition_id = EVBUS_PARTITION_ANY,
		.tenant_id = row->tenant_id,
		.event_key = row->event_key.data ? row->event_key : row->id,
	};
	return evbus_publisher_add(outbox->publisher, &event, err);
}

/* Unless a row before it blocks its key. A refusal is the row's fate and no failure. */
static enum evbus_code add_job(struct publishing *publishing, struct outbox_job *job, struct evbus_err *err)
{
	struct evbus_outbox *outbox = publishing->outbox;
	struct evbus_slice payload;
	struct evbus_err own;

	/* When it was claimed nothing did: one before it in this batch was refused. */
	if (outbox_key_is_in(&outbox->blocked, job->key)) {
		job->fate = OUTBOX_HELD;
		return EVBUS_OK;
	}
	enum evbus_code code = add_event(publishing, &job->held.row, &payload, &own);
	if (!code && publishing->singly)
		code = evbus_publisher_flush(outbox->publisher, &own);
	if (is_of_the_row(code)) {
		refuse(outbox, publishing->batch, job, payload, own.text);
		return job->fate == OUTBOX_REFUSED ? outbox_key_add(&outbox->blocked, job->key, err) : EVBUS_OK;
	}
	if (code && err)
		*err = own;
	job->fate = code ? job->fate : OUTBOX_ADDED;
	return code;
}

static enum evbus_code publish_all(struct publishing *publishing, struct evbus_err *err)
{
	struct outbox_batch *batch = publishing->batch;

	for (size_t i = 0; i < batch->count; i++) {
		TRY(add_job(publishing, &batch->jobs[i], err));
		TRY(take_receipts(publishing, err));
	}
	TRY(evbus_publisher_flush(publishing->outbox->publisher, err));
	return take_receipts(publishing, err);
}

enum evbus_code outbox_open_publisher(struct evbus_outbox *outbox, struct evbus_err *err)
{
	const struct evbus_publisher_options options = { .idempotent = !evbus_is_target(outbox->to) };

	/* Not there is not the row's fault, and not that of the topic either. */
	enum evbus_code code = bus_reach(outbox->to, true, err);
	if (code == EVBUS_NONE) {
		if (err)
			err->code = EVBUS_UNAVAILABLE;
		return EVBUS_UNAVAILABLE;
	}
	TRY(code);
	if (outbox->publisher)
		return EVBUS_OK;
	return evbus_publisher_open(outbox->to, &options, &outbox->publisher, err);
}

void outbox_close_publisher(struct evbus_outbox *outbox)
{
	evbus_publisher_close(outbox->publisher);
	outbox->publisher = NULL;
}

/* Others take what we have when its lease has run out: by then nothing of ours may come any more. */
static void prepare(struct evbus_outbox *outbox, const struct outbox_batch *batch)
{
	publisher_set_deadline(outbox->publisher, &batch->deadline);
	/* One time for all of them, so that one statement can mark them. */
	publisher_set_time(outbox->publisher, outbox->time_us);
	publisher_set_go_on(outbox->publisher, batch->options->go_on, batch->options->go_on_context);
}

/* A publisher that has failed stays so. */
static enum evbus_code renew(struct evbus_outbox *outbox, const struct outbox_batch *batch, struct evbus_err *err)
{
	if (outbox->publisher && publisher_failure(outbox->publisher, NULL) == EVBUS_OK)
		return EVBUS_OK;
	outbox_close_publisher(outbox);
	TRY(outbox_open_publisher(outbox, err));
	prepare(outbox, batch);
	return EVBUS_OK;
}

/* What a target refuses it refuses when it is sent. Which row that was is found out by sending one after the other; those
 * behind it may have been taken already, and come twice. */
static enum evbus_code publish_singly(struct publishing *publishing, struct evbus_err *err)
{
	struct outbox_batch *batch = publishing->batch;

	publishing->singly = true;
	for (size_t i = 0; i < batch->count; i++)
		if (batch->jobs[i].fate == OUTBOX_ADDED)
			batch->jobs[i].fate = OUTBOX_UNTRIED;
	for (size_t i = 0; i < batch->count; i++) {
		if (batch->jobs[i].fate != OUTBOX_UNTRIED)
			continue;
		TRY(renew(publishing->outbox, batch, err));
		publishing->next = i;
		TRY(add_job(publishing, &batch->jobs[i], err));
		TRY(take_receipts(publishing, err));
	}
	return EVBUS_OK;
}

static bool was_refused(const struct evbus_outbox *outbox)
{
	return evbus_is_target(outbox->to) && is_of_the_row(publisher_failure(outbox->publisher, NULL));
}

enum evbus_code outbox_publish(struct evbus_outbox *outbox, struct outbox_batch *batch, struct evbus_err *err)
{
	struct publishing publishing = { .outbox = outbox, .batch = batch };
	struct evbus_err ignored;

	outbox->time_us = os_now_us();
	prepare(outbox, batch);
	enum evbus_code code = publish_all(&publishing, err);
	if (code && was_refused(outbox) && take_receipts(&publishing, &ignored) == EVBUS_OK)
		code = publish_singly(&publishing, err);
	if (code) {
		/* What it has receipts for is there all the same. */
		if (outbox->publisher && take_receipts(&publishing, &ignored) != EVBUS_OK)
			code = code ? code : ignored.code;
		outbox_close_publisher(outbox);
	}
	buf_release(&publishing.envelope);
	return code;
}

/* kinesis_read.c: reading a shard, as backend.h has it. */
#include "backend/kinesis.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define LIMIT 1000u /* records at once, */
#define LIMIT_LESS 100u /* where little is wanted */
#define LESS_BYTES 65536u
#define IDLE_US 220000 /* a shard lets itself be read five times a second, */
#define IDLE_EACH_US 10000 /* and where there are many, those that are idle do not take the time of the others */
#define EARLIER_US 60000000 /* clocks of publishers and of the service differ by less */

static struct kinesis_reader *reading(const struct partition_reader *reader)
{
	return (struct kinesis_reader *)(uintptr_t)reader;
}

/* ---- fetching -------------------------------------------------------------------------------------------------- */

static enum evbus_code fetch_on(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct evbus_err why;

	if (!reader->begun)
		TRY(kinesis_begin(reader, err));
	if (reader->fetch.ended)
		return EVBUS_OK;
	enum evbus_code code = fetch_more(&reader->fetch, &why);
	/* Iterators live for five minutes. */
	if (code == EVBUS_DATA && !strcmp(reader->fetch.link->exception, "ExpiredIteratorException")) {
		TRY(kinesis_begin(reader, err));
		code = fetch_more(&reader->fetch, &why);
	}
	if (code != EVBUS_OK) {
		reader->begun = false;
		if (err)
			*err = why;
	}
	return code;
}

/* Holds the first record from `next` on of what was fetched; false: there is none in it. */
static enum evbus_code hold(struct kinesis_reader *reader, struct evbus_err *err)
{
	while (!reader->holds && fetch_next(&reader->fetch, &reader->held)) {
		if (reader->unsure)
			TRY(kinesis_check_begun(reader, &reader->held, err));
		enum number_kind kind = reader->jumped ? NUMBER_MET : NUMBER_READ;
		TRY(kinesis_position(reader, &reader->held.sequence, kind, &reader->held_at, err));
		reader->jumped = false;
		reader->holds = reader->held_at >= reader->base.next;
	}
	return EVBUS_OK;
}

/* Fetches until something is held, or nothing more is there. */
static enum evbus_code hold_next(struct kinesis_reader *reader, struct evbus_err *err)
{
	TRY(hold(reader, err));
	while (!reader->holds) {
		TRY(fetch_on(reader, err));
		TRY(hold(reader, err));
		if (reader->fetch.caught_up)
			break;
	}
	return reader->unsure ? kinesis_check_begun(reader, NULL, err) : EVBUS_OK;
}

/* Not more often than a shard likes it. */
static void take_it_slowly(const struct kinesis_reader *reader)
{
	int64_t left_us = reader->fetch.idle_us ? reader->fetch.idle_us + IDLE_US - os_monotonic_us() : 0;

	if (left_us > 0)
		nanosleep(&(struct timespec){ .tv_nsec = left_us * 1000 }, NULL);
}

/* What is held, and what was fetched with it, is all that there is. */
static enum evbus_code end_with_fetched(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct evbus_slice rest = reader->fetch.rest;
	uint64_t position = reader->held_at;
	struct fetched fetched;

	kinesis_remember_last(reader, &reader->held);
	while (fetch_next(&reader->fetch, &fetched)) {
		TRY(kinesis_position(reader, &fetched.sequence, NUMBER_READ, &position, err));
		kinesis_remember_last(reader, &fetched);
	}
	reader->fetch.rest = rest;
	return kinesis_set_end(reader, err);
}

enum evbus_code kinesis_refresh(struct partition_reader *base, struct evbus_err *err)
{
	struct kinesis_reader *reader = reading(base);
	struct fetch *fetch = &reader->fetch;

	if (base->closed)
		return EVBUS_OK;
	if (base->next < base->end || reader->holds)
		return kinesis_look_for_end(reader, err);
	take_it_slowly(reader);
	TRY(hold_next(reader, err));
	base->rests_to_us = fetch->idle_us ? fetch->idle_us + IDLE_US + IDLE_EACH_US * base->topic->partitions : 0;
	if (!fetch->caught_up)
		return kinesis_look_for_end(reader, err);
	if (reader->holds)
		TRY(end_with_fetched(reader, err));
	return fetch->ended ? kinesis_learn_closed(reader, err) : EVBUS_OK;
}

bool kinesis_wait(const struct partition_reader *base, int timeout_ms)
{
	int64_t wait_us = (int64_t)timeout_ms * 1000;
	int64_t most_us = base->rests_to_us ? base->rests_to_us - os_monotonic_us() : IDLE_US;

	wait_us = wait_us < most_us ? wait_us : most_us;
	return wait_us <= 0 || reading(base)->holds ||
	       nanosleep(&(struct timespec){ wait_us / 1000000, wait_us % 1000000 * 1000 }, NULL) == 0 ||
	       errno != EINTR;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

static enum evbus_code damaged(const struct kinesis_reader *reader, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0, "topic '%s', partition %d: the data of record %.*s is no base64",
		       reader->base.topic->name, reader->base.partition, (int)reader->held.number.len,
		       reader->held.number.data);
}

/* The record that is held, as a line. */
static enum evbus_code make_line(struct kinesis_reader *reader, struct line *line, struct evbus_err *err)
{
	const struct fetched *held = &reader->held;
	struct message message;

	reader->data.len = 0;
	TRY(buf_reserve(&reader->data, held->data.len + held->key.len + 1, err));
	struct evbus_slice base64 = json_string(held->data, reader->data.data);
	size_t len = base64.data ? evbus_base64_decode(base64, reader->data.data) : SIZE_MAX;
	if (len == SIZE_MAX)
		return damaged(reader, err);
	struct evbus_slice key = json_string(held->key, reader->data.data + held->data.len);
	TRY(record_read((struct evbus_slice){ reader->data.data, len }, key, held->arrived_us, &reader->room, &message,
			err));
	message.offset = reader->held_at;
	message.offset_text = held->number;
	return message_line(&reader->text, &message, line, err);
}

enum evbus_code kinesis_next(struct partition_reader *base, uint64_t end, struct line *line, bool *got,
			     struct evbus_err *err)
{
	struct kinesis_reader *reader = reading(base);
	uint64_t limit = end < base->end ? end : base->end;

	*got = false;
	if (base->next >= limit)
		return EVBUS_OK;
	TRY(hold_next(reader, err));
	if (!reader->holds || reader->held_at >= limit) {
		base->next = limit;
		return EVBUS_OK;
	}
	TRY(make_line(reader, line, err));
	reader->holds = false;
	base->next = reader->held_at + 1;
	*got = true;
	return EVBUS_OK;
}

/* Back to what the last answer had, if it is there. */
static enum evbus_code go_back(struct kinesis_reader *reader, uint64_t position, bool *done, struct evbus_err *err)
{
	struct fetched fetched;
	uint64_t first = 0;

	*done = false;
	reader->holds = false;
	reader->fetch.rest = reader->fetch.all;
	struct evbus_slice rest = reader->fetch.rest;
	if (!reader->begun || !fetch_next(&reader->fetch, &fetched))
		return EVBUS_OK;
	reader->fetch.rest = rest;
	reader->held_at = 0;
	TRY(kinesis_position(reader, &fetched.sequence, NUMBER_MET, &first, err));
	*done = first <= position;
	return EVBUS_OK;
}

enum evbus_code kinesis_seek(struct partition_reader *base, uint64_t position, struct evbus_err *err)
{
	struct kinesis_reader *reader = reading(base);
	bool done = true;

	if (position < base->first)
		return err_set(err, EVBUS_NONE, 0, "topic '%s', partition %d has no record before its first",
			       base->topic->name, base->partition);
	position = position < base->end ? position : base->end;
	if (position < base->next)
		TRY(go_back(reader, position, &done, err));
	else if (position > base->next)
		done = reader->holds && reader->held_at >= position;
	reader->begun = reader->begun && done;
	if (!done)
		reader->fetch.rest = reader->fetch.all = (struct evbus_slice){ NULL, 0 };
	reader->holds = reader->holds && done;
	base->next = position;
	/* Whether what stood there is there still shows when it is read. */
	bool at_once = !done && position > base->first && !(base->closed && position >= base->end);
	return at_once ? hold_next(reader, err) : EVBUS_OK;
}

/* The time that it was published at stands in the record, and the service goes by its own. */
enum evbus_code kinesis_seek_time(struct partition_reader *base, int64_t time_us, struct evbus_err *err)
{
	struct kinesis_reader *reader = reading(base);
	int64_t now_us = os_now_us(), from_us = (time_us < now_us ? time_us : now_us) - EARLIER_US;
	struct line line;
	bool got;

	reader->holds = reader->unsure = false;
	reader->begun = reader->jumped = true;
	TRY(fetch_begin(&reader->fetch, from_us > 0 ? FROM_TIME : FROM_FIRST, NULL, from_us, err));
	base->next = base->first;
	for (;;) {
		TRY(kinesis_next(base, UINT64_MAX, &line, &got, err));
		if (!got)
			return EVBUS_OK;
		if (line.time_us < time_us)
			continue;
		/* It is held still. */
		base->next = line.offset;
		reader->holds = true;
		return EVBUS_OK;
	}
}

/* ---- what there is --------------------------------------------------------------------------------------------- */

enum evbus_code kinesis_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	(void)reader;
	(void)err;
	*bytes = 0;
	return EVBUS_OK;
}

/* The first that the stream still has; and the last, which was met when it was looked for the end. */
enum evbus_code kinesis_describe(struct partition_reader *base, struct evbus_partition_info *info,
				 struct evbus_err *err)
{
	struct kinesis_reader *reader = reading(base);
	uint64_t last = 0;
	struct line line;
	bool got;

	info->records = info->bytes = UINT64_MAX;
	if (!reader->last_us && base->closed)
		TRY(kinesis_look_for_end(reader, err));
	TRY(kinesis_seek(base, base->first, err));
	TRY(kinesis_next(base, UINT64_MAX, &line, &got, err));
	if (!got)
		return EVBUS_OK;
	base->first = line.offset;
	if (!reader->last_us)
		return EVBUS_OK;
	TRY(kinesis_position(reader, &reader->last, NUMBER_MET, &last, err));
	TRY(kinesis_seek(base, last, err));
	TRY(kinesis_next(base, UINT64_MAX, &line, &got, err));
	if (got)
		evbus_time_format(line.time_us, info->last_published_at_utc);
	return EVBUS_OK;
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

void kinesis_reader_close(struct partition_reader *base)
{
	struct kinesis_reader *reader = reading(base);

	fetch_release(&reader->fetch);
	buf_release(&reader->data);
	buf_release(&reader->room);
	buf_release(&reader->text);
	free(reader);
}

static enum evbus_code prepare(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct fetch *fetch = &reader->fetch;
	struct partition_reader *base = &reader->base;

	TRY(kinesis_shard(fetch->topic, base->partition, &fetch->shard, err));
	TRY(link_open(fetch->topic->kinesis, &fetch->link, err));
	TRY(kinesis_numbering(reader, err));
	TRY(kinesis_position(reader, &fetch->shard.begins, NUMBER_ASKED, &base->first, err));
	base->next = base->end = base->first;
	return fetch->shard.closed ? kinesis_close_shard(reader, err) : kinesis_look_for_end(reader, err);
}

enum evbus_code kinesis_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
				    struct partition_reader **base, struct evbus_err *err)
{
	struct kinesis_reader *reader = os.realloc(NULL, sizeof *reader);

	(void)ahead;
	if (!reader)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->name);
	*reader = (struct kinesis_reader){
		.base = { .ops = &backend_kinesis, .topic = topic, .partition = partition },
		.fetch = { .topic = kinesis_topic_of(topic), .limit = chunk < LESS_BYTES ? LIMIT_LESS : LIMIT },
	};
	enum evbus_code code = prepare(reader, err);
	if (code != EVBUS_OK) {
		kinesis_reader_close(&reader->base);
		return code;
	}
	*base = &reader->base;
	return EVBUS_OK;
}

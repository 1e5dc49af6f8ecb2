/* kinesis_end.c: where a shard ends.
 *
 * Nobody says so of one that is open. So the end is looked for: first from the last record that is known, which is enough
 * where not much came since; then among what came within the last seconds, and where that is nothing, within the last
 * minute, and so on. Who has come to it looks on from there. */
#include "backend/kinesis.h"

#define LIMIT 1000u /* records at once */
#define BACK_US 4000000 /* at first */
#define BACK_FACTOR 16
#define BACK_MAX_US ((int64_t)100 * 3600 * 1000000) /* what is longer ago is looked for from the beginning */

enum evbus_code kinesis_set_end(struct kinesis_reader *reader, struct evbus_err *err)
{
	uint64_t position = 0;

	TRY(kinesis_position(reader, &reader->last, NUMBER_MET, &position, err));
	if (position + 1 > reader->base.end)
		reader->base.end = position + 1;
	return EVBUS_OK;
}

void kinesis_remember_last(struct kinesis_reader *reader, const struct fetched *fetched)
{
	reader->last = fetched->sequence;
	reader->last_us = fetched->arrived_us ? fetched->arrived_us : 1;
}

/* What the last answer had. */
static bool take_last(struct kinesis_reader *reader, struct fetch *probe)
{
	struct fetched fetched;
	bool any = false;

	for (; fetch_next(probe, &fetched); any = true)
		kinesis_remember_last(reader, &fetched);
	return any;
}

/* From the last that is known, or the first that is there: one look, which is enough where not much is there. */
static enum evbus_code look_once(struct kinesis_reader *reader, struct fetch *probe, bool *any, struct evbus_err *err)
{
	TRY(fetch_begin(probe, reader->last_us ? FROM_AFTER : FROM_FIRST, &reader->last, 0, err));
	TRY(fetch_more(probe, err));
	*any = take_last(reader, probe);
	return EVBUS_OK;
}

/* From some time on, to the end. */
static enum evbus_code look_since(struct kinesis_reader *reader, struct fetch *probe, int64_t since_us, bool *any,
				  struct evbus_err *err)
{
	if (reader->last_us < since_us)
		TRY(fetch_begin(probe, FROM_TIME, NULL, since_us, err));
	else
		TRY(fetch_begin(probe, reader->last_us ? FROM_AFTER : FROM_FIRST, &reader->last, 0, err));
	do {
		TRY(fetch_more(probe, err));
		*any = take_last(reader, probe) || *any;
	} while (!probe->caught_up);
	return EVBUS_OK;
}

/* *once: it took one look. */
static enum evbus_code look(struct kinesis_reader *reader, struct fetch *probe, bool *once, struct evbus_err *err)
{
	int64_t now_us = os_now_us(), back_us = BACK_US;
	bool any = false, found = false;

	TRY(look_once(reader, probe, &any, err));
	*once = probe->caught_up;
	for (bool done = *once; !done; back_us *= BACK_FACTOR) {
		int64_t since_us = back_us < BACK_MAX_US ? now_us - back_us : 0;
		done = reader->last_us >= since_us;
		TRY(look_since(reader, probe, since_us, &found, err));
		done = done || found;
	}
	return any || found ? kinesis_set_end(reader, err) : EVBUS_OK;
}

/* What this reader has fetched stays; where that is nothing, it looks by its own connection, and what it finds is read. */
enum evbus_code kinesis_look_for_end(struct kinesis_reader *reader, struct evbus_err *err)
{
	CLEANUP(fetch_release)
	struct fetch other = { .topic = reader->fetch.topic, .shard = reader->fetch.shard, .limit = LIMIT };
	bool own = !reader->begun, from_first = !reader->last_us && reader->base.next == reader->base.first;
	struct fetch *probe = own ? &reader->fetch : &other;
	bool once = false;

	if (!own)
		TRY(link_open(other.topic->kinesis, &other.link, err));
	TRY(look(reader, probe, &once, err));
	reader->begun = !own || (from_first && once);
	if (!reader->begun)
		probe->all = (struct evbus_slice){ NULL, 0 };
	probe->rest = probe->all;
	reader->held_at = own ? 0 : reader->held_at;
	return EVBUS_OK;
}

enum evbus_code kinesis_close_shard(struct kinesis_reader *reader, struct evbus_err *err)
{
	uint64_t position = 0;

	TRY(kinesis_position(reader, &reader->fetch.shard.ends, NUMBER_ASKED, &position, err));
	if (position + 1 > reader->base.end)
		reader->base.end = position + 1;
	reader->base.closed = true;
	return EVBUS_OK;
}

static void link_cleanup(struct link **link)
{
	link_close(*link);
}

/* It says so itself when it was read to its end; where that is stands in the list. */
enum evbus_code kinesis_learn_closed(struct kinesis_reader *reader, struct evbus_err *err)
{
	struct fetch *fetch = &reader->fetch;
	CLEANUP(link_cleanup) struct link *link = NULL;

	TRY(link_open(fetch->topic->kinesis, &link, err));
	TRY(kinesis_look_at_shards(fetch->topic, link, "read", err));
	TRY(kinesis_shard(fetch->topic, reader->base.partition, &fetch->shard, err));
	if (!fetch->shard.closed)
		fetch->shard.ends = reader->last_us ? reader->last : fetch->shard.begins;
	return kinesis_close_shard(reader, err);
}

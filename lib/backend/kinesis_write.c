/* kinesis_write.c: publishing to a shard.
 *
 * Of the records of one call some may be taken and others not, whatever their order. So that no event comes before one of its key
 * that was to come first, no two of a key are sent in one call, and what was not taken is sent again before any other
 * of its key. Events without a key are sent together: an order among them is not kept where some of them fail. */
#include "backend/kinesis.h"

#include "event/json.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#define HASHES (2u * 512u) /* a power of two, well above KINESIS_CALL_RECORDS */
#define RECORD_ROOM_BYTES 2048u /* of a record: what is neither payload nor text */

/* A line that is to be sent. */
struct item {
	size_t line;
	bool told; /* there is an answer: it was taken */
	uint64_t hash; /* of its key; 0: it has none */
};

struct kinesis_writer {
	struct partition_writer base;
	struct kinesis_topic *topic;
	struct link *link;
	struct shard shard; /* as it was when this was opened */
	uint32_t initial;
	struct buf items; /* one for each line */
	struct buf places; /* a struct group_place for each */
	struct buf sent; /* size_t: which items a call has */
	struct buf request, data, room;
	size_t call_bytes;
	uint64_t hashes[HASHES]; /* of the keys that a call has, or that have to wait for it */
	char failed[160]; /* why a record of the last call was not taken */
};

static struct kinesis_writer *writing(struct partition_writer *writer)
{
	return (struct kinesis_writer *)(void *)writer;
}

static struct item *items_of(const struct kinesis_writer *writer)
{
	return (struct item *)(void *)writer->items.data;
}

static struct group_place *places_of(const struct kinesis_writer *writer)
{
	return (struct group_place *)(void *)writer->places.data;
}

/* ---- the keys of a call ---------------------------------------------------------------------------------------- */

/* true: it was there before. What has no key is never there. Two keys of one hash wait for each other, which is as good. */
static bool note_key(struct kinesis_writer *writer, uint64_t hash)
{
	size_t at = hash & (HASHES - 1);

	if (!hash)
		return false;
	for (size_t i = 0; i < HASHES; i++, at = (at + 1) & (HASHES - 1)) {
		if (writer->hashes[at] == hash)
			return true;
		if (!writer->hashes[at]) {
			writer->hashes[at] = hash;
			return false;
		}
	}
	return true;
}

static uint64_t hash_of(struct evbus_slice key)
{
	hash_key place = key.data ? kinesis_place(key, 1) : 0;

	return key.data ? (uint64_t)(place >> 64) | 1 : 0;
}

/* ---- a call ---------------------------------------------------------------------------------------------------- */

/* *fits false: the call has no room for it. */
static enum evbus_code add_record(struct kinesis_writer *writer, const struct group *group, size_t line, bool *fits,
				  struct evbus_err *err)
{
	struct message message;
	char room[8], place[40];

	TRY(message_of(group, line, &writer->room, &message, err));
	writer->data.len = 0;
	TRY(record_make(&message, &writer->data, err));
	struct evbus_slice key = record_key(&message, room);
	size_t bytes = writer->data.len + key.len;
	*fits = writer->call_bytes + bytes <= KINESIS_CALL_BYTES;
	if (!*fits)
		return EVBUS_OK;
	writer->call_bytes += bytes;
	hash_key_format(kinesis_place_in(&writer->shard, message.key, writer->initial), place);
	TRY(json_put(&writer->request, err, "%s{\"Data\":", writer->sent.len ? "," : ""));
	TRY(json_base64(&writer->request, (struct evbus_slice){ writer->data.data, writer->data.len }, err));
	TRY(json_put(&writer->request, err, ",\"ExplicitHashKey\":\"%s\",\"PartitionKey\":", place));
	TRY(json_quote(&writer->request, key, err));
	return buf_add(&writer->request, "}", 1, err);
}

/* As many as a call takes, each key once, and what waits behind them stays behind them. */
static enum evbus_code make_call(struct kinesis_writer *writer, const struct group *group, struct evbus_err *err)
{
	size_t count = group_count(group), noted = 0;
	bool fits = true;

	memset(writer->hashes, 0, sizeof writer->hashes);
	writer->sent.len = 0;
	writer->call_bytes = 0;
	TRY(kinesis_request(writer->topic->stream, &writer->request, err));
	TRY(json_put(&writer->request, err, ",\"Records\":["));
	for (size_t i = 0; i < count && fits && noted < KINESIS_CALL_RECORDS; i++) {
		struct item *item = &items_of(writer)[i];
		if (item->told || note_key(writer, item->hash))
			continue;
		noted++;
		TRY(add_record(writer, group, item->line, &fits, err));
		if (fits)
			TRY(buf_add(&writer->sent, &i, sizeof i, err));
	}
	return json_put(&writer->request, err, "]}");
}

static int32_t shard_number(struct evbus_slice id)
{
	uint64_t number = 0;

	while (id.len && (*id.data < '1' || *id.data > '9')) {
		id.data++;
		id.len--;
	}
	for (; id.len && *id.data >= '0' && *id.data <= '9' && number < INT32_MAX / 10; id.data++, id.len--)
		number = number * 10 + (uint64_t)(*id.data - '0');
	return (int32_t)number;
}

/* What became of one record. *taken false: it has to be sent again. */
static enum evbus_code take_result(struct kinesis_writer *writer, size_t i, struct evbus_slice result, bool *taken,
				   struct evbus_err *err)
{
	struct group_place *place = &places_of(writer)[i];
	struct evbus_slice number = json_member(result, "SequenceNumber"), shard = json_member(result, "ShardId");

	*taken = number.data != NULL;
	if (!*taken) {
		struct evbus_slice code = json_member(result, "ErrorCode"), text = json_member(result, "ErrorMessage");
		snprintf(writer->failed, sizeof writer->failed, "%.*s: %.*s", (int)(code.len < 60 ? code.len : 60),
			 code.data ? code.data : "", (int)(text.len < 90 ? text.len : 90), text.data ? text.data : "");
		return EVBUS_OK;
	}
	if (number.len < 3 || number.len - 2 > EVBUS_OFFSET_MAX_BYTES || !shard.data)
		return err_set(err, EVBUS_UNAVAILABLE, 0, "'%s' has an event of stream '%s', and does not say where",
			       writer->topic->kinesis->endpoint, writer->topic->stream);
	snprintf(place->offset, sizeof place->offset, "%.*s", (int)number.len - 2, number.data + 1);
	place->partition = shard_number(shard);
	items_of(writer)[i].told = true;
	return EVBUS_OK;
}

/* *taken: how many were. */
static enum evbus_code take_results(struct kinesis_writer *writer, struct evbus_slice answer, size_t *taken,
				    struct evbus_err *err)
{
	const size_t *sent = (const size_t *)(const void *)writer->sent.data;
	struct evbus_slice at = json_member(answer, "Records"), result;
	bool this_one;

	*taken = 0;
	for (size_t n = 0; n < writer->sent.len / sizeof *sent; n++) {
		if (!json_next(&at, &result))
			return err_set(err, EVBUS_UNAVAILABLE, 0,
				       "'%s' does not say what became of all events that it got for stream '%s'",
				       writer->topic->kinesis->endpoint, writer->topic->stream);
		TRY(take_result(writer, sent[n], result, &this_one, err));
		*taken += this_one;
	}
	return EVBUS_OK;
}

/* ---- all of a group -------------------------------------------------------------------------------------------- */

static size_t count_told(const struct kinesis_writer *writer, bool first_only)
{
	size_t count = writer->items.len / sizeof(struct item), told = 0;

	for (size_t i = 0; i < count && (items_of(writer)[i].told || !first_only); i++)
		told += items_of(writer)[i].told;
	return told;
}

static enum evbus_code not_taken(const struct kinesis_writer *writer, size_t left, struct evbus_err *err)
{
	return err_set(err, EVBUS_UNAVAILABLE, 0,
		       "cannot publish %zu of %zu events to stream '%s' within %d ms: '%s' (%s) takes none of them: %s",
		       left, writer->items.len / sizeof(struct item), writer->topic->stream,
		       writer->topic->kinesis->timeout_ms, writer->topic->kinesis->url.shown,
		       writer->topic->kinesis->endpoint, writer->failed);
}

static enum evbus_code send_call(struct kinesis_writer *writer, const struct group *group, size_t *taken,
				 struct evbus_err *err)
{
	struct evbus_slice answer;

	TRY(group_check_deadline(group, writer->base.topic->name, err));
	TRY(make_call(writer, group, err));
	TRY(link_call(writer->link, CALL_PUBLISHES, "PutRecords", &writer->request, &answer, err,
		      "publish to stream '%s'", writer->topic->stream));
	return take_results(writer, answer, taken, err);
}

/* Until each is taken. The time-out is one without any. */
static enum evbus_code send_all(struct kinesis_writer *writer, const struct group *group, struct evbus_err *err)
{
	size_t left = group_count(group), taken;
	int64_t since_us = os_monotonic_us();

	for (unsigned failures = 0; left; left -= taken) {
		TRY(send_call(writer, group, &taken, err));
		size_t sent = writer->sent.len / sizeof(size_t);
		since_us = taken ? os_monotonic_us() : since_us;
		failures = taken ? 0 : failures + 1;
		if (taken == sent)
			continue;
		if (os_monotonic_us() - since_us > (int64_t)writer->topic->kinesis->timeout_ms * 1000)
			return not_taken(writer, left - taken, err);
		if (!link_back_off(writer->link, failures))
			return err_set(err, EVBUS_AGAIN, EINTR, "stopped while stream '%s' was to take %zu events",
				       writer->topic->stream, left - taken);
	}
	return EVBUS_OK;
}

/* ---- append and commit ----------------------------------------------------------------------------------------- */

static enum evbus_code check(const struct partition_writer *writer, const struct group *group, uint64_t expect,
			     struct evbus_err *err)
{
	if (expect != UINT64_MAX)
		return err_set(err, EVBUS_CONFIG, 0,
			       "topic '%s' is on Kinesis, which cannot append at an expected offset only",
			       writer->topic->name);
	if (group->atomic && group_count(group) > 1)
		return err_set(
			err, EVBUS_CONFIG, 0,
			"topic '%s' is on Kinesis, where several events are not appended as one: leave --atomic out",
			writer->topic->name);
	return group_check_deadline(group, writer->topic->name, err);
}

/* Before anything is sent: what is too large for a record is refused with all that it came with. */
static enum evbus_code add_item(struct kinesis_writer *writer, const struct group *group, size_t i,
				struct evbus_err *err)
{
	struct item item = { .line = i };
	struct message message;
	char room[8];

	TRY(message_of(group, i, &writer->room, &message, err));
	item.hash = hash_of(message.key);
	TRY(buf_add(&writer->items, &item, sizeof item, err));
	if (group_entry(group, i)->len < KINESIS_RECORD_MAX / 2)
		return EVBUS_OK;
	writer->data.len = 0;
	TRY(record_make(&message, &writer->data, err));
	if (writer->data.len + record_key(&message, room).len <= KINESIS_RECORD_MAX)
		return EVBUS_OK;
	return err_set(
		err, EVBUS_DATA, 0,
		"an event of %zu bytes is too large for stream '%s': with what evbus adds it has %zu, and a record of "
		"Kinesis at most %u",
		message.payload.len, writer->topic->stream, writer->data.len, KINESIS_RECORD_MAX);
}

enum evbus_code kinesis_append(struct partition_writer *base, struct group *group, uint64_t expect,
			       struct evbus_err *err)
{
	struct kinesis_writer *writer = writing(base);
	size_t count = group_count(group);

	TRY(check(base, group, expect, err));
	writer->items.len = writer->places.len = 0;
	TRY(buf_reserve(&writer->places, count * sizeof(struct group_place), err));
	memset(writer->places.data, 0, count * sizeof(struct group_place));
	for (size_t i = 0; i < count; i++)
		TRY(add_item(writer, group, i, err));
	group->acknowledged = 0;
	return EVBUS_OK;
}

enum evbus_code kinesis_commit(struct partition_writer *base, struct group *group, struct evbus_err *err)
{
	struct kinesis_writer *writer = writing(base);

	assert(writer->items.len / sizeof(struct item) == group_count(group));
	writer->link->waiter = base->waiter;
	enum evbus_code code = send_all(writer, group, err);
	size_t acknowledged = count_told(writer, true);
	if (!acknowledged)
		return code;
	TRY(group_stamp_places(group, places_of(writer), err));
	group->acknowledged = acknowledged;
	base->expected_time_us = group_entry(group, acknowledged - 1)->time_us;
	return code;
}

/* ---- open and close -------------------------------------------------------------------------------------------- */

void kinesis_writer_close(struct partition_writer *base)
{
	struct kinesis_writer *writer = writing(base);

	link_close(writer->link);
	buf_release(&writer->items);
	buf_release(&writer->places);
	buf_release(&writer->sent);
	buf_release(&writer->request);
	buf_release(&writer->data);
	buf_release(&writer->room);
	free(writer);
}

static enum evbus_code prepare(struct kinesis_writer *writer, struct evbus_err *err)
{
	TRY(kinesis_shard(writer->topic, writer->base.partition, &writer->shard, err));
	if (writer->shard.closed)
		return err_set(err, EVBUS_NONE, 0,
			       "partition %d of topic '%s' takes nothing any more: the shard was split or merged",
			       writer->base.partition, writer->base.topic->name);
	TRY(kinesis_initial(writer->topic, &writer->initial, err));
	return link_open(writer->topic->kinesis, &writer->link, err);
}

enum evbus_code kinesis_writer_open(const struct backend_topic *topic, int32_t partition, const struct waiter *waiter,
				    struct partition_writer **base, struct evbus_err *err)
{
	struct kinesis_writer *writer = os.realloc(NULL, sizeof *writer);

	if (!writer)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot publish to topic '%s'", topic->name);
	*writer = (struct kinesis_writer){
		.base = { .ops = &backend_kinesis,
			  .topic = topic,
			  .partition = partition,
			  .waiter = waiter,
			  .message_max_bytes = KINESIS_RECORD_MAX - RECORD_ROOM_BYTES },
		.topic = kinesis_topic_of(topic),
	};
	enum evbus_code code = prepare(writer, err);
	if (code != EVBUS_OK) {
		kinesis_writer_close(&writer->base);
		return code;
	}
	*base = &writer->base;
	return EVBUS_OK;
}

/* kinesis_fetch.c: records of a shard: iterators, and what comes by them. */
#include "backend/kinesis.h"

#include "event/json.h"

#include <inttypes.h>
#include <stdio.h>

static enum evbus_code begin_request(const struct fetch *fetch, enum fetch_from from, const struct number *number,
				     int64_t time_us, struct buf *request, struct evbus_err *err)
{
	static const char *const kinds[] = { [FROM_FIRST] = "TRIM_HORIZON",
					     [FROM_TIME] = "AT_TIMESTAMP",
					     [FROM_AT] = "AT_SEQUENCE_NUMBER",
					     [FROM_AFTER] = "AFTER_SEQUENCE_NUMBER" };
	char digits[EVBUS_OFFSET_MAX_BYTES + 1];

	TRY(kinesis_request(fetch->topic->stream, request, err));
	TRY(json_put(request, err, ",\"ShardId\":\"%s\",\"ShardIteratorType\":\"%s\"", fetch->shard.id, kinds[from]));
	if (from == FROM_TIME)
		TRY(json_put(request, err, ",\"Timestamp\":%" PRId64 ".%03d", time_us / 1000000,
			     (int)(time_us / 1000 % 1000)));
	if (from == FROM_AT || from == FROM_AFTER) {
		number_format(number, digits);
		TRY(json_put(request, err, ",\"StartingSequenceNumber\":\"%s\"", digits));
	}
	return buf_add(request, "}", 1, err);
}

enum evbus_code fetch_begin(struct fetch *fetch, enum fetch_from from, const struct number *number, int64_t time_us,
			    struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer;

	fetch->iterator.len = 0;
	fetch->all = fetch->rest = (struct evbus_slice){ NULL, 0 };
	fetch->caught_up = fetch->ended = false;
	fetch->idle_us = 0;
	TRY(begin_request(fetch, from, number, time_us, &request, err));
	TRY(link_call(fetch->link, CALL_ASKS, "GetShardIterator", &request, &answer, err,
		      "read stream '%s', shard '%s'", fetch->topic->stream, fetch->shard.id));
	struct evbus_slice iterator = json_member(answer, "ShardIterator");
	return buf_add(&fetch->iterator, iterator.data, iterator.len, err);
}

enum evbus_code fetch_more(struct fetch *fetch, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct json_want wants[] = { { .name = SLICE("Records") },
				     { .name = SLICE("NextShardIterator") },
				     { .name = SLICE("MillisBehindLatest") } };
	struct evbus_slice answer, element;
	struct json_fault fault;
	unsigned count = 0;

	TRY(json_put(&request, err, "{\"ShardIterator\":%.*s,\"Limit\":%u}", (int)fetch->iterator.len,
		     fetch->iterator.data, fetch->limit));
	fetch->all = fetch->rest = (struct evbus_slice){ NULL, 0 };
	TRY(link_call(fetch->link, CALL_ASKS, "GetRecords", &request, &answer, err, "read stream '%s', shard '%s'",
		      fetch->topic->stream, fetch->shard.id));
	if (!json_scan(answer, wants, 3, &fault) || !wants[0].value.data)
		return err_set(err, EVBUS_UNAVAILABLE, 0,
			       "cannot read stream '%s': '%s' answers with what cannot be read", fetch->topic->stream,
			       fetch->topic->kinesis->endpoint);
	fetch->ended = !wants[1].value.data || wants[1].value.data[0] != '"';
	fetch->iterator.len = 0;
	if (!fetch->ended)
		TRY(buf_add(&fetch->iterator, wants[1].value.data, wants[1].value.len, err));
	fetch->all = fetch->rest = wants[0].value;
	for (struct evbus_slice at = fetch->rest; count < fetch->limit && json_next(&at, &element);)
		count++;
	bool behind = wants[2].value.data && json_micros(wants[2].value) > 0;
	/* Not every service says how far it is behind. */
	fetch->caught_up = fetch->ended || (!behind && count < fetch->limit);
	fetch->idle_us = count ? 0 : os_monotonic_us();
	return EVBUS_OK;
}

bool fetch_next(struct fetch *fetch, struct fetched *fetched)
{
	struct json_want wants[] = { { .name = SLICE("Data") },
				     { .name = SLICE("PartitionKey") },
				     { .name = SLICE("SequenceNumber") },
				     { .name = SLICE("ApproximateArrivalTimestamp") } };
	struct evbus_slice element;
	struct json_fault fault;

	if (!json_next(&fetch->rest, &element) || !json_scan(element, wants, 4, &fault))
		return false;
	struct evbus_slice number = wants[2].value;
	if (number.len < 2 || !wants[0].value.data || !wants[1].value.data)
		return false;
	number = (struct evbus_slice){ number.data + 1, number.len - 2 };
	*fetched = (struct fetched){ .text = element, .data = wants[0].value, .key = wants[1].value, .number = number };
	if (wants[3].value.data)
		fetched->arrived_us = json_micros(wants[3].value);
	return number_parse(number, &fetched->sequence);
}

void fetch_release(struct fetch *fetch)
{
	link_close(fetch->link);
	buf_release(&fetch->iterator);
}

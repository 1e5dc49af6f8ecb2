/* kinesis_topic.c: streams as topics, and their shards.
 *
 * The stream of a topic has its name, behind PREFIX and a dot where there is a prefix. Where a key stands never changes,
 * whatever becomes of the shards: murmur2 chooses one of those that the stream began with, which is what a partition
 * number is elsewhere, and another hash the place within its range. How many those were stands in a tag of the stream; one
 * without it counts as begun with one. */
#include "backend/kinesis.h"

#include "backend/names.h"
#include "base/hash.h"
#include "event/json.h"
#include "event/partition.h"

#include <errno.h>
#include <stdio.h>

#define NAMES_AT_ONCE 1000

/* ---- hash keys ------------------------------------------------------------------------------------------------- */

void hash_key_format(hash_key value, char text[40])
{
	char digits[40];
	size_t at = sizeof digits;

	do
		digits[--at] = (char)('0' + (int)(value % 10));
	while (value /= 10);
	memcpy(text, digits + at, sizeof digits - at);
	text[sizeof digits - at] = '\0';
}

bool hash_key_parse(struct evbus_slice text, hash_key *value)
{
	hash_key all = ~(hash_key)0;

	*value = 0;
	for (size_t i = 0; i < text.len; i++) {
		unsigned digit = (unsigned)(text.data[i] - '0');
		if (digit > 9 || *value > (all - digit) / 10)
			return false;
		*value = *value * 10 + digit;
	}
	return text.len > 0;
}

/* Services do not agree by some units about where a shard ends. */
hash_key kinesis_place(struct evbus_slice key, uint32_t initial)
{
	hash_key width = ~(hash_key)0 / initial, inner = width - 2 * (hash_key)initial;
	uint64_t hash = hash_finish(hash_add(HASH_START, key.data, key.len));
	uint32_t shard = (uint32_t)partition_of_key(key.data, key.len, initial);

	return width * shard + initial + (inner >> 64) * hash;
}

hash_key kinesis_place_in(const struct shard *shard, struct evbus_slice key, uint32_t initial)
{
	hash_key place = key.data ? kinesis_place(key, initial) : shard->first;

	if (shard->first <= place && place <= shard->last)
		return place;
	return shard->first + (kinesis_place(key, 1) >> 64) * ((shard->last - shard->first) >> 64);
}

/* ---- shards ---------------------------------------------------------------------------------------------------- */

enum evbus_code kinesis_request(const char *stream, struct buf *request, struct evbus_err *err)
{
	request->len = 0;
	return json_put(request, err, "{\"StreamName\":\"%s\"", stream);
}

/* "shardId-000000000012" */
static int32_t number_of(struct evbus_slice id)
{
	const char *dash = id.data ? memrchr(id.data, '-', id.len) : NULL;
	uint64_t number = 0;

	for (const char *at = dash ? dash + 1 : NULL; at && at < id.data + id.len; at++) {
		if (*at < '0' || *at > '9' || number > INT32_MAX / 10)
			return -1;
		number = number * 10 + (uint64_t)(*at - '0');
	}
	return dash && number <= INT32_MAX ? (int32_t)number : -1;
}

static struct evbus_slice inside(struct evbus_slice string)
{
	return string.len < 2 ? (struct evbus_slice){ NULL, 0 }
			      : (struct evbus_slice){ string.data + 1, string.len - 2 };
}

/* false: it is not what it should be. */
static bool read_shard(struct evbus_slice text, struct shard *shard)
{
	struct json_want wants[] = { { .name = SLICE("ShardId") },
				     { .name = SLICE("ParentShardId") },
				     { .name = SLICE("AdjacentParentShardId") },
				     { .name = SLICE("HashKeyRange") },
				     { .name = SLICE("SequenceNumberRange") } };
	struct json_fault fault;

	if (!json_scan(text, wants, 5, &fault) || wants[0].value.len > KINESIS_SHARD_ID_MAX)
		return false;
	struct evbus_slice id = inside(wants[0].value),
			   ends = inside(json_member(wants[4].value, "EndingSequenceNumber"));
	*shard = (struct shard){ .number = number_of(id), .closed = ends.data };
	snprintf(shard->id, sizeof shard->id, "%.*s", (int)id.len, id.data ? id.data : "");
	for (size_t i = 0; i < BACKEND_PARENTS; i++)
		shard->parents[i] = number_of(inside(wants[1 + i].value));
	return shard->number >= 0 &&
	       hash_key_parse(inside(json_member(wants[3].value, "StartingHashKey")), &shard->first) &&
	       hash_key_parse(inside(json_member(wants[3].value, "EndingHashKey")), &shard->last) &&
	       number_parse(inside(json_member(wants[4].value, "StartingSequenceNumber")), &shard->begins) &&
	       (!ends.data || number_parse(ends, &shard->ends));
}

static int by_number(const void *a, const void *b)
{
	const struct shard *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

static enum evbus_code not_understood(const struct kinesis_topic *topic, const char *what, struct evbus_err *err)
{
	return err_set(err, EVBUS_UNAVAILABLE, 0, "cannot use stream '%s': '%s' answers with %s that cannot be read",
		       topic->stream, topic->kinesis->endpoint, what);
}

/* A page of them; *token: of the next one. */
static enum evbus_code list_some(struct kinesis_topic *topic, struct link *link, struct buf *shards, struct buf *token,
				 struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer, at, element;
	struct shard shard;

	if (token->len)
		TRY(json_put(&request, err, "{\"NextToken\":%.*s", (int)token->len, token->data));
	else
		TRY(kinesis_request(topic->stream, &request, err));
	TRY(buf_add(&request, "}", 1, err));
	TRY(link_call(link, CALL_ASKS, "ListShards", &request, &answer, err, "list the shards of stream '%s'",
		      topic->stream));
	at = json_member(answer, "Shards");
	while (json_next(&at, &element)) {
		if (!read_shard(element, &shard))
			return not_understood(topic, "a shard", err);
		TRY(buf_add(shards, &shard, sizeof shard, err));
	}
	struct evbus_slice next = json_member(answer, "NextToken");
	token->len = 0;
	return next.data ? buf_add(token, next.data, next.len, err) : EVBUS_OK;
}

static enum evbus_code list_all(struct kinesis_topic *topic, struct link *link, struct buf *shards,
				struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf token = { 0 };

	do
		TRY(list_some(topic, link, shards, &token, err));
	while (token.len);
	if (!shards->len)
		return not_understood(topic, "a list of shards", err);
	qsort(shards->data, shards->len / sizeof(struct shard), sizeof(struct shard), by_number);
	return EVBUS_OK;
}

/* A stream that was made again has the same shards, which begin elsewhere. */
static bool is_other(const struct kinesis_topic *topic, const struct shard *now, uint32_t count)
{
	for (uint32_t i = 0, j = 0; i < topic->base.partitions && j < count;) {
		if (topic->shards[i].number != now[j].number) {
			*(topic->shards[i].number < now[j].number ? &i : &j) += 1;
			continue;
		}
		if (number_compare(&topic->shards[i++].begins, &now[j++].begins) != 0)
			return true;
	}
	return count && topic->base.partitions && now[count - 1].number < topic->shards[0].number;
}

/* Takes the place of what was known. */
static enum evbus_code replace(struct kinesis_topic *topic, struct buf *shards, struct evbus_err *err)
{
	uint32_t count = (uint32_t)(shards->len / sizeof(struct shard));
	struct backend_partition *list = os.realloc(NULL, count * sizeof *list);

	if (!list)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", topic->base.name);
	free(topic->shards);
	topic->shards = (struct shard *)(void *)shards->data;
	*shards = (struct buf){ 0 };
	for (uint32_t i = 0; i < count; i++) {
		list[i].number = topic->shards[i].number;
		memcpy(list[i].parents, topic->shards[i].parents, sizeof list[i].parents);
	}
	free(topic->list);
	topic->base.list = topic->list = list;
	topic->base.partitions = count;
	return EVBUS_OK;
}

enum evbus_code kinesis_look_at_shards(struct kinesis_topic *topic, struct link *link, const char *doing,
				       struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf shards = { 0 };

	enum evbus_code code = list_all(topic, link, &shards, err);
	if (code == EVBUS_NONE && topic->shards)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed while it was %s", topic->base.name,
			       doing);
	TRY(code);
	pthread_mutex_lock(&topic->mutex);
	bool other = is_other(topic, (const struct shard *)(void *)shards.data,
			      (uint32_t)(shards.len / sizeof(struct shard)));
	if (!other)
		code = replace(topic, &shards, err);
	pthread_mutex_unlock(&topic->mutex);
	if (!other)
		return code;
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed and made again while it was %s",
		       topic->base.name, doing);
}

enum evbus_code kinesis_shard(struct kinesis_topic *topic, int32_t number, struct shard *shard, struct evbus_err *err)
{
	bool found = false;

	pthread_mutex_lock(&topic->mutex);
	for (uint32_t i = 0; i < topic->base.partitions && !found; i++) {
		found = topic->shards[i].number == number;
		if (found)
			*shard = topic->shards[i];
	}
	pthread_mutex_unlock(&topic->mutex);
	return found ? EVBUS_OK : topic_no_partition(&topic->base, number, err);
}

/* ---- which one a key belongs to -------------------------------------------------------------------------------- */

static uint32_t initial_in(struct evbus_slice tags)
{
	struct evbus_slice element;
	uint64_t initial = 0;

	while (json_next(&tags, &element))
		if (json_equals(json_member(element, "Key"), SLICE(KINESIS_TAG)) &&
		    decimal_parse(inside(json_member(element, "Value")), &initial) && initial &&
		    initial <= EVBUS_PARTITIONS_MAX)
			return (uint32_t)initial;
	return 1;
}

enum evbus_code kinesis_initial(struct kinesis_topic *topic, uint32_t *initial, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf request = { 0 };
	struct evbus_slice answer;

	if (!topic->initial) {
		TRY(kinesis_request(topic->stream, &request, err));
		TRY(buf_add(&request, "}", 1, err));
		TRY(link_call(topic->kinesis->link, CALL_ASKS, "ListTagsForStream", &request, &answer, err,
			      "learn how many shards stream '%s' began with", topic->stream));
		topic->initial = initial_in(json_member(answer, "Tags"));
	}
	*initial = topic->initial;
	return EVBUS_OK;
}

enum evbus_code kinesis_partition_of(const struct backend_topic *base, struct evbus_slice key, int32_t *partition,
				     struct evbus_err *err)
{
	struct kinesis_topic *topic = kinesis_topic_of(base);
	uint32_t initial = 0, open = 0;
	int32_t found = -1;

	TRY(kinesis_initial(topic, &initial, err));
	hash_key place = key.data ? kinesis_place(key, initial) : 0;
	pthread_mutex_lock(&topic->mutex);
	for (uint32_t i = 0; i < base->partitions; i++) {
		const struct shard *shard = &topic->shards[i];
		open += !shard->closed;
		if (!shard->closed && shard->first <= place && place <= shard->last)
			found = shard->number;
	}
	pthread_mutex_unlock(&topic->mutex);
	if (!key.data && open > 1)
		return err_set(
			err, EVBUS_USAGE, 0,
			"topic '%s' has %u partitions: choose one by its number or by a key (--partition, --key, "
			"--key-from)",
			base->name, open);
	if (found < 0)
		return err_set(err, EVBUS_UNAVAILABLE, 0,
			       "no shard of stream '%s' is open for a key: it is being changed", topic->stream);
	*partition = found;
	return EVBUS_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static void release_numberings(struct numbering *numbering)
{
	for (struct numbering *following; numbering; numbering = following) {
		following = numbering->following;
		buf_release(&numbering->places);
		free(numbering);
	}
}

void kinesis_topic_close(struct backend_topic *base)
{
	struct kinesis_topic *topic = kinesis_topic_of(base);

	pthread_mutex_destroy(&topic->mutex);
	release_numberings(topic->numberings);
	free(topic->shards);
	free(topic->list);
	free(topic);
}

static void close_cleanup(struct kinesis_topic **topic)
{
	if (*topic)
		kinesis_topic_close(&(*topic)->base);
}

static enum evbus_code make(struct kinesis *kinesis, const char *name, struct kinesis_topic **topic,
			    struct evbus_err *err)
{
	struct kinesis_topic *made = os.realloc(NULL, sizeof *made);

	if (!made)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
	*made = (struct kinesis_topic){ .kinesis = kinesis };
	int len = snprintf(made->stream, sizeof made->stream, "%s%s%s", kinesis->prefix, *kinesis->prefix ? "." : "",
			   name);
	made->base = (struct backend_topic){
		.ops = &backend_kinesis,
		.name = made->stream + len - strlen(name),
		.log_id = made->log_id,
		.segment_max_bytes = UINT64_MAX,
	};
	pthread_mutex_init(&made->mutex, NULL);
	*topic = made;
	if ((unsigned)len <= KINESIS_STREAM_MAX)
		return EVBUS_OK;
	return err_set(err, EVBUS_USAGE, 0,
		       "topic '%s' is too long for the name of a stream, which has at most %u bytes%s", name,
		       KINESIS_STREAM_MAX, *kinesis->prefix ? " with the prefix" : "");
}

enum evbus_code kinesis_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				   struct evbus_err *err)
{
	CLEANUP(close_cleanup) struct kinesis_topic *opened = NULL;
	bool active = false;

	TRY(make(kinesis_of(backend), name, &opened, err));
	TRY(kinesis_summary(opened, &active, err));
	if (!active)
		TRY(kinesis_await_stream(opened, err));
	TRY(kinesis_look_at_shards(opened, opened->kinesis->link, "opened", err));
	*topic = &opened->base;
	opened = NULL;
	return EVBUS_OK;
}

static uint32_t count_open(const struct kinesis_topic *topic)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < topic->base.partitions; i++)
		open += !topic->shards[i].closed;
	return open;
}

enum evbus_code kinesis_topic_create(struct backend *backend, const char *name,
				     const struct evbus_topic_options *options, struct backend_topic **topic,
				     bool *created, struct evbus_err *err)
{
	static const struct evbus_topic_options none;
	struct kinesis *kinesis = kinesis_of(backend);
	CLEANUP(close_cleanup) struct kinesis_topic *new = NULL;
	struct backend_topic *opened = NULL;
	bool made = false;

	options = options ? options : &none;
	if (options->partitions > EVBUS_PARTITIONS_MAX)
		return err_set(err, EVBUS_USAGE, 0, "a topic has at most %d partitions, not %u", EVBUS_PARTITIONS_MAX,
			       options->partitions);
	if (options->segment_max_bytes)
		return err_set(err, EVBUS_CONFIG, 0, "a topic of Kinesis has no segments: leave their size out");
	enum evbus_code code = kinesis_topic_open(backend, name, &opened, err);
	if (code == EVBUS_NONE && !kinesis->no_create) {
		TRY(make(kinesis, name, &new, err));
		TRY(kinesis_make_stream(new, options->partitions ? options->partitions : 1, &made, err));
		code = kinesis_topic_open(backend, name, &opened, err);
	}
	TRY(code);
	uint32_t has = count_open(kinesis_topic_of(opened));
	if (!options->partitions || options->partitions == has) {
		*created = made;
		*topic = opened;
		return EVBUS_OK;
	}
	kinesis_topic_close(opened);
	return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' is there with %u partition%s, not %u", name, has,
		       has == 1 ? "" : "s", options->partitions);
}

enum evbus_code kinesis_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

enum evbus_code kinesis_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	return kinesis_look_at_shards(kinesis_topic_of(topic), kinesis_topic_of(topic)->kinesis->link, doing, err);
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

/* The name without the prefix; data NULL: it is not of this bus, or no name that a topic of evbus can have. */
static struct evbus_slice topic_of(const struct kinesis *kinesis, struct evbus_slice stream,
				   char room[KINESIS_STREAM_MAX + 1])
{
	size_t prefix = strlen(kinesis->prefix), skip = prefix ? prefix + 1 : 0;

	if (stream.len > KINESIS_STREAM_MAX || stream.len <= skip ||
	    (prefix && (memcmp(stream.data, kinesis->prefix, prefix) != 0 || stream.data[prefix] != '.')))
		return (struct evbus_slice){ NULL, 0 };
	snprintf(room, KINESIS_STREAM_MAX + 1, "%.*s", (int)(stream.len - skip), stream.data + skip);
	return (struct evbus_slice){ evbus_topic_check(room, false, NULL) == EVBUS_OK ? room : NULL, strlen(room) };
}

static enum evbus_code take_names(const struct kinesis *kinesis, struct evbus_slice streams, const char *pattern,
				  struct buf *found, struct evbus_slice *last, struct evbus_err *err)
{
	char room[KINESIS_STREAM_MAX + 1];
	struct evbus_slice element;

	while (json_next(&streams, &element)) {
		*last = inside(element);
		struct evbus_slice name = topic_of(kinesis, *last, room);
		if (name.data)
			TRY(names_add(found, pattern, name, err));
	}
	return EVBUS_OK;
}

enum evbus_code kinesis_topic_names(struct backend *backend, const char *pattern, char ***names, struct evbus_err *err)
{
	struct kinesis *kinesis = kinesis_of(backend);
	CLEANUP(buf_release) struct buf found = { 0 }, request = { 0 };
	struct evbus_slice answer, last = { NULL, 0 };
	bool more = true;

	while (more) {
		request.len = 0;
		TRY(json_put(&request, err, "{\"Limit\":%d", NAMES_AT_ONCE));
		if (last.data)
			TRY(json_put(&request, err, ",\"ExclusiveStartStreamName\":\"%.*s\"", (int)last.len,
				     last.data));
		TRY(buf_add(&request, "}", 1, err));
		TRY(link_call(kinesis->link, CALL_ASKS, "ListStreams", &request, &answer, err, "list the streams"));
		last = (struct evbus_slice){ NULL, 0 };
		TRY(take_names(kinesis, json_member(answer, "StreamNames"), pattern, &found, &last, err));
		struct evbus_slice has_more = json_member(answer, "HasMoreStreams");
		more = last.data && has_more.len == 4 && !memcmp(has_more.data, "true", 4);
	}
	return names_give(&found, names, err);
}

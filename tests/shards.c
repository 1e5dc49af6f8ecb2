/* shards.c: the backend of memory, behind one that has a map (shards_map.c) over its partitions. */
#include "shards_map.h"

#include "backend/message.h"
#include "bus.h"
#include "event/partition.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST 101u
#define STEP 3u
#define DIGITS 100

struct shards_backend {
	struct backend base;
	struct backend *inner;
};

struct shards_topic {
	struct backend_topic base;
	struct backend_topic *inner;
	struct backend_partition list[SHARDS_MAX];
};

struct shards_reader {
	struct partition_reader base;
	struct partition_reader *inner;
	struct buf text;
};

struct shards_writer {
	struct partition_writer base;
	struct partition_writer *inner[SHARDS_MAX];
	struct group_place *places;
};

static const struct backend_ops shards_ops;
int64_t shards_late_us;
unsigned shards_text_fails;

#define AS(type, pointer) ((struct type *)(uintptr_t)(pointer))

static void *make(size_t size)
{
	void *made = calloc(1, size);

	assert(made);
	return made;
}

/* ---- the bus and its topics ---- */

static void close_backend(struct backend *backend)
{
	struct backend *inner = AS(shards_backend, backend)->inner;

	inner->ops->close(inner);
	free(backend);
}

static enum evbus_code shards_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct backend *inner = AS(shards_backend, backend)->inner;

	return inner->ops->ready(inner, create, err);
}

static void list_shards(struct shards_topic *topic)
{
	topic->base.partitions = shards_list(topic->list);
	topic->base.list = topic->list;
}

static void wrap_topic(struct backend_topic *inner, struct backend_topic **topic)
{
	struct shards_topic *made = make(sizeof *made);

	made->base = *inner;
	made->base.ops = &shards_ops;
	made->inner = inner;
	list_shards(made);
	*topic = &made->base;
}

static enum evbus_code shards_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
					 struct evbus_err *err)
{
	struct backend *inner = AS(shards_backend, backend)->inner;
	struct backend_topic *opened = NULL;

	TRY(inner->ops->topic_open(inner, name, &opened, err));
	wrap_topic(opened, topic);
	return EVBUS_OK;
}

static enum evbus_code shards_topic_create(struct backend *backend, const char *name,
					   const struct evbus_topic_options *options, struct backend_topic **topic,
					   bool *created, struct evbus_err *err)
{
	const struct evbus_topic_options all = { .partitions = SHARDS_MAX };
	struct backend *inner = AS(shards_backend, backend)->inner;
	struct backend_topic *opened = NULL;

	(void)options;
	TRY(inner->ops->topic_create(inner, name, &all, &opened, created, err));
	wrap_topic(opened, topic);
	return EVBUS_OK;
}

static void shards_topic_close(struct backend_topic *topic)
{
	struct backend_topic *inner = AS(shards_topic, topic)->inner;

	inner->ops->topic_close(inner);
	free(topic);
}

static enum evbus_code shards_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	(void)topic;
	(void)err;
	return EVBUS_OK;
}

static enum evbus_code shards_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	(void)doing;
	(void)err;
	list_shards(AS(shards_topic, topic));
	return EVBUS_OK;
}

static enum evbus_code shards_topic_names(struct backend *backend, const char *pattern, char ***names,
					  struct evbus_err *err)
{
	struct backend *inner = AS(shards_backend, backend)->inner;

	return inner->ops->topic_names(inner, pattern, names, err);
}

/* ---- offsets ---- */

static uint64_t outer_of(uint64_t inner)
{
	return FIRST + STEP * inner;
}

/* Of the first record that is not before it. */
static uint64_t inner_of(uint64_t outer)
{
	return outer <= FIRST ? 0 : (outer - FIRST - 1) / STEP + 1;
}

static void write_offset(uint64_t position, char text[EVBUS_OFFSET_MAX_BYTES + 1])
{
	snprintf(text, EVBUS_OFFSET_MAX_BYTES + 1, "1%0*llu", DIGITS - 1, (unsigned long long)position);
}

static enum evbus_code fail_when_told(struct evbus_err *err)
{
	if (!shards_text_fails || --shards_text_fails)
		return EVBUS_OK;
	return err_set(err, EVBUS_UNAVAILABLE, 0, "as it was told");
}

static enum evbus_code shards_offset_text(const struct partition_reader *reader, uint64_t position,
					  char text[EVBUS_OFFSET_MAX_BYTES + 1], struct evbus_err *err)
{
	(void)reader;
	TRY(fail_when_told(err));
	write_offset(position, text);
	return EVBUS_OK;
}

static enum evbus_code shards_offset_find(struct partition_reader *reader, struct evbus_slice text, uint64_t *position,
					  struct evbus_err *err)
{
	char low[20];

	(void)reader;
	TRY(fail_when_told(err));
	*position = 0;
	if (text.len < DIGITS)
		return EVBUS_OK;
	snprintf(low, sizeof low, "%.*s", 19, text.data + text.len - 19);
	*position = text.len > DIGITS || text.data[0] != '1' ? UINT64_MAX - 1 : strtoull(low, NULL, 10);
	return EVBUS_OK;
}

/* ---- reading ---- */

static void follow(struct shards_reader *reader, bool closed)
{
	reader->base.first = outer_of(reader->inner->first);
	reader->base.end = outer_of(reader->inner->end);
	reader->base.closed = closed;
}

static enum evbus_code shards_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
					  struct partition_reader **reader, struct evbus_err *err)
{
	struct partition_reader *inner = NULL;

	if (!topic_has_partition(topic, partition))
		return topic_no_partition(topic, partition, err);
	/* Before the end is looked at. */
	bool closed = shards_is_closed(partition);
	TRY(partition_open(AS(shards_topic, topic)->inner, partition, chunk, ahead, &inner, err));
	struct shards_reader *made = make(sizeof *made);
	made->base = (struct partition_reader){ .ops = &shards_ops, .topic = topic, .partition = partition };
	made->inner = inner;
	follow(made, closed);
	made->base.next = made->base.first;
	*reader = &made->base;
	return EVBUS_OK;
}

static void shards_reader_close(struct partition_reader *reader)
{
	partition_close(&AS(shards_reader, reader)->inner);
	buf_release(&AS(shards_reader, reader)->text);
	free(reader);
}

static enum evbus_code shards_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	assert(position >= reader->first && position <= reader->end);
	TRY(partition_seek(AS(shards_reader, reader)->inner, inner_of(position), err));
	reader->next = position;
	return EVBUS_OK;
}

static enum evbus_code shards_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err)
{
	struct partition_reader *inner = AS(shards_reader, reader)->inner;

	TRY(partition_seek_time(inner, time_us, err));
	reader->next = outer_of(inner->next) < reader->end ? outer_of(inner->next) : reader->end;
	return EVBUS_OK;
}

static enum evbus_code rename_line(struct shards_reader *reader, struct line *line, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf old = { 0 };
	uint32_t split = (uint32_t)line->text.len - 1;
	char offset[EVBUS_OFFSET_MAX_BYTES + 1];
	uint64_t position = outer_of(line->offset);
	int64_t time_us = line->time_us - (reader->base.partition % 2 ? shards_late_us : 0);

	write_offset(position, offset);
	TRY(buf_add(&old, line->text.data, line->text.len, err));
	TRY(buf_add(&old, "\n", 1, err));
	reader->text.len = 0;
	TRY(line_readd_text(&reader->text, (struct evbus_slice){ old.data, old.len }, &split,
			    (struct evbus_slice){ offset, DIGITS }, time_us, err));
	const char *why =
		line_parse_text((struct evbus_slice){ reader->text.data, reader->text.len - 1 }, position, line);
	return why ? err_set(err, EVBUS_BUG, 0, "%s", why) : EVBUS_OK;
}

static enum evbus_code shards_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				   struct evbus_err *err)
{
	uint64_t least = end < reader->end ? end : reader->end;

	TRY(partition_next(AS(shards_reader, reader)->inner, inner_of(least), line, got, err));
	if (!*got) {
		reader->next = reader->next < least ? least : reader->next;
		return EVBUS_OK;
	}
	TRY(rename_line(AS(shards_reader, reader), line, err));
	reader->next = line->offset + 1;
	return EVBUS_OK;
}

static enum evbus_code shards_refresh(struct partition_reader *reader, struct evbus_err *err)
{
	bool closed = shards_is_closed(reader->partition);

	TRY(partition_refresh(AS(shards_reader, reader)->inner, err));
	follow(AS(shards_reader, reader), closed);
	return EVBUS_OK;
}

static bool shards_wait(const struct partition_reader *reader, int timeout_ms)
{
	return partition_wait(AS(shards_reader, reader)->inner, timeout_ms);
}

static enum evbus_code shards_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	return partition_bytes_left(AS(shards_reader, reader)->inner, bytes, err);
}

static enum evbus_code shards_describe(struct partition_reader *reader, struct evbus_partition_info *info,
				       struct evbus_err *err)
{
	return partition_describe(AS(shards_reader, reader)->inner, info, err);
}

/* ---- publishing ---- */

static enum evbus_code shards_partition_of(const struct backend_topic *topic, struct evbus_slice key, int32_t *partition,
					   struct evbus_err *err)
{
	if (!key.data && shards_first > 1)
		return err_set(err, EVBUS_USAGE, 0, "topic '%s' has several partitions: it takes a key", topic->name);
	*partition = key.data ? partition_of_key(key.data, key.len, shards_first) : 0;
	return EVBUS_OK;
}

/* Those that partition_of() gives are always taken, and no others. */
static enum evbus_code shards_writer_open(const struct backend_topic *topic, int32_t partition,
					  const struct waiter *waiter, struct partition_writer **writer,
					  struct evbus_err *err)
{
	(void)waiter;
	if (partition < 0 || partition >= (int32_t)shards_first)
		return topic_no_partition(topic, partition, err);
	struct shards_writer *made = make(sizeof *made);
	made->base = (struct partition_writer){ .ops = &shards_ops, .topic = topic, .partition = partition };
	*writer = &made->base;
	return EVBUS_OK;
}

static void shards_writer_close(struct partition_writer *writer)
{
	for (int i = 0; i < SHARDS_MAX; i++)
		partition_writer_close(&AS(shards_writer, writer)->inner[i]);
	free(AS(shards_writer, writer)->places);
	free(writer);
}

static enum evbus_code put(struct shards_writer *writer, const struct message *message, struct group_place *place,
			   struct evbus_err *err)
{
	const struct line_body body = { .key = message->key,
					.origin = message->origin,
					.returns = message->returns,
					.payload = message->payload,
					.tenant_id = message->tenant_id,
					.event_key = message->event_key };
	struct backend_topic *topic = AS(shards_topic, writer->base.topic)->inner;
	CLEANUP(group_release) struct group one = { .atomic = false };

	place->partition = shards_at(shards_place(message->key, writer->base.partition));
	struct partition_writer **inner = &writer->inner[place->partition];
	if (!*inner)
		TRY(topic->ops->writer_open(topic, place->partition, NULL, inner, err));
	TRY(group_add(&one, &body, (*inner)->expected_next, message->time_us, err));
	TRY(partition_append(*inner, &one, UINT64_MAX, err));
	TRY(partition_commit(*inner, &one, err));
	write_offset(outer_of(group_entry(&one, 0)->offset), place->offset);
	return EVBUS_OK;
}

static enum evbus_code shards_append(struct partition_writer *writer, struct group *group, uint64_t expect,
				     struct evbus_err *err)
{
	struct shards_writer *to = AS(shards_writer, writer);
	CLEANUP(buf_release) struct buf room = { 0 };
	enum evbus_code code = EVBUS_OK;
	struct message message;

	assert(expect == UINT64_MAX);
	free(to->places);
	to->places = make(group_count(group) * sizeof *to->places);
	pthread_mutex_lock(&shards_mutex);
	for (size_t i = 0; i < group_count(group) && !code; i++) {
		code = message_of(group, i, &room, &message, err);
		if (!code)
			code = put(to, &message, &to->places[i], err);
	}
	pthread_mutex_unlock(&shards_mutex);
	return code;
}

static enum evbus_code shards_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err)
{
	return group_stamp_places(group, AS(shards_writer, writer)->places, err);
}

static const struct backend_ops shards_ops = {
	.version = BACKEND_VERSION,
	.scheme = "shards",
	.offset_kind = "shards_offset",
	.acknowledgement = "in the memory of this process, and gone with it",
	.idempotence = "none",
	.grows = true,
	.close = close_backend,
	.ready = shards_ready,
	.topic_open = shards_topic_open,
	.topic_create = shards_topic_create,
	.topic_close = shards_topic_close,
	.topic_keep = shards_topic_keep,
	.topic_check = shards_topic_check,
	.topic_names = shards_topic_names,
	.reader_open = shards_reader_open,
	.reader_close = shards_reader_close,
	.seek = shards_seek,
	.seek_time = shards_seek_time,
	.next = shards_next,
	.refresh = shards_refresh,
	.wait = shards_wait,
	.bytes_left = shards_bytes_left,
	.describe = shards_describe,
	.offset_text = shards_offset_text,
	.offset_find = shards_offset_find,
	.partition_of = shards_partition_of,
	.writer_open = shards_writer_open,
	.writer_close = shards_writer_close,
	.append = shards_append,
	.commit = shards_commit,
};

void shards_wrap(struct evbus *bus, const char *modules, unsigned count)
{
	struct store_options options = { .module_dir = modules, .file_mode = 0600 };
	struct shards_backend *made = make(sizeof *made);
	struct evbus_err err;

	shards_begin(count);
	made->base.ops = &shards_ops;
	made->inner = bus->backend;
	bus->backend = &made->base;
	const char *url = bus->store_url ? bus->store_url : "sqlite:state.db";
	enum evbus_code code = store_open(AT_FDCWD, url, &options, &bus->store, &err);
	assert(!code);
	(void)code;
}

/* gaps.c: the backend of memory, behind one that gives its offsets other names. */
#include "gaps.h"

#include "bus.h"
#include "log/line.h"
#include "log/writer.h"

#include <assert.h>
#include <stdlib.h>

struct gaps_backend {
	struct backend base;
	struct backend *inner;
};

struct gaps_topic {
	struct backend_topic base;
	struct backend_topic *inner;
};

struct gaps_reader {
	struct partition_reader base;
	struct partition_reader *inner;
	struct buf text;
};

struct gaps_writer {
	struct partition_writer base;
	struct partition_writer *inner;
};

static const struct backend_ops gaps_ops;
unsigned gaps_fail;
uint32_t gaps_shown;
int64_t gaps_late_us;

static uint64_t outer_of(uint64_t inner)
{
	return GAPS_FIRST + GAPS_STEP * inner;
}

/* Of the first record that is not before it. */
static uint64_t inner_of(uint64_t outer)
{
	return outer <= GAPS_FIRST ? 0 : (outer - GAPS_FIRST - 1) / GAPS_STEP + 1;
}

static void *make(size_t size)
{
	void *made = calloc(1, size);

	assert(made);
	return made;
}

#define AS(type, pointer) ((struct type *)(void *)(pointer))
#define AS_CONST(type, pointer) ((const struct type *)(const void *)(pointer))

/* ---- the bus and its topics ---- */

static void close_backend(struct backend *backend)
{
	struct backend *inner = AS(gaps_backend, backend)->inner;

	inner->ops->close(inner);
	free(backend);
}

static enum evbus_code gaps_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct backend *inner = AS(gaps_backend, backend)->inner;

	return inner->ops->ready(inner, create, err);
}

static void wrap_topic(struct backend_topic *inner, struct backend_topic **topic)
{
	struct gaps_topic *made = make(sizeof *made);

	made->base = *inner;
	made->base.ops = &gaps_ops;
	if (gaps_shown)
		made->base.partitions = gaps_shown;
	made->base.keys_among = made->base.partitions;
	made->inner = inner;
	*topic = &made->base;
}

static enum evbus_code gaps_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				       struct evbus_err *err)
{
	struct backend *inner = AS(gaps_backend, backend)->inner;
	struct backend_topic *opened = NULL;

	TRY(inner->ops->topic_open(inner, name, &opened, err));
	wrap_topic(opened, topic);
	return EVBUS_OK;
}

static enum evbus_code gaps_topic_create(struct backend *backend, const char *name,
					 const struct evbus_topic_options *options, struct backend_topic **topic,
					 bool *created, struct evbus_err *err)
{
	struct backend *inner = AS(gaps_backend, backend)->inner;
	struct backend_topic *opened = NULL;

	TRY(inner->ops->topic_create(inner, name, options, &opened, created, err));
	wrap_topic(opened, topic);
	return EVBUS_OK;
}

static void gaps_topic_close(struct backend_topic *topic)
{
	struct backend_topic *inner = AS(gaps_topic, topic)->inner;

	inner->ops->topic_close(inner);
	free(topic);
}

static enum evbus_code gaps_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	const struct backend_topic *inner = AS_CONST(gaps_topic, topic)->inner;

	return inner->ops->topic_keep(inner, err);
}

static enum evbus_code gaps_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	struct backend_topic *inner = AS(gaps_topic, topic)->inner;

	if (!gaps_shown)
		topic->partitions = inner->partitions;
	return inner->ops->topic_check(inner, doing, err);
}

static enum evbus_code gaps_topic_names(struct backend *backend, const char *pattern, char ***names,
					struct evbus_err *err)
{
	struct backend *inner = AS(gaps_backend, backend)->inner;

	return inner->ops->topic_names(inner, pattern, names, err);
}

/* ---- reading ---- */

static enum evbus_code may_fail(struct evbus_err *err)
{
	return gaps_fail && --gaps_fail == 0 ? err_set(err, EVBUS_IO, 0, "the server fails") : EVBUS_OK;
}

/* Where the inner one is. */
static void follow(struct gaps_reader *reader)
{
	reader->base.first = outer_of(reader->inner->first);
	reader->base.end = outer_of(reader->inner->end);
}

static enum evbus_code gaps_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
					struct partition_reader **reader, struct evbus_err *err)
{
	struct partition_reader *inner = NULL;

	TRY(partition_open(AS_CONST(gaps_topic, topic)->inner, partition, chunk, ahead, &inner, err));
	struct gaps_reader *made = make(sizeof *made);
	made->base.ops = &gaps_ops;
	made->base.topic = topic;
	made->base.partition = partition;
	made->inner = inner;
	follow(made);
	made->base.next = made->base.first;
	*reader = &made->base;
	return EVBUS_OK;
}

static void gaps_reader_close(struct partition_reader *reader)
{
	struct gaps_reader *gaps = AS(gaps_reader, reader);

	partition_close(&gaps->inner);
	buf_release(&gaps->text);
	free(gaps);
}

static enum evbus_code gaps_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	struct gaps_reader *gaps = AS(gaps_reader, reader);

	assert(position <= reader->end);
	TRY(may_fail(err));
	if (position < reader->first)
		return err_set(err, EVBUS_NONE, 0, "offset %llu is gone", (unsigned long long)position);
	TRY(partition_seek(gaps->inner, inner_of(position), err));
	follow(gaps);
	reader->next = position;
	return EVBUS_OK;
}

static enum evbus_code gaps_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err)
{
	struct gaps_reader *gaps = AS(gaps_reader, reader);

	TRY(may_fail(err));
	TRY(partition_seek_time(gaps->inner, time_us, err));
	follow(gaps);
	reader->next = outer_of(gaps->inner->next);
	return EVBUS_OK;
}

/* The line with the other offset. */
static enum evbus_code rename_line(struct gaps_reader *gaps, struct line *line, struct evbus_err *err)
{
	struct buf old = { 0 };
	uint32_t split = (uint32_t)line->text.len - 1;
	int64_t time_us = line->time_us - (line->offset % 2 ? gaps_late_us : 0);

	gaps->text.len = 0;
	TRY(buf_add(&old, line->text.data, line->text.len, err));
	TRY(buf_add(&old, "\n", 1, err));
	TRY(line_readd(&gaps->text, (struct evbus_slice){ old.data, old.len }, &split, outer_of(line->offset), time_us,
		       1, 0, err));
	buf_release(&old);
	const char *why = line_parse((struct evbus_slice){ gaps->text.data, gaps->text.len - 1 }, line);
	return why ? err_set(err, EVBUS_BUG, 0, "%s", why) : EVBUS_OK;
}

static enum evbus_code gaps_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				 struct evbus_err *err)
{
	struct gaps_reader *gaps = AS(gaps_reader, reader);
	uint64_t least = end < reader->end ? end : reader->end;

	TRY(may_fail(err));
	TRY(partition_next(gaps->inner, inner_of(end), line, got, err));
	if (!*got) {
		reader->next = reader->next < least ? least : reader->next;
		return EVBUS_OK;
	}
	TRY(rename_line(gaps, line, err));
	/* A server may know what comes next, or not. */
	reader->next = line->offset % 2 ? line->offset + 1 : outer_of(gaps->inner->next);
	return EVBUS_OK;
}

static enum evbus_code gaps_refresh(struct partition_reader *reader, struct evbus_err *err)
{
	TRY(partition_refresh(AS(gaps_reader, reader)->inner, err));
	follow(AS(gaps_reader, reader));
	return EVBUS_OK;
}

static bool wait_for(const struct partition_reader *reader, int timeout_ms)
{
	return partition_wait(AS_CONST(gaps_reader, reader)->inner, timeout_ms);
}

static enum evbus_code gaps_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	return partition_bytes_left(AS_CONST(gaps_reader, reader)->inner, bytes, err);
}

static enum evbus_code gaps_describe(struct partition_reader *reader, struct evbus_partition_info *info,
				     struct evbus_err *err)
{
	TRY(partition_describe(AS(gaps_reader, reader)->inner, info, err));
	follow(AS(gaps_reader, reader));
	return EVBUS_OK;
}

/* ---- publishing ---- */

static void predict(struct gaps_writer *writer)
{
	writer->base.expected_next = outer_of(writer->inner->expected_next);
	writer->base.expected_time_us = writer->inner->expected_time_us;
}

static enum evbus_code gaps_writer_open(const struct backend_topic *topic, int32_t partition,
					const struct waiter *waiter, struct partition_writer **writer,
					struct evbus_err *err)
{
	const struct backend_topic *inner_topic = AS_CONST(gaps_topic, topic)->inner;
	struct partition_writer *inner = NULL;

	TRY(inner_topic->ops->writer_open(inner_topic, partition, waiter, &inner, err));
	struct gaps_writer *made = make(sizeof *made);
	made->base.ops = &gaps_ops;
	made->base.topic = topic;
	made->base.partition = partition;
	made->base.message_max_bytes = GAPS_MESSAGE_MAX_BYTES;
	made->inner = inner;
	predict(made);
	*writer = &made->base;
	return EVBUS_OK;
}

static void gaps_writer_close(struct partition_writer *writer)
{
	partition_writer_close(&AS(gaps_writer, writer)->inner);
	free(writer);
}

static enum evbus_code gaps_append(struct partition_writer *writer, struct group *group, uint64_t expect,
				   struct evbus_err *err)
{
	struct partition_writer *inner = AS(gaps_writer, writer)->inner;
	bool there = expect != UINT64_MAX && outer_of(inner_of(expect)) == expect;

	if (group->atomic && group_count(group) > 1)
		return err_set(err, EVBUS_CONFIG, 0, "there are no atomic batches here");
	group->atomic = false;
	inner->waiter = writer->waiter;
	TRY(partition_append(inner, group,
			     expect == UINT64_MAX ? expect
			     : there              ? inner_of(expect)
						  : UINT64_MAX - 1,
			     err));
	predict(AS(gaps_writer, writer));
	return EVBUS_OK;
}

static enum evbus_code gaps_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err)
{
	size_t count = group_count(group);
	uint64_t *offsets = make(count * sizeof *offsets);

	for (size_t i = 0; i < count; i++)
		offsets[i] = outer_of(group_entry(group, i)->offset);
	enum evbus_code code = partition_commit(AS(gaps_writer, writer)->inner, group, err);
	if (!code)
		code = group_stamp_each(group, offsets, err);
	free(offsets);
	return code;
}

static const struct backend_ops gaps_ops = {
	.version = BACKEND_VERSION,
	.scheme = "gaps",
	.offset_kind = "gaps_offset",
	.acknowledgement = "in the memory of this process, and gone with it",
	.idempotence = "none",
	.grows = true,
	.expects = true,
	.close = close_backend,
	.ready = gaps_ready,
	.topic_open = gaps_topic_open,
	.topic_create = gaps_topic_create,
	.topic_close = gaps_topic_close,
	.topic_keep = gaps_topic_keep,
	.topic_check = gaps_topic_check,
	.topic_names = gaps_topic_names,
	.reader_open = gaps_reader_open,
	.reader_close = gaps_reader_close,
	.seek = gaps_seek,
	.seek_time = gaps_seek_time,
	.next = gaps_next,
	.refresh = gaps_refresh,
	.wait = wait_for,
	.bytes_left = gaps_bytes_left,
	.describe = gaps_describe,
	.writer_open = gaps_writer_open,
	.writer_close = gaps_writer_close,
	.append = gaps_append,
	.commit = gaps_commit,
};

void gaps_wrap(struct evbus *bus, const char *modules)
{
	struct store_options options = { .module_dir = modules, .file_mode = 0600 };
	struct gaps_backend *made = make(sizeof *made);
	struct evbus_err err;

	made->base.ops = &gaps_ops;
	made->inner = bus->backend;
	bus->backend = &made->base;
	const char *url = bus->store_url ? bus->store_url : "sqlite:state.db";
	enum evbus_code code = store_open(AT_FDCWD, url, &options, &bus->store, &err);
	assert(!code);
	(void)code;
}

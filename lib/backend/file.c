/* file.c: topics as files: the contract over lib/log. */
#include "backend.h"

#include "log/cursor.h"
#include "log/topic.h"
#include "log/writer.h"

#include <errno.h>
#include <string.h>

struct file_backend {
	struct backend base;
	struct root root;
	char *path;
	bool no_create;
};

struct file_topic {
	struct backend_topic base;
	struct topic log;
};

struct file_reader {
	struct partition_reader base;
	struct cursor cursor;
};

struct file_writer {
	struct partition_writer base;
	struct log_writer log;
	struct mark mark;
};

static struct file_backend *files_of(struct backend *backend)
{
	return (struct file_backend *)(void *)backend;
}

static const struct topic *log_of(const struct backend_topic *topic)
{
	return &((const struct file_topic *)(const void *)topic)->log;
}

static struct file_reader *file_of(struct partition_reader *reader)
{
	return (struct file_reader *)(void *)reader;
}

static const struct cursor *cursor_of(const struct partition_reader *reader)
{
	return &((const struct file_reader *)(const void *)reader)->cursor;
}

/* ---- the bus ---- */

static void file_close(struct backend *backend)
{
	struct file_backend *file = files_of(backend);

	root_close(&file->root);
	free(file->path);
	free(file);
}

static enum evbus_code file_open(const char *url, const char *rest, const struct backend_options *options,
				 struct backend **backend, struct evbus_err *err)
{
	const char *path = rest > url && strncmp(rest, "///", 3) == 0 ? rest + 2 : rest;

	if (!*path)
		return err_set(err, EVBUS_CONFIG, 0, "the bus '%s' names no directory: use file:DIR", url);
	struct file_backend *file = os.realloc(NULL, sizeof *file);
	char *copy = os.realloc(NULL, strlen(path) + 1);
	if (!file || !copy) {
		free(file);
		free(copy);
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open the bus '%s'", url);
	}
	memcpy(copy, path, strlen(path) + 1);
	*file = (struct file_backend){
		.base = { &backend_file },
		.root = { .fd = -1,
			  .file_mode = options->file_mode,
			  .dir_mode = options->dir_mode,
			  .notice = options->notice,
			  .notice_context = options->notice_context },
		.path = copy,
		.no_create = options->no_create,
	};
	*backend = &file->base;
	return EVBUS_OK;
}

static enum evbus_code file_ready(struct backend *backend, bool create, struct evbus_err *err)
{
	struct file_backend *file = files_of(backend);

	return file->root.fd >= 0 ? EVBUS_OK : root_open(&file->root, file->path, create && !file->no_create, err);
}

static struct root *file_root(struct backend *backend)
{
	return &files_of(backend)->root;
}

/* ---- topics ---- */

static void file_topic_close(struct backend_topic *topic)
{
	struct file_topic *file = (struct file_topic *)(void *)topic;

	topic_close(&file->log);
	free(file);
}

static enum evbus_code topic_new(const char *name, struct file_topic **topic, struct evbus_err *err)
{
	*topic = os.realloc(NULL, sizeof **topic);
	return *topic ? EVBUS_OK : err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", name);
}

/* Hands out what was opened, or frees it. */
static enum evbus_code topic_opened(enum evbus_code code, struct file_topic *opened, struct backend_topic **topic)
{
	if (code != EVBUS_OK) {
		free(opened);
		return code;
	}
	opened->base = (struct backend_topic){
		.ops = &backend_file,
		.name = opened->log.name,
		.log_id = opened->log.log_id,
		.partitions = opened->log.partitions,
		.segment_max_bytes = opened->log.segment_max_bytes,
	};
	*topic = &opened->base;
	return EVBUS_OK;
}

static enum evbus_code file_topic_open(struct backend *backend, const char *name, struct backend_topic **topic,
				       struct evbus_err *err)
{
	struct file_topic *opened;

	TRY(topic_new(name, &opened, err));
	return topic_opened(topic_open(&files_of(backend)->root, name, &opened->log, err), opened, topic);
}

static enum evbus_code file_topic_create(struct backend *backend, const char *name,
					 const struct evbus_topic_options *options, struct backend_topic **topic,
					 bool *created, struct evbus_err *err)
{
	struct file_topic *opened;

	TRY(topic_new(name, &opened, err));
	return topic_opened(topic_create(&files_of(backend)->root, name, options, &opened->log, created, err), opened,
			    topic);
}

static enum evbus_code file_topic_keep(const struct backend_topic *topic, struct evbus_err *err)
{
	return topic_sync_names(log_of(topic), err);
}

static enum evbus_code file_topic_check(struct backend_topic *topic, const char *doing, struct evbus_err *err)
{
	return topic_check_in_place(log_of(topic), doing, err);
}

static enum evbus_code file_topic_names(struct backend *backend, const char *pattern, char ***names,
					struct evbus_err *err)
{
	return topic_names(&files_of(backend)->root, pattern, names, err);
}

/* ---- reading ---- */

/* After anything that may have moved the cursor. */
static enum evbus_code moved(struct file_reader *file, enum evbus_code code)
{
	file->base.first = file->cursor.first;
	file->base.next = file->cursor.next;
	file->base.end = file->cursor.durable.next;
	return code;
}

static void file_reader_close(struct partition_reader *reader)
{
	cursor_close(&file_of(reader)->cursor);
	free(reader);
}

static enum evbus_code file_reader_open(const struct backend_topic *topic, int32_t partition, size_t chunk, bool ahead,
					struct partition_reader **reader, struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct file_reader *file = os.realloc(NULL, sizeof *file);

	if (!file)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot read topic '%s'", topic->name);
	file->base = (struct partition_reader){ .ops = &backend_file, .topic = topic, .partition = partition };
	TRY(cursor_open(log_of(topic), partition, chunk, &file->cursor, err));
	file->cursor.reads_ahead = ahead;
	*reader = &file->base;
	(void)moved(file, EVBUS_OK);
	file = NULL;
	return EVBUS_OK;
}

static enum evbus_code file_seek(struct partition_reader *reader, uint64_t position, struct evbus_err *err)
{
	return moved(file_of(reader), cursor_seek(&file_of(reader)->cursor, position, err));
}

static enum evbus_code file_seek_time(struct partition_reader *reader, int64_t time_us, struct evbus_err *err)
{
	return moved(file_of(reader), cursor_seek_time(&file_of(reader)->cursor, time_us, err));
}

static enum evbus_code file_next(struct partition_reader *reader, uint64_t end, struct line *line, bool *got,
				 struct evbus_err *err)
{
	struct cursor *cursor = &file_of(reader)->cursor;
	enum evbus_code code = cursor_next(cursor, end, line, got, err);

	reader->next = cursor->next;
	return code;
}

static enum evbus_code file_refresh(struct partition_reader *reader, struct evbus_err *err)
{
	return moved(file_of(reader), cursor_refresh(&file_of(reader)->cursor, err));
}

static bool file_wait(const struct partition_reader *reader, int timeout_ms)
{
	return cursor_wait(cursor_of(reader), timeout_ms);
}

static enum evbus_code file_bytes_left(const struct partition_reader *reader, uint64_t *bytes, struct evbus_err *err)
{
	return cursor_bytes_left(cursor_of(reader), bytes, err);
}

static enum evbus_code file_describe(struct partition_reader *reader, struct evbus_partition_info *info,
				     struct evbus_err *err)
{
	const struct cursor *cursor = cursor_of(reader);

	TRY(cursor_bytes_total(cursor, &info->bytes, err));
	/* Opens the live segment at its end: one that was cut is told, not described. */
	TRY(file_seek(reader, reader->end, err));
	info->records = reader->end - reader->first;
	if (info->records)
		evbus_time_format(cursor->durable.time_us, info->last_published_at_utc);
	return EVBUS_OK;
}

/* ---- publishing ---- */

static struct file_writer *appending(struct partition_writer *writer)
{
	return (struct file_writer *)(void *)writer;
}

static enum evbus_code expect(struct file_writer *file, enum evbus_code code)
{
	file->base.expected_next = file->log.expected.next;
	file->base.expected_time_us = file->log.expected.time_us;
	return code;
}

static void file_writer_close(struct partition_writer *writer)
{
	writer_close(&appending(writer)->log);
	free(writer);
}

static enum evbus_code file_writer_open(const struct backend_topic *topic, int32_t partition,
					const struct waiter *waiter, struct partition_writer **writer,
					struct evbus_err *err)
{
	CLEANUP(free_cleanup) struct file_writer *file = os.realloc(NULL, sizeof *file);

	if (!file)
		return err_set(err, EVBUS_IO, ENOMEM, "cannot open topic '%s'", topic->name);
	file->base = (struct partition_writer){
		.ops = &backend_file, .topic = topic, .partition = partition, .waiter = waiter
	};
	TRY(expect(file, writer_open(log_of(topic), partition, waiter, &file->log, err)));
	*writer = &file->base;
	file = NULL;
	return EVBUS_OK;
}

static enum evbus_code file_append(struct partition_writer *writer, struct group *group, uint64_t offset,
				   struct evbus_err *err)
{
	struct file_writer *file = appending(writer);

	file->log.waiter = writer->waiter;
	return expect(file, writer_append(&file->log, group, offset, &file->mark, err));
}

static enum evbus_code file_commit(struct partition_writer *writer, struct group *group, struct evbus_err *err)
{
	struct file_writer *file = appending(writer);

	return expect(file, writer_commit(&file->log, &file->mark, group, err));
}

static struct log_writer *file_writer(struct partition_writer *writer)
{
	return &appending(writer)->log;
}

static const struct mark *file_mark(const struct partition_writer *writer)
{
	return &((const struct file_writer *)(const void *)writer)->mark;
}

static const struct backend_files files = {
	.root = file_root,
	.topic = log_of,
	.writer = file_writer,
	.mark = file_mark,
};

const struct backend_ops backend_file = {
	.version = BACKEND_VERSION,
	.scheme = "file",
	.offset_kind = "file_line",
	.acknowledgement = "on disk: fdatasync has returned",
	.idempotence = "one record of each key, also where several publish at once",
	.keeps_lines = true,
	.expects = true,
	.open = file_open,
	.close = file_close,
	.ready = file_ready,
	.topic_open = file_topic_open,
	.topic_create = file_topic_create,
	.topic_close = file_topic_close,
	.topic_keep = file_topic_keep,
	.topic_check = file_topic_check,
	.topic_names = file_topic_names,
	.reader_open = file_reader_open,
	.reader_close = file_reader_close,
	.seek = file_seek,
	.seek_time = file_seek_time,
	.next = file_next,
	.refresh = file_refresh,
	.wait = file_wait,
	.bytes_left = file_bytes_left,
	.describe = file_describe,
	.writer_open = file_writer_open,
	.writer_close = file_writer_close,
	.append = file_append,
	.commit = file_commit,
	.files = &files,
};

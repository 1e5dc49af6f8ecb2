/* repair.c: cutting a log at a damaged line, because somebody said so. */
#include "log/recover.h"

#include "log/extent.h"

#include <errno.h>

static void close_writer(struct log_writer *writer)
{
	writer_close(writer);
}

static enum evbus_code find_base(const struct log_writer *writer, uint64_t *base, struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };
	struct control_view view;
	enum control_state state;
	int64_t time_us;

	TRY(control_read(&writer->control, &state, &view, err));
	TRY(segments_list(writer->topic, writer->partition, &older, err));
	return segment_live_base(writer->topic, writer->partition, writer->fd, &older,
				 state == CONTROL_NONE ? NULL : &view.durable, base, &time_us, err);
}

/* The line at `byte` must be the damaged one that was found, and what stands before it must lead up to it. */
static enum evbus_code check_place(const struct log_writer *writer, uint64_t offset, uint64_t byte, uint64_t size,
				   struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct cell at = { .bytes = byte, .next = offset };
	struct control_view view;
	enum control_state state;
	struct extent found;
	struct line line;
	uint64_t base = 0;
	bool is_there = true;

	if (byte)
		TRY(segment_line_before(writer->fd, writer->name, byte, &buf, &line, &is_there, err));
	else
		TRY(find_base(writer, &base, err));
	if (byte && is_there)
		at.time_us = line.time_us;
	TRY(extent_find(writer->fd, writer->name, &at, size, &found, err));
	TRY(control_read(&writer->control, &state, &view, err));
	/* Or the file ends there, and more was acknowledged. */
	bool short_of = byte == size && state != CONTROL_NONE && view.durable.next > offset;
	if (is_there && offset == (byte ? line.offset + 1 : base) && found.good.bytes == byte && (found.bad || short_of))
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0,
		       "'%s' is not damaged at offset %llu (any more): --cut-at takes the first offset that verify reports",
		       writer->name, (unsigned long long)offset);
}

/* With both locks held. The page goes first: until the log is cut and a page made for it, there is none to be wrong. */
static enum evbus_code cut(struct log_writer *writer, uint64_t offset, uint64_t byte, struct evbus_err *err)
{
	struct stat st;

	if (os.fstat(writer->fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", writer->name);
	TRY(check_place(writer, offset, byte, (uint64_t)st.st_size, err));
	if (byte < (uint64_t)st.st_size)
		TRY(recover_save_tail(writer, byte, (uint64_t)st.st_size, offset, "from the damage on", err));
	if (os.ftruncate(writer->control.fd, 0))
		return err_set(err, EVBUS_IO, errno, "cannot clear '%s'", writer->control.path);
	if (os.ftruncate(writer->fd, (off_t)byte))
		return err_set(err, EVBUS_IO, errno, "cannot cut '%s' to byte %llu", writer->name,
			       (unsigned long long)byte);
	return recover(writer, true, err);
}

static enum evbus_code open_files(struct log_writer *writer, struct evbus_err *err)
{
	segment_live_path(writer->partition, writer->path);
	snprintf(writer->name, sizeof writer->name, "%s/%s", writer->topic->name, writer->path);
	TRY(control_open(writer->topic, writer->partition, true, &writer->control, err));
	TRY(segment_open_live(writer->topic, writer->partition, O_RDWR, &writer->fd, err));
	TRY(file_id_of(writer->fd, writer->name, &writer->id, err));
	enum evbus_code code = control_try_lock(writer->control.fd, LOCK_PRESENCE, F_WRLCK, writer->control.path, err);
	if (code == EVBUS_AGAIN)
		return err_set(err, EVBUS_AGAIN, 0, "'%s' is open for publishing: stop who publishes to it first",
			       writer->name);
	return code;
}

enum evbus_code recover_cut(const struct topic *topic, int32_t partition, uint64_t offset, uint64_t byte,
			    struct evbus_err *err)
{
	CLEANUP(close_writer) struct log_writer writer = { .topic = topic, .partition = partition, .fd = -1,
							   .control = { .fd = -1 } };

	TRY(root_check_local(topic->root, err));
	TRY(open_files(&writer, err));
	TRY(writer_lock_both(&writer, err));
	if (!writer_is_current(&writer, NULL))
		return err_set(err, EVBUS_AGAIN, 0, "the files of '%s' are being replaced", writer.name);
	return cut(&writer, offset, byte, err);
}

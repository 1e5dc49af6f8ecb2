/* recover.c: bringing the page and the log together.
 *
 * What may be found, and what is done (both locks are held, so nobody writes meanwhile):
 *
 *	our page, same boot        lines beyond `end` were written by somebody who died before he said so: whole, correct,
 *	                           contiguous ones (whole batches) are adopted, the rest is cut. A file shorter than
 *	                           `durable` was cut or restored: refused. `syncing` set, or nobody else here, or an end
 *	                           that is not the file's, for the page may be an older one that was put back: a sync of
 *	                           what follows `durable` may have failed unheard, so it is written again, and synced.
 *	our page, other boot       the machine restarted: `durable` is a lower bound. A bad line below it is damage, refused;
 *	                           above it the longest correct prefix is kept, for writes reach the disk in any order.
 *	no page                    bad bytes with no good line behind them are an interrupted write; a bad line with good
 *	                           ones behind it cannot be told from damage, and is refused.
 *
 * At most UNSYNCED_MAX_BYTES were ever unsynced, so only that much is looked at; older damage is found by who reads it. */
#include "log/recover.h"

#include "log/extent.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define COPY_CHUNK (256u * 1024)
#define TORN_NAMES_MAX 1000

/* ---- what is done ---- */

static enum evbus_code damaged(const struct log_writer *writer, const struct extent *found, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "topic '%s', partition %d is damaged at offset %llu, byte %llu of '%s': %s, and whole lines stand "
		       "behind it; look with evbus verify, then restore it or cut with evbus verify --repair --cut-at %llu",
		       writer->topic->name, writer->partition, (unsigned long long)found->at.next,
		       (unsigned long long)found->at.bytes, writer->name, found->why,
		       (unsigned long long)found->at.next);
}

static enum evbus_code was_cut(const struct log_writer *writer, uint64_t size, const struct cell *durable,
			       struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "'%s' has %llu bytes, and %llu were acknowledged: it was cut or restored; put the log back, or, if "
		       "this is meant, remove '%s/%s' and publish again",
		       writer->name, (unsigned long long)size, (unsigned long long)durable->bytes, writer->topic->name,
		       writer->control.path);
}

static enum evbus_code copy_bytes(int from, uint64_t at, uint64_t end, int to, const char *name, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	uint64_t written = 0;

	TRY(buf_reserve(&buf, COPY_CHUNK, err));
	while (at < end) {
		size_t len = end - at < COPY_CHUNK ? (size_t)(end - at) : COPY_CHUNK;
		ssize_t n = os_read_at(from, buf.data, len, at);
		if (n <= 0 || !os_write_at(to, buf.data, (size_t)n, written))
			return err_set(err, EVBUS_IO, n == 0 ? EIO : errno, "cannot copy what is cut off to '%s'", name);
		at += (size_t)n;
		written += (size_t)n;
	}
	if (os.fsync(to))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s'", name);
	return EVBUS_OK;
}

/* A name nobody has yet: partition=N.torn-<offset>-<time>-<n>. */
static enum evbus_code make_torn(const struct log_writer *writer, uint64_t offset, char path[96], int *fd,
				 struct evbus_err *err)
{
	char time[TIME_TEXT_LEN];
	enum evbus_code code = EVBUS_CONFLICT;

	clock_format(os_now_us(), time);
	for (int n = 0; n < TORN_NAMES_MAX && code == EVBUS_CONFLICT; n++) {
		snprintf(path, 96, "partition=%d.torn-%llu-%.4s%.2s%.2sT%.2s%.2s%.2sZ-%d", writer->partition,
			 (unsigned long long)offset, time, time + 5, time + 8, time + 11, time + 14, time + 17, n);
		code = os_open_file(writer->topic->fd, path, O_WRONLY | O_CREAT | O_EXCL, writer->topic->file_mode,
				    path, fd, err);
	}
	return code;
}

enum evbus_code recover_save_tail(struct log_writer *writer, uint64_t at, uint64_t size, uint64_t offset,
				  const char *what, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	char path[96];

	TRY(make_torn(writer, offset, path, &fd, err));
	enum evbus_code code = copy_bytes(writer->fd, at, size, fd, path, err);
	if (code != EVBUS_OK) {
		os.unlinkat(writer->topic->fd, path, 0);
		return code;
	}
	TRY(os_sync_dir(writer->topic->fd, path, err));
	root_notice(writer->topic->root, "cut %llu bytes %s off '%s' at offset %llu; kept as '%s/%s'",
		    (unsigned long long)(size - at), what, writer->name, (unsigned long long)offset, writer->topic->name, path);
	return EVBUS_OK;
}

static enum evbus_code cut_tail(struct log_writer *writer, const struct cell *good, uint64_t size,
				struct evbus_err *err)
{
	if (good->bytes == size)
		return EVBUS_OK;
	TRY(recover_save_tail(writer, good->bytes, size, good->next, "of an interrupted write", err));
	os.point("recover/copied");
	if (os.ftruncate(writer->fd, (off_t)good->bytes))
		return err_set(err, EVBUS_IO, errno, "cannot cut '%s' to byte %llu", writer->name,
			       (unsigned long long)good->bytes);
	os.point("recover/cut");
	return EVBUS_OK;
}

/* A sync that fails may leave pages clean that never reached the disk. Writing the same bytes again makes them dirty,
 * so that the next sync has to write them. */
static enum evbus_code write_again(struct log_writer *writer, uint64_t at, uint64_t end, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };

	TRY(buf_reserve(&buf, COPY_CHUNK, err));
	while (at < end) {
		size_t len = end - at < COPY_CHUNK ? (size_t)(end - at) : COPY_CHUNK;
		ssize_t n = os_read_at(writer->fd, buf.data, len, at);
		if (n >= 0 && n < (ssize_t)len)
			return err_set(err, EVBUS_IO, 0, "'%s' became shorter while it was recovered", writer->name);
		if (n < 0 || !os_write_at(writer->fd, buf.data, len, at))
			return err_set(err, EVBUS_IO, errno, "cannot write '%s' again", writer->name);
		at += len;
	}
	os.point("recover/written");
	return EVBUS_OK;
}

/* The names of the partition's files, up to the root's own. */
static enum evbus_code sync_names(const struct log_writer *writer, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int older = -1;
	char path[SEGMENT_PATH_MAX];

	snprintf(path, sizeof path, "partition=%d", writer->partition);
	enum evbus_code code = os_open_dir(writer->topic->fd, path, path, &older, err);
	if (code == EVBUS_OK)
		code = os_sync_dir(older, path, err);
	if (code != EVBUS_NONE)
		TRY(code);
	return topic_sync_names(writer->topic, err);
}

/* ---- a page of this boot ---- */

/* A roll that was killed between the exchange and the page: the page still means the segment before. */
static bool is_finished_roll(const struct cell *end, const struct cell *start)
{
	return end->base < start->base && end->next == start->base;
}

static enum evbus_code finish_roll(struct log_writer *writer, struct control_view *view, const struct cell *start,
				   struct evbus_err *err)
{
	struct cell cell = *start;

	if (view->end.base == start->base)
		cell = view->end;
	else
		cell.time_us = view->end.time_us;
	cell.epoch = view->end.epoch;
	TRY(sync_names(writer, err));
	if (view->end.base != start->base)
		TRY(control_set(&writer->control, view, CONTROL_END, &cell, err));
	/* Somebody may have appended to the new segment since: what is durable ends with the one before. */
	cell.bytes = 0;
	cell.next = start->base;
	cell.time_us = start->time_us;
	return control_set(&writer->control, view, CONTROL_DURABLE, &cell, err);
}

/* Adopts what is good behind `durable`, cuts the rest: what is kept is written again, synced and said to be durable. */
static enum evbus_code adopt(struct log_writer *writer, struct control_view *view, uint64_t size,
			     struct evbus_err *err)
{
	struct extent found;

	TRY(extent_find(writer->fd, writer->name, &view->durable, size, &found, err));
	struct cell cell = found.good;
	cell.epoch = view->end.epoch > view->durable.epoch ? view->end.epoch : view->durable.epoch;
	cell.epoch += cell.bytes < view->end.bytes || !view_agrees(view);
	TRY(cut_tail(writer, &cell, size, err));
	TRY(write_again(writer, view->durable.bytes, cell.bytes, err));
	TRY(control_flag(&writer->control, view, CONTROL_SYNCING, true, err));
	if (os.fdatasync(writer->fd))
		return writer_sync_failed(writer, errno, err);
	os.point("recover/synced");
	TRY(control_set(&writer->control, view, CONTROL_END, &cell, err));
	return writer_say_durable(writer, view, &cell, err);
}

static enum evbus_code check_durable(struct log_writer *writer, const struct cell *durable, uint64_t size,
				     struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct line line;
	bool found;

	if (size < durable->bytes)
		return was_cut(writer, size, durable, err);
	TRY(segment_line_before(writer->fd, writer->name, durable->bytes, &buf, &line, &found, err));
	if (!found || (line.offset == durable->next - 1 && line.time_us == durable->time_us))
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0,
		       "'%s' is not the log that was acknowledged: offset %llu stands where %llu was; put the log back, or, "
		       "if this is meant, remove '%s/%s' and publish again",
		       writer->name, (unsigned long long)line.offset, (unsigned long long)durable->next - 1,
		       writer->topic->name, writer->control.path);
}

/* Whether the cell means a file that has become an older segment, and not just now: a copy of the page was put back. */
static enum evbus_code is_from_before_a_roll(const struct log_writer *writer, const struct cell *cell,
					     const struct cell *start, bool *before, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	struct file_id id;
	uint64_t size;

	*before = false;
	if (cell->base >= start->base || is_finished_roll(cell, start))
		return EVBUS_OK;
	enum evbus_code code = segment_open(writer->topic, writer->partition, cell->base, O_RDONLY, &fd, &size, err);
	if (code == EVBUS_NONE)
		return EVBUS_OK;
	TRY(code);
	TRY(file_id_of(fd, writer->name, &id, err));
	*before = id.ino == cell->ino && size >= cell->bytes;
	return EVBUS_OK;
}

static enum evbus_code recover_ours(struct log_writer *writer, struct control_view *view, const struct cell *start,
				    uint64_t size, bool first, struct evbus_err *err)
{
	if (view->end.base <= start->base &&
	    (is_finished_roll(&view->end, start) || is_finished_roll(&view->durable, start)))
		TRY(finish_roll(writer, view, start, err));
	if (view->end.base != start->base || view->durable.base != start->base || view->end.ino != start->ino)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "'%s' was replaced by another file: put the log back, or, if this is meant, remove "
			       "'%s/%s' and publish again",
			       writer->name, writer->topic->name, writer->control.path);
	TRY(check_durable(writer, &view->durable, size, err));
	if (view->halt) {
		TRY(writer_cut_unsynced(writer, view, err));
		return EVBUS_OK;
	}
	/* Nothing is open, nothing hangs over: the page is right as it is. */
	if (view->end.bytes == size && !view->syncing && view_agrees(view) &&
	    (!first || view->durable.bytes == view->end.bytes))
		return EVBUS_OK;
	return adopt(writer, view, size, err);
}

/* ---- no page of this boot ---- */

/* known: below it everything was synced; NULL where nothing is known. */
static enum evbus_code recover_anew(struct log_writer *writer, const struct cell *start, const struct cell *known,
				    uint64_t size, struct evbus_err *err)
{
	uint64_t window = size > UNSYNCED_MAX_BYTES ? size - UNSYNCED_MAX_BYTES : 0;
	struct cell from;
	struct extent found;
	bool refused = false;

	TRY(extent_start(writer->fd, writer->name, window, size, start, &from, err));
	TRY(extent_find(writer->fd, writer->name, &from, size, &found, err));
	if (found.bad && known)
		refused = found.good.bytes < known->bytes;
	else if (found.bad)
		TRY(extent_good_behind(writer->fd, writer->name, &found.at, size, &refused, err));
	if (refused)
		return damaged(writer, &found, err);
	if (known)
		TRY(check_durable(writer, known, size, err));
	struct cell cell = found.good;
	cell.base = start->base;
	cell.ino = start->ino;
	cell.epoch = 1;
	if (cell.next == start->base)
		cell.time_us = start->time_us;
	TRY(cut_tail(writer, &cell, size, err));
	TRY(write_again(writer, from.bytes, cell.bytes, err));
	if (os.fdatasync(writer->fd))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s'", writer->name);
	os.point("recover/synced");
	TRY(sync_names(writer, err));
	return control_init(&writer->control, &cell, err);
}

static enum evbus_code recover_other_boot(struct log_writer *writer, const struct control_view *view,
					  const struct cell *start, uint64_t size, bool first, struct evbus_err *err)
{
	const struct cell *durable = &view->durable;

	if (!first)
		return err_set(err, EVBUS_UNAVAILABLE, 0,
			       "'%s' is open for writing under another boot of a machine: a file bus belongs to one machine",
			       writer->name);
	/* Segments were synced before they were rolled, so an older page says nothing of this one. */
	const struct cell *known = durable->base == start->base ? durable : start;
	if (durable->base > start->base || size < known->bytes)
		return was_cut(writer, size, durable, err);
	return recover_anew(writer, start, known, size, err);
}

/* Where the live segment begins: by the older ones, not by the page. */
static enum evbus_code find_base(struct log_writer *writer, const struct cell *paged, struct cell *start,
				 struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };

	*start = (struct cell){ .ino = writer->id.ino };
	TRY(segments_list(writer->topic, writer->partition, &older, err));
	TRY(segments_undo_roll(writer->topic, writer->partition, writer->fd, &older, err));
	TRY(segment_live_base(writer->topic, writer->partition, writer->fd, &older, paged, &start->base,
			      &start->time_us, err));
	start->next = start->base;
	return EVBUS_OK;
}

enum evbus_code recover(struct log_writer *writer, bool first, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	struct cell start;
	struct stat st;
	bool before;

	TRY(control_read(&writer->control, &state, &view, err));
	TRY(find_base(writer, state == CONTROL_NONE ? NULL : &view.durable, &start, err));
	if (os.fstat(writer->fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", writer->name);
	writer->base = start.base;
	uint64_t size = (uint64_t)st.st_size;
	switch (state) {
	case CONTROL_OURS:
		TRY(is_from_before_a_roll(writer, &view.end, &start, &before, err));
		/* Whoever was appending when it was put back has said his end since. */
		if (!before)
			TRY(is_from_before_a_roll(writer, &view.durable, &start, &before, err));
		/* It says nothing of this segment. */
		if (before)
			return recover_anew(writer, &start, NULL, size, err);
		return recover_ours(writer, &view, &start, size, first, err);
	case CONTROL_OTHER_BOOT:
		return recover_other_boot(writer, &view, &start, size, first, err);
	default:
		return recover_anew(writer, &start, NULL, size, err);
	}
}

/* writer.c: opening a partition for writing, appending to it, rolling it.
 *
 *	append:  lock(append) · is this still the live file? does its size equal end? · write the lines · end := · unlock
 *	commit:  commit.c
 *
 * Who finds the end where he left it is probably alone, and tries the sync lock as well, before he looks at the files: as
 * he has it until he has synced, nothing can be cut, rolled or led by another one in between, and commit has nothing to
 * look at again. */
#include "log/writer.h"

#include "log/recover.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define CLOCK_BACK_TOLD_US 60000000
#define LATE_US 1000000               /* readers that go by the time would pass a record that is older when it comes */
#define BATCH_MEMBER_MAX 64u          /* what "batch" adds to a line */

/* ---- opening ---- */

static void detach(struct log_writer *writer)
{
	os_close_cleanup(&writer->fd);
	control_close(&writer->control);
	writer->alone = writer->leads = false;
}

void writer_close(struct log_writer *writer)
{
	detach(writer);
}

/* A live segment that is not there is a new partition's, or one that a roll is about to make: not one that was removed. */
static enum evbus_code check_missing(const struct log_writer *writer, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int older = -1;
	struct control_view view;
	enum control_state state;
	uint64_t size;

	TRY(control_read(&writer->control, &state, &view, err));
	if (state == CONTROL_NONE || view.durable.next == 0 ||
	    segment_open(writer->topic, writer->partition, view.durable.base, O_RDONLY, &older, &size, NULL) == EVBUS_OK)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0,
		       "'%s' was removed, and records up to %llu were acknowledged: put the log back, or, if this is meant, "
		       "remove '%s/%s' and publish again",
		       writer->name, (unsigned long long)view.durable.next, writer->topic->name, writer->control.path);
}

/* Before the first file of a partition: files without a topic.json are taken for a topic that lost it. Who made that may
 * not have come to sync its name, and we see it all the same. */
static enum evbus_code sync_topic_json(const struct log_writer *writer, struct evbus_err *err)
{
	struct stat st;

	if (!os.fstatat(writer->topic->fd, writer->path, &st, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
		return EVBUS_OK;
	return os_sync_dir(writer->topic->fd, writer->name, err);
}

/* The live segment, made where there was none; whether that may be is for recover() to say. */
static enum evbus_code attach_files(struct log_writer *writer, struct evbus_err *err)
{
	TRY(sync_topic_json(writer, err));
	TRY(control_open(writer->topic, writer->partition, true, &writer->control, err));
	enum evbus_code code = segment_open_live(writer->topic, writer->partition, O_RDWR, &writer->fd, err);
	if (code == EVBUS_NONE) {
		TRY(check_missing(writer, err));
		code = segment_open_live(writer->topic, writer->partition, O_RDWR | O_CREAT, &writer->fd, err);
	}
	TRY(code);
	return file_id_of(writer->fd, writer->name, &writer->id, err);
}

bool writer_is_current(const struct log_writer *writer, uint64_t *size)
{
	return file_is_at(writer->topic, writer->path, &writer->id, size) &&
	       file_is_at(writer->topic, writer->control.path, &writer->control.id, NULL);
}

/* Runs recover() under both locks. *again: the files were replaced meanwhile. Who is the first has nobody to wake who
 * waits for a lock, and where the page stayed as it was, none who follows either. */
static enum evbus_code recover_locked(struct log_writer *writer, bool first, bool *again, struct evbus_err *err)
{
	*again = false;
	TRY(writer_lock_both(writer, err));
	os.point("recover/locked");
	*again = !writer_is_current(writer, NULL);
	writer->control.written = !first;
	enum evbus_code code = *again ? EVBUS_OK : recover(writer, first, err);
	writer_unlock_both(writer, writer->control.written);
	return code;
}

/* Whether the page can be used as it is, without locks; append looks again under its own. */
static enum evbus_code page_fits(struct log_writer *writer, bool *fits, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	uint64_t size;

	TRY(control_read(&writer->control, &state, &view, err));
	*fits = state == CONTROL_OURS && !view.halt && writer_is_current(writer, &size) && size >= view.end.bytes &&
		view.end.ino == writer->id.ino;
	if (*fits)
		writer->base = view.end.base;
	return EVBUS_OK;
}

static enum evbus_code attach_once(struct log_writer *writer, bool *again, struct evbus_err *err)
{
	bool fits = false;

	*again = false;
	TRY(attach_files(writer, err));
	os.point("open/files");
	enum evbus_code code = control_try_lock(writer->control.fd, LOCK_PRESENCE, F_WRLCK, writer->control.path, err);
	bool first = code == EVBUS_OK;
	if (code == EVBUS_AGAIN)
		code = writer_lock(writer, LOCK_PRESENCE, F_RDLCK, err);
	TRY(code);
	if (!first)
		TRY(page_fits(writer, &fits, err));
	if (!fits)
		code = recover_locked(writer, first, again, err);
	if (first && code == EVBUS_OK)
		code = writer_lock(writer, LOCK_PRESENCE, F_RDLCK, err);
	return code;
}

static enum evbus_code attach(struct log_writer *writer, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	bool again = true;

	for (int attempt = 0; again && attempt < ATTEMPTS_MAX; attempt++) {
		enum evbus_code code = attach_once(writer, &again, err);
		if (code != EVBUS_OK || again)
			detach(writer);
		/* A page of another boot may be one that its first writer was killed over while we waited for him. */
		again = again || (code == EVBUS_UNAVAILABLE && attempt < 3);
		if (again)
			continue;
		if (code != EVBUS_OK)
			return code;
	}
	if (again)
		return err_set(err, EVBUS_AGAIN, 0, "the files of '%s' are being replaced", writer->name);
	/* Only a prediction: append looks for itself. */
	if (!control_read(&writer->control, &state, &view, NULL) && state == CONTROL_OURS)
		writer->expected = view.end;
	return EVBUS_OK;
}

enum evbus_code writer_open(const struct topic *topic, int32_t partition, const struct waiter *waiter,
			    struct log_writer *writer, struct evbus_err *err)
{
	*writer = (struct log_writer){
		.topic = topic, .partition = partition, .fd = -1, .control = { .fd = -1 }, .waiter = waiter
	};
	TRY(topic_check_partition(topic, partition, err));
	TRY(root_check_local(topic->root, err));
	segment_live_path(partition, writer->path);
	snprintf(writer->name, sizeof writer->name, "%s/%s", topic->name, writer->path);
	return attach(writer, err);
}

/* The topic's own directory must still be the one we opened. */
static enum evbus_code check_topic(const struct log_writer *writer, struct evbus_err *err)
{
	struct topic now;

	enum evbus_code code = topic_open(writer->topic->root, writer->topic->name, &now, err);
	if (code == EVBUS_NONE)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed while it was open",
			       writer->topic->name);
	TRY(code);
	bool same = memcmp(now.log_id, writer->topic->log_id, LOG_ID_LEN) == 0;
	topic_close(&now);
	if (!same)
		return err_set(err, EVBUS_CONFLICT, 0, "topic '%s' was removed and made again while it was open",
			       writer->topic->name);
	return EVBUS_OK;
}

enum evbus_code writer_reattach(struct log_writer *writer, struct evbus_err *err)
{
	struct file_id before = writer->id;
	uint64_t base = writer->base;

	TRY(check_topic(writer, err));
	detach(writer);
	TRY(attach(writer, err));
	if (writer->base != base || writer->id.ino == before.ino)
		return EVBUS_OK;
	detach(writer);
	return err_set(err, EVBUS_CONFLICT, 0,
		       "'%s' was replaced by another file while it was open: put the log back, or, if this is meant, remove "
		       "'%s/%s' and publish again",
		       writer->name, writer->topic->name, writer->control.path);
}

enum evbus_code writer_recover(struct log_writer *writer, struct evbus_err *err)
{
	bool again;

	TRY(recover_locked(writer, false, &again, err));
	return again ? writer_reattach(writer, err) : EVBUS_OK;
}

/* ---- rolling ---- */

/* With both locks held and the file found to be the live one. */
static enum evbus_code roll(struct log_writer *writer, struct control_view *view, struct evbus_err *err)
{
	struct cell cell = view->end;
	struct stat st;

	TRY(control_flag(&writer->control, view, CONTROL_SYNCING, true, err));
	if (os.fdatasync(writer->fd))
		return writer_sync_failed(writer, errno, err);
	TRY(writer_say_durable(writer, view, &cell, err));
	os.point("roll/synced");
	TRY(segment_roll(writer->topic, writer->partition, writer->base, err));
	os.point("roll/exchanged");
	if (os.fstatat(writer->topic->fd, writer->path, &st, AT_SYMLINK_NOFOLLOW))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", writer->name);
	cell.base = cell.next;
	cell.ino = st.st_ino;
	cell.bytes = 0;
	TRY(control_set(&writer->control, view, CONTROL_END, &cell, err));
	return control_set(&writer->control, view, CONTROL_DURABLE, &cell, err);
}

static bool wants_roll(const struct log_writer *writer, const struct cell *end, size_t more)
{
	return end->bytes > 0 && end->bytes + more > writer->topic->segment_max_bytes;
}

/* With both locks held: rolls, unless somebody else did meanwhile. */
static enum evbus_code roll_if_wanted(struct log_writer *writer, size_t more, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	uint64_t size;

	if (!writer_is_current(writer, &size))
		return EVBUS_OK;
	TRY(control_read(&writer->control, &state, &view, err));
	if (state != CONTROL_OURS || view.end.base != writer->base || view.end.bytes != size ||
	    !wants_roll(writer, &view.end, more))
		return EVBUS_OK;
	if (view.halt || view.syncing || view.durable.base != writer->base)
		return recover(writer, false, err);
	return roll(writer, &view, err);
}

static enum evbus_code roll_locked(struct log_writer *writer, size_t more, struct evbus_err *err)
{
	TRY(writer_lock_both(writer, err));
	os.point("roll/locked");
	enum evbus_code code = roll_if_wanted(writer, more, err);
	writer_unlock_both(writer, true);
	TRY(code);
	return writer_reattach(writer, err);
}

/* ---- append ---- */

/* Its time is that of when it was added, and it has waited for a lock since. */
static bool is_late(const struct group *group, int64_t now_us)
{
	for (size_t i = 0; i < group_count(group); i++)
		if (now_us - group_entry(group, i)->time_us > LATE_US)
			return true;
	return false;
}

static void tell_clock(struct log_writer *writer, int64_t time_us, const struct cell *end)
{
	int64_t back = end->time_us - time_us;

	if (back <= CLOCK_BACK_TOLD_US || writer->clock_told)
		return;
	writer->clock_told = true;
	root_notice(writer->topic->root,
		    "the clock is %lld s behind the last record of '%s': records get its time until the clock is past it",
		    (long long)(back / 1000000), writer->name);
}

/* One write at the end; cut back to it where not all of it could be written. */
static enum evbus_code write_lines(struct log_writer *writer, const struct group *group, const struct cell *end,
				   struct evbus_err *err)
{
	assert(group->lines.len && group->lines.data[group->lines.len - 1] == '\n');
	if (os_write_at(writer->fd, group->lines.data, group->lines.len, end->bytes))
		return EVBUS_OK;
	int saved = errno;
	/* Where this fails too, the size is not `end`, and the next writer recovers. */
	bool cut = os.ftruncate(writer->fd, (off_t)end->bytes) == 0;
	return err_set(err, EVBUS_IO, saved, "cannot write to '%s'%s", writer->name,
		       cut ? "" : ", nor cut back what was written");
}

static enum evbus_code append_here(struct log_writer *writer, struct group *group, const struct control_view *view,
				   struct mark *mark, struct evbus_err *err)
{
	struct cell end = view->end;
	int64_t now_us = os_now_us(), least_us = end.time_us;
	bool late = is_late(group, now_us);

	tell_clock(writer, late ? now_us : group_entry(group, 0)->time_us, &end);
	if (late && least_us < now_us)
		least_us = now_us;
	TRY(group_stamp(group, end.next, least_us, err));
	*mark = (struct mark){ view->page_id, end.epoch, end.base, end.bytes, end.next, end.next + group_count(group),
			       *view };
	TRY(write_lines(writer, group, &end, err));
	os.point("append/written");
	end.bytes += group->lines.len;
	end.next = mark->next;
	end.time_us = group_entry(group, group_count(group) - 1)->time_us;
	TRY(writer->leads ? control_set_syncing(&writer->control, &mark->view, &end, err) :
			    control_set(&writer->control, &mark->view, CONTROL_END, &end, err));
	writer->alone = mark->first == writer->expected.next;
	writer->expected = end;
	return EVBUS_OK;
}

enum append_step {
	APPEND_DONE,
	APPEND_REATTACH,     /* other files stand in the place of ours */
	APPEND_RECOVER,      /* the page does not fit the log */
	APPEND_ROLL,
	APPEND_COMMIT,       /* too much is unsynced */
};

/* What its lines have at most when they are written. */
static size_t group_room(const struct group *group)
{
	return group->lines.len + (group->atomic ? group_count(group) * BATCH_MEMBER_MAX : 0);
}

static enum evbus_code check_held(const struct log_writer *writer, const struct held_file *held, struct evbus_err *err)
{
	if (!held || file_is_at(writer->topic, held->path, &held->id, NULL))
		return EVBUS_OK;
	if (errno != ENOENT)
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s/%s'", writer->topic->name, held->path);
	return err_set(err, EVBUS_AGAIN, 0, "'%s/%s' was removed while it was held", writer->topic->name, held->path);
}

/* With the append lock held: appends, or says what has to be done first without it. */
static enum evbus_code append_step(struct log_writer *writer, struct group *group, uint64_t expect, struct mark *mark,
				   struct control_view *view, enum append_step *step, struct evbus_err *err)
{
	enum control_state state;
	uint64_t size;
	size_t more = group_room(group);

	*step = APPEND_REATTACH;
	if (!writer_is_current(writer, &size))
		return EVBUS_OK;
	TRY(control_read(&writer->control, &state, view, err));
	if (state == CONTROL_OURS && view->end.base != writer->base)
		return EVBUS_OK;
	*step = APPEND_RECOVER;
	if (state != CONTROL_OURS || view->halt || view->end.bytes != size || view->end.ino != writer->id.ino ||
	    !view_agrees(view))
		return EVBUS_OK;
	if (expect != UINT64_MAX && view->end.next != expect)
		return err_set(err, EVBUS_CONFLICT, 0, "the next offset of '%s' is %llu, not %llu", writer->name,
			       (unsigned long long)view->end.next, (unsigned long long)expect);
	*step = APPEND_ROLL;
	if (wants_roll(writer, &view->end, more))
		return EVBUS_OK;
	*step = APPEND_COMMIT;
	uint64_t synced = view->durable.base == view->end.base ? view->durable.bytes : 0;
	if (view->end.bytes > synced && view->end.bytes - synced + more > UNSYNCED_MAX_BYTES)
		return EVBUS_OK;
	/* What somebody who died has left behind is for commit to finish. */
	if (view->syncing || view->durable.base != writer->base)
		writer_leave_lead(writer);
	*step = APPEND_DONE;
	TRY(group_check_deadline(group, writer->name, err));
	TRY(check_held(writer, group->held, err));
	os.point("append/checked");
	return append_here(writer, group, view, mark, err);
}

static enum evbus_code prepare(struct log_writer *writer, enum append_step step, const struct control_view *view,
			       const struct group *group, struct wait *wait, struct evbus_err *err)
{
	switch (step) {
	case APPEND_RECOVER:
		return writer_recover(writer, err);
	case APPEND_ROLL:
		return roll_locked(writer, group_room(group), err);
	case APPEND_COMMIT:
		return writer_commit_others(writer, view, wait, err);
	default:
		return writer_reattach(writer, err);
	}
}

enum evbus_code writer_append(struct log_writer *writer, struct group *group, uint64_t expect, struct mark *mark,
			      struct evbus_err *err)
{
	struct wait wait = { .waiter = writer->waiter };
	struct control_view view;
	enum append_step step;

	if (writer->fd < 0)
		TRY(attach(writer, err));
	for (int attempt = 0; attempt < ATTEMPTS_MAX;) {
		TRY(writer_lock(writer, LOCK_APPEND, F_WRLCK, err));
		/* To try is not to wait. */
		writer->leads = writer->alone && control_try_lock(writer->control.fd, LOCK_SYNC, F_WRLCK,
								  writer->control.path, NULL) == EVBUS_OK;
		os.point("append/locked");
		enum evbus_code code = append_step(writer, group, expect, mark, &view, &step, err);
		control_unlock(writer->fd, LOCK_APPEND);
		if (code != EVBUS_OK || step != APPEND_DONE)
			writer_leave_lead(writer);
		if (code == EVBUS_OK && step == APPEND_DONE)
			os.point("append/done");
		if (code != EVBUS_OK || step == APPEND_DONE)
			return code;
		TRY(prepare(writer, step, &view, group, &wait, err));
		/* Where the files were those of the partition, others may have been quicker as often as they like: a large
		 * group needs a segment of its own, and small ones get in between the roll and it. */
		attempt = step == APPEND_COMMIT || step == APPEND_ROLL ? 0 : attempt + 1;
	}
	return err_set(err, EVBUS_AGAIN, 0, "the files of '%s' are being replaced", writer->name);
}

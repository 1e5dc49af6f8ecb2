/* commit.c: making durable what was appended, by one sync for all who wait.
 *
 *	commit:  durable ≥ mine? else try lock(sync), or wait and look again · syncing := 1 · target = end · fdatasync ·
 *	         durable := target, which ends the syncing · unlock · wake
 *	ack:     epoch unchanged and durable ≥ mine, and my bytes stand there
 *
 * Who gets the sync lock syncs for all who have appended; who does not get it waits for the futex word to change. A
 * blocking lock would hand the lock from one to the next, and each would sync for itself alone.
 *
 * A sync that failed is final: the kernel has dropped the dirty pages or marked them clean, and a second sync on them
 * returns 0 and proves nothing (https://wiki.postgresql.org/wiki/Fsync_Errors). So what it should have covered is cut
 * off, and `epoch` tells everybody who waited for it. */
#include "log/writer.h"

#include "log/recover.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

#define COMMIT_WAIT_MS 100          /* a leader may have died without waking anybody */
#define LEADER_YIELDS_MAX 64

/* ---- a sync that failed ---- */

/* The cut itself has to be durable, and the descriptor that reported the failure is not to be asked again. */
static enum evbus_code sync_afresh(const struct log_writer *writer, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;

	TRY(segment_open_live(writer->topic, writer->partition, O_RDWR, &fd, err));
	if (os.fdatasync(fd))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s'", writer->name);
	return EVBUS_OK;
}

enum evbus_code writer_cut_unsynced(struct log_writer *writer, struct control_view *view, struct evbus_err *err)
{
	struct cell cell = view->durable;

	assert(cell.base == writer->base);
	TRY(control_flag(&writer->control, view, CONTROL_HALT, true, err));
	os.point("cut/marked");
	if (os.ftruncate(writer->fd, (off_t)cell.bytes))
		return err_set(err, EVBUS_IO, errno, "cannot cut '%s' back to byte %llu", writer->name,
			       (unsigned long long)cell.bytes);
	os.point("cut/done");
	cell.epoch = (view->end.epoch > cell.epoch ? view->end.epoch : cell.epoch) + 1;
	TRY(control_set(&writer->control, view, CONTROL_END, &cell, err));
	TRY(control_set(&writer->control, view, CONTROL_DURABLE, &cell, err));
	TRY(sync_afresh(writer, err));
	os.point("cut/synced");
	return control_flag(&writer->control, view, CONTROL_HALT, false, err);
}

enum evbus_code writer_sync_failed(struct log_writer *writer, int sys_errno, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state = CONTROL_NONE;
	enum evbus_code code = EVBUS_OK;
	struct evbus_err why;

	/* Of a page that is not the partition's any more we know nothing; whoever has the new one takes care. */
	if (writer_is_current(writer, NULL))
		code = control_read(&writer->control, &state, &view, &why);
	if (!code && state == CONTROL_OURS && view.durable.base == writer->base)
		code = writer_cut_unsynced(writer, &view, &why);
	if (code)
		root_notice(writer->topic->root, "%s; publishing to '%s' stays halted", why.text, writer->name);
	return err_set(err, EVBUS_IO, sys_errno,
		       "cannot sync '%s': what was not acknowledged is cut off, and the disk wants looking after",
		       writer->name);
}

/* ---- commit ---- */

enum evbus_code writer_say_durable(struct log_writer *writer, struct control_view *view, const struct cell *cell,
				   struct evbus_err *err)
{
	TRY(control_set(&writer->control, view, CONTROL_DURABLE, cell, err));
	/* Where it is what it was before. */
	return control_flag(&writer->control, view, CONTROL_SYNCING, false, err);
}

/* Others who are about to append may come along: a yield each is cheap beside a sync. next: what is to be synced. */
static enum evbus_code gather(struct log_writer *writer, uint64_t next, enum control_state *state,
			      struct control_view *view, struct evbus_err *err)
{
	TRY(control_read(&writer->control, state, view, err));
	for (int i = 0; i < LEADER_YIELDS_MAX && *state == CONTROL_OURS && view->durable.next < next; i++) {
		uint64_t seen = view->end.next;
		sched_yield();
		TRY(control_read(&writer->control, state, view, err));
		if (view->end.next == seen)
			break;
	}
	return EVBUS_OK;
}

/* A leader that was killed between its sync and what it had to say, or in a roll. With the sync lock held. */
static enum evbus_code finish_for_the_dead(struct log_writer *writer, struct evbus_err *err)
{
	TRY(writer_lock(writer, LOCK_APPEND, F_WRLCK, err));
	enum evbus_code code = writer_is_current(writer, NULL) ? recover(writer, false, err) : EVBUS_OK;
	control_unlock(writer->fd, LOCK_APPEND);
	return code;
}

static enum evbus_code sync_failed(struct log_writer *writer, int sys_errno, struct evbus_err *err)
{
	os.point("sync/failed");
	TRY(writer_lock(writer, LOCK_APPEND, F_WRLCK, err));
	enum evbus_code code = writer_sync_failed(writer, sys_errno, err);
	control_unlock(writer->fd, LOCK_APPEND);
	return code;
}

/* What the page says was appended, by a leader whose mark is in the page. */
static enum evbus_code sync_and_say(struct log_writer *writer, struct control_view *view, struct evbus_err *err)
{
	os.point("sync/begins");
	if (os.fdatasync(writer->fd))
		return sync_failed(writer, errno, err);
	os.point("sync/ended");
	return control_set(&writer->control, view, CONTROL_DURABLE, &view->end, err);
}

enum led {
	LED_LOOK,      /* the page is to be read again */
	LED_KNOWN,     /* the view is what it says now */
	LED_STALE,     /* the files are not the partition's any more */
};

/* With the sync lock held. */
static enum evbus_code lead(struct log_writer *writer, uint64_t next, struct control_view *view, enum led *led,
			    struct evbus_err *err)
{
	enum control_state state;

	*led = LED_STALE;
	if (!writer_is_current(writer, NULL))
		return EVBUS_OK;
	TRY(gather(writer, next, &state, view, err));
	if (state != CONTROL_OURS || view->end.base != writer->base)
		return EVBUS_OK;
	/* An end before what was appended: an older page was put in the place of ours. */
	if (view->halt || view->syncing || view->durable.base != writer->base || view->end.next < next) {
		*led = LED_LOOK;
		return finish_for_the_dead(writer, err);
	}
	*led = LED_KNOWN;
	if (view->durable.next >= next)
		return EVBUS_OK;
	TRY(control_flag(&writer->control, view, CONTROL_SYNCING, true, err));
	return sync_and_say(writer, view, err);
}

/* Whether the i-th line of the group stands where it was written: by its checksum and its offset, which no other line in
 * its place has. */
static enum evbus_code stands(const struct log_writer *writer, int fd, const struct mark *mark,
			      const struct group *group, size_t i, bool *there, struct evbus_err *err)
{
	const struct group_entry *entry = group_entry(group, i);
	char head[LINE_MEMBERS_AT + 12];

	assert(entry->len > sizeof head);
	ssize_t n = os_read_at(fd, head, sizeof head, mark->at + entry->at);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s', to see whether the event is in it", writer->name);
	*there = n == (ssize_t)sizeof head && memcmp(head, group->lines.data + entry->at, sizeof head) == 0;
	return EVBUS_OK;
}

/* Whether the group is still in the log. A cut takes the lines behind it, so the first and the last tell of all. */
static enum evbus_code still_there(struct log_writer *writer, const struct mark *mark, const struct group *group,
				   bool *there, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int older = -1;
	uint64_t size;
	int fd = writer->fd;

	if (mark->base != writer->base) {
		TRY(segment_open(writer->topic, writer->partition, mark->base, O_RDONLY, &older, &size, err));
		fd = older;
	}
	size_t count = group_count(group);
	TRY(stands(writer, fd, mark, group, 0, there, err));
	return *there && count > 1 ? stands(writer, fd, mark, group, count - 1, there, err) : EVBUS_OK;
}

static enum evbus_code lost(const struct log_writer *writer, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "'%s' was cut back while we waited, after a sync that failed or by hand: the event is not in it",
		       writer->name);
}

/* The page says that it is durable. An older copy of the page that was put back over ours can say so of another event
 * that took its offset, and knows of no cut since; the bytes do. */
static enum evbus_code acknowledge(struct log_writer *writer, const struct mark *mark, const struct group *group,
				   struct evbus_err *err)
{
	bool there;

	TRY(still_there(writer, mark, group, &there, err));
	return there ? EVBUS_OK : lost(writer, err);
}

/* With both locks held. Under the same page the mark stays as it is (a roll); under another one the group counts only if
 * its bytes are still in the log. */
static enum evbus_code prove(struct log_writer *writer, struct mark *mark, const struct group *group,
			     struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	bool there;

	/* The files, or the page, may have gone away again: then the caller looks once more. */
	if (!writer_is_current(writer, NULL))
		return EVBUS_OK;
	TRY(control_read(&writer->control, &state, &view, err));
	if (state != CONTROL_OURS || view.page_id == mark->page_id)
		return EVBUS_OK;
	/* A page that was put back may not know of all that stands there. */
	TRY(recover(writer, false, err));
	TRY(control_read(&writer->control, &state, &view, err));
	if (state != CONTROL_OURS)
		return EVBUS_OK;
	TRY(still_there(writer, mark, group, &there, err));
	if (!there || view.end.next < mark->next)
		return lost(writer, err);
	mark->page_id = view.page_id;
	mark->epoch = view.end.epoch;
	return EVBUS_OK;
}

/* Opens the partition anew, and finds out whether the group is still in it. */
static enum evbus_code reattach_and_prove(struct log_writer *writer, struct mark *mark, const struct group *group,
					  struct evbus_err *err)
{
	TRY(writer_reattach(writer, err));
	TRY(writer_lock_both(writer, err));
	enum evbus_code code = prove(writer, mark, group, err);
	writer_unlock_both(writer, true);
	return code;
}

static enum evbus_code wait_for_leader(const struct log_writer *writer, uint32_t word, struct wait *wait,
				       struct evbus_err *err)
{
	os.point("commit/waits");
	control_wait(&writer->control, word, COMMIT_WAIT_MS);
	return wait_goes_on(wait) ? EVBUS_OK : control_gave_up(writer->control.path, err);
}

/* One round: syncs if nobody else does, else waits for who does. */
static enum evbus_code commit_once(struct log_writer *writer, const struct mark *mark, struct control_view *view,
				   struct wait *wait, enum led *led, struct evbus_err *err)
{
	enum evbus_code code = control_try_lock(writer->control.fd, LOCK_SYNC, F_WRLCK, writer->control.path, err);

	*led = LED_LOOK;
	if (code == EVBUS_AGAIN)
		return wait_for_leader(writer, view->word, wait, err);
	TRY(code);
	os.point("commit/locked");
	code = lead(writer, mark->next, view, led, err);
	control_unlock(writer->control.fd, LOCK_SYNC);
	control_wake(&writer->control);
	return code;
}

/* By the lead that was taken with the append. */
static enum evbus_code commit_alone(struct log_writer *writer, struct mark *mark, const struct group *group,
				    struct evbus_err *err)
{
	enum evbus_code code = sync_and_say(writer, &mark->view, err);

	writer->leads = false;
	control_unlock(writer->control.fd, LOCK_SYNC);
	control_wake(&writer->control);
	TRY(code);
	return acknowledge(writer, mark, group, err);
}

enum evbus_code writer_commit(struct log_writer *writer, struct mark *mark, const struct group *group,
			      struct evbus_err *err)
{
	if (writer->leads)
		return commit_alone(writer, mark, group, err);

	struct wait wait = { .waiter = writer->waiter };
	struct control_view view = mark->view;
	enum control_state state = CONTROL_OURS;
	enum led led = LED_KNOWN;
	bool waited = false;

	for (int attempt = 0; attempt < ATTEMPTS_MAX;) {
		if (led == LED_LOOK)
			TRY(control_read(&writer->control, &state, &view, err));
		if (led == LED_STALE || state != CONTROL_OURS || view.page_id != mark->page_id) {
			TRY(reattach_and_prove(writer, mark, group, err));
			led = LED_LOOK;
			attempt++;
			continue;
		}
		if (view.end.epoch != mark->epoch || view.durable.epoch != mark->epoch)
			return lost(writer, err);
		if (view.durable.next >= mark->next)
			return acknowledge(writer, mark, group, err);
		attempt += view.end.next < mark->next;
		led = LED_LOOK;
		/* Whoever syncs has the lock, unless it died: so wait once before trying. */
		waited = view.syncing && !waited;
		if (waited)
			TRY(wait_for_leader(writer, view.word, &wait, err));
		else
			TRY(commit_once(writer, mark, &view, &wait, &led, err));
	}
	return err_set(err, EVBUS_AGAIN, 0, "the files of '%s' are being replaced", writer->name);
}

enum evbus_code writer_commit_others(struct log_writer *writer, const struct control_view *view, struct wait *wait,
				     struct evbus_err *err)
{
	struct mark mark = { .page_id = view->page_id, .epoch = view->end.epoch, .next = view->end.next };
	struct control_view now = *view;
	enum led led;    /* append looks for itself */

	return commit_once(writer, &mark, &now, wait, &led, err);
}

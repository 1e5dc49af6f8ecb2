/* settle.c: making sure that a reader sees all that was ever appended.
 *
 * Readers see what is durable. Behind that may stand what a publisher appended and was killed before it synced, and behind
 * the end that the page knows, what it was killed over while it wrote: the next publisher adopts both. Who has to know
 * what is in the log before it appends makes all of it durable first. */
#include "log/writer.h"

static bool is_steady(const struct log_writer *writer, enum control_state state, const struct control_view *view,
		      uint64_t size)
{
	return state == CONTROL_OURS && !view->halt && view->end.bytes == size && view->end.ino == writer->id.ino &&
	       view_agrees(view);
}

enum look {
	LOOK_STEADY,
	LOOK_OTHER_FILES,    /* stand in the place of ours */
	LOOK_ODD,            /* the page does not fit the log */
};

/* Within the append lock, so that who is appending has finished. */
static enum evbus_code look(struct log_writer *writer, struct control_view *view, enum look *found,
			    struct evbus_err *err)
{
	enum control_state state;
	uint64_t size = 0;

	TRY(writer_lock(writer, LOCK_APPEND, F_WRLCK, err));
	bool current = writer_is_current(writer, &size);
	enum evbus_code code = control_read(&writer->control, &state, view, err);
	control_unlock(writer->fd, LOCK_APPEND);
	TRY(code);
	*found = !current ? LOOK_OTHER_FILES : is_steady(writer, state, view, size) ? LOOK_STEADY : LOOK_ODD;
	return EVBUS_OK;
}

enum evbus_code writer_settle(struct log_writer *writer, struct control_view *view, struct evbus_err *err)
{
	struct wait wait = { .waiter = writer->waiter };
	uint64_t page_id = 0, epoch = 0, wanted = 0;
	enum look found;

	for (int attempt = 0; attempt < ATTEMPTS_MAX;) {
		TRY(look(writer, view, &found, err));
		if (found == LOOK_STEADY && view->end.base != writer->base)
			found = LOOK_OTHER_FILES;
		if (found != LOOK_STEADY) {
			TRY(found == LOOK_ODD ? writer_recover(writer, err) : writer_reattach(writer, err));
			attempt++;
			continue;
		}
		/* What comes in meanwhile is not waited for, and a cut begins it anew. */
		if (!wanted || view->page_id != page_id || view->end.epoch != epoch) {
			page_id = view->page_id;
			epoch = view->end.epoch;
			wanted = view->end.next;
		}
		if (view->durable.next >= wanted)
			return EVBUS_OK;
		TRY(writer_commit_others(writer, view, &wait, err));
	}
	return err_set(err, EVBUS_AGAIN, 0, "the files of '%s' are being replaced", writer->name);
}

static enum evbus_code open_and_settle(const struct topic *topic, int32_t partition, const struct waiter *waiter,
				       struct control_view *view, struct evbus_err *err)
{
	struct log_writer writer;

	TRY(writer_open(topic, partition, waiter, &writer, err));
	enum evbus_code code = writer_settle(&writer, view, err);
	writer_close(&writer);
	return code;
}

/* Opens no more than what a look takes. *open false: there is no live file, or no page. *any: one of them. */
static enum evbus_code open_for_a_look(struct log_writer *writer, bool *open, bool *any, struct evbus_err *err)
{
	const struct topic *topic = writer->topic;

	segment_live_path(writer->partition, writer->path);
	snprintf(writer->name, sizeof writer->name, "%s/%s", topic->name, writer->path);
	enum evbus_code live = segment_open_live(topic, writer->partition, O_RDWR, &writer->fd, err);
	if (live != EVBUS_OK && live != EVBUS_NONE)
		return live;
	enum evbus_code page = control_open(topic, writer->partition, false, &writer->control, err);
	if (page != EVBUS_OK && page != EVBUS_NONE)
		return page;
	*open = live == EVBUS_OK && page == EVBUS_OK;
	*any = live == EVBUS_OK || page == EVBUS_OK;
	return *open ? file_id_of(writer->fd, writer->name, &writer->id, err) : EVBUS_OK;
}

enum evbus_code partition_settle(const struct topic *topic, int32_t partition, const struct waiter *waiter,
				 struct control_view *view, bool *there, struct evbus_err *err)
{
	CLEANUP(writer_close)
	struct log_writer writer = {
		.topic = topic, .partition = partition, .fd = -1, .control = { .fd = -1 }, .waiter = waiter
	};
	enum look found = LOOK_ODD;
	bool open;

	TRY(open_for_a_look(&writer, &open, there, err));
	if (!*there)
		return EVBUS_OK;
	if (open)
		TRY(look(&writer, view, &found, err));
	if (found == LOOK_STEADY && view->durable.next >= view->end.next)
		return EVBUS_OK;
	return open_and_settle(topic, partition, waiter, view, err);
}

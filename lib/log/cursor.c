/* cursor.c: committed reads.
 *
 * What is durable says the control page. Without one that is usable (the machine restarted, the lock file is gone) the
 * reader takes the size of the live file, syncs it through its own descriptor, and reads what is whole up to there: what
 * it has seen then survives a power cut as well. */
#include "log/cursor.h"

#include "log/extent.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define WITHOUT_PAGE_WAIT_MS 100
#define OPEN_ATTEMPTS_MAX 100

void cursor_close_segment(struct cursor *cursor)
{
	os_close_cleanup(&cursor->fd);
	scan_release(&cursor->scan);
}

void cursor_close(struct cursor *cursor)
{
	cursor_close_segment(cursor);
	control_close(&cursor->control);
}

/* ---- what is durable ---- */

static void name_live(const struct cursor *cursor, char path[SEGMENT_PATH_MAX], char name[NAME_IN_MESSAGE])
{
	segment_live_path(cursor->partition, path);
	snprintf(name, NAME_IN_MESSAGE, "%s/%s", cursor->topic->name, path);
}

/* Opens the lock file if there is one and ours is not it. A reader needs none. */
static enum evbus_code look_at_page(struct cursor *cursor, struct control_view *view, enum control_state *state,
				    struct evbus_err *err)
{
	*state = CONTROL_NONE;
	if (cursor->control.fd >= 0 &&
	    !file_is_at(cursor->topic, cursor->control.path, &cursor->control.id, NULL))
		control_close(&cursor->control);
	if (cursor->control.fd < 0) {
		enum evbus_code code = control_open(cursor->topic, cursor->partition, false, &cursor->control, err);
		if (code == EVBUS_NONE)
			return EVBUS_OK;
		TRY(code);
	}
	*state = control_read(&cursor->control, view);
	cursor->has_page = *state == CONTROL_OURS;
	if (cursor->has_page)
		cursor->word = view->word;
	return EVBUS_OK;
}

/* Without a page: what is whole after a sync of our own. low: what a page of an earlier boot proves. */
static enum evbus_code measure(struct cursor *cursor, int fd, const char *name, const struct cell *start, uint64_t low,
			       struct evbus_err *err)
{
	struct extent found;
	struct cell from;
	struct stat st;
	bool damaged = false;

	/* On a read-only file system there is nothing that could be lost. */
	if (os.fstat(fd, &st) || (os.fdatasync(fd) && errno != EROFS && errno != EINVAL))
		return err_set(err, EVBUS_IO, errno, "cannot sync '%s' for reading", name);
	uint64_t size = (uint64_t)st.st_size;
	uint64_t window = size > UNSYNCED_MAX_BYTES ? size - UNSYNCED_MAX_BYTES : 0;
	TRY(extent_start(fd, name, window, size, start, &from, err));
	TRY(extent_find(fd, name, &from, size, &found, err));
	if (found.bad && found.good.bytes >= low)
		TRY(extent_good_behind(fd, name, found.good.bytes, size, &damaged, err));
	cursor->durable = found.good;
	cursor->durable.base = start->base;
	/* Damage is not the end of the log: reading goes on up to it, and reports it. */
	if (found.bad && (damaged || found.good.bytes < low)) {
		cursor->durable.bytes = size;
		cursor->durable.next++;
	}
	return EVBUS_OK;
}

static enum evbus_code find_start(struct cursor *cursor, int live, struct cell *start, struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };
	CLEANUP(os_close_cleanup) int fd = -1;
	uint64_t size;

	TRY(segments_list(cursor->topic, cursor->partition, &older, err));
	*start = (struct cell){ 0 };
	TRY(segment_live_base(cursor->topic, cursor->partition, live, &older, &start->base, &start->time_us, err));
	start->next = start->base;
	cursor->first = older.count ? older.bases[0] : start->base;
	cursor->older_bytes = 0;
	for (size_t i = 0; i < older.count; i++) {
		TRY(segment_open(cursor->topic, cursor->partition, older.bases[i], O_RDONLY, &fd, &size, err));
		os_close_cleanup(&fd);
		cursor->older_bytes += size;
	}
	return EVBUS_OK;
}

/* Reads durable; *again: a roll came in between. */
static enum evbus_code look(struct cursor *cursor, bool *again, struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int live = -1;
	struct control_view view;
	enum control_state state;
	struct file_id id;
	struct cell start;
	uint64_t size;

	*again = false;
	name_live(cursor, path, name);
	TRY(look_at_page(cursor, &view, &state, err));
	enum evbus_code code = segment_open_live(cursor->topic, cursor->partition, O_RDONLY, &live, err);
	if (code == EVBUS_NONE && (state == CONTROL_NONE || view.durable.next == 0)) {
		cursor->durable = (struct cell){ 0 };
		return EVBUS_OK;
	}
	if (code == EVBUS_NONE)
		return err_set(err, EVBUS_CONFLICT, 0, "'%s' was removed, and records up to %llu were acknowledged",
			       name, (unsigned long long)view.durable.next);
	TRY(code);
	TRY(file_id_of(live, name, &id, err));
	TRY(find_start(cursor, live, &start, err));
	/* The older segments were listed after the live one was opened: they meet if it still is the live one. */
	*again = !file_is_at(cursor->topic, path, &id, &size);
	if (*again)
		return EVBUS_OK;
	if (state != CONTROL_OURS)
		return measure(cursor, live, name, &start,
			       state == CONTROL_OTHER_BOOT && view.durable.base == start.base ? view.durable.bytes : 0,
			       err);
	*again = view.durable.base > start.base;
	/* A page that is behind a roll knows all that there is: the new segment is empty until the page is right. */
	if (view.durable.base < start.base)
		view.durable = (struct cell){ .epoch = view.durable.epoch, .base = start.base, .next = start.base,
					      .time_us = start.time_us };
	cursor->durable = view.durable;
	return EVBUS_OK;
}

static enum evbus_code look_until_steady(struct cursor *cursor, struct evbus_err *err)
{
	bool again = true;

	for (int i = 0; again && i < OPEN_ATTEMPTS_MAX; i++)
		TRY(look(cursor, &again, err));
	if (again)
		return err_set(err, EVBUS_CONFLICT, 0, "'%s/partition=%d.jsonl' and its control page do not fit together",
			       cursor->topic->name, cursor->partition);
	return EVBUS_OK;
}

enum evbus_code cursor_open(const struct topic *topic, int32_t partition, size_t chunk, struct cursor *cursor,
			    struct evbus_err *err)
{
	*cursor = (struct cursor){ .topic = topic, .partition = partition, .control = { .fd = -1 }, .fd = -1,
				   .chunk = chunk };
	TRY(topic_check_partition(topic, partition, err));
	enum evbus_code code = look_until_steady(cursor, err);
	cursor->next = cursor->first;
	if (code != EVBUS_OK)
		cursor_close(cursor);
	return code;
}

static enum evbus_code went_back(const struct cursor *cursor, struct evbus_err *err)
{
	return err_set(err, EVBUS_CONFLICT, 0,
		       "topic '%s', partition %d was cut, restored or replaced while it was read: it ends at offset %llu, and "
		       "%llu was read",
		       cursor->topic->name, cursor->partition, (unsigned long long)cursor->durable.next,
		       (unsigned long long)cursor->next);
}

enum evbus_code cursor_refresh(struct cursor *cursor, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	struct cell before = cursor->durable;

	TRY(look_at_page(cursor, &view, &state, err));
	/* The common case, without opening anything: the same live segment. */
	if (state == CONTROL_OURS && view.durable.base == before.base && view.durable.next >= before.next)
		cursor->durable = view.durable;
	else
		TRY(look_until_steady(cursor, err));
	if (cursor->durable.next < before.next && cursor->durable.next < cursor->next)
		return went_back(cursor, err);
	return EVBUS_OK;
}

bool cursor_wait(const struct cursor *cursor, int timeout_ms)
{
	if (cursor->has_page)
		return control_wait(&cursor->control, cursor->word, timeout_ms);
	struct timespec wait = { 0, (timeout_ms < WITHOUT_PAGE_WAIT_MS ? timeout_ms : WITHOUT_PAGE_WAIT_MS) * 1000000L };
	return nanosleep(&wait, NULL) == 0 || errno != EINTR;
}

uint64_t cursor_bytes_total(const struct cursor *cursor)
{
	return cursor->older_bytes + cursor->durable.bytes;
}

enum evbus_code cursor_bytes_left(const struct cursor *cursor, uint64_t *bytes, struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };
	CLEANUP(os_close_cleanup) int fd = -1;
	uint64_t size;

	*bytes = cursor->durable.bytes;
	if (cursor->fd >= 0 && cursor->base == cursor->durable.base) {
		*bytes -= cursor->scan.at;
		return EVBUS_OK;
	}
	TRY(segments_list(cursor->topic, cursor->partition, &older, err));
	for (size_t i = 0; i < older.count && older.bases[i] < cursor->durable.base; i++) {
		bool current = cursor->fd >= 0 && older.bases[i] == cursor->base;
		if (older.bases[i] < cursor->next && !current)
			continue;
		TRY(segment_open(cursor->topic, cursor->partition, older.bases[i], O_RDONLY, &fd, &size, err));
		os_close_cleanup(&fd);
		*bytes += size - (current ? cursor->scan.at : 0);
	}
	return EVBUS_OK;
}

/* ---- the segment that is read ---- */

static enum evbus_code use_segment(struct cursor *cursor, int *fd, uint64_t base, bool live, uint64_t limit,
				   struct evbus_err *err)
{
	struct stat st;

	if (os.fstat(*fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", cursor->name);
	if ((uint64_t)st.st_size < limit)
		return err_set(err, EVBUS_CONFLICT, 0,
			       "'%s' has %lld bytes, and %llu were acknowledged: it was cut or restored", cursor->name,
			       (long long)st.st_size, (unsigned long long)limit);
	cursor_close_segment(cursor);
	cursor->fd = *fd;
	cursor->base = base;
	cursor->live = live;
	*fd = -1;
	scan_init(&cursor->scan, cursor->fd, cursor->name, 0, limit, cursor->chunk);
	return EVBUS_OK;
}

/* Opens the segment that begins at offset base. An older one is looked for first: a roll makes the live one older. */
static enum evbus_code open_segment(struct cursor *cursor, uint64_t base, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	char path[SEGMENT_PATH_MAX];
	uint64_t size, first;

	enum evbus_code code = segment_open(cursor->topic, cursor->partition, base, O_RDONLY, &fd, &size, err);
	if (code != EVBUS_OK && code != EVBUS_NONE)
		return code;
	if (code == EVBUS_OK && size) {
		segment_path(cursor->partition, base, path);
		snprintf(cursor->name, sizeof cursor->name, "%s/%s", cursor->topic->name, path);
		return use_segment(cursor, &fd, base, false, base == cursor->durable.base ? cursor->durable.bytes : size,
				   err);
	}
	os_close_cleanup(&fd);
	name_live(cursor, path, cursor->name);
	TRY(segment_open_live(cursor->topic, cursor->partition, O_RDONLY, &fd, err));
	struct segments none = { 0 };
	int64_t time_us;
	TRY(segment_live_base(cursor->topic, cursor->partition, fd, &none, &first, &time_us, err));
	/* Rolled between the two looks: the segment is an older one now. An unreadable first line is told when it is read. */
	if (first > base && base == cursor->durable.base)
		return err_set(err, EVBUS_AGAIN, 0, "'%s' was rolled while it was opened", cursor->name);
	if (base != cursor->durable.base)
		return err_set(err, EVBUS_IO, 0, "topic '%s', partition %d: the segment with offset %llu is missing",
			       cursor->topic->name, cursor->partition, (unsigned long long)base);
	return use_segment(cursor, &fd, base, true, cursor->durable.bytes, err);
}

enum evbus_code cursor_open_segment(struct cursor *cursor, uint64_t base, struct evbus_err *err)
{
	enum evbus_code code = EVBUS_AGAIN;

	for (int i = 0; code == EVBUS_AGAIN && i < OPEN_ATTEMPTS_MAX; i++)
		code = open_segment(cursor, base, err);
	return code;
}

static enum evbus_code damaged(const struct cursor *cursor, uint64_t byte, const char *why, struct evbus_err *err)
{
	return err_set(err, EVBUS_IO, 0,
		       "topic '%s', partition %d is damaged at offset %llu, byte %llu of '%s': %s; evbus verify says more",
		       cursor->topic->name, cursor->partition, (unsigned long long)cursor->next,
		       (unsigned long long)byte, cursor->name, why);
}

static enum evbus_code take(struct cursor *cursor, enum scan_what what, struct evbus_slice text, uint64_t byte,
			    struct line *line, struct evbus_err *err)
{
	const char *why = what == SCAN_LINE    ? line_parse(text, line) :
			  what == SCAN_PARTIAL ? "it has no newline" :
						 "it is longer than a line may be";

	if (!why && line->offset != cursor->next)
		why = line->offset > cursor->next ? "a line is missing before it" : "it has an offset that was there before";
	if (!why && line->time_us < cursor->time_us)
		why = "its time is before the one of the line before";
	if (why)
		return damaged(cursor, byte, why, err);
	cursor->next++;
	cursor->time_us = line->time_us;
	return EVBUS_OK;
}

/* Makes the scan's limit right for what is durable now; *end: this segment is read to its end, and it is not the last. */
static enum evbus_code reach(struct cursor *cursor, bool *end, struct evbus_err *err)
{
	struct stat st;

	*end = false;
	if (cursor->base == cursor->durable.base) {
		cursor->scan.limit = cursor->durable.bytes;
		return EVBUS_OK;
	}
	/* All of it is durable: it was synced before it was rolled. */
	if (os.fstat(cursor->fd, &st))
		return err_set(err, EVBUS_IO, errno, "cannot look at '%s'", cursor->name);
	cursor->scan.limit = (uint64_t)st.st_size;
	*end = cursor->scan.at >= cursor->scan.limit;
	return EVBUS_OK;
}

enum evbus_code cursor_next(struct cursor *cursor, uint64_t end, struct line *line, bool *got, struct evbus_err *err)
{
	struct evbus_slice text;
	enum scan_what what;
	bool passed;

	*got = false;
	for (;;) {
		if (cursor->next >= end || cursor->next >= cursor->durable.next)
			return EVBUS_OK;
		if (cursor->fd < 0)
			TRY(cursor_open_segment(cursor, cursor->next, err));
		uint64_t byte = cursor->scan.at;
		if (byte >= cursor->scan.limit) {
			TRY(reach(cursor, &passed, err));
			if (passed)
				cursor_close_segment(cursor);
			if (passed || byte < cursor->scan.limit)
				continue;
			return damaged(cursor, byte, "the file ends before it", err);
		}
		TRY(scan_next(&cursor->scan, &text, &what, err));
		if (what == SCAN_END)
			return damaged(cursor, byte, "the file ends before it", err);
		TRY(take(cursor, what, text, byte, line, err));
		*got = true;
		return EVBUS_OK;
	}
}

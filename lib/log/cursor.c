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
#define OPEN_ATTEMPTS_MAX 1000    /* each roll in between costs one */

void cursor_close_segment(struct cursor *cursor)
{
	scan_release(&cursor->scan);
	os_close_cleanup(&cursor->fd);
	cursor->sought = false;
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
	cursor->has_page = false;
	if (cursor->control.fd >= 0 &&
	    !file_is_at(cursor->topic, cursor->control.path, &cursor->control.id, NULL))
		control_close(&cursor->control);
	if (cursor->control.fd < 0) {
		enum evbus_code code = control_open(cursor->topic, cursor->partition, false, &cursor->control, err);
		if (code == EVBUS_NONE)
			return EVBUS_OK;
		TRY(code);
	}
	TRY(control_read(&cursor->control, state, view, err));
	cursor->has_page = *state == CONTROL_OURS;
	if (cursor->has_page)
		cursor->word = view->word;
	return EVBUS_OK;
}

/* Without a page: what is whole after a sync of our own. known: what a page of an earlier boot proves, or NULL. */
static enum evbus_code measure(struct cursor *cursor, int fd, const char *name, const struct cell *start,
			       const struct cell *known, struct evbus_err *err)
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
	if (found.bad && known)
		damaged = found.good.bytes < known->bytes;
	else if (found.bad)
		TRY(extent_good_behind(fd, name, &found.at, size, &damaged, err));
	/* What was acknowledged and is not there is not the end of the log either: reading reports it. */
	cursor->durable = known && size < known->bytes ? *known : damaged ? found.at : found.good;
	cursor->durable.base = start->base;
	cursor->durable.ino = (uint64_t)st.st_ino;
	/* Nor is damage: reading goes on up to it. */
	if (damaged) {
		cursor->damaged_at = found.at.bytes;
		cursor->durable.bytes = size;
		cursor->durable.next++;
	}
	cursor->damaged = damaged;
	return EVBUS_OK;
}

static enum evbus_code find_start(struct cursor *cursor, int live, const struct cell *paged, struct cell *start,
				  struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };

	TRY(segments_list(cursor->topic, cursor->partition, &older, err));
	*start = (struct cell){ 0 };
	TRY(segment_live_base(cursor->topic, cursor->partition, live, &older, paged, &start->base, &start->time_us,
			      err));
	start->next = start->base;
	cursor->first = older.count ? older.bases[0] : start->base;
	return EVBUS_OK;
}

/* There is none before the first record; and for a moment in a roll, where files cannot be exchanged. */
static enum evbus_code without_live(struct cursor *cursor, const struct cell *durable, const char *name,
				    struct evbus_err *err)
{
	struct cell start = { 0 };

	TRY(find_start(cursor, -1, durable, &start, err));
	cursor->durable = start;
	if (!durable || durable->next <= start.next)
		return EVBUS_OK;
	return err_set(err, EVBUS_CONFLICT, 0, "'%s' was removed, and records up to %llu were acknowledged", name,
		       (unsigned long long)durable->next);
}

/* Whether the page means a segment before the live one, and not because a roll is under way or was killed: it was put
 * back. */
static bool is_from_before_a_roll(const struct control_view *view, const struct cell *start, uint64_t size)
{
	return view->durable.base < start->base &&
	       (view->durable.next != start->base || (view->end.base != start->base && size > 0));
}

/* Whether lines stand behind the end that the page knows, and nobody is about to say so: a writer died, or an older page
 * was put in the place of the last. size: of the live file, taken after the page was read. */
static bool is_left_behind(const struct cursor *cursor, int live, const struct control_view *view, uint64_t size)
{
	struct control_view now;
	enum control_state state;

	/* What a sync that failed left behind is not to be read. */
	if (size <= view->end.bytes || view->halt || view->syncing || control_is_locked(live, LOCK_APPEND))
		return false;
	return !control_read(&cursor->control, &state, &now, NULL) && state == CONTROL_OURS &&
	       now.end.base == view->end.base && now.end.bytes == view->end.bytes;
}

/* Reads durable; *again: a roll came in between. */
static enum evbus_code look(struct cursor *cursor, bool *again, struct evbus_err *err)
{
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	CLEANUP(os_close_cleanup) int live = -1;
	struct control_view view, now;
	enum control_state state;
	struct file_id id;
	struct cell start;
	uint64_t size;

	*again = cursor->damaged = false;
	name_live(cursor, path, name);
	TRY(look_at_page(cursor, &view, &state, err));
	enum evbus_code code = segment_open_live(cursor->topic, cursor->partition, O_RDONLY, &live, err);
	if (code == EVBUS_NONE)
		return without_live(cursor, state == CONTROL_NONE ? NULL : &view.durable, name, err);
	TRY(code);
	TRY(file_id_of(live, name, &id, err));
	code = find_start(cursor, live, state == CONTROL_NONE ? NULL : &view.durable, &start, err);
	/* One that was listed and is gone was empty: a roll that was killed, and undone just now. */
	if (code != EVBUS_NONE)
		TRY(code);
	/* The older segments were listed after the live one was opened: they meet if it still is the live one. */
	*again = code == EVBUS_NONE || !file_is_at(cursor->topic, path, &id, &size);
	if (*again)
		return EVBUS_OK;
	/* A page that means another file says nothing of this one: the log was replaced. */
	if (state == CONTROL_OURS && view.durable.base == start.base && view.durable.ino != id.ino)
		state = CONTROL_NONE;
	if (state == CONTROL_OURS && is_from_before_a_roll(&view, &start, size)) {
		TRY(control_read(&cursor->control, &state, &now, err));
		*again = state != CONTROL_OURS || now.durable.base != view.durable.base;
		state = CONTROL_NONE;
	}
	*again = *again || (state != CONTROL_NONE && view.durable.base > start.base);
	if (*again)
		return EVBUS_OK;
	if (state == CONTROL_OURS && view.end.base == start.base && is_left_behind(cursor, live, &view, size))
		return measure(cursor, live, name, &start, &view.durable, err);
	if (state != CONTROL_OURS)
		return measure(cursor, live, name, &start,
			       state == CONTROL_NONE		       ? NULL :
			       view.durable.base == start.base ? &view.durable :
								 &start,
			       err);
	/* A page that is behind a roll knows all that there is: the new segment is empty until the page is right. */
	if (view.durable.base < start.base)
		view.durable = (struct cell){ .epoch = view.durable.epoch, .base = start.base, .next = start.base,
					      .time_us = start.time_us, .ino = id.ino };
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

/* A page that was made anew or put back may know of less than what was read. As long as that stands there, nothing was
 * taken back: it was synced before it was read. A look that fails says nothing of it. */
static enum evbus_code still_holds(const struct cursor *cursor, const struct cell *before, bool *holds,
				   struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1;
	CLEANUP(buf_release) struct buf buf = { 0 };
	char path[SEGMENT_PATH_MAX], name[NAME_IN_MESSAGE];
	struct evbus_err why = { .sys_errno = 0 };
	struct line line;
	struct stat st;
	bool found;

	*holds = false;
	name_live(cursor, path, name);
	enum evbus_code code = segment_open_live(cursor->topic, cursor->partition, O_RDONLY, &fd, &why);
	if (code == EVBUS_OK && os.fstat(fd, &st))
		code = err_set(&why, EVBUS_IO, errno, "cannot look at '%s'", name);
	if (code == EVBUS_OK && ((uint64_t)st.st_ino != before->ino || (uint64_t)st.st_size < before->bytes))
		return EVBUS_OK;
	if (code == EVBUS_OK)
		code = segment_line_before(fd, name, before->bytes, &buf, &line, &found, &why);
	if (code != EVBUS_OK && why.sys_errno) {
		if (err)
			*err = why;
		return code;
	}
	*holds = code == EVBUS_OK && found && line.offset == before->next - 1 && line.time_us == before->time_us;
	return EVBUS_OK;
}

/* The file that is being read ends before what was read of it. */
static bool was_shortened(const struct cursor *cursor)
{
	struct stat st;

	return cursor->fd >= 0 && !os.fstat(cursor->fd, &st) && (uint64_t)st.st_size < cursor->scan.at;
}

/* Whether the page that is open has come on since: what it says is durable whatever was put at its path, and that is looked
 * at once it says no more. */
static bool has_more(struct cursor *cursor, const struct cell *before)
{
	struct control_view view;
	enum control_state state;

	if (!cursor->has_page || cursor->damaged || control_read(&cursor->control, &state, &view, NULL) ||
	    state != CONTROL_OURS || view.durable.next <= before->next || view.durable.base != before->base ||
	    view.durable.ino != before->ino)
		return false;
	cursor->durable = view.durable;
	cursor->word = view.word;
	return true;
}

static enum evbus_code refresh(struct cursor *cursor, const struct cell *before, struct evbus_err *err)
{
	struct control_view view;
	enum control_state state;
	bool holds = false;

	if (has_more(cursor, before))
		return was_shortened(cursor) ? went_back(cursor, err) : EVBUS_OK;
	TRY(look_at_page(cursor, &view, &state, err));
	/* The common case, without opening anything: the same live segment, or one that a roll put behind it. */
	if (state == CONTROL_OURS && view.durable.next >= before->next &&
	    (view.durable.base == before->base ? view.durable.ino == before->ino : view.durable.base > before->base))
		cursor->durable = view.durable;
	else
		TRY(look_until_steady(cursor, err));
	bool replaced = cursor->durable.base == before->base && cursor->durable.ino != before->ino && before->bytes;
	if (was_shortened(cursor))
		return went_back(cursor, err);
	if (!replaced && (cursor->durable.next >= before->next || cursor->durable.next >= cursor->next))
		return EVBUS_OK;
	if (!replaced)
		TRY(still_holds(cursor, before, &holds, err));
	if (!holds)
		return went_back(cursor, err);
	cursor->durable = *before;
	return EVBUS_OK;
}

enum evbus_code cursor_refresh(struct cursor *cursor, struct evbus_err *err)
{
	struct cell before = cursor->durable;
	enum evbus_code code = refresh(cursor, &before, err);

	/* The next call compares with what was known, not with what a call that failed has seen of it. */
	if (code != EVBUS_OK)
		cursor->durable = before;
	return code;
}

bool cursor_wait(const struct cursor *cursor, int timeout_ms)
{
	if (cursor->has_page)
		return control_wait(&cursor->control, cursor->word, timeout_ms);
	struct timespec wait = { 0, (timeout_ms < WITHOUT_PAGE_WAIT_MS ? timeout_ms : WITHOUT_PAGE_WAIT_MS) * 1000000L };
	return nanosleep(&wait, NULL) == 0 || errno != EINTR;
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
			       "'%s' has %lld bytes, and %llu were acknowledged: it was cut or restored; evbus verify says more",
			       cursor->name,
			       (long long)st.st_size, (unsigned long long)limit);
	cursor_close_segment(cursor);
	cursor->fd = *fd;
	cursor->base = base;
	cursor->live = live;
	*fd = -1;
	scan_init(&cursor->scan, cursor->fd, cursor->name, 0, limit, cursor->chunk);
	cursor->scan.reads_ahead = cursor->reads_ahead;
	return EVBUS_OK;
}

/* Opens the segment that begins at offset base, if it is an older one; *fd stays -1 where it is not, or not yet. */
static enum evbus_code open_older(const struct cursor *cursor, uint64_t base, int *fd, uint64_t *size,
				  struct evbus_err *err)
{
	enum evbus_code code = segment_open(cursor->topic, cursor->partition, base, O_RDONLY, fd, size, err);

	if (code == EVBUS_OK && *size == 0)
		os_close_cleanup(fd);    /* a roll that is under way, or was killed */
	return code == EVBUS_NONE ? EVBUS_OK : code;
}

/* An older one is looked for first: a roll makes the live one older. */
static enum evbus_code open_segment(struct cursor *cursor, uint64_t base, struct evbus_err *err)
{
	CLEANUP(os_close_cleanup) int fd = -1, rolled = -1;
	char path[SEGMENT_PATH_MAX];
	uint64_t size;

	TRY(open_older(cursor, base, &fd, &size, err));
	if (fd >= 0) {
		segment_path(cursor->partition, base, path);
		snprintf(cursor->name, sizeof cursor->name, "%s/%s", cursor->topic->name, path);
		return use_segment(cursor, &fd, base, false, base == cursor->durable.base ? cursor->durable.bytes : size,
				   err);
	}
	name_live(cursor, path, cursor->name);
	TRY(segment_open_live(cursor->topic, cursor->partition, O_RDONLY, &fd, err));
	/* What was opened is the segment unless it was rolled before that. */
	TRY(open_older(cursor, base, &rolled, &size, err));
	if (rolled >= 0)
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
	const char *why = what == SCAN_LINE    ? line_parse_near(text, &cursor->minute, line) :
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

/* An older segment ends where the live one begins: what stands behind that nobody gets who goes to its offset. */
static enum evbus_code leave_older(struct cursor *cursor, struct evbus_err *err)
{
	bool end;

	if (cursor->fd < 0 || cursor->base >= cursor->durable.base || cursor->next < cursor->durable.base)
		return EVBUS_OK;
	TRY(reach(cursor, &end, err));
	if (!end)
		return damaged(cursor, cursor->scan.at, "the live segment begins with this offset", err);
	cursor_close_segment(cursor);
	return EVBUS_OK;
}

enum evbus_code cursor_next(struct cursor *cursor, uint64_t end, struct line *line, bool *got, struct evbus_err *err)
{
	struct evbus_slice text;
	enum scan_what what;
	bool passed;

	*got = cursor->sought = false;
	for (;;) {
		if (cursor->next >= end)
			return EVBUS_OK;
		TRY(leave_older(cursor, err));
		if (cursor->next >= cursor->durable.next)
			return EVBUS_OK;
		if (cursor->fd < 0)
			TRY(cursor_open_segment(cursor, cursor->next, err));
		uint64_t byte = cursor->scan.at;
		if (cursor->damaged && cursor->base == cursor->durable.base && byte > cursor->damaged_at)
			return damaged(cursor, cursor->damaged_at, "what stands there is no line", err);
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

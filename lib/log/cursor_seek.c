/* cursor_seek.c: going to an offset or a time. */
#include "log/cursor.h"

#include "log/seek.h"

#include <assert.h>
#include <errno.h>

static void begin_at(struct cursor *cursor, uint64_t byte, uint64_t offset)
{
	scan_seek(&cursor->scan, byte, cursor->scan.limit);
	cursor->next = offset;
	cursor->time_us = 0;
}

/* Whether the segment that begins at `base` holds a record that was published before time_us at its beginning. */
static enum evbus_code begins_before(struct cursor *cursor, uint64_t base, int64_t time_us, bool *before,
				     struct evbus_err *err)
{
	char head[LINE_HEAD_MAX];
	uint64_t offset;
	int64_t first_us;

	*before = false;
	if (base == cursor->durable.base && cursor->durable.bytes == 0)
		return EVBUS_OK;
	TRY(cursor_open_segment(cursor, base, err));
	ssize_t n = os_read_at(cursor->fd, head, sizeof head, 0);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", cursor->name);
	*before = cursor->scan.limit && line_peek(head, (size_t)n, &offset, &first_us) && first_us < time_us;
	return EVBUS_OK;
}

/* The last segment that begins at or below the offset, or with a record before the time; and the one that follows. */
static enum evbus_code choose_segment(struct cursor *cursor, enum seek_by by, uint64_t value, uint64_t *base,
				      uint64_t *following, struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };

	TRY(segments_list(cursor->topic, cursor->partition, &older, err));
	*base = older.count ? older.bases[0] : cursor->durable.base;
	*following = cursor->durable.next;
	for (size_t i = 1; i <= older.count; i++) {
		uint64_t candidate = i < older.count ? older.bases[i] : cursor->durable.base;
		bool before = candidate <= value;
		if (by == SEEK_TIME)
			TRY(begins_before(cursor, candidate, (int64_t)value, &before, err));
		if (!before) {
			*following = candidate;
			return EVBUS_OK;
		}
		*base = candidate;
	}
	return EVBUS_OK;
}

/* Damage on the way does not hide what is asked for: goes line by line through the segment, past those that are
 * damaged, to the whole one with this offset. Where there is none, and for a time, for which a damaged line might count
 * as well, reading begins behind the last line that does not count, and tells what is damaged there. */
static enum evbus_code walk_to(struct cursor *cursor, enum seek_by by, uint64_t value, struct evbus_err *err)
{
	uint64_t behind = 0, next = cursor->base;
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	for (;;) {
		uint64_t at = cursor->scan.at;
		TRY(scan_next(&cursor->scan, &text, &what, err));
		if (what == SCAN_END)
			break;
		if (what != SCAN_LINE)
			TRY(scan_resync(&cursor->scan, err));
		if (what != SCAN_LINE || line_parse(text, &line))
			continue;
		if (by == SEEK_OFFSET && line.offset == value) {
			begin_at(cursor, at, value);
			return EVBUS_OK;
		}
		if (by == SEEK_OFFSET ? line.offset > value : line.time_us >= (int64_t)value)
			break;
		behind = cursor->scan.at;
		next = line.offset + 1;
	}
	begin_at(cursor, behind, next);
	return EVBUS_OK;
}

/* A record that has a time or a later one is the first of them only if the line before it is whole and earlier: a damaged
 * head may have led the search past others. */
static bool leads_up(const struct cursor *cursor, uint64_t value, uint64_t at)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct line line;
	bool found;

	return segment_line_before(cursor->fd, cursor->name, at, &buf, &line, &found, NULL) == EVBUS_OK &&
	       (!found || line.time_us < (int64_t)value);
}

/* A hit is believed only if the line there is whole and has what was looked for. */
static enum evbus_code prove(struct cursor *cursor, enum seek_by by, uint64_t value, uint64_t at, bool *proved,
			     struct evbus_err *err)
{
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	*proved = false;
	if (by == SEEK_TIME && !leads_up(cursor, value, at))
		return EVBUS_OK;
	scan_seek(&cursor->scan, at, cursor->scan.limit);
	TRY(scan_next(&cursor->scan, &text, &what, err));
	if (what == SCAN_LINE && !line_parse(text, &line) &&
	    (by == SEEK_OFFSET ? line.offset == value : line.time_us >= (int64_t)value)) {
		begin_at(cursor, at, line.offset);
		*proved = true;
	}
	return EVBUS_OK;
}

/* The times at both ends of the open segment, to aim by; where they cannot be read, the search bisects. */
static void bound_times(const struct cursor *cursor, struct seek *seek)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	char head[LINE_HEAD_MAX];
	uint64_t offset;
	int64_t time_us;
	struct line line;
	bool found;

	seek->low = seek->high = 0;
	ssize_t n = os_read_at(cursor->fd, head, sizeof head, 0);
	if (n > 0 && line_peek(head, (size_t)n, &offset, &time_us))
		seek->low = (uint64_t)time_us;
	if (cursor->base == cursor->durable.base)
		seek->high = (uint64_t)cursor->durable.time_us + 1;
	else if (segment_line_before(cursor->fd, cursor->name, cursor->scan.limit, &buf, &line, &found, NULL) ==
			 EVBUS_OK &&
		 found)
		seek->high = (uint64_t)line.time_us + 1;
}

/* *at: where the record seems to begin; the end of the segment where it seems to have none. false: a head on the way is
 * damaged or could not be read, and nothing is known. */
static bool seek_in_segment(const struct cursor *cursor, enum seek_by by, uint64_t value, uint64_t following,
			    uint64_t *at)
{
	struct seek seek = { cursor->fd, cursor->name, cursor->scan.limit, by, cursor->base, following };

	if (by == SEEK_TIME)
		bound_times(cursor, &seek);
	return seek_find(&seek, value, at, NULL) == EVBUS_OK;
}

static enum evbus_code seek_by(struct cursor *cursor, enum seek_by by, uint64_t value, struct evbus_err *err)
{
	uint64_t base, following, at;
	bool proved = false;

	TRY(choose_segment(cursor, by, value, &base, &following, err));
	TRY(cursor_open_segment(cursor, base, err));
	bool sure = seek_in_segment(cursor, by, value, following, &at);
	if (sure && at < cursor->scan.limit)
		TRY(prove(cursor, by, value, at, &proved, err));
	if (proved)
		return EVBUS_OK;
	if (sure && at >= cursor->scan.limit && by == SEEK_TIME && leads_up(cursor, value, at)) {
		cursor_close_segment(cursor);
		cursor->next = following;
		cursor->time_us = 0;
		return EVBUS_OK;
	}
	begin_at(cursor, 0, base);
	return walk_to(cursor, by, value, err);
}

enum evbus_code cursor_seek(struct cursor *cursor, uint64_t offset, struct evbus_err *err)
{
	assert(offset <= cursor->durable.next);
	if (offset < cursor->first)
		return err_set(err, EVBUS_NONE, 0,
			       "topic '%s', partition %d has no offset %llu any more: it begins at %llu",
			       cursor->topic->name, cursor->partition, (unsigned long long)offset,
			       (unsigned long long)cursor->first);
	if (offset < cursor->durable.next)
		return seek_by(cursor, SEEK_OFFSET, offset, err);
	/* The end: nothing to look up, and the file may not be there yet. */
	cursor_close_segment(cursor);
	cursor->next = offset;
	cursor->time_us = 0;
	if (cursor->durable.bytes == 0)
		return EVBUS_OK;
	TRY(cursor_open_segment(cursor, cursor->durable.base, err));
	begin_at(cursor, cursor->durable.bytes, offset);
	return EVBUS_OK;
}

enum evbus_code cursor_seek_time(struct cursor *cursor, int64_t time_us, struct evbus_err *err)
{
	if (cursor->durable.next == cursor->first || time_us > cursor->durable.time_us)
		return cursor_seek(cursor, cursor->durable.next, err);
	return seek_by(cursor, SEEK_TIME, time_us > 0 ? (uint64_t)time_us : 0, err);
}

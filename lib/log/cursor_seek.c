/* cursor_seek.c: going to an offset or a time; how many bytes there are, and are left. */
#include "log/cursor.h"

#include "log/seek.h"

#include <assert.h>
#include <errno.h>

static void begin_at(struct cursor *cursor, uint64_t byte, uint64_t offset)
{
	scan_seek(&cursor->scan, byte, cursor->scan.limit);
	cursor->next = offset;
	cursor->time_us = 0;
	cursor->sought = true;
}

/* The publish time of the first record of the segment that begins at `base`, opened for it; 0 where there is none, or
 * none that can be told. */
static enum evbus_code first_time(struct cursor *cursor, uint64_t base, uint64_t *first_us, struct evbus_err *err)
{
	char head[LINE_HEAD_MAX];
	uint64_t offset;
	int64_t time_us;

	*first_us = 0;
	if (base == cursor->durable.base && cursor->durable.bytes == 0)
		return EVBUS_OK;
	TRY(cursor_open_segment(cursor, base, err));
	ssize_t n = os_read_at(cursor->fd, head, sizeof head, 0);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", cursor->name);
	if (cursor->scan.limit && line_peek(head, (size_t)n, &offset, &time_us))
		*first_us = (uint64_t)time_us;
	return EVBUS_OK;
}

/* A segment and the one that follows, or the end: their offsets, and what is looked for at their beginnings. */
struct place {
	uint64_t base, following;
	uint64_t low, high;
};

/* The last segment that begins at or below the offset, or with a record before the time. It is left open. */
static enum evbus_code choose_segment(struct cursor *cursor, enum seek_by by, uint64_t value, struct place *place,
				      struct evbus_err *err)
{
	CLEANUP(segments_release) struct segments older = { 0 };

	TRY(segments_list(cursor->topic, cursor->partition, &older, err));
	size_t low = 0, high = older.count + 1;
	uint64_t base = older.count ? older.bases[0] : cursor->durable.base, first = base;
	*place = (struct place){ base, cursor->durable.next, base, cursor->durable.next };
	if (by == SEEK_TIME)
		place->high = (uint64_t)cursor->durable.time_us + 1;
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		first = base = middle < older.count ? older.bases[middle] : cursor->durable.base;
		if (by == SEEK_TIME)
			TRY(first_time(cursor, base, &first, err));
		if (by == SEEK_OFFSET ? base <= value : first && first < value) {
			low = middle;
			place->base = base;
			place->low = first;
		} else {
			high = middle;
			place->following = base;
			place->high = first;
		}
	}
	if (low == 0 && by == SEEK_TIME)
		return first_time(cursor, place->base, &place->low, err);
	return cursor->fd < 0 || cursor->base != place->base ? cursor_open_segment(cursor, place->base, err) : EVBUS_OK;
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

/* A hit is believed only if the line there can be read, is whole and has what was looked for. led: the line before it is
 * known to be whole and not asked for. */
static bool prove(struct cursor *cursor, enum seek_by by, uint64_t value, uint64_t at, bool led)
{
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	if (by == SEEK_TIME && !led && !leads_up(cursor, value, at))
		return false;
	scan_seek(&cursor->scan, at, cursor->scan.limit);
	if (scan_next(&cursor->scan, &text, &what, NULL) || what != SCAN_LINE || line_parse(text, &line))
		return false;
	if (by == SEEK_OFFSET ? line.offset != value : line.time_us < (int64_t)value)
		return false;
	begin_at(cursor, at, line.offset);
	return true;
}

/* *at: where the record seems to begin; the end of the segment where it seems to have none. false: a head on the way is
 * damaged or could not be read, and nothing is known. What was read last is left to the scan. */
static bool find_in_segment(struct cursor *cursor, enum seek_by by, uint64_t value, const struct place *place,
			    uint64_t *at, bool *led)
{
	struct scan *scan = &cursor->scan;
	struct seek seek = { .fd = cursor->fd,
			     .name = cursor->name,
			     .size = scan->limit,
			     .by = by,
			     .low = place->low,
			     .high = place->high,
			     .buf = &scan->buf };
	bool sure = seek_find(&seek, value, at, NULL) == EVBUS_OK;

	if (!sure)
		scan->buf.len = 0;
	scan_adopt(scan, sure ? seek.buf_at : 0);
	*led = seek.led;
	return sure;
}

static enum evbus_code seek_by(struct cursor *cursor, enum seek_by by, uint64_t value, struct evbus_err *err)
{
	struct place place;
	uint64_t at;
	bool led;

	TRY(choose_segment(cursor, by, value, &place, err));
	bool sure = find_in_segment(cursor, by, value, &place, &at, &led);
	if (sure && at < cursor->scan.limit && prove(cursor, by, value, at, led))
		return EVBUS_OK;
	/* It has none: it is the first one of what follows. */
	if (sure && at >= cursor->scan.limit && by == SEEK_TIME && leads_up(cursor, value, at)) {
		cursor_close_segment(cursor);
		cursor->next = place.following;
		cursor->time_us = 0;
		return EVBUS_OK;
	}
	scan_seek(&cursor->scan, 0, cursor->scan.limit);
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
	/* By a time, say. */
	if (cursor->sought && cursor->next == offset)
		return EVBUS_OK;
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

/* ---- how much there is ---- */

enum evbus_code cursor_bytes_total(const struct cursor *cursor, uint64_t *bytes, struct evbus_err *err)
{
	struct cursor beginning = { .topic = cursor->topic, .partition = cursor->partition, .fd = -1,
				    .durable = cursor->durable };

	return cursor_bytes_left(&beginning, bytes, err);
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

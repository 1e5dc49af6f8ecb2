/* seek.c: finding a line by its offset or time without an index.
 *
 * Interpolation alone creeps towards the place from one side, and far worse where the sizes of lines are mixed. So we aim
 * a little short, then a little beyond, which brackets the place from both sides within two reads, and bisect as soon as
 * that narrows no faster, which bounds the worst case. What is left, 64 KiB, is read in one piece; more where lines are long. A JSON
 * string cannot contain a raw newline, so a newline always ends a line. */
#include "log/seek.h"

#include "base/os.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define LEFT_BYTES (64u * 1024)
#define PROBE_BYTES 4096u
#define PROBE_MAX_BYTES (1024u * 1024)

struct bracket {
	uint64_t low, high;              /* bytes: a line begins at low; none that begins at or behind high is asked for… */
	uint64_t low_value, high_value;
	uint64_t found;                  /* …but the one that begins here, which has at least the value */
	size_t probe;                    /* how much to read at once to find the end of a line */
};

static uint64_t value_of(enum seek_by by, uint64_t offset, int64_t time_us)
{
	return by == SEEK_OFFSET ? offset : (uint64_t)time_us;
}

static enum evbus_code head_value(const struct seek *seek, const char *text, size_t len, uint64_t at, uint64_t *value,
				  struct evbus_err *err)
{
	uint64_t offset;
	int64_t time_us;

	if (!line_peek(text, len, &offset, &time_us))
		return err_set(err, EVBUS_IO, 0, "'%s': the line at byte %llu is damaged: its head is not that of a record",
			       seek->name, (unsigned long long)at);
	*value = value_of(seek->by, offset, time_us);
	return EVBUS_OK;
}

static enum evbus_code read_head(const struct seek *seek, uint64_t at, uint64_t *value, struct evbus_err *err)
{
	char head[LINE_HEAD_MAX];

	ssize_t n = os_read_at(seek->fd, head, sizeof head, at);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", seek->name);
	return head_value(seek, head, (size_t)n, at, value, err);
}

static size_t probe_size(uint64_t bytes)
{
	return bytes < PROBE_BYTES ? PROBE_BYTES : bytes < PROBE_MAX_BYTES ? (size_t)bytes : PROBE_MAX_BYTES;
}

/* The first line that begins behind byte `from` and before bracket->high: *at (high where there is none) and its value. */
static enum evbus_code probe(const struct seek *seek, struct buf *buf, uint64_t from, struct bracket *bracket,
			     uint64_t *at, uint64_t *value, struct evbus_err *err)
{
	uint64_t offset, begin = from, high = bracket->high;
	int64_t time_us;

	*at = high;
	for (size_t want = bracket->probe; from < high; want = probe_size(want * 8)) {
		buf->len = 0;
		TRY(buf_reserve(buf, want, err));
		ssize_t n = os_read_at(seek->fd, buf->data, want, from);
		if (n < 0)
			return err_set(err, EVBUS_IO, errno, "cannot read '%s'", seek->name);
		if (n == 0)
			return EVBUS_OK;
		const char *newline = memchr(buf->data, '\n', (size_t)n);
		if (!newline) {
			from += (uint64_t)n;
			continue;
		}
		size_t skip = (size_t)(newline + 1 - buf->data);
		uint64_t length = 2 * (from + skip - begin);
		bracket->probe = probe_size(length > bracket->probe / 2 ? length : bracket->probe / 2);
		if (from + skip >= high)
			return EVBUS_OK;
		*at = from + skip;
		if (line_peek(buf->data + skip, (size_t)n - skip, &offset, &time_us))
			*value = value_of(seek->by, offset, time_us);
		else
			return read_head(seek, *at, value, err);
		return EVBUS_OK;
	}
	return EVBUS_OK;
}

static uint64_t aim(const struct bracket *bracket, uint64_t value, unsigned aimed, bool bisect)
{
	uint64_t span = bracket->high - bracket->low;

	if (bisect || bracket->high_value <= bracket->low_value || value < bracket->low_value)
		return bracket->low + span / 2;
	uint64_t margin = span / 32 > LEFT_BYTES / 4 ? span / 32 : LEFT_BYTES / 4;
	double part = (double)(value - bracket->low_value) / (double)(bracket->high_value - bracket->low_value);
	uint64_t place = (uint64_t)((double)span * (part < 1 ? part : 1));
	/* What lies at the ends is known. */
	if (aimed == 0 ? place <= margin : place + margin >= span)
		return bracket->low + span / 2;
	return bracket->low + (aimed == 0 ? place - margin : place + margin);
}

static enum evbus_code narrow(const struct seek *seek, struct buf *buf, uint64_t value, struct bracket *bracket,
			      struct evbus_err *err)
{
	uint64_t before = bracket->high - bracket->low, span;    /* what was left two probes ago, and what is now */
	bool bisect = false;
	unsigned aimed = 0;

	while ((span = bracket->high - bracket->low) > LEFT_BYTES && span > bracket->probe) {
		/* Two neighbours: the one below is not asked for. */
		if (seek->by == SEEK_OFFSET && bracket->low_value < value && bracket->high_value == bracket->low_value + 1) {
			bracket->high = bracket->low;
			break;
		}
		if (aimed == 2) {
			/* Aiming is of use where it narrows faster than halving. */
			bisect = bisect || span > before / 4;
			aimed = 0;
			before = span;
		}
		uint64_t guess = aim(bracket, value, aimed++, bisect), at, seen = 0;
		TRY(probe(seek, buf, guess, bracket, &at, &seen, err));
		if (at == bracket->high) {
			/* No line begins between the two: one long line covers them. */
			bracket->high = guess > bracket->low ? guess : bracket->low + 1;
		} else if (seen < value) {
			bracket->low = at;
			bracket->low_value = seen;
		} else {
			bracket->high = guess > bracket->low ? guess : bracket->low + 1;
			bracket->high_value = seen;
			bracket->found = at;
		}
	}
	return EVBUS_OK;
}

/* The lines that begin in what is left: only their heads are looked at, so the last one need not be read whole. */
static enum evbus_code walk(const struct seek *seek, struct buf *buf, uint64_t value, const struct bracket *bracket,
			    uint64_t *at, struct evbus_err *err)
{
	uint64_t left = bracket->high - bracket->low, there = seek->size - bracket->low, seen = 0;
	size_t want = (size_t)(left + LINE_HEAD_MAX < there ? left + LINE_HEAD_MAX : there);

	buf->len = 0;
	TRY(buf_reserve(buf, want + 1, err));
	ssize_t n = os_read_at(seek->fd, buf->data, want, bracket->low);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", seek->name);
	for (size_t begin = 0; begin <= left && begin < (size_t)n;) {
		TRY(head_value(seek, buf->data + begin, (size_t)n - begin, bracket->low + begin, &seen, err));
		if (seen >= value) {
			*at = bracket->low + begin;
			return EVBUS_OK;
		}
		const char *newline = memchr(buf->data + begin, '\n', (size_t)n - begin);
		if (!newline)
			break;
		begin = (size_t)(newline + 1 - buf->data);
	}
	*at = bracket->found;
	return EVBUS_OK;
}

enum evbus_code seek_find(const struct seek *seek, uint64_t value, uint64_t *at, struct evbus_err *err)
{
	CLEANUP(buf_release) struct buf buf = { 0 };
	struct bracket bracket = { 0, seek->size, seek->low, seek->high, seek->size, PROBE_BYTES };

	TRY(narrow(seek, &buf, value, &bracket, err));
	return walk(seek, &buf, value, &bracket, at, err);
}

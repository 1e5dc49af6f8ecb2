/* seek.c: finding a line by its offset or time without an index.
 *
 * Interpolation alone creeps towards the place from one side. So we aim a little beyond it as seen from the nearer end,
 * which brackets it from both sides within two reads, and further beyond each time that this misses. What is left, 64 KiB,
 * is read in one piece; more where lines are long.
 *
 * Where the values are no measure of the bytes (bursts, lines of mixed sizes) aiming is of no use. So the reads are
 * counted: we aim as long as those that are left suffice to halve what is left down to 2¼ MiB, and halve from then on.
 * A JSON string cannot contain a raw newline, so a newline always ends a line. */
#include "log/seek.h"

#include "base/os.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define LEFT_BYTES (64u * 1024)
#define LEFT_MAX_BYTES (2304u * 1024)    /* when no more reads are left: a segment of a little over 1 GiB, halved nine times */
#define READS_SPARE 2u                           /* for aiming, beside those that halving needs */
#define MARGIN_PART 512u
#define MISS_FACTOR_BITS 3u
#define PROBE_BYTES 8192u                        /* a line of 4 KiB, and the head of the next */
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
static enum evbus_code probe(const struct seek *seek, uint64_t from, struct bracket *bracket, uint64_t *at,
			     uint64_t *value, struct evbus_err *err)
{
	uint64_t offset, begin = from, high = bracket->high;
	struct buf *buf = seek->buf;
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

static unsigned halvings(uint64_t span)
{
	unsigned count = 0;

	for (; span > LEFT_MAX_BYTES; span /= 2)
		count++;
	return count;
}

/* Where the next probe begins; *above: it is meant to come out above the value. */
static uint64_t aim(const struct bracket *bracket, uint64_t value, unsigned misses, bool *above)
{
	uint64_t span = bracket->high - bracket->low;
	uint64_t margin = span / MARGIN_PART > LEFT_BYTES / 4 ? span / MARGIN_PART : LEFT_BYTES / 4;

	if (bracket->high_value <= bracket->low_value || value < bracket->low_value || value > bracket->high_value)
		return bracket->low + span / 2;
	double part = (double)(value - bracket->low_value) / (double)(bracket->high_value - bracket->low_value);
	uint64_t place = (uint64_t)((double)span * part);
	*above = place < span / 2;
	while (misses-- && margin < span / 2)
		margin <<= MISS_FACTOR_BITS;
	if (margin >= span / 2)
		return bracket->low + span / 2;
	return bracket->low + (*above ? place + margin : (place < span ? place : span) - margin);
}

/* Makes the bracket narrower by one probe. *above: whether what was found has at least the value. */
static enum evbus_code narrow_once(const struct seek *seek, uint64_t value, uint64_t guess, struct bracket *bracket,
				   bool *above, struct evbus_err *err)
{
	uint64_t at, seen = 0;

	TRY(probe(seek, guess, bracket, &at, &seen, err));
	*above = at == bracket->high || seen >= value;
	if (!*above) {
		bracket->low = at;
		bracket->low_value = seen;
		return EVBUS_OK;
	}
	/* Where no line begins between the two, one long line covers them. */
	if (at != bracket->high) {
		bracket->high_value = seen;
		bracket->found = at;
	}
	bracket->high = guess > bracket->low ? guess : bracket->low + 1;
	return EVBUS_OK;
}

static enum evbus_code narrow(const struct seek *seek, uint64_t value, struct bracket *bracket, struct evbus_err *err)
{
	uint64_t span;
	unsigned left = halvings(bracket->high - bracket->low) + READS_SPARE, misses = 0;

	while ((span = bracket->high - bracket->low) > (left ? LEFT_BYTES : LEFT_MAX_BYTES) && span > bracket->probe) {
		/* Two neighbours: the one below is not asked for. */
		if (seek->by == SEEK_OFFSET && bracket->low_value < value && bracket->high_value == bracket->low_value + 1) {
			bracket->high = bracket->low;
			break;
		}
		bool meant = true, above, halve = halvings(span) >= left;
		uint64_t guess = halve ? bracket->low + span / 2 : aim(bracket, value, misses, &meant);
		TRY(narrow_once(seek, value, guess, bracket, &above, err));
		misses = halve || above == meant ? 0 : misses + 1;
		left -= left > 0;
	}
	return EVBUS_OK;
}

static bool is_earlier(struct evbus_slice text, uint64_t time_us)
{
	struct line line;

	return !line_parse(text, &line) && line.time_us < (int64_t)time_us;
}

/* The lines that begin in what is left: only their heads are looked at, so the last one need not be read whole. */
static enum evbus_code walk(struct seek *seek, uint64_t value, const struct bracket *bracket, uint64_t *at,
			    struct evbus_err *err)
{
	/* Up to the line that counts if none before it does, and that with it, where it is not long. */
	uint64_t last = bracket->found - bracket->high <= PROBE_BYTES ? bracket->found : bracket->high;
	uint64_t left = last - bracket->low, there = seek->size - bracket->low, seen = 0;
	size_t want = (size_t)(left + PROBE_BYTES < there ? left + PROBE_BYTES : there), before = 0;
	struct buf *buf = seek->buf;

	seek->buf_at = bracket->low;
	buf->len = 0;
	TRY(buf_reserve(buf, want + 1, err));
	ssize_t n = os_read_at(seek->fd, buf->data, want, bracket->low);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", seek->name);
	buf->len = (size_t)n;
	for (size_t begin = 0; begin <= left && begin < buf->len;) {
		TRY(head_value(seek, buf->data + begin, buf->len - begin, bracket->low + begin, &seen, err));
		if (seen >= value) {
			*at = bracket->low + begin;
			seek->led = begin &&
				    is_earlier((struct evbus_slice){ buf->data + before, begin - 1 - before }, value);
			return EVBUS_OK;
		}
		const char *newline = memchr(buf->data + begin, '\n', buf->len - begin);
		if (!newline)
			break;
		before = begin;
		begin = (size_t)(newline + 1 - buf->data);
	}
	*at = bracket->found;
	return EVBUS_OK;
}

enum evbus_code seek_find(struct seek *seek, uint64_t value, uint64_t *at, struct evbus_err *err)
{
	struct bracket bracket = { 0, seek->size, seek->low, seek->high, seek->size, PROBE_BYTES };

	seek->led = false;
	TRY(narrow(seek, value, &bracket, err));
	return walk(seek, value, &bracket, at, err);
}

/* scan.c: the lines of a file. */
#include "log/scan.h"

#include "base/os.h"
#include "log/ahead.h"
#include "log/line.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define FIRST_BYTES (32u * 1024)    /* who takes one line somewhere need not wait for a whole chunk */
#define AHEAD_LEAST_BYTES (8u << 20) /* for less, starting a thread is not worth while */

static size_t first_read(size_t chunk)
{
	return chunk < FIRST_BYTES ? chunk : FIRST_BYTES;
}

void scan_init(struct scan *scan, int fd, const char *name, uint64_t at, uint64_t limit, size_t chunk)
{
	*scan = (struct scan){ .fd = fd,
			       .name = name,
			       .at = at,
			       .limit = limit,
			       .data_at = at,
			       .chunk = chunk,
			       .step = first_read(chunk),
			       .nothing_at = UINT64_MAX };
}

/* Leaves what was read there, also the beginning of a line: it is read again. */
static void stop_reading_ahead(struct scan *scan)
{
	ahead_close(scan->ahead);
	scan->ahead = NULL;
	scan->data = scan->buf.data;
	scan->data_at = scan->at;
	scan->len = 0;
}

void scan_release(struct scan *scan)
{
	stop_reading_ahead(scan);
	buf_release(&scan->buf);
}

void scan_seek(struct scan *scan, uint64_t at, uint64_t limit)
{
	scan->at = at;
	scan->limit = limit;
	if (scan->ahead)
		stop_reading_ahead(scan);
	/* What lies in the buffer was read under the old limit; bytes below it never change, so they stay good. */
	if (at < scan->data_at || at > scan->data_at + scan->len) {
		scan->data_at = at;
		scan->len = 0;
		scan->step = first_read(scan->chunk);
	}
}

void scan_adopt(struct scan *scan, uint64_t at)
{
	scan->at = at;
	stop_reading_ahead(scan);
	scan->len = scan->buf.len;
}

/* Puts what is left from scan->at on at the beginning of the buffer, with room for more. */
static enum evbus_code make_room(struct scan *scan, size_t more, struct evbus_err *err)
{
	size_t used = (size_t)(scan->at - scan->data_at), left = scan->len - used;
	const char *rest = scan->data ? scan->data + used : NULL;
	bool own = scan->data == scan->buf.data;

	assert(own || rest);
	if (own && rest && used)
		memmove(scan->buf.data, rest, left);
	scan->buf.len = own ? left : 0;
	enum evbus_code code = buf_reserve(&scan->buf, own ? more : left + more, err);
	if (!own && code == EVBUS_OK) {
		memcpy(scan->buf.data, rest, left);
		scan->buf.len = left;
	}
	scan->data = scan->buf.data;
	scan->data_at = scan->at;
	scan->len = scan->buf.len;
	return code;
}

/* Takes what the thread has read; *more false: it has come to its end. A line that goes on there is put together in the
 * gap before it or, one that is too long for that, in the buffer. */
static enum evbus_code take_ahead(struct scan *scan, bool *more, struct evbus_err *err)
{
	size_t used = (size_t)(scan->at - scan->data_at), left = scan->len - used;
	char *data;
	ssize_t n = ahead_next(scan->ahead, &data);
	enum evbus_code code = n < 0 ? err_set(err, EVBUS_IO, errno, "cannot read '%s'", scan->name) : EVBUS_OK;

	*more = n > 0;
	if (n > 0 && left <= AHEAD_GAP_BYTES) {
		if (left)
			memcpy(data - left, scan->data + used, left);
		scan->data = data - left;
		scan->data_at = scan->at;
		scan->len = left + (size_t)n;
		return EVBUS_OK;
	}
	if (n > 0)
		code = make_room(scan, (size_t)n, err);
	if (n == 0)
		scan->nothing_at = scan->data_at + scan->len;
	if (n <= 0 || code != EVBUS_OK) {
		stop_reading_ahead(scan);
		return code;
	}
	memcpy(scan->data + scan->len, data, (size_t)n);
	scan->len += (size_t)n;
	return EVBUS_OK;
}

static enum evbus_code read_here(struct scan *scan, size_t want, bool *more, struct evbus_err *err)
{
	TRY(make_room(scan, want, err));
	ssize_t n = os_read_at(scan->fd, scan->data + scan->len, want, scan->data_at + scan->len);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", scan->name);
	scan->len += (size_t)n;
	scan->step = scan->step < scan->chunk / 4 ? scan->step * 4 : scan->chunk;
	*more = n > 0;
	return EVBUS_OK;
}

static uint64_t bytes_behind(const struct scan *scan)
{
	uint64_t from = scan->data_at + scan->len;

	return scan->limit > from ? scan->limit - from : 0;
}

/* Who has read a whole chunk goes on to read; but not where the file is shorter than it should be, or what is there of its
 * last line would be read again and again, each time by a thread that finds no more. */
static bool is_worth_a_thread(const struct scan *scan)
{
	return scan->reads_ahead && scan->step == scan->chunk && bytes_behind(scan) >= AHEAD_LEAST_BYTES &&
	       scan->data_at + scan->len != scan->nothing_at;
}

/* Drops what lies before scan->at and reads on behind what is there. *more: whether something came. */
static enum evbus_code fill(struct scan *scan, bool *more, struct evbus_err *err)
{
	*more = false;
	if (!scan->ahead && is_worth_a_thread(scan)) {
		scan->ahead = ahead_open(scan->fd, scan->data_at + scan->len, scan->limit);
		scan->reads_ahead = scan->ahead != NULL;
	}
	if (scan->ahead)
		TRY(take_ahead(scan, more, err));
	uint64_t want = bytes_behind(scan);
	if (*more || want == 0)
		return EVBUS_OK;
	/* A line that is longer than that: read more at a time, so that it is not searched again and again. */
	size_t left = (size_t)(scan->data_at + scan->len - scan->at);
	size_t most = left > scan->step ? left : scan->step;
	return read_here(scan, want < most ? (size_t)want : most, more, err);
}

/* What of the buffer lies from scan->at up to the limit. */
static struct evbus_slice window(const struct scan *scan)
{
	if (!scan->data)
		return (struct evbus_slice){ NULL, 0 };
	size_t skip = (size_t)(scan->at - scan->data_at);
	size_t len = scan->len - skip;

	if (scan->at + len > scan->limit)
		len = scan->limit > scan->at ? (size_t)(scan->limit - scan->at) : 0;
	return (struct evbus_slice){ scan->data + skip, len };
}

enum evbus_code scan_next(struct scan *scan, struct evbus_slice *text, enum scan_what *what, struct evbus_err *err)
{
	size_t searched = 0;

	for (;;) {
		struct evbus_slice have = window(scan);
		const char *newline = have.len > searched ? memchr(have.data + searched, '\n', have.len - searched) :
							    NULL;
		size_t len = newline ? (size_t)(newline - have.data) : have.len;
		bool more = false;
		if (newline && len + 1 < LINE_MAX_BYTES) {
			*what = SCAN_LINE;
			*text = (struct evbus_slice){ have.data, len };
			scan->at += len + 1;
			return EVBUS_OK;
		}
		searched = have.len;
		if (!newline && len + 1 < LINE_MAX_BYTES)
			TRY(fill(scan, &more, err));
		if (more)
			continue;
		have = window(scan);
		*what = len + 1 >= LINE_MAX_BYTES ? SCAN_LONG : len ? SCAN_PARTIAL : SCAN_END;
		*text = (struct evbus_slice){ have.data, len };
		scan->at += len;
		return EVBUS_OK;
	}
}

enum evbus_code scan_resync(struct scan *scan, struct evbus_err *err)
{
	for (;;) {
		struct evbus_slice have = window(scan);
		const char *newline = have.len ? memchr(have.data, '\n', have.len) : NULL;
		bool more;
		if (newline) {
			scan->at += (size_t)(newline - have.data) + 1;
			return EVBUS_OK;
		}
		scan->at += have.len;
		TRY(fill(scan, &more, err));
		if (!more)
			return EVBUS_OK;
	}
}

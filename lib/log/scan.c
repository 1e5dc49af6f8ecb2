/* scan.c: the lines of a file. */
#include "log/scan.h"

#include "base/os.h"
#include "log/line.h"

#include <errno.h>
#include <string.h>

#define FIRST_BYTES (32u * 1024)    /* who takes one line somewhere need not wait for a whole chunk */

static size_t first_read(size_t chunk)
{
	return chunk < FIRST_BYTES ? chunk : FIRST_BYTES;
}

void scan_init(struct scan *scan, int fd, const char *name, uint64_t at, uint64_t limit, size_t chunk)
{
	*scan = (struct scan){ .fd = fd, .name = name, .at = at, .limit = limit, .buf_at = at, .chunk = chunk,
			       .ahead = first_read(chunk) };
}

void scan_release(struct scan *scan)
{
	buf_release(&scan->buf);
}

void scan_seek(struct scan *scan, uint64_t at, uint64_t limit)
{
	scan->at = at;
	scan->limit = limit;
	/* What lies in the buffer was read under the old limit; bytes below it never change, so they stay good. */
	if (at < scan->buf_at || at > scan->buf_at + scan->buf.len) {
		scan->buf_at = at;
		scan->buf.len = 0;
		scan->ahead = first_read(scan->chunk);
	}
}

/* Drops what lies before scan->at and reads on behind what is there. *more: whether something came. */
static enum evbus_code fill(struct scan *scan, bool *more, struct evbus_err *err)
{
	size_t used = (size_t)(scan->at - scan->buf_at);

	if (used) {
		memmove(scan->buf.data, scan->buf.data + used, scan->buf.len - used);
		scan->buf.len -= used;
		scan->buf_at = scan->at;
	}
	uint64_t from = scan->buf_at + scan->buf.len;
	uint64_t want = scan->limit > from ? scan->limit - from : 0;
	/* A line that is longer than that: read more at a time, so that it is not searched again and again. */
	size_t chunk = scan->buf.len > scan->ahead ? scan->buf.len : scan->ahead;
	if (want > chunk)
		want = chunk;
	*more = false;
	if (want == 0)
		return EVBUS_OK;
	TRY(buf_reserve(&scan->buf, (size_t)want, err));
	ssize_t n = os_read_at(scan->fd, scan->buf.data + scan->buf.len, (size_t)want, from);
	if (n < 0)
		return err_set(err, EVBUS_IO, errno, "cannot read '%s'", scan->name);
	scan->buf.len += (size_t)n;
	scan->ahead = scan->ahead < scan->chunk / 4 ? scan->ahead * 4 : scan->chunk;
	*more = n > 0;
	return EVBUS_OK;
}

/* What of the buffer lies from scan->at up to the limit. */
static struct evbus_slice window(const struct scan *scan)
{
	if (!scan->buf.data)
		return (struct evbus_slice){ NULL, 0 };
	size_t skip = (size_t)(scan->at - scan->buf_at);
	size_t len = scan->buf.len - skip;

	if (scan->at + len > scan->limit)
		len = scan->limit > scan->at ? (size_t)(scan->limit - scan->at) : 0;
	return (struct evbus_slice){ scan->buf.data + skip, len };
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

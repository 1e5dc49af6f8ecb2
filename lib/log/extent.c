/* extent.c: how far the lines of a file are whole, correct and contiguous. */
#include "log/extent.h"

#include "log/scan.h"

#include <string.h>

#define SCAN_CHUNK (256u * 1024)

/* Takes a line as the next one; a batch counts only with its last line. */
static const char *take_line(struct evbus_slice text, struct cell *at, struct cell *good)
{
	struct line line;
	const char *why = line_parse(text, &line);

	if (why)
		return why;
	if (line.offset != at->next)
		return "its offset does not follow the one before";
	if (line.time_us < at->time_us)
		return "its time is before the one of the line before";
	bool in_batch = at->next != good->next;
	if (in_batch ? !line.batch.data || line.batch_first != good->next :
		       line.batch.data && line.batch_first != line.offset)
		return "it is not the continuation of its batch";
	at->next++;
	at->bytes += text.len + 1;
	at->time_us = line.time_us;
	if (!line.batch.data || line.batch_last == line.offset)
		*good = *at;
	return NULL;
}

enum evbus_code extent_find(int fd, const char *name, const struct cell *from, uint64_t limit, struct extent *found,
			    struct evbus_err *err)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what;
	const char *why = NULL;

	*found = (struct extent){ .good = *from, .at = *from };
	scan_init(&scan, fd, name, from->bytes, limit, SCAN_CHUNK);
	while (!why) {
		TRY(scan_next(&scan, &text, &what, err));
		if (what == SCAN_END)
			break;
		why = what == SCAN_LINE ? take_line(text, &found->at, &found->good) : "it has no newline";
	}
	found->bad = why || found->good.bytes < limit;
	snprintf(found->why, sizeof found->why, "%s", why ? why : "its batch is not whole");
	return EVBUS_OK;
}

/* Whether it is, or was before something was done to the line breaks that no interrupted write does: a CR was put before
 * one, or it was lost, so that the line stands behind the one before it or behind what else was put there. offset: that
 * the line has if it is not. */
static bool is_good_line(struct evbus_slice text, uint64_t offset)
{
	struct line line;

	if (text.len && text.data[text.len - 1] == '\r')
		text.len--;
	return !line_parse(text, &line) ||
	       (line_parse_last(text, &line) && (line.offset == offset || line.offset == offset + 1));
}

enum evbus_code extent_good_behind(int fd, const char *name, const struct cell *at, uint64_t size, bool *good,
				   struct evbus_err *err)
{
	CLEANUP(scan_release) struct scan scan;
	struct evbus_slice text;
	enum scan_what what;

	*good = false;
	scan_init(&scan, fd, name, at->bytes, size, SCAN_CHUNK);
	for (uint64_t offset = at->next;; offset++) {
		TRY(scan_next(&scan, &text, &what, err));
		*good = what == SCAN_LINE && is_good_line(text, offset);
		if (*good || what == SCAN_END)
			return EVBUS_OK;
		if (what == SCAN_LONG)
			TRY(scan_resync(&scan, err));
	}
}

enum evbus_code extent_start(int fd, const char *name, uint64_t from, uint64_t size, const struct cell *start,
			     struct cell *at, struct evbus_err *err)
{
	CLEANUP(scan_release) struct scan scan = { 0 };
	struct evbus_slice text;
	enum scan_what what;
	struct line line;

	*at = *start;
	for (; from > start->bytes; from = from > UNSYNCED_MAX_BYTES ? from - UNSYNCED_MAX_BYTES : 0) {
		scan_init(&scan, fd, name, from, size, SCAN_CHUNK);
		TRY(scan_resync(&scan, err));
		uint64_t byte = scan.at;
		TRY(scan_next(&scan, &text, &what, err));
		const char *why = what == SCAN_LINE ? line_parse(text, &line) : "";
		scan_release(&scan);
		/* Not within a batch: its beginning would be missing. A batch is shorter than what we step back. */
		if (why || (line.batch.data && line.batch_first != line.offset))
			continue;
		*at = (struct cell){ .bytes = byte, .next = line.offset, .time_us = 0 };
		return EVBUS_OK;
	}
	return EVBUS_OK;
}

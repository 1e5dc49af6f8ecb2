/* feed.c: records on their way to a coprocess. */
#include "feed.h"
#include "out.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for so many bytes behind what is there. */
static enum evbus_code reserve(struct feed *feed, struct call *call, size_t more)
{
	if (feed->size - feed->len >= more)
		return EVBUS_OK;
	if (feed->at) {
		memmove(feed->text, feed->text + feed->at, feed->len - feed->at);
		feed->len -= feed->at;
		feed->at = 0;
	}
	if (feed->size - feed->len >= more)
		return EVBUS_OK;
	size_t size = 2 * feed->len + more;
	char *text = realloc(feed->text, size);
	if (!text)
		return fail_errno(call, EVBUS_AGAIN, "cannot hold the event");
	feed->text = text;
	feed->size = size;
	return EVBUS_OK;
}

static void add(struct feed *feed, const char *data, size_t len)
{
	memcpy(feed->text + feed->len, data, len);
	feed->len += len;
}

enum evbus_code feed_add(struct feed *feed, struct call *call, const struct evbus_record *record)
{
	struct evbus_slice prefix = record_prefix(record), members = record->members;

	TRY(reserve(feed, call, prefix.len + members.len + 1));
	add(feed, prefix.data, prefix.len);
	add(feed, members.data, members.len);
	add(feed, "\n", 1);
	return EVBUS_OK;
}

uint64_t feed_end(const struct feed *feed)
{
	return feed->written + (feed->len - feed->at);
}

bool feed_write(struct feed *feed, int fd, uint64_t to)
{
	while (feed->written < to && feed->at < feed->len) {
		size_t len = feed->len - feed->at;

		len = to - feed->written < len ? (size_t)(to - feed->written) : len;
		ssize_t n = write(fd, feed->text + feed->at, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		feed->at += (size_t)n;
		feed->written += (uint64_t)n;
	}
	if (feed->at == feed->len)
		feed_drop(feed);
	return true;
}

void feed_drop(struct feed *feed)
{
	feed->at = feed->len = 0;
}

void feed_cleanup(struct feed *feed)
{
	free(feed->text);
	*feed = (struct feed){ .text = NULL };
}

/* peer_redis.c: a stream of Redis: XADD, XREAD. */
#include "measure.h"
#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t unsettled, unread;
static char last[64] = "0-0";

/* What stands behind the mark of the next line: a number. */
static size_t expect(char mark)
{
	char *line = socket_line();

	errno = EPROTO;
	if (*line != mark)
		die(line);
	return strtoull(line + 1, NULL, 10);
}

static char *expect_text(void)
{
	size_t len = expect('$');
	char *text = socket_take(len + 2);

	text[len] = '\0';
	return text;
}

static void reset(const char *port)
{
	socket_open(port);
	socket_print("DEL bench\r\n");
	expect(':');
}

static void send(const char *event, size_t len)
{
	socket_print("*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nd\r\n$%zu\r\n", len);
	socket_put(event, len);
	socket_put("\r\n", 2);
	unsettled++;
}

static void settle(size_t left)
{
	for (; unsettled > left; unsettled--)
		expect_text();
}

static void follow(void)
{
}

static void receive(void)
{
	if (!unread) {
		socket_print("XREAD COUNT 100 BLOCK 0 STREAMS bench %s\r\n", last);
		expect('*');
		expect('*');
		expect_text();
		unread = expect('*');
	}
	expect('*');
	snprintf(last, sizeof last, "%s", expect_text());
	expect('*');
	expect_text();
	expect_text();
	unread--;
}

const struct peer peer_redis = { "redis", reset, socket_open, send, settle, follow, receive };

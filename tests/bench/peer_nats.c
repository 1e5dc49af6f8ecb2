/* peer_nats.c: a stream of NATS JetStream in files: a message with a subject to answer on, a consumer that is pushed to. */
#include "measure.h"
#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t unsettled;

/* The next message of this subscription; those of others are dropped. */
static char *message(int subscription)
{
	for (;;) {
		char *line = socket_line();
		if (!strcmp(line, "PING")) {
			socket_print("PONG\r\n");
			continue;
		}
		errno = EPROTO;
		int from;
		if (sscanf(line, "MSG %*s %d", &from) != 1)
			die(line);
		size_t len = strtoull(strrchr(line, ' ') + 1, NULL, 10);
		char *text = socket_take(len + 2);
		text[len] = '\0';
		if (from == subscription)
			return text;
	}
}

static void open_at(const char *port)
{
	socket_open(port);
	socket_line();
	socket_print("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB ack.%d 1\r\nPING\r\n", (int)getpid());
	errno = EPROTO;
	if (strcmp(socket_line(), "PONG") != 0)
		die("CONNECT");
}

static char *ask(const char *subject, const char *json)
{
	socket_print("PUB %s ack.%d %zu\r\n%s\r\n", subject, (int)getpid(), strlen(json), json);
	return message(1);
}

static void must(const char *subject, const char *json)
{
	char *answer = ask(subject, json);

	errno = EPROTO;
	if (strstr(answer, "\"error\""))
		die(answer);
}

static void reset(const char *port)
{
	open_at(port);
	ask("$JS.API.STREAM.DELETE.bench", "");
	must("$JS.API.STREAM.CREATE.bench", "{\"name\":\"bench\",\"subjects\":[\"bench\"],\"storage\":\"file\","
					    "\"retention\":\"limits\",\"num_replicas\":1}");
}

static void send(const char *event, size_t len)
{
	socket_print("PUB bench ack.%d %zu\r\n", (int)getpid(), len);
	socket_put(event, len);
	socket_put("\r\n", 2);
	unsettled++;
}

static void settle(size_t left)
{
	for (; unsettled > left; unsettled--) {
		char *answer = message(1);
		errno = EPROTO;
		if (!strstr(answer, "\"seq\""))
			die(answer);
	}
}

static void follow(void)
{
	char json[256];

	socket_print("SUB deliver.%d 2\r\n", (int)getpid());
	snprintf(json, sizeof json,
		 "{\"stream_name\":\"bench\",\"config\":{\"deliver_subject\":\"deliver.%d\",\"deliver_policy\":\"all\","
		 "\"ack_policy\":\"none\"}}",
		 (int)getpid());
	must("$JS.API.CONSUMER.CREATE.bench", json);
}

static void receive(void)
{
	message(2);
}

const struct peer peer_nats = { "nats", reset, open_at, send, settle, follow, receive };

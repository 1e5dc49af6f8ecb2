/* peer_rabbitmq.c: a durable queue of RabbitMQ, persistent messages, publisher confirms: AMQP 0-9-1 as far as that goes. */
#include "measure.h"
#include "peer.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define METHOD(class, id) ((uint32_t)(class) << 16 | (id))
enum {
	CONNECTION_START = METHOD(10, 10),
	CONNECTION_START_OK = METHOD(10, 11),
	CONNECTION_TUNE = METHOD(10, 30),
	CONNECTION_TUNE_OK = METHOD(10, 31),
	CONNECTION_OPEN = METHOD(10, 40),
	CONNECTION_OPEN_OK = METHOD(10, 41),
	CHANNEL_OPEN = METHOD(20, 10),
	CHANNEL_OPEN_OK = METHOD(20, 11),
	QUEUE_DECLARE = METHOD(50, 10),
	QUEUE_DECLARE_OK = METHOD(50, 11),
	QUEUE_DELETE = METHOD(50, 40),
	QUEUE_DELETE_OK = METHOD(50, 41),
	BASIC_CONSUME = METHOD(60, 20),
	BASIC_CONSUME_OK = METHOD(60, 21),
	BASIC_PUBLISH = METHOD(60, 40),
	BASIC_DELIVER = METHOD(60, 60),
	BASIC_ACK = METHOD(60, 80),
	CONFIRM_SELECT = METHOD(85, 10),
	CONFIRM_SELECT_OK = METHOD(85, 11),
};

#define FRAME_METHOD 1
#define FRAME_HEADER 2
#define FRAME_BODY 3
#define FRAME_HEARTBEAT 8
#define FRAME_END '\xce'
#define FRAME_MAX_BYTES 131072
#define DELIVERY_MODE 0x1000
#define PERSISTENT 2
#define DURABLE 2
#define NO_ACK 2
#define CHANNELS 1
#define UNSETTLED_MAX 1024

/* The frame that is being written. */
static char frame[EVENT_MAX_BYTES];
static size_t frame_len;

/* By the number that a message has on its channel, the first has 1. */
static bool acknowledged[UNSETTLED_MAX];
static uint64_t lowest = 1;
static size_t unsettled;

static uint64_t read_number(const char *bytes, int len)
{
	uint64_t value = 0;

	while (len--)
		value = value << 8 | (unsigned char)*bytes++;
	return value;
}

static void put_number(uint64_t value, int len)
{
	while (len--)
		frame[frame_len++] = (char)(value >> (8 * len));
}

static void put_bytes(const char *bytes, size_t len)
{
	memcpy(frame + frame_len, bytes, len);
	frame_len += len;
}

static void put_short_string(const char *text)
{
	put_number(strlen(text), 1);
	put_bytes(text, strlen(text));
}

static void frame_begin(int type, int channel)
{
	frame_len = 0;
	put_number((uint64_t)type, 1);
	put_number((uint64_t)channel, 2);
	put_number(0, 4);
}

static void frame_send(void)
{
	size_t len = frame_len;

	frame_len = 3;
	put_number(len - 7, 4);
	frame_len = len;
	frame[frame_len++] = FRAME_END;
	socket_put(frame, frame_len);
}

static void method_begin(uint32_t method)
{
	frame_begin(FRAME_METHOD, method >> 16 != 10);
	put_number(method, 4);
}

/* The content of the next frame, which is of this type. */
static char *frame_take(unsigned type)
{
	for (;;) {
		char *head = socket_take(7);
		uint64_t got = read_number(head, 1);
		size_t len = (size_t)read_number(head + 3, 4);
		char *content = socket_take(len + 1);
		if (got == FRAME_HEARTBEAT)
			continue;
		errno = EPROTO;
		if (got != type || content[len] != FRAME_END)
			die("another frame");
		return content;
	}
}

static char *method_take(uint32_t method)
{
	char *content = frame_take(FRAME_METHOD);

	if (read_number(content, 4) != method)
		die("another method, so what was sent was refused");
	return content + 4;
}

/* A method of which all arguments are empty or 0, and its answer. */
static void call(uint32_t method, size_t zeroes, uint32_t answer)
{
	method_begin(method);
	put_number(0, (int)zeroes);
	frame_send();
	method_take(answer);
}

static void open_at(const char *port)
{
	static const char login[] = "\0guest\0guest";

	socket_open(port);
	socket_put("AMQP\0\0\x09\x01", 8);
	method_take(CONNECTION_START);
	method_begin(CONNECTION_START_OK);
	put_number(0, 4);
	put_short_string("PLAIN");
	put_number(sizeof login - 1, 4);
	put_bytes(login, sizeof login - 1);
	put_short_string("en_US");
	frame_send();
	method_take(CONNECTION_TUNE);
	method_begin(CONNECTION_TUNE_OK);
	put_number(CHANNELS, 2);
	put_number(FRAME_MAX_BYTES, 4);
	put_number(0, 2);
	frame_send();
	method_begin(CONNECTION_OPEN);
	put_short_string("/");
	put_number(0, 2);
	frame_send();
	method_take(CONNECTION_OPEN_OK);
	call(CHANNEL_OPEN, 1, CHANNEL_OPEN_OK);
	call(CONFIRM_SELECT, 1, CONFIRM_SELECT_OK);
}

static void queue_call(uint32_t method, int bits, size_t zeroes, uint32_t answer)
{
	method_begin(method);
	put_number(0, 2);
	put_short_string("bench");
	put_number((uint64_t)bits, 1);
	put_number(0, (int)zeroes);
	frame_send();
	method_take(answer);
}

static void reset(const char *port)
{
	open_at(port);
	queue_call(QUEUE_DELETE, 0, 0, QUEUE_DELETE_OK);
	queue_call(QUEUE_DECLARE, DURABLE, 4, QUEUE_DECLARE_OK);
}

static void send(const char *event, size_t len)
{
	method_begin(BASIC_PUBLISH);
	put_number(0, 3);
	put_short_string("bench");
	put_number(0, 1);
	frame_send();
	frame_begin(FRAME_HEADER, 1);
	put_number(60, 2);
	put_number(0, 2);
	put_number(len, 8);
	put_number(DELIVERY_MODE, 2);
	put_number(PERSISTENT, 1);
	frame_send();
	frame_begin(FRAME_BODY, 1);
	socket_put(frame, 3);
	frame_len = 0;
	put_number(len, 4);
	socket_put(frame, 4);
	socket_put(event, len);
	socket_put("\xce", 1);
	unsettled++;
}

/* They come in any order, and one may be of all up to its number. */
static void settle(size_t left)
{
	while (unsettled > left) {
		char *ack = method_take(BASIC_ACK);
		uint64_t last = read_number(ack, 8);
		for (uint64_t i = ack[8] & 1 ? lowest : last; i <= last; i++) {
			unsettled -= !acknowledged[i % UNSETTLED_MAX];
			acknowledged[i % UNSETTLED_MAX] = true;
		}
		for (; acknowledged[lowest % UNSETTLED_MAX]; lowest++)
			acknowledged[lowest % UNSETTLED_MAX] = false;
	}
}

static void follow(void)
{
	method_begin(BASIC_CONSUME);
	put_number(0, 2);
	put_short_string("bench");
	put_short_string("");
	put_number(NO_ACK, 1);
	put_number(0, 4);
	frame_send();
	method_take(BASIC_CONSUME_OK);
}

static void receive(void)
{
	method_take(BASIC_DELIVER);
	frame_take(FRAME_HEADER);
	frame_take(FRAME_BODY);
}

const struct peer peer_rabbitmq = { "rabbitmq", reset, open_at, send, settle, follow, receive };
